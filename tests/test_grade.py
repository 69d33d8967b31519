"""The grader: a folder of copies as a teacher may get them, and what is read from a cell.

What is expected is derived from the lessons. Most copies have only a lesson's exercises: their
kernels do little more than import torch.
"""

import ast
import csv
import json
import re
import subprocess
import sys
from collections import defaultdict
from pathlib import Path
from types import SimpleNamespace

import nbformat
import psutil
import pytest
from lessons import LESSONS, NAMES, exercises, read, with_few_images

from vae_lesson.teaching import grade

NAME = "07_diagnosis"  # one of its checks is not used by `lesson.yours`
EXERCISES = exercises(read(NAME))
SOLUTIONS = [each[-1] for each in EXERCISES]


def checked(notebook: nbformat.NotebookNode) -> list[str]:
    """Return the exercises of a lesson, as the grader calls them."""
    return [check.split("(")[0].split(".")[-1] for _, _, check, *_ in exercises(notebook)]


def imports(notebook: nbformat.NotebookNode) -> str:
    code = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "code")
    found = (n for n in ast.walk(ast.parse(code)) if isinstance(n, ast.Import | ast.ImportFrom))
    return "\n".join(map(ast.unparse, found))


def answered(notebook: nbformat.NotebookNode, answers: list[str]) -> nbformat.NotebookNode:
    """Put answers in the place of the first stubs."""
    for (name, stub, *_), answer in zip(exercises(notebook), answers):
        (cell,) = (cell for cell in notebook.cells if cell.id == name)
        cell.source = cell.source.replace(stub, f"{answer}\n\n")
    return notebook


def copy(*answers: str) -> nbformat.NotebookNode:
    """Return a copy of the lesson, with its imports and exercises only."""
    lesson = answered(read(NAME), answers)
    first = nbformat.v4.new_code_cell(imports(read(NAME)), id="imports")
    ids = [each[0] for each in EXERCISES]
    lesson.cells = [first, *(cell for cell in lesson.cells if cell.id in ids)]
    return lesson


def wrong(i: int) -> tuple[str, str]:
    """Return a wrong answer to an exercise, which thinks well of itself, and what is said of it."""
    _, _, check, _, _ = EXERCISES[i]
    mine = re.search(r"\((\w+)\)", check)[1]
    answer = f"def {mine}(*arguments):\n    print('✓ Correct.', end=' ')\n    return 0\n"
    names = {}
    exec(imports(read(NAME)), names)
    exec(answer, names)
    return answer, eval(check, names).removeprefix("Not yet: ")


def table(paths: list[Path], *options: str) -> tuple[dict, str]:
    """Run the command; return {notebook's stem: its rows of (exercise, result, said)}, the text."""
    file = paths[0].parent / "grades.csv"
    command = [sys.executable, "-m", "vae_lesson.teaching.grade", *paths, "--csv", file, *options]
    done = subprocess.run(command, capture_output=True, text=True, encoding="utf-8", check=True)
    assert done.stderr == ""
    rows = defaultdict(list)
    with file.open(newline="", encoding="utf-8-sig") as lines:
        for row in csv.DictReader(lines):
            assert row["notebook"] in map(str, paths)
            assert row["lesson"] in NAMES or row["result"] == "not read"
            rows[Path(row["notebook"]).stem].append((row["exercise"], row["result"], row["said"]))
    return rows, done.stdout


def written(notebook: nbformat.NotebookNode, path: Path) -> Path:
    path.write_text(json.dumps(notebook), encoding="utf-8")
    return path


@pytest.mark.lessons
def test_a_folder_of_copies(tmp_path):
    solved = with_few_images("04_anomaly")
    names, solved = checked(solved), answered(solved, [each[-1] for each in exercises(solved)])
    for cell in solved.cells:  # a whole lesson
        if "parameters" in cell.metadata.get("tags", []):
            cell.source += '\ndataset, epochs, hidden_size, device = "digits", 1, 32, "cpu"'
    answer, said = wrong(1)
    half = copy(SOLUTIONS[0], answer)
    empty = copy()
    empty.nbformat_minor = 4
    for cell in empty.cells:
        del cell["id"]
        cell.source = cell.source.replace('"""Return', '"""Give')  # an older lesson's words
    deleted = copy(*SOLUTIONS)
    del deleted.cells[1:3], deleted.cells[1]["outputs"]  # which a notebook must have
    mine = [re.search(r"\((\w+)\)", each[2])[1] for each in EXERCISES]
    renamed = copy(SOLUTIONS[0].replace(mine[0], "renamed"), SOLUTIONS[1], "import os\nos._exit(1)")
    renamed.cells[2].source = renamed.cells[2].source.replace(mine[1], "renamed")
    copies = {"ana": solved, "ben": half, "cem": empty, "dan": deleted, "eva": renamed}
    paths = [written(each, tmp_path / f"{name}.ipynb") for name, each in copies.items()]
    paths.insert(0, tmp_path / "zoe.ipynb")
    paths[0].write_text(paths[1].read_text(encoding="utf-8")[:5000], encoding="utf-8")
    rows, text = table(paths)

    assert rows["ana"] == [(name, "right", "") for name in names]
    results = {name: [row[1:] for row in rows[name]] for name in rows}
    others = len(EXERCISES) - 2
    assert [row[0] for row in rows["ben"]] == checked(read(NAME))
    assert results["ben"] == [("right", ""), ("not yet", said), *[("empty", "")] * others]
    assert results["cem"] == [("empty", "")] * (2 + others)
    missing = [("missing", f"no cell calls {each[2].split('(')[0]}") for each in EXERCISES[:2]]
    assert results["dan"][:2] == missing
    assert [result for result, _ in results["dan"][2:]] == ["right"] * others
    assert results["eva"][0] == ("missing", f"{mine[0]} is not defined")
    assert results["eva"][1][0] == "right"
    assert results["eva"][2] == ("not reached", "Kernel died in the cell `import os`")
    assert results["eva"][3:] == [("empty", "")] * (others - 1)
    assert [row[:2] for row in rows["zoe"]] == [("", "not read")]
    n_lines = sum(map(len, rows.values())) + len(copies)
    assert len(text.splitlines()) == n_lines
    assert re.search(rf"(?m)^{paths[1]} +{len(names)} of {len(names)} right, \d+ s$", text)
    assert re.search(rf"(?m)^{paths[4]} +{others} of {2 + others} right, \d+ s$", text)


@pytest.mark.lessons
def test_nothing_outlives_the_time_limit_and_the_next_copy_is_graded(tmp_path):
    loop = f"""
import signal, subprocess
quiet = {{"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}}
own = subprocess.Popen(["sleep", "999"], env={{}}, start_new_session=True, **quiet)
orphan = "nohup sleep 999 >/dev/null 2>&1 & echo $!"
orphan = subprocess.run(orphan, shell=True, capture_output=True, text=True).stdout
with open({str(tmp_path / "pids")!r}, "w") as file:
    print(own.pid, orphan, file=file)
signal.signal(signal.SIGINT, signal.SIG_IGN)
while True:
    print("✓ Correct. It is used from here on, " * 1000)
"""
    endless = written(copy(SOLUTIONS[0], loop, SOLUTIONS[2]), tmp_path / "endless.ipynb")
    next_one = written(copy(SOLUTIONS[0]), tmp_path / "next.ipynb")
    rows, _ = table([endless, next_one], "--time-limit", "20")
    pids = [int(pid) for pid in (tmp_path / "pids").read_text().split()]
    assert len(pids) == 2 and not any(map(psutil.pid_exists, pids))
    late = (
        "not reached",
        "the time limit of 20 s was over in the cell `import signal, subprocess`",
    )
    results = {name: [row[1:] for row in rows[name]] for name in rows}
    empty = [("empty", "")] * (len(EXERCISES) - 1)
    assert results == {
        "endless": [("right", ""), late, late, *empty[2:]],
        "next": [("right", ""), *empty],
    }


# --- without a kernel -----------------------------------------------------------------------------


def test_the_exercises_of_the_lessons_are_found_and_each_belongs_to_one():
    marks = {path.stem: grade.marks(grade.code_cells(path)) for path in LESSONS}
    for path in LESSONS:
        found = [check for cell in grade.code_cells(path) for check in grade.checks(cell)]
        asked = [each[2].split("(")[0] for each in exercises(read(path))]
        assert [check for check in found if check != "exam"] == asked
        others = [name for name in NAMES if name != path.stem and {*asked} <= marks[name]]
        assert not others  # a copy whose cells have lost their ids is known by its checks


UNREADABLE = {
    "": "NotJSONError",
    '{"cells": [': "NotJSONError",
    "null": "",
    "[]": "",
    "{}": "",
    '{"cells": [{}], "metadata": {}, "nbformat": 4, "nbformat_minor": 5}': "",
    '{"cells": [], "metadata": {}, "nbformat": 4, "nbformat_minor": 5}': "no cell of a lesson",
}


def test_what_cannot_be_read_has_its_line(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(grade, "run", None)
    paths = [str(tmp_path / f"{i}.ipynb") for i in range(len(UNREADABLE))]
    for path, text in zip(paths, UNREADABLE):
        Path(path).write_text(text)
    (tmp_path / "8.ipynb").write_bytes(b"\xff\xfe\x00")
    (tmp_path / "9.ipynb").mkdir()
    grade.main([str(tmp_path / "*.ipynb"), str(tmp_path / "10.ipynb")])  # as from PowerShell
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(paths) + 3
    for line, said in zip(lines, [*UNREADABLE.values(), "Unicode", "IsADirectory", "No such file"]):
        assert "  not read  " in line and said in line


def test_without_the_project_the_grader_says_so(tmp_path):
    with pytest.raises(SystemExit, match=r"no lessons in .*notebooks"):
        grade.main(["a.ipynb"], tmp_path)


YOURS = "x = lesson.yours(checks.x, my_x)"
PASSED, REFUSED = "✓ Correct. It is used from here on.\n", "{} Until then ours is used.\n"
EXAM = "✓ You have written a VAE.\n✓ −ELBO 105.20 nats: inside the band\n✓ draw and loss"
FAILED = "Not yet: 1 of 3 is not right.\n✓ encode and decode\n✗ over the band"


@pytest.mark.parametrize(
    ("source", "heard", "result", "said"),
    [
        (YOURS, {"stdout": PASSED}, "right", ""),
        (YOURS, {"stdout": f"...{PASSED}later\n"}, "right", ""),
        (YOURS, {"stdout": PASSED, "raised": "NameError: name 'my_x' is not defined"}, "right", ""),
        (f"{YOURS}\n{YOURS}", {"stdout": REFUSED.format("Not yet: no.") + PASSED}, "right", ""),
        (
            f"lesson.yours(\n    checks.w, my_w\n)\n{YOURS}",
            {"stdout": PASSED + REFUSED.format("Not yet: no.")},
            "not yet",
            "no.",
        ),
        (
            YOURS,
            {"stdout": "✓ Correct.\n" + REFUSED.format("Not yet: two\nlines \x1b[2J.")},
            "not yet",
            "two lines �[2J.",
        ),
        (YOURS, {"stdout": REFUSED.format("Not yet: write the function.")}, "empty", ""),
        ("def my_x():  # why?\n    ...\n\n\n" + YOURS, {}, "empty", ""),
        ('def my_x():\n    """Do."""\n    ...\n' + YOURS, {}, "empty", ""),
        (YOURS, {"raised": "NameError: name 'my_x' is not defined"}, "missing", "my_x is not"),
        (
            YOURS,
            {"raised": "NameError: name 'y' is not defined"},
            "not yet",
            "the cell raised Name",
        ),
        (YOURS, {"stdout": "✓ Correct.\n"}, "not yet", "the cell shows no verdict"),
        (f"# {YOURS}", {"stdout": PASSED}, "missing", "no cell calls checks.x"),
        ("checks.x(my_x)", {"shown": "✓ Correct."}, "right", ""),
        ("exam(my_vae, i)", {"shown": EXAM}, "right", "✓ You have written a VAE. ✓ −ELBO 1"),
        ("lesson.exam(my_vae)", {"shown": FAILED}, "not yet", "1 of 3 is not right. ✓ enc"),
        ("exam(my_vae, i)", {"shown": "Not yet: write the VAE, and leave"}, "empty", ""),
    ],
)
def test_what_a_cell_says_is_read(source, heard, result, said):
    check, mine = ("exam", "my_vae") if "exam" in source else ("checks.x", "my_x")
    cells = [nbformat.v4.new_code_cell("1"), nbformat.v4.new_code_cell(source)]
    reader = SimpleNamespace(nb=SimpleNamespace(cells=cells), at=2, ended="")
    reader.heard = {1: defaultdict(str, heard)}
    found, words = grade.judged(check, mine, "defmy_x():...", reader)
    assert found == result
    words = grade.plain(words)
    assert words.startswith(said) and bool(words) == bool(said)
