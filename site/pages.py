"""The course as static pages, in results/site/: `make site`; `make site PAGES=only` takes the last
run's lessons.

A page asks the network for nothing: pictures, style, mathematics (as MathML) and the explorers are
in it. The explorers live without a kernel, see page.js; the weights of their networks are in files
beside the pages, each network once.
"""

import base64
import io
import json
import os
import re
import shutil
import sys
import tempfile
from html import escape, unescape
from pathlib import Path

import address  # the Makefile puts tools/ on the path
import nbformat
from jinja2 import Environment, FileSystemLoader
from latex2mathml.converter import convert
from nbconvert import HTMLExporter
from nbconvert.filters.markdown_mistune import IPythonRenderer, MarkdownWithMath
from nbformat import NotebookNode
from PIL import Image
from pygments.formatters import HtmlFormatter
from refresh import cleaned, executed

from vae_lesson.explore.explorer import FRONT, MODULES, STILL, script
from vae_lesson.explore.page import MIME
from vae_lesson.places import PROJECT
from vae_lesson.running.saving import results_path

HERE = Path(__file__).parent
# The explorers' own, with the page as their host in place of the kernel.
SCRIPT = script(
    *(FRONT / f"{name}.js" for name in MODULES if name != "kernel"),
    *(HERE / f"{name}.js" for name in ("decode", "centre", "page")),
)
LESSONS = sorted((PROJECT / "notebooks").glob("[0-9]*.ipynb"))
HOME = "The VAE lesson"
HOMEWARD = '<a href="index.html">All lessons</a>'
SHEET = PROJECT / "docs/cheatsheet.md"
QUALITY = 50  # of a picture as WebP, where that is smaller: a quarter of the bytes of most
LARGEST, LARGEST_SITE = 2_000_000, 15_000_000  # bytes of a page without weights, and of all
# Browsers do not know these variants, but the letters themselves.
LETTERS = {
    '<mi mathvariant="script">N': "𝒩",
    '<mi mathvariant="script">L': "ℒ",
    '<mi mathvariant="double-struck">E': "𝔼",
}
SCROLLS = 'class="scrolls" role="group"'  # what may be wider than a phone


class Renderer(IPythonRenderer):
    """Markdown with its formulas as MathML, which browsers draw themselves."""

    def inline_math(self, body: str) -> str:
        return mathml(body, "inline")

    def block_math(self, body: str) -> str:
        return f'<span {SCROLLS} aria-label="formula">{mathml(body, "block")}</span>'


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
    html = html.replace("<table>", f'<div {SCROLLS} aria-label="table"><table>')
    html = html.replace("</table>", "</table></div>")
    # A formula and the full stop behind it: else a line may begin with that.
    closed = r"<math [^>]*inline((?!</math>).)*</math>[.,:;?!)]+"
    html = re.sub(closed, r'<span class="joined">\g<0></span>', html)
    html = re.sub(r'href="(?:(?:\.\./)?notebooks/)?(\d\d_\w+)\.ipynb', r'href="\1.html', html)
    return re.sub(r'href="(?:\.\./)?docs/cheatsheet\.md', 'href="cheatsheet.html', html)


def picture(output: NotebookNode) -> str:
    """Return an output's picture as an image with its alternative text."""
    return image(output.data["image/png"], output.metadata["image/png"]["alt"])


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
    "in_script": in_script,
    "without_style": without_style,
}


def style() -> str:
    """Return the style of every page: its own, the explorers' parts', and the code's two faces."""
    light, dark = (
        HtmlFormatter(style=name).get_style_defs(".highlight")
        for name in ("default", "github-dark")
    )
    parts = (FRONT / "explorer.css").read_text(encoding="utf-8")
    own = (HERE / "style.css").read_text(encoding="utf-8")
    font = base64.b64encode((HERE / "stretchy.woff").read_bytes()).decode()
    own = own.replace("stretchy.woff", f"data:font/woff;base64,{font}")
    return f"{light}\n@media screen and (prefers-color-scheme: dark) {{\n{dark}\n}}\n{parts}\n{own}"


def lesson_page(notebook: NotebookNode, ways: str) -> tuple[str, dict]:
    """Return an executed lesson as a page, and the weights that it needs, {key: network}."""
    notebook = cleaned(notebook)
    notebook.cells = [cell for cell in notebook.cells if cell.id != "install"]
    weights = {}
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            if explorer := output.get("data", {}).get(MIME):
                weights |= explorer.pop("weights")
                for drawn in explorer["state"].get("backgrounds", []):
                    drawn["base64"] = smaller(drawn["base64"])[1]
    exporter = HTMLExporter(
        extra_template_basedirs=[str(HERE)], template_name="template", filters=FILTERS
    )
    exporter.environment.globals |= {"STILL": STILL, "EXPLORER": MIME, "SCROLLS": SCROLLS}
    body, _ = exporter.from_notebook_node(notebook)
    return page(f"{title(notebook)} · {HOME}", body, ways, weights, "lesson"), weights


def index_page(readme: str) -> str:
    """Return the page that leads to the lessons: the README until it leads into its folders."""
    html = markdown(readme.split("\n## More")[0])
    path = PROJECT / "notebooks/picture.png"
    png = base64.b64encode(path.read_bytes()).decode()
    tag = r'<img src="notebooks/picture.png" alt="([^"]*)" ?/>'
    html = re.sub(tag, lambda found: image(png, unescape(found[1])), html)
    return page(HOME, html, "", {})


def sheet_page(text: str) -> str:
    """Return the cheat sheet, each part of it a section of its own: printed, it is one page."""
    opening, *parts = (markdown(part) for part in re.split(r"(?m)^(?=## )", text))
    names = [re.search(r'<h2 id="(\w+)', part)[1].lower() for part in parts]
    sections = (f'<section class="{n}">{part}</section>' for n, part in zip(names, parts))
    ways = f"<nav>{HOMEWARD}</nav>"
    return page(f"Cheat sheet · {HOME}", "\n".join([opening, *sections]), ways, {}, "sheet")


def page(title: str, body: str, ways: str, weights: dict, kind: str = "index") -> str:
    """Return a whole page. ways: its links to the pages around it. kind: index, lesson or sheet."""
    environment = Environment(loader=FileSystemLoader(HERE / "template"))
    body = re.sub(r"<th([^>]*)></th>", r"<td\1></td>", body)  # an empty cell heads nothing
    parts = {"title": escape(title), "body": body, "ways": ways, "weights": weights}
    parts["kind"] = kind
    parts |= {"contents": contents(body), "address": address.ADDRESS}
    return environment.get_template("page.html.j2").render(style=style(), script=SCRIPT, **parts)


def contents(body: str) -> str:
    """Return links to a lesson's sections, folded."""
    sections = re.findall(r'<h2 id="([^"]+)">(.+?)<a class="anchor-link"', body)
    links = "".join(f'<li><a href="#{place}">{name}</a></li>' for place, name in sections)
    return f'<details class="aside"><summary>Contents</summary><ul>{links}</ul></details>'


def title(notebook: NotebookNode) -> str:
    """Return a lesson's title, the heading of its first cell."""
    return notebook.cells[0].source.split("\n")[0].removeprefix("# ")


def ways(i: int, titles: list[str], names: list[str]) -> str:
    """Return the links of lesson i to the lessons around it, and to where it can be run."""
    links = [HOMEWARD]
    if i > 0:
        links.insert(0, f'<a rel="prev" href="{names[i - 1]}.html">← {escape(titles[i - 1])}</a>')
    if i + 1 < len(names):
        links.append(f'<a rel="next" href="{names[i + 1]}.html">{escape(titles[i + 1])} →</a>')
    nav = f"<nav>{' '.join(links)}</nav>"
    if not address.ADDRESS:  # then it can be run nowhere else
        return nav
    hosts = {"Colab": address.colab(names[i]), "Kaggle": address.kaggle(names[i])}
    run = " or ".join(f'<a href="{href}">{host}</a>' for host, href in hosts.items())
    return f'{nav}\n<p class="aside">Run this lesson in {run}</p>'


def write(site: Path, name: str, text: str, weights: dict) -> None:
    """Write a page and its weights, and say its size; a page that is too large ends it all."""
    (site / name).write_text(text, encoding="utf-8")
    for key, network in weights.items():
        code = f"(globalThis.vaeWeights ??= {{}})[{key!r}] = {json.dumps(network)};"
        (site / f"{key}.js").write_text(code, encoding="utf-8")
    size = len(text.encode())
    print(f"{name}: {size / 1e6:.2f} MB, {len(weights)} networks", flush=True)
    if size > LARGEST:
        sys.exit(f"{site / name}: a page has at most {LARGEST:,} bytes")


def main(only: bool) -> None:
    """Run the lessons, in order, and write the site; with `only`, of what the last run left."""
    site, run = results_path("site"), results_path("site_run")
    shutil.rmtree(site, ignore_errors=True)  # no weights of an earlier run
    site.mkdir(parents=True)
    run.mkdir(parents=True, exist_ok=True)
    if not only:
        os.environ["VAE_LESSON_SITE"] = "1"  # the explorers leave what a page needs
        with tempfile.TemporaryDirectory() as results:
            os.environ["VAE_LESSON_RESULTS"] = results  # no old model gets in
            done = [executed(path) for path in LESSONS]
        for path, notebook in zip(LESSONS, done):  # all or none: the last run is of one piece
            nbformat.write(notebook, run / path.name)
    missing = [path.name for path in LESSONS if not (run / path.name).is_file()]
    if missing:
        sys.exit(f"{run} lacks {', '.join(missing)}: run `make site` without PAGES=only")
    notebooks = [nbformat.read(run / path.name, as_version=4) for path in LESSONS]
    names, titles = [path.stem for path in LESSONS], [title(notebook) for notebook in notebooks]
    for i, (name, notebook) in enumerate(zip(names, notebooks)):
        write(site, f"{name}.html", *lesson_page(notebook, ways(i, titles, names)))
    readme = (PROJECT / "README.md").read_text(encoding="utf-8")
    write(site, "index.html", index_page(readme), {})
    write(site, "cheatsheet.html", sheet_page(SHEET.read_text(encoding="utf-8")), {})
    size = sum(path.stat().st_size for path in site.iterdir())
    if size > LARGEST_SITE:
        sys.exit(f"{site}: {size:,} bytes, and a site has at most {LARGEST_SITE:,}")
    print(f"{size / 1e6:.1f} MB in all: open {site / 'index.html'}")


if __name__ == "__main__":
    if sys.argv[1:] not in ([], ["only"]):
        sys.exit(f"PAGES can be `only`, or nothing: got {' '.join(sys.argv[1:])}")
    main(only=len(sys.argv) > 1)
