// What is too wide scrolls in its own box: it is marked, reachable by the keyboard, and fades where more is to come.
{
  const BOXES = ".bd-article :is(table, pre, div.math, span.math, .cell_output, .output, figure.drawn)";
  const [WIDE, MOST] = [1.35, 640]; // a picture that would shrink by more than this is shown larger and scrolls
  const more = (box) => box.toggleAttribute("data-more", box.scrollLeft + box.clientWidth < box.scrollWidth - 2);
  const wide = (box) => box.matches("span.math")
    ? box.getBoundingClientRect().width > box.parentElement.clientWidth
    : box.scrollWidth > box.clientWidth + 1;
  const mark = () => {
    const boxes = [...document.querySelectorAll(BOXES)];
    boxes.forEach((box) => box.classList.remove("scrolls"));
    const room = document.querySelector(".bd-article")?.clientWidth;
    for (const image of document.querySelectorAll(".bd-article :is(figure.drawn, .cell_output) img")) {
      const large = room < 600 && image.naturalWidth > WIDE * room;
      image.classList.toggle("as-drawn", large);
      image.style.width = large ? `${Math.min(image.naturalWidth, MOST)}px` : "";
    }
    const found = new Set(boxes.filter(wide)); // measured before anything is changed again, or each would cost a layout
    for (const box of boxes) {
      box.classList.toggle("scrolls", found.has(box));
      if (!found.has(box)) {
        box.removeAttribute("data-more");
        if (box.dataset.reached) box.removeAttribute("tabindex");
        continue;
      }
      if (box.tabIndex < 0) Object.assign(box, { tabIndex: 0 }).dataset.reached = "yes";
      more(box);
    }
  };
  addEventListener("load", async () => {
    document.querySelector(".bd-article")?.addEventListener("scroll", (event) => {
      if (event.target.matches?.(".scrolls")) more(event.target);
    }, { capture: true, passive: true });
    await window.MathJax?.startup?.promise;
    mark();
    let waiting = 0;
    const soon = () => { cancelAnimationFrame(waiting); waiting = requestAnimationFrame(mark); };
    addEventListener("resize", soon);
    addEventListener("toggle", soon, true);
    new ResizeObserver(soon).observe(document.querySelector(".bd-article") ?? document.body);
  });
}

// On paper nothing can be opened, so all that is folded is open while a page is printed.
{
  let opened = [];
  addEventListener("beforeprint", () => {
    opened = [...document.querySelectorAll(".bd-article details:not([open])")];
    opened.forEach((fold) => { fold.open = true; });
  });
  addEventListener("afterprint", () => opened.forEach((fold) => { fold.open = false; }));
}

// A quiz counts how many questions were decided without a wrong try. It works without this script, uncounted.
addEventListener("load", () => {
  const quizzes = [...document.querySelectorAll(".quiz")];
  if (!quizzes.length) return;
  const score = Object.assign(document.createElement("p"), { className: "quiz-score" });
  score.setAttribute("role", "status");
  quizzes.at(-1).after(score);
  for (const quiz of quizzes)
    quiz.addEventListener("toggle", (event) => {
      if (!event.target.open || quiz.dataset.first) return;
      const wrong = event.target.classList.contains("quiz-wrong");
      if (wrong) quiz.dataset.first = "wrong";
      else if (!quiz.querySelector(".quiz-right:not([open])")) quiz.dataset.first = "right";
      const decided = quizzes.filter((each) => each.dataset.first);
      const right = decided.filter((each) => each.dataset.first === "right");
      if (decided.length)
        score.textContent = `${decided.length} of ${quizzes.length} questions decided, ${right.length} without a wrong try.`;
    }, true);
});

// Drawn figures exist in two inks; the page shows the one that fits its theme.
addEventListener("DOMContentLoaded", () => {
  const drawn = [...document.querySelectorAll("figure.drawn img")].map((image) => [image, image.getAttribute("src")]);
  const dress = () => {
    const dark = document.documentElement.dataset.theme === "dark";
    for (const [image, light] of drawn) image.src = dark ? light.replace("_images/", "_static/pictures/") : light;
  };
  if (!drawn.length) return;
  new MutationObserver(dress).observe(document.documentElement, { attributeFilter: ["data-theme"] });
  dress();
});
