/* Brush a mask: the classifier must know the class inside it and nothing outside it. Chapter 5, Eq. 1 to 9.
The classifier of this toy is linear in the pixels, so all its answers can be computed as one draws. */
"use strict";

(() => {
  const { sum, softmax, logSoftmax, mean, drawings, label, heat, bar, button, readout, bars } = Explorable;
  const N = 9;

  /* Eq. 3 and 8: -log p of the true class. */
  const decidedLoss = (logits, truth) => -logSoftmax(logits)[truth];
  /* Eq. 6: cross-entropy to the uniform distribution; its smallest value is log c. */
  const undecidedLoss = (logits) => -mean(logSoftmax(logits));
  /* Eq. 2: entropy of the answer. */
  function entropy(logits) {
    const p = softmax(logits);
    return -sum(logSoftmax(logits).map((l, k) => p[k] * l));
  }

  const blob = (row, column, width, height) => Array.from({ length: N * N }, (_, i) =>
    height * Math.exp(-((Math.floor(i / N) - row) ** 2 + ((i % N) - column) ** 2) / (2 * width ** 2)));
  /* Evidence per cell for "cat" (a head that tells much, a body that tells little), "dog" and "tree". */
  const EVIDENCE = [
    blob(2.5, 3, 0.8, 1.9).map((v, i) => v + blob(5.5, 4.5, 1.5, 0.42)[i]),
    blob(5.5, 4.5, 1.5, 0.2),
    blob(1, 7.5, 1, 0.35),
  ];
  const OBJECT = EVIDENCE[0].map((_, i) => {
    const [r, c] = [Math.floor(i / N), i % N];
    return (r - 2.5) ** 2 + (c - 3) ** 2 < 2.6 || ((r - 5.5) / 2.4) ** 2 + ((c - 4.5) / 2.6) ** 2 < 1;
  });
  const NAMES = ["cat", "dog", "tree"];
  const judge = (mask) => EVIDENCE.map((e) => sum(e.map((v, i) => v * mask[i])));

  function mount(stage) {
    let value = 1;
    let mask = blob(2.5, 3, 0.5, 1).map((v) => (v > 0.3 ? 1 : 0));
    const [svg, right] = drawings(stage, 300, [[0, 258, "A mask to be drawn"], [268, 620, "What a classifier says inside and outside of it"]]);
    label(svg, 12, 18, "draw the mask, or rub it out");
    const picture = heat(svg, {
      x: 12, y: 28, size: 234, n: N, name: "Mask", frame: OBJECT,
      paint: (cell, erase, begins) => {
        if (begins) value = erase || mask[cell] ? 0 : 1; // a stroke that begins on the mask takes away
        mask[cell] = value;
        update();
      },
    });
    label(svg, 12, 284, "frame: the cat. Its head tells most.", { class: "ex-label ex-soft" });
    label(right, 280, 18, "inside the mask");
    const inside = bars(right, { x: 280, y: 42, width: 140, names: NAMES, most: 1, gap: 30, colours: ["var(--ex-1)", "var(--ex-3)", "var(--ex-4)"] });
    label(right, 460, 18, "outside of it");
    const outside = bars(right, { x: 460, y: 42, width: 140, names: NAMES, most: 1, gap: 30, colours: ["var(--ex-1)", "var(--ex-3)", "var(--ex-4)"] });
    label(right, 280, 160, "the two losses (0 is best)");
    const losses = bars(right, { x: 280, y: 186, width: 320, names: ["not knowing the class inside", "still knowing something outside", "sum"], most: 5, gap: 34, colours: ["var(--ex-2)", "var(--ex-2)", "var(--ex-ink)"] });
    const controls = bar(stage);
    const presets = { "the head only": (i) => blob(2.5, 3, 0.5, 1)[i] > 0.3, "the whole cat": (i) => OBJECT[i], everything: () => true, nothing: () => false };
    for (const [text, rule] of Object.entries(presets)) button(controls, text, () => { mask = mask.map((_, i) => (rule(i) ? 1 : 0)); update(); });
    const say = readout(stage);

    function update() {
      const [zin, zout] = [judge(mask), judge(mask.map((m) => 1 - m))];
      const [known, rest] = [decidedLoss(zin, 0), undecidedLoss(zout) - Math.log(NAMES.length)];
      picture.show(EVIDENCE[0].map((v, i) => 0.12 + 0.85 * mask[i] * (0.35 + v / 2)), 1);
      inside(softmax(zin));
      outside(softmax(zout));
      losses([known, rest, known + rest]);
      const area = mean(mask);
      say(area > 0.85 ? "The two losses are nearly as low as they get, and the mask says nothing: nothing in them asks for a small mask."
        : rest > 0.15 && known < 0.3 ? "The class is known inside, and the rest of the cat still gives it away: the second loss asks for more."
        : known > 0.3 ? "Too little evidence inside: the first loss asks for the telling parts."
        : "Sure inside, undecided outside: this is what the method looks for.");
    }
    update();
  }

  Explorable.define("minmax", { core: { decidedLoss, undecidedLoss, entropy }, mount });
})();
