"""The house: which file may import which, read from the imports themselves; where pages lead."""

import ast
import re
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[1]
PACKAGE = PROJECT / "vae_lesson"
FILES = {
    ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__"): path
    for path in PACKAGE.rglob("*.py")
}
CORE = {"arguments", "places", "data", "models", "losses", "train", "evaluate", "generation"}
CORE |= {"latent", "adapter", "measures", "words", "fonts"}
# What a wing may import beside itself and the core. `running` is the only one that the core knows.
WINGS = {
    "running": set(),
    "sources": {"running"},  # the guard of a GPU that a picture set would fill
    "likelihood": set(),
    "clinic": set(),
    "priors": set(),
    "teaching": {"running", "sources", "likelihood", "clinic", "priors"},
    "explore": {"priors"},  # what of them a page without a kernel can compute
    "__main__": {"running", "sources", "likelihood"},  # the command drives them all
    "use": {"running", "sources"},  # a trained model in another program
}


def imports(path: Path) -> set[str]:
    """Return the package's modules that a file imports, wherever in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            found |= {name if name in FILES else node.module for name in names}
    return {name for name in found if name.split(".")[0] == "vae_lesson"}


ARROWS = {name: imports(path) for name, path in FILES.items()}


def part(module: str) -> str:
    """Return the core file, or the wing, that a module is in."""
    return [*module.split("."), ""][1]


def test_the_core_and_the_wings_are_all_there_is():
    assert {part(name) for name in FILES} == CORE | set(WINGS) | {""}


@pytest.mark.parametrize("name", sorted(FILES))
def test_arrows_point_one_way(name):
    own, targets = part(name), {part(target) for target in ARROWS[name]}
    assert "" not in targets
    wings = targets - CORE - {own}
    if name == "vae_lesson.train":
        assert wings == {"running"}
    elif own in CORE or own == "":
        assert wings == set(), "the core knows no wing"
    else:
        assert wings <= WINGS[own]


def test_no_circle():
    done, under_way = set(), []

    def visit(name: str) -> None:
        assert name not in under_way, " -> ".join([*under_way, name])
        if name not in done:
            under_way.append(name)
            for target in sorted(ARROWS[name]):
                visit(target)
            done.add(under_way.pop())

    for name in FILES:
        visit(name)


PAGES = sorted([*PROJECT.glob("*.md"), *PROJECT.glob("docs/*.md")])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_page_leads_to_what_is_there(page):
    text = page.read_text(encoding="utf-8")
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        path, _, heading = link.partition("#")
        if path.startswith("https:"):
            continue
        target = page.parent / path if path else page
        assert target.exists(), link
        headings = (
            re.findall(r"^#+ (.*)", target.read_text(encoding="utf-8"), re.M) if heading else []
        )
        assert heading in ["", *(each.lower().replace(" ", "-") for each in headings)], link


def test_the_readme_is_short():
    assert (PROJECT / "README.md").stat().st_size <= 9_000
