"""What the package says to a learner, in the language of the lesson; errors stay English.

`_("text")` is the text in that language, by gettext, from locale/: tools/translations.py makes the
files there of its catalogues. What stands in braces is put in afterwards: `_("{n} of {m}").format`.
"""

import contextlib
import gettext
from pathlib import Path

from vae_lesson.places import PROJECT

LOCALE = PROJECT / "locale"
ENGLISH = "en"
PAGE = "page\x04"  # as gettext has a context before a text

_said = gettext.NullTranslations()


def made(language: str) -> Path:
    """Return the folder of the lessons that were made in a language, as notebooks/ and docs/."""
    return PROJECT / "results" / language


def speak(language: str) -> bool:
    """Say all that follows in a language, as "zh-TW", or in English if it has no words here; say
    whether it has."""
    global _said
    _said = gettext.NullTranslations()
    if language == ENGLISH:
        return True
    with contextlib.suppress(OSError):
        _said = gettext.translation("vae_lesson", LOCALE, [str(language).replace("-", "_")])
        return True
    return False


def _(text: str) -> str:
    return _said.gettext(text) if text else text  # of "" gettext has its file's header


def words() -> dict[str, str]:
    """Return {English: translated} of what a page says by itself: of the context "page"."""
    known = getattr(_said, "_catalog", {})
    of_pages = [text for text in known if isinstance(text, str) and text.startswith(PAGE)]
    return {text.removeprefix(PAGE): known[text] for text in of_pages}


def N_(text: str) -> str:  # as gettext calls it
    """Return a text as it is, that is translated where it is used."""
    return text
