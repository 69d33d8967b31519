// A VAE's decoder in the page: int8 weights unpacked, and z -> ReLU -> sigmoid.
//
// What is packed, and in which order, says `weights` in vae_lesson/explore/living.py.

// Returns the function from a code to the pixels of its image, 0 to 255, row by row.
export async function unpack({ sizes, data }) {
  const [nLatent, nHidden, nPixels] = sizes;
  const zipped = new Blob([bytes(data)]).stream();
  const whole = new Response(zipped.pipeThrough(new DecompressionStream("gzip")));
  const buffer = await whole.arrayBuffer();
  let place = 0;
  function take(Kind, length) {
    const part = new Kind(buffer, place, length);
    place += part.byteLength;
    return part;
  }
  const first = take(Float32Array, nHidden * nLatent); // a row a hidden unit
  const firstBias = take(Float32Array, nHidden);
  const lastBias = take(Float32Array, nPixels);
  const steps = take(Float32Array, nPixels);
  const last = take(Int8Array, nPixels * nHidden); // a row a pixel, in steps of one size
  const hidden = new Float32Array(nHidden);

  return function decode(z) {
    for (let j = 0, k = 0; j < nHidden; j++) {
      let sum = firstBias[j];
      for (let i = 0; i < nLatent; i++, k++) sum += first[k] * z[i];
      hidden[j] = Math.max(sum, 0);
    }
    const pixels = new Uint8ClampedArray(nPixels); // it rounds
    for (let p = 0, k = 0; p < nPixels; p++) {
      let sum = 0;
      for (let j = 0; j < nHidden; j++, k++) sum += last[k] * hidden[j];
      pixels[p] = 255 / (1 + Math.exp(-(lastBias[p] + steps[p] * sum)));
    }
    return pixels;
  };
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
