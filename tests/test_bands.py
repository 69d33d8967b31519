"""bands: a lesson whose numbers are wrong, or missing, does not pass."""

import json

import bands
import pytest
from lessons import NAMES

GOOD = json.loads(bands.FILE.read_text(encoding="utf-8"))


def left(folder, lesson, unit="nats per image", **changed):
    """Write what a run of a lesson leaves, its numbers as they should be or changed."""
    numbers = GOOD[lesson][bands.dataset_of(lesson)] | changed
    content = {name: {"value": value, "unit": unit} for name, value in numbers.items()}
    (folder / f"{lesson}.json").write_text(json.dumps(content), encoding="utf-8")
    return bands.outside(lesson, folder)


def test_each_lesson_has_bands_for_both_data_sets():
    assert sorted(GOOD) == NAMES
    for lesson, of_lesson in GOOD.items():
        assert set(of_lesson) == ({"photos"} if lesson.startswith("11") else {"mnist", "digits"})
        assert len({frozenset(numbers) for numbers in of_lesson.values()}) == 1, lesson


@pytest.mark.parametrize("dataset", ["mnist", "digits"])
def test_a_vae_that_ends_at_300_nats_does_not_pass(tmp_path, monkeypatch, dataset):
    monkeypatch.setattr(bands, "dataset_of", lambda lesson: dataset)
    assert left(tmp_path, "02_vae") == []
    (wrong,) = left(tmp_path, "02_vae", **{"−ELBO": 300.0})
    assert wrong.startswith("−ELBO is 300.0, a healthy run has ")
    (wrong,) = left(tmp_path, "02_vae", KL=None)  # as a NaN is written
    assert wrong.startswith("KL is None")


def test_a_number_that_is_missing_and_a_lesson_that_left_none_do_not_pass(tmp_path):
    (tmp_path / "02_vae.json").write_text("{}", encoding="utf-8")
    assert "KL" in bands.outside("02_vae", tmp_path)[0]
    assert bands.outside("03_latent_space", tmp_path) == [
        "03_latent_space has left no 03_latent_space.json"
    ]
