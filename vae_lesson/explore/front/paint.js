// What the playground draws: the plane of codes, rows of digits, and curves.

import { make, say } from "./parts.js";

export const REACH = 4; // of the plane, from -REACH to REACH
const GRID_REACH = 3; // of the manifold that trainer.js decodes
const ELLIPSES = 40; // clouds drawn whole; of the others the middles alone
// Of the classes: matplotlib's tab10.
export const COLOURS = "1f77b4 ff7f0e 2ca02c d62728 9467bd 8c564b e377c2 7f7f7f bcbd22 17becf".split(" ");
// Of each curve its colour, and how far below its end its name stands.
const CURVES = { recon: ["#4a90d9", 11], KL: ["#d55e00", -11], "−ELBO": ["#808080", -11] };

// The middles mu of clouds, coloured by class, and if there are clouds (logVar) some 2σ ellipses;
// the prior's circles at 1σ and 2σ; the point. Of latentSize numbers the first two are shown.
export function paintPlane(canvas, { mu, logVar, manifold }, labels, latentSize, point) {
  const [context, side] = [canvas.getContext("2d"), canvas.width];
  const scale = side / 2 / REACH;
  const ellipse = (x, y, right, up) => {
    context.beginPath();
    context.ellipse(side / 2 + scale * x, side / 2 - scale * y, right, up, 0, 0, 2 * Math.PI);
  };
  context.clearRect(0, 0, side, side);
  if (manifold) {
    const cells = Math.sqrt(manifold.length / 64);
    const [corner, width] = [scale * (REACH - GRID_REACH), 2 * scale * GRID_REACH];
    const behind = make("canvas", {});
    paintDigits(behind, manifold, cells, 0);
    context.imageSmoothingEnabled = false;
    context.drawImage(behind, corner, corner, width, width);
  }
  context.strokeStyle = manifold ? "#fff" : "#808080";
  context.lineWidth = 2;
  for (const [sigmas, dashes] of [[1, [8, 6]], [2, []]]) {
    context.setLineDash(dashes);
    ellipse(0, 0, sigmas * scale, sigmas * scale);
    context.stroke();
  }
  context.setLineDash([]);
  labels.forEach((label, i) => {
    const k = i * latentSize;
    context.fillStyle = context.strokeStyle = `#${COLOURS[label]}`;
    ellipse(mu[k], mu[k + 1], 4, 4);
    context.fill();
    if (!logVar || i >= ELLIPSES) return;
    ellipse(mu[k], mu[k + 1], ...[k, k + 1].map((j) => 2 * scale * Math.exp(logVar[j] / 2)));
    context.lineWidth = 1.5;
    context.stroke();
  });
  ellipse(...point, 8, 8);
  [context.fillStyle, context.strokeStyle, context.lineWidth] = ["#000", "#fff", 5];
  context.stroke();
  context.fill();
}

// Intensities of 8×8 images, so many in a row.
export function paintDigits(canvas, intensities, perRow, gap = 1) {
  const n = intensities.length / 64;
  [canvas.width, canvas.height] = [perRow, Math.ceil(n / perRow)].map((k) => k * (8 + gap) - gap);
  const context = canvas.getContext("2d");
  for (let i = 0; i < n; i++) {
    const image = new ImageData(8, 8);
    for (let p = 0; p < 64; p++) {
      image.data.fill(255 * intensities[i * 64 + p], 4 * p, 4 * p + 3);
      image.data[4 * p + 3] = 255;
    }
    context.putImageData(image, (i % perRow) * (8 + gap), Math.floor(i / perRow) * (8 + gap));
  }
}

// recon, KL and −ELBO over the steps, named where they end.
export function paintCurves(canvas, history) {
  const [context, { width, height }] = [canvas.getContext("2d"), canvas];
  const highest = history.reduce((most, { recon, kl }) => Math.max(most, recon + (kl ?? 0)), 45);
  const [left, right, head, foot] = [34, 84, 24, 28];
  const end = Math.max(history.at(-1).step, 100);
  const x = (step) => left + ((width - left - right) * step) / end;
  const y = (nats) => height - foot - ((height - foot - head) * nats) / highest;
  context.clearRect(0, 0, width, height);
  context.font = "20px system-ui, sans-serif";
  context.fillStyle = "#7a7a7a"; // in light and in dark
  context.textBaseline = "middle";
  for (let nats = 0; nats < highest; nats += highest < 100 ? 20 : 100) {
    context.fillRect(left, y(nats), width - left - right, 0.5);
    context.fillText(nats, 2, y(nats));
  }
  context.fillText(say("nats"), left + 6, y(highest));
  context.fillText("0", left, height - 10);
  context.fillText(say("{end} steps", { end }), x(end) - 60, height - 10);
  for (const [name, [stroke, lower]] of Object.entries(CURVES)) {
    const of = ({ recon, kl }) => ({ recon, KL: kl, "−ELBO": recon + kl })[name];
    const some = name === "recon" ? history : history.filter(({ kl }) => kl !== null);
    context.strokeStyle = context.fillStyle = stroke;
    context.lineWidth = name === "−ELBO" ? 2 : 4;
    context.beginPath();
    for (const each of some) context.lineTo(x(each.step), y(of(each)));
    context.stroke();
    if (some.at(-1) === history.at(-1)) {
      context.fillText(name, width - right + 6, y(of(some.at(-1))) + lower);
    }
  }
}
