"""What a model file that is damaged, or made to do harm, can do: nothing.

Each case is a file that loads and scores, or one ValueError that names it.
"""

import copy
import json
import warnings

import numpy as np
import pytest
from safetensors.numpy import save

import skocc
from skocc._persistence.model_files import _digest
from skocc.feature_extraction import DeepFeatures
from skocc.model_selection import DetectorEnsemble
from tests.quick import ESTIMATORS, quick

CLASSES = [*ESTIMATORS, DeepFeatures, DetectorEnsemble]
# Of each kind and class; all with `-m slow`.
N_CASES = pytest.mark.parametrize("n", [4, pytest.param(400, marks=pytest.mark.slow)])
# Values to put in place of others.
STRANGE = [
    None, True, False, -1, 0, 1, 7, 0.5, -0.25, 2**31, 10**18, 10**19, 1e300, float("nan"),
    float("inf"), "", "x", "\x1b[31m", "../../etc/passwd", "imagenet", "resnet18", [], {},
    [1], [[[[[1]]]]], [0] * 2000, {"tuple": []}, {"tuple": [1, 2]}, {"tuple": [0, -1]},
    {"tuple": [8, 8, 1]}, {"tuple": [2**30, 2**30, 1]}, {"tuple": ["stage2"]},
    {"text": ["a"]}, {"tuple": 3}, {"list": []},
]  # fmt: skip


def make(estimator_class):
    """Return an unfitted estimator; an ensemble with another, and a dropped part, in it."""
    if estimator_class is not DetectorEnsemble:
        return quick(estimator_class)
    inner = DetectorEnsemble([("conv", quick(skocc.ConvAE))], combine="max")
    parts = [("knn", quick(skocc.ResNetKNN)), ("more", inner), ("none", "drop")]
    return DetectorEnsemble([*parts, ("svdd", quick(skocc.DeepSVDD))])


def entries(header):
    """Return the dictionaries of parameters and of values, also those of parts."""
    found = [header["params"], header["values"]]
    for _, of_part in header.get("parts", []):
        found += entries(of_part) if of_part else []
    return found


class ModelFile:
    """A fitted estimator, the bytes of its file, and what it gives."""

    def __init__(self, estimator_class, images):
        self.images = images
        estimator = make(estimator_class).fit(images)
        self.expected = self.results(estimator)
        header, self.arrays = skocc._persistence.model_files._take_apart(estimator)
        self.header = json.loads(json.dumps(header))
        self.content = self.signed(self.header, self.arrays)
        self.header_end = 8 + int.from_bytes(self.content[:8], "little")

    def results(self, estimator):
        if hasattr(estimator, "transform"):
            return estimator.transform(self.images[:9])
        return estimator.decision_function(self.images[:9])

    @staticmethod
    def signed(header, arrays):
        """Return the bytes of a file with a digest that agrees."""
        header = {**header, "digest": _digest(header, arrays)}
        return save(arrays, {"skocc": json.dumps(header)})

    def check(self, path, content, *, equal=True):
        """Return whether a file loads; then it also scores, by default as it should."""
        path.write_bytes(content)
        try:
            estimator = skocc.load(path)
        except ValueError as raised:
            error = raised
        else:
            error = None
        if error is not None:
            assert str(error).startswith(repr(str(path)))
            assert str(error).isprintable()
            # Nor does a traceback show another.
            assert error.__suppress_context__
            return False
        if equal:
            np.testing.assert_array_equal(self.results(estimator), self.expected)
        else:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of a device that is not there, say
                assert len(self.results(estimator)) == len(self.expected)
        return True


@pytest.fixture(scope="module", params=CLASSES, ids=lambda c: c.__name__)
def model(request, digits):
    return ModelFile(request.param, digits[0][:40])


@pytest.fixture(scope="module")
def other_models(digits):
    return [ModelFile(c, digits[0][:30]) for c in (skocc.PatchSVDD, skocc.MOCCA)]


def rng_of(model):
    return np.random.default_rng(len(model.content))


def test_the_file_itself(model, tmp_path):
    assert model.check(tmp_path / "a", model.content)


@N_CASES
def test_a_flipped_bit_of_the_header(model, tmp_path, n):
    for bit in rng_of(model).choice(8 * model.header_end, n, replace=False):
        content = bytearray(model.content)
        content[bit // 8] ^= 1 << (bit % 8)
        model.check(tmp_path / "a", content)


@N_CASES
def test_a_flipped_bit_of_the_numbers_is_noticed(model, tmp_path, n):
    n = n // 10 + 1
    for bit in rng_of(model).integers(8 * model.header_end, 8 * len(model.content), n):
        content = bytearray(model.content)
        content[bit // 8] ^= 1 << (bit % 8)
        assert not model.check(tmp_path / "a", content)


@N_CASES
def test_a_truncated_file(model, tmp_path, n):
    rng = rng_of(model)
    sizes = np.r_[
        rng.integers(0, model.header_end, n // 2),
        rng.integers(model.header_end, len(model.content), n - n // 2),
    ]
    for size in sizes:
        assert not model.check(tmp_path / "a", model.content[:size])


def swapped(model, other_models, rng):
    """Return header and arrays with two tensors, or two values, in each other's place."""
    header, arrays = copy.deepcopy(model.header), dict(model.arrays)
    other = model if rng.random() < 0.5 else other_models[rng.integers(len(other_models))]
    kind = rng.integers(3)
    if kind == 0 and arrays and other.arrays:
        first, second = rng.choice(sorted(arrays)), rng.choice(sorted(other.arrays))
        arrays[first] = other.arrays[second]
        if other is model:
            arrays[second] = model.arrays[first]
        return header, arrays
    all_here = entries(header)
    index = 2 * rng.integers(len(all_here) // 2) + (kind == 2)
    here, before = all_here[index], copy.deepcopy(all_here[index])
    there = before if other is model else copy.deepcopy(entries(other.header)[index % 2])
    first, second = rng.choice(sorted(here)), rng.choice(sorted(there))
    here[first] = there[second]
    if other is model:
        here[second] = before[first]
    return header, arrays


@N_CASES
def test_entries_in_the_place_of_others(model, other_models, tmp_path, n):
    rng = rng_of(model)
    for _ in range(n):
        header, arrays = swapped(model, other_models, rng)
        signed = {**header, "digest": _digest(model.header, model.arrays)}
        model.check(tmp_path / "a", save(arrays, {"skocc": json.dumps(signed)}))
        # By someone who knows how the digest is made.
        model.check(tmp_path / "a", model.signed(header, arrays), equal=False)


@N_CASES
def test_strange_values(model, tmp_path, n):
    rng = rng_of(model)
    for _ in range(n):
        header, arrays = copy.deepcopy(model.header), dict(model.arrays)
        places = entries(header)
        part = header if rng.random() < 0.1 else places[rng.integers(len(places))]
        part[rng.choice(sorted(part))] = STRANGE[rng.integers(len(STRANGE))]
        if arrays and rng.random() < 0.3:
            name = rng.choice(sorted(arrays))
            array = arrays.pop(name)
            changed = [
                array[:-1], array[..., None], array.astype(np.float64), array * 0 - 1,
                np.full_like(array, array.max() if array.size else 0), array[..., :0],
            ][rng.integers(6)] if array.ndim else array[None]  # fmt: skip
            arrays[rng.choice([name, name, "predict", "score_samples", f"{name}/0"])] = (
                np.ascontiguousarray(changed)
            )
        model.check(tmp_path / "a", model.signed(header, arrays), equal=False)
