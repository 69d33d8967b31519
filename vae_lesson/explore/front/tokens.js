// The decoded image under a grid of cells, and a slider for the entry of the chosen one.

import { button, make, range, say } from "./parts.js";
import { plane } from "./map.js";

export function tokens(core) {
  const { side, n_codes: nCodes, start } = core.state;
  const says = say("Cells of the image: click, or press the arrow keys; then move the slider");
  const grid = make("div", { className: "vae-grid" });
  grid.style.setProperty("--cells", side);
  const area = { label: says, low: [0, 0], high: [side, side], cells: side };
  const cells = plane(area, [...core.decoded, grid], ([x, y]) => {
    const [column, up] = [x, y].map((part) => Math.min(Math.floor(part), side - 1));
    cell = (side - 1 - up) * side + column;
    entry.set(z[cell]);
  });
  let z;
  let cell = side * Math.floor(side / 2) + Math.floor(side / 2);
  const entry = range({ name: say("entry"), low: 0, high: nCodes - 1, step: 1 }, (value) => {
    z = z.with(cell, value);
    core.move(z, { cell });
  });

  function place(code, controls = {}) {
    z = code;
    cell = controls.cell ?? cell;
    const [row, column] = [Math.floor(cell / side), cell % side];
    cells.set([column + 0.5, side - row - 0.5]);
    entry.set(z[cell]);
  }
  function reset() {
    place(start);
    core.move(z, { cell });
  }

  const slider = make("div", { className: "vae-sliders" }, ...entry.parts);
  const right = make("div", { className: "vae-right" }, say("{what}:", { what: says }), slider);
  right.append(make("div", { className: "vae-buttons" }, button(say("Reset"), reset)));
  const elements = [make("div", { className: "vae-columns" }, cells.element, right)];
  return { elements, place };
}
