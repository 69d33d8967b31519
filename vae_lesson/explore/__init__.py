"""The explorers: move a code, point at a map, draw a digit, and see at once what the model makes
of it. Each is one call; each has its state as the traits `z` (the code) and `image` (a PNG).

And two figures without a model: the toy of lesson 02, and a playground that trains its own."""

from vae_lesson.explore.compare import compare
from vae_lesson.explore.drawing import draw_digit
from vae_lesson.explore.maps import latent_map
from vae_lesson.explore.morphs import morph
from vae_lesson.explore.playground import playground
from vae_lesson.explore.sliders import direction_sliders, latent_sliders
from vae_lesson.explore.tokens import change_tokens
from vae_lesson.explore.toy import toy

__all__ = [
    "change_tokens",
    "compare",
    "direction_sliders",
    "draw_digit",
    "latent_map",
    "latent_sliders",
    "morph",
    "playground",
    "toy",
]
