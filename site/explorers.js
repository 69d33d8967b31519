// The explorers of a page, alive without a kernel.
//
// Each `figure.explorer` holds a still picture and the explorer's state as JSON, which
// vae_lesson/explore/living.py and the `_living` of each explorer wrote. Here the state becomes
// sliders, a map, a morph or a pad, which move as the explorers in a notebook do; the still picture
// goes once they are there. Whatever fails, or without JavaScript, the still picture stays.

import { bytes, lerp, slerp, unpack } from "./decode.js";
import {
  afterRest,
  button,
  choice,
  decodedPictures,
  hostOf,
  make,
  normal,
  packed,
  paint,
  picture,
  range,
  short,
} from "./parts.js";
import { drawing } from "./drawing.js";
import plane from "../vae_lesson/explore/plane.js";

const FRAMES = 11; // images in a filmstrip
const FRAME = 28; // pixels on the page, the height of a filmstrip
const PLANE = 360; // pixels on the page, the side of a map, or less where there is no room
const TILES = 16; // decoded images along a side of a map

const unpacked = {}; // weights' key -> promise of the decoder: several explorers share one

async function decoderOf(key) {
  unpacked[key] ??= unpack(packed(key));
  return unpacked[key];
}

async function bringToLife(figure) {
  const state = JSON.parse(figure.querySelector("script").textContent);
  const decoders = [];
  for (const { name, weights } of state.decoders) {
    decoders.push({ name, ...(await decoderOf(weights)) });
  }
  const kinds = { sliders, map, morph, drawing };
  const alive = make("div", { className: "alive" });
  alive.append(...(await kinds[state.kind](state, decoders, figure)));
  figure.querySelector(".still").hidden = true;
  figure.append(alive);
}

// --- the explorers -------------------------------------------------------------------------------

// Sliders that move a code along directions, z = origin + Σ value · direction. The origin is what
// they do not express of a code that they did not set: see SliderExplorer in sliders.py.
function sliders(state, decoders) {
  const { sliders: parts, sliders_show_z: showZ, test_codes: testCodes } = state;
  const start = state.z;
  let [z, origin] = [start, start];
  const values = parts.map(() => 0);
  const shown = decodedPictures(decoders);
  const original = picture("the test image");
  const shownOriginal = make("div", { hidden: true }, "the test image:", original.canvas);
  const strips = parts.map(({ name, low, high }) => {
    const words = `what ${name} does from ${short(low)} to ${short(high)}`;
    return picture(words, `${FRAMES * FRAME}px`);
  });
  const ranges = parts.map(({ name, low, high }, i) =>
    range(name, low, high, (high - low) / 120, (value) => {
      values[i] = value;
      z = moved(origin, 1);
      show();
    }),
  );

  function moved(from, sign) {
    return from.map((x, k) => {
      return parts.reduce((sum, part, i) => sum + sign * values[i] * part.direction[k], x);
    });
  }
  function show() {
    shownOriginal.hidden = true;
    shown.draw(z);
    drawStripsSoon();
  }
  function goTo(code) {
    z = code;
    parts.forEach(({ low, high, direction }, i) => {
      const along = z.reduce((sum, x, k) => sum + x * direction[k], 0);
      values[i] = showZ ? Math.min(Math.max(along, low), high) : 0;
      ranges[i].set(values[i]);
    });
    origin = moved(z, -1);
    show();
  }
  function drawStrip(i) {
    const { low, high, direction } = parts[i];
    const codes = Array.from({ length: FRAMES }, (_, frame) => {
      const step = low + (frame / (FRAMES - 1)) * (high - low) - values[i];
      return z.map((x, k) => x + step * direction[k]);
    });
    strips[i].draw(decoders.map(({ decode }) => codes.map(decode)));
  }
  const drawStripsSoon = afterRest(strips.map((_, i) => () => drawStrip(i)));
  function draw() {
    if (showZ) return goTo(start.map(normal));
    const steps = parts.map(({ low, high }) => low + Math.random() * (high - low));
    const along = (k) => steps.reduce((sum, step, i) => sum + step * parts[i].direction[k], 0);
    goTo(start.map((x, k) => x + along(k)));
  }
  function encode() {
    const i = Math.floor(Math.random() * testCodes.length);
    goTo(testCodes[i]);
    original.draw([[bytes(state.test_images[i])]]);
    shownOriginal.hidden = false;
  }

  const rows = ranges.map(({ row }, i) => make("div", { className: "row" }, row, strips[i].canvas));
  const nShown = rows.length - state.n_folded;
  const right = make("div", { className: "sliders" }, ...rows.slice(0, nShown));
  const buttons = [button("Random draw", draw), button("Reset", () => goTo(start))];
  if (testCodes) buttons.push(button("Encode a test image", encode));
  const controls = make("div", { className: "controls" }, right);
  if (state.n_folded) {
    const more = make("div", { className: "sliders" }, ...rows.slice(nShown));
    controls.append(make("details", {}, make("summary", {}, state.folded), more));
  }
  controls.append(make("div", { className: "buttons" }, ...buttons));
  goTo(start);
  return [make("div", { className: "column" }, ...shown.parts, shownOriginal), controls];
}

// A plane for each decoder, all with the same point z on them, and what each decodes there.
function map(state, decoders, figure) {
  const { low, high, views } = state;
  const start = state.z;
  let z = start;
  const shown = decodedPictures(decoders);
  const codesDrawn = state.backgrounds.map(bytes);
  const planes = decoders.map((_, i) =>
    hostOf({
      ...{ number: 0, point: start, low, high, cells: 0, size: PLANE },
      ...{ label: state.labels[i], background: codesDrawn[i] },
    }),
  );

  function goTo(code) {
    z = code;
    for (const each of planes) if (each.get("point") !== z) each.set("point", z);
    shown.draw(z);
  }
  function showView(view) {
    for (const [i, { decode }] of decoders.entries()) {
      const drawn = view === "codes" ? codesDrawn[i] : manifold(decode, low, high);
      planes[i].set("background", drawn);
    }
  }

  const rows = planes.map((each, i) => {
    const el = make("div", {});
    each.save_changes = () => goTo(each.get("point"));
    plane.render({ model: each, el });
    return make("div", { className: "row" }, el, shown.parts[i]);
  });
  const fit = () => {
    // Two maps, side by side with their pictures, are to be on one screen of a phone.
    const room = figure.clientWidth * (planes.length > 1 ? 0.58 : 1);
    const size = Math.min(PLANE, room);
    for (const each of planes) each.set("size", size);
  };
  new ResizeObserver(fit).observe(figure);
  const draw = button("Random draw", () => goTo(start.map(normal)));
  const reset = button("Reset", () => goTo(start));
  const view = choice("the map shows", views, "codes", showView);
  goTo(start);
  return [...rows, make("div", { className: "buttons" }, view, draw, reset)];
}

// A slider from one end to the other, on a straight line or a great arc.
function morph(state, decoders) {
  const [{ decode }] = decoders;
  let { ends, path, t } = state;
  const shown = decodedPictures(decoders);
  const originals = ["start", "end"].map((name) => picture(`the image at the ${name}`));
  const film = picture("the whole path", "100%", 1);
  const at = (where) => (path === "lerp" ? lerp : slerp)(...ends, where);
  const slider = range("from start to end", 0, 1, 0.01, (value) => {
    t = value;
    shown.draw(at(t));
  });

  function showPath() {
    const places = Array.from({ length: FRAMES }, (_, i) => i / (FRAMES - 1));
    film.draw([places.map((place) => decode(at(place)))]);
    shown.draw(at(t));
  }
  function goBetween(codes, images) {
    ends = codes;
    originals.forEach((each, i) => each.draw([[bytes(images[i])]]));
    showPath();
  }
  function draw() {
    const n = state.test_codes.length;
    const one = Math.floor(Math.random() * n);
    const other = (one + 1 + Math.floor(Math.random() * (n - 1))) % n;
    const pair = (of) => [of[one], of[other]];
    goBetween(pair(state.test_codes), pair(state.test_images));
  }

  const switched = choice("the way", state.paths, path, (name) => {
    path = name;
    showPath();
  });
  const buttons = state.test_codes ? [button("Another pair", draw)] : [];
  slider.set(t);
  goBetween(ends, state.end_images);
  const [start, end] = originals.map(({ canvas }) => canvas);
  return [
    make("div", { className: "row pictures" }, start, ...shown.parts, end),
    make("div", { className: "wide" }, slider.row, film.canvas),
    make("div", { className: "buttons" }, switched, ...buttons),
  ];
}

// What each place of a plane decodes to, as the bytes of a PNG.
function manifold(decode, low, high) {
  const canvas = make("canvas", {});
  const rows = Array.from({ length: TILES }, (_, row) => {
    return Array.from({ length: TILES }, (_, column) => {
      const [right, up] = [(column + 0.5) / TILES, 1 - (row + 0.5) / TILES];
      return decode([low[0] + right * (high[0] - low[0]), low[1] + up * (high[1] - low[1])]);
    });
  });
  paint(canvas, rows, 0);
  return bytes(canvas.toDataURL().split(",")[1]); // toBlob waits until the browser is idle
}

for (const figure of document.querySelectorAll("figure.explorer")) {
  bringToLife(figure).catch((error) => console.error(error));
}
