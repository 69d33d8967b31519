// The clouds q(z|x) of a few VAEs with two-dimensional codes, at some steps of their training.

import { button, control, make } from "./parts.js";

const PANEL = 480; // pixels of a panel's side
const PACE = 200; // milliseconds for a step of the film
// Of the classes: matplotlib's tab10.
const COLOURS = "1f77b4 ff7f0e 2ca02c d62728 9467bd 8c564b e377c2 7f7f7f bcbd22 17becf".split(" ");

export function clouds({ state }) {
  const { names, steps, labels, reach } = state;
  const panels = state.codes.map(({ buffer, byteOffset, byteLength }, i) => {
    // Of each step and image mu, mu, log_var, log_var in thousandths.
    const codes = new Int16Array(buffer.slice(byteOffset, byteOffset + byteLength));
    const canvas = make("canvas", { role: "img", width: PANEL, height: PANEL });
    const [says, name] = [make("small", {}), make("b", {}, names[i])];
    return { codes, canvas, says, element: make("div", {}, name, canvas, says) };
  });
  const readout = make("span", {});
  const slider = control("input", { type: "range", max: steps.length - 1, value: 0 });
  slider.ariaLabel = "training step";
  slider.oninput = () => {
    clearInterval(timer);
    show();
  };
  let timer;
  const play = button("Play", () => {
    clearInterval(timer);
    slider.value = 0;
    show();
    timer = setInterval(() => {
      slider.value = Number(slider.value) + 1;
      show();
      if (slider.value === slider.max) clearInterval(timer);
    }, PACE);
  });

  function show() {
    const step = steps[slider.value];
    readout.textContent = `step ${step}`;
    slider.setAttribute("aria-valuetext", step);
    panels.forEach(({ codes, canvas, says }, i) => {
      const of = (k) => codes[4 * slider.value * labels.length + k] / 1000;
      const all = labels.map((_, n) => [0, 1, 2, 3].map((j) => of(4 * n + j)));
      drawClouds(canvas.getContext("2d"), all, labels, reach);
      says.textContent = cloudsSummed(all, reach);
      canvas.ariaLabel = `clouds of ${names[i]} at step ${step}: ${says.textContent}`;
    });
  }

  show();
  const row = make("div", { className: "vae-films" }, ...panels.map(({ element }) => element));
  const circles = "grey circles: the prior N(0, I) at 1σ (dashed) and 2σ";
  const caption = `2σ ellipses; z₁ across, z₂ up, each from −${reach} to ${reach}; ${circles}`;
  const above = make("div", { className: "vae-sliders" }, play, slider, readout);
  return { elements: [above, row, make("small", {}, caption)] };
}

function drawClouds(context, clouds, labels, reach) {
  const [middle, scale] = [PANEL / 2, PANEL / 2 / reach];
  const ellipse = (x, y, right, up, colour) => {
    context.beginPath();
    context.ellipse(middle + scale * x, middle - scale * y, right, up, 0, 0, 2 * Math.PI);
    context.strokeStyle = colour;
    context.stroke();
  };
  context.clearRect(0, 0, PANEL, PANEL);
  context.lineWidth = 3;
  for (const [radius, dashes] of [[1, [8, 6]], [2, []]]) {
    context.setLineDash(dashes);
    ellipse(0, 0, scale * radius, scale * radius, "#808080");
  }
  context.lineWidth = 2;
  clouds.forEach(([x, y, ...logVar], i) => {
    // The 2σ ellipse, but no smaller than a dot that can be seen.
    const radii = logVar.map((each) => Math.max(2 * scale * Math.exp(each / 2), 2));
    ellipse(x, y, ...radii, `#${COLOURS[labels[i] % 10]}aa`);
  });
}

// The typical σ of clouds, their mean KL, and how many have their centre out of sight.
function cloudsSummed(clouds, reach) {
  const sigmas = clouds.flatMap(([, , ...logVar]) => logVar.map((each) => Math.exp(each / 2)));
  const typical = sigmas.sort((a, b) => a - b)[(sigmas.length - 1) >> 1]; // as torch's median
  const kl = (mu, logVar) => (mu * mu + Math.exp(logVar) - 1 - logVar) / 2;
  const sum = clouds.reduce((sum, [x, y, ofX, ofY]) => sum + kl(x, ofX) + kl(y, ofY), 0);
  const outside = clouds.filter(([x, y]) => Math.max(Math.abs(x), Math.abs(y)) > reach).length;
  const more = outside ? `; ${outside} of ${clouds.length} outside` : "";
  return `typical σ ${typical.toPrecision(2)}, KL ${(sum / clouds.length).toFixed(1)} nats${more}`;
}
