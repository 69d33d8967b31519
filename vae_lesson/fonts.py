"""Words in figures and pictures: in the language of the lesson if a font has its characters, else
in English."""

import matplotlib
from matplotlib import font_manager

from vae_lesson import words

# Families with Chinese: what of a text the usual one lacks is drawn by the first that is installed.
CHINESE = ["Noto Sans CJK TC", "Noto Sans TC", "Microsoft JhengHei", "PingFang TC", "PingFang HK"]
CHINESE += ["Heiti TC", "Noto Sans CJK JP"]  # the latter is all that matplotlib 3.10 sees of Noto's
CHINESE = [name for name in CHINESE if name in font_manager.get_font_names()]
matplotlib.rcParams["font.family"] += CHINESE


def is_chinese(text: str) -> bool:
    """Say whether a text needs one of them: Chinese begins at U+2E80."""
    return max(text, default="") >= "\u2e80"


def can_draw(text: str) -> bool:
    """Say whether there is a font for a text."""
    return bool(CHINESE) or not is_chinese(text)


def _(text: str) -> str:
    """Return what a picture says, or what is said of it, in the language of the lesson, in English
    if no font is there."""
    said = words._(text)
    return said if can_draw(said) else text
