// What trains in the Worker, and what it says.
//
// It hears  {settings}  how to train from now on, as USUAL in playground.js; another size of the
//                       code or seed begins anew
//           {order}     "run", "pause", "step" or "again"
//           {z}         a code to decode
// and says  {step, recon, kl, …}, some times a second, which paint.js draws, and {decoded}, of z

export function trainer(vae, { train, test }, post) {
  const [SIDE, BATCH, REBUILT, DRAWN, CELLS, REACH] = [64, 64, 10, 20, 13, 3];
  const [SLICE, SLOWLY] = [40, 100]; // milliseconds between two looks at what is to be heard
  let [settings, running, z, timer] = [{}, false, [], 0];
  let random, model, order, place, noise, testNoise, said;

  // Mulberry32 (T. Ettinger): numbers in [0, 1) that the seed fixes.
  function generator(seed) {
    let state = seed;
    return () => {
      state = (state + 0x6d2b79f5) | 0;
      let t = Math.imul(state ^ (state >>> 15), state | 1);
      t = (t + Math.imul(t ^ (t >>> 7), t | 61)) ^ t;
      return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
    };
  }
  // Draws from N(0, 1), by Box and Muller.
  const normals = (n) =>
    Float64Array.from({ length: n }, () => {
      return Math.sqrt(-2 * Math.log(1 - random())) * Math.cos(2 * Math.PI * random());
    });
  function shuffled(n) {
    const keyed = Array.from({ length: n }, (_, i) => [random(), i]);
    return keyed.sort(([a], [b]) => a - b).map(([, i]) => i);
  }

  function begin() {
    const { latent_size: latentSize, seed } = settings;
    random = generator(seed);
    model = vae.newModel({ latentSize, random });
    noise = normals(DRAWN * latentSize); // the same draws at each step: one sees them change
    testNoise = normals((test.length / SIDE) * latentSize);
    [order, place] = [[], 0];
  }

  function step() {
    if (place + BATCH > order.length) [order, place] = [shuffled(train.length / SIDE), 0];
    const x = new Float64Array(BATCH * SIDE);
    order.slice(place, place + BATCH).forEach((image, i) => {
      x.set(train.subarray(image * SIDE, (image + 1) * SIDE), i * SIDE);
    });
    place += BATCH;
    const eps = normals(BATCH * settings.latent_size);
    const { model: kind, beta, blocked, mean: meanOverPixels } = settings;
    vae.gradients(model, x, kind === "vae" ? eps : null, { beta, blocked, meanOverPixels });
    vae.adam(model, settings.lr);
  }

  // The test images: recon and KL in nats, their clouds, what is rebuilt from the middle of the
  // first ones'; and how wide all their codes together scatter, where the prior has 1.
  function tell() {
    said = performance.now();
    const isVae = settings.model === "vae";
    const { mu, logVar, recon, kl } = vae.terms(model, test, isVae ? testNoise : null);
    const spread = Math.sqrt(
      mu.reduce((sum, m, k) => sum + m * m + (isVae ? Math.exp(logVar[k]) : 0), 0) / mu.length,
    );
    const rebuilt = vae.intensities(model, mu.subarray(0, REBUILT * settings.latent_size));
    const drawn = vae.intensities(model, noise);
    let manifold = null; // what the plane decodes to, row by row
    if (settings.manifold && settings.latent_size === 2) {
      const at = Array.from({ length: CELLS }, (_, k) => REACH * ((2 * k + 1) / CELLS - 1));
      const codes = at.flatMap((y) => at.flatMap((x) => [x, -y]));
      manifold = vae.intensities(model, Float64Array.from(codes));
    }
    const clouds = { mu, logVar: isVae && logVar };
    post({ step: model.steps, recon, kl, spread, ...clouds, rebuilt, drawn, manifold });
    show();
  }
  function show() {
    const code = Float64Array.from({ length: settings.latent_size }, (_, j) => z[j] ?? 0);
    post({ decoded: vae.intensities(model, code) });
  }

  function work() {
    timer = 0;
    if (!running) return;
    const start = performance.now();
    do step();
    while (settings.speed === "full" && performance.now() - start < SLICE);
    if (performance.now() - said > settings.pause) tell();
    timer = setTimeout(work, settings.speed === "full" ? 0 : SLOWLY);
  }

  return function hear(message) {
    const { latent_size: size, seed } = settings;
    Object.assign(settings, message.settings);
    const anew = settings.latent_size !== size || settings.seed !== seed;
    if (anew || message.order === "again") begin();
    if (message.order === "step") step();
    z = message.z ?? z;
    if (message.z) return show();
    running = { run: true, pause: false }[message.order] ?? running;
    if (running) timer ||= setTimeout(work); // after what waits to be heard
    else tell();
  };
}
