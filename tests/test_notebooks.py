"""The lessons as files: solutions to the exercises, cleanliness, papermill with other parameters.

That every committed lesson runs from top to bottom is nbval's part: pytest collects notebooks/ too.
"""

import ast
import base64
import hashlib
import io
import re
import struct
from pathlib import Path

import nbformat
import numpy as np
import papermill
import pytest
import torch
from lessons import LESSONS, LOAD, NAMES, NOTEBOOKS, exercises, read, with_few_images
from nbconvert import HTMLExporter, ScriptExporter
from PIL import Image
from refresh import cleaned, smaller

from vae_lesson.explore.pictures import png
from vae_lesson.sources import load_images


def imports(notebook: nbformat.NotebookNode) -> str:
    """Return all that a lesson imports, as code."""
    code = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "code")
    found = (n for n in ast.walk(ast.parse(code)) if isinstance(n, ast.Import | ast.ImportFrom))
    return "\n".join(map(ast.unparse, found))


def test_there_are_lessons():
    wanted = "01_autoencoder 02_vae 03_latent_space 04_anomaly 05_likelihood 06_rate_distortion "
    wanted += "07_diagnosis 08_conditional 09_learned_prior 10_discrete_codes 11_own_pictures"
    assert wanted.split() == NAMES


@pytest.mark.parametrize("path", LESSONS, ids=NAMES)
def test_each_solution_passes_its_check_and_no_stub_does(path):
    notebook, names = read(path), {}
    exec(imports(notebook), names)
    assert 2 <= len(exercises(notebook)) <= 6
    for _, stub, check, use, solution in exercises(notebook):
        exec(stub, names)
        assert str(eval(check, names)).startswith("Not yet")
        exec(solution, names)
        verdict = eval(check, names)
        assert verdict.ok, verdict
        exec(use, names)


# --- what is committed ----------------------------------------------------------------------------


@pytest.mark.parametrize("path", LESSONS, ids=NAMES)
def test_committed_lesson_is_clean(path):
    notebook = read(path)
    assert notebook == cleaned(notebook), "run `make refresh`"
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    assert path.stat().st_size < 1_500_000
    text = path.read_text()
    assert not re.search(r"/(?:root|work|home|tmp|Users)/", text), "a path of one machine"
    outputs = [output for cell in code for output in cell.outputs]
    assert not [o for o in outputs if o.output_type == "error" or o.get("name") == "stderr"]


@pytest.mark.parametrize("path", LESSONS, ids=NAMES)
def test_committed_outputs_are_of_the_real_mnist_or_of_the_photos(path):
    outputs = [o for cell in read(path).cells if cell.cell_type == "code" for o in cell.outputs]
    text = "\n".join(o.get("text", "") or o.get("data", {}).get("text/plain", "") for o in outputs)
    of = "photos: 10,000 training" if "own_pictures" in path.name else "mnist: 60,000 training"
    assert of in text
    assert "digits: 60,000" not in text
    assert any("image/png" in o.get("data", {}) for o in outputs)


@pytest.mark.parametrize("path", LESSONS, ids=NAMES)
def test_the_source_that_is_shown_is_the_source_that_is_run(path):
    notebook, names = read(path), {}
    exec(imports(notebook), names)
    for cell in notebook.cells:
        if cell.cell_type != "code" or "lesson.show_source(" not in cell.source:
            continue
        texts = [output.get("data", {}).get("text/plain", "") for output in cell.outputs]
        for node in ast.walk(ast.parse(cell.source)):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "lesson.show_source":
                assert eval(ast.unparse(node), names).data in texts, ast.unparse(node)


@pytest.mark.parametrize("path", LESSONS, ids=NAMES)
def test_each_parameter_says_what_it_is(path):
    parameters = papermill.inspect_notebook(path)
    assert {"dataset", "seed", "device", "epochs"} <= set(parameters)
    for name, parameter in parameters.items():
        assert parameter["help"] and parameter["inferred_type_name"] != "None", name


def test_cleaning_drops_what_is_dead_without_a_kernel():
    view = {"application/vnd.jupyter.widget-view+json": {"model_id": "1"}, "text/plain": "x"}
    output = nbformat.v4.new_output
    twin = base64.b64encode(png(np.zeros((2, 2), np.uint8))).decode()
    cell = nbformat.v4.new_code_cell(
        "x",
        metadata={"papermill": {"duration": 1}, "tags": ["parameters"]},
        outputs=[
            output("display_data", view),  # a progress bar
            output("display_data", view | {"image/png": twin}),  # an explorer and its twin
            output("stream", name="stderr", text=" 10%|#    | 1/10"),
            output("stream", name="stdout", text="kept"),
        ],
    )
    notebook = nbformat.v4.new_notebook(
        cells=[cell],
        metadata={"widgets": {"state": 1}, "papermill": {"input_path": "elsewhere/in.ipynb"}},
    )
    clean = cleaned(notebook)
    picture, text = clean.cells[0].outputs
    assert set(picture.data) == {"image/png", "text/plain"}
    assert text.text == "kept"
    assert clean.cells[0].metadata == {"tags": ["parameters"]}
    assert set(clean.metadata) == {"kernelspec", "language_info"}
    assert ScriptExporter().from_notebook_node(clean)[1]["output_extension"] == ".py"
    assert clean == cleaned(clean)


def test_cleaning_keeps_the_pixels_of_a_figure_in_fewer_bytes():
    ramp = np.arange(1600, dtype=np.uint8).reshape(40, 40, 1)
    grey = ramp.repeat(3, axis=2)
    coloured = grey.copy()
    coloured[5, 5] = (255, 0, 0)
    opaque = np.full((40, 40, 1), 255, np.uint8)
    for pixels, mode in [(grey, "L"), (coloured, "RGB")]:
        encoded = base64.b64encode(png(np.concatenate([pixels, opaque], axis=2))).decode()
        less = smaller(encoded)
        image = Image.open(io.BytesIO(base64.b64decode(less)))
        assert image.mode == mode and len(less) < len(encoded)
        np.testing.assert_array_equal(np.asarray(image.convert("RGB")), pixels)
        assert smaller(less) == less
    half = base64.b64encode(png(np.concatenate([grey, opaque // 2], axis=2))).decode()
    assert smaller(half) == half  # it shines through


# --- headless, with other parameters --------------------------------------------------------------


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Return run(lesson, **parameters): the executed notebook, with results of its own.

    It takes few of the images: with all of them nbval runs each lesson in full.
    """
    monkeypatch.setenv("VAE_LESSON_RESULTS", str(tmp_path / "results"))
    for name in ("http_proxy", "https_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")  # nothing listens: no test downloads

    def execute(name: str, **parameters) -> nbformat.NotebookNode:
        nbformat.write(with_few_images(name), tmp_path / "in.ipynb")
        return papermill.execute_notebook(
            tmp_path / "in.ipynb",
            tmp_path / "out.ipynb",
            parameters,
            kernel_name="python3",
            cwd=NOTEBOOKS,
            progress_bar=False,
            execution_timeout=600,
        )

    return execute


def write_idx(path: Path, array: torch.Tensor) -> None:
    magic = 0x800 + array.ndim
    header = struct.pack(f">{1 + array.ndim}i", magic, *array.shape)
    path.write_bytes(header + array.byte().numpy().tobytes())


@pytest.fixture(scope="module")
def stand_ins(tmp_path_factory):
    """Return a data folder with the offline digits in place of Fashion-MNIST and KMNIST.

    They have the files and shapes of the real ones, so that the code for them runs offline.
    """
    root = tmp_path_factory.mktemp("data")
    digits = load_images("digits")
    for name in ("FashionMNIST", "KMNIST"):
        raw = root / name / "raw"
        raw.mkdir(parents=True)
        write_idx(raw / "train-images-idx3-ubyte", digits.train)
        write_idx(raw / "train-labels-idx1-ubyte", digits.train_labels)
        write_idx(raw / "t10k-images-idx3-ubyte", digits.test)
        write_idx(raw / "t10k-labels-idx1-ubyte", digits.test_labels)
    # Their checksums are these files' own, in every Python that finds this folder on its path.
    md5 = {path.name: hashlib.md5(path.read_bytes()).hexdigest() for path in raw.iterdir()}
    (root / "sitecustomize.py").write_text(
        f"from vae_lesson.sources import mnist\nmnist.MD5 = dict.fromkeys(mnist.MD5, {md5!r})\n"
    )
    return root


def printed(notebook: nbformat.NotebookNode) -> str:
    outputs = [o for cell in notebook.cells if "outputs" in cell for o in cell.outputs]
    return "\n".join(
        o.get("text", "") or "".join(o.get("data", {}).get("text/plain", "")) for o in outputs
    )


@pytest.mark.lessons
def test_lesson_01_offline_with_another_size(run, tmp_path):
    done = run("01_autoencoder", dataset="digits", epochs=1, latent_size=5, hidden_size=64)
    assert "PCA, 5 numbers" in printed(done)
    assert "0 of 3 yours" in printed(done)
    assert (tmp_path / "results" / "autoencoder.pt").is_file()
    assert (tmp_path / "results" / "01_autoencoder.json").is_file()


@pytest.mark.lessons
def test_lesson_02_on_kmnist_alone(run, tmp_path, stand_ins, monkeypatch):
    monkeypatch.setenv("VAE_LESSON_DATA", str(stand_ins))
    monkeypatch.setenv("PYTHONPATH", str(stand_ins))
    done = run("02_vae", dataset="kmnist", epochs=1, latent_size=6, hidden_size=64)
    text = printed(done)
    assert "kmnist: 3,000 training" in text
    assert "'kmnist' has no measured band" in text
    assert "0 of 6 yours" in text
    assert "Training now, because there is no autoencoder.pt yet." in text
    assert (tmp_path / "results" / "vae_generated.png").stat().st_size > 1000


@pytest.mark.lessons
def test_lesson_03_on_fashion_alone_with_many_dimensions(run, tmp_path, stand_ins, monkeypatch):
    monkeypatch.setenv("VAE_LESSON_DATA", str(stand_ins))
    monkeypatch.setenv("PYTHONPATH", str(stand_ins))
    done = run("03_latent_space", dataset="fashion", epochs=1, latent_size=40, hidden_size=64)
    text = printed(done)
    assert "fashion: 3,000 training" in text
    assert "Training now, because there is no vae.pt yet." in text
    pictures = [
        o.data
        for cell in done.cells
        if "explore." in cell.source
        for o in cell.get("outputs", [])
        if "image/png" in o.get("data", {})
    ]
    assert len(pictures) == 2  # each explorer has its static twin
    # A page made of it needs no network: it has the picture, not a widget to be drawn.
    assert not any("widget-view" in kind for bundle in pictures for kind in bundle)
    page, _ = HTMLExporter().from_notebook_node(done)
    assert all(bundle["image/png"][:200] in page for bundle in pictures)


@pytest.mark.lessons
def test_lesson_04_on_fashion_alone(run, tmp_path, stand_ins, monkeypatch):
    monkeypatch.setenv("VAE_LESSON_DATA", str(stand_ins))
    monkeypatch.setenv("PYTHONPATH", str(stand_ins))
    text = printed(run("04_anomaly", dataset="fashion", epochs=1, latent_size=5, hidden_size=64))
    assert "Training now, because there is no vae.pt yet." in text
    assert "going on without it" in text  # of MNIST, its strange images
    assert "0 of 4 yours" in text


@pytest.mark.lessons
def test_lesson_11_on_a_folder(run, tmp_path, monkeypatch):
    monkeypatch.setenv("VAE_LESSON_DATA", str(tmp_path / "data"))  # for what was read
    random = np.random.default_rng(0)
    for i in range(300):
        height, width = random.integers(20, 60, 2)
        corners = random.integers(0, 256, (2, 2, 3), np.uint8)
        picture = Image.fromarray(corners).resize((width, height), Image.Resampling.BILINEAR)
        folder = tmp_path / "mine" / ("a b" if i % 2 else "c")
        folder.mkdir(parents=True, exist_ok=True)
        picture.save(folder / f"{i}.png")
    small = {"side": 18, "epochs": 1, "latent_size": 5, "hidden_size": 64}
    done = run("11_own_pictures", dataset=str(tmp_path / "mine"), **small)
    text = printed(done)
    assert "of 18×18 pixels in colour, 2 classes" in text
    assert "'mine/' has no measured band" in text
    assert "warmer: asked for" in text
    assert (tmp_path / "results" / "11_own_pictures.json").is_file()


@pytest.mark.lessons
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("name", NAMES)
def test_lesson_on_a_gpu_with_no_change(run, name):
    small = {"epochs": 1, "latent_size": 5, "hidden_size": 64}
    small |= {"n_images": 500} if "05" < name < "11" else {}
    dataset = "photos" if name > "11" else "digits"
    text = printed(run(name, dataset=dataset, device="cuda", **small))
    assert re.search(rf"{dataset}: 3,000 training .* on (cuda|cpu)", text)
    assert text.count("No CUDA graph") == (name == "02_vae")  # its Normal looks at its arguments


@pytest.mark.parametrize(
    "name, parameters, messages",
    [
        ("01_autoencoder", {"epochs": -1}, ["epochs must be a whole number of at least 1, got -1"]),
        (
            "02_vae",
            {"dataset": "cifar", "latent_size": 0},
            [
                "unknown data set 'cifar': choose one of mnist, fashion, kmnist, digits",
                "latent_size must be a whole number of at least 2, got 0",
            ],
        ),
        ("03_latent_space", {"device": "cuda:99"}, ["device 'cuda:99' is not there"]),
        ("04_anomaly", {"hidden_size": 0}, ["hidden_size must be a whole number"]),
        ("05_likelihood", {"paper_k": 0}, ["paper_k must be a whole number of at least 1, got 0"]),
        ("06_rate_distortion", {"n_images": 1.5}, ["n_images must be a whole number"]),
        ("07_diagnosis", {"epochs": 0}, ["epochs must be a whole number of at least 1, got 0"]),
        (
            "08_conditional",
            {"n_images": 0},
            ["n_images must be a whole number of at least 1, got 0"],
        ),
        (
            "09_learned_prior",
            {"flow_epochs": 0},
            ["flow_epochs must be a whole number of at least"],
        ),
        ("10_discrete_codes", {"n_codes": 0}, ["n_codes must be a whole number of at least 1"]),
        (
            "11_own_pictures",
            {"dataset": "nowhere", "side": 0, "lr": -1.0},
            ["the path of a folder", "side must be a whole number", "lr must be a number over 0"],
        ),
    ],
)
def test_bad_parameters_end_at_once(name, parameters, messages):
    cells = {cell.id: cell.source for cell in read(name).cells}
    names = {}
    exec(cells["parameters"], names)
    names |= parameters
    before_the_data = cells["imports"].split(LOAD)[0]
    with pytest.raises(ValueError) as failure:
        exec(before_the_data, names)
    for message in messages:
        assert message in str(failure.value)


@pytest.mark.lessons
@pytest.mark.parametrize(
    "parameters, message",
    [
        ({"epochs": -1}, "epochs must be a whole number of at least 1, got -1"),
        ({"latentsize": 10}, "there is no parameter 'latentsize': did you mean 'latent_size'?"),
    ],
)
def test_a_bad_parameter_ends_a_headless_run_in_the_cell_of_imports(run, parameters, message):
    with pytest.raises(papermill.PapermillExecutionError) as failure:
        run("01_autoencoder", **parameters)
    assert failure.value.ename == "ValueError"
    assert message in failure.value.evalue
    code = [cell.id for cell in read("01_autoencoder").cells if cell.cell_type == "code"]
    assert failure.value.exec_count == code.index("imports") + 2  # papermill's own counts too
