/* Class activation maps that one can push around: painting moves evidence and leaves the logit; a map common to all
classes changes every picture and no probability. Chapter 1, propositions "Nothing is lost" and "The first gap". */
"use strict";

(() => {
  const { clamp, mean, softmax, drawings, label, heat, bar, slider, button, readout, bars } = Explorable;
  const N = 8;

  const logits = (maps) => maps.map(mean);
  const probabilities = (maps) => softmax(logits(maps));

  /* Evidence added in one cell and taken from all: the mean, which is the logit, stays. */
  const paint = (map, cell, amount) => map.map((value, i) => value + (i === cell ? amount : 0) - amount / map.length);

  /* The same map on top of every class's. */
  const shifted = (maps, common, strength) => maps.map((map) => map.map((value, i) => value + strength * common[i]));

  /* Share of a map's positive evidence inside a mask; a map without any scores 0. */
  function energyInMask(map, mask) {
    const positive = map.map((value) => Math.max(0, value));
    const total = positive.reduce((a, b) => a + b, 0);
    return total > 0 ? positive.reduce((a, value, i) => a + (mask[i] ? value : 0), 0) / total : 0;
  }

  const bump = (row, column, width, height) => Array.from({ length: N * N }, (_, i) =>
    height * Math.exp(-((Math.floor(i / N) - row) ** 2 + ((i % N) - column) ** 2) / (2 * width ** 2)));
  const start = () => [bump(3.5, 3.5, 1.3, 9), bump(3, 4.5, 1.2, 5), bump(6, 1, 1.5, 3)].map((m) => m.map((v) => v - 0.4));
  const MASK = Array.from({ length: N * N }, (_, i) => Math.abs(Math.floor(i / N) - 3.5) < 2 && Math.abs((i % N) - 3.5) < 2);
  const COMMON = bump(0.5, 6.5, 1.4, 9);
  const NAMES = ["a zero", "a six", "a one"];

  function mount(stage) {
    let maps = start();
    const [svg, right] = drawings(stage, 260, [[0, 460, "Three class maps with their logits"], [460, 620, "Probabilities of the classes", 135]]);
    const pictures = NAMES.map((name, k) => {
      const x = 12 + k * 150;
      label(svg, x, 18, `evidence for ${name}`);
      const picture = heat(svg, {
        x, y: 28, size: 136, n: N, frame: MASK, name: `Map of ${name}`,
        paint: (cell, erase) => { maps[k] = paint(maps[k], cell, erase ? -4 : 4); update(); },
      });
      return [picture, label(svg, x, 184), label(svg, x, 202)];
    });
    label(svg, 12, 232, "Drag over a map: evidence moves there.", { class: "ex-label ex-soft" });
    label(svg, 12, 250, "Its mean, which is the logit, stays.", { class: "ex-label ex-soft" });
    label(right, 470, 18, "probability");
    const chart = bars(right, { x: 470, y: 44, width: 136, names: NAMES, most: 1, gap: 34 });
    const controls = bar(stage);
    const common = slider(controls, { name: "a map that all classes share", min: -1, max: 1, step: 0.05, value: 0, input: update });
    button(controls, "Start again", () => { maps = start(); common.value = 0; update(); });
    const say = readout(stage);

    function update() {
      const shown = shifted(maps, COMMON, common.value);
      const most = Math.max(4, ...shown.flat().map(Math.abs)) * 0.85;
      const o = logits(shown);
      shown.forEach((map, k) => {
        pictures[k][0].show(map, most);
        pictures[k][1].textContent = `logit ${o[k].toFixed(2)}`;
        pictures[k][2].textContent = `${Math.round(100 * energyInMask(map, MASK))} % on the object`;
      });
      chart(probabilities(shown));
      say(clamp(Math.abs(common.value), 0, 1) < 0.03
        ? "The frame is the object. Paint evidence for “a zero” into a corner: the network's answer does not move, the picture does."
        : `Every map has changed, every logit with it by the same ${(common.value * mean(COMMON)).toFixed(2)}, and the probabilities have not: training never sees this part.`);
    }
    update();
  }

  Explorable.define("looking", { core: { logits, probabilities, paint, shifted, energyInMask }, mount });
})();
