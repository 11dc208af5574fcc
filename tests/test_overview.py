"""What each detector can do, in one table: the table is right, and so is what it says.

``python -m tests.test_overview`` writes the page of the documentation.
"""

import inspect
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.utils import get_tags
from sklearn.utils._param_validation import make_constraint

import skocc
from tests.quick import ON_ROWS, quick
from tests.test_parameters import table

PAGE = Path(__file__).parent.parent / "docs" / "overview.rst"
CLASSES = {name: getattr(skocc, name) for name in skocc.DETECTORS}
INTRODUCTION = """\
All detectors
=============

.. Written by python -m tests.test_overview, and compared by a test.

What each detector can do. All of them take images as arrays, tensors, PIL images and data
sets, have ``fit``, ``score_samples``, ``decision_function``, ``predict`` and a threshold,
and are saved by :func:`skocc.save`. The name leads to the page of the class, *guide* to
the section of the user guide. :doc:`/parameters` compares the parameters.
"""
OTHERS = """\
Other detectors are made of these:

* :class:`~skocc.model_selection.DetectorEnsemble` averages several, of skocc and of
  scikit-learn. It takes what all its parts take, and has heat maps if one of them has.
* :class:`~skocc.model_selection.TiledDetector` finds small defects in large images, by a
  detector of their tiles. It has heat maps if its detector has.
* :class:`~skocc.model_selection.ThresholdTuner` gives any of them a threshold with a
  bounded rate of false alarms, and p-values.
* :func:`~skocc.model_selection.classical_detectors` are four of scikit-learn, on features
  of images.
"""
every_detector = pytest.mark.parametrize("name", CLASSES)
# Title of a column, and the sentence about it below the table.
COLUMNS = {
    "learns": "what is trained: a network, or a *memory bank* of the features of a network",
    "maps": "heat maps: ``anomaly_map``",
    "rows": "plain rows (n, d) without ``image_shape``, as of a table",
    "files": "paths of files, which are decoded a batch at a time",
    "videos": "clips of successive frames",
    "own network": "the parameters that take a network of your own",
    "weights": "ImageNet weights of torchvision, or a file: ``weights``",
    "partial_fit": "learns more images without starting again",
    "warm_start": "a second ``fit`` continues from the fitted weights",
    "own image left out": "``train_scores_`` of an image do not know the image itself",
    "auto threshold": '``contamination="auto"``: the rule of the source',
    "GPU": "``device``",
    "source": "where the method is from, as the reference says it",
}


def signature(name):
    return inspect.signature(CLASSES[name]).parameters


def own_network(name):
    """Return the parameters that take a module, or an empty text."""
    return ", ".join(
        parameter
        for parameter, constraints in CLASSES[name]._parameter_constraints.items()
        if isinstance(constraints, list)
        and any(
            make_constraint(constraint).is_satisfied_by(torch.nn.Identity())
            for constraint in constraints
        )
    )


def has_bank(name):
    kinds = CLASSES[name]._fitted_attributes.values()
    return any(kind.kind == "bank" for kind in kinds)


def takes_auto(name):
    constraints = CLASSES[name]._parameter_constraints["contamination"]
    return any(make_constraint(c).is_satisfied_by("auto") for c in constraints)


def source(name):
    """Return the first reference of a detector, up to the title."""
    text = re.search(r"\.\. \[1\] (.+?)\n *(?:\.\. \[2\]|\n)", CLASSES[name].__doc__, re.S)
    reference = " ".join(text[1].split())
    year = re.search(r"\b(19|20)\d\d\b", reference)
    authors = reference.partition(', "')[0].removeprefix('"').partition('"')[0]
    return f"{authors}, {year[0]}" if year else authors


def label(name):
    """Return the label of the detector's section in the user guide."""
    return re.search(r"User\s+Guide\s+<(\w+)>", CLASSES[name].__doc__)[1]


def capabilities(name):
    """Return the cells of the line of a detector."""
    detector, parameters = CLASSES[name], signature(name)
    input_tags = get_tags(detector()).input_tags
    # Where maps need a parameter, the class has the method and its default has not.
    maps = hasattr(detector(), "anomaly_map")
    if not maps and hasattr(detector, "anomaly_map"):
        maps = "with ``patch_size``"
    learns = "network" if "n_epochs" in parameters else ""
    bank = "memory bank" if has_bank(name) else ""
    cells = {
        "learns": ", ".join(filter(None, [learns, bank])),
        "maps": maps,
        "rows": input_tags.two_d_array,
        "files": input_tags.string,
        "videos": "clip_length" in parameters,
        "own network": own_network(name),
        "weights": "weights" in parameters,
        "partial_fit": hasattr(detector, "partial_fit"),
        "warm_start": "warm_start" in parameters,
        "own image left out": has_bank(name),
        "auto threshold": takes_auto(name),
        "GPU": "device" in parameters,
        "source": source(name),
    }
    assert cells.keys() == COLUMNS.keys()
    return cells


def shown(cell):
    return cell if isinstance(cell, str) else "yes" if cell else ""


def page():
    """Return the page of the documentation."""
    lines = [*INTRODUCTION.splitlines(), ""]
    found = {name: capabilities(name) for name in CLASSES}
    rows = [[title, *(shown(found[name][title]) for name in CLASSES)] for title in COLUMNS]
    rows.append(["guide", *(f":ref:`{label(name)}`" for name in CLASSES)])
    lines += [*table(["", *CLASSES], rows)]
    lines += [*(f"* *{title}*: {said}." for title, said in COLUMNS.items()), ""]
    lines += [*OTHERS.splitlines(), ""]
    return "\n".join(lines)


def test_the_page_is_up_to_date():
    assert PAGE.read_text() == page(), "run `python -m tests.test_overview`"


# What the page says is so


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).random((24, 16, 16)).astype(np.float32)


@every_detector
def test_maps(name, images):
    maps = capabilities(name)["maps"]
    with_maps = {"patch_size": 8} if isinstance(maps, str) else {}
    detector = quick(CLASSES[name], **with_maps).fit(images)
    if maps:
        assert detector.anomaly_map(images[:2]).shape == (2, 16, 16)
    else:
        assert not hasattr(detector, "anomaly_map")
    assert not with_maps or not hasattr(quick(CLASSES[name]), "anomaly_map")


@every_detector
def test_rows(name, images):
    rows = images.reshape(24, -1)[:, :40]
    short = ON_ROWS.get(name, {}) | {"random_state": 0, "device": "cpu"}
    detector = CLASSES[name](**short) if name in ON_ROWS else quick(CLASSES[name])
    if capabilities(name)["rows"]:
        assert detector.fit(rows).score_samples(rows).shape == (24,)
    else:
        with pytest.raises(ValueError, match="image_shape"):
            detector.fit(rows)
    # Flattened images are no plain rows, and all take them.
    assert get_tags(quick(CLASSES[name], image_shape=(16, 16))).input_tags.two_d_array


@every_detector
def test_files(name, image_files):
    _, paths = image_files
    assert capabilities(name)["files"]
    detector = quick(CLASSES[name]).fit(paths)
    assert detector.score_samples(paths).shape == (len(paths),)


@every_detector
def test_videos(name, images):
    videos = np.stack([images[:8]] * 4)[..., np.newaxis]  # (4, 8, 16, 16, 1)
    short = {"clip_length": 4} if capabilities(name)["videos"] else {}
    detector = quick(CLASSES[name], **short)
    if capabilities(name)["videos"]:
        assert detector.fit(list(videos)).score_frames(videos[0]).shape == (8,)
    else:
        with pytest.raises(ValueError, match="shape"):
            detector.fit(videos)


@every_detector
def test_own_networks(name):
    networks = {"backbone", "autoencoder"} & set(signature(name))
    assert {*capabilities(name)["own network"].split(", ")} == networks


@every_detector
def test_own_image_left_out(name, images):
    """Without that, a training image would find itself at no distance."""
    if capabilities(name)["own image left out"]:
        detector = quick(CLASSES[name], max_bank_bytes=None).fit(images)
        assert np.all(detector.train_scores_ < -1e-3)
        np.testing.assert_allclose(
            detector.score_samples(images), detector.train_scores_, rtol=1e-4
        )
    else:
        assert "bank_" not in " ".join(vars(quick(CLASSES[name]).fit(images)))


@every_detector
def test_auto_threshold(name, images):
    detector = quick(CLASSES[name], contamination="auto")
    if capabilities(name)["auto threshold"]:
        assert np.isfinite(detector.fit(images).offset_)
    else:
        with pytest.raises(ValueError, match="contamination"):
            detector.fit(images)


@every_detector
def test_training_goes_on_where_it_is_said(name, images):
    cells = capabilities(name)
    if cells["partial_fit"]:
        detector = quick(CLASSES[name]).partial_fit(images[:12]).partial_fit(images[12:])
        assert detector.score_samples(images).shape == (24,)
    if cells["warm_start"]:
        detector = quick(CLASSES[name], warm_start=True).fit(images).fit(images)
        assert len(detector.loss_curve_) > len(quick(CLASSES[name]).fit(images).loss_curve_)


@every_detector
def test_the_source_is_a_reference(name):
    assert 8 < len(source(name)) < 90
    assert f".. _{label(name)}:" in "".join(
        path.read_text() for path in sorted(PAGE.parent.glob("*/*.rst"))
    )


if __name__ == "__main__":
    PAGE.write_text(page())
