"""What every public name brings for its readers."""

import ast
import re
from pathlib import Path

import skocc
from tests.test_public_api import MODULES, listed_names

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
# What is made elsewhere, or is a plain value, is described in the reference itself.
DATA = {"skocc.DETECTORS", "skocc.base.Interval", "skocc.base.StrOptions"}
NAMES = {
    f"{module.__name__}.{name}": getattr(module, name)
    for module in MODULES
    for name in listed_names()[module.__name__]
    if f"{module.__name__}.{name}" not in DATA
}
READ_MORE = re.compile(r"Read more in the :ref:`User Guide <(\w+)>`\.")


def guide_link(value):
    """Return the label of the guide's page that the docstring of a public name links to."""
    match = READ_MORE.search(" ".join(value.__doc__.split()))
    return match and match[1]


def example(value):
    """Return the section Examples of a docstring, which is a test as well."""
    return re.split(r"\n *Examples\n *-{8}\n", value.__doc__)[-1]


def test_docstrings_have_an_example():
    without = [name for name, value in NAMES.items() if ">>> " not in example(value)]
    assert not without, f"no section Examples in {without}"


def test_examples_use_what_they_explain():
    strangers = [
        name
        for name, value in NAMES.items()
        if not re.search(rf"\b{name.rpartition('.')[2]}\b", example(value))
    ]
    assert not strangers, f"the examples of {strangers} do not use them"


def test_docstrings_tell_where_the_guide_explains_them():
    without = [name for name, value in NAMES.items() if guide_link(value) is None]
    assert not without, f"no 'Read more in the :ref:`User Guide <label>`.' in {without}"
    pages = [*DOCS.glob("guide/*.rst"), *DOCS.glob("methods/*.rst")]
    labels = {
        label
        for page in pages
        for label in re.findall(r"^\.\. _(\w+):$", page.read_text(), re.MULTILINE)
    }
    wrong = {name: guide_link(value) for name, value in NAMES.items()}
    wrong = {name: label for name, label in wrong.items() if label not in labels}
    assert not wrong, "labels that no page of the guide has"


def used_names(script):
    """Return what a script imports from skocc, or reads as an attribute of it."""
    names = set()
    for node in ast.walk(ast.parse(script)):
        if isinstance(node, ast.ImportFrom) and node.module.startswith("skocc"):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.Attribute) and ast.unparse(node.value) == "skocc":
            names.add(node.attr)
    return names


def test_detectors_have_an_example_in_the_gallery():
    scripts = (ROOT / "examples" / "gallery").rglob("plot_*.py")
    shown = set().union(*(used_names(script.read_text()) for script in scripts))
    missing = sorted({*skocc.DETECTORS} - shown)
    assert not missing, f"no script in examples/gallery uses {missing}"


def test_index_leads_to_every_page_of_the_reference():
    index = (DOCS / "reference" / "index.rst").read_text()
    listed, in_order = (
        re.findall(r":doc:`(\w+)`", index),
        re.findall(r"^   (\w+)$", index, re.M),
    )
    pages = {page.stem for page in DOCS.glob("reference/*.rst")} - {"index"}
    assert listed == in_order
    assert set(listed) == pages
