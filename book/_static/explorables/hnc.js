/* The map of a wrong class under the reader's brush, what four penalties charge for it, and where each one pushes.
Chapter 3: Eq. 2 (mse), Eq. 5 (kd), and the two controls, level only and shape only. */
"use strict";

(() => {
  const { mean, logSumExp, softmax, drawings, label, heat, bar, choice, button, readout } = Explorable;
  const N = 6;

  /* Value and gradient of each penalty on one map, as numbers per cell. */
  function penalties(map) {
    const n = map.length;
    const level = mean(map);
    const shares = softmax(map);
    const variance = mean(map.map((v) => (v - level) ** 2));
    return {
      mse: { value: mean(map.map((v) => v * v)), gradient: map.map((v) => (2 * v) / n) },
      kd: { value: logSumExp(map) - level, gradient: shares.map((p) => p - 1 / n) },
      logit: { value: level ** 2, gradient: map.map(() => (2 * level) / n) },
      variance: { value: variance, gradient: map.map((v) => (2 * (v - level)) / n) },
    };
  }

  /* One step down the slope; `rate` counts per cell, so that its size does not depend on the map's. */
  const step = (map, kind, rate) => {
    const { gradient } = penalties(map)[kind];
    return map.map((v, i) => v - rate * map.length * gradient[i]);
  };

  const bump = (row, column, width, height) => Array.from({ length: N * N }, (_, i) =>
    height * Math.exp(-((Math.floor(i / N) - row) ** 2 + ((i % N) - column) ** 2) / (2 * width ** 2)));
  const STARTS = {
    peak: ["one peak", bump(1.5, 3.5, 0.9, 6)],
    high: ["flat and high", bump(2.5, 2.5, 9, 2.5)],
    low: ["flat and low", bump(2.5, 2.5, 9, -2.5)],
    mixed: ["peak and pit", bump(1.5, 1.5, 0.9, 5).map((v, i) => v - bump(4, 4, 0.9, 5)[i])],
  };
  const TITLES = { mse: "each cell to 0 (mse)", kd: "no cell above others (kd)", logit: "level only", variance: "shape only" };

  function mount(stage) {
    let [map, kind, ink] = [STARTS.peak[1].slice(), "mse", 1];
    const [svg, right] = drawings(stage, 280, [[0, 216, "A map of a wrong class"], [226, 620, "What four penalties charge and where they push"]]);
    label(svg, 12, 18, "a wrong class’s map: draw on it");
    const picture = heat(svg, {
      x: 12, y: 28, size: 192, n: N, name: "Map of a wrong class",
      paint: (cell, erase) => { map[cell] += erase ? -ink : ink; update(); },
    });
    const logit = label(svg, 12, 242);
    const panels = Object.entries(TITLES).map(([key, title], i) => {
      const [x, y] = [236 + (i % 2) * 200, 28 + Math.floor(i / 2) * 140];
      label(right, x, y - 10, title);
      const push = heat(right, { x, y, size: 104, n: N, name: `Push of ${title}` });
      label(right, x + 114, y + 24, "costs", { class: "ex-label ex-soft" });
      const cost = label(right, x + 114, y + 46, "", { class: "ex-label ex-number" });
      return [key, push, cost];
    });
    const controls = bar(stage);
    choice(controls, { name: "the brush", options: { 1: "adds", "-1": "takes away" }, value: "1", input: (k) => { ink = Number(k); } });
    choice(controls, { name: "let one act", options: { mse: "mse", kd: "kd", logit: "level", variance: "shape" }, value: kind, input: (k) => { kind = k; } });
    button(controls, "Take 5 steps", () => { for (let i = 0; i < 5; i++) map = step(map, kind, 0.06); update(); });
    for (const [text, start] of Object.values(STARTS)) button(controls, text, () => { map = start.slice(); update(); });
    const say = readout(stage);

    function update() {
      const found = penalties(map);
      picture.show(map, Math.max(4, ...map.map(Math.abs)));
      logit.textContent = `logit = mean = ${mean(map).toFixed(2)}`;
      for (const [key, push, cost] of panels) {
        cost.textContent = (key === "kd" ? found.kd.value - Math.log(N * N) : found[key].value).toFixed(2);
        push.show(found[key].gradient.map((g) => -g));
      }
      const flat = found.variance.value < 0.05;
      const high = Math.abs(mean(map)) > 0.3;
      say(flat && high ? "A flat map: kd and shape are content, however high it is; mse and level still push all cells alike."
        : flat ? "Flat and near zero: all four are content."
        : !high ? "The logit is near zero, so “level only” sees nothing here. mse is level plus shape, exactly."
        : "mse pushes every cell towards 0 by its own value; kd takes from the peak alone and gives to all; shape keeps the logit. (kd without its constant log 36.)");
    }
    update();
  }

  Explorable.define("hnc", { core: { penalties, step }, mount });
})();
