import numpy as np
import pytest
from sklearn.utils import column_or_1d

from skocc._samples.arrays import as_array

RAGGED = [1, [2, 3]]


@pytest.mark.parametrize(
    "values",
    [RAGGED, ["x"], [1j], [10**400], [None, {}], {1, 2}, np.zeros(2, "M8[s]"), object()],
)
@pytest.mark.parametrize("read", [np.asarray, column_or_1d])
def test_what_is_no_row_of_numbers_is_named(values, read):
    with pytest.raises(ValueError, match=r"^scores must be .*Got a .*Convert it first"):
        as_array("scores", values, np.float64, read)


def test_arrays_of_anything():
    assert as_array("y", ["good", "bad"]).tolist() == ["good", "bad"]
    assert as_array("y", [1, 2.5], np.float64).tolist() == [1.0, 2.5]
    with pytest.raises(ValueError, match=r"^y must be an array of equally shaped"):
        as_array("y", RAGGED)
