"""The numbers in a lesson's prose are the numbers in its committed outputs."""

import re
from decimal import Decimal
from operator import sub, truediv

import pytest
from lessons import LESSONS, NAMES, read
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

NUMBER = r"(?<![\w.,])[−-]?\d+(?:,\d{3})*(?:\.\d+)?(?:e[+-]?\d+)?(?![\w⁻])"
BOUND = r"\b(?P<bound>over|under|more than|less than|at least|at most) "
CLAIM = re.compile(rf"(?:{BOUND})?(?P<number>{NUMBER})(?: ?(?P<unit>%|nat))?")
# A year, a learning rate (1e-3), a lesson (02), and one digit, which some output always has.
NO_CLAIM = re.compile(r"(19|20)\d\d|.*e.*|[−-]?0?\d")
# References, code, formulas, targets of links, drawings, tags, headings, the line of times.
NOT_PROSE = re.compile(
    r"\*\*References\*\*.*|```.*?```|`[^`\n]*`|\$\$.*?\$\$|\$[^$\n]+\$|\]\([^)\n]*\)"
    r"|<svg.*?</svg>|</?[a-z][^>]*>|^#[^\n]*|^\*\*Time[^\n]*",
    re.DOTALL | re.MULTILINE,
)

# Numbers in the prose that no text output shows, and why that is right.
GIVEN = {
    "01": {
        "the definition of near": "95%",
        "8.7 / 784": "0.011",
    },
    "02": {
        "a round KL, to guess from: it will be 25.6": "25",
        "43.6 / 2.01, the standard deviations that the text says how to compute": "22",
        "an example: a grey of 0.3": "0.3 30%",
        "the toy's noise, and the x that was seen": "0.5 1.2",
        "the logarithm of 2": "0.69",
        "the toy's smallest gap, and where it is: test_explore": "0.23 0.52 0.26",
        "the playground, five seeds, β = 4 and 1: test_playground": "1,000 0.00",
        "106.1 + 21.3": "127",
        "the largest byte": "255",
    },
    "03": {"the threshold of an active unit": "0.01"},
    "04": {
        "the test images that are not among the 2,000": "8,000",
        "this lesson on the digits: tests/bands.json": "0.698",
    },
    "05": {
        "digits that agree: the table has 1e-13": "12",
        "where float32 ends": "−100",
        "the root of ½": "0.71",
        "Var(w)/2K of the doubled σ, (1.512⁵ − 1)/600": "0.011",
        "86.76 − 86.35 and 86.35 − 84.78": "0.4 1.6",
        "above it Vehtari et al. 2024 say not to trust": "0.7",
        "other seeds, longer, by tools/claims.py axes and gaps": "400 35 10 42 23 7.5 26 3.8 1.7",
        "a longer training, by tools/claims.py paper": "35 90.9 300 87.9 87.4 0.8",
    },
    "06": {
        "an example: a grey of 0.3": "0.3 30%",
        "the root of ½": "0.71",
        "the images of the training set": "60,000",
        "longer trainings, by tools/claims.py prices": "95.8 100.0 0.00",
        "longer trainings, by tools/claims.py ends": "12 0.9 1.5 1.3",
        "longer trainings, by tools/claims.py cures": "15 60 116.7 116.4 117.2 113.3 113.0 113.9"
        " 114.3 113.7 114.8 106.5 105.8 107.5 102.4 102.2 102.5 102.6 102.8 17.5 22.0",
        "the day; four of them run again": "28 0.001 0.005",
        "longer trainings, by tools/claims.py sprites": "0.023 0.033 0.031 0.014 0.052 0.034 0.060"
        " 0.037 0.065 0.049 0.013 0.140 0.114 0.192 0.094 0.45 0.43",
        "Locatello et al. 2019": "12,000",
    },
    "07": {
        "levels of grey": "256",
        "32 latents · 32 images": "1024",
        "the sigmoid of 1": "0.73",
        "Chen et al. 2019": "0.97 1.06",
        "256 · 2^2.90": "1,900",
    },
    "08": {
        "chance: the most frequent label's share": "11%",
        "the logarithm of ten": "2.3",
        "0.972 in the table of section 1": "97%",
        "longer trainings, by tools/claims.py labels": "83% 90.2% 16.1% 17.1% 16.9% 104.5 76.5%",
        "the best q of each image, by tools/claims.py won": "0.4 0.9 1,000",
    },
    "09": {
        "this lesson with seeds 1 and 2": "2.73 2.44 3.18 3.86 2.88 3.01 0.39 0.32 6.81 3.92 5.93"
        " 3.14 8.41 2.38 9.38 0.906 0.863 0.900 0.841 0.745 0.794 0.749 0.782 325.5 5.50 333.9"
        " 4.45 0.892 0.965 0.895 0.971 0.769 0.508 0.764 0.502",
        "longer trainings, by tools/claims.py cells": "7.1 6.1 8.0 3.9 3.3 4.3 4.0 3.7 4.4 13.3"
        " 12.5 14.3 4.5 4.8 5.5 6.8 11.1 9.9 12.3 3.8 3.1 4.7 1.9 2.0 60",
        "longer trainings, by tools/claims.py reflow": "302 317",
        "numbers in those mixtures and flows": "196 32 500 30,000 195,029 975,149 19,649 196,499"
        " 66,825 299,204 991,428 19,306 134",
        "Stable Diffusion's public settings": "64 16,384 0.000001 860",
        "the next cell's table shows it too": "318.3",
        "a setting of flow_terms": "10%",
        "the weights of VelocityField(20), in millions": "0.2",
        "what lesson 08's judge reads of the test images": "97.2%",
        "the definition of in the empty": "0.05",
    },
    "10": {
        "numbers in a cell; entries": "16 64",
        "a round recon, to guess from": "81",
        "49 log 8": "101.9",
        "the prices by tools/claims.py codes, over 49 log K": "37 41%",
        "longer trainings, by tools/claims.py codes": "27.9 107.0 41.5 54.6 118.4 74.4 132.1 7.8"
        " 156 201 50.2 47.9 46.8",
        "other VAEs, by tools/claims.py rivals": "25.8 20.1 112.4 100.7 111.6 3.9",
        "other starts, by tools/claims.py starts": "15 30 17 13 33 29 1.0 4.4",
        "other priors, by tools/claims.py writers": "0.05 0.09 0.04 1.6 2.0 14.6 16.8 5.8 7.5 74.9"
        " 74.2 74.8% 78.8 77.8 78.9% 20,000",
        "the decoder's reach": "18",
    },
    "11": {
        "longer trainings, by tools/claims.py choices": "6.24 6.25 6.01 6.03 200 0.32 0.38 0.02",
        "the same, by tools/claims.py flips": "0.37 0.41 0.06 0.09",
        "other seeds, by tools/claims.py widths": "200 6.73 6.70 6.76 6.77 0.08",
        "larger pictures, by tools/claims.py sides": "21 64 98 128 381 1.1 1.6 3.3",
        "the definition of the empty": "95%",
    },
}
# What outputs elsewhere show, and what the prose works out from two numbers of the outputs.
DERIVED = {
    "01": "18.5 2.23",
    "02": "80.0",
    "05": "156.4-140.5 122.5-107.2 140.5-99.3 122.9-103.2 98.71-98.16",
    "06": "335.1-332.5 452.3-335.1 476.9-335.1 469.3-335.1 106.5-100.4",
    "08": "103.1-101.6 111.2-101.6 114.1-101.6 104.69-101.55 100.65-100.42",
    "10": "133.0-110.4 68.2-57.7 75.3-42.2",
}


def value(number: str) -> Decimal:
    return Decimal(re.sub("[,_]", "", number.replace("−", "-")))


def sections(notebook: NotebookNode) -> list[list[NotebookNode]]:
    """Return the cells of each section; a Markdown cell that goes over a heading is divided."""
    found = [[]]
    for cell in notebook.cells:
        first, *others = re.split(r"^(?=## )", cell.source, flags=re.MULTILINE)
        found[-1].append(NotebookNode({**cell, "source": first}))
        found += [[NotebookNode({**cell, "source": source})] for source in others]
    return found


def shown(cells: list[NotebookNode]) -> dict[str, set[Decimal]]:
    """Return the numbers of the text outputs, and those that a claim in percent may repeat."""
    numbers, percent = set(), set()
    for output in [output for cell in cells for output in cell.get("outputs", [])]:
        data = output.get("data", {})
        if not data.keys() & {"image/png", "text/latex"}:  # no picture, no shown source
            text = output.get("text") or data.get("text/plain", "")
            found = {value(n) for n in re.findall(NUMBER, text)}
            numbers |= found
            percent |= {100 * n for n in found if abs(n) <= 1} | (found if "%" in text else set())
    return {"": numbers, "%": percent}


def worked_out(derived: str, numbers: set[Decimal]) -> tuple[set[Decimal], list[str]]:
    """Return the results of DERIVED, and what in it is from numbers that are shown no more."""
    results, gone = set(), []
    for item in derived.split():
        parts = [value(n) for n in re.split("[-/]", item)]
        if set(parts) <= {abs(n) for n in numbers}:
            results.add(parts[0] if len(parts) == 1 else (sub if "-" in item else truediv)(*parts))
        else:
            gone.append(item)
    return results, gone


def claims(cells: list[NotebookNode]):
    """Yield (cell id, paragraph, sentence, match) for each number in the prose that is a claim."""
    for cell in [cell for cell in cells if cell.cell_type == "markdown"]:
        for paragraph in NOT_PROSE.sub(" ", cell.source).replace("*", "").splitlines():
            for sentence in re.split(r"(?<=[.?!])\s+", paragraph):
                for claim in CLAIM.finditer(sentence):
                    if claim["unit"] == "%" or not NO_CLAIM.fullmatch(claim["number"]):
                        yield cell.id, paragraph, sentence, claim


def written(claim: re.Match) -> str:
    return claim["number"] + ("%" if claim["unit"] == "%" else "")


def repeats(claim: re.Match, number: Decimal) -> bool:
    """Tell whether a shown number, rounded as the claim is, is the claim's.

    A tie may go either way, because what is shown was rounded before. A claim without a sign may
    have it in its words ("falls by 3"), and a bound may be a unit away ("over 0.99" for 1.00).
    """
    claimed = value(claim["number"])
    unit = Decimal(1).scaleb(claimed.as_tuple().exponent)
    away = abs((number if claimed < 0 else abs(number)) - claimed)
    return away <= (unit if claim["bound"] else unit / 2)


def misses(notebook: NotebookNode, derived: str, lessons: dict) -> list[tuple[str, str]]:
    """Return (number, message) of each claim that repeats no output.

    It may repeat those of its section and of the opening, and of sections and lessons that its
    paragraph names ("section 3", "lesson 01"). Opening and closing may repeat the whole lesson's.
    """
    parts, whole = sections(notebook), shown(notebook.cells)
    everywhere = whole[""].union(*(lesson[""] for lesson in lessons.values()))
    results, gone = worked_out(derived, everywhere)
    numbered = {p[0].source.split()[1]: shown(p) for p in parts if p[0].source.startswith("## ")}
    # A whole number without a unit may be a setting: so many pixels, images, pairs.
    code = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "code")
    settings = {value(n) for n in re.findall(r"\b\d[\d_]*\b(?!\.)", code)}
    found = [(item, f"DERIVED has {item}, and no output shows it any more") for item in gone]
    for i, part in enumerate(parts):
        own = whole if i in (0, len(parts) - 1) else shown(part)
        for cell, paragraph, sentence, claim in claims(part):
            pools = [own, shown(parts[0])]
            pools += [numbered.get(n, own) for n in re.findall(r"[Ss]ection (\d+)", paragraph)]
            pools += [lessons.get(n, own) for n in re.findall(r"(?<![.\w])0\d\b", paragraph)]
            unit = "%" if claim["unit"] == "%" else ""
            numbers = results.union(*(pool[unit] for pool in pools))
            numbers |= set() if claim["unit"] else settings
            if not any(repeats(claim, n) for n in numbers):
                claimed = abs(value(claim["number"]))
                nearest = min(numbers, key=lambda n: abs(abs(n) - claimed), default="none")
                message = f"{written(claim)} (nearest: {nearest}) in cell {cell}: {sentence}"
                found.append((written(claim), message))
    return found


@pytest.fixture(scope="module")
def lessons() -> dict:
    return {path.stem[:2]: shown(read(path).cells) for path in LESSONS}


@pytest.mark.parametrize("name", NAMES)
def test_the_prose_repeats_the_outputs(name, lessons):
    notebook, given = read(name), set(" ".join(GIVEN.get(name[:2], {}).values()).split())
    found = misses(notebook, DERIVED.get(name[:2], ""), lessons)
    wrong = [f"{name}: {message}" for number, message in found if number not in given]
    unused = given - {written(claim) for *_, claim in claims(notebook.cells)}
    wrong += [f"{name}: GIVEN has {number}, and the prose does not" for number in unused]
    assert not wrong, "\n" + "\n".join(wrong)


# --- the comparison itself, on small notebooks ----------------------------------------------------


def wrong_numbers(*texts: str, derived: str = "", lessons: dict | None = None) -> list[str]:
    """Return the misses in a notebook of Markdown and, by turns, the outputs of a code cell."""
    cells = []
    for i, text in enumerate(texts):
        output = new_output("stream", text=text)
        code = new_code_cell("n_pairs = 2_000", outputs=[output])
        cells.append(code if i % 2 else new_markdown_cell(text))
    return [number for number, _ in misses(new_notebook(cells=cells), derived, lessons or {})]


@pytest.mark.parametrize(
    "prose, output, wrong",
    [
        ("*empty* is worse, 0.83 against 0.67", "0.827 0.660", ["0.67"]),
        ("standard deviations from 0.97 to 1.11", "0.961 1.11", ["0.97"]),
        ("104.1 nats and 45% of the images", "103.0 0.434 43.4%", ["104.1", "45%"]),
        ("falls from 167 to 13.3", "167.9 13.36", ["167", "13.3"]),
        ("from −2.2", "2.18", ["−2.2"]),
        ("in 56% of the cases", "56.1 nats", ["56%"]),
        ("over 0.99", "0.97", ["0.99"]),
        ("1,797 images, **13.4**", "1,796 13.34", ["1,797", "13.4"]),
        ("2,000 pairs, not 3,000, over 2,000 nats", "12.5", ["3,000", "2,000"]),
    ],
)
def test_a_wrong_number_is_found(prose, output, wrong):
    assert wrong_numbers(prose, output) == wrong


@pytest.mark.parametrize(
    "prose, output",
    [
        ("0.66, **13.4**, 13 and 0.660", "0.660 13.36"),
        ("43%, 56% and 81.5 %", "43.4% 0.561 0.8149"),
        ("1,797 images, 2,000 pairs", "1797 images"),
        ("from −2.2, by 3.1", "-2.18 -3.08"),
        ("2.4 times", "2.36"),
        ("8.2 or 8.3", "8.25"),
        ("over 0.99, under 1%", "1.00 0.0003"),
        ("Kingma (2013), lesson 02, 1e-3, within 2σ, 784–400, 3 of 10³", "784 400"),
        ("`0.3` $0.3$ [text](0.3) <b width='0.3'>", ""),
        ("# 11 · Heading\n**Time:** 45 minutes\n```\n0.3\n```\n$$\n0.3\n$$", ""),
        ("**References**\n\n- NeuroImage 87", ""),
    ],
)
def test_a_right_number_and_what_is_no_claim_are_left_alone(prose, output):
    assert wrong_numbers(prose, output) == []


def test_a_section_repeats_its_own_numbers_and_those_that_it_names():
    texts = ["0.17 0.25", "0.31", "## 1 · A\n0.17 0.31", "0.166", "0.17\n## 2 · B\n0.17", "0.25"]
    assert wrong_numbers(*texts, "## 3 · C\n0.17") == ["0.17"]
    texts[4] = "## 2 · B\n0.17, as in section 1, and 0.44 as in lesson 04"
    numbers = {"04": shown(new_notebook(cells=[]).cells) | {"": {Decimal("0.441")}}}
    assert wrong_numbers(*texts, "## 3 · C\n0.17", lessons=numbers) == []


def test_a_derived_number_needs_the_numbers_that_it_comes_from():
    prose = "14.8 less, 2.5 times"
    assert wrong_numbers(prose, "120.1 105.3 42.1", derived="120.1-105.3 105.3/42.1") == []
    assert wrong_numbers(prose, "120.2 42.1", derived="120.1-105.3 42.1") == [
        "120.1-105.3",
        "14.8",
        "2.5",
    ]
