"""Model files that skocc 0.1 wrote still load, and give the scores they gave.

Made by ``tests/golden.py``. On another processor scores differ in their last digits.
"""

import lzma
from pathlib import Path

import numpy as np
import pytest

import skocc
from tests import golden

FOLDER = Path(__file__).parent / "models_0_1"
CASES = [name for name in golden.CASES if (FOLDER / f"{name}.xz").exists()]


def test_there_is_a_file_of_each_class():
    classes = {name.partition("-")[0] for name in CASES}
    assert classes == {name.partition("-")[0] for name in golden.CASES}
    assert len(CASES) == len(list(FOLDER.glob("*.xz")))


@pytest.mark.parametrize("name", CASES)
def test_a_file_of_0_1_gives_the_scores_it_gave(name, tmp_path):
    path = tmp_path / "model.safetensors"
    path.write_bytes(lzma.decompress((FOLDER / f"{name}.xz").read_bytes()))
    estimator = skocc.load(path)
    _, X = golden.images_of(name, tmp_path)
    method = "transform" if hasattr(estimator, "transform") else "score_samples"
    scores, expected = getattr(estimator, method)(X), np.load(FOLDER / "scores.npz")[name]
    scale = np.abs(expected).max()
    np.testing.assert_allclose(scores, expected, rtol=1e-4, atol=1e-5 * scale)
    # What was loaded can be saved, and is the same again.
    skocc.save(estimator, path)
    again = skocc.load(path)
    assert again.get_params() == estimator.get_params()
    np.testing.assert_array_equal(getattr(again, method)(X), scores)
