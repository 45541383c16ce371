/* Patches as vectors of logits: a patch weighs as much as its vector is long, and the weighted sum decides.
Chapter 4, Eq. 4 to 5d. */
"use strict";

(() => {
  const { sum, softmax, drawings, label, element, point, bar, slider, button, readout, arrow, bars } = Explorable;

  /* Eq. 5a and 5b: shares of all lengths, cut at xi / M and scaled to sum 1. */
  function attention(patches, cutoff) {
    const lengths = patches.map((p) => Math.hypot(...p));
    const total = sum(lengths);
    const before = lengths.map((l) => (total > 0 ? l / total : 1 / patches.length));
    const kept = before.map((a) => Math.max(0, a - cutoff / patches.length));
    const left = sum(kept);
    return { before, weights: left > 1e-6 ? kept.map((a) => a / left) : before };
  }

  /* Eq. 5d: the image's logits. */
  const decide = (weights, patches) => patches[0].map((_, k) => sum(weights.map((a, m) => a * patches[m][k])));

  const START = [[2.6, 0.4], [0.5, 1.2], [-0.3, -0.2], [-1.6, -1.9]];
  const NAMES = ["patch 1", "patch 2", "patch 3", "patch 4"];
  const [CX, CY, UNIT] = [160, 160, 44];

  function mount(stage) {
    const [svg, right] = drawings(stage, 320, [[0, 325, "Four patches as vectors of two logits"], [335, 620, "Their weights, and the decision"]]);
    element(svg, "path", { d: `M${CX - 145} ${CY}h290M${CX} ${CY - 145}v290`, class: "ex-guide" });
    element(svg, "path", { d: `M${CX - 140} ${CY + 140}L${CX + 140} ${CY - 140}`, class: "ex-guide", "stroke-dasharray": "3 4" });
    label(svg, CX + 92, CY + 16, "logit “dog”");
    label(svg, CX + 6, 22, "logit “cat”");
    const spokes = START.map((_, i) => arrow(svg, `var(--ex-${i + 1})`));
    const image = arrow(svg, "var(--ex-ink)");
    const points = START.map(([x, y], i) => point(svg, {
      x: CX + UNIT * x, y: CY - UNIT * y, colour: `var(--ex-${i + 1})`, name: NAMES[i],
      limit: (px, py) => [Math.min(305, Math.max(15, px)), Math.min(305, Math.max(15, py))],
      move: () => update(), says: (s) => `dog ${((s.x - CX) / UNIT).toFixed(1)}, cat ${((CY - s.y) / UNIT).toFixed(1)}`,
    }));
    label(right, 350, 18, "weight of each patch");
    const weigh = bars(right, { x: 350, y: 44, width: 240, names: NAMES, most: 1, gap: 34, colours: [1, 2, 3, 4].map((i) => `var(--ex-${i})`) });
    label(right, 350, 208, "the image's verdict (arrow without dot)");
    const judge = bars(right, { x: 350, y: 234, width: 240, names: ["dog", "cat"], most: 1, gap: 34, colours: ["var(--ex-ink)", "var(--ex-ink)"] });
    const controls = bar(stage);
    const cutoff = slider(controls, { name: "cut short arrows off", min: 0, max: 1, step: 0.02, value: 0.1, input: update });
    button(controls, "Start again", () => { START.forEach(([x, y], i) => points[i].put(CX + UNIT * x, CY - UNIT * y, false)); cutoff.value = 0.1; update(); });
    const say = readout(stage);

    function update() {
      const patches = points.map((p) => [(p.x - CX) / UNIT, (CY - p.y) / UNIT]);
      const { weights } = attention(patches, cutoff.value);
      const z = decide(weights, patches);
      points.forEach((p, i) => { spokes[i](CX, CY, p.x - CX, p.y - CY); p.node.style.opacity = weights[i] > 0 ? 1 : 0.35; });
      image(CX, CY, UNIT * z[0], -UNIT * z[1]);
      weigh(weights);
      judge(softmax(z));
      const heaviest = weights.indexOf(Math.max(...weights));
      const no = patches[heaviest].every((v) => v < 0);
      const cut = weights.filter((a) => a === 0).length;
      say((no ? `The heaviest is ${NAMES[heaviest]}, and all its logits are negative: a loud “neither” weighs as much as a loud “yes”. `
        : `${NAMES[heaviest].replace("p", "P")} is the longest and so the heaviest. `)
        + (cut ? `The cut has removed ${cut} of ${weights.length}; it can never remove all while it is below 1.` : "The short ones still count: raise the cut to drop them."));
    }
    update();
  }

  Explorable.define("loss_attention", { core: { attention, decide }, mount });
})();
