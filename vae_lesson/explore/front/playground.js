// The playground: a VAE of 8×8 digits that trains before your eyes, and what may be done to it.

import { ARROWS, area, button, choice, control } from "./parts.js";
import { fixed, make, placeIn, pointed, range, say } from "./parts.js";
import { COLOURS, paintCurves, paintDigits, paintPlane, REACH } from "./paint.js";
import { tour } from "./tour.js";
import { trainer } from "./trainer.js";
import { vaeByHand } from "./vae.js";

// All that can be set; the address holds what differs, as in #beta=4&seed=2.
const USUAL = {
  ...{ model: "vae", beta: 1, lr: 0.005, latent_size: 2, seed: 0, speed: "full" },
  ...{ blocked: false, mean: false, manifold: false },
};
const LIMITS = { beta: [0, 8], lr: [0.0001, 0.05], seed: [0, 99] };
const CHOICES = { model: ["autoencoder", "vae"], latent_size: [2, 8], speed: ["slow", "full"] };
const PER_ROW = 10; // digits
const KEPT = 600; // moments of the curves
const ENDS = 20_000; // steps after which it rests, should it have been forgotten

// Settings from an address: what it does not say, or says wrongly, is as usual.
export function fromAddress(hash) {
  const [given, settings] = [new URLSearchParams(hash.replace("#", "")), { ...USUAL }];
  for (const name of Object.keys(USUAL)) {
    const text = given.get(name) ?? "";
    const known = CHOICES[name]?.find((value) => String(value) === text);
    if (known) settings[name] = known;
    if (USUAL[name] === false) settings[name] = text === "true";
    if (!(name in LIMITS) || Number.isNaN(parseFloat(text))) continue;
    settings[name] = Math.min(Math.max(parseFloat(text), LIMITS[name][0]), LIMITS[name][1]);
  }
  settings.seed = Math.round(settings.seed);
  return settings;
}

export function toAddress(settings) {
  const differs = Object.entries(settings).filter(([name, value]) => value !== USUAL[name]);
  return `#${new URLSearchParams(differs)}`;
}

// `trainer` in a Worker, made of its text: a page that was opened as a file can load no second one.
function startTrainer(images, heard) {
  const text = `onmessage = ({ data: images }) => {
    const hear = (${trainer})((${vaeByHand})(), images, postMessage);
    onmessage = ({ data }) => hear(data);
  };`;
  const worker = new Worker(URL.createObjectURL(new Blob([text], { type: "text/javascript" })));
  worker.onmessage = ({ data }) => heard(data);
  worker.postMessage(images);
  return worker;
}

export function playground({ state }) {
  const { labels, page } = state; // page: the file where it is alone; a notebook has none
  const pixels = ({ buffer, byteOffset, byteLength }) =>
    Float64Array.from(new Uint8Array(buffer, byteOffset, byteLength), (level) => level / 16);
  const images = { train: pixels(state.train), test: pixels(state.test) };
  const isStill = matchMedia("(prefers-reduced-motion: reduce)").matches;
  const pause = isStill ? 500 : 90; // milliseconds between two pictures
  let settings = page ? fromAddress(location.hash) : { ...USUAL };
  let [running, inSight, point, last, history] = [false, true, [0, 0], null, []];
  let [since, began] = [0, 0]; // the step and the moment at which it was started
  let due = false; // a painting, one a frame
  const worker = startTrainer(images, heard);

  // --- what is seen
  const canvas = (words, className, [width, height] = [80, 8]) =>
    make("canvas", { role: "img", ariaLabel: words, className, width, height });
  const plane = make("canvas", { width: 640, height: 640 }); // its area has the words
  const curves = canvas("", "vae-nats", [640, 270]);
  const decoded = canvas(say("what the chosen point decodes to"), "vae-decoded");
  const rebuilt = canvas(say("the ten test images, rebuilt"), "vae-digits");
  const drawn = canvas(say("twenty draws from N(0, I), decoded"), "vae-digits");
  const originals = canvas(say("ten test images"), "vae-digits");
  const words = say("the codes' plane: a click, or the arrow keys, decode a code");
  const { field, readout } = area("vae-plane vae-tapped", words, plane);
  const [steps, terms, spread] = [make("small", {}), make("p", {}), make("small", {})];

  function heard(message) {
    if (message.decoded) return paintDigits(decoded, message.decoded, 1);
    if (message.step < last?.step) [history, since] = [[], 0];
    last = message;
    history.push({ step: last.step, recon: last.recon, kl: last.kl, time: performance.now() });
    if (history.length > KEPT) history = history.filter((_, i) => i % 2 || i > KEPT / 2);
    repaint();
    guide.watch(last, settings);
    if (running && last.step > since + ENDS) run(false);
  }
  function repaint() {
    if (!due) requestAnimationFrame(paint);
    due = true;
  }
  function paint() {
    due = false;
    const { step, recon, kl, mu } = last;
    const latentSize = mu.length / labels.length;
    const outside = labels.filter((_, i) => {
      return Math.max(...mu.subarray(i * latentSize, i * latentSize + 2).map(Math.abs)) > REACH;
    }).length;
    paintPlane(plane, last, labels, latentSize, point);
    paintCurves(curves, history);
    paintDigits(rebuilt, last.rebuilt, PER_ROW);
    paintDigits(drawn, last.drawn, PER_ROW);
    const { time } = history.at(-1);
    const before = history.findLast((each) => each.time > began && time - each.time > 1000);
    const pace = before && running ? ((step - before.step) * 1000) / (time - before.time) : 0;
    steps.textContent = pace
      ? say("step {step}, {pace} a second", { step, pace: Math.round(pace) })
      : say("step {step}", { step });
    terms.textContent = `recon ${fixed(recon, 1)}`;
    if (kl !== null) terms.append(` + KL ${fixed(kl, 1)} = −ELBO ${fixed(recon + kl, 1)}`);
    terms.append(" ", say("nats"));
    const wide = { spread: fixed(last.spread, 1), n: outside, all: labels.length };
    spread.textContent = outside
      ? say("spread of all codes {spread}, the prior's 1; {n} of {all} outside", wide)
      : say("spread of all codes {spread}, the prior's 1", wide);
    const now = { step, terms: terms.textContent };
    curves.ariaLabel = say("the curves of recon, KL and −ELBO; at step {step} {terms}", now);
  }

  // --- what is moved
  const shows = {}; // of each setting what shows it
  function set(changes, byHand = true) {
    settings = { ...settings, ...changes };
    worker.postMessage({ settings: { ...settings, pause } });
    for (const [name, show] of Object.entries(shows)) show(settings[name]);
    for (const part of betas) part.disabled = settings.model === "autoencoder"; // it has no KL
    manifold.firstChild.disabled = settings.latent_size !== 2; // there is no plane of eight
    copy.textContent = say("Copy the link");
    if (page && byHand) window.history.replaceState(null, "", toAddress(settings));
  }
  function slider(name, words, step, decimals) {
    const [low, high] = LIMITS[name];
    const moved = (value) => set({ [name]: value });
    const { parts, set: show } = range({ name: words, low, high, step, decimals }, moved);
    shows[name] = show;
    return parts;
  }
  function radios(name, words, options) {
    const chosen = (text) => set({ [name]: CHOICES[name].find((value) => String(value) === text) });
    const { element, choose } = choice(words, options, chosen);
    shows[name] = (value) => choose(String(value));
    return element;
  }
  function box(name, words) {
    const input = control("input", { type: "checkbox" });
    input.onchange = () => set({ [name]: input.checked });
    shows[name] = (value) => (input.checked = value);
    return make("label", {}, input, ` ${words}`);
  }

  // Out of sight it rests.
  function run(on = running) {
    running = on;
    start.textContent = running ? say("Pause") : say("Start");
    terms.ariaLive = running ? "off" : "polite"; // ten times a second is too often to be read out
    order(running && inSight && !document.hidden ? "run" : "pause");
  }
  function begin(changes, runs) {
    set({ ...USUAL, ...changes });
    order("again");
    run(runs);
  }
  const start = button(say("Start"), () => {
    [since, began] = [last?.step ?? 0, performance.now()];
    run(!running);
  });
  const order = (name) => worker.postMessage({ order: name });
  const one = button(say("One step"), () => [run(false), order("step")]);
  const again = button(say("Again"), () => order("again"));
  const copy = button(say("Copy the link"), async () => {
    const address = new URL(page + toAddress(settings), location.href).href;
    try {
      await navigator.clipboard.writeText(address);
      copy.textContent = say("Copied");
    } catch {
      prompt(say("The link:"), address); // where the clipboard is not to be had
    }
  });
  copy.hidden = !page;

  function go(to) {
    point = to.map((value) => Math.min(Math.max(value, -REACH), REACH));
    readout.textContent = `z = (${point.map((value) => fixed(value, 2)).join(", ")})`;
    worker.postMessage({ z: point });
    if (last) repaint();
  }
  function goTo(event) {
    const [right, down] = placeIn(plane, event);
    go([REACH * (2 * right - 1), REACH * (1 - 2 * down)]);
  }
  pointed(field, { down: goTo, move: goTo });
  field.onkeydown = (event) => {
    if (!(event.key in ARROWS)) return;
    event.preventDefault();
    const [right, down] = ARROWS[event.key];
    go([point[0] + right / 10, point[1] - down / 10]);
  };

  const guide = tour(state.tour, begin, page);
  const div = (className, ...parts) => make("div", { className }, ...parts);
  const titled = (words, element) => make("div", {}, make("small", {}, words), element);
  const mistakes = make("fieldset", {}, make("legend", {}, say("two mistakes")));
  mistakes.append(box("blocked", say("the draw blocks the gradient")));
  mistakes.append(box("mean", say("recon as a mean over pixels")));
  const betas = slider("beta", "β", 0.1, 2);
  const manifold = box("manifold", say("what the plane decodes to"));
  const under = div("vae-pair", decoded, div("", readout, manifold));
  const key = COLOURS.map((colour, digit) => {
    const dot = make("span", { ariaHidden: "true" }, "●");
    dot.style.color = `#${colour}`;
    return make("small", {}, dot, `${digit} `);
  });
  const digits = [titled(say("test images"), originals), titled(say("rebuilt"), rebuilt)];
  digits.push(titled(say("draws from N(0, I), decoded"), drawn));
  const rates = slider("lr", say("learning rate"), 0.0001, 4);
  const seeds = slider("seed", say("seed"), 1, 0);
  const models = { autoencoder: say("autoencoder: z = μ"), vae: say("vae: z = μ + σ ε") };
  const sizes = { 2: say("2: both seen"), 8: say("8: two seen") };
  const speeds = { slow: say("slow: 10 steps a second"), full: say("full: all it can") };
  const all = div(
    "",
    guide.element,
    div("vae-buttons", start, one, again, copy, steps),
    div("vae-sliders", ...betas),
    div("vae-columns", div("vae-left", field, div("", ...key), under), div("vae-right", terms, spread, curves, ...digits)),
    div("vae-sliders", ...rates, ...seeds),
    div(
      "vae-buttons",
      radios("model", say("model"), models),
      radios("latent_size", say("numbers in a code"), sizes),
      radios("speed", say("speed"), speeds),
      mistakes,
    ),
    make("small", {}, state.legend),
  );

  set({}, false);
  go(point);
  paintDigits(originals, images.test.subarray(0, 64 * PER_ROW), PER_ROW);
  const watcher = new IntersectionObserver((entries) => {
    inSight = entries.at(-1).isIntersecting;
    run();
  });
  watcher.observe(all);
  const turned = () => run();
  document.addEventListener("visibilitychange", turned);
  const opened = () => page && location.hash.includes("=") && set(fromAddress(location.hash), false);
  addEventListener("hashchange", opened);
  return {
    elements: [all],
    close() {
      watcher.disconnect();
      document.removeEventListener("visibilitychange", turned);
      removeEventListener("hashchange", opened);
      worker.terminate();
    },
  };
}
