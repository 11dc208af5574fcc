"""The recipes of the guide: each call runs, and has what its source has."""

import re
import textwrap
from pathlib import Path

import numpy as np
import pytest

from skocc.base import BaseDetector

PAGE = Path(__file__).resolve().parents[1] / "docs" / "guide" / "recipes.rst"
# Sides in pixels at which a recipe is tried, and cells per side there.
SMALL = {
    "patchcore": (64, 8),
    "full_shot": (112, 8),
    "few_shot": (112, 8),
    "five_neighbors": (64, 8),
    "minimum": (64, 8),
    "feature_cae": (64, 8),
    "dfr": (64, 16),
}
N_FEATURES = {
    "patchcore": 1024,
    "full_shot": 384,
    "few_shot": 384,
    "five_neighbors": 1536,
    "minimum": 1536,
    "feature_cae": 1536,
    "dfr": 3072,
}


def recipes():
    """Return the detectors of all blocks of code of the page, by name."""
    text = PAGE.read_text(encoding="utf-8")
    blocks = re.findall(r"\.\. code-block:: python\n\n((?:   .*\n|\n)+)", text)
    found = {}
    for block in blocks:
        names = {}
        exec(textwrap.dedent(block), names)
        found |= {n: d for n, d in names.items() if isinstance(d, BaseDetector)}
    return found


def test_every_recipe_is_tried():
    assert recipes().keys() == SMALL.keys() == N_FEATURES.keys()


@pytest.mark.parametrize("name", SMALL)
def test_a_recipe_fits_and_maps(name):
    detector = recipes()[name]
    if str(detector.backbone).startswith("timm/"):
        pytest.importorskip("timm")
    side, n_cells = SMALL[name]
    detector.set_params(weights=None, image_size=side, device="cpu", random_state=0)
    if hasattr(detector, "n_epochs"):
        detector.set_params(n_epochs=1)
    images = np.random.default_rng(0).integers(0, 256, (4, 40, 40, 3), dtype=np.uint8)
    maps, scores = detector.fit(images).anomaly_map(images, return_scores=True)
    assert detector.grid_shape_ == (n_cells, n_cells)
    is_bank = hasattr(detector, "bank_")
    n_features = detector.bank_.vectors.shape[1] if is_bank else detector._n_channels
    assert n_features == N_FEATURES[name]
    assert maps.shape == (4, 40, 40)
    assert np.isfinite(scores).all()
