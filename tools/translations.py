"""The course in other languages: catalogues in locale/, and notebooks made of a lesson and its own.

    python tools/translations.py update             every catalogue up to date, and a table of them
    python tools/translations.py make zh-TW         the lessons in that language, in results/zh-TW/

A catalogue, locale/zh_TW/02.po, holds the text of lesson 02 line by line: paragraphs, items,
headings, cells of tables, summaries; and of its code the comments and what it says. Formulas,
fences and HTML stay as they are, and so does, to the byte, what is not translated. A message's
context is the cell; of a code's strings it is "code", because one that is a key must stay one.
"""

import ast
import io
import itertools
import re
import sys
import tokenize
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import nbformat
from babel.messages.catalog import Catalog
from babel.messages.extract import extract_from_dir
from babel.messages.mofile import write_mo
from babel.messages.pofile import read_po, write_po
from markdown_it import MarkdownIt

from vae_lesson.fonts import can_draw
from vae_lesson.places import PROJECT
from vae_lesson.running.saving import written_whole
from vae_lesson.words import ENGLISH, LOCALE, made

LESSONS = sorted((PROJECT / "notebooks").glob("[0-9]*.ipynb"))
SHEET = PROJECT / "docs/cheatsheet.md"
SITE = PROJECT / "site"
WRITTEN = r'(?<=content: ")[^"]*[a-z]{2}[^"]*(?=")'  # by a style
MARKERS = r"(?:\s*(?:[-*+]|\d+[.)]|#{1,6}|>)\s+)*\s*"  # of items, headings and quotations
SHOWN = {"title", "alt", "xlabel", "ylabel", "label", "says"}  # arguments that a reader sees
SAYS = [
    ("**.py", "python", ("_", "N_", "Text", "Verdict"), None),
    ("**.js", "javascript", ("say",), "page"),  # its context: a page is given these alone
]
MARKDOWN = MarkdownIt("commonmark").enable("table")


class Message(NamedTuple):
    """A piece of a text: where it is, from character to character, and what the catalogue calls
    it."""

    start: int
    end: int
    text: str
    context: str


# --- what is to be translated ---------------------------------------------------------------------


def in_markdown(text: str, context: str) -> Iterator[Message]:
    """Give a text's messages in their order: each is a piece of a line."""
    starts = [0]
    for line in text.split("\n"):
        starts.append(starts[-1] + len(line) + 1)
    in_table = in_formula = False
    for token in MARKDOWN.parse(text):
        in_table = (in_table or token.type == "table_open") and token.type != "table_close"
        if token.type == "html_block":
            first, last = (starts[i] for i in token.map)
            for found in re.finditer(r"<summary>(.*?)</summary>", text[first:last]):
                yield from _message(text, first + found.start(1), first + found.end(1), context)
        if token.type == "tr_open":
            start = starts[token.map[0]]
            row = text[start : starts[token.map[1]] - 1]
            bars = [-1, *(m.start() for m in re.finditer(r"(?<!\\)\|", row)), len(row)]
            for left, right in itertools.pairwise(bars):
                yield from _message(text, start + left + 1, start + right, context)
        if token.type != "inline" or in_table:
            continue
        for i in range(*token.map):
            line = text[starts[i] : starts[i + 1] - 1]
            was, n_marks = in_formula, line.count("$$")
            in_formula ^= n_marks % 2
            if not (was or in_formula or line.startswith("$$")):
                begins = re.match(MARKERS, line).end()
                yield from _message(text, starts[i] + begins, starts[i + 1] - 1, context)


def _message(text: str, start: int, end: int, context: str) -> Iterator[Message]:
    """Give the message between two places, without the spaces around it, if it says anything."""
    piece = text[start:end]
    start, piece = start + len(piece) - len(piece.lstrip()), piece.strip()
    words = re.sub(r"`[^`]*`|\$[^$]*\$|<[^>]*>|\]\([^)]*\)", "", piece)
    if re.search(r"[A-Za-z]{2}", words):
        yield Message(start, start + len(piece), piece, context)


def in_code(source: str, context: str) -> Iterator[Message]:
    """Give the messages of code: its comments, docstrings, and the strings that are shown."""
    lines = source.splitlines(keepends=True)
    starts = [0]
    for line in lines:
        starts.append(starts[-1] + len(line))
    found = []
    plain = re.sub(r"(?m)^%", "#", source)  # a magic is no Python
    for token in tokenize.generate_tokens(io.StringIO(plain).readline):
        if token.type == tokenize.COMMENT and source[starts[token.start[0] - 1] :][:1] != "%":
            start = starts[token.start[0] - 1] + token.start[1]
            skipped = len(re.match(r"#\s*", token.string)[0])
            found += _message(source, start + skipped, start + len(token.string), context)

    def place(row: int, column: int) -> int:
        return starts[row - 1] + len(lines[row - 1].encode()[:column].decode())

    tree = ast.parse(plain)
    shown = {id(node) for node in words_shown(tree)}
    for node, is_docstring, is_part in strings(tree):
        if is_part:
            continue
        start = place(node.lineno, node.col_offset)
        end = place(node.end_lineno, node.end_col_offset)
        text = bodies(source[start:end])
        if is_docstring:
            found.append(Message(start, end, text, context))
        elif says(re.sub(r"\{[^{}]*\}", "", text)) or (
            id(node) in shown and re.search("[a-z]{3}", text)
        ):
            found.append(Message(start, end, text, "code"))
    yield from sorted(found)


def strings(tree: ast.Module) -> Iterator[tuple[ast.Constant | ast.JoinedStr, bool, bool]]:
    """Give the strings of code, whether it is a docstring, and whether it is a part of another."""
    nodes = [*ast.walk(tree)]
    documented = (ast.FunctionDef, ast.ClassDef, ast.Module)
    docstrings = {
        id(node.body[0].value)
        for node in nodes
        if isinstance(node, documented) and ast.get_docstring(node)
    }
    whole = [node for node in nodes if isinstance(node, ast.JoinedStr)]
    # A format, as in {x:.2f}, is a string of its own, in the place of the whole one.
    formats = {id(part) for node in nodes for part in [getattr(node, "format_spec", None)]}
    parts = formats | {id(part) for node in whole for part in node.values}
    for node in nodes:
        is_text = isinstance(node, ast.Constant) and isinstance(node.value, str)
        if is_text or isinstance(node, ast.JoinedStr):
            yield node, id(node) in docstrings, id(node) in parts


def words_shown(tree: ast.Module) -> Iterator[ast.expr]:
    """Give the strings that a reader sees though they be single words: titles, labels, heads of
    tables, units of a summary. Other words may be keys, or say something to the package."""
    for call in ast.walk(tree):
        if not isinstance(call, ast.Call):
            continue
        yield from (keyword.value for keyword in call.keywords if keyword.arg in SHOWN)
        name = getattr(call.func, "attr", "")
        if name == "Table" and isinstance(call.args[0], ast.List):
            yield from call.args[0].elts
        if name == "summary":
            for node in ast.walk(call):
                if isinstance(node, ast.Tuple):
                    yield node.elts[-1]


def says(text: str) -> bool:
    """Say whether a string is one that is read: of more than a word."""
    return bool(re.search(r"[A-Za-z]{2}.* | .*[A-Za-z]{2}", text))


LITERAL = re.compile(r"""\s*([rRbBfFuU]*)(\"\"\"|'''|"|')((?:\\.|(?!\2).)*)\2\s*""", re.S)


def bodies(literals: str) -> str:
    """Return what stands between the quotes of strings that follow one another."""
    return "".join(found[3] for found in LITERAL.finditer(literals))


def literal(text: str, like: str) -> str:
    """Return a text as a string of the same kind."""
    kinds = {found[1].lower() for found in LITERAL.finditer(like)} - {""}
    quotes = LITERAL.match(like)[2]
    return f"{''.join(kinds)}{quotes}{text}{quotes}"


def messages(notebook: nbformat.NotebookNode) -> list[tuple[int, list[Message]]]:
    """Return the messages of each cell."""
    kinds = {"markdown": in_markdown, "code": in_code}
    return [
        (i, list(kinds[cell.cell_type](cell.source, cell.id)))
        for i, cell in enumerate(notebook.cells)
        if cell.cell_type in kinds
    ]


# --- catalogues -----------------------------------------------------------------------------------


def template(lesson: Path) -> Catalog:
    """Return a lesson's messages, untranslated."""
    catalogue = Catalog(charset="utf-8")
    for _, some in messages(nbformat.read(lesson, as_version=4)):
        for message in some:
            catalogue.add(message.text, context=message.context)
    return catalogue


def of_the_package() -> Catalog:
    """Return what the package says in a notebook: what stands in `_("…")`, `N_`, `Text` and
    `Verdict` in Python, in `say("…")` in JavaScript; and all that a check may say."""
    catalogue, package = Catalog(charset="utf-8"), PROJECT / "vae_lesson"
    for pattern, method, names, context in SAYS:
        keywords = dict.fromkeys(names)
        for _file, _line, text, *_more in extract_from_dir(
            package, [(pattern, method)], keywords=keywords
        ):
            catalogue.add(text, context=context)
    for path in sorted((package / "teaching/checks").glob("*.py")):
        for node, is_docstring, is_part in strings(ast.parse(path.read_text(encoding="utf-8"))):
            is_alone = isinstance(node, ast.Constant) and not is_docstring and not is_part
            if is_alone and says(node.value):
                catalogue.add(node.value)
    return catalogue


def of_the_pages() -> Catalog:
    """Return the cheat sheet's text, and what the pages themselves say: what stands in `_("…")` in
    Python and in templates, in `say("…")` in JavaScript, and in a style."""
    catalogue = Catalog(charset="utf-8")
    for message in in_markdown(SHEET.read_text(encoding="utf-8"), "cheatsheet"):
        catalogue.add(message.text, context=message.context)
    keywords = dict.fromkeys(("_", "N_", "say"))
    methods = [("**.py", "python"), ("**.j2", "jinja2"), ("**.js", "javascript")]
    for _file, _line, text, *_more in extract_from_dir(SITE, methods, keywords=keywords):
        catalogue.add(text, context="site")
    for text in re.findall(WRITTEN, (SITE / "style.css").read_text(encoding="utf-8")):
        catalogue.add(text, context="site")
    return catalogue


def templates() -> dict[str, Catalog]:
    """Return every catalogue's messages, untranslated, by its name."""
    lessons = {lesson.name[:2]: template(lesson) for lesson in LESSONS}
    return lessons | {"package": of_the_package(), "pages": of_the_pages()}


def load(path: Path, language: str) -> Catalog:
    """Return a catalogue, an empty one where there is none."""
    if not path.exists():
        return Catalog(locale=language)
    with open(path, "rb") as file:
        return read_po(file, locale=language)


def updated(path: Path, language: str, new: Catalog) -> Catalog:
    """Bring a catalogue up to date: what has changed is fuzzy, what has gone is gone."""
    catalogue = load(path, language)
    catalogue.update(new, no_fuzzy_matching=False, update_creation_date=False)
    with open(path, "wb") as file:
        write_po(file, catalogue, width=0, omit_header=True, ignore_obsolete=True)
    return catalogue


def counted(catalogue: Catalog) -> tuple[int, int, int]:
    """Return how many messages are translated, fuzzy, missing."""
    some = [message for message in catalogue if message.id]
    fuzzy = sum(message.fuzzy for message in some)
    missing = sum(not message.string for message in some)
    return len(some) - fuzzy - missing, fuzzy, missing


# --- notebooks ------------------------------------------------------------------------------------


def translated(
    notebook: nbformat.NotebookNode, catalogue: Catalog, tag: str
) -> nbformat.NotebookNode:
    """Return a lesson in the language of a catalogue, without outputs."""
    for i, some in messages(notebook):
        cell = notebook.cells[i]
        cell.source = replaced(cell.source, some, catalogue)
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
            spoken = f'language: str = "{tag}"'
            cell.source = cell.source.replace(f'language: str = "{ENGLISH}"', spoken)
    return notebook


def replaced(text: str, some: Iterable[Message], catalogue: Catalog) -> str:
    """Return a text with what the catalogue knows in place of its messages. Strings of code, which
    figures draw, stay English where no font has the language's characters."""
    for message in reversed([*some]):
        known = catalogue.get(message.text, message.context)
        if known is None or not known.string or known.fuzzy:
            continue
        if message.context == "code" and not can_draw(known.string):
            continue
        old, new = text[message.start : message.end], known.string
        if old != message.text:  # a string, with its quotes
            new = literal(new, old)
        text = text[: message.start] + new + text[message.end :]
    return text


def make(tag: str) -> None:
    """Write the lessons, the cheat sheet and what the package says in a language, as "zh-TW"."""
    language = tag.replace("-", "_")
    if not (LOCALE / language).is_dir():
        known = ", ".join(folder.name.replace("_", "-") for folder in languages())
        sys.exit(f"There is no folder {LOCALE / language}: choose one of {known}.")
    folder = made(tag)
    for part in (folder / "notebooks", folder / SHEET.parent.name):
        part.mkdir(parents=True, exist_ok=True)
    for lesson in LESSONS:
        notebook = nbformat.read(lesson, as_version=4)
        catalogue = load(LOCALE / language / f"{lesson.name[:2]}.po", language)
        nbformat.write(translated(notebook, catalogue, tag), folder / "notebooks" / lesson.name)
    text, pages = SHEET.read_text(encoding="utf-8"), load(LOCALE / language / "pages.po", language)
    put = folder / SHEET.relative_to(PROJECT)
    put.write_text(replaced(text, in_markdown(text, "cheatsheet"), pages), encoding="utf-8")
    compiled = LOCALE / language / "LC_MESSAGES/vae_lesson.mo"
    compiled.parent.mkdir(exist_ok=True)
    package = load(LOCALE / language / "package.po", language)
    with written_whole(compiled) as part, open(part, "wb") as file:  # another may read it now
        write_mo(file, package)
    if not all(can_draw(message.string) for message in package if message.id):
        print(f"No font for {tag} is installed: figures and tables stay English.", file=sys.stderr)


def languages() -> list[Path]:
    """Return the folders of the languages that there are catalogues of."""
    return sorted(path for path in LOCALE.iterdir() if path.is_dir())


def update() -> bool:
    """Bring every catalogue up to date and print what is translated; say whether all is."""
    print(f"{'':12}{'translated':>12}{'fuzzy':>8}{'missing':>8}")
    done = True
    for folder in languages():
        print(folder.name.replace("_", "-"))
        for name, new in templates().items():
            known, fuzzy, missing = counted(updated(folder / f"{name}.po", folder.name, new))
            print(f"  {name:10}{known:12}{fuzzy:8}{missing:8}")
            done = done and not fuzzy + missing
    return done


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["update"]:
            update()
        case ["make", tag]:
            make(tag)
        case _:
            sys.exit(__doc__)
