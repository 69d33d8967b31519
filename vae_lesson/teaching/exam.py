"""Lesson 02's exam: a VAE that the learner wrote from a blank page, tried as a whole."""

import math
from collections.abc import Callable

import torch
from torch import nn

from vae_lesson import evaluate
from vae_lesson.adapter import AdaptedVAE, adapt
from vae_lesson.clinic.inspector import inspect_vae
from vae_lesson.data import Images, to_float
from vae_lesson.teaching.checks.verdict import Verdict
from vae_lesson.teaching.lesson import BANDS
from vae_lesson.words import _

N_INSPECTED = 64


def exam(model: nn.Module, images: Images, loss: Callable) -> Verdict:
    """Say what is right and what is not of a trained VAE and its loss; it never raises.

    model: `encode(x)` gives (mu, log_var), `decode(z)` logits or probabilities, and `model(x)`
    (output, mu, log_var), its draw of z within; x is flat or shaped. loss(output, x, mu, log_var)
    gives one number, or one an image.

    Three questions: do the halves keep the contract of `adapt`; is the −ELBO on the test images,
    computed from the two halves by the package's own loss, in the band of the article's network or
    below; does the inspector find fault with draw and loss. Below the band is right as well: what
    is measured bounds −log p(x) whatever the network, if `decode` sees the code alone.
    """
    if model is ... or loss is ...:
        return Verdict("Not yet: write the VAE, and leave `my_vae` and `my_loss`.")
    try:
        vae = _adapted(model, images)
        kept = _("encode and decode: a code of {n} numbers").format(n=vae.latent_size)
        good, bad = [kept], []
        for right, said in (_measured(vae, images), _inspected(vae, images, loss)):
            (good if right else bad).append(said)
    except Exception as error:  # whatever a learner's code raises, the lesson goes on
        return Verdict("Not yet: {error}", error=str(error).removesuffix(".") + ".")
    lines = [f"✓ {said}" for said in good] + [f"✗ {said}" for said in bad]
    n = len(bad)
    first = Verdict("Not yet: {n} of 3 wrong.", n=n) if bad else _("✓ You have written a VAE.")
    said = "\n".join([first, *lines])
    return Verdict(said)


def _adapted(model: nn.Module, images: Images) -> AdaptedVAE:
    """Return the model as a `VAE`, its output read as what it is."""
    try:
        return adapt(model, images.shape)
    except ValueError as error:
        if "say output='means'" not in str(error):
            raise
        return adapt(model, images.shape, output="means")


def _measured(vae: AdaptedVAE, images: Images) -> tuple[bool, str]:
    """Return whether the −ELBO is as low as it should be, and what it is."""
    x = to_float(images.test[:N_INSPECTED])
    with torch.no_grad():
        z = vae.encode(x)[0]
        before = vae.decode(z)
        vae.encode(x.flip(0))
        if not torch.equal(before, vae.decode(z)):
            return False, _("decode gives something else for the same code after another image")
    recon, kl, neg_elbo = evaluate.mean_terms(vae, images.test)
    said = _("−ELBO {neg_elbo:.2f} nats = recon {recon:.2f} + KL {kl:.2f}")
    said = said.format(neg_elbo=neg_elbo, recon=recon, kl=kl)
    if images.name not in BANDS:
        no_band = _("{terms}; '{dataset}' has no measured band to compare with")
        return True, no_band.format(terms=said, dataset=images.name)
    low, high = BANDS[images.name]
    band = {"terms": said, "low": low, "high": high}
    if low <= neg_elbo <= high:
        return True, _("{terms}: inside the band {low} to {high}").format(**band)
    if neg_elbo < low:
        return True, _("{terms}: below the band {low} to {high}").format(**band)
    looks = _("more epochs may do, or something is wrong")
    if recon > 0.9 * math.log(2) * x.shape[1]:  # a fair coin for each pixel
        looks = _("it looks untrained")
    elif kl < 1:
        looks = _(
            "the code says nothing, as where the KL weighs too much, or no gradient of recon "
            "reaches the encoder"
        )
    elif kl > recon:
        looks = _(
            "the KL hardly counts, as where it has no weight, or none of its gradient arrives"
        )
    over = _("{terms}: over the band {low} to {high}; {looks}")
    return False, over.format(looks=looks, **band)


def _inspected(vae: AdaptedVAE, images: Images, loss: Callable) -> tuple[bool, str]:
    """Return whether the inspector finds nothing in model, draw and loss, and what it finds."""
    x = to_float(images.test[:N_INSPECTED])
    try:
        report = inspect_vae(vae.model, loss, x)
    except Exception:  # model or loss may want shaped images
        report = inspect_vae(vae.model, loss, x.unflatten(1, vae.takes))
    if report:
        return False, _("; ").join(map(str, report))
    said = [_("draw and loss: the inspector found nothing")]
    for what, why in report.not_examined.items():
        said.append(_("not examined: {what}, {why}").format(what=_(what), why=why))
    return True, _("; ").join(said)
