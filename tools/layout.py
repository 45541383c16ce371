"""What does not fit on a page, measured in the browser: at a screen's width, a phone's, and on paper.

A wide table may scroll in its box, its first column standing; a long formula may on a phone. Both then show that they
scroll and can be reached by the keyboard. Nothing else scrolls, nothing is cut off, and on paper nothing may scroll and
nothing is folded. A slide fits its screen, holds something, and shows its picture large enough to be read.
"""

from __future__ import annotations

from tools.browser import Browser

NARROW = 600  # pixels; below, formulas and code may scroll as well
MEASURED = """((width, paper, narrow) => {
  const found = [], style = (node) => getComputedStyle(node);
  const name = (node) => `${node.tagName.toLowerCase()}.${[...node.classList].join(".")} `
    + `“${node.textContent.trim().replace(/\\s+/g, " ").slice(0, 40)}”`;
  const within = (node, what) => node.closest(what);
  const page = document.documentElement.scrollWidth;
  if (page > width) {
    const guilty = [...document.querySelectorAll("main *")].filter((e) =>
      e.getBoundingClientRect().right > width + 1 && !within(e.parentElement, ".scrolls, mjx-assistive-mml"));
    found.push(`scrolls sideways: ${page} > ${width} px, because of ${guilty.slice(0, 3).map(name).join(", ")}`);
  }
  for (const node of document.querySelectorAll(".bd-article, .bd-article *")) {
    if (node.scrollWidth <= node.clientWidth + 1 || node.clientWidth < 2 || node instanceof SVGElement) continue;
    if (node.parentElement && within(node.parentElement, "mjx-container, select, textarea, input")) continue;
    const flow = style(node).overflowX;
    if (flow === "visible") continue;
    const by = `by ${node.scrollWidth - node.clientWidth} px: ${name(node)}`;
    if (flow === "hidden" || flow === "clip") found.push(`cut off ${by}`);
    else if (paper) found.push(`cut off on paper ${by}`);
    else if (node.tabIndex < 0 || !node.classList.contains("scrolls")) found.push(`scrolls and does not show it ${by}`);
    else if (node.tagName === "TABLE") {
      const first = [...node.rows].map((row) => row.cells[0]).filter((cell) => cell && cell.colSpan === 1);
      if (first.some((cell) => style(cell).position !== "sticky")) found.push(`its first column does not stand ${by}`);
    } else if (width > narrow && !within(node, ".cell_output, dl.py")) found.push(`scrolls on a screen ${by}`);
  }
  if (paper) for (const fold of document.querySelectorAll(".bd-article details, .bd-article .toggle"))
    if ((fold.tagName === "DETAILS" && !fold.open) || fold.matches(".toggle-hidden"))
      found.push(`stays folded on paper: ${name(fold)}`);
  return found;
})"""


def misfits(browser: Browser, width: int, *, paper: bool = False) -> list[str]:
    """What is cut off, scrolls unseen or makes the page wider than its window of ``width`` pixels."""
    return list(browser.evaluate(f"{MEASURED}({width}, {str(paper).lower()}, {NARROW})"))


LEAST = 0.6  # of its drawn size: at less, nobody reads the letters of a slide's picture
SLIDES = """((width, height, narrow, least) => {
  const found = [], page = document.documentElement.scrollWidth;
  if (page > width) found.push(`scrolls sideways: ${page} > ${width} px`);
  [...document.querySelectorAll("section")].forEach((slide, at) => {
    const say = (what) => found.push(`slide ${at + 1} ${what}`), tall = slide.getBoundingClientRect().height;
    if (![...slide.children].some((child) => !child.matches("h1, h2, footer") && child.textContent.trim())
      && !slide.querySelector("img")) say("is empty");
    if (/\\\\[([]/.test(slide.textContent)) say("shows a formula as it was typed");
    if (width > narrow && tall > height + 1) say(`is ${Math.round(tall)} px tall, the screen ${height}`);
    const wide = [...slide.querySelectorAll("*")].filter((each) => !each.closest("mjx-container")
      && each.getBoundingClientRect().right > width + 1 && !each.parentElement.closest(".wide"));
    if (wide.length) say(`is wider than the screen: ${wide[0].tagName.toLowerCase()}`);
    for (const formula of width > narrow ? slide.querySelectorAll(".wide") : [])
      if (formula.scrollWidth > formula.clientWidth + 1) say("has something that scrolls on a screen");
    for (const image of slide.querySelectorAll("img")) {
      const scale = Math.min(image.clientWidth / image.naturalWidth, image.clientHeight / image.naturalHeight);
      if (scale < least) say(`shows its picture at ${scale.toFixed(2)} of its size, at least ${least}`);
    }
  });
  return found;
})"""


def slides_misfit(browser: Browser, width: int, height: int) -> list[str]:
    """What is wrong with the slides of the open deck in its window."""
    return list(browser.evaluate(f"{SLIDES}({width}, {height}, {NARROW}, {LEAST})"))
