"""The languages of the site: what its pages say in each, and where each one's pages are.

English pages are in results/site/; those in any other language that has a folder in locale/ are in
a folder of its name beside them, as results/site/zh-TW/, under the same names.
"""

from pathlib import Path

import translations  # the Makefile puts tools/ on the path

from vae_lesson import words
from vae_lesson.places import PROJECT
from vae_lesson.words import ENGLISH, LOCALE, N_, made

KNOWN = [ENGLISH, *(folder.name.replace("_", "-") for folder in translations.languages())]
NAME = N_("English")  # of a language, in itself
built = [ENGLISH]  # those whose pages are made now
spoken, _said = ENGLISH, {}


def said_in(language: str) -> dict[str, str]:
    """Return what the pages say, {English: translated}."""
    if language == ENGLISH:
        return {}
    folder = LOCALE / language.replace("-", "_")
    some = translations.load(folder / "pages.po", folder.name)
    known = [each for each in some if each.context == "site" and each.string and not each.fuzzy]
    return {each.id: each.string for each in known}


def speak(language: str) -> None:
    """Make what follows, pages and the package's figures, speak a language."""
    global spoken, _said
    spoken, _said = language, said_in(language)
    words.speak(language)


def _(text: str) -> str:
    return _said.get(text, text)


def for_scripts(scripts: str) -> dict[str, str]:
    """Return what these scripts `say`, {English: translated}, where it is."""
    return {text: said for text, said in _said.items() if f'say("{text}"' in scripts}


def source(language: str, path: Path) -> Path:
    """Return where a lesson or the cheat sheet is in a language: see translations.make."""
    return path if language == ENGLISH else made(language) / path.relative_to(PROJECT)


def place(language: str) -> str:
    """Return the folder of a language's pages, within the site."""
    return "" if language == ENGLISH else f"{language}/"


def up() -> str:
    """Return the way from a page's folder to the site's."""
    return "" if spoken == ENGLISH else "../"


def versions(page: str) -> list[dict[str, str]]:
    """Return the same page in every language that is built: language, its name, and the way there;
    none if there is only one."""
    return [
        {
            "code": code,
            "name": NAME if code == ENGLISH else said_in(code).get(NAME, code),
            "path": place(code) + page,
            "href": up() + place(code) + page,
        }
        for code in built
        if len(built) > 1
    ]
