"""Open every built page once in a headless browser and say what is wrong with it, wide, as a phone, dark and on paper.

Wrong is: an error on the console, a request to another host, what does not fit (`tools.layout`), a formula that was not
set, a slider whose picture does not change under the arrow keys, an explorable that the keyboard does not operate, a
picture that does not load, a barrier that axe-core finds. The pictures of the pages lie in _build/screenshots
afterwards; looking at them is still a person's work.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import NamedTuple

from tools import BUILD
from tools.browser import HINT, Browser, find
from tools.layout import misfits, slides_misfit


class View(NamedTuple):
    name: str
    width: int
    height: int
    phone: bool = False
    dark: bool = False
    paper: bool = False


VIEWS = (
    View("wide", 1280, 900),
    View("wider", 1920, 1080),
    View("phone", 390, 844, phone=True),
    View("paper", 718, 1016, paper=True),  # A4 between the margins that browsers print with
    View("dark", 1280, 900, dark=True),
)
KEPT = ("wide", "phone", "dark")  # the views whose pictures are kept; `--all` keeps every view's
LESSON = (View("slides", 1280, 720), View("slides-phone", 390, 844, phone=True))
SKIPPED = ("genindex", "search", "py-modindex")
AXE_LIMIT = 15000  # elements; on longer pages (the library) the accessibility checker takes minutes
STILL = "* { transition: none !important }"  # or colours would be judged on their way from light to dark
SLIDERS = "[...document.querySelectorAll('.bd-article :is(.xai-slider, .cell_output) input[type=range]')]"
CONTROLS = "[...document.querySelectorAll('figure.explorable :is(input, button, [tabindex])')]"
SHOWN = "[...{slider}.closest('.xai-slider, .cell_output').querySelectorAll('img')].filter(i => !i.hidden)"


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *ignored: object) -> None:
        pass


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """The folder at a local address while the block runs."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()


def pages(html: Path) -> list[Path]:
    """Every page of the book; generated indices and redirects are left out."""
    found = [*(html / "book").rglob("*.html"), *(html / "notebooks").rglob("*.html")]
    return sorted(path for path in found if path.stem not in SKIPPED)


def console_errors(events: list[dict]) -> list[str]:
    """What the page reports as an error: exceptions, console.error, resources that failed."""
    found = []
    for event in events:
        about = event.get("params", {})
        if event["method"] == "Runtime.exceptionThrown":
            details = about["exceptionDetails"]
            found.append(details.get("exception", {}).get("description", details["text"]).splitlines()[0])
        elif event["method"] == "Runtime.consoleAPICalled" and about["type"] == "error":
            found.append(" ".join(str(a.get("value", a.get("description", ""))) for a in about["args"]))
        elif event["method"] == "Log.entryAdded" and about["entry"]["level"] == "error":
            found.append(f"{about['entry']['text']} {about['entry'].get('url', '')}")
    return [f"console: {text}" for text in found]


def foreign_requests(events: list[dict], base: str) -> list[str]:
    """Requests that leave this machine."""
    urls = [e["params"]["request"]["url"] for e in events if e["method"] == "Network.requestWillBeSent"]
    return [f"requests {url}" for url in urls if not url.startswith((base, "data:", "blob:", "about:", "chrome"))]


def raw_formulas(browser: Browser) -> list[str]:
    """Formulas that stayed TeX, or that MathJax could not read."""
    script = """[...document.querySelectorAll('.math')].filter(e => !e.querySelector('mjx-container')).length
      + document.querySelectorAll('mjx-merror').length"""
    count = browser.evaluate(script)
    return [f"{count} formulas were not set"] if count else []


def broken_images(browser: Browser) -> list[str]:
    """Pictures that did not load, hidden frames of a slider among them."""
    script = """Promise.all([...document.images].map(async i => { i.loading = 'eager';
      try { await i.decode(); return '' } catch (e) { return i.src.slice(0, 80) } }))"""
    return [f"picture does not load: {src}" for src in filter(None, browser.evaluate(script))]


def stuck_sliders(browser: Browser) -> list[str]:
    """Sliders whose picture does not change when the arrow key moves them through all their stops."""
    found = []
    for at in range(browser.evaluate(f"{SLIDERS}.length")):
        slider = f"{SLIDERS}[{at}]"
        browser.evaluate(f"{slider}.value = {slider}.min; {slider}.dispatchEvent(new Event('input')); {slider}.focus()")
        steps = browser.evaluate(f"({slider}.max - {slider}.min) / {slider}.step")
        frames = [browser.evaluate(f"{SHOWN.format(slider=slider)}.map(i => i.src).join()")]
        for _ in range(int(steps)):
            browser.press("ArrowRight")
            frames.append(browser.evaluate(f"{SHOWN.format(slider=slider)}.map(i => i.src).join()"))
        if len(set(frames)) < 2 or any(a == b for a, b in itertools.pairwise(frames)):
            found.append(f"slider {at}: the arrow key does not change the picture at every stop")
    return found


def stuck_explorables(browser: Browser) -> list[str]:
    """Explorables that did not start, and controls of theirs that the keyboard does not operate."""
    still = "[...document.querySelectorAll('figure.explorable:not([data-live])')].map(f => f.dataset.explorable)"
    found = [f"explorable {name} did not start" for name in browser.evaluate(still)]
    for at in range(browser.evaluate(f"{CONTROLS}.length")):
        control = f"{CONTROLS}[{at}]"
        kind = browser.evaluate(f"{control}.type || {control}.getAttribute('role')")
        if kind == "radio" and browser.evaluate(f"{control}.checked"):
            continue  # the others of its group are pressed
        figure = f"{control}.closest('figure')"
        state = f"{figure}.querySelector('.ex-stage').innerHTML + {figure}.dataset.pressed"
        if kind == "button":  # may rightly leave all as it is, so that it listens is all that can be asked
            note = f"{figure}.dataset.pressed = {at}"
            browser.evaluate(f"{control}.addEventListener('click', () => {{ {note} }}, {{once: true}}); 0")
        if kind == "radio":
            note = f"{figure}.dataset.pressed = {at}"
            browser.evaluate(f"{control}.addEventListener('change', () => {{ {note} }}, {{once: true}}); 0")
        before = browser.evaluate(f"{control}.focus(); {state}")
        for key in {"button": ("Enter",), "radio": (" ",), "application": (" ",)}.get(
            kind, ("ArrowLeft", "ArrowRight")
        ):
            browser.press(key)
            if browser.evaluate(state) != before:
                break
        else:
            name = browser.evaluate(
                f"{control}.getAttribute('aria-label') || {control}.closest('label, fieldset, p, button').textContent"
            )
            found.append(f"explorable: the keyboard does not operate {name.strip()[:40]!r}")
    return found


@functools.cache
def axe() -> str:
    """The accessibility checker's source, '' where its package is not installed."""
    try:
        found = distribution("axe-core-python").locate_file("axe_core_python/axe.min.js")
    except PackageNotFoundError:
        return ""
    return Path(found).read_text("utf-8")


def barriers(browser: Browser, dark: bool) -> list[str]:
    """What a reader with a screen reader, a keyboard or weak eyes would stumble over (WCAG 2, levels A and AA)."""
    if not axe() or browser.evaluate("document.querySelectorAll('*').length") > AXE_LIMIT:
        return []
    browser.evaluate(f"{axe()};0")
    # Left out: docutils gives each reference a role that browsers know and the checker calls outdated, and sphinx-proof
    # gives all its boxes one id that nothing refers to. Formulas go: their thousands of elements are the renderer's own
    # and would keep the checker busy for half a minute.
    browser.evaluate("document.querySelectorAll('mjx-container').forEach(formula => formula.replaceWith('x'))")
    browser.evaluate(
        f"document.head.append(Object.assign(document.createElement('style'), {{textContent: '{STILL}'}}))"
    )
    browser.settle()
    options = "resultTypes: ['violations'], rules: {'duplicate-id': {enabled: false}}, runOnly: "
    options += "['color-contrast']" if dark else "['wcag2a', 'wcag2aa']"
    script = f"""axe.run({{exclude: [['.citation-list']]}}, {{{options}}}).then(r => r.violations.map(
      v => v.id + ' (' + v.nodes.length + '): ' + v.nodes[0].html.slice(0, 120)))"""
    return [f"barrier: {text}" for text in browser.evaluate(script)]


def unfit(browser: Browser, view: View) -> list[str]:
    """What does not fit, with all that is folded open: browsers open it when they print, and so does the page."""
    browser.evaluate("dispatchEvent(new Event('beforeprint')); 0")
    browser.settle()
    found = misfits(browser, view.width, paper=view.paper)
    browser.evaluate("dispatchEvent(new Event('afterprint')); 0")
    return found


def working(browser: Browser) -> list[str]:
    """What is wrong with a page whatever its size: formulas, pictures, and all that a reader can move."""
    return raw_formulas(browser) + broken_images(browser) + stuck_sliders(browser) + stuck_explorables(browser)


def check_page(
    browser: Browser, base: str, name: str, out: Path | None = None, *, views: tuple[View, ...] = VIEWS, kept=KEPT
) -> list[str]:
    """Everything that is wrong with one page, as ``(view): what``. It is loaded once and follows its window."""
    browser.open("about:blank")
    found = []
    for at, view in enumerate(views):
        browser.view(*view[1:3], phone=view.phone, dark=view.dark, paper=view.paper)
        if not at:
            browser.open(f"{base}/{name}")
        problems = [] if view.dark else unfit(browser, view)
        if view.dark and browser.evaluate("document.documentElement.dataset.theme") != "dark":
            problems.append("does not follow the reader's wish for dark colours")
        if out and view.name in kept:
            browser.picture(out / f"{name.removesuffix('.html').replace('/', '-')}-{view.name}.png")
        found += [f"({view.name}): {problem}" for problem in problems]
    for at, view in enumerate(views):  # after all pictures: this moves what can be moved, and takes the formulas out
        if at and not view.dark:
            continue
        browser.view(*view[1:3], phone=view.phone, dark=view.dark)
        problems = ([] if at else working(browser)) + barriers(browser, view.dark)
        found += [f"({view.name}): {problem}" for problem in problems]
    heard = console_errors(browser.events) + foreign_requests(browser.events, base)
    return list(dict.fromkeys(found)) + [f"({views[0].name}): {problem}" for problem in dict.fromkeys(heard)]


def check_deck(browser: Browser, base: str, name: str) -> list[str]:
    """Everything that is wrong with the slides of a lesson, on a screen and on a phone."""
    browser.open("about:blank")
    found = []
    for at, view in enumerate(LESSON):
        browser.view(*view[1:3], phone=view.phone)
        if not at:
            browser.open(f"{base}/{name}")
        found += [f"({view.name}): {problem}" for problem in slides_misfit(browser, *view[1:3])]
    heard = raw_formulas(browser) + broken_images(browser)
    heard += console_errors(browser.events) + foreign_requests(browser.events, base)
    return found + [f"({LESSON[0].name}): {problem}" for problem in dict.fromkeys(heard)]


def check(html: Path, out: Path | None = None, only: str = "", kept: tuple[str, ...] = KEPT) -> list[str]:
    """All problems of a built book, as ``page (view): what``."""
    found = []
    with served(html) as base, Browser(find() or "") as browser:
        for name in [path.relative_to(html).as_posix() for path in pages(html)]:
            if only in name:
                found += [f"{name} {problem}" for problem in check_page(browser, base, name, out, kept=kept)]
        for name in [path.relative_to(html).as_posix() for path in sorted(html.glob("_static/slides/*.html"))]:
            if only in name:
                found += [f"{name} {problem}" for problem in check_deck(browser, base, name)]
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("only", nargs="?", default="", help="open only pages whose name holds this text")
    parser.add_argument("--all", action="store_true", help="keep a picture of every view, not only of three")
    given = parser.parse_args()
    if not find():
        print(f"look: skipped, {HINT}")
        return 0
    if not (BUILD / "html" / "index.html").is_file():
        print("look: there is no built book; run make book", file=sys.stderr)
        return 1
    kept = tuple(view.name for view in VIEWS) if given.all else KEPT
    found = check(BUILD / "html", BUILD / "screenshots", given.only, kept)
    for problem in found:
        print(problem, file=sys.stderr)
    print(f"look: {len(found)} problems on {len(pages(BUILD / 'html'))} pages; pictures in _build/screenshots")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
