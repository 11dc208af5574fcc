import numpy as np
import pytest
from matplotlib import pyplot as plt
from matplotlib.colors import same_color
from sklearn.ensemble import IsolationForest
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from skocc.metrics import auroc, average_precision, recall_at_fpr
from skocc.model_selection import ThresholdTuner
from skocc.plotting import (
    ConfusionMatrixDisplay,
    PrecisionRecallDisplay,
    RocCurveDisplay,
    ScoreHistogramDisplay,
)

rng = np.random.default_rng(0)
X = rng.normal(size=(260, 4))
X[200:] += rng.normal(1.5, 1, size=(60, 4))
Y = np.repeat([1, -1], [200, 60])
NAMES = np.repeat(["good", "scratch", "stain"], [200, 30, 30])
CURVES = [RocCurveDisplay, PrecisionRecallDisplay]


@pytest.fixture(scope="module")
def forest():
    return IsolationForest(n_estimators=20, random_state=0).fit(X[:100])


def legend_of(ax):
    return [text.get_text() for text in ax.get_legend().get_texts()]


def test_areas_are_those_of_the_metrics(forest):
    scores = forest.score_samples(X)
    roc = RocCurveDisplay.from_estimator(forest, X, Y)
    assert roc.roc_auc == pytest.approx(auroc(Y, scores))
    assert legend_of(roc.ax_) == [f"IsolationForest (AUC = {roc.roc_auc:.2f})"]
    np.testing.assert_array_equal(roc.line_.get_xdata(), roc.fpr)
    curve = PrecisionRecallDisplay.from_estimator(forest, X, Y)
    assert curve.average_precision == pytest.approx(average_precision(Y, scores))
    np.testing.assert_array_equal(curve.line_.get_ydata(), curve.precision)
    assert curve.figure_ is curve.ax_.figure is not roc.figure_


@pytest.mark.parametrize("display", CURVES)
def test_names_are_anomalies_and_other_scores_than_finite_rank(display):
    scores = np.append(rng.normal(size=200), np.r_[[np.nan, -np.inf], rng.normal(size=58)])
    by_number = display.from_predictions(Y, scores)
    by_name = display.from_predictions(NAMES.tolist(), scores)
    np.testing.assert_array_equal(by_name.line_.get_xydata(), by_number.line_.get_xydata())
    finite = np.where(np.isfinite(scores), scores, -100)
    same = display.from_predictions(Y, finite)
    np.testing.assert_array_equal(same.line_.get_xydata(), by_number.line_.get_xydata())


@pytest.mark.parametrize("display", CURVES)
def test_several_detectors_in_one_figure(display, forest):
    _, ax = plt.subplots()
    pipeline = make_pipeline(StandardScaler(), IsolationForest(random_state=0)).fit(X[:100])
    tuner = ThresholdTuner(forest, cv="prefit").fit(X[100:200])
    for estimator in (forest, pipeline, tuner):
        assert display.from_estimator(estimator, X, Y, ax=ax).ax_ is ax
    last = display.from_estimator(
        forest, X, Y, ax=ax, name="mine", color="red", plot_chance_level=True
    )
    assert len(ax.lines) == 5
    assert same_color(last.line_.get_color(), "red")
    shown = legend_of(ax)
    assert [label.split(" (")[0] for label in shown] == [
        *["IsolationForest"] * 3, "mine", "Chance level",
    ]  # fmt: skip
    legend = ax.get_legend().get_lines()[3]
    assert same_color(legend.get_color(), "red")
    prevalence = last.chance_level_.get_ydata()
    assert list(prevalence) == ([0, 1] if display is RocCurveDisplay else [60 / 260] * 2)
    renamed = last.plot(name="other")
    assert renamed is last
    assert legend_of(last.ax_)[0].startswith("other (")
    assert last.ax_ is not ax


@pytest.mark.parametrize("display", [*CURVES, ConfusionMatrixDisplay])
@pytest.mark.parametrize(
    ("y", "match"),
    [
        (np.ones(260), "only normal"),
        (-np.ones(260), "some must be normal"),
        ((Y + 1) // 2, "Labels must be"),
        (Y[:-1], "inconsistent numbers"),
    ],
)
def test_labels_that_cannot_be_used(display, y, match, forest):
    options = {"max_fpr": 0.1} if display is ConfusionMatrixDisplay else {}
    with pytest.raises(ValueError, match=match):
        display.from_estimator(forest, X, y, **options)
    assert not plt.get_fignums()


def cells_of(display):
    return [[int(text.get_text()) for text in row] for row in display.text_]


def test_confusion_matrix_at_the_threshold_of_the_detector(forest):
    display = ConfusionMatrixDisplay.from_estimator(forest, X, NAMES, values_format="d")
    alarms = forest.predict(X) == -1
    expected = [[sum(~alarms[:200]), sum(alarms[:200])]]
    expected += [[sum(~alarms[200:]), sum(alarms[200:])]]
    assert cells_of(display) == expected == display.confusion_matrix.tolist()
    ticks = [label.get_text() for label in display.ax_.get_yticklabels()]
    assert ticks == ["normal", "anomalous"]
    assert display.ax_.get_title() == ""
    by_hand = ConfusionMatrixDisplay.from_estimator(forest, X, Y, threshold=forest.offset_)
    np.testing.assert_array_equal(by_hand.confusion_matrix, display.confusion_matrix)
    assert by_hand.ax_.get_title() == f"Threshold {forest.offset_:.4g}"


@pytest.mark.parametrize("max_fpr", [0, 0.01, 0.29, 0.5])
def test_confusion_matrix_at_a_rate_of_false_alarms(max_fpr, forest):
    display = ConfusionMatrixDisplay.from_estimator(forest, X, Y, max_fpr=max_fpr)
    (_, false), (_, found) = display.confusion_matrix
    assert false == round(max_fpr * 200)
    assert found / 60 == recall_at_fpr(Y, forest.score_samples(X), max_fpr=max_fpr)


def test_confusion_matrix_arguments(forest):
    for max_fpr in (-0.1, 1, np.nan):
        with pytest.raises(ValueError, match="max_fpr must be a rate"):
            ConfusionMatrixDisplay.from_estimator(forest, X, Y, max_fpr=max_fpr)
    with pytest.raises(ValueError, match="Pass one of them"):
        ConfusionMatrixDisplay.from_estimator(forest, X, Y, max_fpr=0.1, threshold=0)
    with pytest.raises(ValueError, match="y_pred must hold"):
        ConfusionMatrixDisplay.from_predictions([1, -1], [0, 1])


def test_histogram_has_all_scores_on_their_side_of_the_threshold(forest):
    display = ScoreHistogramDisplay.from_estimator(forest, X, NAMES)
    scores = forest.score_samples(X)
    assert display.threshold == forest.offset_
    assert list(display.threshold_line_.get_xdata()) == [forest.offset_] * 2
    assert list(display.counts_) == ["good", "scratch", "stain"]
    is_below = display.bins_[1:] <= forest.offset_ + 1e-12
    for name, counts in display.counts_.items():
        members = scores[name == NAMES]
        assert counts.sum() == len(members)
        assert counts[is_below].sum() == np.sum(members < forest.offset_)
    assert legend_of(display.ax_) == ["good", "scratch", "stain", "threshold"]


def test_histogram_names_the_conformal_rate(forest):
    tuner = ThresholdTuner(forest, cv="prefit", max_fpr=0.02).fit(X[100:200])
    pipeline = make_pipeline(StandardScaler(), IsolationForest(random_state=0)).fit(X[:100])
    for estimator, label in {
        tuner: "threshold (at most 2 % false alarms)",
        ThresholdTuner(forest, cv="prefit", rule="std").fit(X[100:200]): "threshold",
        pipeline: "threshold",
    }.items():
        display = ScoreHistogramDisplay.from_estimator(estimator, X, Y)
        assert sorted(legend_of(display.ax_)) == ["anomalous", "normal", label]


def test_histogram_of_scores():
    scores = [0.1, 0.2, np.nan, np.inf, 0.9]
    display = ScoreHistogramDisplay.from_predictions(scores, [1, 1, -1, -2, 1], bins=4)
    assert list(display.counts_) == ["normal", "anomalous (-2)", "anomalous (-1)"]
    assert "anomalous (-1) (1 not finite)" in legend_of(display.ax_)
    assert display.threshold_line_ is None
    assert len(display.bins_) == 5
    assert display.counts_["normal"].tolist() == [2, 0, 0, 1]
    single = ScoreHistogramDisplay.from_predictions(scores, density=True, bins=[0, 0.5, 1])
    assert single.counts_["samples"].tolist() == pytest.approx([4 / 3, 2 / 3])
    assert single.ax_.get_ylabel() == "Density"
    with pytest.raises(ValueError, match="scores that are finite"):
        ScoreHistogramDisplay.from_predictions([np.nan, np.inf])


def test_thresholds_are_seen_in_dark_styles_too():
    for style, color in [("default", "black"), ("dark_background", "white")]:
        with plt.style.context(style):
            display = ScoreHistogramDisplay.from_predictions([1.0, 2.0], threshold=1.5)
            assert same_color(display.threshold_line_.get_color(), color)
