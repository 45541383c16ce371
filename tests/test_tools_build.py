"""When Sphinx runs, when it is skipped, and when the book is built from nothing."""

from __future__ import annotations

import zipfile
import zlib

import pytest

from tools import build


@pytest.fixture
def book(tmp_path, monkeypatch):
    """A repository with a staged page; Sphinx is replaced by a function that counts its calls."""
    names = {"ROOT": "", "BUILD": "_build", "STAGED": "_build/staged", "HTML": "_build/html"}
    for name, below in names.items():
        monkeypatch.setattr(build, name, tmp_path / below)
    monkeypatch.setattr(build, "STAMP", tmp_path / "_build" / "html.digest")
    monkeypatch.setattr(build, "ZIP", tmp_path / "_build" / "html" / "_static" / "book.zip")
    monkeypatch.setattr(build, "__file__", str(tmp_path / "build.py"))
    for name in ("_build/staged/_config.yml", "_build/staged/page.md", "xai_course/maps.py"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("one")
    calls = []

    def sphinx() -> int:
        calls.append((tmp_path / "_build" / "html").exists())
        (tmp_path / "_build" / "html" / "_static").mkdir(parents=True, exist_ok=True)
        (tmp_path / "_build" / "html" / "index.html").write_text("<p>book</p>")
        return 1 if (tmp_path / "bad").exists() else 0

    monkeypatch.setattr(build, "sphinx", sphinx)
    return tmp_path, calls


def test_an_unchanged_book_is_not_built_again(book):
    _, calls = book
    assert (build.main(), build.main(), len(calls)) == (0, 0, 1)
    with zipfile.ZipFile(build.ZIP) as archive:
        assert archive.namelist() == ["xai-course-book/index.html"]


@pytest.mark.parametrize(
    ("name", "kept"),
    [("_build/staged/page.md", True), ("xai_course/maps.py", True), ("_build/staged/_config.yml", False)],
)
def test_a_change_builds_again_and_new_settings_build_from_nothing(book, name, kept):
    root, calls = book
    build.main()
    (root / name).write_text("two")
    assert build.main() == 0 and calls == [False, kept]


def test_a_changed_style_sheet_alone_reaches_the_pages_under_a_new_address(book):
    """Sphinx copies no static file when no page has changed, and the page's address of it holds the old checksum."""
    root, _ = book
    style = root / "_build" / "staged" / "book" / "_static" / "course.css"
    style.parent.mkdir(parents=True)
    style.write_text("p {color: red}")
    build.main()
    page = root / "_build" / "html" / "notebooks" / "1.html"
    page.parent.mkdir()
    page.write_text('<link href="../_static/course.css?v=00000000"><link href="../_static/theme.css?v=00000001">')
    style.write_text("p {color: blue}")
    assert build.main() == 0
    assert (root / "_build" / "html" / "_static" / "course.css").read_text() == "p {color: blue}"
    fresh = f"course.css?v={zlib.crc32(b'p {color: blue}'):08x}"
    assert fresh in page.read_text() and "theme.css?v=00000001" in page.read_text()


def test_a_failure_is_not_remembered_as_built(book):
    root, calls = book
    (root / "bad").touch()
    assert (build.main(), build.main(), len(calls)) == (1, 1, 2)
    (root / "bad").unlink()
    assert build.main() == 0
