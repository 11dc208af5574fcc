import pickle

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.ensemble import IsolationForest
from sklearn.model_selection import GridSearchCV, cross_validate
from sklearn.neighbors import LocalOutlierFactor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import OneClassSVM

from skocc import DeepSVDD, metrics
from skocc.metrics import make_scorer

NAMES = [
    "auroc", "average_precision", "best_f1", "max_balanced_accuracy", "recall_at_fpr",
]  # fmt: skip
RNG = np.random.default_rng(0)
X = np.concatenate([RNG.normal(size=(60, 4)), RNG.normal(1.5, 1, size=(20, 4))])
Y = np.repeat([1, -1], [60, 20])
# Fitted on normal samples, validated on both.
CV = [
    (np.arange(0, 30), np.arange(30, 80)),
    (np.arange(30, 60), np.r_[np.arange(30), np.arange(60, 80)]),
]
DEEP = DeepSVDD(
    pretrain_n_epochs=1, n_epochs=1, batch_size=16, device="cpu", random_state=0
)


@pytest.mark.parametrize(
    "detector",
    [
        OneClassSVM(),
        IsolationForest(n_estimators=10, random_state=0),
        LocalOutlierFactor(n_neighbors=5, novelty=True),
        make_pipeline(StandardScaler(), OneClassSVM()),
        DEEP,
    ],
    ids=lambda detector: type(detector).__name__,
)
def test_scorer_is_the_metric_of_score_samples(detector):
    detector = clone(detector).fit(X[:30])
    scores = detector.score_samples(X[30:])
    for name in NAMES:
        scorer = pickle.loads(pickle.dumps(make_scorer(name)))
        expected = getattr(metrics, name)(Y[30:], scores)
        assert scorer(detector, X[30:], Y[30:]) == pytest.approx(expected, abs=1e-12)


def test_arguments_reach_the_metric():
    detector = OneClassSVM().fit(X[:30])
    recalls = [make_scorer("recall_at_fpr", max_fpr=r)(detector, X, Y) for r in (0, 1)]
    assert recalls[0] < recalls[1] == 1


def test_search_in_two_processes():
    search = GridSearchCV(
        make_pipeline(StandardScaler(), OneClassSVM()),
        {"oneclasssvm__gamma": [1e-3, 100.0]},
        scoring=make_scorer("auroc"), cv=CV, n_jobs=2, refit=False, error_score="raise",
    ).fit(X, Y)  # fmt: skip
    assert search.best_params_ == {"oneclasssvm__gamma": 1e-3}
    assert clone(search).scoring is not None


def test_several_scorers_of_a_deep_detector():
    scoring = {name: make_scorer(name) for name in NAMES}
    scores = cross_validate(DEEP, X, Y, cv=CV, scoring=scoring, error_score="raise")
    for name in NAMES:
        assert np.all((scores[f"test_{name}"] >= 0) & (scores[f"test_{name}"] <= 1))


def test_unknown_name():
    with pytest.raises(ValueError, match=r"Got 'f1'\. Pass one of 'auroc', "):
        make_scorer("f1")
