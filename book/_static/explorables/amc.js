/* Features as points in the plane and the force that a pair loss puts on each: angles turn, Euclid also pulls in and out.
Chapter 2, Eq. 1 and 2, and the cliff of the arccos in float32. */
"use strict";

(() => {
  const { drawings, label, element, point, bar, slider, choice, button, readout, arrow, axes } = Explorable;
  const dot = (a, b) => a[0] * b[0] + a[1] * b[1];

  /* Angle of two vectors by 2 atan2(|u - v|, |u + v|) of their unit vectors: accurate at both ends. */
  function angle(a, b) {
    const [na, nb] = [Math.hypot(...a), Math.hypot(...b)];
    const [u, v] = [a.map((x) => x / na), b.map((x) => x / nb)];
    return 2 * Math.atan2(Math.hypot(u[0] - v[0], u[1] - v[1]), Math.hypot(u[0] + v[0], u[1] + v[1]));
  }

  /* The angle as the released code computes it, every number rounded to float32. */
  function clippedArccos(theta, clip = 1e-7) {
    const cosine = Math.fround(Math.cos(theta));
    return Math.acos(Math.min(Math.fround(1 - clip), cosine));
  }

  /* Loss of all pairs, their mean, and its gradient on each feature. */
  function contrastive(features, classes, margin, kind) {
    const gradient = features.map(() => [0, 0]);
    const pairs = (features.length * (features.length - 1)) / 2;
    let loss = 0;
    for (let i = 0; i < features.length; i++) {
      for (let j = i + 1; j < features.length; j++) {
        const [a, b] = [features[i], features[j]];
        const gap = [a[0] - b[0], a[1] - b[1]];
        const distance = kind === "angle" ? angle(a, b) : Math.hypot(...gap);
        const same = classes[i] === classes[j];
        const short = Math.max(0, margin - distance);
        loss += (same ? distance ** 2 : short ** 2) / pairs;
        const slope = (same ? 2 * distance : -2 * short) / pairs;
        const [da, db] = kind === "angle" ? [turn(a, b), turn(b, a)]
          : distance > 0 ? [gap.map((x) => x / distance), gap.map((x) => -x / distance)] : [[0, 0], [0, 0]];
        for (const d of [0, 1]) {
          gradient[i][d] += slope * da[d];
          gradient[j][d] += slope * db[d];
        }
      }
    }
    return { loss, gradient };
  }

  /* d angle / d a: at a right angle to a, as long as 1 / |a|. */
  function turn(a, b) {
    const length = Math.hypot(...a);
    const across = [-a[1] / length, a[0] / length];
    const side = dot(across, b);
    return side === 0 ? [0, 0] : across.map((x) => (-Math.sign(side) * x) / length);
  }

  const START = [[0.95, 0.35], [1.25, -0.3], [0.45, 0.6], [-0.35, 1.05], [0.55, 1.2]];
  const CLASSES = [0, 0, 0, 1, 1];
  const [CX, CY, UNIT] = [150, 172, 92];

  function mount(stage) {
    let kind = "angle";
    const [svg, right] = drawings(stage, 322, [[0, 310, "Five features in the plane with the force on each"], [320, 620, "The arccos in float32"]]);
    element(svg, "circle", { cx: CX, cy: CY, r: UNIT, class: "ex-guide" });
    element(svg, "path", { d: `M${CX - 135} ${CY}h270M${CX} ${CY - 135}v270`, class: "ex-guide" });
    label(svg, 12, 18, "drag the features; arrows: the loss’s push");
    const spokes = START.map((_, i) => element(svg, "path", { class: "ex-spoke", stroke: `var(--ex-${CLASSES[i] + 1})` }));
    const pushes = START.map(() => arrow(svg, "var(--ex-ink)"));
    const points = START.map(([x, y], i) => point(svg, {
      x: CX + UNIT * x, y: CY - UNIT * y, colour: `var(--ex-${CLASSES[i] + 1})`, name: `feature ${i + 1}, class ${"AB"[CLASSES[i]]}`,
      limit: (px, py) => {
        const [dx, dy] = [px - CX, py - CY];
        const length = Math.hypot(dx, dy) || 1;
        const fitted = Math.min(138, Math.max(18, length));
        return [CX + (dx / length) * fitted, CY + (dy / length) * fitted];
      },
      move: () => update(), says: (s) => `length ${(Math.hypot(s.x - CX, s.y - CY) / UNIT).toFixed(1)}`,
    }));
    const cliff = cliffPlot(right);
    const controls = bar(stage);
    choice(controls, { name: "distance", options: { angle: "angle (AMC-Loss)", euclid: "Euclidean" }, value: kind, input: (k) => { kind = k; update(); } });
    const margin = slider(controls, { name: "margin", min: 0.1, max: 1.5, step: 0.05, value: 0.5, input: update });
    button(controls, "Start again", () => { START.forEach(([x, y], i) => points[i].put(CX + UNIT * x, CY - UNIT * y, false)); update(); });
    const say = readout(stage);

    function update() {
      const features = points.map((p) => [(p.x - CX) / UNIT, (CY - p.y) / UNIT]);
      const { loss, gradient } = contrastive(features, CLASSES, margin.value, kind);
      points.forEach((p, i) => {
        spokes[i].setAttribute("d", `M${CX} ${CY}L${p.x} ${p.y}`);
        pushes[i](p.x, p.y, -gradient[i][0] * 110, gradient[i][1] * 110);
      });
      const radial = Math.max(...features.map((f, i) => Math.abs(dot(f, gradient[i])) / Math.hypot(...f)));
      cliff(Math.min(...features.flatMap((a, i) => features.slice(i + 1).map((b) => angle(a, b)))));
      say(`Loss ${loss.toFixed(3)}. ` + (kind === "angle"
        ? "Every arrow stands at a right angle to its feature: the loss turns it and cannot make it longer or shorter. Short features turn faster."
        : `Arrows also point along the features (up to ${radial.toFixed(2)}): the loss changes lengths, which the classifier uses for how sure it is.`));
    }
    update();
  }

  /* What arccos returns for a small angle in float32, divided by the angle; atan2 returns 1. */
  function cliffPlot(svg) {
    const plot = axes(svg, {
      x: 380, y: 60, width: 215, height: 190, xs: [-5, 0], ys: [0, 2.5], xname: "true angle (rad)", yname: "computed ÷ true angle",
      xticks: [[-5, "10⁻⁵"], [-3, "10⁻³"], [-1, "0.1"]], yticks: [0, 1, 2],
    });
    const grid = Array.from({ length: 160 }, (_, i) => -5 + i / 32);
    plot.line("var(--ex-1)")(grid.map((e) => [e, angle([1, 0], [Math.cos(10 ** e), Math.sin(10 ** e)]) / 10 ** e]));
    plot.line("var(--ex-2)")(grid.map((e) => [e, clippedArccos(10 ** e) / 10 ** e]));
    label(svg, 340, 298, "atan2: right everywhere", { fill: "var(--ex-1)" });
    label(svg, 340, 315, "arccos in float32: a constant below 0.0005", { fill: "var(--ex-2)" });
    const here = element(svg, "circle", { r: 5, fill: "none", stroke: "var(--ex-ink)", "stroke-width": 2 });
    return (smallest) => Explorable.set(here, { cx: plot.sx(Math.log10(Math.max(1e-5, smallest))), cy: plot.sy(1) });
  }

  Explorable.define("amc", { core: { angle, contrastive, clippedArccos }, mount });
})();
