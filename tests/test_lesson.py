"""lesson: checked parameters, bands, tables, the summary file, shown source."""

import errno
import html
import io
import json
import math
import os
import re
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import Mock

import numpy as np
import pytest
import torch
from PIL import Image

from vae_lesson import losses, models, train
from vae_lesson.data import Images
from vae_lesson.running import saving
from vae_lesson.sources import NAMES
from vae_lesson.teaching import lesson


@pytest.fixture(autouse=True)
def no_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)


# --- parameters -----------------------------------------------------------------------------------

NUMBERS = {"−ELBO": (torch.tensor(105.5), "nats"), "active units": (18, "dimensions")}
GOOD = {
    "dataset": "digits",
    "device": "auto",
    "seed": 0,
    "language": "en",
    "epochs": 10,
    "latent_size": 20,
    "batch_size": 128,
    "lr": 1e-3,
}


@pytest.fixture(autouse=True)
def unprepared(monkeypatch):
    """`begin` prepares the machine; these tests stay as they are."""
    monkeypatch.setattr(lesson, "prepare", lambda: None)


def test_good_parameters_give_the_device_and_prepare_the_machine(monkeypatch):
    prepared = []
    monkeypatch.setattr(lesson, "prepare", lambda: prepared.append(True))
    assert lesson.begin(**GOOD) == torch.device("cpu")
    assert lesson.begin(**{**GOOD, "device": "cpu", "lr": 1}) == torch.device("cpu")
    assert len(prepared) == 2


WRONG = [
    ("dataset", "x", "unknown data set 'x': choose one of mnist, fashion, kmnist, digits"),
    ("device", "cuda", "device 'cuda' is not there: choose one of auto, cpu"),
    ("seed", -1, "seed must be a whole number from 0 to 4,294,967,295, got -1"),
    ("seed", 1.5, "seed must be a whole number from 0 to 4,294,967,295, got 1.5"),
    ("epochs", 0, "epochs must be a whole number of at least 1, got 0"),
    ("epochs", True, "epochs must be a whole number of at least 1, got True"),
    ("epochs", "10", "epochs must be a whole number of at least 1, got '10'"),  # papermill's -r
    ("latent_size", 0, "latent_size must be a whole number of at least 2, got 0"),
    ("batch_size", None, "batch_size must be a whole number of at least 1, got None"),
    ("lr", 0, "lr must be a number over 0 and finite, got 0"),
    ("lr", math.nan, "lr must be a number over 0 and finite, got nan"),
    ("lr", "1e-3", "lr must be a number over 0 and finite, got '1e-3'"),
]


@pytest.mark.parametrize("name, value, says", WRONG)
def test_a_wrong_parameter_is_named_and_no_other(name, value, says):
    with pytest.raises(ValueError) as error:
        lesson.begin(**{**GOOD, name: value})
    message = str(error.value)
    assert message.startswith("wrong parameters: " + says)
    assert ";" not in message  # nothing else is wrong


def test_all_wrong_parameters_are_named_at_once():
    wrong = {"dataset": "x", "device": "cuda", "seed": -1, "epochs": 0, "lr": math.nan}
    with pytest.raises(ValueError) as error:
        lesson.begin(**{**GOOD, **wrong})
    parts = str(error.value).removeprefix("wrong parameters: ").split("; ")
    assert len(parts) == 5
    for part, word in zip(parts, ["data set 'x'", "'cuda'", "seed", "epochs", "lr"]):
        assert word in part


@pytest.fixture
def papermill(monkeypatch):
    """Return a function: begin a lesson into which papermill has put these lines."""

    def begin(*lines, **values):
        cells = ["", "\n".join(["# Parameters", *lines])]
        shell = SimpleNamespace(user_ns={"In": cells})
        monkeypatch.setattr(lesson, "get_ipython", lambda: shell)
        return lesson.begin(**{**GOOD, **values})

    return begin


def test_what_papermill_asked_for_is_what_the_lesson_gets(papermill):
    papermill('dataset = "digits"', "epochs = 10", "lr = 0.001")
    with pytest.raises(ValueError, match="no parameter 'latent': did you mean 'latent_size'"):
        papermill("latent = 2")
    says = r'epochs is 10, but 7 was asked for; is .* without its tag "parameters", or'
    with pytest.raises(ValueError, match=says):  # the tag is lost: the lesson's own cell came later
        papermill('dataset = "digits"', "epochs = 7")


def test_a_data_set_that_papermill_asked_for_is_there_or_the_lesson_ends(
    papermill, monkeypatch, tmp_path
):
    monkeypatch.setenv("VAE_LESSON_DATA", str(tmp_path))
    monkeypatch.setattr("vae_lesson.sources.mnist.load_mnist_like", Mock(side_effect=OSError("no")))
    with pytest.raises(OSError, match=r"'fashion' is not on disk .*: 'digits' needs no network"):
        papermill('dataset = "fashion"', dataset="fashion")
    papermill("epochs = 10", dataset="fashion")  # by default the digits are as good


def test_lesson_11_takes_a_folder_whose_name_is_a_number(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError) as error:
        lesson.begin(**GOOD | {"dataset": 2024}, own_pictures=True)
    assert "unknown data set '2024': choose one of photos, or the path" in str(error.value)
    (tmp_path / "2024").mkdir()
    lesson.begin(**GOOD | {"dataset": 2024}, own_pictures=True)


# --- guesses --------------------------------------------------------------------------------------

NO_NUMBER = "is no number: write it like 0.3, with a point."


@pytest.mark.parametrize(
    "guess, says",
    [
        (..., ""),
        (None, ""),
        (0.3, " You guessed 0.3."),
        (18, " You guessed 18."),
        ("0.3", " You guessed 0.3."),
        (np.float32(0.3), " You guessed 0.3."),
        (torch.tensor(0.3), " You guessed 0.3."),
        (torch.tensor([0.3]), " You guessed 0.3."),
        (torch.zeros(2), f" Your guess tensor([0., 0.]) {NO_NUMBER}"),
        (1_234_567, " You guessed 1234567."),
        (True, f" Your guess True {NO_NUMBER}"),
        (float("nan"), f" Your guess nan {NO_NUMBER}"),
        ("0,3", f" Your guess '0,3' {NO_NUMBER}"),
        ((0, 3), f" Your guess (0, 3) {NO_NUMBER}"),
        ([0.3], f" Your guess [0.3] {NO_NUMBER}"),
    ],
)
def test_a_guess_is_taken_or_answered_in_words(guess, says):
    assert lesson.answer(guess, torch.tensor(0.25), "share") == "share: 0.250." + says


# --- models of earlier lessons --------------------------------------------------------------------


@pytest.fixture
def trained(tmp_path, monkeypatch):
    """Run lesson.trained on 64 small images, one epoch, with results in a temporary folder."""
    monkeypatch.setenv("VAE_LESSON_RESULTS", str(tmp_path))
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (64, 4, 4), generator=generator, dtype=torch.uint8)
    labels = torch.zeros(64, dtype=torch.int64)

    def run(model, dataset="digits", **options):
        images = Images(dataset, pixels, labels, pixels, labels, ("0",))
        options = {"device": "cpu", "progress": False, "epochs": 1, **options}
        return lesson.trained("model.pt", model, images, **options)

    return run


def same_weights(a, b):
    return all(torch.equal(p, q) for p, q in zip(a.parameters(), b.parameters(), strict=True))


def test_trained_trains_once_and_then_takes_the_file(trained, capsys):
    first, history = trained(models.VAE(2, 8, (1, 4, 4)))
    assert len(history) == 1
    assert "Training now, because there is no model.pt yet." in capsys.readouterr().out
    again, no_history = trained(models.VAE(2, 8, (1, 4, 4)))
    assert no_history is None and same_weights(again, first)
    assert "Using model.pt: digits, 1 epochs, seed 0." in capsys.readouterr().out


@pytest.mark.parametrize(
    "size, dataset, options, says",
    [
        ((3, 8), "digits", {}, "latent_size 2, not 3"),
        ((2, 9), "digits", {}, "hidden_size 8, not 9"),
        ((2, 8), "mnist", {}, "dataset digits, not mnist"),
        ((2, 8), "digits", {"lr": 0.02}, "lr 0.001, not 0.02"),
        ((2, 8), "digits", {"lr": (0.1, 0.2)}, "lr 0.001, not (0.1, 0.2)"),
        ((2, 8), "digits", {"batch_size": 16}, "batch_size 128, not 16"),
        ((2, 8), "digits", {"schedule": "linear"}, "schedule constant, not linear"),
        ((2, 8), "digits", {"from_mean": True}, "from_mean False, not True"),
        ((2, 8), "digits", {"beta": 2}, "beta 1.0, not 2.0"),
        ((2, 8), "digits", {"binarisation": "threshold"}, "binarisation grey, not threshold"),
        ((2, 8), "digits", {"seed": 3}, "seed 0, not 3"),
        ((2, 8), "digits", {"epochs": 2}, "epochs 1, not 2"),
    ],
)
def test_trained_takes_no_file_that_was_made_otherwise(
    trained, capsys, size, dataset, options, says
):
    trained(models.VAE(2, 8, (1, 4, 4)))
    capsys.readouterr()
    wanted = models.VAE(*size, (1, 4, 4))
    model, history = trained(wanted, dataset, **options)
    assert model is wanted and len(history) == options.get("epochs", 1)
    assert f"Training now, because model.pt was made with {says}." in capsys.readouterr().out
    assert trained(models.VAE(*size, (1, 4, 4)), dataset, **options)[1] is None  # it is saved now


def test_trained_trains_by_the_fit_that_it_is_given(trained):
    fast = {"fit": train.fit_fast, "epochs": 2, "batch_size": 16}
    model, history = trained(models.VAE(2, 8, (1, 4, 4)), **fast)
    assert history.settings["from_mean"] and history.settings["schedule"] == "linear"
    again, no_history = trained(models.VAE(2, 8, (1, 4, 4)), **fast)
    assert no_history is None and same_weights(again, model)
    assert trained(models.VAE(2, 8, (1, 4, 4)))[1] is not None  # by `fit` itself


def test_trained_takes_a_file_of_more_epochs_but_none_of_what_it_does_not_tell(trained, capsys):
    model, _ = trained(models.VAE(2, 8, (1, 4, 4)), epochs=2)
    assert trained(models.VAE(2, 8, (1, 4, 4)))[1] is None
    saving.save_model(model, saving.results_path("model.pt"), dataset="digits", epochs=2, seed=0)
    assert (
        trained(models.VAE(2, 8, (1, 4, 4)))[1] is not None
    )  # as an older version of the course saved
    assert "batch_size None, not 128" in capsys.readouterr().out


def test_trained_replaces_a_damaged_file(trained, tmp_path, capsys):
    (tmp_path / "model.pt").write_bytes(b"half")
    _, history = trained(models.VAE(2, 8, (1, 4, 4)))
    assert len(history) == 1 and "damaged" in capsys.readouterr().out
    assert trained(models.VAE(2, 8, (1, 4, 4)))[1] is None


def test_trained_takes_no_vae_for_an_autoencoder(trained):
    trained(models.VAE(2, 8, (1, 4, 4)))
    model, _ = trained(models.Autoencoder(2, 8, (1, 4, 4)))
    assert isinstance(model, models.Autoencoder)


def test_trained_keeps_no_interrupted_training(trained):
    def interrupt(model, x, generator):
        raise KeyboardInterrupt

    trained(models.VAE(2, 8, (1, 4, 4)), terms=interrupt)
    assert trained(models.VAE(2, 8, (1, 4, 4)))[1] is not None


# --- results --------------------------------------------------------------------------------------


def test_a_lesson_goes_on_where_nothing_can_be_saved(tmp_path, monkeypatch, capsys):
    (tmp_path / "file").write_text("in the folder's place")
    monkeypatch.setenv("VAE_LESSON_RESULTS", str(tmp_path / "file"))
    lesson.summary("02_vae", "mnist", NUMBERS)
    lesson.save_pictures(torch.rand(4, 16), "picture.png")
    said = capsys.readouterr().out.splitlines()
    assert len(said) == 2 and all("was not saved" in line for line in said)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    lesson.begin(**GOOD)
    assert "cannot be written, so nothing is saved" in capsys.readouterr().out


def test_beginning_makes_no_folder(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("VAE_LESSON_RESULTS", str(tmp_path / "a" / "b"))
    lesson.begin(**GOOD)
    assert list(tmp_path.iterdir()) == [] and capsys.readouterr().out == ""


def test_a_broken_write_leaves_the_summary_before_it(tmp_path, monkeypatch):
    monkeypatch.setenv("VAE_LESSON_RESULTS", str(tmp_path))
    lesson.summary("02_vae", "mnist", NUMBERS)
    before = (tmp_path / "02_vae.json").read_bytes()
    with monkeypatch.context() as patch:

        def half(self, text, encoding):
            self.write_bytes(text.encode()[:10])
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        patch.setattr(Path, "write_text", half)
        lesson.summary("02_vae", "mnist", {"another": (1.0, "nats")})
    assert (tmp_path / "02_vae.json").read_bytes() == before
    assert len(list(tmp_path.iterdir())) == 1


def test_pictures_are_side_by_side(tmp_path, monkeypatch):
    monkeypatch.setenv("VAE_LESSON_RESULTS", str(tmp_path))
    lesson.save_pictures(torch.rand(64, 784), "64.png")
    with Image.open(tmp_path / "64.png") as picture:
        assert picture.size == (8 * 30 + 2, 8 * 30 + 2)


def test_generated_pictures_are_saved_in_colour(tmp_path, monkeypatch):
    monkeypatch.setenv("VAE_LESSON_RESULTS", str(tmp_path))
    images = torch.zeros(9, 3, 5, 5)
    images[1, 0, 4, 2] = 1
    lesson.save_pictures(images.flatten(1), "9.png")
    with Image.open(tmp_path / "9.png") as picture:
        assert picture.size == (8 * 7 + 2, 2 * 7 + 2)
        assert picture.getpixel((7 + 2 + 2, 2 + 4)) == (255, 0, 0)  # x, y


# --- bands ----------------------------------------------------------------------------------------

LOW, HIGH = lesson.BANDS["mnist"]


@pytest.mark.parametrize(
    "neg_elbo, says, says_not",
    [
        ((LOW + HIGH) / 2, "inside the healthy band", "wrong"),
        (LOW, "inside the healthy band", "Too good"),
        (HIGH, "inside the healthy band", "wrong"),
        (HIGH + 0.5, "over the healthy band", "Too good"),
        (LOW - 0.5, "under the healthy band", "Something is wrong"),
        (math.nan, "the model is broken", "Too good"),
    ],
)
def test_check_band_says_where_a_run_ended(neg_elbo, says, says_not):
    message = lesson.check_band("mnist", neg_elbo)
    assert f"−ELBO {neg_elbo:.2f} nats" in message and f"{LOW} to {HIGH}" in message
    assert says in message and says_not not in message


def test_check_band_compares_only_what_was_measured():
    message = lesson.check_band("fashion", 240.0)
    assert "240.00 nats" in message and "'fashion' has no measured band" in message
    # A wild value is no mistake if the parameters are not the band's.
    message = lesson.check_band("mnist", 300.0, default_parameters=False)
    assert "which you changed" in message and "over" not in message


def test_every_band_belongs_to_a_data_set():
    for dataset, (low, high) in lesson.BANDS.items():
        assert dataset in NAMES
        assert low < high


# --- tables ---------------------------------------------------------------------------------------


def test_table_aligns_its_text():
    table = lesson.Table(["what", "nats"], [["recon", 81.25], ["the KL", 5]])
    assert repr(table) == "what    nats\nrecon   81.2\nthe KL     5"
    assert repr(lesson.Table(["what", "nats"], [])) == "what  nats"


@pytest.mark.parametrize(
    "value, shown",
    [
        (0.123456, "0.123"),
        (-9.876, "-9.88"),
        (105.432, "105.4"),
        (np.float64(25.02), "25.0"),
        (math.nan, "nan"),
        (784, "784"),
        (60_000, "60,000"),
        (-0.0, "0.00"),
        (np.float32(-0.0), "0.0"),
        ("-0.000000", "0.000000"),
        ("as it is", "as it is"),
        (None, "None"),
    ],
)
def test_table_formats_numbers(value, shown):
    assert lesson.Table(["x"], [[value]]).rows == [[shown]]


def test_a_tables_header_has_no_minus_zero():
    assert lesson.Table(["what", f"K = {-1e-9:.1f}"], []).header == ["what", "K = 0.0"]


def test_table_escapes_html():
    table = lesson.Table(["a<b", "c"], [["<script>alert('x')</script>", 'R&D "q"']])
    page = table._repr_html_()
    assert "<script>" not in page and "a<b" not in page
    cells = [html.unescape(cell) for cell in re.findall(r"<t[hd] [^>]*>(.*?)</t[hd]>", page)]
    assert cells == ["a<b", "c", "<script>alert('x')</script>", 'R&D "q"']
    assert page.count("<tr>") == 2 and page.count("</tr>") == 2


@pytest.mark.parametrize("row", [["one"], ["one", 2, 3]])
def test_table_refuses_a_row_of_another_length(row):
    with pytest.raises(ValueError, match=r"argument 3 is (shorter|longer) than"):
        lesson.Table(["a", "b"], [["x", 1], row])


# --- summary --------------------------------------------------------------------------------------


def test_summary_is_a_table_and_a_file(tmp_path, monkeypatch):
    monkeypatch.setenv("VAE_LESSON_RESULTS", str(tmp_path))
    table = lesson.summary("02_vae", "digits", NUMBERS)
    assert table.header == ["what", "number", "unit"]
    assert table.rows == [["−ELBO", "105.5", "nats"], ["active units", "18", "dimensions"]]
    written = json.loads((tmp_path / "02_vae.json").read_text(encoding="utf-8"))
    assert written == {
        "dataset": "digits",
        "−ELBO": {"value": 105.5, "unit": "nats"},
        "active units": {"value": 18.0, "unit": "dimensions"},
    }


def test_summary_is_utf8_whatever_the_locale(tmp_path, monkeypatch):
    monkeypatch.setenv("VAE_LESSON_RESULTS", str(tmp_path))
    with monkeypatch.context() as patch:  # as on Windows
        patch.setattr(io, "text_encoding", lambda encoding, stacklevel=2: encoding or "cp1252")
        lesson.summary("02_vae", "mnist", NUMBERS)
    assert "−ELBO" in json.loads((tmp_path / "02_vae.json").read_text(encoding="utf-8"))


def test_the_summary_counts_whose_functions_were_used(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("VAE_LESSON_RESULTS", str(tmp_path))

    def my_kl(mu, log_var): ...

    class MyVAE: ...

    lesson.summary("02_vae", "mnist", NUMBERS, [my_kl, MyVAE, losses.bernoulli_nll])
    assert capsys.readouterr().out == "Exercises: 2 of 3 yours, the rest ours.\n"
    lesson.summary("02_vae", "mnist", NUMBERS)
    assert capsys.readouterr().out == ""


def test_weights_are_compared_only_if_they_are_the_learner_s_work():
    def my_training(): ...

    ours, made_by = [torch.zeros(2), torch.ones(3)], [my_training]
    same = lesson.compare_weights([v.clone() for v in ours], ours, made_by)
    assert "the same, bit for bit" in same
    assert "differ by at most 1" in lesson.compare_weights([v + 1 for v in ours], ours, made_by)
    made_by.append(models.VAE)
    assert "Nothing of yours" in lesson.compare_weights(ours, ours, made_by)


# --- shown source ---------------------------------------------------------------------------------


def test_show_source_shows_the_real_code():
    shown = lesson.show_source(losses.kl_standard_normal, models.reparameterize)
    assert shown.data.count("\ndef ") + shown.data.startswith("def ") == 2
    assert "def kl_standard_normal(mu: Tensor, log_var: Tensor) -> Tensor:" in shown.data
    assert "return mu + eps * torch.exp(0.5 * log_var)" in shown.data
    # It is the code that runs: executed, it gives the same numbers.
    names = dict(vars(losses))
    del names["kl_standard_normal"]
    exec(shown.data, names)
    mu, log_var = torch.randn(3, 2), torch.randn(3, 2)
    expected = losses.kl_standard_normal(mu, log_var)
    assert torch.equal(names["kl_standard_normal"](mu, log_var), expected)


def test_show_source_looks_like_code():
    page = lesson.show_source(models.VAE.encode)._repr_html_()
    assert "<span" in page  # in colours
    # In a page made by nbconvert the letters of an output's <pre> are those of its text.
    assert re.search(r'<pre style="font-family: [^"]*monospace', page)
