// One number z, one x that was seen, and a normal q that sliders move: curves, and below them bars of
// what it costs. The story is that of toy.py: x = 2 tanh 2z + noise.

import { fixed, make, range, say } from "./parts.js";

const [SEEN, NOISE] = [1.2, 0.5];
const LONGEST = 10; // nats, where the bars end
const HIGHEST = 2; // where the curves do
// A grid in standard deviations: it reaches as far as each q does.
const GRID = Array.from({ length: 2001 }, (_, i) => -6 + (12 * i) / 2000);

const density = (x, mean, sigma) =>
  Math.exp(-0.5 * ((x - mean) / sigma) ** 2) / (sigma * Math.sqrt(2 * Math.PI));
const likelihood = (z) => density(SEEN, 2 * Math.tanh(2 * z), NOISE);
const average = (f, mu, sigma) =>
  GRID.reduce((sum, t) => sum + density(t, 0, 1) * f(mu + sigma * t), 0) * (12 / 2000);
const surprise = -Math.log(average(likelihood, 0, 1)); // -log p(x)

const SHOWN_Z = GRID.filter((z) => Math.abs(z) < 3.2);
const curve = (f) => `M${SHOWN_Z.map((z) => `${z} ${HIGHEST - f(z)}`).join("L")}`;

export function toy({ state }) {
  let at = state.start;
  const prior = (z) => density(z, 0, 1);
  const posterior = (z) => prior(z) * likelihood(z) * Math.exp(surprise);
  const curves = [
    ["prior", say("prior p(z) = N(0, 1)"), curve(prior)],
    ["posterior", say("posterior p(z|x), x = {x}", { x: SEEN }), curve(posterior)],
    ["q", "q = N(μ, σ²)", ""],
  ];
  const line = (name, d) => `<path class="vae-of-${name}" d="${d}"/>`;
  const paths = curves.map(([name, , d]) => line(name, d)).reverse(); // the thin one comes last
  const ticks = [-3, -2, -1, 0, 1, 2, 3].map((z) => {
    const words = String(z).replace("-", "−");
    return `<text class="vae-number" x="${50 + (50 * z) / 3.2}%" y="196">${words}</text>`;
  });
  const plot = make("div", { className: "vae-curves", role: "img" });
  const box = `viewBox="-3.2 0 6.4 ${HIGHEST}" preserveAspectRatio="none"`;
  const upwards = say("density");
  plot.innerHTML = `<svg width="100%" height="200" aria-hidden="true">
    <svg height="180" ${box}>${paths.join("")}</svg>
    <text y="12">${upwards}</text>${ticks.join("")}
    <text class="vae-number" x="99%" y="174">z</text></svg>`;
  const legend = make("p", { className: "vae-curves" });
  const named = ([name, words]) => {
    const sample = `<svg width="30" height="8" aria-hidden="true">${line(name, "M0 4H30")}</svg>`;
    return `<span>${sample} ${words}</span> `;
  };
  legend.innerHTML = curves.map(named).join("");

  const scale = ["0", LONGEST / 2, `${LONGEST}+`].map((words) => make("small", {}, words));
  const rows = ["recon", "KL", "−ELBO", "−log p(x)", say("gap")].map((name) => {
    const [bar, number] = [make("div", {}), make(name === "−ELBO" ? "output" : "span")];
    return { bar, number, parts: [name, make("div", { className: "vae-track" }, bar), number] };
  });
  const costs = make("div", { className: "vae-costs" }, ...rows.flatMap(({ parts }) => parts));
  costs.append("nats", make("div", { className: "vae-scale" }, ...scale));
  costs.style.setProperty("--mark", `${(100 * surprise) / LONGEST}%`);

  const sliders = [
    range({ name: say("μ of q"), low: -1, high: 2, step: 0.01 }, (mu) => draw({ ...at, mu })),
    range({ name: say("σ of q"), low: 0.05, high: 1, step: 0.01 }, (sigma) => draw({ ...at, sigma })),
  ];
  function draw(to) {
    at = to;
    const { mu, sigma } = to;
    const recon = average((z) => -Math.log(likelihood(z)), mu, sigma);
    const kl = (mu * mu + sigma * sigma - 1) / 2 - Math.log(sigma);
    const [total, floor] = [recon + kl, surprise];
    // Where each bar starts and ends.
    [[0, recon], [recon, total], [0, total], [0, floor], [floor, total]].forEach(([start, end], i) => {
      rows[i].bar.style.marginLeft = `${(100 * start) / LONGEST}%`;
      rows[i].bar.style.width = `${(100 * (end - start)) / LONGEST}%`;
      rows[i].number.textContent = fixed(end - start, 2);
    });
    plot.querySelector(".vae-of-q").setAttribute("d", curve((z) => density(z, mu, sigma)));
    const shown = { mu: fixed(mu, 2), sigma: fixed(sigma, 2) };
    plot.ariaLabel = say("prior, posterior, and q with μ = {mu}, σ = {sigma}", shown);
  }
  draw(at);
  [at.mu, at.sigma].forEach((value, i) => sliders[i].set(value));
  const below = make("div", { className: "vae-sliders" }, ...sliders.flatMap(({ parts }) => parts));
  return { elements: [plot, legend, below, costs] };
}
