"""Parameters of all detectors in one table: one name is one thing, in one order.

``python -m tests.test_parameters`` writes the page of the documentation.
"""

import inspect
import re
from pathlib import Path

import pytest

import skocc
from tests.quick import trains

PAGE = Path(__file__).parent.parent / "docs" / "parameters.rst"
CLASSES = {name: getattr(skocc, name) for name in skocc.DETECTORS}
# The last parameters of every detector, in this order; those that train end in warm_start.
TAIL = (
    "batch_size", "contamination", "image_shape", "image_size", "intensity_range",
    "device", "random_state", "verbose",
)  # fmt: skip
SCHEDULE = ("n_epochs", "learning_rate", "weight_decay")
# Names, and ends of names, of what says how a network is trained.
TRAINING = (*SCHEDULE, "milestones", "patience", "n_iter_no_change", "tol", "warm_start")
# Parameters that have another type in some class, and why.
REASONS = {
    "backbone": "torchvision has no networks for clips or for small patches, "
    "which PatchSVDD and VideoMOCCA embed",
    "contamination": '``"auto"`` is for methods whose source has a rule for the threshold',
    "image_size": '``"weights"`` is for frozen networks, whose weights have a size',
    "latent_dim": '``"map"`` is for DataSplitOCC, whose code may keep its places',
}


def parameters(name):
    """Return the parameters of a detector with their defaults, in order."""
    signature = inspect.signature(CLASSES[name])
    return {p.name: p.default for p in signature.parameters.values()}


def owners():
    """Return for each parameter the detectors that have it."""
    found = {}
    for name in CLASSES:
        for parameter in parameters(name):
            found.setdefault(parameter, []).append(name)
    return found


def kinds(name, parameter):
    """Return the types that a parameter takes, None aside."""
    # The names of devices are checked where they are used.
    constraints = CLASSES[name]._parameter_constraints.get(parameter, [])
    return {
        c.type.__name__
        if hasattr(c, "type") and hasattr(c, "closed")
        else getattr(c, "__name__", c if isinstance(c, str) else type(c).__name__)
        for c in constraints
        if c is not None
    }


def groups():
    """Return the title of each group of shared parameters, and these."""
    shared = {p: names for p, names in owners().items() if len(names) > 1}
    of_training = [p for p in shared if p.endswith(TRAINING)]
    own = sorted(shared.keys() - {*of_training} - {*TAIL})
    order = [*SCHEDULE, *(f"pretrain_{name}" for name in SCHEDULE)]
    first = [p for p in order if p in of_training]
    of_training = first + sorted({*of_training} - {*first})
    return {
        "Of the methods": own,
        "Of training": of_training,
        "Of all detectors": TAIL,
    }


def shown(default):
    """Return a default as in a call, in the syntax of the page."""
    return f"``{default!r}``".replace("'", '"')


def table(header, rows):
    """Return the lines of a table."""
    lines = [[f":class:`~skocc.{h}`" if h in CLASSES else h for h in header], *rows]
    cells = [", ".join('"' + c.replace('"', '""') + '"' for c in line) for line in lines]
    options = ["   :header-rows: 1", "   :widths: auto", ""]
    return [".. csv-table::", *options, *(f"   {line}" for line in cells), ""]


def page():
    """Return the page of the documentation."""
    lines = [
        "Parameters of all detectors",
        "===========================",
        "",
        ".. Written by python -m tests.test_parameters, and compared by a test.",
        "",
        "The cells are the defaults; a detector without one does not have the parameter. A",
        "parameter of one name has one type in all detectors, with these exceptions:",
        "",
        *(f"* ``{parameter}``: {reason}." for parameter, reason in REASONS.items()),
        "",
    ]
    for title, names in groups().items():
        rows = [
            [f"``{p}``"]
            + [shown(parameters(n)[p]) if p in parameters(n) else "" for n in CLASSES]
            for p in names
        ]
        lines += [title, "-" * len(title), "", *table(["", *CLASSES], rows)]
    alone = {name: [] for name in CLASSES}
    for parameter, names in owners().items():
        if len(names) == 1:
            alone[names[0]].append(
                f"``{parameter}`` = {shown(parameters(names[0])[parameter])}"
            )
    title = "Of one detector"
    rows = [
        [f":class:`~skocc.{name}`", ", ".join(found)]
        for name, found in alone.items()
        if found
    ]
    lines += [title, "-" * len(title), "", *table(["", "parameters and defaults"], rows)]
    return "\n".join(lines)


def test_the_page_is_up_to_date():
    assert PAGE.read_text() == page(), "run `python -m tests.test_parameters`"


def test_every_parameter_stands_in_one_table():
    shown_ = [p for names in groups().values() for p in names]
    shown_ += [p for p, names in owners().items() if len(names) == 1]
    assert sorted(shown_) == sorted(owners())


def test_one_name_has_one_type():
    differing = set()
    for parameter, names in owners().items():
        first, *others = (kinds(name, parameter) for name in names)
        if any(other != first for other in others):
            differing.add(parameter)
    assert differing == REASONS.keys(), "give it another name, or REASONS a reason"


@pytest.mark.parametrize("name", CLASSES)
def test_parameters_are_described_in_their_order(name):
    text = inspect.getdoc(CLASSES[name])
    (described,) = re.findall(r"\nParameters\n-+\n(.*?)\nAttributes\n-+\n", text, re.DOTALL)
    assert re.findall(r"^(\w+) : ", described, re.MULTILINE) == [*parameters(name)]


@pytest.mark.parametrize("name", CLASSES)
def test_shared_parameters_stand_last_in_one_order(name):
    names = [*parameters(name)]
    tail = (*TAIL, "warm_start") if trains(CLASSES[name]) else TAIL
    assert tuple(names[-len(tail) :]) == tail
    if trains(CLASSES[name]):
        start = names.index(SCHEDULE[0])
        assert tuple(names[start : start + len(SCHEDULE)]) == SCHEDULE


if __name__ == "__main__":
    PAGE.write_text(page())
