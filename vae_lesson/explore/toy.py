"""The toy of lesson 02: one number z, one observed x, and a normal q to be fitted by hand."""

import matplotlib.figure
import numpy as np
import torch
from torch.distributions import Normal

from vae_lesson.explore.explorer import Figure
from vae_lesson.explore.pictures import drawn
from vae_lesson.fonts import _
from vae_lesson.words import N_

BLUE, ORANGE = "#4a90d9", "#d55e00"  # as in explorer.css
PRIOR = Normal(torch.tensor(0.0).double(), 1.0)


def log_likelihood(z: torch.Tensor) -> torch.Tensor:
    """Return log p(x|z) of the x that was seen, 1.2: x = 2 tanh 2z + noise of σ = 0.5."""
    return Normal(2 * torch.tanh(2 * z), 0.5).log_prob(torch.tensor(1.2))


def toy_terms(mu: float, sigma: float) -> dict[str, float]:
    """Return the nats of q = N(mu, sigma²), of x, and their gap, KL(q ‖ p(z|x))."""
    # In standard deviations: it reaches as far as each q does.
    t = torch.linspace(-6, 6, 2001, dtype=torch.float64)
    weights = PRIOR.log_prob(t).softmax(dim=0)
    recon = -(weights @ log_likelihood(mu + sigma * t)).item()
    kl = (mu**2 + sigma**2 - 1) / 2 - float(np.log(sigma))
    surprise = -(weights @ log_likelihood(t).exp()).log().item()
    terms = {"recon": recon, "KL": kl, "−ELBO": recon + kl, "−log p(x)": surprise}
    return terms | {N_("gap"): recon + kl - surprise}


class Toy(Figure):
    """Curves of the prior, the posterior and q, and bars of what q costs."""

    _title = N_("Toy")

    def _still(self) -> np.ndarray:
        mu, sigma = self.state["start"].values()
        terms, z = toy_terms(mu, sigma), torch.linspace(-3, 3, 601)
        log_prior = PRIOR.log_prob(z)
        posterior = (log_prior + log_likelihood(z) + terms["−log p(x)"]).exp()
        q = Normal(mu, sigma).log_prob(z).exp()
        figure = matplotlib.figure.Figure(figsize=(6.8, 4.6), layout="constrained")
        above, under = figure.subplots(2, height_ratios=[3, 2])
        above.plot(z, q, color=BLUE, lw=3, label=f"q, μ = {mu:g}, σ = {sigma:g}")
        above.plot(z, log_prior.exp(), color="black", lw=1, label=_("prior p(z) = N(0, 1)"))
        label = _("posterior p(z|x), x = {x}").format(x=1.2)
        above.plot(z, posterior, "--", color=ORANGE, label=label)
        above.set(xlabel="z", ylabel=_("density"), xlim=(-3, 3), ylim=(0, 2))
        above.legend(fontsize=8)
        starts = [0, terms["recon"], 0, 0, terms["−log p(x)"]]
        bars = under.barh([*map(_, terms)], [*terms.values()], left=starts, color=BLUE)
        under.bar_label(bars, [f" {value:.2f}" for value in terms.values()])
        under.axvline(terms["−log p(x)"], color=ORANGE, linestyle="--")
        under.set(xlabel="nats", xlim=(0, 10))
        under.invert_yaxis()
        return drawn(figure)

    def _words(self) -> str:
        mu, sigma = self.state["start"].values()
        numbers = ", ".join(f"{_(name)} {x:.2f}" for name, x in toy_terms(mu, sigma).items())
        says = _("prior, posterior, and q with μ = {mu:g}, σ = {sigma:g}; in nats: {numbers}")
        return says.format(mu=mu, sigma=sigma, numbers=numbers)


def toy() -> Toy:
    """Return lesson 02's toy, with sliders for μ and σ of q(z|x) and bars of what it costs.

    The story: z ~ N(0, 1), x = 2 tanh 2z + noise of σ = 0.5, and x = 1.2 was seen. It starts with
    the prior for q.
    """
    return Toy(kind="toy", start={"mu": 0.0, "sigma": 1.0})
