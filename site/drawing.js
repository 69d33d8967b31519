// The drawing pad of a page: a digit that is drawn, and what the encoder makes of it.
//
// As DrawExplorer does in vae_lesson/explore/drawing.py, but for the nearest training images, which
// a page does not have.

import { bytes, greys, unpackEncoder } from "./decode.js";
import { button, fixed, hostOf, make, packed, picture } from "./parts.js";
import pad from "../vae_lesson/explore/pad.js";

const SIDE = 28; // pixels of an image
const SHOWN = 6; // reconstructions in their row
const PAUSE = 50; // milliseconds after a move until the verdict follows
const PALE = new Uint8Array(SIDE * SIDE).fill(240); // where there is no image

export async function drawing(state, [{ decode, logits }]) {
  const encode = await unpackEncoder(packed(state.encoder));
  const { label, size, eps, test_images: testImages } = state;
  const start = new DataView(bytes(state.drawing).buffer);
  const host = hostOf({ number: 0, pixels: start, label, size });
  const seen = picture("the drawing as the network sees it");
  const decoded = picture("decoded image");
  const samples = picture("reconstructions", "448px", 1);
  const bars = codeBars();
  const verdict = make("p", {});

  let code = null; // of the drawing; null while there is none
  let waiting = null; // the timer of the verdict

  function show() {
    const image = centred(new Uint8Array(host.get("pixels").buffer));
    const x = Float32Array.from(image, (grey) => grey / 255);
    code = image.some(Boolean) ? { x, ...encode(x) } : null;
    seen.draw([[image]]);
    decoded.draw([[code ? decode(code.mu) : PALE]]);
    bars.draw(code ? [...code.mu] : [], code ? [...code.sigma] : []);
    waiting ??= setTimeout(judge, PAUSE); // it costs several times as much as the picture
  }
  function judge() {
    waiting = null;
    if (!code) {
      samples.draw([Array(SHOWN).fill(PALE)]);
      verdict.innerHTML = "<b>Draw a digit</b> on the black pad.";
      return;
    }
    const { mu, sigma } = code;
    const outputs = eps.map((noise) => logits(mu.map((m, j) => m + noise[j] * sigma[j])));
    samples.draw([outputs.slice(0, SHOWN).map(greys)]);
    verdict.innerHTML = words(state, score(code, outputs));
  }
  function put(pixels) {
    host.set("pixels", new DataView(pixels.buffer));
    host.set("number", host.get("number") + 1); // newer than a stroke that is being drawn
    show();
  }

  const el = make("div", {});
  host.save_changes = show;
  pad.render({ model: host, el });
  const clear = button("Clear", () => put(new Uint8Array(SIDE * SIDE)));
  const another = button("Put a test image on it", () => {
    put(bytes(testImages[Math.floor(Math.random() * testImages.length)]));
  });
  const under = (caption, canvas) => make("div", {}, caption, canvas);
  const buttons = make("div", { className: "buttons" }, clear, another);
  show();
  judge();
  return [
    make("div", {}, "the drawing", el, buttons),
    make(
      "div",
      { className: "drawn" },
      under("as the network sees it", seen.canvas),
      under("decoded from μ", decoded.canvas),
      under("reconstructions, each from another draw of z", samples.canvas),
    ),
    make(
      "div",
      { className: "wide" },
      verdict,
      "its code: μ (bar) ± σ (line) of each dimension; ±1σ of N(0, 1) in grey",
      bars.element,
      make("small", {}, "The nearest training images are shown only where the lesson runs."),
    ),
  ];
}

// Recon and KL in nats of an image x and its code; recon as the mean over outputs, the logits that
// draws of z decode to.
export function score({ x, mu, sigma }, outputs) {
  const sum = (values, each) => values.reduce((total, value, i) => total + each(value, i), 0);
  const kl = sum(mu, (m, j) => (m * m + sigma[j] ** 2 - 1) / 2 - Math.log(sigma[j]));
  // -log p(x|z) of Bernoulli pixels: log(1 + e^l) - x l.
  const nll = (l, p) => Math.max(l, 0) + Math.log1p(Math.exp(-Math.abs(l))) - x[p] * l;
  const recon = sum(outputs, (output) => sum(output, nll)) / outputs.length;
  return { recon, kl };
}

// The −ELBO as HTML, with its place among the test images: between quantiles of theirs.
export function words({ scores, n_scores: n, strange }, { recon, kl }) {
  const neg = recon + kl;
  const last = scores.length - 1;
  const above = scores.findIndex((each) => each >= neg); // the first that is not less
  const between = (i) => i - 1 + (neg - scores[i - 1]) / (scores[i] - scores[i - 1]);
  const place = above < 0 ? 1 : above === 0 ? 0 : between(above) / last;
  const word = place > strange ? "Strange" : place < 1 - strange ? "Too easy" : "Ordinary";
  const [total, ofRecon, ofKl] = [neg, recon, kl].map((nats) => nats.toFixed(1));
  const share = (100 * place).toFixed(1);
  return (
    `−ELBO <b>${total}</b> nats (recon ${ofRecon} + KL ${ofKl}): more than ` +
    `<b>${share}%</b> of ${n.toLocaleString("en")} test images. <b>${word}.</b>`
  );
}

// --- the drawing as MNIST's images were: `centre_digit` in data.py -------------------------------

// Returns 28×28 pixels, 0 to 255, fitted into 20×20, their centre of mass in the middle.
export function centred(pixels) {
  const frame = new Uint8Array(SIDE * SIDE);
  const inked = [...pixels.keys()].filter((p) => pixels[p] > 0);
  if (!inked.length) return frame;
  const [top, bottom] = ends(inked.map((p) => Math.floor(p / SIDE)));
  const [left, right] = ends(inked.map((p) => p % SIDE));
  let ink = [];
  for (let row = top; row <= bottom; row++) {
    ink.push([...pixels.slice(row * SIDE + left, row * SIDE + right + 1)]);
  }
  const lengths = [ink.length, ink[0].length];
  const scale = 20 / Math.max(...lengths);
  const [height, width] = lengths.map((length) => Math.max(1, toEven(length * scale)));
  if (height !== lengths[0] || width !== lengths[1]) {
    const wide = ink.map((row) => resized(row, width));
    ink = transposed(transposed(wide).map((column) => resized(column, height)));
    ink = ink.map((row) => row.map((grey) => Math.min(Math.max(toEven(grey), 0), 255)));
  }
  const [first, leftmost] = [corner(ink), corner(transposed(ink))];
  ink.forEach((row, i) => frame.set(row, (first + i) * SIDE + leftmost));
  return frame;
}

// Where the first of these rows goes, in the frame.
function corner(rows) {
  const masses = rows.map((row) => row.reduce((sum, grey) => sum + grey));
  const total = Math.max(masses.reduce((sum, mass) => sum + mass), 1);
  const moment = masses.reduce((sum, mass, i) => sum + mass * i, 0);
  const place = Math.ceil(SIDE / 2 - 0.5 - Math.fround(moment / total)); // torch's is a float
  return Math.min(Math.max(place, 0), SIDE - rows.length);
}

// Returns numbers as so many, bicubic and antialiased as in torch's interpolate.
function resized(values, length) {
  const scale = values.length / length;
  const stretch = Math.max(scale, 1);
  return Array.from({ length }, (_, i) => {
    const weights = values.map((_, j) => cubic((j + 0.5 - scale * (i + 0.5)) / stretch));
    const total = weights.reduce((sum, weight) => sum + weight);
    return values.reduce((sum, value, j) => sum + value * weights[j], 0) / total;
  });
}

// Keys' kernel with a = -1/2.
function cubic(distance) {
  const x = Math.abs(distance);
  if (x < 1) return (1.5 * x - 2.5) * x * x + 1;
  return x < 2 ? ((-0.5 * x + 2.5) * x - 4) * x + 2 : 0;
}

function ends(values) {
  return [Math.min(...values), Math.max(...values)];
}

function transposed(rows) {
  return rows[0].map((_, j) => rows.map((row) => row[j]));
}

// Rounds a half to the even number, as Python and torch do.
function toEven(value) {
  const up = Math.round(value);
  return up - value === 0.5 && up % 2 ? up - 1 : up;
}

// --- its code ------------------------------------------------------------------------------------

// μ as a bar and μ ± σ as a line for each dimension, from -4 to 4, over N(0, 1)'s ±1σ.
function codeBars() {
  const element = make("div", { className: "bars" });
  element.setAttribute("role", "img");
  const y = (value) => 72 - 17 * Math.min(Math.max(value, -4), 4);
  const line = (x, y1, x2, y2, kind) => {
    return `<line class="${kind}" x1="${x}%" y1="${y1}" x2="${x2}%" y2="${y2}"/>`;
  };
  const box = (x, width, high, low, kind) => {
    const [top, height] = [y(high), y(low) - y(high)];
    return `<rect class="${kind}" x="${x}%" width="${width}%" y="${top}" height="${height}"/>`;
  };

  function draw(mu, sigma) {
    const room = 95 / mu.length; // percent, to the right of the numbers
    const parts = [box(5, 95, 1, -1, "prior")];
    for (const value of [-3, 0, 3]) {
      parts.push(line(5, y(value), 100, y(value), "axis"));
      parts.push(`<text y="${y(value) + 4}">${String(value).replace("-", "−")}</text>`);
    }
    mu.forEach((m, j) => {
      const x = 5 + (j + 0.5) * room;
      parts.push(box(x - 0.3 * room, 0.6 * room, Math.max(m, 0), Math.min(m, 0), "mean"));
      parts.push(line(x, y(m - sigma[j]), x, y(m + sigma[j]), "spread"));
      if (mu.length > 20 && j % 5) return; // numbers need room
      parts.push(`<text class="number" x="${x}%" y="155">${j}</text>`);
    });
    element.innerHTML = `<svg width="100%" height="160">${parts.join("")}</svg>`;
    const order = [...mu.keys()].sort((i, j) => Math.abs(mu[j]) - Math.abs(mu[i]));
    const named = order.slice(0, 5).map((j) => `z[${j}] ${fixed(mu[j], 1)} ± ${fixed(sigma[j], 1)}`);
    element.setAttribute("aria-label", mu.length ? `code: ${named.join(", ")}` : "no code yet");
  }
  return { element, draw };
}
