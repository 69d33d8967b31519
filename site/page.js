// A page without a kernel as the host of its explorers.
//
// Each `figure.explorer` holds a still picture and what vae_lesson/explore/page.py wrote, as JSON.
// The still picture goes once the explorer is there; whatever fails, or without JavaScript, it stays.

import { bytes, network } from "./decode.js";
import { centred } from "./centre.js";
import { explorer } from "../vae_lesson/explore/front/explorer.js";
import { SHOWN, SIDE } from "../vae_lesson/explore/front/drawing.js";
import { make } from "../vae_lesson/explore/front/parts.js";

const PAUSE = 8; // milliseconds after which the page may do something else

const networks = {}; // key -> promise of the function: several explorers share one

async function pageHost({ state, shown, networks: keys, units }) {
  const promised = keys.map((key) => (networks[key] ??= network(globalThis.vaeWeights[key])));
  if (state.kind === "drawing") promised[0] = logitsOf(globalThis.vaeWeights[keys[0]]);
  const ways = await Promise.all(promised);
  // Codes may be counted in units, [centre, spread], of their own.
  const decoders = units.map((own, i) => (code) => {
    return ways[i](own ? code.map((x, j) => own[0][j] + own[1][j] * x) : code);
  });
  const decoded = (code) => decoders.map((decode) => greys(decode(code)));
  return {
    state,
    shown,
    async move(given, controls) {
      if (state.kind === "drawing") return drawn(given, state, ways);
      const z = new DataView(new Float32Array(given).buffer);
      return { z, controls, ...together(decoded(given).map((one) => [one])) };
    },
    async decode(codes) {
      const batches = decoders.map(() => []);
      let since = -Infinity;
      for (const code of codes) {
        if (performance.now() - since > PAUSE) {
          await new Promise((resolve) => setTimeout(resolve)); // a move may come between
          since = performance.now();
        }
        decoded(code).forEach((one, i) => batches[i].push(one));
      }
      return together(batches);
    },
    others() {},
  };
}

// Batches of pictures as a host answers them.
function together(batches) {
  const shapes = batches.map((some) => shapeOf(some.length, some[0].length));
  return { shapes, buffers: batches.map(joined) };
}

// A decoder without the sigmoid that ends it.
function logitsOf({ layers, data }) {
  return network({ layers: layers.slice(0, -1), data });
}

// What the encoder makes of a drawing, as DrawExplorer answers it in a notebook.
function drawn(drawing, { eps, scores }, [logits, encode]) {
  const image = centred(drawing);
  const shown = { drawing: new DataView(drawing.buffer), controls: {} };
  if (!image.some(Boolean)) return { ...shown, shapes: [[1, SIDE, SIDE]], buffers: [image] };
  const x = Float32Array.from(image, (grey) => grey / 255);
  const both = encode(x);
  const mu = [...both.slice(0, both.length / 2)];
  const sigma = [...both.slice(mu.length)].map((logVar) => Math.exp(logVar / 2));
  const outputs = eps.map((noise) => logits(mu.map((m, j) => m + noise[j] * sigma[j])).slice());
  const shownOf = (output) => greys(output.map((l) => 1 / (1 + Math.exp(-l))));
  const pictures = [[image], [shownOf(logits(mu))], outputs.slice(0, SHOWN).map(shownOf)];
  return {
    ...shown,
    ...{ mu, sigma, score: score(x, mu, sigma, outputs, scores) },
    ...together(pictures),
  };
}

// Recon and KL in nats of an image x, recon as the mean over outputs, the logits that draws of z
// decode to; and the place of their sum among the test images: between quantiles of theirs.
export function score(x, mu, sigma, outputs, scores) {
  const sum = (values, term) => values.reduce((total, value, i) => total + term(value, i), 0);
  const kl = sum(mu, (m, j) => (m * m + sigma[j] ** 2 - 1) / 2 - Math.log(sigma[j]));
  // -log p(x|z) of Bernoulli pixels: log(1 + e^l) - x l.
  const nll = (l, p) => Math.max(l, 0) + Math.log1p(Math.exp(-Math.abs(l))) - x[p] * l;
  const recon = sum(outputs, (output) => sum(output, nll)) / outputs.length;
  const above = scores.findIndex((each) => each >= recon + kl); // the first that is not less
  const [low, high] = [scores[above - 1], scores[above]];
  const between = above - 1 + (recon + kl - low) / (high - low);
  return { recon, kl, place: above < 0 ? 1 : above && between / (scores.length - 1) };
}

function shapeOf(n, length) {
  const inColour = !Number.isInteger(Math.sqrt(length));
  const side = Math.sqrt(inColour ? length / 3 : length);
  return inColour ? [n, side, side, 3] : [n, side, side];
}

// Intensities as pixels, 0 to 255; in colour the channels of each, that came one after the other.
function greys(x) {
  const size = shapeOf(1, x.length)[3] ? x.length / 3 : x.length;
  const channels = x.length / size;
  const pixels = new Uint8ClampedArray(x.length); // it rounds
  for (let p = 0, place = 0; place < size; place++) {
    for (let c = 0; c < channels; c++) pixels[p++] = 255 * x[c * size + place];
  }
  return pixels;
}

function joined(parts) {
  const whole = new Uint8Array(parts.length * parts[0].length);
  parts.forEach((part, i) => whole.set(part, i * part.length));
  return whole;
}

// What stands as {"base64": …} in JSON as the bytes that it means.
function revived(_, value) {
  return value?.base64 === undefined ? value : bytes(value.base64);
}

for (const figure of document.querySelectorAll("figure.explorer")) {
  try {
    const left = JSON.parse(figure.querySelector("script").textContent, revived);
    const alive = make("div", {});
    explorer(await pageHost(left), alive);
    figure.querySelector(".still").hidden = true;
    figure.append(alive);
    // It is higher than its still picture, and Safari does not hold a place below.
    if (!CSS.supports("overflow-anchor", "auto")) document.querySelector(":target")?.scrollIntoView();
  } catch (error) {
    console.error(error);
  }
}
