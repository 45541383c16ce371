"""Gates on the built pages: complete, readable without a network and without eyes, buttons that lead somewhere."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import yaml
from snowballstemmer import stemmer
from sphinx.search.en import english_stopwords

from tools import search, tables

REMOTE = re.compile(r"^(https?:)?//", re.I)
CSS_REMOTE = re.compile(r"(?:url\(\s*['\"]?|@import\s+['\"])((?:https?:)?//[^'\")\s]+)", re.I)
LOADED_LINKS = {"stylesheet", "preload", "icon", "shortcut", "modulepreload", "prefetch"}
RAW_TABLE = re.compile(r"\|[ \t]*:?(?:-{3,}|—+):?[ \t]*\|")  # the second line of a table that was not set as one
NUMBER = re.compile(r"^\d+(\.\d+)*\.\s+")  # of a chapter, before its title
APART = ("style", "script", "title", "pre", "code")  # text in these is no running text
LAUNCH = re.compile(r"(?:github\.com|/github)/[\w.-]+/[\w.-]+/(?:blob|edit|raw)/[^/]+/([^?#]+)")


class Page(HTMLParser):
    """What a browser would fetch for a page, its pictures, and where its links go."""

    def __init__(self, source: str):
        super().__init__()
        self.fetched: list[str] = []
        self.images: list[dict] = []
        self.links: list[str] = []
        self.title = self.text = ""
        self.columns = [0]  # of each row of each table
        self._within: list[str] = []
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
        if tag == "tr":
            self.columns.append(0)
        if tag in ("td", "th"):
            self.columns[-1] += int(at.get("colspan") or 1)
        if tag in APART:
            self._within.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if self._within[-1:] == [tag]:
            self._within.pop()

    def handle_data(self, data: str) -> None:
        within = self._within[-1] if self._within else ""
        if within == "style":
            self.fetched += CSS_REMOTE.findall(data)
        elif within == "title":
            self.title += data
        elif not within:
            self.text += data


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


def tables_set(page: Page) -> list[str]:
    """Tables are tables, and no wider than a reader can follow."""
    found = [f"a table has {most} columns, at most {tables.MOST}" for most in [max(page.columns)] if most > tables.MOST]
    return found + (["a table is shown as raw text"] if RAW_TABLE.search(page.text) else [])


def own_titles(titles: dict[str, str]) -> list[str]:
    """No two pages have the same title: it is what a tab, a search result and a bookmark show."""
    names: dict[str, list[str]] = {}
    for name, title in titles.items():
        names.setdefault(NUMBER.sub("", title.strip()).lower(), []).append(name)
    return [f"{' and '.join(same)} have one title: {titles[same[0]]!r}" for same in names.values() if len(same) > 1]


def searched(index: str, stem, wanted: dict[str, str] = search.KNOWN_AS) -> list[str]:
    """A reader who types a page's other names into the search box finds it."""
    read = json.loads(index.removeprefix("Search.setIndex(").rstrip().removesuffix(")"))
    return [
        f"search for {word!r} does not find {page}"
        for page, words in wanted.items()
        for word in words.split()
        if word not in english_stopwords and page in read["docnames"] and page not in search.found(read, stem, word)
    ]


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
    return offline(page) + alt_texts(page) + launch_targets(page, tracked) + tables_set(page)


def check_all(root: Path) -> list[str]:
    html = root / "_build" / "html"
    toc = yaml.safe_load((root / "_toc.yml").read_text("utf-8"))
    found, tracked = pages_exist(toc, html) + sources_listed(toc, root), tracked_files(root)
    titles = {}
    for path in sorted(html.rglob("*.html")):
        if "_static" not in path.parts:
            page = Page(path.read_text("utf-8"))
            if {"book", "notebooks"} & set(path.relative_to(html).parts):
                titles[path.relative_to(html).as_posix()] = page.title
            problems = check_page(page, tracked) + links_exist(page, path)
            found += [f"{path.relative_to(html)}: {problem}" for problem in dict.fromkeys(problems)]
    found += own_titles(titles) + searched((html / "searchindex.js").read_text("utf-8"), stemmer("porter").stemWord)
    for path in sorted(html.rglob("*.css")):
        remote = CSS_REMOTE.findall(path.read_text("utf-8"))
        found += [f"{path.relative_to(html)}: needs {address} from the network" for address in remote]
    return found
