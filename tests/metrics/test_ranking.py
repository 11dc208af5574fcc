import numpy as np
import pytest
from sklearn.metrics import balanced_accuracy_score, f1_score, roc_auc_score

from skocc import metrics

NAMES = [
    "auroc", "average_precision", "best_f1", "max_balanced_accuracy", "recall_at_fpr",
]  # fmt: skip
RNG = np.random.default_rng(0)
Y = np.where(RNG.random(60) < 0.3, -1, 1)
# Rounded, so that scores coincide, within a class and across.
SCORES = np.round(RNG.normal(size=60) + 0.8 * Y, 1)


def predictions():
    """Yield the labels of every threshold: at or below it is an anomaly."""
    for threshold in [-np.inf, *np.unique(SCORES)]:
        yield np.where(threshold >= SCORES, -1, 1)


def test_auroc_by_pairs():
    normal, anomalous = SCORES[Y == 1], SCORES[Y == -1]
    differences = normal[:, None] - anomalous
    expected = (differences > 0).mean() + 0.5 * (differences == 0).mean()
    assert metrics.auroc(Y, SCORES) == pytest.approx(expected, abs=1e-12)


def test_average_precision_by_thresholds():
    expected, last = 0.0, 0.0
    for predicted in predictions():
        found = (predicted == -1) & (Y == -1)
        if found.any():
            recall = found.sum() / (Y == -1).sum()
            expected += (recall - last) * found.sum() / (predicted == -1).sum()
            last = recall
    assert metrics.average_precision(Y, SCORES) == pytest.approx(expected, abs=1e-12)


def test_best_f1_by_thresholds():
    expected = max(f1_score(Y, p, pos_label=-1, zero_division=0) for p in predictions())
    assert metrics.best_f1(Y, SCORES) == pytest.approx(expected, abs=1e-12)


def test_max_balanced_accuracy_by_thresholds():
    expected = max(balanced_accuracy_score(Y, p) for p in predictions())
    assert metrics.max_balanced_accuracy(Y, SCORES) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("max_fpr", [0.0, 0.05, 0.1, 0.3, 1.0])
def test_recall_at_fpr_by_thresholds(max_fpr):
    expected = max(
        (p[Y == -1] == -1).mean()
        for p in predictions()
        if (p[Y == 1] == -1).mean() <= max_fpr
    )
    assert metrics.recall_at_fpr(Y, SCORES, max_fpr=max_fpr) == pytest.approx(expected)


def test_recall_at_exactly_the_rate():
    """1 of 20 is 0.05: a false alarm is allowed."""
    y, scores = np.repeat([1, -1], [20, 1]), np.arange(21.0)
    scores[-1] = 0.5
    assert metrics.recall_at_fpr(y, scores, max_fpr=0.05) == 1.0
    assert metrics.recall_at_fpr(y, scores, max_fpr=0.049) == 0.0


@pytest.mark.parametrize("name", NAMES)
def test_perfect_and_reversed(name):
    metric = getattr(metrics, name)
    assert metric([1, 1, -1], [2.0, 3.0, 1.0]) == 1.0
    assert metric([1, 1, -1], [-2.0, -3.0, -1.0]) < 1.0


@pytest.mark.parametrize("name", NAMES)
def test_nan_and_infinite_scores_rank_as_anomalies(name):
    metric = getattr(metrics, name)
    scores = np.where(np.arange(60) % 7 == 0, np.nan, SCORES)
    finite = np.where(np.isnan(scores), -100.0, scores)
    infinite = np.where(np.isnan(scores), -np.inf, scores)
    assert metric(Y, scores) == metric(Y, infinite) == metric(Y, finite)


def test_auroc_agrees_with_the_formula_of_the_user_guide():
    assert metrics.auroc(Y, SCORES) == pytest.approx(roc_auc_score(Y == -1, -SCORES))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    ("y", "message"),
    [
        ([0, 1, 1], r"Got the labels 0, 1\. If 1 or True means"),
        ([True, False, True], r"Got the labels False, True\."),
        (["good", "bad", "bad"], r"Got the labels bad, good\."),
        ([1, 1, 1], r"Got only normal samples \(\+1\) in 3"),
        ([-1, -1, -1], r"Got only anomalies \(-1\) in 3"),
        ([], "inconsistent numbers of samples"),
    ],
)
def test_labels_that_are_refused(name, y, message):
    with pytest.raises(ValueError, match=message):
        getattr(metrics, name)(y, [0.1, 0.2, 0.3])


@pytest.mark.parametrize("max_fpr", [-0.1, 1.1, np.nan])
def test_rate_that_is_refused(max_fpr):
    with pytest.raises(ValueError, match="max_fpr must be a rate"):
        metrics.recall_at_fpr([1, -1], [1, 0], max_fpr=max_fpr)
