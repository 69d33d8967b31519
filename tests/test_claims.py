"""claims: what measures the longer trainings again still runs; the numbers take hours."""

import dataclasses
import itertools
import math

import claims
import pytest

from vae_lesson.sources import load_images

pytestmark = pytest.mark.lessons

# Between what a measured number lies after a step or two; a coin for each pixel costs 543 nats.
NATS, SHARE, UNITS, ANGLE, ANY = (0, 784), (0, 1), (0, 20), (0, 90), (0, math.inf)
# What stands behind the settings in each claim's rows.
MEASURED = {
    "cures": [NATS, NATS, NATS, UNITS],
    "prices": [NATS, NATS, NATS, UNITS],
    "ends": [NATS, NATS, NATS, UNITS, ANY],
    "sprites": [SHARE] * 6,
    "gaps": [NATS, NATS, NATS, NATS],
    "axes": [ANGLE] * 5,
    "paper": [NATS, ANY],
    "labels": [NATS, SHARE, ANY, SHARE, SHARE],
    "won": [NATS, NATS, (-784, 784), SHARE, SHARE],
    "cells": [ANY],
    "reflow": [ANY, ANY, ANY],
    "codes": [NATS, NATS, NATS, ANY],
    "starts": [ANY, ANY, NATS],
    "rivals": [NATS, NATS, (-math.inf, math.inf), ANY, SHARE, SHARE],
    "writers": [ANY, SHARE, SHARE, SHARE],
    "choices": [ANY, ANY, ANY, ANY],
    "widths": [ANY, ANY, ANY],
    "flips": [ANY, ANY],
    "sides": [ANY, ANY],
}


@pytest.fixture(scope="module")
def few_images():
    images = load_images("digits")
    return dataclasses.replace(images, train=images.train[:100], test=images.test[:40])


@pytest.mark.parametrize("name", claims.CLAIMS)
def test_each_claim_measures_sensible_numbers_that_are_not_always_the_same(
    name, few_images, monkeypatch
):
    fit, limits = claims.train.fit, MEASURED[name]

    def short(model, *tensors, **options):
        return fit(model, *(tensor[:100] for tensor in tensors), **options | {"epochs": 1})

    monkeypatch.setattr(claims.train, "fit", short)
    rows = (row[-len(limits) :] for row in claims.CLAIMS[name](few_images))

    def sensible(row):
        for value, (low, high) in zip(row, limits):
            assert isinstance(value, float | int) and math.isfinite(value) and low <= value <= high
        return row

    first = sensible(next(rows))
    assert any(sensible(row) != first for row in itertools.islice(rows, 7))
