"""What `fit` is compared with: the usual script, and the same network in other frameworks."""

import contextlib
import io
import logging
import tempfile
import time
import warnings
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from PIL import Image
from torch.utils.data import DataLoader
from torchvision import transforms

from vae_lesson.data import to_float

SIZES = (784, 400, 20)  # pixels, hidden units, latent dimensions: the article's network
BATCH, EPOCHS, LR = 128, 10, 1e-3


class People(torch.nn.Module):
    """The VAE as most scripts have it, sigmoid at the end, two heads."""

    def __init__(self) -> None:
        super().__init__()
        pixels, hidden, latent = SIZES
        self.fc1 = torch.nn.Linear(pixels, hidden)
        self.fc21 = torch.nn.Linear(hidden, latent)
        self.fc22 = torch.nn.Linear(hidden, latent)
        self.fc3 = torch.nn.Linear(latent, hidden)
        self.fc4 = torch.nn.Linear(hidden, pixels)

    def forward(self, x):
        h = F.relu(self.fc1(x.view(-1, SIZES[0])))
        mu, logvar = self.fc21(h), self.fc22(h)
        z = mu + torch.randn_like(mu) * torch.exp(0.5 * logvar)
        return torch.sigmoid(self.fc4(F.relu(self.fc3(z)))), mu, logvar


class Pictures(torch.utils.data.Dataset):
    """What torchvision.datasets.MNIST does for an image: an array, to PIL, through a transform."""

    def __init__(self, images: torch.Tensor, labels: torch.Tensor) -> None:
        self.images, self.labels, self.transform = images, labels, transforms.ToTensor()

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, i: int):
        picture = Image.fromarray(self.images[i].numpy(), mode="L")
        return self.transform(picture), int(self.labels[i])


def usual_script(images, device) -> Iterator[float]:
    """Train as the usual script does; yield each epoch's seconds, then the final test −ELBO."""
    torch.manual_seed(0)
    model = People().to(device)
    optimizer = torch.optim.Adam(model.parameters(), lr=LR)
    loader = DataLoader(
        Pictures(images.train.cpu(), images.train_labels.cpu()), batch_size=BATCH, shuffle=True
    )
    for _ in range(EPOCHS):
        start = time.perf_counter()
        for data, _ in loader:
            data = data.to(device)
            optimizer.zero_grad()
            loss = loss_of(model, data)
            loss.backward()
            loss.item()  # for the line that such scripts print
            optimizer.step()
        yield time.perf_counter() - start
    with torch.no_grad():
        yield loss_of(model, to_float(images.test)).item() / len(images.test)


def loss_of(model, x) -> torch.Tensor:
    """Return the loss as most scripts have it: the batch's sum of BCE and KL."""
    recon_x, mu, logvar = model(x)
    bce = F.binary_cross_entropy(recon_x, x.view(-1, SIZES[0]), reduction="sum")
    return bce - 0.5 * torch.sum(1 + logvar - mu.pow(2) - logvar.exp())


def by_lightning(data, epochs: int) -> list[float]:
    """Return the seconds of each epoch in PyTorch Lightning, without bar, logger and checkpoint."""
    import lightning

    class Module(lightning.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.model, self.seconds = People(), []

        def on_train_epoch_start(self) -> None:
            self.start = time.perf_counter()

        def training_step(self, batch, index) -> torch.Tensor:
            return loss_of(self.model, batch[0])

        def on_train_epoch_end(self) -> None:
            self.seconds.append(time.perf_counter() - self.start)

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.Adam(self.parameters(), lr=LR)

    module = Module()
    bare = ["logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"]
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    with warnings.catch_warnings(action="ignore"):  # of workers for its loader, and the like
        trainer = lightning.Trainer(
            max_epochs=epochs, accelerator="cpu", **dict.fromkeys(bare, False)
        )
        trainer.fit(module, DataLoader(data, batch_size=BATCH, shuffle=True))
    return module.seconds


def by_pythae(x: torch.Tensor, labels: torch.Tensor, epochs: int) -> list[float]:
    """Return the seconds of each epoch in pythae, with its bar, which has no switch, unseen."""
    from pythae.data.datasets import BaseDataset
    from pythae.models import VAE, VAEConfig
    from pythae.models.base.base_utils import ModelOutput
    from pythae.models.nn import BaseDecoder, BaseEncoder
    from pythae.trainers import BaseTrainer, BaseTrainerConfig

    class Encoder(BaseEncoder):
        def __init__(self) -> None:
            super().__init__()
            people = People()
            self.fc1, self.fc21, self.fc22 = people.fc1, people.fc21, people.fc22

        def forward(self, x):
            h = F.relu(self.fc1(x))
            return ModelOutput(embedding=self.fc21(h), log_covariance=self.fc22(h))

    class Decoder(BaseDecoder):
        def __init__(self) -> None:
            super().__init__()
            people = People()
            self.fc3, self.fc4 = people.fc3, people.fc4

        def forward(self, z):
            return ModelOutput(reconstruction=torch.sigmoid(self.fc4(F.relu(self.fc3(z)))))

    config = VAEConfig(input_dim=SIZES[:1], latent_dim=SIZES[2], reconstruction_loss="bce")
    seconds = []
    with tempfile.TemporaryDirectory() as folder:
        options = BaseTrainerConfig(
            output_dir=folder,
            num_epochs=epochs,
            learning_rate=LR,
            per_device_train_batch_size=BATCH,
            no_cuda=True,
        )
        model = VAE(config, Encoder(), Decoder())
        trainer = BaseTrainer(model, BaseDataset(x, labels), training_config=options)
        trainer.prepare_training()
        with contextlib.redirect_stderr(io.StringIO()):
            for epoch in range(epochs):
                start = time.perf_counter()
                trainer.train_step(epoch + 1)
                seconds.append(time.perf_counter() - start)
    return seconds
