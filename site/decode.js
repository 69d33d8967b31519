// The networks of vae_lesson/explore/page.py in the page: layers, from a code to pixels.

// Returns the function from numbers to what comes out of the last layer, as a Float32Array.
export async function network({ layers, data }) {
  const numbers = await floats(data);
  let place = 0;
  const take = (length) => numbers.slice(place, (place += length));
  let shape = []; // of a picture on its way, [channels, height, width]
  const steps = layers.map(([name, ...sizes]) => {
    const layer = LAYERS[name](take, sizes, shape);
    shape = layer.shape ?? shape;
    return layer.run;
  });
  return (code) => steps.reduce((x, run) => run(x), Float32Array.from(code));
}

// Each layer takes its weights and gives {run, shape}, the shape if it has changed.
const LAYERS = {
  linear(take, [nIn, nOut]) {
    const [weights, bias, y] = [take(nIn * nOut), take(nOut), new Float32Array(nOut)];
    return { run: (x) => multiply(weights, bias, x, nIn, y, 0, 1) };
  },
  relu: () => each((value) => Math.max(value, 0)),
  tanh: () => each(Math.tanh),
  sigmoid: () => each((value) => 1 / (1 + Math.exp(-value))),
  shape: (take, shape) => ({ run: (x) => x, shape }),
  // Each pixel as many times as makes so many, as torch's "nearest".
  upsample: (take, [height, width], [channels, h, w]) => ({
    shape: [channels, height, width],
    run: moved([channels, h, w], [height, width], (y) => Math.floor((y * h) / height)),
  }),
  // Zeros between the pixels: a convolution of it is a transposed one of stride 2.
  spread: (take, _, [channels, h, w]) => ({
    shape: [channels, 2 * h - 1, 2 * w - 1],
    run: moved([channels, h, w], [2 * h - 1, 2 * w - 1], (y) => (y % 2 ? -1 : y / 2)),
  }),
  conv(take, [nIn, nOut, k, pad], [, h, w]) {
    const n = nIn * k * k;
    const [weights, bias, seen] = [take(nOut * n), take(nOut), new Float32Array(n)];
    const [high, wide] = [h, w].map((length) => length + 2 * pad - k + 1);
    const y = new Float32Array(nOut * high * wide);
    function run(x) {
      for (let place = 0; place < high * wide; place++) {
        const [top, left] = [Math.floor(place / wide) - pad, (place % wide) - pad];
        for (let i = 0, at = 0; i < nIn; i++) {
          for (let row = top; row < top + k; row++) {
            for (let column = left; column < left + k; column++) {
              const inside = row >= 0 && row < h && column >= 0 && column < w;
              seen[at++] = inside ? x[(i * h + row) * w + column] : 0;
            }
          }
        }
        multiply(weights, bias, seen, n, y, place, high * wide);
      }
      return y;
    }
    return { run, shape: [nOut, high, wide] };
  },
  norm(take, [nGroups, channels], shape) {
    const [weights, bias, size] = [take(channels), take(channels), shape[1] * shape[2]];
    const n = (channels / nGroups) * size;
    function run(x) {
      for (let start = 0; start < x.length; start += n) {
        const group = x.subarray(start, start + n);
        const mean = group.reduce((sum, value) => sum + value, 0) / n;
        const variance = group.reduce((sum, value) => sum + (value - mean) ** 2, 0) / n;
        const scale = 1 / Math.sqrt(variance + 1e-5);
        group.forEach((value, i) => {
          const channel = Math.floor((start + i) / size);
          group[i] = (value - mean) * scale * weights[channel] + bias[channel];
        });
      }
      return x;
    }
    return { run };
  },
  // The number at the end of a code moves a label on, which stands there one-hot.
  label: (take, [first, n]) => ({
    run(code) {
      const label = first + Math.round(code.at(-1));
      return Float32Array.from([...code.slice(0, -1), ...oneHot(label, n)]);
    },
  }),
  // The entries of a codebook for tokens, a row each, as channels of a picture.
  tokens(take, [n, size]) {
    const codebook = take(n * size);
    const run = (tokens) => {
      return new Float32Array(size * tokens.length).map((_, i) => {
        const [channel, token] = [Math.floor(i / tokens.length), tokens[i % tokens.length]];
        return codebook[Math.round(token) * size + channel];
      });
    };
    return { run };
  },
  // A guided flow by Euler's method, stopped early: `Stopped` in priors/flow.py.
  flow(take, [nSteps, nClasses, nIn, hidden]) {
    const latent = nIn - 4 - nClasses;
    const start = take(latent);
    const linear = (from, to) => LAYERS.linear(take, [from, to]).run;
    const [enter, blocks] = [linear(nIn, hidden), [0, 1, 2].map(() => linear(hidden, hidden))];
    const leave = linear(hidden, latent);
    function velocity(z, t, y) {
      const waves = [1, 2].flatMap((k) => [Math.sin(Math.PI * k * t), Math.cos(Math.PI * k * t)]);
      let h = enter([...z, ...waves, ...y]).slice();
      for (const block of blocks) {
        const more = block(h.map(gelu));
        h = h.map((value, i) => value + more[i]);
      }
      return leave(h.map(gelu)).slice();
    }
    function run([leftOut, more, label]) {
      const asked = oneHot(Math.round(label), nClasses);
      let z = start;
      for (let i = 0; i < nSteps - Math.round(leftOut); i++) {
        const free = velocity(z, i / nSteps, asked.map(() => 0));
        const wanted = velocity(z, i / nSteps, asked);
        z = z.map((x, j) => x + (free[j] + (1 + more) * (wanted[j] - free[j])) / nSteps);
      }
      return z;
    }
    return { run };
  },
};

function each(f) {
  return {
    run(x) {
      for (let i = 0; i < x.length; i++) x[i] = f(x[i]);
      return x;
    },
  };
}

// What takes nearly all the time: y[first + step · j] = bias[j] + row j of the weights · x, where x
// has n numbers. Four rows at once take half the time of one after the other.
function multiply(weights, bias, x, n, y, first, step) {
  let j = 0;
  for (; j + 3 < bias.length; j += 4) {
    let [k0, k1, k2, k3] = [j * n, (j + 1) * n, (j + 2) * n, (j + 3) * n];
    let [a, b, c, d] = [0, 0, 0, 0];
    for (let i = 0; i < n; i++) {
      const value = x[i];
      a += weights[k0++] * value;
      b += weights[k1++] * value;
      c += weights[k2++] * value;
      d += weights[k3++] * value;
    }
    [a, b, c, d].forEach((sum, k) => (y[first + step * (j + k)] = bias[j + k] + sum));
  }
  for (; j < bias.length; j++) {
    let sum = bias[j];
    for (let i = 0; i < n; i++) sum += weights[j * n + i] * x[i];
    y[first + step * j] = sum;
  }
  return y;
}

// Returns what puts pixels in other places: `from` gives the row, or column, that one comes from.
function moved([channels, h, w], [height, width], from) {
  const rows = Array.from({ length: height }, (_, y) => from(y));
  const columns = Array.from({ length: width }, (_, x) => from(x));
  return function run(x) {
    const y = new Float32Array(channels * height * width);
    let to = 0;
    for (let c = 0; c < channels; c++) {
      for (const row of rows) {
        for (const column of columns) {
          y[to++] = row < 0 || column < 0 ? 0 : x[(c * h + row) * w + column];
        }
      }
    }
    return y;
  };
}

// A label as zeros with a single 1; after the last one comes the first.
function oneHot(label, n) {
  return Array.from({ length: n }, (_, i) => Number((i - label) % n === 0));
}

// x Φ(x), by Abramowitz & Stegun 7.1.26 for the error function.
function gelu(x) {
  const t = 1 / (1 + (0.3275911 * Math.abs(x)) / Math.SQRT2);
  const series = [1.061405429, -1.453152027, 1.421413741, -0.284496736, 0.254829592, 0];
  const sum = series.reduce((total, factor) => total * t + factor);
  const erf = Math.sign(x) * (1 - sum * Math.exp((-x * x) / 2));
  return (x * (1 + erf)) / 2;
}

// The numbers that stand as float16, first all low bytes and then all high ones, zipped, in base64.
async function floats(base64) {
  const zipped = new Blob([bytes(base64)]).stream();
  const whole = new Response(zipped.pipeThrough(new DecompressionStream("gzip")));
  const halves = new Uint8Array(await whole.arrayBuffer());
  const n = halves.length / 2;
  return new Float32Array(n).map((_, i) => {
    const [low, high] = [halves[i], halves[n + i]];
    const [exponent, fraction] = [(high >> 2) & 31, ((high & 3) << 8) | low];
    const size = exponent ? 2 ** (exponent - 25) * (1024 + fraction) : 2 ** -24 * fraction;
    return high >> 7 ? -size : size;
  });
}

// Returns the bytes that base64 text stands for.
export function bytes(base64) {
  return Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0));
}
