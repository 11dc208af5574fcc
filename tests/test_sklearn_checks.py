"""scikit-learn's suite: each of its checks is one test, which ``-k check_x`` selects."""

import pytest
from sklearn.utils.estimator_checks import (
    estimator_checks_generator,
    parametrize_with_checks,
)

import skocc
from tests.quick import ESTIMATORS, ON_ROWS, ONE_ROW, quick

# scikit-learn's samples become images of one row.
FLATTENED = [
    quick(c, image_shape=(1, -1), **ONE_ROW.get(c.__name__, {})) for c in ESTIMATORS
]
ROWS = [getattr(skocc, name)(**params) for name, params in ON_ROWS.items()]
SLOW = [
    getattr(skocc, name)(image_shape=image_shape, **params)
    for name, shortened in ON_ROWS.items()
    for image_shape, params in [(None, {}), ((1, -1), shortened), ((1, -1), {})]
]


@pytest.mark.filterwarnings("ignore")
@parametrize_with_checks(FLATTENED)
def test_on_flattened_images(estimator, check):
    check(estimator)


@pytest.mark.filterwarnings("ignore")
@parametrize_with_checks(ROWS)
def test_with_default_construction(estimator, check):
    check(estimator)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@parametrize_with_checks(SLOW)
def test_with_default_construction_in_full(estimator, check):
    check(estimator)


@pytest.mark.parametrize("estimator", [*FLATTENED, *ROWS], ids=lambda e: type(e).__name__)
def test_a_class_has_its_checks(estimator):
    """A wrong tag makes scikit-learn generate no checks at all, and only warn."""
    assert len([*estimator_checks_generator(estimator)]) > 40
