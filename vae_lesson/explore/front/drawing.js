// A pad of 28×28 pixels to draw on, and what the encoder makes of the drawing.

import {
  ARROWS, area, another, button, fixed, make, picture, pictures, placeIn, pointed, say
} from "./parts.js";

export const SIDE = 28; // pixels
export const SHOWN = 6; // reconstructions and neighbours in their rows
const PEN = 2.4; // pixels, about as wide as MNIST's strokes

// The pad: `moved` hears of new pixels, a byte each, row by row; `set` puts some on it.
function pad(moved) {
  const label = say(
    "Pad: draw a digit with the mouse or a finger; or move the pen with the arrow keys and press " +
      "the space bar to put it down and lift it",
  );
  const canvas = make("canvas", { width: SIDE, height: SIDE });
  const ink = canvas.getContext("2d", { willReadFrequently: true });
  const mark = make("span", { className: "vae-pen", hidden: true });
  const { field, readout } = area("vae-pad", label, canvas, mark);

  let before = null; // the pixels before the stroke that is being drawn
  let stroke = []; // its points
  let pen = { x: SIDE / 2, y: SIDE / 2, down: false };

  function set(bytes) {
    const image = ink.createImageData(SIDE, SIDE);
    bytes.forEach((grey, i) => image.data.set([grey, grey, grey, 255], 4 * i));
    ink.putImageData(image, 0, 0);
    if (before) [before, stroke] = [image, stroke.slice(-1)]; // it goes on from here
  }
  function begin(...point) {
    before = ink.getImageData(0, 0, SIDE, SIDE);
    stroke = [];
    extend([point]);
  }
  function extend(points) {
    stroke.push(...points);
    // The whole stroke anew: joined pieces would be painted twice where they meet.
    ink.putImageData(before, 0, 0);
    ink.strokeStyle = "white";
    ink.lineWidth = PEN;
    ink.lineCap = ink.lineJoin = "round";
    ink.beginPath();
    ink.moveTo(...stroke[0]);
    // A line of no length leaves no dot in Chromium from 156 on, nor in WebKit.
    const [x, y] = stroke[0];
    if (stroke.every((point) => point[0] === x && point[1] === y)) ink.lineTo(x + 0.01, y);
    for (const point of stroke) ink.lineTo(...point);
    ink.stroke();
    const rgba = ink.getImageData(0, 0, SIDE, SIDE).data;
    moved(new Uint8Array(SIDE * SIDE).map((_, i) => rgba[4 * i]));
  }
  function showPen(shown) {
    mark.hidden = !shown;
    mark.classList.toggle("vae-down", pen.down);
    [mark.style.left, mark.style.top] = [pen.x, pen.y].map((x) => `${(100 * x) / SIDE}%`);
    const where = { column: Math.round(pen.x), row: Math.round(pen.y) };
    const says = pen.down
      ? say("pen down, column {column}, row {row}", where)
      : say("pen up, column {column}, row {row}", where);
    readout.textContent = shown ? says : "";
  }

  const at = (event) => placeIn(canvas, event).map((part) => SIDE * part);
  const isDrawing = pointed(field, {
    down(event) {
      pen.down = false;
      showPen(false);
      begin(...at(event));
    },
    move(event) {
      // Over plain http on a host name, and in Safari before 18.2, there is no such function.
      const events = event.getCoalescedEvents?.() ?? [];
      extend((events.length ? events : [event]).map(at));
    },
    up: () => (before = null),
  });
  field.onkeydown = (event) => {
    if (isDrawing()) return;
    if (event.key in ARROWS) {
      const inside = (value) => Math.min(Math.max(value, 1), SIDE - 1);
      const [right, down] = ARROWS[event.key];
      [pen.x, pen.y] = [inside(pen.x + right), inside(pen.y + down)];
      if (pen.down) extend([[pen.x, pen.y]]);
    } else if (event.key !== " ") return;
    else if (!event.repeat) {
      // Not down and up again and again while it is held.
      pen.down = !pen.down;
      if (pen.down) begin(pen.x, pen.y);
      else before = null;
    }
    showPen(true);
    event.preventDefault();
  };
  field.onblur = () => {
    if (pen.down) before = null;
    pen.down = false;
    showPen(false);
  };
  return { element: make("div", {}, field, readout), set };
}

export function drawing(core) {
  const { n_scores: nScores, strange, examples, class_names: classNames } = core.state;
  const drawn = pad((pixels) => core.move(pixels, {}));
  const seen = picture(say("the drawing as the network sees it"), "vae-small");
  const samples = picture(say("reconstructions"), "vae-film", 1);
  const neighbours = picture(say("nearest training images"), "vae-film", 1);
  const bars = make("div", { className: "vae-bars", role: "img" });
  const verdict = make("p", { className: "vae-verdict" });
  const names = make("div");
  const pale = { side: SIDE, channels: 1, pixels: new Uint8Array(SIDE * SIDE).fill(240) };
  const row = Array(SHOWN).fill(pale); // where there is no code
  let example;

  function put(pixels) {
    drawn.set(pixels);
    core.move(pixels, {});
  }
  function paint(answer, [asSeen, decoded, drawnAgain, nearest]) {
    const { mu, sigma, score } = answer;
    seen.draw([asSeen]);
    decodedImage.draw([decoded ?? [pale]]);
    samples.draw([drawnAgain ?? row]);
    if (classNames) neighbours.draw([nearest ?? row]);
    const near = { names: answer.neighbours?.join(", ") };
    names.textContent = answer.neighbours
      ? say("nearest training images, by their codes: {names}", near)
      : say("nearest training images, by their codes");
    drawBars(bars, mu ?? [], sigma ?? []);
    const ask = say("<b>Draw a digit</b> on the black pad.");
    verdict.innerHTML = score ? words(score, nScores, strange) : ask;
  }

  const decodedImage = picture(say("decoded image"), "vae-small");
  const clear = button(say("Clear"), () => put(new Uint8Array(SIDE * SIDE)));
  const testImage = button(say("Put a test image on it"), () => {
    example = another(examples.codes.length, example);
    put(pictures(examples)[0][example].pixels.slice());
  });
  const under = (caption, canvas) => make("div", {}, caption, canvas);
  const buttons = make("div", { className: "vae-buttons" }, clear, testImage);
  const left = make("div", {}, say("the drawing"), drawn.element, buttons);
  const right = make(
    "div",
    { className: "vae-right vae-columns" },
    under(say("as the network sees it"), seen.canvas),
    under(say("decoded from μ"), decodedImage.canvas),
    under(say("reconstructions, each from another draw of z"), samples.canvas),
    ...(classNames ? [under(names, neighbours.canvas)] : []),
  );
  const caption = say("its code: μ (bar) ± σ (line) of each dimension; ±1σ of N(0, 1) in grey");
  const elements = [make("div", { className: "vae-columns" }, left, right), verdict, caption, bars];
  const missing = say("The nearest training images are shown only where the lesson runs.");
  if (!classNames) elements.push(make("small", {}, missing));
  return { elements, place: (pixels) => drawn.set(pixels), paint };
}

// The −ELBO and its place among the test images, as HTML.
function words({ recon, kl, place }, nScores, strange) {
  const [easy, odd] = [place < 1 - strange, place > strange];
  const word = odd ? say("Strange") : easy ? say("Too easy") : say("Ordinary");
  const [all, ofRecon, ofKl, share] = [recon + kl, recon, kl, 100 * place].map((x) => fixed(x, 1));
  return say(
    "−ELBO <b>{all}</b> nats (recon {recon} + KL {kl}): more than <b>{share}%</b> of {n} test " +
      "images. <b>{word}.</b>",
    { all, recon: ofRecon, kl: ofKl, share, n: nScores.toLocaleString("en"), word },
  );
}

// μ as a bar and μ ± σ as a line for each dimension, from -4 to 4, over N(0, 1)'s ±1σ.
function drawBars(element, mu, sigma) {
  const y = (value) => 72 - 17 * Math.min(Math.max(value, -4), 4);
  const line = (x, y1, x2, y2, kind) => {
    return `<line class="vae-${kind}" x1="${x}%" y1="${y1}" x2="${x2}%" y2="${y2}"/>`;
  };
  const box = (x, width, high, low, kind) => {
    const [top, height] = [y(high), y(low) - y(high)];
    return `<rect class="vae-${kind}" x="${x}%" width="${width}%" y="${top}" height="${height}"/>`;
  };
  const room = 95 / mu.length; // percent, to the right of the numbers
  const parts = [box(5, 95, 1, -1, "prior")];
  for (const value of [-3, 0, 3]) {
    parts.push(line(5, y(value), 100, y(value), "axis-line"));
    parts.push(`<text y="${y(value) + 4}">${String(value).replace("-", "−")}</text>`);
  }
  mu.forEach((m, j) => {
    const x = 5 + (j + 0.5) * room;
    parts.push(box(x - 0.3 * room, 0.6 * room, Math.max(m, 0), Math.min(m, 0), "mean"));
    parts.push(line(x, y(m - sigma[j]), x, y(m + sigma[j]), "spread"));
    if (mu.length > 20 && j % 5) return; // numbers need room
    parts.push(`<text class="vae-number" x="${x}%" y="155">${j}</text>`);
  });
  element.innerHTML = `<svg width="100%" height="160">${parts.join("")}</svg>`;
  const order = [...mu.keys()].sort((i, j) => Math.abs(mu[j]) - Math.abs(mu[i]));
  const named = order.slice(0, 5).map((j) => `z[${j}] ${fixed(mu[j], 1)} ± ${fixed(sigma[j], 1)}`);
  const code = named.join(", ");
  element.ariaLabel = mu.length ? say("code: {code}", { code }) : say("no code yet");
}
