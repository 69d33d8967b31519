"""The course in other languages: catalogues that are whole and true to the English, lessons made of
them, and a third language without code."""

import ast
import contextlib
import io
import re
import shutil
from collections import Counter

import nbformat
import opencc
import play
import pytest
import translations
import zhtw
from lessons import LESSONS, NAMES, exercises
from play import Play

from vae_lesson import fonts, words
from vae_lesson.places import PROJECT

FOLDERS = translations.languages()
CATALOGUES = [path for folder in FOLDERS for path in sorted(folder.glob("*.po"))]
LOADED = {path: translations.load(path, path.parent.name) for path in CATALOGUES}
LANGUAGES = [folder.name.replace("_", "-") for folder in FOLDERS]


def named(path) -> str:
    return f"{path.parent.name}-{path.stem}"


@pytest.fixture(scope="module")
def templates():
    return translations.templates()


def pairs(catalogue):
    """Give each message's English and its translation."""
    return [(message.id, message.string) for message in catalogue if message.id]


# --- catalogues -----------------------------------------------------------------------------------


def test_there_is_traditional_chinese():
    assert "zh-TW" in LANGUAGES


@pytest.mark.parametrize("path", CATALOGUES, ids=named)
def test_a_catalogue_is_whole(path, templates):
    """What the English says now, and no more; it fails when a sentence has changed: then `make
    translations` marks it as fuzzy."""
    found = {(message.context, message.id): message for message in LOADED[path] if message.id}
    wanted = {(message.context, message.id) for message in templates[path.stem] if message.id}
    assert found.keys() == wanted
    assert not [key for key, message in found.items() if message.fuzzy or not message.string]


@pytest.mark.parametrize("folder", FOLDERS, ids=LANGUAGES)
def test_a_language_has_every_catalogue(folder, templates):
    assert {path.stem for path in folder.glob("*.po")} == set(templates)


KEPT = {
    "inline code": r"`[^`]+`",
    "formulas": r"\$\$?[^$]+\$\$?",
    "links": r"\]\(([^)]*)\)",
    "placeholders": r"\{[^{}]*\}",
    "bold": r"\*\*",
    "tags": r"</?\w+>",
}
NUMBER = r"\d+(?:,\d{3})*(?:\.\d+)?"
# Where Chinese counts by ten thousands, or names a month; a β that the Chinese says once more.
COUNTED = ["134 million", "860 million", "0.2 million", "November 2026", "October 2017"]


@pytest.mark.parametrize("path", CATALOGUES, ids=named)
def test_a_translation_keeps_numbers_code_formulas_links_and_emphasis(path):
    for english, said in pairs(LOADED[path]):
        for what, pattern in KEPT.items():
            was, now = (Counter(re.findall(pattern, text)) for text in (english, said))
            assert was == now, f"{what} of {english!r}: {said!r}"
        plain = "|".join([KEPT["inline code"], KEPT["formulas"], r"\]\([^)]*\)"])
        was, now = (Counter(re.findall(NUMBER, re.sub(plain, "", t))) for t in (english, said))
        assert was == now or any(each in english for each in COUNTED), f"{english!r}: {said!r}"


# What the two converters would change, and why it is right in Taiwan.
RIGHT = {
    "才纔": "the usual form",
    "只隻": "here it is “only”",
    "群羣": "the usual form",
}
TERMS = {
    "像素": "the usual word, 畫素 is rarer",
    "碼率": "the course's word for the rate",
    "函數": "of mathematics; in code it is 函式",
    "傳統圖像處理": "the title of the article's series",
    "鏡像": "a mirror image",
    "獨立算": "two words: to calculate independently",
    "算法": "a way of calculating, no algorithm",
    "影像素": "the end of one word and the beginning of another",
}


@pytest.mark.parametrize("path", CATALOGUES, ids=named)
def test_no_simplified_characters_and_no_mainland_terms(path):
    if path.parent.name != "zh_TW":
        pytest.skip("of Traditional Chinese alone")
    traditional = opencc.OpenCC("s2t")
    for _, said in pairs(LOADED[path]):
        changed = zip(said, traditional.convert(said))
        assert {a + b for a, b in changed if a != b} <= RIGHT.keys(), said
        plain = re.sub("|".join(TERMS), "", said)
        assert zhtw.convert(plain) == plain, said


@pytest.mark.parametrize("path", CATALOGUES, ids=named)
def test_punctuation_and_spaces_are_taiwans(path):
    if path.parent.name != "zh_TW":
        pytest.skip("of Traditional Chinese alone")
    han = "\u4e00-\u9fff"
    for english, said in pairs(LOADED[path]):
        plain = re.sub("|".join([*KEPT.values(), "iT邦幫忙.*"]), "", said)
        assert not re.findall(rf"[{han}][A-Za-z0-9]|[A-Za-z0-9][{han}]", plain), said
        assert not re.findall(rf"[{han}][,;:?!](?=[\s{han}]|$)", plain), said
        if re.search(r"[a-z]{3} [a-z]{3} [a-z]{3}", re.sub(KEPT["inline code"], "", english)):
            assert re.search(f"[{han}]", said) or english == said, said


# --- lessons --------------------------------------------------------------------------------------


def structure(source: str) -> str:
    """Return the syntax of code without what its strings say."""
    tree = ast.parse(re.sub("(?m)^%", "#", source))
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            node.value = ""
        if isinstance(node, ast.JoinedStr):  # a language has an order of its own
            values = [part for part in node.values if isinstance(part, ast.FormattedValue)]
            node.values = sorted(values, key=ast.dump)
    return ast.dump(tree)


def made(path, folder) -> nbformat.NotebookNode:
    """Return a lesson in a folder's language."""
    catalogue = LOADED.get(folder / f"{path.name[:2]}.po", translations.Catalog())
    lesson = nbformat.read(path, as_version=4)
    return translations.translated(lesson, catalogue, folder.name.replace("_", "-"))


@pytest.mark.parametrize("folder", FOLDERS, ids=LANGUAGES)
@pytest.mark.parametrize("path", LESSONS, ids=NAMES)
def test_code_differs_in_comments_and_strings_alone(path, folder):
    english, other = nbformat.read(path, as_version=4), made(path, folder)
    assert [cell.id for cell in english.cells] == [cell.id for cell in other.cells]
    for cell, now in zip(english.cells, other.cells):
        assert cell.metadata == now.metadata
        if cell.cell_type == "code":
            assert structure(now.source) == structure(cell.source), cell.id
            assert not now.outputs
        else:
            for fence in re.findall(r"```.*?```|\$\$.*?\$\$", cell.source, re.S):
                assert fence in now.source, cell.id


@pytest.mark.parametrize("path", LESSONS, ids=NAMES)
def test_what_is_not_translated_stays_the_same_to_the_byte(path):
    lesson = translations.translated(
        nbformat.read(path, as_version=4), translations.Catalog(), "en"
    )
    before = nbformat.read(path, as_version=4)
    assert [cell.source for cell in lesson.cells] == [cell.source for cell in before.cells]


@pytest.fixture
def spoken():
    """Return what makes a language's words and speaks them; English afterwards."""

    def speak(tag: str) -> None:
        translations.make(tag)
        assert words.speak(tag)

    yield speak
    words.speak(words.ENGLISH)


@pytest.mark.parametrize("folder", FOLDERS, ids=LANGUAGES)
@pytest.mark.parametrize("path", LESSONS, ids=NAMES)
def test_solutions_pass_their_checks_in_the_language(path, folder, spoken):
    spoken(folder.name.replace("_", "-"))
    lesson, names = made(path, folder), {}
    code = "\n".join(cell.source for cell in lesson.cells if cell.cell_type == "code")
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Import | ast.ImportFrom):
            exec(ast.unparse(node), names)
    assert exercises(lesson)
    for _, stub, check, use, solution in exercises(lesson):
        exec(stub, names)
        verdict = eval(check, names)
        assert not verdict.ok and not verdict.startswith("Not yet")
        exec(solution, names)
        assert eval(check, names).ok
        exec(use, names)


@pytest.mark.lessons
@pytest.mark.parametrize("folder", FOLDERS, ids=LANGUAGES)
@pytest.mark.parametrize("path", LESSONS, ids=NAMES)
def test_a_translated_lesson_runs_in_full(path, folder, spoken, monkeypatch, tmp_path):
    """On few images, as a learner who solves nothing."""
    tag = folder.name.replace("_", "-")
    spoken(tag)
    play.offline(monkeypatch, tmp_path)
    play.few_images(monkeypatch, 300, 10_000 if path.stem < "08" else 1000)
    lesson = Play(path.stem, language=tag)
    said = ""
    for cell in made(path, folder).cells:
        if cell.cell_type == "code" and "install" not in cell.metadata.get("tags", []):
            said += lesson.run(cell)
    if not fonts.can_draw("課"):
        pytest.skip("strings stay English without a font: apt-get install fonts-noto-cjk")
    # A line of English words would be one that nobody has translated.
    known = re.sub(r"`[^`]*`|/\S+|\(\w+ \w+\)", "", said)
    assert not re.findall(r"(?m)^(?:[A-Z][a-z]+ )(?:[a-z]+,? ){4,}", known)


# --- the tool -------------------------------------------------------------------------------------

GERMAN = {
    "The autoencoder": "Der Autoencoder",
    "You will": "Du wirst",
    "Solution": "Lösung",
    "numbers in a code, for the main autoencoder": "Durchgänge durch die Trainingsbilder",
    "✓ Correct.": "✓ Richtig.",
    "Not yet: your function returns nothing.": "Noch nicht: deine Funktion gibt nichts zurück.",
}


@pytest.fixture
def german(monkeypatch, tmp_path):
    """A third language in folders of its own: some sentences, and no code."""
    locale = tmp_path / "locale"
    (locale / "de").mkdir(parents=True)
    for module in (translations, words):
        monkeypatch.setattr(module, "LOCALE", locale)
        monkeypatch.setattr(module, "made", lambda language: tmp_path / language)
    with contextlib.redirect_stdout(io.StringIO()) as shown:
        assert not translations.update()
    assert re.search(r"01 +0 +0 +1\d\d\n", shown.getvalue())
    for path in (locale / "de").glob("*.po"):
        catalogue = translations.load(path, "de")
        for message in catalogue:
            if message.id:
                message.string = GERMAN.get(message.id.removeprefix("01 · "), "")
        with open(path, "wb") as file:
            translations.write_po(file, catalogue, width=0, omit_header=True)
    yield locale
    words.speak(words.ENGLISH)


def test_a_third_language_needs_no_code(german, tmp_path):
    translations.make("de")
    lesson = nbformat.read(tmp_path / "de/notebooks" / LESSONS[0].name, as_version=4)
    text = "\n".join(cell.source for cell in lesson.cells)
    for said in (
        "# Der Autoencoder",
        "Du wirst",
        "<summary>Lösung</summary>",
        "# Durchgänge durch",
    ):
        assert said in text
    assert 'language: str = "de"' in text and "Exercise 1" in text
    assert (tmp_path / "de/docs/cheatsheet.md").is_file()
    assert words.speak("de") and words._("✓ Correct.") == "✓ Richtig."
    assert words._("Not yet: the shape is {got}, it should be {wanted}.").startswith("Not yet")


def test_a_changed_sentence_is_marked_and_said_in_english_again(german, monkeypatch, tmp_path):
    folder = tmp_path / "lessons"
    folder.mkdir()
    path = shutil.copy(LESSONS[0], folder)
    lesson = nbformat.read(path, as_version=4)
    lesson.cells[0].source = lesson.cells[0].source.replace("You will", "You will now")
    nbformat.write(lesson, path)
    monkeypatch.setattr(translations, "LESSONS", [folder / LESSONS[0].name])
    with contextlib.redirect_stdout(io.StringIO()) as shown:
        translations.update()
    assert re.search(r"01 +\d+ +1 +\d+\n", shown.getvalue())  # fuzzy
    translations.make("de")
    text = (tmp_path / "de/notebooks" / LESSONS[0].name).read_text(encoding="utf-8")
    assert "You will now" in text and "Du wirst" not in text


def test_without_a_font_what_figures_draw_stays_english(monkeypatch):
    monkeypatch.setattr(fonts, "CHINESE", [])
    lesson = made(LESSONS[1], translations.LOCALE / "zh_TW")
    of_cells = [message for _, some in translations.messages(lesson) for message in some]
    drawn = [message.text for message in of_cells if message.context == "code"]
    assert drawn and max("".join(drawn)) < "\u2e80"
    assert any("你的猜測" in message.text for message in of_cells)  # what no figure draws
    assert fonts._("✓ Correct.") == "✓ Correct."


def test_a_language_that_is_not_there_is_refused(german):
    with pytest.raises(SystemExit, match="choose one of de"):
        translations.make("fr-FR")
    assert not words.speak("fr-FR") and words._("✓ Correct.") == "✓ Correct."


def test_nothing_that_is_made_is_committed():
    ignored = (PROJECT / ".gitignore").read_text(encoding="utf-8")
    assert "locale/*/LC_MESSAGES/" in ignored and "results/" in ignored
