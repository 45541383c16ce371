/* The shared core of the explorables: figures that compute in the reader's browser while they are dragged.

An explorable registers itself as Explorable.define(name, {core, mount}). `core` holds its pure functions, which a test
compares with the package; `mount(figure)` builds what one sees. No module loader and no library: the pages also work
when they are opened from a folder. Colours are CSS variables, so figures follow the page's theme without a redraw. */
"use strict";

const Explorable = (() => {
  const known = {};
  const SVG = "http://www.w3.org/2000/svg";

  const clamp = (value, low, high) => Math.min(high, Math.max(low, value));
  const sum = (values) => values.reduce((total, value) => total + value, 0);
  const mean = (values) => sum(values) / values.length;

  function softmax(logits) {
    const top = Math.max(...logits);
    const powers = logits.map((z) => Math.exp(z - top));
    const total = sum(powers);
    return powers.map((p) => p / total);
  }

  /* log of the sum of exponentials, finite where the exponentials are not */
  function logSumExp(values) {
    const top = Math.max(...values);
    return top + Math.log(sum(values.map((v) => Math.exp(v - top))));
  }

  const logSoftmax = (logits) => logits.map((z) => z - logSumExp(logits));

  /* --- elements -------------------------------------------------------------------------------------------------- */

  function element(parent, tag, attributes = {}, text = "") {
    const node = parent instanceof SVGElement || tag === "svg"
      ? document.createElementNS(SVG, tag) : document.createElement(tag);
    set(node, attributes);
    if (text) node.textContent = text;
    parent.append(node);
    return node;
  }

  function set(node, attributes) {
    for (const [name, value] of Object.entries(attributes)) {
      if (value === null) node.removeAttribute(name);
      else node.setAttribute(name, value);
    }
    return node;
  }

  /* Drawings that stand side by side where there is room and below each other on a phone. Each begins at `from` on a
  common ruler, so that one layout holds for all of them; one that needs less of the height says how much. */
  function drawings(stage, height, parts) {
    const row = element(stage, "div", { class: "ex-drawings" });
    return parts.map(([from, to, label, own = height]) => element(row, "svg", {
      viewBox: `${from} 0 ${to - from} ${own}`, role: "group", "aria-label": label, class: "ex-drawing",
      style: `flex: ${to - from} 1 ${Math.min(300, 0.85 * (to - from))}px; max-width: ${1.25 * (to - from)}px`,
    }));
  }

  const label = (svg, x, y, text, attributes = {}) => element(svg, "text", { x, y, class: "ex-label", ...attributes }, text);

  /* Where a pointer is, in the units of the drawing. */
  function place(svg, event) {
    const matrix = svg.getScreenCTM().inverse();
    const at = new DOMPoint(event.clientX, event.clientY).matrixTransform(matrix);
    return [at.x, at.y];
  }

  const KEYS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

  /* --- a point that is dragged by mouse or finger, or moved by the arrow keys (with shift: further) ----------------- */

  function point(svg, { x, y, name, colour = "var(--ex-1)", radius = 8, step = 4, limit = (a, b) => [a, b], move, says }) {
    const node = element(svg, "circle", {
      r: radius, fill: colour, class: "ex-point", tabindex: 0, role: "slider", "aria-label": name,
      "aria-valuemin": 0, "aria-valuemax": 100,
    });
    const state = { x, y, node, put };
    function put(nx, ny, tell = true) {
      [state.x, state.y] = limit(nx, ny);
      set(node, { cx: state.x, cy: state.y, "aria-valuenow": Math.round(state.x) });
      if (tell) move(state);
      node.setAttribute("aria-valuetext", says ? says(state) : `${Math.round(state.x)}, ${Math.round(state.y)}`);
    }
    node.addEventListener("pointerdown", (event) => {
      node.setPointerCapture(event.pointerId);
      node.focus({ preventScroll: true });
      event.preventDefault();
    });
    node.addEventListener("pointermove", (event) => {
      if (node.hasPointerCapture(event.pointerId)) put(...place(svg, event));
    });
    node.addEventListener("keydown", (event) => {
      const way = KEYS[event.key];
      if (!way) return;
      event.preventDefault();
      const far = event.shiftKey ? 4 * step : step;
      put(state.x + far * way[0], state.y + far * way[1]);
    });
    put(x, y, false);
    return state;
  }

  /* --- a map of n x n cells; with `paint` it can be drawn on by pointer or by arrow keys and space ------------------ */

  function heat(svg, { x, y, size, n, name, paint = null, frame = null }) {
    const group = element(svg, "g", { class: "ex-heat", role: "img", "aria-label": name });
    const side = size / n;
    const cells = Array.from({ length: n * n }, (_, i) => element(group, "rect", {
      x: x + (i % n) * side, y: y + Math.floor(i / n) * side, width: side, height: side, class: "ex-cell",
    }));
    element(group, "rect", { x, y, width: size, height: size, class: "ex-frame" });
    if (frame) outline(group, x, y, side, n, frame);
    if (paint) brush(svg, group, { x, y, side, n, name, paint });
    return {
      group,
      /* Positive values in one colour, negative ones in the other, as strong as their share of `most`. */
      show(values, most = Math.max(1e-12, ...values.map(Math.abs))) {
        values.forEach((value, i) => set(cells[i], {
          fill: value < 0 ? "var(--ex-cold)" : "var(--ex-hot)", "fill-opacity": clamp(Math.abs(value) / most, 0, 1).toFixed(3),
        }));
      },
    };
  }

  /* Edges between the cells inside and outside of a mask. */
  function outline(group, x, y, side, n, mask) {
    const inside = (r, c) => r >= 0 && c >= 0 && r < n && c < n && mask[r * n + c];
    const lines = [];
    for (let r = 0; r <= n; r++) {
      for (let c = 0; c <= n; c++) {
        if (inside(r, c) !== inside(r - 1, c) && c < n) lines.push(`M${x + c * side} ${y + r * side}h${side}`);
        if (inside(r, c) !== inside(r, c - 1) && r < n) lines.push(`M${x + c * side} ${y + r * side}v${side}`);
      }
    }
    return element(group, "path", { d: lines.join(""), class: "ex-mask" });
  }

  function brush(svg, group, { x, y, side, n, name, paint }) {
    let at = Math.floor(n / 2) * n + Math.floor(n / 2);
    const cursor = element(group, "rect", { width: side, height: side, class: "ex-cursor" });
    set(group, { tabindex: 0, role: "application", "aria-label": `${name}. Arrow keys move, space paints, shift and space erases.` });
    const follow = () => set(cursor, { x: x + (at % n) * side, y: y + Math.floor(at / n) * side });
    const cellAt = (event) => {
      const [px, py] = place(svg, event);
      const [column, row] = [Math.floor((px - x) / side), Math.floor((py - y) / side)];
      return column >= 0 && row >= 0 && column < n && row < n ? row * n + column : -1;
    };
    let last = -1;
    const stroke = (event) => {
      const cell = cellAt(event);
      if (cell < 0 || cell === last) return;
      const begins = last < 0;
      last = at = cell;
      follow();
      paint(cell, event.shiftKey || event.buttons === 2, begins);
    };
    group.addEventListener("pointerdown", (event) => {
      group.setPointerCapture(event.pointerId);
      group.focus({ preventScroll: true });
      event.preventDefault();
      last = -1;
      stroke(event);
    });
    group.addEventListener("pointermove", (event) => group.hasPointerCapture(event.pointerId) && stroke(event));
    group.addEventListener("contextmenu", (event) => event.preventDefault());
    group.addEventListener("keydown", (event) => {
      const way = KEYS[event.key];
      if (way) {
        const [column, row] = [clamp((at % n) + way[0], 0, n - 1), clamp(Math.floor(at / n) + way[1], 0, n - 1)];
        at = row * n + column;
        follow();
      } else if (event.key === " " || event.key === "Enter") paint(at, event.shiftKey, true);
      else return;
      event.preventDefault();
    });
    follow();
  }

  /* --- controls below a drawing ------------------------------------------------------------------------------------- */

  const bar = (parent) => element(parent, "div", { class: "ex-controls" });

  function slider(parent, { name, min, max, step, value, text = (v) => v.toFixed(2), input }) {
    const box = element(parent, "label", { class: "ex-slider" });
    element(box, "span", {}, name);
    const range = element(box, "input", { type: "range", min, max, step, value });
    const output = element(box, "output");
    const tell = () => {
      output.textContent = text(Number(range.value));
      range.setAttribute("aria-valuetext", output.textContent);
    };
    range.addEventListener("input", () => { tell(); input(Number(range.value)); });
    tell();
    return { get value() { return Number(range.value); }, set value(v) { range.value = v; tell(); } };
  }

  let groups = 0;
  function choice(parent, { name, options, value, input }) {
    const box = element(parent, "fieldset", { class: "ex-choice" });
    element(box, "legend", {}, name);
    const group = `ex-choice-${groups++}`;
    for (const [key, text] of Object.entries(options)) {
      const option = element(box, "label");
      const radio = element(option, "input", { type: "radio", name: group, value: key });
      radio.checked = key === value;
      element(option, "span", {}, text);
      radio.addEventListener("change", () => input(key));
    }
    return box;
  }

  function button(parent, text, press) {
    element(parent, "button", { type: "button", class: "ex-button" }, text).addEventListener("click", press);
  }

  /* One or two sentences that say what is to be seen now; read out by a screen reader when they change. */
  function readout(parent) {
    const node = element(parent, "p", { class: "ex-readout", "aria-live": "polite" });
    return (html) => { if (node.innerHTML !== html) node.innerHTML = html; };
  }

  /* --- small plots ---------------------------------------------------------------------------------------------------- */

  /* Axes of a box; returns scales and a function that draws a line through points [x, y]. */
  function axes(svg, { x, y, width, height, xs, ys, xname = "", yname = "", xticks = [], yticks = [] }) {
    const sx = (v) => x + ((v - xs[0]) / (xs[1] - xs[0])) * width;
    const sy = (v) => y + height - ((v - ys[0]) / (ys[1] - ys[0])) * height;
    element(svg, "path", { d: `M${x} ${y}V${y + height}H${x + width}`, class: "ex-axis" });
    for (const [v, text = `${v}`] of xticks.map((t) => [].concat(t))) {
      label(svg, sx(v), y + height + 14, text, { "text-anchor": "middle" });
    }
    for (const [v, text = `${v}`] of yticks.map((t) => [].concat(t))) {
      label(svg, x - 5, sy(v) + 4, text, { "text-anchor": "end" });
    }
    label(svg, x + width, y + height + 28, xname, { "text-anchor": "end" });
    label(svg, x, y - 7, yname);
    const path = (points) => points.map(([a, b], i) => `${i ? "L" : "M"}${sx(a).toFixed(1)} ${sy(clamp(b, ...ys)).toFixed(1)}`).join("");
    return {
      sx, sy,
      line: (colour, dashed = false) => {
        const node = element(svg, "path", { class: "ex-line", stroke: colour, "stroke-dasharray": dashed ? "4 3" : null });
        return (points) => node.setAttribute("d", path(points));
      },
    };
  }

  function arrow(svg, colour) {
    const node = element(svg, "path", { class: "ex-arrow", stroke: colour, fill: "none" });
    return (x, y, dx, dy) => {
      const length = Math.hypot(dx, dy);
      if (length < 1.5) return node.setAttribute("d", "");
      const [ux, uy, head] = [dx / length, dy / length, Math.min(7, length / 2)];
      const [tx, ty] = [x + dx, y + dy];
      const wing = (s) => `${tx - head * (ux + s * uy * 0.6)} ${ty - head * (uy - s * ux * 0.6)}`;
      return node.setAttribute("d", `M${x} ${y}L${tx} ${ty}M${wing(1)}L${tx} ${ty}L${wing(-1)}`);
    };
  }

  /* Horizontal bars with a name and a value each; `show` takes the values. */
  function bars(svg, { x, y, width, names, most, colours = [], gap = 24, digits = 2 }) {
    const parts = names.map((name, i) => {
      label(svg, x, y + i * gap, name);
      const rect = element(svg, "rect", { x, y: y + i * gap + 4, height: 7, width: 0, rx: 2, fill: colours[i] || "var(--ex-1)" });
      return [rect, label(svg, x + width, y + i * gap, "", { "text-anchor": "end" })];
    });
    return (values) => values.forEach((value, i) => {
      parts[i][0].setAttribute("width", clamp((value / most) * width, 0, width).toFixed(1));
      parts[i][1].textContent = value.toFixed(digits);
    });
  }

  /* --- starting ------------------------------------------------------------------------------------------------------- */

  function define(name, { core, mount }) {
    known[name] = { core, mount };
    document.querySelectorAll(`figure.explorable[data-explorable="${name}"]`).forEach((figure) => {
      const stage = figure.querySelector(".ex-stage");
      const still = [...stage.childNodes];
      try {
        mount(stage, figure);
        still.forEach((node) => node.remove());
        figure.dataset.live = "yes";
      } catch (error) {
        stage.replaceChildren(...still); // the picture for readers without scripts stays
        console.error(error);
      }
    });
  }

  return {
    define, known, clamp, sum, mean, softmax, logSoftmax, logSumExp, element, set, drawings, label, point, heat, bar,
    slider, choice, button, readout, axes, arrow, bars, outline,
  };
})();
