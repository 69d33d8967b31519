// A slider from one end (0) to the other (1), on a straight line or a great arc.

import { another, button, choice, make, picture, pictures, range, say } from "./parts.js";
import { FRAME, FRAMES } from "./sliders.js";

export function morph(core) {
  const { state } = core;
  const { examples, paths } = state;
  let t, path, pair;

  const originals = [say("the image at the start"), say("the image at the end")].map((words) => {
    return picture(words);
  });
  const film = picture(say("the whole path"), "vae-strip", 1);
  const name = say("from start to end");
  const slider = range({ name, low: 0, high: 1, step: 0.01 }, (value) => {
    t = value;
    moved();
  });
  slider.parts[1].style.setProperty("--frames", FRAMES);
  const switched = choice(say("the way"), paths, (to) => go({ t, path: to, pair }));

  const ends = () => pair?.map((i) => examples.codes[i]) ?? state.ends;
  const at = (where) => (path === "lerp" ? lerp : slerp)(...ends(), where);
  const moved = () => core.move(at(t), { t, path, pair });
  function go(controls) {
    place(null, controls);
    moved();
  }
  function place(_, controls) {
    ({ t, path, pair } = { t: 0.5, path: "lerp", ...controls });
    slider.set(t);
    switched.choose(path);
    const images = pictures(pair ? examples : state.end_images)[0];
    originals.forEach(({ draw }, i) => draw([[images[pair?.[i] ?? i]]]));
    const codes = () => Array.from({ length: FRAMES }, (_, i) => at(i / (FRAMES - 1)));
    core.decode("film", codes, FRAME, (rows) => film.draw(rows));
  }
  function draw() {
    const n = examples.codes.length;
    const one = another(n, pair?.[0]);
    go({ t, path, pair: [one, another(n, one)] });
  }

  const buttons = examples ? [button(say("Another pair"), draw)] : [];
  const [start, end] = originals.map(({ canvas }) => canvas);
  const row = make("div", { className: "vae-triple" }, start, ...core.decoded, end);
  const rows = ["", film.canvas, "", ...slider.parts].map((part) => part || make("span"));
  const below = make("div", { className: "vae-sliders vae-morph" }, ...rows);
  const last = make("div", { className: "vae-buttons" }, switched.element, ...buttons);
  return { elements: [row, below, last], place };
}

// The point at t on the straight line from a (t = 0) to b (t = 1).
export function lerp(a, b, t) {
  return a.map((x, i) => x + t * (b[i] - x));
}

// The point at t on the great arc from a to b; on the straight line where they are parallel.
export function slerp(a, b, t) {
  const dot = (u, v) => u.reduce((sum, x, i) => sum + x * v[i], 0);
  const cos = dot(a, b) / Math.sqrt(dot(a, a) * dot(b, b));
  if (!(Math.abs(cos) < 1 - 1e-6)) return lerp(a, b, t); // also where one has no length
  const angle = Math.acos(cos);
  const [ofA, ofB] = [1 - t, t].map((part) => Math.sin(part * angle) / Math.sin(angle));
  return a.map((x, i) => ofA * x + ofB * b[i]);
}
