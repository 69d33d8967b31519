"""The cell that fetches the package, and the links to the hosts, have the course's address and
version; without an address there are none."""

import importlib.util
import json
import re
import shutil
import subprocess
import sys
from importlib.metadata import version
from types import SimpleNamespace

import address
import pytest
import yaml
from lessons import NAMES, read

SOMEWHERE = "https://github.com/someone/vae-lesson"


@pytest.fixture
def published(monkeypatch):
    """Give the course an address."""
    monkeypatch.setattr(address, "ADDRESS", SOMEWHERE)


def asked() -> list[tuple[str, str]]:
    """Run the cell; return what it asks IPython for."""
    found = []
    shell = SimpleNamespace(run_line_magic=lambda *words: found.append(words))
    exec(address.install(), {"get_ipython": lambda: shell})
    return found


def test_where_the_package_is_the_cell_does_nothing():
    assert asked() == []


@pytest.mark.parametrize("there", [("torch", "numpy"), ()])
def test_where_it_is_not_the_cell_fetches_it_and_has_pip_keep_the_hosts_torch(
    there, published, monkeypatch
):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name in there or None)
    kept = [f"{name}=={version(name)}" for name in there]
    package = f"{SOMEWHERE}/archive/refs/tags/v{address.VERSION}.zip"
    ((magic, line),) = asked()
    assert magic == "pip" and line.split() == ["install", "--quiet", *kept, package]


def test_where_it_cannot_be_fetched_the_lesson_ends_there(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    monkeypatch.setitem(sys.modules, "vae_lesson", None)
    with pytest.raises(ImportError):
        asked()


def test_the_cell_comes_first_and_once(published):
    lesson = address.with_install(address.with_install(read(NAMES[0])))
    code = [cell for cell in lesson.cells if cell.cell_type == "code"]
    assert code[0].source == address.install() and "parameters" in code[1].metadata.tags
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))


@pytest.mark.parametrize("name", NAMES)
def test_each_lesson_has_the_cell_if_there_is_an_address(name):
    lesson = read(name)
    assert address.with_install(lesson) == lesson, "run .venv/bin/python tools/address.py"


@pytest.mark.parametrize("name", address.FILES)
def test_readme_hosts_and_citation_lead_to_an_address_if_there_is_one(name):
    text = (address.PROJECT / name).read_text(encoding="utf-8")
    assert address.FILES[name](text) == text, "run .venv/bin/python tools/address.py"
    assert ("github.com" in text) == bool(address.ADDRESS)


def test_an_address_is_written_to_all_and_taken_back(tmp_path):
    first = f"notebooks/{NAMES[0]}.ipynb"
    names = [*address.FILES, first]
    for name in [*names, "tools/address.py", "pyproject.toml"]:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(address.PROJECT / name, tmp_path / name)

    def written() -> list[str]:
        subprocess.run([sys.executable, "tools/address.py"], cwd=tmp_path, check=True)
        return [(tmp_path / name).read_text(encoding="utf-8") for name in names]

    about = tmp_path / "pyproject.toml"
    without = re.sub(r"(?ms)^\[project\.urls\].*?(?=^\[)", "", about.read_text(encoding="utf-8"))
    about.write_text(without, encoding="utf-8")
    before = written()
    urls = f'[project.urls]\nRepository = "{SOMEWHERE}"\n'
    about.write_text(without + urls, encoding="utf-8")
    assert all("someone" in text for text in written())
    about.write_text(without, encoding="utf-8")
    assert written() == before


def test_a_link_opens_the_lesson_of_this_version(published):
    where = f"{SOMEWHERE}/blob/v{address.VERSION}/notebooks/{NAMES[0]}.ipynb"
    colab = where.replace("github.com", "colab.research.google.com/github")
    assert address.colab(NAMES[0]) == colab
    assert address.kaggle(NAMES[0]).endswith(f"?src={where}")


def test_what_only_github_reads_can_be_read():
    makefile = (address.PROJECT / "Makefile").read_text()
    targets = set(re.search(r"^\.PHONY: (.*)", makefile, re.M)[1].split())
    for path in (address.PROJECT / ".github/workflows").iterdir():
        (job,) = yaml.safe_load(path.read_text())["jobs"].values()
        (command,) = [step["run"] for step in job["steps"] if "run" in step]
        make, target = command.split(" ", 1)
        rows = job.get("strategy", {}).get("matrix", {}).get("include", [{"target": target}])
        assert make == "make" and {row["target"] for row in rows} <= targets
    json.loads((address.PROJECT / ".devcontainer/devcontainer.json").read_text())
    assert yaml.safe_load((address.PROJECT / "CITATION.cff").read_text())["version"]
