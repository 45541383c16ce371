"""What the pages' own scripts do: boxes that scroll are marked, folds open on paper, references show on hover."""

from __future__ import annotations

import json

import pytest

from tools import ROOT
from tools.browser import HINT, Browser, find

pytestmark = pytest.mark.skipif(find() is None, reason=HINT)
STATIC = ROOT / "book" / "_static"
BODY = """<p>See <a class="reference internal" id="eq" href="#equation-one">(1)</a>, a
<a class="reference internal" id="term" href="glossary.html#term-GAP">GAP</a>, a
<a class="reference internal" id="far" href="other.html#there">there</a> and
<a class="reference internal" id="prop" href="#prop-one">Proposition 1</a>.</p>
<div class="math" id="equation-one">x = 1</div>
<div class="proof admonition" id="prop-one"><p>It holds. <a href="#eq">Why</a></p></div>
<pre style="overflow: auto">{wide}</pre>
<figure class="drawn"><img src="{picture}" alt="A wide drawing."></figure>
<details><summary>Proof</summary>Folded.</details>"""
GLOSSARY = {"term-GAP": ["GAP", "The mean of each feature map."]}


@pytest.fixture(scope="module")
def browser():
    with Browser(find()) as opened:
        yield opened


@pytest.fixture
def page(browser, tmp_path):
    scripts = [f"globalThis.GLOSSARY = {json.dumps(GLOSSARY)};"]
    scripts += [(STATIC / name).read_text("utf-8") for name in ("course.js", "hover.js")]
    head = f"<style>{(STATIC / 'course.css').read_text('utf-8')}</style>"
    head += "".join(f"<script>{script}</script>" for script in scripts)
    (tmp_path / "wide.svg").write_text('<svg xmlns="http://www.w3.org/2000/svg" width="900" height="90"></svg>')
    body = BODY.format(wide="x = 1; " * 200, picture="wide.svg")
    (tmp_path / "page.html").write_text(f'{head}<main class="bd-article">{body}</main>', encoding="utf-8")
    browser.view(1280, 900)
    browser.open((tmp_path / "page.html").as_uri())
    return browser


TIP = "document.getElementById('tip').hidden ? '' : document.getElementById('tip').textContent.trim()"


def shown(page, name: str) -> str:
    page.evaluate(f"document.activeElement.blur(); document.getElementById('{name}').focus(); 0")
    page.settle()
    return page.evaluate(TIP)


def test_a_reference_shows_what_it_leads_to_and_escape_closes_it(page):
    assert shown(page, "eq") == "x = 1"
    assert page.evaluate("document.getElementById('eq').getAttribute('aria-describedby')") == "tip"
    assert page.evaluate("document.querySelectorAll('#equation-one').length") == 1  # the copy has no id
    page.evaluate("dispatchEvent(new KeyboardEvent('keydown', {key: 'Escape'})); 0")
    assert page.evaluate(TIP) == ""
    assert shown(page, "term") == "GAP. The mean of each feature map."
    assert shown(page, "prop") == "It holds. Why" and page.evaluate("document.querySelectorAll('#tip a').length") == 0


def test_a_page_opened_as_a_file_reads_no_other(page):
    assert shown(page, "far") == ""
    assert not [e for e in page.events if "other.html" in json.dumps(e)]


def test_what_scrolls_is_marked_and_what_fits_again_is_not(page):
    box = "(({classList: c, tabIndex: t, dataset: d}) => [c.contains('scrolls'), t, 'more' in d])"
    box = f"{box}(document.querySelector('pre'))"
    assert page.evaluate(box) == [True, 0, True]
    page.evaluate("document.querySelector('pre').scrollLeft = 1e6; 0")
    page.settle()
    assert page.evaluate(box) == [True, 0, False]  # nothing more to the right
    page.evaluate("document.querySelector('pre').textContent = 'short'; dispatchEvent(new Event('resize')); 0")
    page.settle()
    assert page.evaluate(box) == [False, -1, False]


def test_a_wide_drawing_is_not_shrunk_on_a_phone_but_scrolls(page):
    state = """(([image, figure]) => [image.clientWidth, figure.classList.contains('scrolls'), figure.tabIndex])(
      [document.querySelector('img'), document.querySelector('figure')])"""
    assert page.evaluate(state) == [900, False, -1]
    page.view(390, 844)
    assert page.evaluate(state) == [640, True, 0]
    page.view(1280, 900)
    assert page.evaluate(state) == [900, False, -1]


def test_folds_are_open_while_a_page_is_printed(page):
    states = []
    for event in ("beforeprint", "afterprint"):
        page.evaluate(f"dispatchEvent(new Event('{event}')); 0")
        states.append(page.evaluate("document.querySelector('details').open"))
    assert states == [True, False]
