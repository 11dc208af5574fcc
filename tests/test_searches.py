"""Searches of scikit-learn on several workers find what one finds, to the last bit."""

from functools import cache

import joblib
import numpy as np
import pytest
from sklearn.model_selection import GridSearchCV

import skocc
from skocc.model_selection import NormalOnly
from tests.quick import quick

# 24 candidates each.
GRIDS = {
    skocc.DeepSVDD: {
        "random_state": [0, 1],
        "batch_size": [10, 20, 40],
        "learning_rate": [1e-4, 1e-3],
        "embedding_dim": [8, 16],
    },
    skocc.MOCCA: {
        "random_state": [0, 1, 2],
        "batch_size": [10, 40],
        "learning_rate": [1e-4, 1e-3],
        "contamination": [0.1, 0.5],
    },
    skocc.ResNetKNN: {
        "random_state": [0, 1],
        "bank_fraction": [0.1, 0.3, 1.0],
        "n_neighbors": [1, 3],
        "metric": ["euclidean", "cosine"],
    },
}
N_CANDIDATES = 24
every_search = pytest.mark.parametrize(
    "estimator_class",
    [
        skocc.DeepSVDD,
        pytest.param(skocc.MOCCA, marks=pytest.mark.slow),
        pytest.param(skocc.ResNetKNN, marks=pytest.mark.slow),
    ],
)


@pytest.fixture(scope="module")
def data(all_digits):
    """Images, labels, and two folds that train on normal images only."""
    X = np.concatenate([all_digits[0][:30], all_digits[1][:16]])
    y = np.r_[np.ones(30, dtype=int), np.full(16, -1)]
    half, others = np.arange(15), np.arange(30, 46)
    split = [(half, np.r_[half + 15, others]), (half + 15, np.r_[half, others])]
    return X, y, split


@pytest.fixture(scope="module")
def dask_client():
    """Client of two local processes with one thread each."""
    distributed = pytest.importorskip("distributed", reason="needs dask's distributed")
    with (
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, dashboard_address=None
        ) as cluster,
        distributed.Client(cluster) as client,
    ):
        yield client


def fitted(estimator_class, data, backend):
    """Return a search that has refitted its best detector on all normal images."""
    X, y, split = data
    params = {"neighbor_aggregation": "mean"} if estimator_class is skocc.ResNetKNN else {}
    search = GridSearchCV(
        NormalOnly(quick(estimator_class, **params)),
        {f"estimator__{name}": values for name, values in GRIDS[estimator_class].items()},
        cv=split,
        scoring={"auroc": "roc_auc", "labels": "accuracy"},
        refit="auroc",
    )
    with joblib.parallel_config(backend, n_jobs=1 if backend == "sequential" else 2):
        return search.fit(X, y)


@pytest.fixture(scope="module")
def serial(data):
    """Function from a detector to its search by one worker, which is made once."""
    return cache(lambda estimator_class: fitted(estimator_class, data, "sequential"))


def assert_same(search, expected, X):
    results = expected.cv_results_
    assert search.cv_results_.keys() == results.keys()
    assert len(results["params"]) == N_CANDIDATES
    assert search.cv_results_["params"] == results["params"]
    for name in results:
        if "test" in name:
            np.testing.assert_array_equal(search.cv_results_[name], results[name])
    assert search.best_params_ == expected.best_params_
    best, twin = (s.best_estimator_.estimator_ for s in (search, expected))
    np.testing.assert_array_equal(best.train_scores_, twin.train_scores_)
    np.testing.assert_array_equal(best.score_samples(X), twin.score_samples(X))
    assert best.offset_ == twin.offset_


@every_search
@pytest.mark.parametrize("backend", ["loky", "threading"])
def test_workers_of_joblib_find_what_one_finds(estimator_class, backend, data, serial):
    search = fitted(estimator_class, data, backend)
    assert_same(search, serial(estimator_class), data[0])


@every_search
def test_workers_of_dask_find_what_one_finds(estimator_class, data, serial, dask_client):
    search = fitted(estimator_class, data, "dask")
    assert_same(search, serial(estimator_class), data[0])


@every_search
def test_candidates_differ(estimator_class, serial):
    """Or equal results would say nothing."""
    scores = serial(estimator_class).cv_results_["mean_test_auroc"]
    assert len(np.unique(scores)) > 3
