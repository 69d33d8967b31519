// What explorers are made of: words, elements, sliders, buttons, canvases, and requests in turn.

let spoken = {}; // English -> the language of the page

export function speak(words = {}) {
  spoken = words;
}

// A text in the language of the page, with values in the place of their names in braces. The text
// stands there as it is, and in no template: tools/translations.py reads it.
export function say(text, values = {}) {
  return (spoken[text] ?? text).replace(/\{(\w+)\}/g, (whole, name) => values[name] ?? whole);
}

export function make(tag, properties = {}, ...children) {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
}

// As `make`, for what has the focus: JupyterLab and Notebook 7 would take its keys.
export function control(tag, properties, ...children) {
  const element = make(tag, properties, ...children);
  element.dataset.lmSuppressShortcuts = "true";
  return element;
}

// An area that the pointer and keys move over, with words for a screen reader, which hands over
// the keys; and where it says what it does, which is read out when it changes.
export function area(className, label, ...children) {
  const properties = { className, tabIndex: 0, ariaLabel: label, role: "application" };
  const readout = make("output", { className: "vae-readout" });
  return { field: control("div", properties, ...children), readout };
}

export function button(text, action) {
  return control("button", { type: "button", onclick: action }, text);
}

// An id of its own on the page, where every explorer has these modules to itself.
function newId() {
  return `vae-${Math.random().toString(36).slice(2)}`;
}

// One of some values, each with its words: {value: words}. `choose` tells it which.
export function choice(legend, options, action) {
  const group = newId();
  const radios = Object.entries(options).map(([value, words]) => {
    const input = control("input", { type: "radio", name: group, value });
    input.onchange = () => action(value);
    return make("label", {}, input, ` ${words}`);
  });
  const element = make("fieldset", {}, make("legend", {}, legend), ...radios);
  const choose = (value) => {
    for (const radio of element.elements) radio.checked = radio.value === value;
  };
  return { element, choose };
}

// A name, a slider, and its value as a number that can be typed. `set` moves it without a word.
export function range({ name, low, high, step, decimals = Number.isInteger(step) ? 0 : 2 }, moved) {
  const id = newId();
  const ends = { min: low, max: high, step };
  const slider = control("input", { type: "range", id, ...ends });
  const ariaLabel = say("{name}, typed", { name });
  const number = control("input", { type: "number", ariaLabel, ...ends });
  number.step = decimals ? "any" : step;
  function set(value) {
    slider.value = value;
    number.value = fixed(value, decimals);
    slider.setAttribute("aria-valuetext", fixed(value, decimals));
  }
  slider.oninput = () => {
    set(Number(slider.value));
    moved(Number(slider.value));
  };
  number.onchange = () => {
    const typed = number.value === "" ? slider.value : number.value;
    const value = Math.min(Math.max(Number(typed), low), high);
    set(decimals ? value : Math.round(value));
    moved(decimals ? value : Math.round(value));
  };
  // JupyterLab keeps from the browser what Enter does here.
  number.onkeydown = ({ key }) => {
    if (key === "Enter") number.onchange();
  };
  const label = make("label", { htmlFor: id, className: "vae-name" }, name);
  return { parts: [label, slider, number], set };
}

// Elements below the names of the models that they are of, if these have names.
export function named(names, elements) {
  return elements.map((each, i) => {
    return names[i] ? make("div", {}, make("b", {}, names[i]), each) : each;
  });
}

// A canvas with words for it, and what paints rows of pictures on it.
export function picture(words, className = "vae-picture", gap = 0) {
  const canvas = make("canvas", { className, role: "img", ariaLabel: words });
  [canvas.width, canvas.height] = [28, 28];
  return { canvas, draw: (rows) => paint(canvas, rows, gap) };
}

// What a host answers, {shapes, buffers}, as pictures: of each buffer [{side, channels, pixels}].
export function pictures({ shapes, buffers }) {
  return shapes.map(([n, side, , channels = 1], i) => {
    const { buffer, byteOffset } = buffers[i];
    const length = side * side * channels;
    return Array.from({ length: n }, (_, k) => {
      const pixels = new Uint8Array(buffer, byteOffset + k * length, length);
      return { side, channels, pixels };
    });
  });
}

// Paints rows of square pictures of one size, a pixel a pixel, with gaps that show what is behind.
function paint(canvas, rows, gap) {
  const { side, channels } = rows[0][0];
  [canvas.width, canvas.height] = [rows[0].length, rows.length].map((n) => n * (side + gap) - gap);
  const context = canvas.getContext("2d");
  rows.forEach((row, i) => {
    row.forEach(({ pixels }, j) => {
      const image = new ImageData(side, side);
      for (let from = 0, to = 0; from < pixels.length; from += channels) {
        for (let c = 0; c < 3; c++) image.data[to++] = pixels[channels === 3 ? from + c : from];
        image.data[to++] = 255;
      }
      context.putImageData(image, j * (side + gap), i * (side + gap));
    });
  });
}

// Returns turn(name, task): one task is under way, and while it is, only the newest of each name
// waits. `failed` hears what went wrong, or "".
export function inTurn(failed) {
  const waiting = new Map();
  let [busy, said] = [false, ""];
  async function work() {
    busy = true;
    while (waiting.size) {
      const [name, task] = waiting.entries().next().value;
      waiting.delete(name);
      try {
        await task();
        if (said) failed((said = ""));
      } catch (error) {
        failed((said = error.message));
      }
    }
    busy = false;
  }
  return function turn(name, task) {
    waiting.set(name, task);
    if (!busy) work();
  };
}

// Returns what does an action once it has not been called for a while.
export function afterRest(action, milliseconds = 200) {
  let timer;
  return () => {
    clearTimeout(timer);
    timer = setTimeout(action, milliseconds);
  };
}

// Arrow keys as steps, right and down.
export const ARROWS = {
  ArrowLeft: [-1, 0],
  ArrowRight: [1, 0],
  ArrowUp: [0, -1],
  ArrowDown: [0, 1],
};

// Follows one pointer over an area that takes keys too: a second finger or a palm changes nothing.
// `down` and `move` hear of it, `up` when it leaves; returns what says whether it is there.
export function pointed(area, { down, move, up = () => {} }) {
  let active = null;
  area.onpointerdown = (event) => {
    if (event.button !== 0 || active !== null) return;
    event.preventDefault();
    active = event.pointerId;
    area.focus({ preventScroll: true });
    area.setPointerCapture(active);
    down(event);
  };
  area.onpointermove = (event) => {
    if (event.pointerId === active) move(event);
  };
  area.onlostpointercapture = (event) => {
    if (event.pointerId !== active) return;
    active = null;
    up();
  };
  return () => active !== null;
}

// Where in an area an event is, [right, down], each from 0 to 1.
export function placeIn(area, { clientX, clientY }) {
  const { left, top, width, height } = area.getBoundingClientRect();
  return [(clientX - left) / width, (clientY - top) / height];
}

// A draw from N(0, 1), by Box and Muller.
export function normal() {
  return Math.sqrt(-2 * Math.log(1 - Math.random())) * Math.cos(2 * Math.PI * Math.random());
}

// A random one of n, but not the last one if there are others.
export function another(n, last) {
  if (last === undefined || n < 2) return Math.floor(Math.random() * n);
  const i = Math.floor(Math.random() * (n - 1));
  return i < last ? i : i + 1;
}

// A number with so many decimals, and no minus before a zero.
export function fixed(value, decimals) {
  return (Number(value.toFixed(decimals)) || 0).toFixed(decimals);
}
