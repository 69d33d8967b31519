"""What single and several processes both train, for tests/test_distributed.py."""

import os
from pathlib import Path

import torch
from tiny import fit

from vae_lesson import losses
from vae_lesson.models import VAE, reparameterize
from vae_lesson.running import processes

# Images, and the batch size: one batch that can be shared evenly, one that cannot, and a last batch
# of 2: with three processes the third has no image.
CASES = [(24, 24), (23, 23), (20, 18)]


def pictures(n, seed):
    """Four patterns of 16 pixels, each as often as the others: no model does better than log 4."""
    generator = torch.Generator().manual_seed(seed)
    ways = torch.rand((4, 16), generator=torch.Generator().manual_seed(9)).gt(0.5)
    return (255 * ways[torch.randint(4, (n,), generator=generator)]).byte().view(n, 4, 4)


def noisy(n):
    """Different images, so that each can be told by its pixels."""
    pixels = torch.rand((n, 16), generator=torch.Generator().manual_seed(1))
    return (255 * pixels).byte().view(n, 4, 4)


def new(seed):
    torch.manual_seed(seed)
    return VAE(2, 8, (1, 4, 4))


def last_gradients(n, batch_size):
    """Return the gradients of an epoch's last step; each image has its own eps, wherever it is.

    The learning rate moves nothing, so that all steps are taken with the first weights.
    """
    images = noisy(n)
    rows = images.flatten(1).float() / 255
    eps = torch.randn((n, 2), generator=torch.Generator().manual_seed(2))

    def terms(model, x, generator):
        which = (x[:, None] == rows).all(dim=2).float().argmax(dim=1)
        mu, log_var = model.encode(x)  # by its parts: terms may call what they like of a model
        logits = model.decode(reparameterize(mu, log_var, eps[which]))
        kl = losses.kl_standard_normal(mu, log_var)
        return {"recon": losses.bernoulli_nll(logits, x), "kl": kl}

    model = new(0)
    how = {"epochs": 1, "batch_size": batch_size, "lr": 1e-30, "beta": 0.7, "terms": terms}
    history = fit(model, images, **how)
    gradients = {name: parameter.grad.clone() for name, parameter in model.named_parameters()}
    return gradients, history.train["recon"] + history.train["kl"]


def trained(seed, model_seed):
    """Return what a training ends with, and the seeds of the noise that it drew from."""
    seeds = []

    def terms(model, x, generator):
        if model.training:
            seeds.append(generator.initial_seed())
        return losses.elbo_terms(model, x, generator)

    model = new(model_seed)
    how = {"epochs": 40, "batch_size": 32, "lr": (5e-3, 2e-2), "seed": seed, "terms": terms}
    history = fit(model, pictures(250, 0), test=pictures(100, 1), **how)
    return model.state_dict(), history.test_total, seeds


def work(rank: int, size: int, port: int, seeds: tuple[int, ...], folder) -> None:
    """Be one of several processes, as torchrun would start it, and leave what came of it."""
    torch.set_num_threads(1)
    os.environ |= {"TORCHELASTIC_RUN_ID": "test", "MASTER_ADDR": "127.0.0.1"}
    os.environ |= {"MASTER_PORT": str(port), "RANK": str(rank), "WORLD_SIZE": str(size)}
    processes.start(torch.device("cpu"))
    left = {f"gradients {n} {size}": last_gradients(n, size) for n, size in CASES}
    for seed in seeds:  # ranks 1 and up start from other weights: the first process's are taken
        left[f"trained {seed}"] = trained(seed, model_seed=seed + rank)
    processes.stop()
    left["threads"] = [path.read_text() for path in Path("/proc/self/task").glob("*/comm")]
    torch.save(left, folder / f"left{rank}")
