"""The same sliders, or the same click, for several models at once: feel how they differ."""

from torch import Tensor, nn

from vae_lesson import evaluate
from vae_lesson.data import Images
from vae_lesson.explore.base import Decoder, Explorer
from vae_lesson.explore.maps import plane_maps
from vae_lesson.explore.sliders import dimension_sliders
from vae_lesson.models import VAE


def compare(
    models: dict[str, nn.Module],
    images: Images,
    z: Tensor | None = None,
    own_scale: bool = True,
) -> Explorer:
    """Return one explorer for several models: a map if their codes have 2 numbers, else sliders.

    own_scale: a VAE's codes are counted in units of its prior, N(0, 1). An autoencoder has none, so
    each of its dimensions is counted in standard deviations from the mean of its test codes, and a
    random draw is one from the normal distribution fitted to them (dimension by dimension). With
    False every decoder gets the very same numbers.

    Raises: ValueError for fewer than two models, or codes of different sizes.
    """
    sizes = {name: model.latent_size for name, model in models.items()}
    if len(models) < 2 or len(set(sizes.values())) > 1:
        raise ValueError(f"compare needs two models with codes of one size, got {sizes}")
    codes = {name: evaluate.codes(model, images.test) for name, model in models.items()}
    decoders = {name: Decoder.of(model) for name, model in models.items()}
    for name, model in models.items():
        if own_scale and not isinstance(model, VAE):
            centre = codes[name].mean(dim=0)
            spread = codes[name].std(dim=0).clamp_min(1e-6)  # some may never vary
            decoders[name] = decoders[name].in_units(centre, spread)
            codes[name] = (codes[name] - centre) / spread
    if set(sizes.values()) == {2}:
        return plane_maps(decoders, codes, images, z)
    vaes = [model for model in models.values() if isinstance(model, VAE)]
    kl = evaluate.mean_kl_per_dimension(vaes[0], images.test) if vaes else None
    return dimension_sliders(decoders, z, kl)
