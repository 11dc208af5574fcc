import numpy as np
import pandas as pd
import pytest

from skocc._samples.labels import anomaly_kinds, are_zeros_and_ones, marked_anomalies


@pytest.mark.parametrize(
    "y",
    [
        [1, -1, 1, -2, -1],
        np.array([1, -1, 1, -2, -1], dtype=object),
        pd.Series([1.0, -0.5, 1.0, -7.0, -0.5]),
        ["good", "cut", "good", "dent", "cut"],
    ],
)
def test_kinds(y):
    kinds = anomaly_kinds(y)
    assert (kinds == 0).tolist() == [True, False, True, False, False]
    assert kinds[1] == kinds[4] != kinds[3]
    np.testing.assert_array_equal(marked_anomalies(y), kinds > 0)


@pytest.mark.parametrize(
    ("y", "marked"),
    [
        ([0, 1, 2], []),
        (["cat", "dog"], []),
        ([True, False], []),
        ([0, -1, 1], [1]),
        (["good", None, "cut"], [2]),
        ([np.nan, -1.0], [1]),
        ([[0, -1], [1, 1]], [1]),
    ],
)
def test_what_cannot_be_read_marks_nothing(y, marked):
    y = np.array(y, dtype=object) if None in np.ravel(y) else y
    assert np.flatnonzero(marked_anomalies(y)).tolist() == marked
    with pytest.raises(ValueError, match=r"Labels must be|1d array"):
        anomaly_kinds(y)


@pytest.mark.parametrize(
    ("y", "ambiguous"),
    [
        ([0, 1, 1], True),
        ([[0.0], [1.0]], True),
        ([True, False], True),
        (np.array([1, 0], dtype=object), True),
        (pd.Series([0, 1], dtype="Int64"), True),
        ([1, 1], False),
        ([0, 0], False),
        ([0, 1, 2], False),
        ([-1, 0, 1], False),
        (["0", "1"], False),
        ([0.0, 1.0, np.nan], False),
        (np.array([0, 1, None], dtype=object), False),
        ([], False),
    ],
)
def test_zeros_and_ones_have_two_readings(y, ambiguous):
    assert are_zeros_and_ones(y) is ambiguous


@pytest.mark.parametrize("y", [[1, [2, 3]], [10**400, 1], [-(10**400)]])
def test_what_cannot_be_labels_marks_nothing(y):
    assert not marked_anomalies(y).any()
    assert not are_zeros_and_ones(y)
    with pytest.raises(ValueError, match=r"^y must be an array of"):
        anomaly_kinds(y)


def test_labels_that_cannot_be_compared_are_shown():
    y = np.array([[1], "good", None, 2], dtype=object)
    with pytest.raises(ValueError, match=r"Got \[\[1\], 'good', None, 2\]"):
        anomaly_kinds(y)
