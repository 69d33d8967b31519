// A VAE's networks in the page: weights unpacked, z -> ReLU -> sigmoid, and x -> ReLU -> code.
//
// What is packed, and in which order, says vae_lesson/explore/living.py.

// Returns functions from a code: decode, to the pixels of its image, 0 to 255, row by row; and
// logits, to what becomes them.
export async function unpack(packed) {
  const [first, last] = await layers(packed);
  const logits = (z) => last(relu(first(z)));
  return { logits, decode: (z) => greys(logits(z)) };
}

// Returns the function from an image, its intensities in [0, 1], to {mu, sigma}.
export async function unpackEncoder(packed) {
  const [last, first] = await layers(packed);
  return function encode(x) {
    const both = last(relu(first(x)));
    const mu = both.slice(0, both.length / 2);
    const sigma = both.slice(mu.length).map((logVar) => Math.exp(logVar / 2));
    return { mu, sigma };
  };
}

// Returns the pixels, 0 to 255, of logits.
export function greys(logits) {
  const pixels = new Uint8ClampedArray(logits.length); // it rounds
  for (let p = 0; p < pixels.length; p++) pixels[p] = 255 / (1 + Math.exp(-logits[p]));
  return pixels;
}

// Returns two layers as functions: one with its weights in floats, one with them in whole steps.
async function layers({ sizes, data }) {
  const [nIn, nOut, nStepsIn, nStepsOut] = sizes;
  const zipped = new Blob([bytes(data)]).stream();
  const whole = new Response(zipped.pipeThrough(new DecompressionStream("gzip")));
  const buffer = await whole.arrayBuffer();
  let place = 0;
  function take(Kind, length) {
    const part = new Kind(buffer, place, length);
    place += part.byteLength;
    return part;
  }
  const weights = take(Float32Array, nOut * nIn); // a row for each number that comes out
  const bias = take(Float32Array, nOut);
  const biasOfSteps = take(Float32Array, nStepsOut);
  const size = take(Float32Array, nStepsOut); // of a row's steps
  const isSmall = buffer.byteLength - place === nStepsOut * nStepsIn; // a byte each
  const steps = take(isSmall ? Int8Array : Int16Array, nStepsOut * nStepsIn);

  // The same loop twice: one for both kinds of weights would be slower.
  function inFloats(x) {
    const y = new Float32Array(nOut);
    for (let j = 0, k = 0; j < nOut; j++) {
      let sum = bias[j];
      for (let i = 0; i < nIn; i++, k++) sum += weights[k] * x[i];
      y[j] = sum;
    }
    return y;
  }
  const input = new Float32Array(nStepsIn); // the same array each time: half again as fast
  function inSteps(x) {
    input.set(x);
    const y = new Float32Array(nStepsOut);
    for (let j = 0, k = 0; j < nStepsOut; j++) {
      let sum = 0;
      for (let i = 0; i < nStepsIn; i++, k++) sum += steps[k] * input[i];
      y[j] = biasOfSteps[j] + size[j] * sum;
    }
    return y;
  }
  return [inFloats, inSteps];
}

function relu(values) {
  return values.map((value) => Math.max(value, 0));
}

// Returns the bytes that base64 text stands for.
export function bytes(base64) {
  return Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0));
}

// The point at t on the straight line from a (t = 0) to b (t = 1).
export function lerp(a, b, t) {
  return a.map((x, i) => x + t * (b[i] - x));
}

// The point at t on the great arc from a to b; on the straight line where they are parallel.
export function slerp(a, b, t) {
  const cos = dot(a, b) / Math.sqrt(dot(a, a) * dot(b, b));
  if (!(Math.abs(cos) < 1 - 1e-6)) return lerp(a, b, t); // also where one has no length
  const angle = Math.acos(cos);
  const [ofA, ofB] = [1 - t, t].map((part) => Math.sin(part * angle) / Math.sin(angle));
  return a.map((x, i) => ofA * x + ofB * b[i]);
}

function dot(a, b) {
  return a.reduce((sum, x, i) => sum + x * b[i], 0);
}
