/* A classifier that may read an object or a cue beside it, trained anew at every move of a slider.
Chapter 6: the square of the outside part (ReFF, Eq. 3) against its sum (the Energy loss of Rao et al.). */
"use strict";

(() => {
  const { sum, clamp, drawings, label, heat, bar, slider, choice, readout, axes, element, set } = Explorable;
  const N = 9;

  /* Penalties on a map that sums to one, and their slope for each cell, with respect to the normalised map. */
  const outsideMass = (map, mask) => sum(map.map((v, i) => v * (1 - mask[i])));
  const outsideSquare = (map, mask) => sum(map.map((v, i) => (v * (1 - mask[i])) ** 2));

  const CENTRES = Array.from({ length: 25 }, (_, i) => -3 + i / 4);
  const NORMAL = (() => {
    const w = CENTRES.map((z) => Math.exp((-z * z) / 2));
    return w.map((v) => v / sum(w));
  })();
  const NOISE = 1.1; // of the object's signal: alone it is right in 82 % of the images

  /* Normal distribution function (Abramowitz and Stegun 7.1.26, error below 2e-7). */
  function normalCdf(x) {
    const t = 1 / (1 + 0.3275911 * Math.abs(x / Math.SQRT2));
    const poly = t * (0.254829592 + t * (-0.284496736 + t * (1.421413741 + t * (-1.453152027 + t * 1.061405429))));
    const erf = 1 - poly * Math.exp((-x * x) / 2);
    return x >= 0 ? (1 + erf) / 2 : (1 - erf) / 2;
  }

  /* Share of right answers of sign(a object + b cue) when the cue agrees with the class with this probability. */
  const accuracy = ([a, b], agrees) =>
    agrees * normalCdf((a + b) / (a * NOISE)) + (1 - agrees) * normalCdf((a - b) / (a * NOISE));

  /* Mean logistic loss's slope over the object's noise and the cue's two cases. */
  function slope([a, b], agrees) {
    const total = [0, 0];
    for (const [cue, chance] of [[1, agrees], [-1, 1 - agrees]]) {
      CENTRES.forEach((z, i) => {
        const signal = 1 + NOISE * z;
        const wrong = 1 / (1 + Math.exp(a * signal + b * cue));
        total[0] -= chance * NORMAL[i] * wrong * signal;
        total[1] -= chance * NORMAL[i] * wrong * cue;
      });
    }
    return total;
  }

  /* The map's share on the cue, m = b / (a + b), and what the two penalties charge for the part outside the object. */
  function penalty([a, b], kind, cells, hidden) {
    const all = a + b;
    const [away, m] = [1 - hidden, b / all];
    const cost = kind === "energy" ? m * away : (m * m * away) / cells;
    const perShare = kind === "energy" ? away : (2 * m * away) / cells;
    return { cost, slope: [(-perShare * b) / all ** 2, (perShare * a) / all ** 2] };
  }

  function train({ agrees, kind, strength, cells, hidden, steps = 240, rate = 0.12 }) {
    let w = [0.2, 0.2];
    const path = [w];
    for (let t = 0; t < steps; t++) {
      const main = slope(w, agrees);
      const guide = kind === "none" ? [0, 0] : penalty(w, kind, cells, hidden).slope;
      w = w.map((v, i) => Math.max(0.02, v - rate * (main[i] + strength * guide[i])));
      path.push(w);
    }
    return path;
  }

  const OBJECT = Array.from({ length: N * N }, (_, i) => Math.abs(Math.floor(i / N) - 4) <= 1 && Math.abs((i % N) - 4) <= 1);
  const SIZES = [1, 4, 9, 16, 25];

  /* The cells of the cue: a square whose corner lies at (row, column), cut by the frame of the image. */
  const cueCells = (row, column, side) => OBJECT.map((_, i) => {
    const [r, c] = [Math.floor(i / N), i % N];
    return r >= row && r < row + side && c >= column && c < column + side;
  });

  function mount(stage) {
    let [kind, corner] = ["outside", [0, 0]];
    const [svg, right] = drawings(stage, 310, [[0, 240, "An image with an object and a cue", 275], [255, 620, "The accuracy over training"]]);
    label(svg, 12, 18, "the map (tap moves the cue)");
    const picture = heat(svg, {
      x: 12, y: 28, size: 216, n: N, name: "Map, the frame is the object", frame: OBJECT,
      paint: (cell) => { corner = [Math.floor(cell / N), cell % N]; update(); },
    });
    const shares = label(svg, 12, 264);
    const plot = axes(right, {
      x: 300, y: 40, width: 290, height: 190, xs: [0, 240], ys: [0.4, 1], xname: "training steps", yname: "share of right answers",
      xticks: [0, 120, 240], yticks: [0.5, 0.75, 1],
    });
    const lines = { seen: plot.line("var(--ex-2)", true), shifted: plot.line("var(--ex-1)") };
    label(right, 300, 284, "dashed: the cue holds, as in training", { fill: "var(--ex-2)" });
    label(right, 300, 302, "solid: the cue tells nothing any more", { fill: "var(--ex-1)" });
    const now = element(right, "path", { class: "ex-now" });
    const first = bar(stage);
    choice(first, { name: "penalty on the map outside", options: { none: "none", outside: "square (ReFF)", energy: "sum (Energy)" }, value: kind, input: (k) => { kind = k; update(); } });
    const controls = bar(stage);
    const strength = slider(controls, { name: "strength of the penalty", min: -2, max: 2, step: 0.1, value: 0, text: (v) => (10 ** v).toPrecision(2), input: update });
    const size = slider(controls, { name: "cells of the cue", min: 0, max: 4, step: 1, value: 3, text: (v) => `${SIZES[v]}`, input: update });
    const agrees = slider(controls, { name: "cue holds in training", min: 0.6, max: 0.99, step: 0.01, value: 0.95, text: (v) => `${Math.round(100 * v)} %`, input: update });
    const time = slider(controls, { name: "look at step", min: 0, max: 240, step: 5, value: 240, text: (v) => `${v}`, input: update });
    const say = readout(stage);

    function update() {
      const side = Math.sqrt(SIZES[size.value]);
      corner = corner.map((v) => clamp(v, 0, N - side));
      const cue = cueCells(...corner, side);
      const cells = sum(cue.map(Number));
      const hidden = sum(cue.map((on, i) => Number(on && OBJECT[i]))) / cells;
      const path = train({ agrees: agrees.value, kind, strength: 10 ** strength.value, cells, hidden });
      lines.seen(path.map((w, t) => [t, accuracy(w, agrees.value)]));
      lines.shifted(path.map((w, t) => [t, accuracy(w, 0.5)]));
      const [a, b] = path[time.value];
      const map = OBJECT.map((on, i) => (on ? a / (a + b) / 9 : 0) + (cue[i] ? b / (a + b) / cells : 0));
      picture.show(map, Math.max(...map));
      set(now, { d: `M${plot.sx(time.value)} 40v190` });
      const m = b / (a + b);
      shares.textContent = `${Math.round(100 * m)} % of the map on the cue, ${cells} cells`;
      const shifted = accuracy([a, b], 0.5);
      say(hidden > 0.99 ? "The cue lies inside the frame: no penalty on the outside can see it."
        : kind === "none" ? `Nobody says where to look: the network leans on the cue and is right in ${Math.round(100 * shifted)} % once it is gone.`
        : kind === "outside" && cells >= 9 ? `Spread over ${cells} cells the square is tiny: it takes a strong penalty to be felt. Try one cell, or the sum.`
        : kind === "outside" ? `On few cells the square bites. Right without the cue: ${Math.round(100 * shifted)} %.`
        : `The sum does not care how far the cue spreads. Right without the cue: ${Math.round(100 * shifted)} %.`);
    }
    update();
  }

  Explorable.define("reff", { core: { outsideMass, outsideSquare, normalCdf, slope, penalty, train }, mount });
})();
