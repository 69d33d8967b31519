"""Reconstruction, KL and the ELBO: functions of tensors, and of a model; one value an image.

Every loss sums over pixels and over latent dimensions and returns shape `(B,)` in **nats per
image**; the caller takes the mean over the batch. Taking a mean over pixels in one term and a sum
over latent dimensions in the other changes beta by a factor of 784 without saying so, and is the
most common mistake in public VAE code. Shapes that differ are refused with a ValueError.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vae_lesson.arguments import check_same_shape, shapes_of
from vae_lesson.models import VAE, Autoencoder


def bernoulli_nll(x_logits: Tensor, x: Tensor) -> Tensor:
    """Return -log p(x|z) for Bernoulli pixels: -sum_i [x_i log p_i + (1 - x_i) log(1 - p_i)].

    Here p = sigmoid(x_logits). Working from logits stays finite where log(sigmoid) would not.
    For grey x in (0, 1) this is a cross-entropy: its least value is the pixels' own entropy, not 0.

    Shapes: x_logits and x `(B, ...)` -> `(B,)`. Units: nats per image.
    Source: Kingma & Welling 2014, appendix C.1.
    """
    check_same_shape(x_logits=x_logits, x=x)
    return per_image(F.binary_cross_entropy_with_logits(x_logits, x, reduction="none"))


def squared_error(x_hat: Tensor, x: Tensor) -> Tensor:
    """Return the squared distance of two images, sum_i (x_i - x̂_i)².

    It is a Gaussian's -log p(x|z) with variance ½, less a constant; by itself it has no unit of
    information.

    Shapes: x_hat and x `(B, ...)` -> `(B,)`. Units: squared pixel intensity per image.
    """
    check_same_shape(x_hat=x_hat, x=x)
    return per_image((x - x_hat).square())


def per_image(values: Tensor) -> Tensor:
    """Return the sum over all but the first dimension: `(B, ...)` -> `(B,)`."""
    return values.flatten(start_dim=1).sum(dim=1)


def kl_per_dimension(mu: Tensor, log_var: Tensor) -> Tensor:
    """Return KL(N(mu_j, σ_j²) ‖ N(0, 1)) = ½ (mu_j² + σ_j² - 1 - log σ_j²) for each dimension j.

    Shapes: mu and log_var `(B, latent_size)` -> `(B, latent_size)`. Units: nats.
    Source: Kingma & Welling 2014, appendix B.
    """
    check_same_shape(mu=mu, log_var=log_var)
    # expm1(log_var) is σ² - 1 without the rounding that would make a small KL negative.
    return 0.5 * (mu.square() + torch.expm1(log_var) - log_var)


def kl_standard_normal(mu: Tensor, log_var: Tensor) -> Tensor:
    """Return KL(q(z|x) ‖ N(0, I)) = ½ sum_j (mu_j² + σ_j² - 1 - log σ_j²), in closed form.

    Shapes: mu and log_var `(B, latent_size)` -> `(B,)`. Units: nats per image.
    Source: Kingma & Welling 2014, eq. 10 and appendix B.
    """
    return kl_per_dimension(mu, log_var).sum(dim=1)


def free_bits(kl_j: Tensor, least: float) -> Tensor:
    """Return sum_j max(least, mean over the batch of KL_j): up to `least` nats a dimension is free.

    A dimension under the limit is not pushed further towards the prior: a cure for collapse.

    Shapes: kl_j `(B, latent_size)` (see `kl_per_dimension`) -> `(B,)`, the same for every image.
    Units: nats per image.
    Source: Kingma et al. 2016, eq. 15.
    """
    return kl_j.mean(dim=0).clamp_min(least).sum().expand(len(kl_j))


def objective(terms: dict[str, Tensor], beta: float | Tensor = 1.0) -> Tensor:
    """Return the sum of the terms, the one that is called kl weighed by beta.

    Of {"recon": ..., "kl": ...} this is recon + beta · kl; with beta = 1 it is -ELBO, which bounds
    -log p(x) from above.

    Shapes: each term `(B,)` -> `(B,)`. Units: nats per image.
    Source: Kingma & Welling 2014, eq. 7; beta: Higgins et al. 2017, eq. 4.
    """
    check_same_shape(**terms)
    return sum(beta * value if name == "kl" else value for name, value in terms.items())


def check_terms(named: object, n: int) -> None:
    """Raise ValueError unless `named` has one value an image by each name, {name: `(n,)`}: a mean
    over the batch, say, would train to a plausible number of the wrong thing."""
    given = isinstance(named, dict) and len(named) > 0
    got = {name: shapes_of(values) for name, values in named.items()} if given else shapes_of(named)
    if not given or any(shape != (n,) for shape in got.values()):
        raise ValueError(
            f"terms must return {{name: ({n},)}} for {n} images, one value an image, got {got}"
        )


# --- what a model is trained on -------------------------------------------------------------------

# (model, *batch, generator=...) -> {name: (B,)}
Terms = Callable[..., dict[str, Tensor]]


def elbo_terms(
    model: VAE, x: Tensor, generator: torch.Generator | None = None, nll: Callable = bernoulli_nll
) -> dict[str, Tensor]:
    """Return the two terms of the ELBO, with one sample of z an image.

    recon = -log p(x|z), by nll(output, x) -> `(B,)`, and kl = KL(q(z|x) ‖ N(0, I)), in nats per
    image. For another likelihood: `functools.partial(elbo_terms, nll=...)`.
    Source: Kingma & Welling 2014, eq. 10.
    """
    output, mu, log_var = outputs(model, x, generator)
    return {"recon": nll(output, x), "kl": kl_standard_normal(mu, log_var)}


def outputs(model: nn.Module, x: Tensor, generator: torch.Generator | None = None):
    """Return (output, mu, log_var) = model(x), its noise drawn from the generator.

    Raises: ValueError if the model's `forward` takes no generator.
    """
    try:
        return model(x, generator=generator)
    except TypeError as error:
        if "unexpected keyword argument 'generator'" not in str(error):
            raise
        raise ValueError(
            f"the forward of {type(model).__name__} takes no generator to draw its noise from: "
            "write forward(self, x, eps=None, generator=None), and give both to "
            "models.reparameterize; or train adapter.adapt(model, shape), which needs no forward"
        ) from error


def squared_error_terms(
    model: Autoencoder, x: Tensor, generator: torch.Generator | None = None
) -> dict[str, Tensor]:
    """Return an autoencoder's squared error `(B,)`: it has no second term."""
    x_hat, _ = model(x)
    return {"squared error": squared_error(x_hat, x)}


def default_terms(model: nn.Module) -> Terms:
    """Return what a model of this kind is trained on if nothing else is asked for."""
    if isinstance(model, VAE):
        return elbo_terms
    if isinstance(model, Autoencoder):
        return squared_error_terms
    raise ValueError(
        f"what a {type(model).__name__} is trained on is not known here: give terms, a function "
        "(model, x, generator=...) -> {name: (B,)}; or, if it is a VAE of your own, train "
        "adapter.adapt(model, shape)"
    )
