"""The learner's own copies: made where they are missing, never written over, compared."""

import os
import re
import shutil
from pathlib import Path

import nbformat
import pytest
from lessons import LESSONS, NAMES, NOTEBOOKS

from vae_lesson.places import PROJECT
from vae_lesson.teaching import copies


@pytest.fixture
def project(tmp_path):
    """Return a project's folder with the committed lessons, and nothing else."""
    shutil.copytree(NOTEBOOKS, tmp_path / "notebooks")
    return tmp_path


@pytest.fixture
def make(project, capsys):
    """Return make(): have the copies made, and get (what opens, what was said)."""

    def run() -> tuple[Path, str]:
        copies.main(project)
        printed = capsys.readouterr()
        return Path(printed.out.removesuffix("\n")), printed.err

    return run


def change(path: Path, changed) -> None:
    """Have `changed` change a notebook's file."""
    notebook = nbformat.read(path, as_version=4)
    changed(notebook)
    nbformat.write(notebook, path)


def rewrite(notebook: nbformat.NotebookNode) -> None:
    notebook.cells[0].source += "\n\nOne sentence more."


def retype(notebook: nbformat.NotebookNode) -> None:
    notebook.cells[0] = nbformat.v4.new_raw_cell(notebook.cells[0].source)


def test_a_copy_is_its_lesson_without_outputs(project, make):
    first, said = make()
    assert first == project / "my" / f"{NAMES[0]}.ipynb" and said == ""
    assert [path.stem for path in sorted((project / "my").iterdir())] == NAMES
    for lesson in LESSONS:
        wanted = nbformat.read(lesson, as_version=4)
        answered = False
        for cell in wanted.cells:
            if cell.cell_type == "code":
                cell.outputs, cell.execution_count = [], None
                answered = answered or "lesson.answer(" in cell.source
            elif answered:
                cell.source, answered = copies.with_answer_folded(cell.source), False
                assert cell.source.startswith("<details>\n<summary>What came out")
            cell.source = cell.source.replace("../docs/cheatsheet.md", "docs/cheatsheet.ipynb")
        copy = nbformat.read(project / "my" / lesson.name, as_version=4)
        nbformat.validate(copy)
        assert copy.metadata.pop("vae_lesson")["made_from"]
        assert copy == wanted  # with ids, tags and the kernel


def test_the_cheat_sheet_goes_with_the_copies_and_all_links_stay_in_their_folder(project, make):
    sheet = PROJECT / copies.SHEET
    shutil.copytree(sheet.parent, project / "docs")
    assert make()[1] == ""
    copy = project / "my/docs/cheatsheet.ipynb"
    nbformat.validate(nbformat.read(copy, as_version=4))
    for path in [copy, *sorted((project / "my").glob("*.ipynb"))]:
        text = "\n".join(cell.source for cell in nbformat.read(path, as_version=4).cells)
        links = re.findall(r"\]\((?!https:)([^)#\s]+\.\w+)[^)]*\)", text)
        assert links
        for link in links:
            target = (path.parent / link).resolve()
            assert target.is_file() and target.is_relative_to(project / "my"), (path.name, link)
    copy.write_text("my own notes")
    assert make()[1] == "" and copy.read_text() == "my own notes"


def test_the_list_or_table_that_an_answer_announces_is_folded_with_it():
    fold = copies.with_answer_folded
    assert fold("Two things:\n\n- a\n- b\n\nNow go on.").endswith("- b\n\n</details>\n\nNow go on.")
    assert fold("It is 3.\n\n| a |\n| - |").endswith("| - |\n\n</details>")
    assert fold("It is 3.\n\n## 2 · Next").endswith("It is 3.\n\n</details>\n\n## 2 · Next")
    assert fold("## 2 · Next\n\nIt") == "## 2 · Next\n\nIt"


def test_a_learners_copy_is_never_written_over(project, make):
    first, _ = make()
    change(first, rewrite)
    before = [path.read_bytes() for path in sorted((project / "my").iterdir())]
    assert make() == (first, "")  # the learner's change is no change of the lesson
    assert [path.read_bytes() for path in sorted((project / "my").iterdir())] == before


@pytest.mark.parametrize("changed", [rewrite, retype])
def test_a_changed_lesson_is_said_and_its_copy_stays(project, make, changed):
    first, _ = make()
    lesson, copy = (project / folder / f"{NAMES[1]}.ipynb" for folder in ("notebooks", "my"))
    before = copy.read_bytes()
    change(lesson, changed)
    assert make() == (
        first,
        f"my/{NAMES[1]}.ipynb was made from an older lesson 02: to begin the new one, rename or "
        "remove it and start the course again.\n",
    )
    assert copy.read_bytes() == before
    copy.rename(copy.with_name("02_as_I_did_it.ipynb"))
    assert make() == (first, "")
    assert nbformat.read(copy, as_version=4).cells[0] == nbformat.read(lesson, 4).cells[0]


def test_a_lesson_that_was_only_run_again_has_not_changed(project, make):
    def run_again(notebook):
        for cell in notebook.cells:
            cell.metadata.pop("tags", None)
            if cell.cell_type == "code":
                cell.outputs, cell.execution_count = [nbformat.v4.new_output("stream")], 7

    first, _ = make()
    for name in NAMES:
        change(project / "notebooks" / f"{name}.ipynb", run_again)
    assert make() == (first, "")


NO_HASH = b'{"cells": [], "metadata": {}, "nbformat": 4, "nbformat_minor": 5}'
DAMAGED = [b"", b"\xff\xfe\x00", b"[]", b"null", b'{"metadata": {"vae_lesson": "mine"}}', NO_HASH]


@pytest.mark.parametrize("content", DAMAGED)
def test_a_damaged_copy_is_left_alone(project, make, content):
    make()
    change(project / "notebooks" / f"{NAMES[1]}.ipynb", rewrite)
    copy = project / "my" / f"{NAMES[1]}.ipynb"
    copy.write_bytes(content)
    assert make()[1] == ""
    assert copy.read_bytes() == content


def test_a_later_lesson_gets_its_copy(project, make):
    make()
    shutil.copy(LESSONS[2], project / "notebooks/99_later.ipynb")
    assert make()[1] == "" and (project / "my/99_later.ipynb").stat().st_size > 1000


def test_without_a_folder_of_ones_own_the_lessons_themselves_open(project, make):
    (project / "my").write_text("a file is in the way")
    first, said = make()
    assert first == project / "notebooks" / f"{NAMES[0]}.ipynb"
    assert said.startswith("Not every lesson could be copied to my/") and "notebooks/" in said


@pytest.mark.skipif(not hasattr(os, "getuid") or os.getuid() == 0, reason="root may write anywhere")
def test_a_folder_that_cannot_be_written_is_said(project, make):
    first, _ = make()
    first.parent.chmod(0o500)
    assert make() == (first, "my/ cannot be written: what you change there is not kept.\n")
    first.parent.chmod(0o700)


def test_a_full_disk_leaves_no_half_of_a_copy(project, make, monkeypatch):
    def half(notebook, file):
        file.write("{")
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(copies.nbformat, "write", half)
        first, said = make()
    assert first.parent.name == "notebooks" and "No space left" in said
    assert list((project / "my").iterdir()) == []
    assert make() == (project / "my" / first.name, "")


def test_a_lesson_that_is_no_notebook_any_more_is_said(project, make):
    (project / "notebooks" / f"{NAMES[4]}.ipynb").write_text("<<<<<<< HEAD")
    first, said = make()
    assert first.parent.name == "my" and "could be copied" in said


def test_without_lessons_nothing_is_made(tmp_path):
    with pytest.raises(SystemExit, match="There are no lessons in"):
        copies.main(tmp_path)
    assert list(tmp_path.iterdir()) == []
