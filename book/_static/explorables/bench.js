/* Pick a situation: what did each method change against the same network without it, by how much, and at what cost?
Chapter 7. The numbers are the run records' (written into the page when it is built); the statistics are computed here. */
"use strict";

(() => {
  const { mean, sum, clamp, element, set, drawings, label, bar, choice, readout } = Explorable;

  /* Two-sided 97.5 % points of Student's t for 1 to 30 degrees of freedom, then the normal one. */
  const T = [12.7062, 4.3027, 3.1824, 2.7764, 2.5706, 2.4469, 2.3646, 2.306, 2.2622, 2.2281, 2.201, 2.1788, 2.1604, 2.1448,
    2.1314, 2.1199, 2.1098, 2.1009, 2.093, 2.086, 2.0796, 2.0739, 2.0687, 2.0639, 2.0595, 2.0555, 2.0518, 2.0484, 2.0452, 2.0423];

  /* Mean of the paired differences and the ends of its 95 % interval. */
  function paired(ours, theirs) {
    const gaps = ours.map((v, i) => v - theirs[i]);
    const [n, middle] = [gaps.length, mean(gaps)];
    const error = Math.sqrt(sum(gaps.map((g) => (g - middle) ** 2)) / (n - 1) / n);
    const reach = (T[n - 2] ?? 1.96) * error;
    return { mean: middle, low: middle - reach, high: middle + reach };
  }

  const WORDS = { higher: "more", lower: "less", open: "open" };
  const INK = { higher: "var(--ex-3)", lower: "var(--ex-2)", open: "var(--ex-soft)" };

  function mount(stage, figure) {
    const settings = JSON.parse(figure.querySelector("script.ex-data").textContent);
    const longest = Math.max(...settings.map((s) => s.rows.length));
    const controls = bar(stage);
    let shown = settings[0];
    choice(controls, {
      name: "situation", value: shown.key, options: Object.fromEntries(settings.map((s) => [s.key, s.title])),
      input: (key) => { shown = settings.find((s) => s.key === key); update(); },
    });
    const [svg] = drawings(stage, 58 + 24 * longest, [[0, 620, "Difference of each method to its twin, with 95 % interval"]]);
    const say = readout(stage);

    function update() {
      svg.replaceChildren();
      const rows = shown.rows.map((row) => ({ ...row, ...paired(row.ours, row.theirs) })).sort((a, b) => b.mean - a.mean);
      const edge = Math.max(0.02, ...rows.flatMap((r) => [Math.abs(r.mean) * 1.15, Math.min(0.5, Math.abs(r.low)), Math.min(0.5, Math.abs(r.high))]));
      const [wide, middle, half] = stage.clientWidth < 480 ? [420, 290, 82] : [620, 390, 150];
      const x = (v) => middle + (clamp(v, -edge, edge) / edge) * half;
      label(svg, 6, 16, "method");
      label(svg, middle, 16, `${shown.metric}: difference`, { "text-anchor": "middle" });
      label(svg, wide - 6, 16, wide < 620 ? "time" : "time × CE", { "text-anchor": "end" });
      element(svg, "path", { d: `M${middle} 24V${34 + 24 * rows.length}`, class: "ex-guide" });
      rows.forEach((row, i) => {
        const y = 42 + 24 * i;
        label(svg, 6, y + 4, row.title);
        element(svg, "path", { d: `M${x(row.low)} ${y}H${x(row.high)}`, stroke: INK[row.verdict], "stroke-width": 2.5, fill: "none" });
        const dot = element(svg, "circle", { cx: x(row.mean), cy: y, r: 5, fill: INK[row.verdict] });
        element(dot, "title", {}, `${row.mean.toFixed(3)}, ${row.low.toFixed(3)} to ${row.high.toFixed(3)}: ${WORDS[row.verdict]}`);
        label(svg, wide - 6, y + 4, row.time ? row.time.toFixed(1) : "", { "text-anchor": "end" });
      });
      for (const v of [-edge, 0, edge]) label(svg, x(v), 52 + 24 * rows.length, (v > 0 ? "+" : "") + v.toFixed(2), { "text-anchor": "middle" });
      set(svg, { viewBox: `0 0 ${wide} ${58 + 24 * rows.length}` });
      const best = rows.filter((r) => r.verdict === "higher");
      const worse = rows.filter((r) => r.verdict === "lower");
      say(`${shown.question} ` + (best.length ? `Above its twin, corrected for all comparisons: ${best.map((r) => r.title).join(", ")}.`
        : "Nothing is above its twin beyond doubt here.") + (worse.length ? ` Below it: ${worse.map((r) => r.title).join(", ")}.` : "")
        + ` Grey rows are open, not equal: with ${rows[0].ours.length} seeds small effects cannot be seen.`);
    }
    update();
    addEventListener("resize", update);
  }

  Explorable.define("bench", { core: { paired }, mount });
})();
