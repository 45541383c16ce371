/* What a reference leads to, shown beside it: a term's meaning, an equation, a proposition, a figure, a source. It opens
under the pointer and with the keyboard's focus, closes with Escape, and asks nobody: the target is copied from this page,
terms come from glossary.js, and another page of the book is read only where pages are served and not opened as files. */
"use strict";

addEventListener("load", () => {
  const article = document.querySelector(".bd-article");
  if (!article) return;
  const SHOWN = ".math, .proof, .admonition, figure, .citation, .footnote, .citation-list > *";
  const tip = Object.assign(document.createElement("div"), { className: "tip", id: "tip", hidden: true });
  tip.setAttribute("role", "tooltip");
  document.body.append(tip);
  let [shownFor, waiting] = [null, 0];

  /* The element a page's anchor means: itself, or the block it stands in or right before. */
  const block = (root, id) => {
    const target = root.getElementById(decodeURIComponent(id));
    if (!target) return null;
    if (target.matches(SHOWN)) return target;
    const near = target.closest(SHOWN) ?? target.nextElementSibling;
    return near?.matches(SHOWN) ? near : null;
  };

  async function content(link) {
    const url = new URL(link.href, location.href);
    const id = url.hash.slice(1);
    if (!id) return null;
    if (id.startsWith("term-")) {
      const meaning = globalThis.GLOSSARY?.[decodeURIComponent(id)];
      if (!meaning) return null;
      const text = document.createElement("p");
      const head = Object.assign(document.createElement("b"), { textContent: `${meaning[0]}. ` });
      text.append(head, meaning[1]);
      return text;
    }
    if (url.pathname === location.pathname) return block(document, id)?.cloneNode(true) ?? null;
    if (!location.protocol.startsWith("http") || url.origin !== location.origin) return null;
    const answer = await fetch(url.pathname);
    if (!answer.ok) return null;
    const found = block(new DOMParser().parseFromString(await answer.text(), "text/html"), id);
    if (found?.querySelector("img")) return null; // its address is another page's
    return found && document.importNode(found, true);
  }

  function close() {
    clearTimeout(waiting);
    shownFor?.removeAttribute("aria-describedby");
    shownFor = null;
    tip.hidden = true;
  }

  async function open(link) {
    const what = await content(link);
    if (!what || shownFor !== link) return;
    what.querySelectorAll("[id]").forEach((node) => node.removeAttribute("id"));
    what.querySelectorAll(".headerlink").forEach((node) => node.remove());
    what.querySelectorAll("a, button").forEach((node) => node.replaceWith(...node.childNodes));
    what.removeAttribute("id");
    what.classList.remove("scrolls", "toggle-hidden");
    tip.replaceChildren(what);
    tip.hidden = false;
    const raw = [...tip.querySelectorAll(".math")].some((node) => !node.querySelector("mjx-container"));
    if (raw) await window.MathJax?.typesetPromise?.([tip]);
    const [at, own] = [link.getClientRects()[0] ?? link.getBoundingClientRect(), tip.getBoundingClientRect()];
    const wide = document.documentElement.clientWidth;
    tip.style.left = `${Math.max(8, Math.min(at.left, wide - own.width - 8)) + scrollX}px`;
    const below = at.bottom + own.height + 12 < innerHeight || at.top < own.height + 12;
    tip.style.top = `${(below ? at.bottom + 6 : at.top - own.height - 6) + scrollY}px`;
    link.setAttribute("aria-describedby", "tip");
  }

  const referred = (event) => event.target.closest?.(".bd-article a.reference.internal[href*='#']");
  const begin = (delay) => (event) => {
    const link = referred(event);
    if (!link || link === shownFor) return;
    if (event.type === "focusin" ? !link.matches(":focus-visible") : event.pointerType === "touch") return;
    close();
    shownFor = link;
    waiting = setTimeout(open, delay, link);
  };
  article.addEventListener("pointerover", begin(200));
  article.addEventListener("focusin", begin(0));
  article.addEventListener("focusout", (event) => { if (referred(event)) close(); });
  /* The pointer may move onto the tip, which then stays. */
  addEventListener("pointermove", (event) => {
    if (shownFor && !tip.contains(event.target) && referred(event) !== shownFor && document.activeElement !== shownFor) {
      clearTimeout(close.later);
      close.later = setTimeout(() => { if (!tip.matches(":hover")) close(); }, 150);
    } else clearTimeout(close.later);
  });
  addEventListener("keydown", (event) => { if (event.key === "Escape") close(); });
});
