"""The course as static pages, in results/site/: `make site`; `make site PAGES=only` takes the last
run's lessons.

A page asks the network for nothing: pictures, style, mathematics (as MathML) and the explorers are
in it. The explorers live without a kernel, see page.js; the weights of their networks are in files
beside the pages, each network once. Every page is there in every language, see languages.py.
"""

import base64
import io
import json
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Collection
from html import escape, unescape
from pathlib import Path
from unittest.mock import patch
from urllib.parse import quote

import address  # the Makefile puts tools/ on the path
import languages
import matplotlib.figure
import nbformat
from jinja2 import Environment, FileSystemLoader
from languages import ENGLISH, N_, _
from latex2mathml.converter import convert
from nbconvert import HTMLExporter
from nbconvert.filters.markdown_mistune import IPythonRenderer, MarkdownWithMath
from nbformat import NotebookNode
from PIL import Image
from pygments.styles import get_style_by_name
from pygments.token import STANDARD_TYPES
from refresh import cleaned, executed
from translations import WRITTEN, make

from vae_lesson.explore import playground as living  # the figure that opens the site
from vae_lesson.explore.explorer import FRONT, MODULES, STILL, Figure, script
from vae_lesson.explore.page import MIME
from vae_lesson.places import PROJECT
from vae_lesson.running.saving import results_path
from vae_lesson.teaching.copies import make_or_compare, parted

HERE = Path(__file__).parent
# The explorers' own, with the page as their host in place of the kernel.
SCRIPT = script(
    *(FRONT / f"{name}.js" for name in MODULES if name != "kernel"),
    *(HERE / f"{name}.js" for name in ("decode", "centre", "page")),
)
LESSONS = sorted((PROJECT / "notebooks").glob("[0-9]*.ipynb"))
HOME = N_("The VAE lesson")
PLAYGROUND = N_("See a VAE learn")
PLAYS = N_("A VAE of small digits trains in this page: move β, and watch its codes and its loss.")
SHEET = PROJECT / "docs/cheatsheet.md"
QUALITY = 50  # of a picture as WebP, where that is smaller: a quarter of the bytes of most
SHARE = "share.png"
# Bytes of a page without weights, and of all pages in a language.
LARGEST, LARGEST_SITE = 2_000_000, 17_000_000
# Browsers do not know these variants, but the letters themselves.
LETTERS = {
    '<mi mathvariant="script">N': "𝒩",
    '<mi mathvariant="script">L': "ℒ",
    '<mi mathvariant="double-struck">E': "𝔼",
}
HAN, WIDE = "[一-鿿]", "[、。「」！（），：；？]"  # letters and punctuation of Chinese
SOFT = "\x1f"  # an end of a line in a paragraph, as yet
SCROLLS = 'class="scrolls" role="group"'  # what may be wider than a phone
FRAME = (HERE / "frame.js").read_text(encoding="utf-8")
ICON = quote((HERE / "icon.svg").read_text(encoding="utf-8"), safe=" =:/'")
GUESSES = (HERE / "guesses.js").read_text(encoding="utf-8")
GUESS = re.compile(r"^\w*guess = \.\.\.  # (.+)$", re.M)
# As lesson.answer says it: "{what}: {measured}.", of which another language may have wide forms.
MEASURED = re.compile(r"^.+[:：] ?(-?[\d.,]*\d(?:e[+-]\d+)?)[.。]$", re.M)
HEADING = re.compile(r'(<h\d id=")([^"]+)(">.+?<a class="anchor-link" href="#)\2', re.S)
places = {}  # {page: the ids of its headings in English}


class Renderer(IPythonRenderer):
    """Markdown with its formulas as MathML, which browsers draw themselves."""

    def inline_math(self, body: str) -> str:
        return mathml(body, "inline")

    def block_math(self, body: str) -> str:
        said = _("formula")
        return f'<span {SCROLLS} aria-label="{said}">{mathml(body, "block")}</span>'

    def emphasis(self, text: str) -> str:
        is_title = re.search("[A-Za-z]{2}", text) or len(text) > 20  # of a book, or a caption
        stressed = ' class="stressed"' if re.search(HAN, text) and not is_title else ""
        return f"<em{stressed}>{text}</em>"

    def softbreak(self) -> str:
        return SOFT


def mathml(formula: str, display: str) -> str:
    """Return a formula in LaTeX as MathML."""
    # latex2mathml takes the 12 of \tfrac12 for one number.
    formula = re.sub(r"(\\[td]?frac)(\d)(\w)", r"\1{\2}{\3}", formula)
    math = convert(formula.strip(), display=display)
    for variant, letter in LETTERS.items():
        math = math.replace(variant, f"<mi>{letter}")
    return re.sub(r"(<mi>[a-z]{3,}</mi>)(?!<mo)", r'\1<mspace width="0.167em" />', math)  # log p


def markdown(text: str) -> str:
    """Return Markdown as HTML, with links to lessons and the cheat sheet as links to
    their pages."""
    renderer = Renderer(escape=False, anchor_link_text="¶")
    html = MarkdownWithMath(renderer=renderer).render(text)
    # The end of a line is a space, but none in Chinese.
    html = re.sub(f"(?<={WIDE}){SOFT}|{SOFT}(?={WIDE})|(?<={HAN}){SOFT}(?={HAN})", "", html)
    html = html.replace(SOFT, "\n")
    said = _("table")
    html = html.replace("<table>", f'<div {SCROLLS} aria-label="{said}"><table>')
    html = html.replace("</table>", "</table></div>")
    # A formula and the full stop behind it: else a line may begin with that.
    closed = rf"<math [^>]*inline((?!</math>).)*</math>(?:[.,:;?!)]|{WIDE})+"
    html = re.sub(closed, r'<span class="joined">\g<0></span>', html)
    html = re.sub(r'href="(?:(?:\.\./)?notebooks/)?(\d\d_\w+)\.ipynb', r'href="\1.html', html)
    return re.sub(r'href="(?:\.\./)?docs/cheatsheet\.md', 'href="cheatsheet.html', html)


def picture(output: NotebookNode) -> str:
    """Return an output's picture as an image with its alternative text."""
    return image(output.data["image/png"], output.metadata["image/png"]["alt"])


def alive(output: NotebookNode) -> str:
    """Return an explorer's output as HTML: a still picture until it lives, and where it cannot."""
    still = _("A still picture: to move it, allow this page its JavaScript.")
    return f"""<figure class="explorer">
<div class="still">{picture(output)}
<noscript>{still}</noscript></div>
<script type="application/json">{in_script(output.data[MIME])}</script>
</figure>"""


def figure(explorer: Figure) -> str:
    """Return an explorer that needs no network as HTML, for a page that is no lesson."""
    with patch.dict(os.environ, VAE_LESSON_SITE="1"):
        data, metadata = explorer._repr_mimebundle_()
    data[MIME].pop("weights")
    return alive(NotebookNode(data=data, metadata=metadata))


def image(png: str, alt: str) -> str:
    """Return a picture, base64 of a PNG, as HTML."""
    kind, data = smaller(png)
    width, height = Image.open(io.BytesIO(base64.b64decode(data))).size
    source = f"data:image/{kind};base64,{data}"
    return f'<img alt="{escape(alt)}" width="{width}" height="{height}" src="{source}">'


def smaller(png: str) -> tuple[str, str]:
    """Return the format and the base64 of a picture, as WebP if that has fewer bytes."""
    buffer = io.BytesIO()
    picture = Image.open(io.BytesIO(base64.b64decode(png)))
    picture.save(buffer, format="WebP", quality=QUALITY, method=6)
    webp = base64.b64encode(buffer.getvalue()).decode()
    return ("webp", webp) if len(webp) < len(png) else ("png", png)


def in_script(value: object) -> str:
    """Return JSON that stands in a <script>, which a "</script>" in a text would end."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c")


def without_style(html: str) -> str:
    """Return an output's HTML without colours of its own, which know no dark face."""
    return re.sub(r"<style>.*?</style>", "", html, flags=re.S)


FILTERS = {
    "markdown2html": markdown,
    "picture": picture,
    "alive": alive,
    "without_style": without_style,
}


def code_style() -> str:
    """Return the style of code: Pygments' colours on light and on dark pages."""
    light, dark = map(get_style_by_name, ("default", "github-dark"))
    rules = []
    for kind, name in STANDARD_TYPES.items():
        on_light, on_dark = light.style_for_token(kind), dark.style_for_token(kind)
        # What has no colour of its own has the text's.
        colours = [face["color"] and f"#{face['color']}" for face in (on_light, on_dark)]
        both = ", ".join(colour or "currentcolor" for colour in colours)
        rule = f"color: light-dark({both});" if any(colours) else ""
        rule += " font-weight: bold;" * on_light["bold"]
        rule += " font-style: italic;" * on_light["italic"]
        if name and rule:
            rules.append(f".highlight .{name} {{ {rule.strip()} }}")
    return "\n".join(rules)


def style() -> str:
    """Return the style of every page: its own, the explorers' parts', and the code's."""
    parts = (FRONT / "explorer.css").read_text(encoding="utf-8")
    own = (HERE / "style.css").read_text(encoding="utf-8")
    font = base64.b64encode((HERE / "stretchy.woff").read_bytes()).decode()
    own = own.replace("stretchy.woff", f"data:font/woff;base64,{font}")
    own = re.sub(WRITTEN, lambda found: _(found[0]), own)
    return "\n".join([code_style(), parts, own])


def lesson_page(notebook: NotebookNode, ways: str, name: str = "") -> tuple[str, dict]:
    """Return an executed lesson as a page, of the file `name`, and the weights that it needs,
    {key: network}."""
    notebook = cleaned(notebook)
    notebook.cells = [cell for cell in notebook.cells if cell.id != "install"]
    weights = {}
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            if explorer := output.get("data", {}).get(MIME):
                weights |= explorer.pop("weights")
                for drawn in explorer["state"].get("backgrounds", []):
                    drawn["base64"] = smaller(drawn["base64"])[1]
    questions(notebook)
    exporter = HTMLExporter(
        extra_template_basedirs=[str(HERE)], template_name="template", filters=FILTERS
    )
    exporter.environment.globals |= {"STILL": STILL, "EXPLORER": MIME, "SCROLLS": SCROLLS, "_": _}
    body = exporter.from_notebook_node(notebook)[0]
    head = f"{title(notebook)} · {_(HOME)}"
    # Its question: the first line that is bold, behind its colon.
    question = re.search(r"(?m)^\*\*[^:：]+[:：] ?(.+)\*\*$", notebook.cells[0].source)
    about = capitalized(question[1]) if question else head
    return page(head, body, ways, weights, "lesson", about, name), weights


def capitalized(text: str) -> str:
    return text[0].upper() + text[1:]


def questions(notebook: NotebookNode) -> list[str]:
    """Mark in a lesson what a page asks, and what waits for an answer; return the questions' ids.

    Asked are the guesses, and what an "Answer" is folded to. What waits for a guess is what the
    learner's copy leaves out or folds: outputs, and what the next text says of them.
    """
    asked, open_guesses = [], []
    folded = "<details>\n<summary>" + _("Answer")  # or Answers
    for cell in notebook.cells:
        if cell.cell_type == "code":
            if guess := GUESS.search(cell.source):
                open_guesses.append(cell)
                cell.metadata["guess"] = {"words": capitalized(guess[1])}
            elif open_guesses:
                cell.metadata["waits"] = open_guesses[-1].id
            if open_guesses and "lesson.answer(" in cell.source:
                said = [o.get("text") or o.data.get("text/plain", "") for o in cell.outputs]
                for measured in MEASURED.findall("\n".join(said))[:1]:
                    open_guesses[-1].metadata["guess"]["measured"] = measured
                    asked.append(open_guesses[-1].id)
            continue
        if open_guesses and "measured" in open_guesses[-1].metadata["guess"]:
            waiting, rest = "", cell.source
            for guess in open_guesses:  # a paragraph for each
                answer, *others = parted(rest)
                waiting += f'<div data-waits="{guess.id}">\n\n{answer}\n\n</div>\n\n'
                rest = "\n\n".join(others)
            cell.source, open_guesses = waiting + rest, []
        for n in range(cell.source.count(folded)):
            asked.append(f"{cell.id}-{n + 1}")
            named = folded.replace("<details", f'<details data-question="{asked[-1]}"')
            cell.source = cell.source.replace(folded, named, 1)
    return asked


def index_page(readme: str, asked: dict[str, list[str]], live: Collection[str] = ()) -> str:
    """Return the page that leads to the lessons: the README until it leads into its folders.
    asked: what `questions` returns of each lesson, by its name. live: names of the lessons whose
    pages have explorers."""
    # Its last two sections lead into its folders, and name the licence.
    opening, start, lessons, *others = re.split(r"\n(?=## )", readme)[:-2]
    # Its picture lives here; the line of languages is on every page.
    name, _languages, sentence, _picture, _caption, rest = opening.split("\n\n", 5)
    first = f"{LESSONS[0].stem}.html"
    buttons = {_("Read lesson {n}").format(n=first[:2]): first, _("Install it"): "#Start"}
    if address.ADDRESS:
        buttons[_("Run it in the cloud")] = address.colab(LESSONS[0].stem)
    links = "".join(f'<a href="{href}">{words}</a>' for words, href in buttons.items())
    there = _(
        "The lessons are pages to read: nothing to install. Those marked *live* have sliders."
    )
    html = markdown(f"{name}\n\n{sentence}\n{there}") + f'<p class="buttons">{links}</p>'
    alone = _('The same on <a href="playground.html">a page of its own</a>')
    # What there is comes before how it is installed.
    html += markdown(f"## {_(PLAYGROUND)}\n\n{_(PLAYS)}") + figure(living())
    html += f'<p class="aside">{alone}</p>' + markdown("\n\n".join([lessons, rest, start, *others]))
    path = PROJECT / "notebooks/picture.png"
    png = base64.b64encode(path.read_bytes()).decode()
    tag = r'<img src="notebooks/picture.png" alt="([^"]*)" ?/>'
    html = re.sub(tag, lambda found: image(png, unescape(found[1])), html)
    for name, ids in asked.items():  # where guesses.js says how many are answered
        mark = f'<div class="done" hidden data-lesson="{name}" data-asked="{" ".join(ids)}"></div>'
        html = re.sub(rf'(<a href="{name}\.html">.*?</a>)(?=</td>)', rf"\1{mark}", html)
    live_mark, means = _("live"), _("with sliders or maps that move")
    live_mark = f'<small class="live" title="{means}">{live_mark}</small>'
    for name in live:
        html = re.sub(rf'(<a href="{name}\.html">.*?</a>)(?=</td>|<div)', rf"\1 {live_mark}", html)
    return page(_(HOME), html, "", {}, about=sentence, name="index.html")


def playground_page() -> str:
    """Return the page of the figure that opens the site, alone."""
    name, plays, file = _(PLAYGROUND), _(PLAYS), "playground.html"
    begin = _("Begin with lesson 01 →")
    ways = f'<nav>{homeward()}<a rel="next" href="{LESSONS[0].stem}.html">{begin}</a></nav>'
    body = markdown(f"# {name}\n\n{plays}") + figure(living())
    return page(f"{name} · {_(HOME)}", body, ways, {}, "figure", plays, file)


def sheet_page(text: str) -> str:
    """Return the cheat sheet, each part of it a section of its own: printed, it is one page."""
    opening, *parts = (markdown(part) for part in re.split(r"(?m)^(?=## )", text))
    names = re.findall(r"(?m)^## (\w+)", SHEET.read_text(encoding="utf-8").lower())
    sections = (f'<section class="{n}">{part}</section>' for n, part in zip(names, parts))
    body, ways = "\n".join([opening, *sections]), f"<nav>{homeward()}</nav>"
    title = f"{text.splitlines()[0].removeprefix('# ')} · {_(HOME)}"
    about = _("Symbols, formulas, healthy numbers, and symptoms with what to do, on one page.")
    return page(title, body, ways, {}, "sheet", about, "cheatsheet.html")


def page(
    title: str,
    body: str,
    ways: str,
    weights: dict,
    kind: str = "index",
    about: str = "",
    name: str = "",
) -> str:
    """Return a whole page. ways: its links to the pages around it. kind: index, lesson, sheet or
    figure. about: what it is about, in a sentence of Markdown. name: of its file."""
    environment = Environment(loader=FileSystemLoader(HERE / "template"))
    environment.globals |= {"_": _, "in_script": in_script}
    body = with_english_ids(body, name)
    body = re.sub(r"<th([^>]*)></th>", r"<td\1></td>", body)  # an empty cell heads nothing
    parts = {"title": escape(title), "body": body, "ways": ways, "weights": weights}
    asks = "data-question=" in body or "data-asked=" in body
    parts |= {"kind": kind, "guesses": GUESSES if asks else ""}
    about = unescape(re.sub(r"<[^>]+>", "", markdown(about))).strip()
    parts |= {"about": escape(about), "icon": ICON, "frame": FRAME}
    parts |= {"contents": contents(body), "address": address.ADDRESS}
    parts |= {"language": languages.spoken, "versions": languages.versions(name)}
    parts |= {"said": languages.for_scripts(FRAME + GUESSES), "up": languages.up()}
    if address.ADDRESS:
        parts |= {"share": f"{address.pages()}{SHARE}", "site": address.pages()}
    return environment.get_template("page.html.j2").render(style=style(), script=SCRIPT, **parts)


def with_english_ids(body: str, name: str) -> str:
    """Give a page's headings the ids that they have in English, in their order: a link leads to the
    same place in every language."""
    own = [found[2] for found in HEADING.finditer(body)]
    if languages.spoken == ENGLISH:
        places[name] = own
    ids = places.get(name, own) if name else own
    if len(ids) != len(own):
        raise ValueError(
            f"{name}: {len(own)} headings in {languages.spoken}, {len(ids)} in English"
        )
    each = iter(ids)

    def renamed(found: re.Match) -> str:
        new = next(each)
        return f"{found[1]}{new}{found[3]}{new}"

    return HEADING.sub(renamed, body)


def contents(body: str) -> str:
    """Return links to a lesson's sections, folded."""
    sections = re.findall(r'<h2 id="([^"]+)">(.+?)<a class="anchor-link"', body)
    links = "".join(f'<li><a href="#{place}">{name}</a></li>' for place, name in sections)
    shown, said = _("Contents"), _("contents")
    folded = f"<details><summary>{shown}</summary><ul>{links}</ul></details>"
    return f'<nav class="aside contents" aria-label="{said}">{folded}</nav>'


def homeward() -> str:
    """Return the link to the index."""
    return '<a href="index.html">' + _("All lessons") + "</a>"


def title(notebook: NotebookNode) -> str:
    """Return a lesson's title, the heading of its first cell."""
    return notebook.cells[0].source.split("\n")[0].removeprefix("# ")


def ways(i: int, titles: list[str], names: list[str]) -> str:
    """Return the links of lesson i to the lessons around it, and to where it can be run."""
    links = [homeward()]
    if i > 0:
        links.insert(0, f'<a rel="prev" href="{names[i - 1]}.html">← {escape(titles[i - 1])}</a>')
    if i + 1 < len(names):
        links.append(f'<a rel="next" href="{names[i + 1]}.html">{escape(titles[i + 1])} →</a>')
    own = _('This lesson <a href="{name}.ipynb" download>as a notebook</a>, without outputs')
    if address.ADDRESS:
        hosts = {"Colab": address.colab(names[i]), "Kaggle": address.kaggle(names[i])}
        run = [f'<a href="{href}">{host}</a>' for host, href in hosts.items()]
        more = _("run it in {hosts}").format(hosts=_(" or ").join(run))
    else:  # then it can be run nowhere else
        more = _('it needs <a href="index.html#Start">the course installed</a>')
    aside = _("{own}; {more}").format(own=own.format(name=names[i]), more=more)
    return f'<nav>{" ".join(links)}</nav>\n<p class="aside">{aside}</p>'


def share_picture() -> Image.Image:
    """Return the picture that stands beside a link to a page, where people share it."""
    figure = matplotlib.figure.Figure(figsize=(12, 6.3), dpi=100)
    figure.text(0.05, 0.8, HOME, size=56, weight="bold")
    figure.text(0.05, 0.7, "from the plain autoencoder to the latent space of a VAE", size=24)
    axes = figure.add_axes((0.05, 0.08, 0.9, 0.56))
    axes.imshow(Image.open(PROJECT / "notebooks/picture.png"), interpolation="lanczos")
    axes.axis("off")
    buffer = io.BytesIO()
    figure.savefig(buffer)
    return Image.open(buffer).convert("L")


def write(site: Path, name: str, text: str, weights: dict) -> None:
    """Write a page and, beside those in English, its weights, and say its size; a page that is too
    large ends it all."""
    (site / name).write_text(text, encoding="utf-8")
    for key, network in weights.items():
        code = f"(globalThis.vaeWeights ??= {{}})[{key!r}] = {json.dumps(network)};"
        (site / f"{key}.js").write_text(code, encoding="utf-8")
    size = len(text.encode())
    print(f"{name}: {size / 1e6:.2f} MB, {len(weights)} networks", flush=True)
    if size > LARGEST:
        sys.exit(f"{site / name}: a page has at most {LARGEST:,} bytes")


def lessons_run(language: str, only: bool, run: Path) -> list[NotebookNode]:
    """Return the lessons in a language, run now, or with `only` as the last run left them in a
    folder; none if that did not run them all."""
    missing = [path.name for path in LESSONS if not (run / path.name).is_file()]
    if only and missing:
        if language == ENGLISH:
            sys.exit(f"{run} lacks {', '.join(missing)}: run `make site` without PAGES=only")
        print(f"{language} is left out: {run} lacks {', '.join(missing)}")
        return []  # all or none: a run is of one piece
    if language != ENGLISH:
        make(language)
    if only:
        return [nbformat.read(run / path.name, as_version=4) for path in LESSONS]
    os.environ["VAE_LESSON_SITE"] = "1"  # the explorers leave what a page needs
    with tempfile.TemporaryDirectory() as results:
        os.environ["VAE_LESSON_RESULTS"] = results  # no old model gets in
        return [executed(languages.source(language, path)) for path in LESSONS]


def write_language(language: str, notebooks: list[NotebookNode], site: Path) -> None:
    """Write all pages in a language; it ends it all if they are too many bytes."""
    languages.speak(language)
    folder = languages.place(language)
    (site / folder).mkdir(exist_ok=True)
    before = sum(path.stat().st_size for path in site.rglob("*.*"))
    names, titles, live = [path.stem for path in LESSONS], [*map(title, notebooks)], []
    for i, (name, notebook) in enumerate(zip(names, notebooks)):
        html, weights = lesson_page(notebook, ways(i, titles, names), f"{name}.html")
        write(site, f"{folder}{name}.html", html, weights)
        make_or_compare(languages.source(language, LESSONS[i]), site / folder / LESSONS[i].name)
        if '<figure class="explorer">' in html:
            live.append(name)
    readme = PROJECT / f"README.{language}.md"
    readme = (readme if readme.exists() else PROJECT / "README.md").read_text(encoding="utf-8")
    asked = dict(zip(names, map(questions, notebooks)))
    write(site, f"{folder}index.html", index_page(readme, asked, live), {})
    write(site, f"{folder}playground.html", playground_page(), {})
    sheet = languages.source(language, SHEET).read_text(encoding="utf-8")
    write(site, f"{folder}cheatsheet.html", sheet_page(sheet), {})
    size = sum(path.stat().st_size for path in site.rglob("*.*")) - before
    if size > LARGEST_SITE:
        sys.exit(f"{site / folder}: {size:,} bytes, and a site has at most {LARGEST_SITE:,}")
    print(f"{size / 1e6:.1f} MB in all: open {site / folder / 'index.html'}")


def main(only: bool) -> None:
    """Run the lessons, in order, and write the site; with `only`, of what the last run left."""
    site, run = results_path("site"), results_path("site_run")
    shutil.rmtree(site, ignore_errors=True)  # no weights of an earlier run
    site.mkdir(parents=True)
    run.mkdir(parents=True, exist_ok=True)
    folders = {language: run / languages.place(language) for language in languages.KNOWN}
    done = {language: lessons_run(language, only, folders[language]) for language in folders}
    done = {language: notebooks for language, notebooks in done.items() if notebooks}
    languages.built = [*done]
    for language, notebooks in done.items():
        folders[language].mkdir(exist_ok=True)
        for path, notebook in zip(LESSONS, [] if only else notebooks):
            nbformat.write(notebook, folders[language] / path.name)
    for language, notebooks in done.items():
        write_language(language, notebooks, site)
    languages.speak(ENGLISH)
    if address.ADDRESS:
        share_picture().save(site / SHARE)


if __name__ == "__main__":
    if sys.argv[1:] not in ([], ["only"]):
        sys.exit(f"PAGES can be `only`, or nothing: got {' '.join(sys.argv[1:])}")
    main(only=len(sys.argv) > 1)
