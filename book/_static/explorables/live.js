/* Two real networks of the first lab, computed here: five convolutions, their mean, one linear layer. Cover a part of the
image and see what each network's map and answer make of it. Chapter 1, "The question" and "Class activation maps". */
"use strict";

(() => {
  const { clamp, softmax, drawings, label, heat, bar, slider, choice, button, readout, element, set, point, bars } = Explorable;
  const [SIDE, CELLS] = [32, 8];
  const bytes = (text) => Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));

  /* Numbers of half precision, two bytes each: sign, five bits of exponent, ten of fraction. */
  function unpacked(text) {
    const halves = new Uint16Array(bytes(text).buffer);
    return Float32Array.from(halves, (half) => {
      const [sign, power, rest] = [half >> 15 ? -1 : 1, (half >> 10) & 31, half & 1023];
      return sign * (power ? 2 ** (power - 15) * (1 + rest / 1024) : 2 ** -14 * (rest / 1024));
    });
  }

  function network({ classes, layers, head }) {
    const ready = (part) => ({ ...part, weight: unpacked(part.weight), bias: unpacked(part.bias) });
    return { classes, layers: layers.map(ready), head: ready(head) };
  }

  /* A 3 x 3 convolution that keeps the size up to its stride, and the positive part. */
  function convolved({ inputs, outputs, stride, dilation, weight, bias }, maps, side) {
    const size = Math.ceil(side / stride);
    const found = new Float32Array(outputs * size * size);
    for (let o = 0; o < outputs; o++) {
      const sums = new Float64Array(size * size).fill(bias[o]);
      for (let c = 0; c < inputs; c++) {
        for (let k = 0; k < 9; k++) {
          const w = weight[(o * inputs + c) * 9 + k];
          const [down, right] = [(Math.floor(k / 3) - 1) * dilation, ((k % 3) - 1) * dilation];
          for (let r = 0; r < size; r++) {
            const y = r * stride + down;
            if (y < 0 || y >= side) continue;
            const row = (c * side + y) * side;
            for (let q = 0; q < size; q++) {
              const x = q * stride + right;
              if (x >= 0 && x < side) sums[r * size + q] += w * maps[row + x];
            }
          }
        }
      }
      for (let i = 0; i < size * size; i++) found[o * size * size + i] = Math.max(0, sums[i]);
    }
    return [found, size];
  }

  /* The logits, and the class activation map of every class, of an image of three colours in [0, 1]. */
  function explained(net, image) {
    let [maps, size] = [image, Math.sqrt(image.length / 3)];
    for (const layer of net.layers) [maps, size] = convolved(layer, maps, size);
    const [cells, depth] = [size * size, maps.length / (size * size)];
    const cams = Array.from({ length: net.classes }, (_, k) => {
      const map = new Array(cells).fill(0);
      for (let c = 0; c < depth; c++) {
        const w = net.head.weight[k * depth + c];
        for (let i = 0; i < cells; i++) map[i] += w * maps[c * cells + i];
      }
      return map;
    });
    return { cams, logits: cams.map((map, k) => map.reduce((a, b) => a + b, 0) / cells + net.head.bias[k]) };
  }

  /* The image with a grey square around (x, y), in pixels. */
  function covered(image, x, y, size) {
    const found = Float32Array.from(image);
    const [left, top] = [Math.round(x - size / 2), Math.round(y - size / 2)];
    for (let r = Math.max(0, top); r < Math.min(SIDE, top + size); r++) {
      for (let q = Math.max(0, left); q < Math.min(SIDE, left + size); q++) {
        for (let c = 0; c < 3; c++) found[(c * SIDE + r) * SIDE + q] = 0.5;
      }
    }
    return found;
  }

  function drawn(image) {
    const canvas = Object.assign(document.createElement("canvas"), { width: SIDE, height: SIDE });
    const pixels = new ImageData(SIDE, SIDE);
    for (let i = 0; i < SIDE * SIDE; i++) {
      for (let c = 0; c < 3; c++) pixels.data[4 * i + c] = 255 * image[c * SIDE * SIDE + i];
      pixels.data[4 * i + 3] = 255;
    }
    canvas.getContext("2d").putImageData(pixels, 0, 0);
    return canvas.toDataURL();
  }

  const NETS = { told: "was told by the background", silent: "learnt digits" };

  function mount(stage, figure) {
    const given = JSON.parse(figure.querySelector("script.ex-data").textContent);
    const nets = Object.keys(NETS).map((key) => network(given[key]));
    const images = given.images.map(({ label: class_, pixels }) => ({ class_, pixels: Float32Array.from(bytes(pixels), (v) => v / 255) }));
    let [at, other] = [0, 0];
    const [left, right] = drawings(stage, 276, [[0, 220, "An image with a grey square"], [230, 620, "What two networks make of it"]]);
    label(left, 12, 18, "drag the grey square");
    const picture = element(left, "image", { x: 12, y: 28, width: 196, height: 196, style: "image-rendering: pixelated" });
    const scale = 196 / SIDE;
    const square = point(left, {
      x: 12 + 16 * scale, y: 28 + 16 * scale, name: "middle of the grey square", colour: "var(--ex-2)", radius: 7, step: 2 * scale,
      limit: (x, y) => [clamp(x, 12, 208), clamp(y, 28, 224)], move: () => update(),
    });
    const title = label(left, 12, 246);
    const shown = Object.values(NETS).map((name, n) => {
      const x = 236 + n * 196;
      label(right, x, 18, name);
      const map = heat(right, { x, y: 28, size: 112, n: CELLS, name: `Map of the network that ${name}` });
      const names = [0, 1, 2].map((i) => label(right, x, 166 + 36 * i));
      return { map, names, chart: bars(right, { x, y: 166, width: 150, names: ["", "", ""], most: 1, gap: 36 }) };
    });
    const first = bar(stage);
    choice(first, { name: "background", options: { 0: "of its class", 1: "another" }, value: "0", input: (v) => { other = Number(v); update(); } });
    const controls = bar(stage);
    const size = slider(controls, { name: "side of the square", min: 0, max: 24, step: 2, value: 12, text: (v) => `${v} px`, input: () => update() });
    const shift = slider(controls, { name: "map of the answer, or of class", min: -1, max: 9, step: 1, value: -1, text: (v) => (v < 0 ? "answer" : `${v}`), input: () => update() });
    button(controls, "Another digit", () => { at = (at + 2) % images.length; update(); });
    const say = readout(stage);

    function update() {
      const { class_, pixels } = images[at + other];
      const image = covered(pixels, (square.x - 12) / scale, (square.y - 28) / scale, size.value);
      set(picture, { href: drawn(image) });
      title.textContent = `a ${class_}, on ${other ? "another background" : "the background of its class"}`;
      const answers = nets.map((net, n) => {
        const { cams, logits } = explained(net, image);
        const chances = softmax(logits);
        const best = chances.map((p, k) => [p, k]).sort((a, b) => b[0] - a[0]).slice(0, 3);
        shown[n].map.show(cams[shift.value < 0 ? best[0][1] : shift.value]);
        shown[n].chart(best.map(([p]) => p));
        best.forEach(([, k], i) => { shown[n].names[i].textContent = `class ${k}`; });
        return best[0][1];
      });
      const verdicts = answers.map((k) => (k === class_ ? `${k}, rightly` : `${k}, wrongly`));
      say(`The network that was told says ${verdicts[0]}; the one that learnt digits says ${verdicts[1]}. `
        + (size.value === 0 ? "Nothing is hidden now." : "What has to be hidden to change an answer? Try the digit, then the background."));
    }
    update();
  }

  Explorable.define("live", { core: { unpacked, network, explained, covered }, mount });
})();
