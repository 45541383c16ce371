"""What does not fit on a page, measured in the browser: at a screen's width, a phone's, and on paper.

A wide table may scroll in its box, its first column standing; a long formula may on a phone. Both then show that they
scroll and can be reached by the keyboard. Nothing else scrolls, nothing is cut off, and on paper nothing may scroll and
nothing is folded.
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
