"""The pages of the site say what is so: the table of methods, the commands, the front page.

``python -m tests.test_pages`` writes the table of the front page.
"""

import argparse
import csv
import re
import textwrap
from pathlib import Path

import pytest

import skocc
from skocc.__main__ import _parser

DOCS = Path(__file__).parent.parent / "docs"
RESULTS = DOCS / "results" / "methods_magnetic_tile.csv"
TABLE = DOCS / "methods" / "which_table.txt"
HEADER = """\
.. Written by python -m tests.test_pages from results/methods_magnetic_tile.csv.

All on the same photographs, the magnetic tiles of :doc:`/reproduction/index`: 100 to
train on and 414 to test, one run of :ref:`compare_command` with its small budgets.
ResNetKNN, FeatureCAE and scikit-learn's four, on features, have one MobileNetV2 with
ImageNet weights; the others are trained from the start, on smaller images, for a minute
or two. In brackets is the 95 % interval of a bootstrap over images. Times are of two
cores, with other work beside them; the whole run took 15 minutes:

.. csv-table::
   :header-rows: 1
   :widths: auto

"""
# Titles of the columns that end in an interval, and how the results call them.
METRICS = {
    "AUROC of images, %": "image_auroc",
    "AUROC of pixels, %": "pixel_auroc",
    "found at 5 % false alarms, %": "recall_at_5_percent",
}
COSTS = {
    "fit, s": "fit_seconds",
    "ms an image": "ms_per_image",
    "memory, MiB": "peak_mib",
}
# The parts of the page of a method, in their order. A page may have others between them.
PARTS = [
    "Idea", "Formula", "Picture", "When", "When not", "Cost", "Traps", "References",
]  # fmt: skip
every_method = pytest.mark.parametrize(
    "page", sorted((DOCS / "methods").glob("[!i]*.rst")), ids=lambda page: page.stem
)
every_page_of_the_guide = pytest.mark.parametrize(
    "page", sorted((DOCS / "guide").glob("[!i]*.rst")), ids=lambda page: page.stem
)


def percent(row, name):
    """Return a metric with its interval, or nothing where there is none."""
    value, low, high = (row.get(name + end, "") for end in ("", "_low", "_high"))
    if not value or value == "nan":
        return ""
    text = f"{100 * float(value):.1f}"
    if low and low != "nan":
        text += f" ({100 * float(low):.0f} to {100 * float(high):.0f})"
    return text


def cells(row):
    """Return the line of a detector."""
    name = row["detector"]
    first = f":class:`~skocc.{name}`" if name in skocc.DETECTORS else name
    if row["error"]:
        return [first, "failed", *[""] * (len(METRICS) + len(COSTS) - 1)]
    costs = [f"{float(row[name]):#.3g}".rstrip(".") for name in COSTS.values()]
    costs = [f"{float(cost):.0f}" if float(cost) >= 100 else cost for cost in costs]
    return [first, *(percent(row, name) for name in METRICS.values()), *costs]


def written_table(rows):
    """Return the table of the front page, as the text of a page."""
    lines = [["", *METRICS, *COSTS], *map(cells, rows)]
    quoted = (", ".join(f'"{cell}"' for cell in line) for line in lines)
    body = "".join(f"   {line}\n" for line in quoted)
    return HEADER + body


def code_of(text, begin):
    """Return the lines of the first code behind a word that begin with imports of skocc."""
    block = re.search(
        r"^( *)from skocc .*\n(?:(?:\1.*)?\n)*", text[text.index(begin) :], re.M
    )
    code = textwrap.dedent(block[0].partition("```")[0])
    return [line for line in code.splitlines() if line]


def test_the_table_of_methods_is_that_of_the_results():
    with RESULTS.open(encoding="utf-8", newline="") as file:
        assert TABLE.read_text(encoding="utf-8") == written_table(csv.DictReader(file))


def test_a_row_has_intervals_costs_and_a_link():
    row = {
        "detector": "ConvAE", "image_auroc": "0.8123", "image_auroc_low": "0.75",
        "image_auroc_high": "0.859", "pixel_auroc": "nan", "pixel_auroc_low": "nan",
        "recall_at_5_percent": "0.5", "fit_seconds": "1234.5", "ms_per_image": "0.1239",
        "peak_mib": "12", "error": "",
    }  # fmt: skip
    expected = [":class:`~skocc.ConvAE`", "81.2 (75 to 86)", "", "50.0"]
    assert cells(row) == [*expected, "1230", "0.124", "12.0"]
    assert cells(row | {"detector": "OneClassSVM"})[0] == "OneClassSVM"
    failed = cells(row | {"error": "ValueError: no"})
    assert failed[1] == "failed"
    assert len(failed) == len(cells(row))


@every_method
def test_pages_of_methods_have_one_order(page):
    text = page.read_text(encoding="utf-8")
    titles = re.findall(r"^(.+)\n-+$", text, re.M)
    assert [title for title in titles if title in PARTS] == PARTS
    picture = text.partition("\nPicture\n")[2].partition("\nWhen\n")[0]
    assert ".. plot::" in picture
    assert ":alt:" in picture


@every_page_of_the_guide
def test_pages_of_the_guide_begin_with_what_they_give(page):
    text = page.read_text(encoding="utf-8")
    first = re.split(r"^=+\n", text, maxsplit=1, flags=re.M)[1].strip().partition("\n\n")[0]
    assert first[0].isupper() or first.startswith("``")
    assert not first.startswith("The examples on this page begin")


def test_every_method_has_a_page():
    pages = [p.read_text(encoding="utf-8") for p in (DOCS / "methods").glob("*.rst")]
    links = set(re.findall(r":class:`~skocc\.(\w+)`", " ".join(pages)))
    assert set(skocc.DETECTORS) <= links


def test_every_option_of_the_command_line_is_in_the_guide():
    guide = " ".join(p.read_text(encoding="utf-8") for p in (DOCS / "guide").glob("*.rst"))
    subparsers = [
        action
        for action in _parser()._actions
        if isinstance(action, argparse._SubParsersAction)
    ]
    commands = subparsers[0]
    options = {
        option
        for command in commands.choices.values()
        for action in command._actions
        for option in action.option_strings
        if action.help != argparse.SUPPRESS and option not in ("-h", "--help")
    }
    assert {"--method", "--cv"} < options
    assert sorted(option for option in options if f"``{option}" not in guide) == []


def test_the_front_page_and_the_readme_find_a_defect_by_the_same_lines():
    readme = (DOCS.parent / "README.md").read_text(encoding="utf-8")
    front = (DOCS / "index.rst").read_text(encoding="utf-8")
    lines = code_of(readme, "```python")
    # The readme writes its picture to a file, the site shows it.
    assert code_of(front, ".. plot::") == [line for line in lines if "savefig" not in line]


if __name__ == "__main__":
    with RESULTS.open(encoding="utf-8", newline="") as file:
        TABLE.write_text(written_table(csv.DictReader(file)), encoding="utf-8")
