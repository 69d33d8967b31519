// A VAE that trains where it is read: forward, backward by hand, and Adam, in plain arrays.
//
//   x ─► hidden, ReLU ─► mu, log σ²    z = mu + σ eps    z ─► hidden, ReLU ─► logits of x̂
//
// A batch of n images of 64 pixels is one array of n · 64 numbers, an image after the other, and so
// are codes. Terms are the course's: nats, summed over pixels and code, averaged over images.
// It is one function, because a Worker is made of a function's text.

export function vaeByHand() {
  // A layer: y = W x + b. Its weights are one array, W row by row (a row an output), then b; the
  // gradient, and Adam's averages of it and of its square, have the same places. As PyTorch
  // starts it: uniform within ±1/√(number of inputs).
  function newLayer(nIn, nOut, random) {
    const bound = 1 / Math.sqrt(nIn);
    const length = nOut * (nIn + 1);
    const weights = Float64Array.from({ length }, () => bound * (2 * random() - 1));
    const zeros = () => new Float64Array(length);
    return { nIn, nOut, weights, gradient: zeros(), mean: zeros(), square: zeros() };
  }

  function forward({ nIn, nOut, weights }, x) {
    const n = x.length / nIn;
    const y = new Float64Array(n * nOut);
    for (let i = 0; i < n; i++) {
      for (let o = 0; o < nOut; o++) {
        let sum = weights[nOut * nIn + o];
        for (let j = 0; j < nIn; j++) sum += weights[o * nIn + j] * x[i * nIn + j];
        y[i * nOut + o] = sum;
      }
    }
    return y;
  }

  // The chain rule: given the loss's slopes by y, adds those by W and b to the layer's gradient and
  // returns those by x. As y = W x + b, W's slope is x times y's, and x's is W times y's.
  function backward({ nIn, nOut, weights, gradient }, x, byY) {
    const n = x.length / nIn;
    const byX = new Float64Array(x.length);
    for (let i = 0; i < n; i++) {
      for (let o = 0; o < nOut; o++) {
        const slope = byY[i * nOut + o];
        if (slope === 0) continue; // as behind a ReLU that gave 0
        gradient[nOut * nIn + o] += slope;
        for (let j = 0; j < nIn; j++) {
          gradient[o * nIn + j] += slope * x[i * nIn + j];
          byX[i * nIn + j] += slope * weights[o * nIn + j];
        }
      }
    }
    return byX;
  }

  const relu = (y) => y.map((value) => Math.max(value, 0));
  const backThroughRelu = (slopes, y) => slopes.map((slope, i) => (y[i] > 0 ? slope : 0));
  const sigmoid = (logit) => 1 / (1 + Math.exp(-logit));
  // −log p(x|z) of a pixel, log(1 + e^logit) − x · logit: its slope by the logit is x̂ − x.
  const nll = (logit, x) => Math.max(logit, 0) + Math.log1p(Math.exp(-Math.abs(logit))) - x * logit;
  const klOf = (mu, logVar) => (mu * mu + Math.exp(logVar) - 1 - logVar) / 2;

  function newModel({ nPixels = 64, hidden = 64, latentSize = 2, random = Math.random } = {}) {
    const encoder = [newLayer(nPixels, hidden, random), newLayer(hidden, 2 * latentSize, random)];
    const decoder = [newLayer(latentSize, hidden, random), newLayer(hidden, nPixels, random)];
    return { latentSize, nPixels, layers: [...encoder, ...decoder], steps: 0 };
  }

  // Of each image its mu, and its log σ², each (n, L).
  function encode({ latentSize, layers }, x) {
    const hidden = relu(forward(layers[0], x));
    const both = forward(layers[1], hidden); // mu and log σ² of an image side by side
    const part = (second) => (_, k) => both[k + latentSize * (Math.floor(k / latentSize) + second)];
    const [mu, logVar] = [0, 1].map((k) => new Float64Array(both.length / 2).map(part(k)));
    return { hidden, mu, logVar };
  }

  function decode({ layers }, z) {
    const hidden = relu(forward(layers[2], z));
    return { hidden, logits: forward(layers[3], hidden) };
  }

  // The code that an image is decoded from: with eps a draw from its cloud, without it the middle.
  const draw = ({ mu, logVar }, eps) =>
    eps ? mu.map((m, k) => m + Math.exp(0.5 * logVar[k]) * eps[k]) : mu;

  // Recon and KL of images in nats, without training; an autoencoder (no eps) has no KL.
  function terms(model, x, eps) {
    const cloud = encode(model, x);
    const { logits } = decode(model, draw(cloud, eps));
    const n = x.length / model.nPixels;
    const recon = logits.reduce((sum, logit, p) => sum + nll(logit, x[p]), 0) / n;
    const kl = cloud.mu.reduce((sum, mu, k) => sum + klOf(mu, cloud.logVar[k]), 0) / n;
    return { ...cloud, recon, kl: eps ? kl : null };
  }

  // Sets the gradients of recon + beta · KL on a batch, and returns recon and KL in nats.
  // Without eps it is an autoencoder. Two mistakes: `blocked`, z is a constant to the encoder, as
  // after .sample() or .detach(); `meanOverPixels`, recon / 64 stands beside the whole KL.
  function gradients(model, x, eps, { beta, blocked = false, meanOverPixels = false }) {
    const { layers, latentSize, nPixels } = model;
    for (const { gradient } of layers) gradient.fill(0);
    const n = x.length / nPixels;
    const cloud = encode(model, x);
    const z = draw(cloud, eps);
    const { hidden, logits } = decode(model, z);
    let [recon, kl] = [0, 0];
    const share = 1 / n / (meanOverPixels ? nPixels : 1);
    const byLogits = logits.map((logit, p) => {
      recon += nll(logit, x[p]) / n;
      return share * (sigmoid(logit) - x[p]);
    });
    const byHidden = backThroughRelu(backward(layers[3], hidden, byLogits), hidden);
    const byZ = backward(layers[2], z, byHidden);

    // z = mu + e^(½ log σ²) eps has slopes 1 by mu, ½ σ eps by log σ²; the KL mu, and ½ (σ² − 1).
    const byBoth = new Float64Array(2 * z.length);
    z.forEach((_, k) => {
      const [mu, logVar, slope] = [cloud.mu[k], cloud.logVar[k], blocked ? 0 : byZ[k]];
      const place = k + latentSize * Math.floor(k / latentSize);
      byBoth[place] = slope;
      if (!eps) return;
      kl += klOf(mu, logVar) / n;
      byBoth[place] += (beta / n) * mu;
      byBoth[place + latentSize] = 0.5 * slope * Math.exp(0.5 * logVar) * eps[k];
      byBoth[place + latentSize] += (beta / n) * 0.5 * (Math.exp(logVar) - 1);
    });
    const byFirst = backThroughRelu(backward(layers[1], cloud.hidden, byBoth), cloud.hidden);
    backward(layers[0], x, byFirst);
    return { recon, kl };
  }

  // Adam (Kingma and Ba, 2015): each weight goes against its gradient's running mean, divided by
  // the root of its square's; both are corrected for having begun at 0.
  function adam(model, lr, [b1, b2] = [0.9, 0.999]) {
    model.steps += 1;
    const [known1, known2] = [1 - b1 ** model.steps, 1 - b2 ** model.steps];
    for (const { weights, gradient, mean, square } of model.layers) {
      for (let i = 0; i < weights.length; i++) {
        mean[i] += (1 - b1) * (gradient[i] - mean[i]);
        square[i] += (1 - b2) * (gradient[i] ** 2 - square[i]);
        weights[i] -= (lr * mean[i]) / known1 / (Math.sqrt(square[i] / known2) + 1e-8);
      }
    }
  }

  const intensities = (model, z) => decode(model, z).logits.map(sigmoid);
  return { newModel, encode, draw, terms, intensities, gradients, adam };
}
