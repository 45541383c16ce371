"""Gates on the built pages: complete, readable without a network and without eyes, buttons that lead somewhere."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import yaml

REMOTE = re.compile(r"^(https?:)?//", re.I)
CSS_REMOTE = re.compile(r"(?:url\(\s*['\"]?|@import\s+['\"])((?:https?:)?//[^'\")\s]+)", re.I)
LOADED_LINKS = {"stylesheet", "preload", "icon", "shortcut", "modulepreload", "prefetch"}
LAUNCH = re.compile(r"(?:github\.com|/github)/[\w.-]+/[\w.-]+/(?:blob|edit|raw)/[^/]+/([^?#]+)")


class Page(HTMLParser):
    """What a browser would fetch for a page, its pictures, and where its links go."""

    def __init__(self, source: str):
        super().__init__()
        self.fetched: list[str] = []
        self.images: list[dict] = []
        self.links: list[str] = []
        self._style = False
        self.feed(source)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        at = {name: value or "" for name, value in attrs}
        if tag in ("script", "img", "iframe", "source", "video", "audio", "embed", "input") and at.get("src"):
            self.fetched.append(at["src"])
        if tag == "link" and LOADED_LINKS & set(at.get("rel", "").lower().split()):
            self.fetched.append(at.get("href", ""))
        if tag == "img":
            self.images.append(dict(attrs))
        if tag == "a" and at.get("href"):
            self.links.append(at["href"])
        self.fetched += CSS_REMOTE.findall(at.get("style", ""))
        self._style = tag == "style"

    def handle_data(self, data: str) -> None:
        if self._style:
            self.fetched += CSS_REMOTE.findall(data)


def toc_entries(toc: dict) -> Iterator[str]:
    """Every file that a _toc.yml names."""
    for key in ("root", "file"):
        if key in toc:
            yield str(toc[key])
    for part in [*toc.get("parts", []), *toc.get("chapters", []), *toc.get("sections", [])]:
        yield from toc_entries(part)


def pages_exist(toc: dict, html: Path) -> list[str]:
    """Sphinx skips a file it cannot use; here that counts."""
    names = [re.sub(r"\.(md|ipynb)$", "", name) for name in toc_entries(toc)]
    return [f"_toc.yml names {name}, but there is no page" for name in names if not (html / f"{name}.html").is_file()]


def sources_listed(toc: dict, root: Path) -> list[str]:
    """No page and no notebook lies in the repository without a place in the table of contents."""
    listed = {re.sub(r"\.(md|ipynb)$", "", name) for name in toc_entries(toc)}
    there = [*(root / "book").rglob("*.md"), *(root / "notebooks").glob("*.ipynb")]
    names = [path.relative_to(root).with_suffix("").as_posix() for path in sorted(there)]
    return [f"{name} is not in _toc.yml" for name in names if name not in listed]


def offline(page: Page) -> list[str]:
    """No script, style, font or picture from elsewhere."""
    return [f"needs {address} from the network" for address in page.fetched if REMOTE.match(address)]


def alt_texts(page: Page) -> list[str]:
    """Each picture has an alternative text that is not its file's name; alt="" would hide it from a screen reader."""
    found = []
    for image in page.images:
        alt, name = (image.get("alt") or "").strip(), (image.get("src") or "")[:60]
        if not alt or re.fullmatch(r"\S+\.(png|jpe?g|svg|gif)", alt):
            found.append(f"picture {name} has the alternative text {alt!r}")
    return found


def links_exist(page: Page, path: Path) -> list[str]:
    """Links within the book, and the files that a page loads, lead to files that were built."""
    inner = [link for link in page.links + page.fetched if not re.match(r"[a-z]+:|//|#", link, re.I)]
    targets = {unquote(re.split(r"[?#]", link)[0]) for link in inner}
    return [f"a link leads to {t}, which is not there" for t in sorted(targets) if not (path.parent / t).exists()]


def launch_targets(page: Page, tracked: set[str]) -> list[str]:
    """Launch, edit and source buttons lead to files that git knows."""
    wanted = {unquote(found[1]) for link in page.links if (found := LAUNCH.search(link))}
    return [f"a button leads to {name}, which git does not track" for name in sorted(wanted - tracked)]


def tracked_files(root: Path) -> set[str]:
    """What git tracks; outside a work tree (an unpacked archive) every file that is there."""
    done = subprocess.run(["git", "-C", str(root), "ls-files", "-z"], capture_output=True, text=True, check=False)
    if done.returncode == 0 and done.stdout:
        return set(done.stdout.split("\0"))
    return {
        path.relative_to(root).as_posix() for folder in ("book", "notebooks") for path in (root / folder).rglob("*")
    }


def check_page(page: Page, tracked: set[str]) -> list[str]:
    """Every gate that needs nothing but the page."""
    return offline(page) + alt_texts(page) + launch_targets(page, tracked)


def check_all(root: Path) -> list[str]:
    html = root / "_build" / "html"
    toc = yaml.safe_load((root / "_toc.yml").read_text("utf-8"))
    found, tracked = pages_exist(toc, html) + sources_listed(toc, root), tracked_files(root)
    for path in sorted(html.rglob("*.html")):
        if "_static" not in path.parts:
            page = Page(path.read_text("utf-8"))
            problems = check_page(page, tracked) + links_exist(page, path)
            found += [f"{path.relative_to(html)}: {problem}" for problem in dict.fromkeys(problems)]
    for path in sorted(html.rglob("*.css")):
        remote = CSS_REMOTE.findall(path.read_text("utf-8"))
        found += [f"{path.relative_to(html)}: needs {address} from the network" for address in remote]
    return found
