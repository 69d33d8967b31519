// A drawing as MNIST's images were made: `centre_digit` in data.py.

import { SIDE } from "../vae_lesson/explore/front/drawing.js";

// Returns 28×28 pixels, 0 to 255, fitted into 20×20, their centre of mass in the middle.
export function centred(pixels) {
  const frame = new Uint8Array(SIDE * SIDE);
  const inked = [...pixels.keys()].filter((p) => pixels[p] > 0);
  if (!inked.length) return frame;
  const [rows, columns] = [inked.map((p) => Math.floor(p / SIDE)), inked.map((p) => p % SIDE)];
  const [top, left] = [Math.min(...rows), Math.min(...columns)];
  const lengths = [Math.max(...rows) - top + 1, Math.max(...columns) - left + 1];
  let ink = Array.from({ length: lengths[0] }, (_, i) => {
    return [...pixels.slice((top + i) * SIDE + left, (top + i) * SIDE + left + lengths[1])];
  });
  const [height, width] = lengths.map((n) => Math.max(1, toEven((n * 20) / Math.max(...lengths))));
  if (height !== lengths[0] || width !== lengths[1]) {
    ink = resized(transposed(resized(transposed(ink), width)), height);
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

// Returns rows as so many, bicubic and antialiased as in torch's interpolate.
function resized(rows, length) {
  const scale = rows.length / length;
  return Array.from({ length }, (_, i) => {
    const weights = rows.map((_, j) => cubic((j + 0.5 - scale * (i + 0.5)) / Math.max(scale, 1)));
    const total = weights.reduce((sum, weight) => sum + weight);
    const column = (k) => rows.reduce((sum, row, j) => sum + row[k] * weights[j], 0) / total;
    return rows[0].map((_, k) => column(k));
  });
}

// Keys' kernel with a = -1/2.
function cubic(distance) {
  const x = Math.abs(distance);
  if (x < 1) return (1.5 * x - 2.5) * x * x + 1;
  return x < 2 ? ((-0.5 * x + 2.5) * x - 4) * x + 2 : 0;
}

function transposed(rows) {
  return rows[0].map((_, j) => rows.map((row) => row[j]));
}

// Rounds a half to the even number, as Python and torch do.
function toEven(value) {
  const up = Math.round(value);
  return up - value === 0.5 && up % 2 ? up - 1 : up;
}
