"""A deck of slides per chapter, made while the book is staged: its aims, formulas, figures and summary, in its order.

Plain HTML with the book's own figures and formula renderer, at most `MOST` slides each, read without a network: page
keys and the wheel move from slide to slide, and printing gives one page each.
"""

from __future__ import annotations

import html
import re

from tools.pictures import FENCE, OPTION

MOST = 12
CHAPTERS = dict(zip(("looking", "amc", "hnc", "loss_attention", "minmax", "reff", "bench"),
                    ("cam", "amc", "hnc", "loss_attention", "minmax", "reff", "")))  # fmt: skip
"""Chapter to assignment; the last one has none."""
LEFT_OUT = {
    "amc.pairs", "hnc.disagree", "loss_attention.bound", "loss_attention.sweep", "loss_attention.sweep_cut",
    "minmax.vanishing", "minmax.omega", "minmax.reach", "reff.spread", "reff.level",
}  # fmt: skip
"""Figures that a lesson can do without: results come last on a page and would be the first to go."""
FORMULAS = {
    "looking-cam", "looking-gradcam", "amc-loss", "hnc-mse", "hnc-kd", "la-weights", "la-single", "minmax-undecided",
    "minmax-mask", "reff-gradcam", "reff-loss",
}  # fmt: skip
"""Labels of the formulas on slides."""
OFFER = re.compile(r"^```\{classroom\}\n```$", re.M)
COLAB = "https://colab.research.google.com/github/{repo}/blob/{branch}/notebooks/students/{name}.ipynb"
SUMMARY = re.compile(r"^(?:## |```\{admonition\} )(?P<title>Summary|Limits)(?:: [^\n]*\n:class: \w+)?\n+"
                     r"(?P<text>.+?)(?=^## |^```|\Z)", re.M | re.S)  # fmt: skip
"""How a chapter closes: in sentences, or in a list of what its results cannot say."""
MATH = re.compile(r"^```\{math\}\n(?P<options>(?::\w+:[^\n]*\n)*)(?P<body>.*?)^```", re.M | re.S)
HEADING = re.compile(r"^##+ (.+)$", re.M)
ROLE = re.compile(r"\{(?P<kind>[\w:]+)\}`(?P<text>[^`<]*?)(?: <[^`>]*>)?`")
STATED = re.compile(r"\{prf:\w+\} ([^\n]+)\n:label: (\S+)")
PROVED = re.compile(r"\{prf:ref\}`([\w-]+)`")
PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}: slides</title><link rel="icon" href="data:,">
<script defer src="../vendor/mathjax/tex-chtml.js"></script>
<style>html{{scroll-snap-type:y proximity;background:#14181c;color:#ced6dd}}
body{{margin:0;font:clamp(1rem,2.9vmin,2rem)/1.4 system-ui}}
section{{box-sizing:border-box;min-height:100vh;scroll-snap-align:start;padding:3vmin 7vmin;
display:flex;flex-direction:column;justify-content:center;gap:2vmin;page-break-after:always}}
h1{{font-size:2em}}h1,h2,p{{margin:0}}h2{{font-size:1.4em}}ul{{margin:0}}li{{margin:.35em 0}}
footer{{opacity:.8;font-size:.7em}}a{{color:#5ab4f0}}.wide{{overflow:auto hidden;max-width:100%}}
.wide img{{display:block;height:58vh;max-width:100%;object-fit:contain;margin:auto}}
@media(max-width:600px){{.wide img{{height:auto;max-width:40rem}}section{{padding:1rem}}}}
@media print{{@page{{size:A4 landscape}}
html{{background:#14181c;print-color-adjust:exact;-webkit-print-color-adjust:exact}}}}</style></head><body><main>
{slides}
</main></body></html>
"""


def deck(name: str, text: str) -> str:
    """The slides of a chapter from its page, whose records are filled in.

    Raises:
        ValueError: the page has no title, aims or summary, or makes too many slides.
    """
    titles = {label: heading for heading, label in STATED.findall(text)}
    text = PROVED.sub(lambda m: f"“{titles.get(m[1], m[1])}”", text)
    title = re.search(r"^# (.+)$", text, re.M)
    aims = re.search(r"^\*\*After this chapter you can\*\*\s+((?:- .+\n(?:  .+\n)*)+)", text, re.M)
    summary = SUMMARY.search(text)
    if not (title and aims and summary):
        raise ValueError(f"{name}: a deck needs a title, 'After this chapter you can' and '## Summary'")
    shown = [(m.start(), _figure(m)) for m in FENCE.finditer(text) if m["what"] not in LEFT_OUT]
    shown += [(m.start(), _formula(m)) for m in MATH.finditer(text) if FORMULAS & set(m["options"].split())]
    if len(shown) > MOST - 2:
        raise ValueError(f"{name}: a deck has at most {MOST} slides, this one {len(shown) + 2}: see LEFT_OUT")
    headings = [(match.start(), match[1]) for match in HEADING.finditer(text)]
    learnt = _list(re.split(r"^- ", aims[1], flags=re.M)[1:])
    bodies = [f"<h1>{_inline(title[1])}</h1><p>After this lesson you can</p>{learnt}"]
    for place, body in sorted(shown):
        over = [heading for start, heading in headings if start < place]
        bodies.append(f"<h2>{_inline(over[-1] if over else title[1])}</h2>{body}")
    points = re.split(r"^- ", summary["text"], flags=re.M)[1:]
    said = points or re.split(r"(?<=[.!?])\s+(?=[A-Z$])", " ".join(summary["text"].split()))
    bodies.append(f"<h2>{summary['title']}</h2>{_list(said)}")
    foot = '<footer>{at} of {all} · <a href="../../book/{name}.html">{title}</a></footer>'
    feet = [foot.format(at=at, all=len(bodies), name=name, title=_inline(title[1])) for at in range(1, len(bodies) + 1)]
    slides = "\n".join(f"<section>{body}{end}</section>" for body, end in zip(bodies, feet, strict=True))
    return PAGE.format(title=html.escape(title[1]), slides=slides)


def decks(pages: dict[str, bytes]) -> dict[str, bytes]:
    """Staged name to deck, from the staged pages' sources by their names, such as ``book/amc.md``."""
    found = {name: pages[f"book/{name}.md"].decode() for name in CHAPTERS if f"book/{name}.md" in pages}
    return {f"book/_static/slides/{name}.html": deck(name, text).encode() for name, text in found.items()}


def offer(text: str, repo: str, branch: str) -> str:
    """The teachers' page with a table of what a chapter offers them in place of its fence ``{classroom}``."""
    rows = ["| Chapter | Slides | Assignment, as students get it |", "|---|---|---|"]
    for chapter, name in CHAPTERS.items():
        slides = f'<a href="../_static/slides/{chapter}.html">slides</a>'
        colab = f"[on Colab]({COLAB.format(repo=repo, branch=branch, name=name)})" if name else "none"
        rows.append(f"| [](./{chapter}.md) | {slides} | {colab} |")
    return OFFER.sub(lambda _: "\n".join(rows), text)


def _figure(match: re.Match[str]) -> str:
    options = {found["key"]: found["value"] for found in OPTION.finditer(match["options"])}
    source = f"../pictures/{match['what'].replace('.', '-')}.svg"
    alt = html.escape(options.get("alt", ""), quote=True)
    return _wide("figure", f'<img src="{source}" alt="{alt}">') + f"<p>{_inline(match['caption'])}</p>"


def _formula(match: re.Match[str]) -> str:
    return _wide("formula", f"\\[{html.escape(match['body'].strip())}\\]")


def _wide(what: str, body: str) -> str:
    """What may be wider than a phone scrolls in its own box, by the keyboard too."""
    return f'<div class="wide" tabindex="0" role="group" aria-label="{what}">{body}</div>'


def _list(items: list[str]) -> str:
    return "<ul>" + "".join(f"<li>{_inline(item)}</li>" for item in items) + "</ul>"


def _inline(text: str) -> str:
    """A paragraph's Markdown as HTML: formulas stay for the renderer, roles become their words."""
    text = ROLE.sub(lambda m: "" if m["kind"].startswith("cite") else _words(m), " ".join(text.split()))
    formulas = re.split(r"(\$[^$]+\$)", text)
    parts = [f"\\({html.escape(p[1:-1])}\\)" if p.startswith("$") and len(p) > 2 else _marked(p) for p in formulas]
    return "".join(parts).strip()


def _words(match: re.Match[str]) -> str:
    return {"numref": "the figure", "eq": "the formula"}.get(match["kind"], match["text"])


def _marked(text: str) -> str:
    text = re.sub(r"\[([^\]]+)\]\([^)]+\)", r"\1", html.escape(text, quote=False))
    for mark, tag in ((r"`([^`]+)`", "code"), (r"\*\*([^*]+)\*\*", "strong"), (r"\*([^*]+)\*", "em")):
        text = re.sub(mark, rf"<{tag}>\1</{tag}>", text)
    return text
