"""The playground: a VAE of 8×8 digits that trains in the page, forward, backward and Adam in
JavaScript (front/vae.js), while one moves β. Neither kernel nor torch takes part.

Its numbers are the course's: nats per image of the test images, a tenth of scikit-learn's digits.
"""

import functools

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits

from vae_lesson import words
from vae_lesson.explore.explorer import FRONT, Figure
from vae_lesson.fonts import _
from vae_lesson.words import N_

LEGEND = N_(
    "Dots: the codes of the test images, a colour a digit. Ellipses: some of their clouds, at 2σ. "
    "Grey circles: the prior N(0, I) at 1σ (dashed) and 2σ. Black: the point that you chose. What "
    "is trained is recon + β · KL; −ELBO is recon + KL, whatever β is. Data: scikit-learn's 1,797 "
    "digits of 8×8 pixels, a tenth held out (E. Alpaydin and C. Kaynak, Optical recognition of "
    "handwritten digits, UCI 1998, CC BY 4.0)."
)
# Each: what to know; a question, its answers, and the right one; what is set; what to do, which is
# waited for where `until` says how far; the number to watch; one sentence; and where it is proved.
TOUR = [
    {
        "title": N_("An autoencoder"),
        "tells": N_(
            "An encoder makes of each image a code, here two numbers: a dot below. A decoder "
            "rebuilds the image from it. N(0, I), the prior, is the bell-shaped cloud around (0, "
            "0) within the grey circles; its spread is 1."
        ),
        "asks": N_("Trained to rebuild and nothing else: how wide will the dots scatter?"),
        "answers": [N_("half as wide as N(0, I)"), N_("as wide"), N_("at least twice as wide")],
        "right": 2,
        "set": {"model": "autoencoder"},
        "todo": N_("Which digits never turn up among the draws from N(0, I)? Where do they lie?"),
        "watch": "spread",
        "says": N_("Nothing tells the codes where to lie: many are outside of the circles."),
        "lesson": ["01_autoencoder", N_("lesson 01")],
    },
    {
        "title": N_("From β = 0 to β = 1"),
        "tells": N_(
            "A VAE gives each image a cloud of codes, with a middle μ and a width σ, and draws z "
            "from it. recon says how badly the image is rebuilt, KL how far its cloud is from N(0,"
            " I): 0 if it is the same. Both in nats; trained is recon + β · KL."
        ),
        "asks": N_("At β = 0 the KL is above 10 nats. What will it be at β = 1?"),
        "answers": [N_("2 to 3"), N_("about 5"), N_("about 10")],
        "right": 0,
        "set": {"beta": 0},
        "todo": N_("Look at the clouds for two seconds. Then move β to 1."),
        "until": {"beta": 1},
        "watch": "kl",
        "says": N_(
            "The clouds have grown together into N(0, I), where draws find them; recon is a little"
            " worse than at β = 0."
        ),
        "lesson": ["02_vae", N_("lesson 02")],
    },
    {
        "title": "β = 4",
        "tells": "",
        "asks": N_("The KL now weighs four times as much. What will it be?"),
        "answers": [N_("about 8 nats"), N_("0 nats"), N_("about 1 nat")],
        "right": 1,
        "set": {"beta": 4},
        "todo": N_(
            "At which β does it die? Set 2, press Again, wait for step 1,000; then 2.5, then 3. "
            "(Without Again it may stay dead.)"
        ),
        "watch": "kl",
        "says": N_(
            "Every cloud is N(0, I), so the code says nothing, and all images are rebuilt alike: "
            "posterior collapse."
        ),
        "lesson": ["06_rate_distortion", N_("lesson 06")],
    },
    {
        "title": N_("A draw that blocks the gradient"),
        "tells": "",
        "asks": N_(
            "β = 1 again, but z is drawn so that recon's gradient does not pass to μ and σ (in "
            "PyTorch by .sample() or .detach()). What will the KL be?"
        ),
        "answers": [N_("above 10 nats"), N_("about 2 nats"), N_("0 nats")],
        "right": 2,
        "set": {"blocked": True},
        "todo": N_("Take the mistake away (below, “two mistakes”), and give it ten seconds."),
        "watch": "kl",
        "says": N_(
            "Only the KL reaches the encoder, and the KL wants N(0, I). With z = μ + σ ε recon "
            "reaches it too."
        ),
        "lesson": ["02_vae", N_("lesson 02, section 3")],
    },
    {
        "title": N_("A mean in place of the sum"),
        "tells": "",
        "asks": N_(
            "β = 1; recon is taken as the mean over the 64 pixels, not their sum, and the KL as "
            "before. What will the KL be?"
        ),
        "answers": [N_("0 nats"), N_("about 2 nats"), N_("above 10 nats")],
        "right": 0,
        "set": {"mean": True},
        "todo": N_(
            "Type 0.02 for β, about 1/64, and give it ten seconds. That was the tour: lesson 01 "
            "begins at the beginning."
        ),
        "watch": "kl",
        "says": N_(
            "recon/64 + KL is (recon + 64 · KL)/64: it was β = 64. (The numbers shown are the "
            "sums.)"
        ),
        "lesson": ["02_vae", N_("lesson 02, section 6")],
    },
]


@functools.lru_cache
def tiny_digits() -> dict:
    """Return bytes of `train` and `test`, 64 an image, 0 to 16; and `labels` of the test images,
    the first ten of which are 0 to 9."""
    digits = load_digits()
    order = np.random.default_rng(0).permutation(len(digits.data))
    test, train = np.split(order, [len(order) // 10])
    firsts = [np.flatnonzero(digits.target[test] == label)[0] for label in range(10)]
    test = np.concatenate([test[firsts], np.delete(test, firsts)])
    pixels = digits.data.astype(np.uint8)
    images = {"train": pixels[train].tobytes(), "test": pixels[test].tobytes()}
    return images | {"labels": digits.target[test].tolist()}


class Playground(Figure):
    """The page trains; its address, on a site, holds what has been set."""

    _title = N_("Playground")

    @property
    def for_page(self) -> dict:
        return {"page": "playground.html"}

    def _still(self) -> np.ndarray:
        # Taken by tools/picture.py.
        return np.asarray(Image.open(FRONT / "playground.png").convert("RGB"))

    def _words(self) -> str:
        return _(
            "a VAE of 8×8 digits after some training: its codes on a plane, a cloud for each image"
            " within the circles of N(0, I); curves of recon, KL and −ELBO; test images, what is "
            "rebuilt of them, and twenty draws"
        )


def playground() -> Playground:
    """Return a VAE to train in the page: move β, break it, and see what becomes of its codes.

    64–64–2 (or 8), Adam, batches of 64; terms summed over pixels and code, averaged over images.
    """
    said = {"legend": words._(LEGEND), "tour": [*map(_told, TOUR)]}
    return Playground(kind="playground", **said, **tiny_digits())


def _told(stop: dict) -> dict:
    """Return a stop of the tour in the language of the lesson."""
    texts = {name: words._(stop[name]) for name in ("title", "tells", "asks", "todo", "says")}
    file, name = stop["lesson"]
    answers = [*map(words._, stop["answers"])]
    return stop | texts | {"answers": answers, "lesson": [file, words._(name)]}
