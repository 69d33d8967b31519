"""A cell of a lesson may be run again, and an earlier one after later ones: nothing changes."""

import ast
import builtins
import dis
import re
from types import CodeType

import pytest
import torch
from lessons import NAMES
from play import Play, code_cells, few_images, offline
from tiny import coloured_folder

AT_ONCE = {"<listcomp>", "<dictcomp>", "<setcomp>", "<genexpr>"}  # other code runs when called
CHANGES = {"append", "extend", "update", "add", "insert", "pop", "clear", "setdefault", "sort"}


def globals_of(code: CodeType) -> set[str]:
    """Return the names of the notebook that a function's code reads."""
    inner = (globals_of(const) for const in code.co_consts if isinstance(const, CodeType))
    loads = (i for i in dis.get_instructions(code) if i.opname in ("LOAD_GLOBAL", "LOAD_NAME"))
    return {i.argval for i in loads}.union(*inner)


def uses(tree: ast.Module) -> tuple[set[str], set[str], set[str]]:
    """Return the names that a cell reads before it writes them, reads in functions, and writes."""
    reads, late, writes = set(), set(), set()
    for i in dis.get_instructions(compile(tree, "cell", "exec")):
        if i.opname == "STORE_NAME":
            writes.add(i.argval)
        elif i.opname == "LOAD_NAME":
            reads |= {i.argval} - writes
        elif isinstance(i.argval, CodeType):
            reads |= globals_of(i.argval) - writes
            if i.argval.co_name not in AT_ONCE:
                late |= globals_of(i.argval)
    return reads, late, writes


def changes(tree: ast.AST) -> set[str]:
    """Return the names whose values a cell changes in place: x[i] = …, x += …, x.append(…)."""
    found = set()
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.FunctionDef | ast.ClassDef | ast.Lambda):
            continue  # has names of its own
        found |= changes(node)
        if isinstance(node, ast.AugAssign):
            place = node.target
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            name = node.func.attr
            place = node.func.value if name in CHANGES or re.fullmatch(r"\w+[^_]_", name) else None
        else:
            is_stored = isinstance(getattr(node, "ctx", None), ast.Store)
            place = node if is_stored and not isinstance(node, ast.Name) else None
        while isinstance(place, ast.Subscript | ast.Attribute):
            place = place.value
        if isinstance(place, ast.Name):
            found.add(place.id)
    return found


def depends_on_order(cells: dict[str, str]) -> list[str]:
    """Return what of these cells {id: source} can mean another thing when it is run again."""
    trees = {name: ast.parse(re.sub("^%.*$", "", text, flags=re.M)) for name, text in cells.items()}
    used = {name: uses(tree) for name, tree in trees.items()}
    writers = {}
    for cell, (_, _, writes) in used.items():
        for name in writes:
            writers.setdefault(name, []).append(cell)
    wrong = []
    for cell, (reads, late, writes) in used.items():
        for name in sorted(reads & writers.keys()):
            if name in writes or len(writers[name]) > 1:
                wrong.append(f"{cell} reads {name}, which is written by {writers[name]}")
        for name in sorted((late - reads) & writers.keys()):
            if len(writers[name]) > 1:
                wrong.append(f"{cell} has a function with {name}, written by {writers[name]}")
        for name in sorted((changes(trees[cell]) - writes) & writers.keys()):
            wrong.append(f"{cell} changes {name} of {writers[name]}")
    return wrong


@pytest.mark.parametrize(
    "cells",
    [
        ["q = 1", "q = 2 * q"],
        ["q = 1", "print(q)", "for q in range(3): pass"],
        ["q = 1", "q += 1"],
        ["found = {}", "found['a'] = 1"],
        ["found = []", "found.append(1)"],
        ["w = 1", "w.data.fill_(2)"],
        ["name = 1\ndef f(): return name", "for name in 'ab': pass"],
        ["name = 1", "[name for _ in 'ab']", "name = 3"],
    ],
)
def test_the_scan_finds_what_depends_on_the_order(cells):
    assert depends_on_order({str(i): text for i, text in enumerate(cells)})


def test_the_scan_lets_pass_what_does_not():
    cells = [
        "a = []\na.append(1)",
        "for i in a: b = i",
        "i = 3\nd = [i * j for j in a]\nprint(i, d)",
    ]
    assert not depends_on_order({str(i): text for i, text in enumerate(cells)})


@pytest.mark.parametrize("name", NAMES)
def test_each_name_is_written_by_one_cell(name):
    assert not depends_on_order({cell.id: cell.source for cell in code_cells(name)})


@pytest.mark.parametrize("name", NAMES)
def test_a_lesson_brings_all_its_names_as_a_script_too(name):
    used = [uses(ast.parse(cell.source)) for cell in code_cells(name)]
    read, late, written = (set().union(*names) for names in zip(*used))
    assert (read | late) - written <= {*dir(builtins), "__annotations__"}


def weights(names: dict) -> dict[str, tuple[int, float]]:
    """Return which networks there are, and a number that training them changes."""
    networks = {k: v for k, v in names.items() if isinstance(v, torch.nn.Module)}
    return {
        name: (id(network), sum(p.detach().double().sum().item() for p in network.parameters()))
        for name, network in networks.items()
    }


# What a lesson says, whatever the numbers: of its own functions, and of parameters.
SAID = {
    "01_autoencoder": ["Nothing of yours to compare yet", "PCA, 5 numbers"],
    "02_vae": ["Nothing of yours to compare yet", "0 of 6 yours"],
    "04_anomaly": ["0 of 4 yours"],
    "05_likelihood": ["this run, k = 5, 1 passes", "largest difference from the package's: 0 nats"],
    "06_rate_distortion": ["^strong.* 4 +"],
    "07_diagnosis": [
        r"named without training: 5\.",
        "variance used as sigma",  # the package's word on MyVAE
        "^A +log_var used as sigma +log_var used as sigma",
        "^B +sigmoid twice +sigmoid twice",
        "^C +mean for sum +mean for sum",
    ],
    "08_conditional": [r"^nobody: a plain VAE: .* 0\.\d"],
    "09_learned_prior": [r"^flow +\S+ +\S+ +\S+"],
    "10_discrete_codes": [r"^tokens, uniform +[\d.]+ +135\.9 "],  # 49 log 16
}


@pytest.mark.lessons
@pytest.mark.parametrize("name", NAMES)
def test_cells_run_again_from_the_last_to_the_first_say_the_same(name, monkeypatch, tmp_path):
    offline(monkeypatch, tmp_path)
    few_images(monkeypatch, 300, 10_000 if name < "08" else 1000)
    play, cells, said = Play(name), code_cells(name), {}
    for cell in cells:
        before = weights(play.names)
        said[cell.id] = play.run(cell)
        after = weights(play.names)
        for network in before.keys() & after.keys():
            same = before[network][0] != after[network][0] or before[network] == after[network]
            assert same, f"{cell.id} trains {network}, which is another cell's"
    for line in SAID.get(name, []):
        assert re.search(line, "\n".join(said.values()), re.M), line
    for cell in reversed(cells):
        assert steady(play.run(cell)) == steady(said[cell.id]), cell.id


@pytest.mark.lessons
def test_lesson_11_on_grey_pictures_without_classes(monkeypatch, tmp_path):
    offline(monkeypatch, tmp_path / "results")
    coloured_folder(tmp_path / "mine", n=100, side=20, mode="L")
    play = Play("11_own_pictures", dataset=str(tmp_path / "mine"), epochs=1)
    text = "".join(map(play.run, code_cells("11_own_pictures")))
    assert "of 16×16 pixels, 1 class" in text
    assert "'mine/' has no measured band" in text
    assert "brighter: asked for" in text


def steady(text: str) -> str:
    """Return a cell's text without times, addresses, and whether a model was found in results/."""
    text = re.sub(r"^(Training now|Using).*\n", "", text, flags=re.M)
    text = re.sub(r"^((?:mlp|conv) .*) +\d+$", r"\1", text, flags=re.M)  # lesson 11's, in a table
    return re.sub(r"at 0x\w+|\d+ s(econds)?\b", "", text)
