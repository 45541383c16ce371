// A table that scrolls in its own box must be reachable by the keyboard.
addEventListener("load", () => {
  for (const table of document.querySelectorAll(".bd-article table"))
    if (table.scrollWidth > table.clientWidth) table.tabIndex = 0;
});

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
