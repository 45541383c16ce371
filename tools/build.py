"""Build the staged book with Sphinx, strictly; skipped where nothing that Sphinx reads has changed."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
import zipfile
import zlib
from collections.abc import Iterable
from pathlib import Path

from tools import BUILD, ROOT, building, write_if_changed

STAGED, HTML = BUILD / "staged", BUILD / "html"
STAMP = BUILD / "html.digest"
ASKED = re.compile(r"(?P<file>_static/[\w./-]+\.(?:css|js))\?v=[0-9a-f]{8}")  # how a page asks for a static file
ZIP = HTML / "_static" / "xai-course-book.zip"


def digest(paths: Iterable[Path]) -> str:
    total = hashlib.sha256()
    for path in sorted(paths):
        if path.is_file():
            total.update(f"{path.relative_to(ROOT)}\0".encode() + path.read_bytes())
    return total.hexdigest()


def state() -> tuple[str, str]:
    """Hashes of the settings, and of all that Sphinx reads: the staged tree, the package (for its docstrings)."""
    settings = [STAGED / "_config.yml", ROOT / "constraints.txt", ROOT / "tools" / "sphinx_tidy.py", Path(__file__)]
    return digest(settings), digest([*settings, *STAGED.rglob("*"), *(ROOT / "xai_course").rglob("*.py")])


def sphinx() -> int:
    """``jupyter-book build`` with warnings as errors; its many lines are shown only when something is wrong."""
    command = [str(Path(sys.executable).with_name("jupyter-book")), "build", str(STAGED), "--path-output", str(ROOT)]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore", "NO_COLOR": "1"}
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    done = subprocess.run(
        [*command, "-W", "-n", "--keep-going"], capture_output=True, text=True, env=environment, check=False
    )
    if done.returncode:
        lines = dict.fromkeys((done.stderr.strip() or done.stdout[-4000:]).splitlines())  # Sphinx repeats itself
        print("\n".join(lines), file=sys.stderr)
    return done.returncode


def carry_static() -> None:
    """Bring every static file of the staged tree to the pages, and their address, which holds a checksum, up to date.

    Sphinx copies static files only when some page has changed, and then leaves the old addresses in the other pages: a
    reader's browser would go on showing the style sheet that it has kept.
    """
    static = STAGED / "book" / "_static"
    for path in [p for p in static.rglob("*") if p.is_file()]:
        write_if_changed(HTML / "_static" / path.relative_to(static), path.read_bytes())

    def asked(found: re.Match[str]) -> str:
        path = HTML / found["file"]
        body = path.read_bytes().replace(b"\r", b"") if path.is_file() else b""
        return f"{found['file']}?v={zlib.crc32(body):08x}" if body else found[0]

    for page in HTML.rglob("*.html"):
        write_if_changed(page, ASKED.sub(asked, page.read_text("utf-8")).encode())


def pack() -> None:
    """The whole book as one zip for reading without a network, offered on the how-to page."""
    ZIP.unlink(missing_ok=True)
    part = ZIP.with_suffix(".part")
    with zipfile.ZipFile(part, "w", zipfile.ZIP_DEFLATED, compresslevel=6) as archive:
        for path in sorted(HTML.rglob("*")):
            if path.is_file() and path != part:
                archive.write(path, Path("xai-course-book") / path.relative_to(HTML))
    part.replace(ZIP)


def forget() -> None:
    """Build from nothing: Sphinx keeps pages that new settings would change, and warns about a page only once."""
    for folder in (HTML, BUILD / ".doctrees"):
        shutil.rmtree(folder, ignore_errors=True)


def main() -> int:
    settings, everything = state()
    before = STAMP.read_text().split() if STAMP.is_file() else ["", ""]
    if before[1] == everything and (HTML / "index.html").is_file():
        print("sphinx: nothing changed")
        return 0
    STAMP.unlink(missing_ok=True)
    if before[0] != settings:
        forget()
    if status := sphinx():
        print("sphinx: failed, see the warnings above", file=sys.stderr)
        return status
    carry_static()
    pack()
    STAMP.write_text(f"{settings} {everything}")
    print("sphinx: built, no warnings")
    return 0


if __name__ == "__main__":
    with building():
        sys.exit(main())
