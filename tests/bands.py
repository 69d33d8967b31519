"""What a healthy run of each lesson ends with, on MNIST (lesson 11: the photos) and on the digits.

`bands.json` has the numbers of a run: {lesson: {data set: {what: value}}}. A run may differ from
them by what its unit allows. `python tests/bands.py FOLDER DATASET` writes those of the run whose
results lie in a folder.
"""

import json
import math
import re
import sys
from pathlib import Path

from vae_lesson.sources import data_root

FILE = Path(__file__).with_suffix(".json")
# unit: (share of the number, in itself); what differs most from seed to seed has most.
ALLOWED = {
    "nats per image": (0.05, 1.0),
    "nats": (0.10, 0.5),
    "bits per dimension": (0.03, 0.02),
    "squared error per image": (0.05, 0.2),
    "Fréchet distance": (0.4, 1.5),
    "share": (0.15, 0.08),
    "fraction": (0.15, 0.08),
}
OTHERS = (0.4, 0.1)


def dataset_of(lesson: str) -> str:
    """Return what a lesson runs on here if nobody says otherwise."""
    if lesson.startswith("11"):
        return "photos"
    return "mnist" if (data_root() / "MNIST/raw/train-images-idx3-ubyte").is_file() else "digits"


def outside(lesson: str, results: Path) -> list[str]:
    """Return what is wrong with the numbers that a lesson's run has left, a line each."""
    file = results / f"{lesson}.json"
    if not file.is_file():
        return [f"{lesson} has left no {file.name}"]
    found = json.loads(file.read_text(encoding="utf-8"))
    wanted = json.loads(FILE.read_text(encoding="utf-8"))[lesson][dataset_of(lesson)]
    wrong = []
    if lacking := wanted.keys() - found.keys():  # more is right: lesson 04 takes what is on disk
        wrong.append(f"{lesson} does not tell {', '.join(sorted(lacking))}")
    for name in sorted(wanted.keys() & found.keys()):
        value, (low, high) = found[name]["value"], band(wanted[name], found[name]["unit"])
        if value is None or not low <= value <= high:
            wrong.append(f"{name} is {value}, a healthy run has {low:.4g} to {high:.4g}")
    return wrong


def band(value: float, unit: str) -> tuple[float, float]:
    """Return the lowest and the highest number that is taken for this one."""
    unit = re.split("[;,]", unit)[0]
    share, in_itself = ALLOWED.get(unit, OTHERS)
    margin = max(share * abs(value), in_itself)
    return value - margin, value + margin


def write(results: Path, dataset: str) -> None:
    bands = json.loads(FILE.read_text(encoding="utf-8")) if FILE.is_file() else {}
    for file in sorted(results.glob("[01]*.json")):
        own = "photos" if file.stem.startswith("11") else dataset
        numbers = json.loads(file.read_text(encoding="utf-8"))
        numbers.pop("dataset")
        plain = {name: float(f"{number['value']:.4g}") for name, number in numbers.items()}
        assert all(map(math.isfinite, plain.values()))
        bands.setdefault(file.stem, {})[own] = plain
    FILE.write_text(json.dumps(bands, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    write(Path(sys.argv[1]), sys.argv[2])
