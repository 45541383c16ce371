// A table that scrolls in its own box must be reachable by the keyboard.
addEventListener("load", () => {
  for (const table of document.querySelectorAll(".bd-article table"))
    if (table.scrollWidth > table.clientWidth) table.tabIndex = 0;
});
