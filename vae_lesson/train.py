"""One plain training loop, `fit`, its history, and saving and loading a trained model."""

import math
import os
import time
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from vae_lesson import losses
from vae_lesson.data import BINARISATIONS, batches, to_float
from vae_lesson.models import VAE, Autoencoder

# What a model is trained on: (model, x, generator) -> recon (B,), kl (B,)
Terms = Callable[[nn.Module, Tensor, torch.Generator | None], tuple[Tensor, Tensor]]


def elbo_terms(model: VAE, x: Tensor, generator: torch.Generator | None = None):
    """Return the two terms of the ELBO for Bernoulli pixels, with one sample of z an image.

    recon = -log p(x|z) and kl = KL(q(z|x) ‖ N(0, I)), each `(B,)`, in nats per image.
    Source: Kingma & Welling 2014, eq. 10.
    """
    x_logits, mu, log_var = model(x, generator=generator)
    return losses.bernoulli_nll(x_logits, x), losses.kl_standard_normal(mu, log_var)


def squared_error_terms(model: Autoencoder, x: Tensor, generator: torch.Generator | None = None):
    """Return an autoencoder's squared error `(B,)`, and zeros: it has no second term."""
    x_hat, _ = model(x)
    recon = losses.squared_error(x_hat, x)
    return recon, torch.zeros_like(recon)


def terms_of(model: nn.Module) -> Terms:
    """Return the terms that a model of this kind is trained on by default."""
    return elbo_terms if isinstance(model, VAE) else squared_error_terms


@dataclass
class History:
    """What happened in a training, one entry an epoch; nats per image, but for an autoencoder.

    `recon` and `kl` are means over the epoch's training images while the model changed; `test_*`
    are means over the test images at the epoch's end, and empty if there were none. `seconds` is
    the training time since the start, evaluation left out. `stopped` says where an interrupt came.
    """

    recon: list[float] = field(default_factory=list)
    kl: list[float] = field(default_factory=list)
    test_recon: list[float] = field(default_factory=list)
    test_kl: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    stopped: str | None = None

    @property
    def neg_elbo(self) -> list[float]:
        """recon + kl of each epoch, with beta = 1 whatever beta was trained with."""
        return [recon + kl for recon, kl in zip(self.recon, self.kl)]

    @property
    def test_neg_elbo(self) -> list[float]:
        """test_recon + test_kl of each epoch."""
        return [recon + kl for recon, kl in zip(self.test_recon, self.test_kl)]

    def __len__(self) -> int:
        return len(self.recon)

    def append(self, recon: float, kl: float, seconds: float, test: tuple | None) -> None:
        """Add a whole epoch; `test` is (recon, kl) over the test images."""
        self.recon.append(recon)
        self.kl.append(kl)
        self.seconds.append(seconds)
        if test is not None:
            self.test_recon.append(test[0])
            self.test_kl.append(test[1])

    def plot(self):
        """Draw the curves; see `plots.history`."""
        from vae_lesson import plots  # here: training needs no matplotlib

        return plots.history(self)


class Diverged(FloatingPointError):
    """A term of the loss became NaN or infinite. `history` holds the epochs before it."""

    def __init__(self, message: str, history: History) -> None:
        super().__init__(message)
        self.history = history


def pick_device(device: str | torch.device | None = None) -> torch.device:
    """Return the device asked for; without one ("auto" or None) CUDA, else Apple's MPS, else CPU.

    Raises: ValueError if that device is not there, with those that are.
    """
    there = ["cpu"]
    if torch.backends.mps.is_available():
        there.insert(0, "mps")
    if torch.cuda.is_available():
        there[:0] = ["cuda", *(f"cuda:{i}" for i in range(torch.cuda.device_count()))]
    if device in (None, "auto"):
        device = there[0]
    if str(device) not in there:
        raise ValueError(
            f"device {str(device)!r} is not there: choose one of auto, {', '.join(there)}"
        )
    return torch.device(device)


def fit(
    model: nn.Module,
    images: Tensor,
    *,
    epochs: int = 10,
    batch_size: int = 128,
    lr: float = 1e-3,
    schedule: str = "constant",
    beta: float = 1.0,
    binarisation: str = "grey",
    terms: Terms | None = None,
    test_images: Tensor | None = None,
    seed: int = 0,
    device: str | torch.device | None = None,
    progress: bool = True,
) -> History:
    """Train `model` in place by Adam on the batch mean of recon + beta · kl; return its history.

    images, test_images: uint8 `(N, ...)`, moved to `device` once (see `pick_device`).
    schedule: "constant", or "one-cycle" with `lr` as its peak (Smith & Topin 2018).
    terms: what to minimise; by default the ELBO for a VAE, squared error for an autoencoder.
    seed: fixes the order of the images and the noise; the model's first weights are the caller's.

    An interrupt (Ctrl-C, the stop button) ends the training, keeps the model and the history so
    far, and says where it stopped.

    Raises: ValueError for a bad argument, before any training; Diverged at the first NaN or inf.
    """
    _check_arguments(images, test_images, epochs, batch_size, lr, schedule, beta, binarisation)
    device = pick_device(device)
    terms = terms or terms_of(model)
    model.to(device).train()
    images = images.to(device)
    if test_images is not None:
        test_images = test_images.to(device)
    generator = torch.Generator(device).manual_seed(seed)
    optimizer = torch.optim.Adam(model.parameters(), lr=lr, fused=device.type != "mps")
    steps = -(-len(images) // batch_size)  # an epoch's, the last batch may be smaller
    scheduler = None
    if schedule == "one-cycle" and epochs:
        scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, lr, total_steps=epochs * steps)
    # Reading a number from a GPU waits for it, so there it is done every 50 steps.
    look_every = 1 if device.type == "cpu" else 50

    history = History()
    seconds = 0.0
    epoch = step = 0
    bar = tqdm(total=epochs * steps, desc="epoch 1", disable=not progress, unit="step")
    try:
        for epoch in range(1, epochs + 1):
            bar.set_description(f"epoch {epoch}/{epochs}", refresh=False)
            sums = torch.zeros((steps, 2), device=device)  # of recon and kl, a row a step
            step = looked = 0
            start = time.perf_counter()
            for step, x in enumerate(batches(images, batch_size, generator, binarisation), 1):
                recon, kl = terms(model, x, generator)
                sums[step - 1, 0], sums[step - 1, 1] = recon.detach().sum(), kl.detach().sum()
                if step % look_every == 0 or step == steps:
                    _check_finite(sums[looked:step], epoch, looked, history, lr)
                    if bar.update(step - looked):  # the bar was redrawn: tell it where we are
                        bar.set_postfix_str(_postfix(*(sums[step - 1] / len(x)).tolist()), False)
                    looked = step
                optimizer.zero_grad(set_to_none=True)
                losses.neg_elbo(recon, kl, beta).mean().backward()
                optimizer.step()
                if scheduler is not None:
                    scheduler.step()
            recon_mean, kl_mean = (sums.sum(dim=0) / len(images)).tolist()  # waits for the device
            seconds += time.perf_counter() - start
            test = None
            if test_images is not None:
                model.eval()
                test = mean_terms(model, test_images, terms, seed, binarisation)
                model.train()
                _check_finite(torch.tensor([test]), epoch, None, history, lr)
                bar.set_postfix_str("test " + _postfix(*test), refresh=False)
            history.append(recon_mean, kl_mean, seconds, test)
        if not all(parameter.isfinite().all() for parameter in model.parameters()):
            raise Diverged("the weights are not finite after the last step: lower lr", history)
    except KeyboardInterrupt:
        history.stopped = f"interrupted in epoch {epoch} of {epochs}, step {step} of {steps}"
        print(f"Training {history.stopped}: the model is kept. Whole epochs: {len(history)}.")
    finally:
        bar.close()
        model.eval()
    return history


@torch.no_grad()
def terms_per_image(
    model: nn.Module,
    images: Tensor,
    terms: Terms | None = None,
    seed: int = 0,
    binarisation: str = "grey",
) -> tuple[Tensor, Tensor]:
    """Return recon and kl of each of `images` (uint8), each `(N,)`, with the noise of this seed."""
    terms = terms or terms_of(model)
    device = next(model.parameters()).device
    generator = torch.Generator(device).manual_seed(seed)
    parts = batches(images.to(device), 1000, generator, binarisation, shuffle=False)
    recon, kl = zip(*(terms(model, x, generator) for x in parts))
    return torch.cat(recon), torch.cat(kl)


def mean_terms(model, images, terms=None, seed=0, binarisation="grey") -> tuple[float, float]:
    """Return the means of recon and kl over `images`: see `terms_per_image`."""
    recon, kl = terms_per_image(model, images, terms, seed, binarisation)
    return recon.mean().item(), kl.mean().item()


def fit_classifier(images: Tensor, labels: Tensor, epochs: int = 3, seed: int = 0) -> nn.Sequential:
    """Train a small classifier 784-128-10 on uint8 images: the instrument of `evaluate.generation`.

    Reads MNIST's test digits with about 96% accuracy after three seconds. Its weights come from
    `seed` alone, and the global random state is left as it was.
    """
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # the weights are made on the CPU
        classifier = nn.Sequential(
            nn.Linear(images[0].numel(), 128), nn.ReLU(), nn.Linear(128, int(labels.max()) + 1)
        ).to(images.device)
    generator = torch.Generator(images.device).manual_seed(seed)
    optimizer = torch.optim.Adam(classifier.parameters(), lr=1e-3)
    for _ in range(epochs):
        order = torch.randperm(len(images), generator=generator, device=images.device)
        for index in order.split(128):
            logits = classifier(to_float(images[index]))
            loss = nn.functional.cross_entropy(logits, labels[index])
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
    return classifier.eval()


# --- saving and loading ---------------------------------------------------------------------------

KINDS = {"VAE": VAE, "Autoencoder": Autoencoder}


def results_path(filename: str) -> Path:
    """Return where a lesson's result goes: in `$VAE_LESSON_RESULTS`, else `results/` here."""
    folder = os.environ.get("VAE_LESSON_RESULTS") or Path(__file__).parents[1] / "results"
    Path(folder).mkdir(parents=True, exist_ok=True)
    return Path(folder) / filename


def save_model(model: nn.Module, path: str | Path, **info: str | int | float) -> None:
    """Save a model's kind, configuration and weights, and `info` (say, dataset="mnist").

    The file gets its name only when it is whole: an interrupt leaves the old one.
    """
    path = Path(path)
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    content = {
        "kind": type(model).__name__,
        "config": model.config,
        "state": model.state_dict(),
        # NumPy's numbers would make a file that weights_only refuses to load.
        "info": {k: v.item() if hasattr(v, "item") else v for k, v in info.items()},
    }
    try:
        torch.save(content, part)
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def load_model(
    path: str | Path, device: str | torch.device | None = None
) -> tuple[nn.Module, dict]:
    """Return (model, info) from a file of `save_model`, on `device` (see `pick_device`).

    No code in the file is run.

    Raises: FileNotFoundError; ValueError for a file that is damaged or of another shape.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no model at {path}")
    device = pick_device(device)
    try:
        with zipfile.ZipFile(path) as archive:  # torch.load itself does not look at checksums
            if broken := archive.testzip():
                raise ValueError(f"wrong checksum of {broken}")
        content = torch.load(path, map_location="cpu", weights_only=True)
        config, state, info = content["config"], content["state"], content["info"]
        model = KINDS[content["kind"]](**config)
    except Exception as error:  # a damaged file can make the readers raise anything
        raise ValueError(
            f"{path} is damaged or no model of this course: remove it and train again "
            f"({type(error).__name__}: {error})"
        ) from error
    try:
        model.load_state_dict(state)
    except (RuntimeError, TypeError, AttributeError) as error:
        raise ValueError(
            f"the weights in {path} do not fit its configuration {config}: "
            "remove it and train again"
        ) from error
    return model.to(device).eval(), info


# --- small parts ----------------------------------------------------------------------------------


def _check_arguments(
    images, test_images, epochs, batch_size, lr, schedule, beta, binarisation
) -> None:
    if not isinstance(epochs, int) or epochs < 0:
        raise ValueError(f"epochs must be a whole number, 0 or more, got {epochs}")
    if not isinstance(batch_size, int) or batch_size < 1:
        raise ValueError(f"batch_size must be a whole number, 1 or more, got {batch_size}")
    if not 0 < lr < float("inf"):
        raise ValueError(f"lr must be over 0 and finite, got {lr}")
    if not math.isfinite(beta):
        raise ValueError(f"beta must be finite, got {beta}")
    if schedule not in ("constant", "one-cycle"):
        raise ValueError(f"schedule must be 'constant' or 'one-cycle', got {schedule!r}")
    for name, some in [("images", images), ("test_images", test_images)]:
        if some is not None and (some.dtype != torch.uint8 or len(some) == 0):
            raise ValueError(
                f"{name} must be at least one uint8 image, got {tuple(some.shape)} of {some.dtype}"
            )
    if test_images is not None and test_images[0].numel() != images[0].numel():
        raise ValueError(
            f"images have {images[0].numel()} pixels, test_images {test_images[0].numel()}"
        )
    if binarisation not in BINARISATIONS:
        known = ", ".join(BINARISATIONS)
        raise ValueError(f"unknown binarisation {binarisation!r}: choose one of {known}")


def _check_finite(sums: Tensor, epoch: int, first: int | None, history: History, lr: float) -> None:
    """Raise Diverged with the first step and term of `sums` (steps, 2) that is not finite.

    first: the number of steps before these in the epoch; None for the test images after it.
    """
    if torch.isfinite(sums).all():
        return
    row, column = (~torch.isfinite(sums)).nonzero()[0].tolist()
    term = ("recon", "kl")[column]
    where = "on the test images" if first is None else f"step {first + row + 1}"
    if epoch == 1 and where == "step 1":
        cause = "the model gives no finite loss before any step: look at its weights, or at `terms`"
    elif lr > 1e-2:
        cause = f"a learning rate of {lr:g} is too high for Adam here: try 1e-3"
    elif term == "kl":
        cause = "exp(log_var) overflows above log_var = 88: lower the learning rate"
    else:
        cause = "the decoder's output is no longer finite: lower the learning rate"
    raise Diverged(
        f"training stopped in epoch {epoch}, {where}: {term} is "
        f"{sums[row, column].item()}. Likely cause: {cause}.",
        history,
    )


def _postfix(recon: float, kl: float) -> str:
    if kl == 0:  # an autoencoder
        return f"squared error {recon:.1f}"
    return f"recon {recon:.1f} + KL {kl:.1f} = −ELBO {recon + kl:.1f} nats"
