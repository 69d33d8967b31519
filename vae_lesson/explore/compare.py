"""The same sliders, or the same click, for several models at once: feel how they differ."""

from torch import Tensor, nn

from vae_lesson import evaluate
from vae_lesson.data import Images
from vae_lesson.explore.decoder import Decoder
from vae_lesson.explore.explorer import Explorer
from vae_lesson.explore.maps import MapExplorer
from vae_lesson.explore.sliders import dimension_sliders
from vae_lesson.models import VAE


def compare(models: dict[str, nn.Module], images: Images) -> Explorer:
    """Return one explorer for several models: a map if their codes have 2 numbers, else sliders.

    A VAE's codes are counted in units of its prior, N(0, 1); what encodes to (mu, log_var) is one.
    An autoencoder has none, so each of its dimensions is counted in standard deviations from the
    mean of its test codes, and a random draw is one from the normal distribution fitted to them
    (dimension by dimension). Its map says so, and is without the circles of the prior.

    Raises: ValueError for fewer than two models, or codes of different sizes.
    """
    sizes = {name: getattr(model, "latent_size", None) for name, model in models.items()}
    if len(models) < 2 or len(set(sizes.values())) > 1 or None in sizes.values():
        raise ValueError(f"compare needs two models with codes of one size, got {sizes}")
    decoders, codes = {name: Decoder(model) for name, model in models.items()}, {}
    for name, decoder in decoders.items():
        codes[name], is_vae = decoder.encode(images.test)
        if not is_vae:
            codes[name] = _in_own_units(decoder, codes[name])
    if set(sizes.values()) == {2}:
        return MapExplorer(decoders, codes, images)
    vaes = [model for model in models.values() if isinstance(model, VAE)]
    kl = evaluate.mean_kl_per_dimension(vaes[0], images.test) if vaes else None
    return dimension_sliders(decoders, kl)


def _in_own_units(decoder: Decoder, codes: Tensor) -> Tensor:
    """Make a decoder count codes in standard deviations from the mean of these; return them so."""
    centre, decode = codes.mean(dim=0), decoder.decode
    spread = codes.std(dim=0).clamp_min(1e-6)  # some may never vary
    decoder.units, decoder.decode = (centre, spread), lambda u: decode(centre + spread * u)
    return (codes - centre) / spread
