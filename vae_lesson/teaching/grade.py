"""Say of learners' copies of the lessons how far each exercise is, for a teacher:
`python -m vae_lesson.teaching.grade my/*.ipynb --csv grades.csv`, see docs/teaching.md.

An exercise is a call of a check in the committed lesson. A copy runs, in a kernel and a folder of
its own, up to its last such call, and what the checks say there is read. This is no sandbox: the
code of a copy may do whatever you may.
"""

import argparse
import atexit
import contextlib
import csv
import ctypes
import glob
import os
import re
import sys
import tempfile
import textwrap
import threading
import time
import uuid
import warnings
from collections import defaultdict
from pathlib import Path
from subprocess import DEVNULL

import nbformat
import psutil
from nbclient import NotebookClient
from traitlets.config import Config

from vae_lesson.places import PROJECT

CALL = re.compile(r"^[^#\n]*?\b(exam|\w*checks\.\w+)[(,]\s*(\w+)", re.M)  # (the check, of what)
# What `lesson.yours` prints. Its second sentence tells a verdict from what a learner prints.
YOURS = re.compile(
    r"((?:✓ |Not yet: )(?:(?!✓ |Not yet: ).)*?)"
    r" (?:It is used from here on\.|Until then ours is used\.)$",
    re.M | re.S,
)
TAG = "VAE_LESSON_GRADED"  # a variable, inherited by all that a copy starts


def main(arguments: list[str] | None = None, project: Path = PROJECT) -> None:
    """Grade copies, one after the other: print a line an exercise, and write it as CSV."""
    parser = argparse.ArgumentParser(prog="python -m vae_lesson.teaching.grade")
    parser.add_argument("paths", nargs="+", help="copies of lessons, of any names")
    parser.add_argument("--csv", default=os.devnull, help="a file to write the table to as well")
    parser.add_argument("--time-limit", type=float, default=600, help="seconds for a copy (600)")
    asked = parser.parse_args(arguments)
    lessons = {path.stem: code_cells(path) for path in project.glob("notebooks/[0-9]*.ipynb")}
    if not lessons:  # the package is installed without the project
        sys.exit(f"There are no lessons in {project / 'notebooks'}: they are in the repository.")
    sys.stdout.reconfigure(errors="replace")  # not every terminal has a "−"
    warnings.simplefilter("ignore")  # nbformat's, of cells whose ids another tool has dropped
    # PowerShell hands a pattern on as it is.
    paths = [path for given in asked.paths for path in sorted(glob.glob(given)) or [given]]
    width = max(map(len, paths))
    # By the sign that "-sig" puts first, Excel knows UTF-8.
    how = {"mode": "w", "newline": "", "encoding": "utf-8-sig", "errors": "replace"}
    with open(asked.csv, buffering=1, **how) as file:
        table = csv.writer(file)
        table.writerow(["notebook", "lesson", "exercise", "result", "said"])
        for path in paths:
            start, rows = time.monotonic(), graded(path, lessons, asked.time_limit)
            for lesson, exercise, result, said in rows:
                table.writerow([path, lesson, exercise, result, said])
                print(f"{path:{width}}  {exercise:20}  {result:11}  {said}".rstrip(), flush=True)
            if rows[0][2] != "not read":
                n_right, seconds = [r[2] for r in rows].count("right"), time.monotonic() - start
                print(f"{path:{width}}  {n_right} of {len(rows)} right, {seconds:.0f} s")


def code_cells(path: str | Path) -> list[nbformat.NotebookNode]:
    """Return a notebook's code, which speaks English: verdicts are read by their words."""
    cells = [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]
    for cell in cells:
        cell.source = re.sub(r'(?m)^(language: str = )"[^"]*"', r'\1"en"', cell.source)
    return cells


def graded(path: str, lessons: dict, limit: float) -> list[tuple[str, str, str, str]]:
    """Return (lesson, exercise, result, what is said of it) of each exercise, in order."""
    try:
        cells = code_cells(path)
        lesson = max(sorted(lessons), key=lambda name: len(marks(lessons[name]) & marks(cells)))
        if not marks(lessons[lesson]) & marks(cells):
            raise ValueError("there is no cell of a lesson in it")
    except Exception as error:  # whatever is in the file, the next one is graded
        return [("", "", "not read", plain(f"{type(error).__name__}: {error}"))]
    exercises = {}
    for cell in lessons[lesson]:
        exercises |= {call[1]: (call[2], above(cell, call)) for call in CALL.finditer(cell.source)}
    ends = [i for i, cell in enumerate(cells, 1) if exercises.keys() & checks(cell)]
    reader = run(cells[: max(ends, default=0)], limit)
    rows = []
    for check, (mine, stub) in exercises.items():
        result, said = judged(check, mine, stub, reader)
        rows.append((lesson, check.split(".")[-1], result, plain(said)))
    return rows


def checks(cell: nbformat.NotebookNode) -> list[str]:
    return [check for check, _ in CALL.findall(cell.source)]


def marks(cells: list) -> set[str]:
    """Return what tells a lesson from another: its cells' ids, and the checks that they call."""
    return {cell["id"] for cell in cells if "id" in cell}.union(*map(checks, cells))


def above(cell: nbformat.NotebookNode, call: re.Match) -> str:
    """Return the code above a call, without docstrings, comments and blanks."""
    return re.sub(r'""".*?"""|#[^\n]*|\s', "", cell.source[: call.start()], flags=re.S)


def judged(check: str, mine: str, stub: str, reader: "Reader") -> tuple[str, str]:
    """Return (result, what is said of it) of an exercise: of the last cell that calls its check."""
    where = [i for i, cell in enumerate(reader.nb.cells) if check in checks(cell)]
    if not where:
        return "missing", f"no cell calls {check}"
    cell, heard = reader.nb.cells[where[-1]], reader.heard[where[-1]]
    if stub and stub in [above(cell, call) for call in CALL.finditer(cell.source)]:
        return "empty", ""
    verdicts = YOURS.findall(heard["stdout"]) + ([heard["shown"]] if heard["shown"] else [])
    verdict = dict(zip(checks(cell), verdicts)).get(check, "")
    if verdict.startswith("✓"):
        return "right", verdict.removeprefix("✓ Correct.")
    if verdict.startswith("Not yet: write the "):
        return "empty", ""
    if verdict:
        return "not yet", verdict.removeprefix("Not yet: ")
    if heard["raised"].startswith(f"NameError: name {mine!r} is not defined"):
        return "missing", f"{mine} is not defined"
    if heard["raised"]:
        return "not yet", f"the cell raised {heard['raised']}"
    if where[-1] < reader.at:
        return "not yet", "the cell shows no verdict"
    cell = reader.nb.cells[reader.at].source.strip().split("\n")[0] if reader.at >= 0 else ""
    return "not reached", f"{reader.ended} in the cell `{cell}`" if cell else reader.ended


def plain(text: str) -> str:
    """Return a text in one line that is not long and holds nothing that a terminal obeys."""
    short = textwrap.shorten(text, 400, placeholder=" …")
    return "".join(sign if sign.isprintable() else "�" for sign in short)


class Reader(NotebookClient):
    """Runs code cells, whatever they raise, and keeps the end of what each says: its verdicts."""

    def __init__(self, cells: list) -> None:
        how = {"allow_errors": True, "shutdown_kernel": "immediate", "kernel_name": "python3"}
        # Encrypted, else a kernel that is run headless warns.
        config = Config({"KernelManager": {"transport_encryption": "auto"}})
        cells = [nbformat.v4.new_code_cell(cell.source) for cell in cells]  # without old outputs
        notebook = nbformat.v4.new_notebook(cells=cells)
        super().__init__(notebook, **how, store_widget_state=False, config=config)
        self.heard = defaultdict(lambda: defaultdict(str))
        self.on_cell_execute = self.begin
        self.at, self.ended = -1, ""  # the cell that runs; why it was the last

    def begin(self, cell: nbformat.NotebookNode, cell_index: int) -> None:
        self.at = cell_index

    def output(self, outs: list, msg: dict, display_id: str | None, cell_index: int) -> None:
        content, heard = msg["content"], self.heard[cell_index]
        if msg["msg_type"] == "stream":  # of a print without end, the end
            heard[content["name"]] = (heard[content["name"]] + content["text"])[-20_000:]
        elif msg["msg_type"] == "error":
            heard["raised"] = f"{content['ename']}: {content['evalue']}"
        elif (text := content.get("data", {}).get("text/plain", "")).startswith(("✓", "Not yet")):
            heard["shown"] = text

    def read(self, folder: str, tag: str) -> None:
        """Run the cells in a folder, where their results go too."""
        env = os.environ | {"VAE_LESSON_RESULTS": os.path.join(folder, "results"), TAG: tag}
        try:
            self.execute(cwd=folder, env=env, stdout=DEVNULL, stderr=DEVNULL)
            self.at = len(self.nb.cells)
        except Exception as error:
            self.ended = self.ended or str(error)
        finally:
            atexit.unregister(self._cleanup_kernel)  # else forgotten where no kernel could start


def run(cells: list, limit: float) -> Reader:
    """Run cells; end all that they have started when they are done or `limit` seconds are over."""
    others, tag = set(psutil.Process().children(recursive=True)), uuid.uuid4().hex
    if sys.platform == "linux":  # PR_SET_CHILD_SUBREAPER: orphans become children of this process
        ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)
    reader = Reader(cells)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        # A thread: the limit is kept whatever nbclient waits for, and Ctrl-C gets here.
        thread = threading.Thread(target=reader.read, args=(folder, tag), daemon=True)
        thread.start()
        try:
            thread.join(limit)
            if thread.is_alive():
                reader.ended = f"the time limit of {limit:g} s was over"
        finally:
            for _ in range(60):  # the kernel itself may have been about to start
                kill(tag, others)
                if not thread.is_alive():
                    break
                thread.join(1)
    return reader


def kill(tag: str, others: set[psutil.Process]) -> None:
    """Kill all that a copy has started: what descends from here, and what has inherited its tag."""
    for _ in range(20):
        found = set(psutil.Process().children(recursive=True)) - others
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error, OSError):
                if process.environ().get(TAG) == tag:
                    found.add(process)
        if not found:
            return
        for process in found:
            with contextlib.suppress(psutil.Error):
                process.kill()
        psutil.wait_procs(found, timeout=1)


if __name__ == "__main__":
    main()
