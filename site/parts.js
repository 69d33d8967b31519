// What the explorers of a page are made of: canvases, sliders, buttons, numbers as text.

const PICTURE = 224; // pixels on the page, the side of a decoded picture
const REST = 200; // milliseconds without a move after which the filmstrips are drawn again

// A network's weights, which the page has once for all explorers that use them.
export function packed(key) {
  return JSON.parse(document.getElementById(`weights-${key}`).textContent);
}

// Stands for the kernel's side of an anywidget, whose module draws it here as in a notebook.
export function hostOf(values) {
  const heard = [];
  return {
    get: (name) => values[name],
    set(name, value) {
      values[name] = value;
      for (const [events, action] of heard) {
        if (events.split(" ").includes(`change:${name}`)) action();
      }
    },
    on: (events, action) => heard.push([events, action]),
    off() {},
    save_changes() {},
  };
}

// The decoded picture of each decoder, below its name if it has one.
export function decodedPictures(decoders) {
  const pictures = decoders.map(({ name }) => picture(`decoded image ${name}`.trim()));
  const parts = pictures.map(({ canvas }, i) => {
    const { name } = decoders[i];
    canvas.classList.add("decoded");
    return name ? make("div", {}, make("b", {}, name), canvas) : canvas;
  });
  const draw = (z) => pictures.forEach((each, i) => each.draw([[decoders[i].decode(z)]]));
  return { parts, draw };
}

// A canvas as wide as this on the page, and what draws rows of images on it.
export function picture(words, width = `${PICTURE}px`, gap = 0) {
  const canvas = make("canvas", {});
  canvas.setAttribute("role", "img");
  canvas.setAttribute("aria-label", words);
  canvas.style.width = width; // the height follows
  return { canvas, draw: (rows) => paint(canvas, rows, gap) };
}

// Paints rows of square grey images of one size, a pixel a pixel, on white.
export function paint(canvas, rows, gap) {
  const side = Math.sqrt(rows[0][0].length);
  const room = side + gap;
  [canvas.width, canvas.height] = [rows[0].length * room - gap, rows.length * room - gap];
  const whole = new ImageData(canvas.width, canvas.height);
  whole.data.fill(255);
  rows.forEach((images, row) => {
    images.forEach((pixels, column) => {
      for (let p = 0; p < pixels.length; p++) {
        const y = row * room + Math.floor(p / side);
        const x = column * room + (p % side);
        whole.data.fill(pixels[p], 4 * (y * canvas.width + x), 4 * (y * canvas.width + x) + 3);
      }
    });
  });
  canvas.getContext("2d").putImageData(whole, 0, 0);
}

let made = 0; // for ids

export function range(name, low, high, step, action) {
  const id = `range-${made++}`;
  const input = make("input", { type: "range", id, min: low, max: high, step });
  const label = make("label", { htmlFor: id }, name);
  const readout = make("output", { htmlFor: id });
  readout.setAttribute("aria-live", "off"); // the slider says it too
  function say(value) {
    readout.textContent = fixed(value, 2);
    input.setAttribute("aria-valuetext", fixed(value, 2));
  }
  input.addEventListener("input", () => {
    say(Number(input.value));
    action(Number(input.value));
  });
  function set(value) {
    input.value = value;
    say(value);
  }
  return { row: make("div", { className: "range" }, label, input, readout), set };
}

export function button(text, action) {
  const element = make("button", { type: "button" }, text);
  element.addEventListener("click", action);
  return element;
}

// One of some names, each with words for it: {name: words}.
export function choice(legend, options, first, action) {
  const group = `choice-${made++}`;
  const radios = Object.entries(options).map(([value, words]) => {
    const input = make("input", { type: "radio", name: group, value, checked: value === first });
    input.addEventListener("change", () => action(value));
    return make("label", {}, input, ` ${value}: ${words}`);
  });
  return make("fieldset", {}, make("legend", {}, legend), ...radios);
}

// Returns what does these actions, each by itself, once it has not been called for a while.
export function afterRest(actions) {
  let timer;
  function go(i) {
    actions[i]?.();
    if (i + 1 < actions.length) timer = setTimeout(go, 0, i + 1); // a move may come between
  }
  return () => {
    clearTimeout(timer);
    timer = setTimeout(go, REST, 0);
  };
}

export function make(tag, properties, ...children) {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
}

// A draw from N(0, 1), by Box and Muller.
export function normal() {
  return Math.sqrt(-2 * Math.log(1 - Math.random())) * Math.cos(2 * Math.PI * Math.random());
}

// A number with so many decimals, and no minus before a zero.
export function fixed(value, decimals) {
  return (Number(value.toFixed(decimals)) || 0).toFixed(decimals);
}

// A number as Python's format :g writes it, near enough for a slider's end.
export function short(value) {
  return String(Number(value.toPrecision(6)));
}
