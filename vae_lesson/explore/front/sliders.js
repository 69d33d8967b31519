// Sliders that move a code along directions, z = origin + Σ value · direction, each below what it
// does over its range, the others as they are. The origin is what sliders do not express of a code
// that they did not set: with `shows_z` what is beyond their ends, else all of it.

import {
  afterRest, another, button, control, make, named, normal, picture, pictures, range, say
} from "./parts.js";

export const FRAMES = 11; // pictures in a filmstrip, or one for each step where these are as few
export const FRAME = 64; // pixels, the largest side of one
const TOGETHER = 3; // strips that are decoded at once: a few milliseconds of the kernel's or page's

export function sliders(core) {
  const { state } = core;
  const { sliders: parts, shows_z: showsZ, start, examples } = state;
  const values = parts.map(() => 0);
  let z, origin, shownExample;

  const original = picture(say("the test image"));
  const originalShown = make("div", { hidden: true }, say("the test image:"), original.canvas);
  const strips = parts.map(({ name, low, high }) => {
    const words = say("what {name} does from {low} to {high}", { name, low, high });
    return state.names.map((model) => picture(`${words} ${model}`.trim(), "vae-strip"));
  });
  const ranges = parts.map((part, i) =>
    range(part, (value) => {
      values[i] = value;
      z = sum(origin, 1);
      moved();
    }),
  );

  // origin ± what the sliders add to it.
  function sum(from, sign) {
    return from.map((x, k) => {
      return parts.reduce((total, part, i) => total + sign * values[i] * part.direction[k], x);
    });
  }
  function moved(example) {
    showExample(example);
    drawStripsSoon();
    core.move(z, { values: [...values], example });
  }
  function showExample(i) {
    shownExample = i;
    originalShown.hidden = i === undefined;
    if (i !== undefined) original.draw([[pictures(examples)[0][i]]]);
  }
  function place(code, controls = {}) {
    z = code;
    parts.forEach(({ low, high, direction }, i) => {
      const along = z.reduce((total, x, k) => total + x * direction[k], 0);
      values[i] = controls.values?.[i] ?? (showsZ ? Math.min(Math.max(along, low), high) : 0);
      ranges[i].set(values[i]);
    });
    origin = sum(z, -1);
    showExample(controls.example);
    drawStripsSoon();
  }
  function goTo(code, example) {
    place(code);
    moved(example);
  }
  function drawStrips() {
    for (let i = 0; i < parts.length; i += TOGETHER) {
      const some = [...parts.keys()].slice(i, i + TOGETHER);
      core.decode(`strips ${i}`, () => some.flatMap(frames), FRAME, (rows) => {
        for (const j of some) {
          const n = places(parts[j]).length;
          strips[j].forEach((film, k) => film.draw([rows[k].splice(0, n)]));
        }
      });
    }
  }
  const drawStripsSoon = afterRest(drawStrips);
  function frames(i) {
    const { direction } = parts[i];
    return places(parts[i]).map((value) => z.map((x, k) => x + (value - values[i]) * direction[k]));
  }

  function draw() {
    if (showsZ) return goTo(start.map(normal));
    const steps = parts.map(({ low, high, step }) => {
      return low + step * Math.floor(Math.random() * ((high - low) / step + 1));
    });
    place(start, { values: steps });
    origin = start;
    z = sum(origin, 1);
    moved();
  }
  function encode() {
    const i = another(examples.codes.length, shownExample);
    goTo(examples.codes[i], i);
  }

  const rows = ranges.map(({ parts: [label, slider, number] }, i) => {
    const { low, high } = parts[i];
    slider.style.setProperty("--frames", places(parts[i]).length);
    const films = strips[i].flatMap(({ canvas }, k) => {
      const isLast = k === strips[i].length - 1;
      const end = (value) => make("small", {}, isLast ? minus(value) : "");
      const before = make("span", { className: "vae-end" }, state.names[k], " ", end(low));
      return [before, canvas, end(high)];
    });
    return [...films, label, slider, number];
  });
  const list = (some) => make("div", { className: "vae-sliders" }, ...some.flat());
  const nShown = rows.length - state.n_folded;
  const right = make("div", { className: "vae-right" });
  if (nShown * (1 + state.names.length) > 12) {
    right.append(make("small", {}, say("{n} sliders: scroll to see them all", { n: nShown })));
  }
  right.append(list(rows.slice(0, nShown)));
  if (state.n_folded) {
    const summary = control("summary", {}, state.folded);
    right.append(make("details", {}, summary, list(rows.slice(nShown))));
  }
  const buttons = [button(say("Random draw"), draw), button(say("Reset"), () => goTo(start))];
  if (examples) buttons.push(button(say("Encode a test image"), encode));
  right.append(make("div", { className: "vae-buttons" }, ...buttons));
  const pictured = [...named(state.names, core.decoded), originalShown];
  const left = make("div", { className: "vae-left" }, ...pictured);
  return { elements: [make("div", { className: "vae-columns" }, left, right)], place };
}

// The values that a slider's filmstrip shows: whole steps where it has few.
function places({ low, high, step }) {
  const nSteps = Math.round((high - low) / step);
  const n = nSteps < 16 ? nSteps + 1 : FRAMES;
  return Array.from({ length: n }, (_, i) => low + step * Math.round((i / (n - 1)) * nSteps));
}

function minus(value) {
  return String(Number(value.toPrecision(4))).replace("-", "−");
}
