"""The checks on an autoencoder: its error, its two networks, and the training loop."""

from collections.abc import Callable

from torch import Tensor, nn

from vae_lesson import losses
from vae_lesson.models import Autoencoder
from vae_lesson.teaching.checks.training import compare_training, descend
from vae_lesson.teaching.checks.verdict import Verdict, attempt, compare, draw, ours, seeded
from vae_lesson.words import _


@ours(losses.squared_error)
def squared_error(answer: Callable[[Tensor, Tensor], Tensor]) -> Verdict:
    """Check answer(x_hat, x) -> `(B,)`, the squared error summed over pixels."""
    x_hat, x = ((v / 20).requires_grad_() for v in draw((3, 784), (3, 784)))
    square = (x - x_hat).square()
    right = square.sum(dim=1)
    whole = [square.sum(), square.mean(), right.mean()]  # the last two: F.mse_loss, and a batch's
    mistakes = {
        "the mean over pixels instead of the sum": square.mean(dim=1),
        "one number for the whole batch: sum over pixels only, and keep one value an image": whole,
        "the sum over images instead of over pixels": square.sum(dim=0),
        "the distance: leave out the square root": right.sqrt(),
        "the squares before the sum over pixels": square,
    }
    return compare(answer, (x_hat, x), right, mistakes, learn={"x_hat": x_hat})


def our_networks(latent_size: int, hidden_size: int) -> tuple[nn.Module, nn.Module]:
    """Return the package's (encoder, decoder), the sigmoid as the decoder's last layer."""
    model = Autoencoder(latent_size, hidden_size)
    return model.encoder, nn.Sequential(*model.decoder, nn.Sigmoid())


@ours(our_networks)
def networks(answer: Callable[[int, int], tuple[nn.Module, nn.Module]]) -> Verdict:
    """Check answer(latent_size, hidden_size) -> (encoder, decoder), layer by layer."""
    with seeded():
        pair, wanted = attempt(answer, 3, 5), our_networks(3, 5)
    if isinstance(pair, Verdict):
        return pair
    try:
        encoder, decoder = map(_layers, pair)
    except (TypeError, ValueError):
        return Verdict("Not yet: return two nn.Sequential, the encoder and the decoder.")
    for name, got, network in zip((_("encoder"), _("decoder")), (encoder, decoder), wanted):
        right = _layers(network)
        if got == right:
            continue
        if got in ([*right, "ReLU()"], [*right, "Sigmoid()"]):
            says = "Not yet: the {network} ends in {layer}: a code may be any number."
            return Verdict(says, network=name, layer=got[-1])
        if network is wanted[1] and got == right[:-1]:
            return Verdict("Not yet: the decoder's end lacks the Sigmoid: pixels are in [0, 1].")
        if [layer for layer in got if layer != "ReLU()"] == [right[0], *right[2:]]:
            says = "Not yet: one ReLU in the {network}, between its two Linear layers."
            return Verdict(says, network=name)
        got, right = ", ".join(got), ", ".join(right)
        says = "Not yet: the {network} is {got}; wanted {wanted}."
        return Verdict(says, network=name, got=got, wanted=right)
    return Verdict("✓ Correct.")


def _layers(network: nn.Sequential) -> list[str]:
    return [repr(layer).replace("inplace=True", "") for layer in network]


def our_training(encoder, decoder, images, epochs, batch_size, lr, generator, **mistake) -> None:
    """Train an autoencoder's two networks: what `fit` does, without what surrounds it."""

    def loss(x: Tensor) -> Tensor:
        return losses.squared_error(decoder(encoder(x)), x)

    weights = [*encoder.parameters(), *decoder.parameters()]
    descend(weights, loss, images, epochs, batch_size, lr, generator, **mistake)


@ours(our_training)
def training(answer: Callable) -> Verdict:
    """Check answer(encoder, decoder, images, epochs, batch_size, lr, generator), which trains."""

    def make() -> tuple[nn.Module, nn.Module]:
        return nn.Sequential(nn.Linear(784, 2)), nn.Sequential(nn.Linear(2, 784), nn.Sigmoid())

    scales = {"the mean over pixels: sum them": {"reduce": lambda errors: errors.mean() / 784}}
    return compare_training(answer, our_training, make, {}, scales)
