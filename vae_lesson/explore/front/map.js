// A plane with a point on it for each model, all at the same code, and what each decodes there.

import {
  ARROWS, area, button, choice, make, named, normal, picture, placeIn, pointed, say
} from "./parts.js";

const STEPS = 60; // presses of an arrow key from edge to edge; with Shift a fifth of that
const TILES = 16; // pictures along a side of the decoded plane
const TILE = 48; // pixels, the largest side of one

// A square plane, to be clicked on, dragged over, or walked on by the arrow keys. `moved` hears
// where to, [x, y]; `set` puts the mark there. cells: so many along a side, which a key moves by.
export function plane({ label, low, high, cells }, under, moved) {
  const mark = make("span", { className: "vae-mark" });
  mark.innerHTML = `<svg width="1" height="1" aria-hidden="true">
    <circle r="8" fill="none" stroke="white" stroke-width="5"/>
    <circle r="8" fill="none" stroke="black" stroke-width="2.5"/>
    <path d="M-14 0H14M0 -14V14" stroke="white" stroke-width="3"/>
    <path d="M-14 0H14M0 -14V14" stroke="black" stroke-width="1"/></svg>`;
  const { field, readout } = area("vae-plane", label, ...under, mark);
  let point = [0, 0];

  function set(to) {
    point = to;
    const places = [to[0] - low[0], high[1] - to[1]].map((x, i) => x / (high[i] - low[i]));
    [mark.style.left, mark.style.top] = places.map((part) => `${100 * part}%`);
    const [column, row] = places.map((part) => Math.min(Math.floor(part * cells) + 1, cells));
    readout.textContent = cells
      ? say("row {row}, column {column}", { row, column })
      : `z = (${to.map((x) => x.toFixed(2)).join(", ")})`;
  }
  function moveTo(x, y) {
    const inside = (value, i) => Math.min(Math.max(value, low[i]), high[i]);
    set([inside(x, 0), inside(y, 1)]);
    moved(point);
  }
  function follow(event) {
    const [right, down] = placeIn(field, event);
    moveTo(low[0] + right * (high[0] - low[0]), high[1] - down * (high[1] - low[1]));
  }
  pointed(field, { down: follow, move: follow });
  field.onkeydown = (event) => {
    const steps = cells || (event.shiftKey ? STEPS / 5 : STEPS);
    const [right, down] = ARROWS[event.key] ?? [];
    if (event.key === "Home") moveTo((low[0] + high[0]) / 2, (low[1] + high[1]) / 2);
    else if (event.key in ARROWS) {
      const step = (i) => (high[i] - low[i]) / steps;
      moveTo(point[0] + right * step(0), point[1] - down * step(1));
    } else return;
    event.preventDefault();
  };
  return { element: make("div", {}, field, readout), set };
}

export function map(core) {
  const { low, high, start, names, views, backgrounds } = core.state;
  let z;
  const codesDrawn = backgrounds.map((png) => {
    const src = URL.createObjectURL(new Blob([png], { type: "image/png" }));
    return make("img", { alt: "", src, onload: () => URL.revokeObjectURL(src) });
  });
  const manifolds = names.map(() => picture("", "vae-manifold"));
  const planes = names.map((name, i) => {
    const what = [say("Latent map"), name].join(" ").trim();
    const label = say(
      "{what}: click, drag, or press the arrow keys (with Shift in larger steps)",
      { what },
    );
    manifolds[i].canvas.ariaHidden = "true"; // the plane has the words
    const under = [codesDrawn[i], manifolds[i].canvas];
    return plane({ label, low, high }, under, goTo);
  });
  const view = choice(say("the map shows"), views, (name) => {
    showView(name);
    core.move(z, { view: name });
  });
  let shownView;

  function goTo(code) {
    place(code, { view: shownView });
    core.move(code, { view: shownView });
  }
  function place(code, controls = {}) {
    z = code;
    for (const each of planes) each.set(z);
    showView(controls.view ?? shownView ?? "codes");
  }
  function showView(name) {
    if (name === shownView) return;
    shownView = name;
    view.choose(name);
    codesDrawn.forEach((img) => (img.hidden = name !== "codes"));
    manifolds.forEach(({ canvas }) => (canvas.hidden = name === "codes"));
    if (name === "codes") return;
    // A row of pictures after the other: a move may come between.
    const rows = names.map(() => []);
    for (let row = 0; row < TILES; row++) {
      core.decode(`row ${row}`, () => codesOfRow(row), TILE, (given) => {
        given.forEach((pictures, i) => rows[i].push(pictures));
        if (rows[0].length === TILES) manifolds.forEach(({ draw }, i) => draw(rows[i]));
      });
    }
  }
  function codesOfRow(row) {
    const at = (part, i) => low[i] + part * (high[i] - low[i]);
    const up = at(1 - (row + 0.5) / TILES, 1);
    return Array.from({ length: TILES }, (_, column) => [at((column + 0.5) / TILES, 0), up]);
  }

  const pairs = planes.map(({ element }, i) => {
    return make("div", { className: "vae-pair" }, element, core.decoded[i]);
  });
  const draw = button(say("Random draw"), () => goTo(start.map(normal)));
  const reset = button(say("Reset"), () => goTo(start));
  const buttons = make("div", { className: "vae-buttons" }, view.element, draw, reset);
  const className = `vae-columns ${names.length > 1 ? "vae-several" : ""}`;
  return { elements: [make("div", { className }, ...named(names, pairs)), buttons], place };
}
