"""The browser check finds each fault on a page made for it. Skipped where there is no Chromium."""

from __future__ import annotations

import base64
import struct
import zlib

import pytest

from tools import screenshots
from tools.browser import HINT, Browser, find

pytestmark = pytest.mark.skipif(find() is None, reason=HINT)
WIDE, WIDER, PHONE, PAPER, DARK = screenshots.VIEWS


def png(grey: int) -> str:
    """A picture of one grey pixel as a data address."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    head = struct.pack(">IIBBBBB", 1, 1, 8, 0, 0, 0, 0)
    body = chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(bytes([0, grey]))) + chunk(b"IEND", b"")
    return "data:image/png;base64," + base64.b64encode(b"\x89PNG\r\n\x1a\n" + body).decode()


def slider(move: str) -> str:
    frames = "".join(f'<img src="{png(80 * i)}" alt="frame {i}" {"hidden" if i else ""}>' for i in range(3))
    knob = f'<input type="range" min="0" max="2" value="0" step="1" aria-label="margin" oninput="{move}">'
    return f'<div class="xai-slider">{knob}<div>{frames}</div></div>'


MOVE = "const v=this.value;this.closest('.xai-slider').querySelectorAll('img').forEach((g,i)=>{g.hidden=i!=v})"
DARK_SCRIPT = """const dark = matchMedia('(prefers-color-scheme: dark)');
const dress = () => { document.documentElement.dataset.theme = dark.matches ? 'dark' : ''; };
dark.addEventListener('change', dress); dress();"""


def page(body: str, script: str = DARK_SCRIPT) -> str:
    head = '<meta name="viewport" content="width=device-width"><title>A page</title><link rel="icon" href="data:,">'
    article = f'<main class="bd-article"><h1>Title</h1>{body}</main>'
    return f'<!doctype html><html lang="en"><head>{head}<script>{script}</script></head><body>{article}</body></html>'


@pytest.fixture(scope="module")
def browser():
    with Browser(find()) as opened:
        yield opened


@pytest.fixture
def problems(browser, tmp_path):
    def of(body: str, *views, **more) -> str:
        (tmp_path / "page.html").write_text(page(body, **more))
        with screenshots.served(tmp_path) as base:
            found = screenshots.check_page(browser, base, "page.html", tmp_path / "out", views=views or (WIDE,))
            return "\n".join(found)

    return of


def test_a_sound_page_passes_in_every_view_and_is_loaded_once(problems, tmp_path, browser, monkeypatch):
    opened = []
    monkeypatch.setattr(browser, "open", lambda url: opened.append(url) or Browser.open(browser, url))
    body = slider(MOVE) + f'<img src="{png(9)}" alt="A grey point.">'
    assert problems(body, *screenshots.VIEWS) == ""
    assert [url for url in opened if "page.html" in url] == opened[1:]
    assert {path.name for path in (tmp_path / "out").iterdir()} == {f"page-{n}.png" for n in ("wide", "phone", "dark")}


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("<script>throw new Error('broken widget')</script>", "broken widget"),
        ("<script>console.error('not well')</script>", "not well"),
        ('<img src="gone.png" alt="A picture that is not there.">', "picture does not load"),
        ('<span class="math">\\(x^2\\)</span>', "formulas were not set"),
        (slider(""), "slider 0"),
        ("<script>fetch('http://localhost:9/x').catch(() => 0)</script>", "requests http://localhost:9/x"),
        (f'<img src="{png(9)}">', "barrier: image-alt"),
        ('<p style="color:#aaa;background:#bbb">faint</p>', "barrier: color-contrast"),
    ],
)
def test_a_fault_is_found(problems, body, expected):
    assert expected in problems(body)


def test_a_page_wider_than_a_phone_is_found(problems):
    wide = '<div style="width: 900px">wide</div>'
    assert "(phone): scrolls sideways: 9" in problems(wide, WIDE, PHONE) and "sideways" not in problems(wide)


MARKED = 'class="scrolls" tabindex="0"'
LONG = '<div style="width: 3000px; height: 9px"></div>'
ROW = '<tr><td style="{look}">name</td><td><div style="width: 3000px">1</div></td></tr>'


def boxed(inside: str, more: str = MARKED, tag: str = "div") -> str:
    return f'<{tag} {more} style="display: block; overflow-x: auto">{inside}</{tag}>'


@pytest.mark.parametrize(
    ("body", "view", "expected"),
    [
        (f'<div style="overflow: hidden">{LONG}</div>', WIDE, "cut off by"),
        (boxed(LONG, ""), PHONE, "scrolls and does not show it by"),
        (boxed(LONG), WIDER, "scrolls on a screen by"),
        (boxed(LONG), PAPER, "cut off on paper by"),
        (boxed(ROW.format(look=""), tag="table"), PHONE, "its first column does not stand"),
        ("<details><summary>Proof</summary>It is so.</details>", PAPER, "stays folded on paper"),
    ],
)
def test_what_does_not_fit_is_found(problems, body, view, expected):
    assert f"({view.name}): {expected}" in problems(body, view)


def test_what_scrolls_as_it_should_is_let_pass(problems):
    assert problems(boxed(LONG), PHONE) == ""  # a formula or code on a phone, marked and reached by keyboard
    assert problems(boxed(ROW.format(look="position: sticky; left: 0"), tag="table"), WIDE, PHONE) == ""
    assert problems('<div class="bd-article"><div class="cell_output">' + boxed(LONG) + "</div></div>") == ""


def test_a_page_that_stays_light_is_found(problems):
    assert "dark colours" in problems("<p>text</p>", WIDE, DARK, script="")


def explorable(inside: str, live: str = 'data-live="yes"') -> str:
    return f'<figure class="explorable" data-explorable="toy" {live}><div class="ex-stage">{inside}</div></figure>'


KNOB = '<label>x<input type="range" min="0" max="3" value="1" oninput="{act}"></label><output>1</output>'
TELL = "this.closest('div').querySelector('output').textContent = this.value"
POINT = '<svg><circle r="9" cx="9" cy="9" tabindex="0" role="slider" aria-label="p" aria-valuenow="1"></circle></svg>'


def test_an_explorable_that_did_not_start_or_ignores_the_keyboard_is_found(problems):
    assert "explorable toy did not start" in problems(explorable("", live=""))
    assert "the keyboard does not operate 'x'" in problems(explorable(KNOB.format(act="")))
    assert "the keyboard does not operate 'p'" in problems(explorable(POINT))
    assert "explorable" not in problems(explorable(KNOB.format(act=TELL)))


PICTURE = (
    "data:image/svg+xml,%3Csvg xmlns='http://www.w3.org/2000/svg' width='{0}' height='100'%3E"
    "%3Crect width='{0}' height='99'/%3E%3C/svg%3E"
)
SOUND_SLIDE = "<section><h2>One</h2><p>Something.</p><footer>1</footer></section>"
SLIDE_FAULTS = {
    "empty": ("<section><h2>Two</h2><footer>2</footer></section>", "(slides): slide 2 is empty"),
    "tall": ("<section><h2>Two</h2><p style='height:800px'>x</p></section>", "(slides): slide 2 is 8"),
    "wide": ("<section><p style='width:500px'>x</p></section>", "(slides-phone): slide 2 is wider than the screen: p"),
    "small": (
        f'<section><img src="{PICTURE.format(900)}" alt="" style="max-width:100%"></section>',
        "(slides-phone): slide 2 shows its picture at 0.4",
    ),
    "scrolls": (
        f'<section><div class="wide"><img src="{PICTURE.format(1400)}" alt="" style="max-width:none"></div></section>',
        "(slides): slide 2 has something that scrolls on a screen",
    ),
    "typed": (r"<section><p>\(x\)</p></section>", "(slides): slide 2 shows a formula as it was typed"),
    "no picture": ('<section><img src="no.svg" alt=""></section>', "(slides): picture does not load"),
}


def deck_problems(browser, tmp_path, slides: str) -> str:
    from tools.slides import PAGE

    text = PAGE.format(title="T", slides=SOUND_SLIDE + slides)
    text = text.replace(
        '<script defer src="../vendor/mathjax/tex-chtml.js"></script>', '<link rel="icon" href="data:,">'
    )
    (tmp_path / "deck.html").write_text(text)
    with screenshots.served(tmp_path) as base:
        return "\n".join(screenshots.check_deck(browser, base, "deck.html"))


def test_a_slide_whose_picture_scrolls_on_a_phone_is_sound(browser, tmp_path):
    picture = f'<section><div class="wide"><img src="{PICTURE.format(900)}" alt=""></div><p>It is wide.</p></section>'
    assert deck_problems(browser, tmp_path, picture) == ""


@pytest.mark.parametrize(("slide", "said"), SLIDE_FAULTS.values(), ids=SLIDE_FAULTS)
def test_a_broken_slide_is_named(browser, tmp_path, slide, said):
    assert said in deck_problems(browser, tmp_path, slide)
