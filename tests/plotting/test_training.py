import numpy as np
import pytest
from matplotlib import pyplot as plt
from sklearn.ensemble import IsolationForest
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

from skocc import MOCCA, ConvAE
from skocc.plotting import EmbeddingDisplay, LayerDistanceDisplay, LossCurveDisplay

rng = np.random.default_rng(0)
EMBEDDINGS = rng.normal(size=(40, 5))
EMBEDDINGS[20:] += 9
Y = np.repeat([1, -1], 20)


@pytest.fixture(scope="module")
def mocca(all_digits):
    detector = MOCCA(
        pretrain_n_epochs=2, n_epochs=3, validation_fraction=0.2, device="cpu",
        random_state=0,
    )  # fmt: skip
    return detector.fit(all_digits[0][:40])


def test_layers_are_summed(mocca, all_digits):
    X = np.concatenate([part[:10] for part in all_digits])
    y = np.repeat(["good", "other"], 10)
    display = LayerDistanceDisplay.from_estimator(mocca, X, y)
    total = -mocca.score_samples(X) * len(mocca.layers_)
    np.testing.assert_allclose(display.cumulative_[:, -1], total, rtol=1e-5)
    assert list(display.lines_) == ["good", "other"]
    for name, line in display.lines_.items():
        median = np.median(display.cumulative_[y == name], axis=0)
        np.testing.assert_allclose(line.get_ydata(), median)
    ticks = [label.get_text() for label in display.ax_.get_xticklabels()]
    assert ticks == [str(layer) for layer in mocca.layers_]


def test_layers_of_scores():
    scores = [[-1.0, -2], [-3, -4], [-5, -6]]
    display = LayerDistanceDisplay.from_predictions(scores, layers=["one", "two"])
    assert display.lines_["samples"].get_ydata().tolist() == [3, 7]
    (area,) = display.ax_.collections
    ys = area.get_paths()[0].vertices[:, 1]
    assert (ys.min(), ys.max()) == (2, 9)  # the quartiles
    with pytest.raises(ValueError, match="one name for each layer"):
        LayerDistanceDisplay.from_predictions(scores, layers=["one"])
    with pytest.raises(ValueError, match="for each sample and layer"):
        LayerDistanceDisplay.from_predictions(scores[0])
    with pytest.raises(ValueError, match=r"with layer_scores\. Got ConvAE"):
        LayerDistanceDisplay.from_estimator(ConvAE(), scores)


@pytest.mark.parametrize("method", ["pca", "tsne"])
def test_embeddings_keep_groups_apart(method):
    display = EmbeddingDisplay.from_predictions(EMBEDDINGS, Y, method=method)
    normal, others = display.points[:20], display.points[20:]
    within = np.linalg.norm(normal - normal.mean(axis=0), axis=1).mean()
    assert np.linalg.norm(normal.mean(axis=0) - others.mean(axis=0)) > 2 * within
    assert list(display.scatters_) == ["normal", "anomalous"]
    np.testing.assert_allclose(display.scatters_["anomalous"].get_offsets(), others)
    again = EmbeddingDisplay.from_predictions(EMBEDDINGS, Y, method=method)
    np.testing.assert_array_equal(again.points, display.points)
    name = {"pca": "principal component 1", "tsne": "t-SNE 1"}[method]
    assert display.ax_.get_xlabel() == name


def test_embeddings_by_a_number():
    values = np.arange(40.0)
    display = EmbeddingDisplay.from_predictions(EMBEDDINGS, values=values, method="pca")
    np.testing.assert_array_equal(display.scatters_["samples"].get_array(), values)
    assert (display.colorbar_.vmin, display.colorbar_.vmax) == (0, 39)


@pytest.mark.parametrize("method", ["pca", "tsne"])
def test_embeddings_of_few_samples_and_one_dimension(method):
    display = EmbeddingDisplay.from_predictions([[1.0], [2.0], [4.0]], method=method)
    assert display.points.shape == (3, 2)
    assert np.isfinite(display.points).all()


def test_embeddings_of_an_estimator():
    transformer = FunctionTransformer(lambda X: X[:, :2] - X[:, :2].mean(axis=0))
    for estimator in (transformer.fit(EMBEDDINGS), make_pipeline(transformer)):
        display = EmbeddingDisplay.from_estimator(estimator, EMBEDDINGS, Y, method="pca")
        expected = EmbeddingDisplay.from_predictions(EMBEDDINGS[:, :2], Y, method="pca")
        np.testing.assert_allclose(display.points, expected.points, atol=1e-12)
    with pytest.raises(ValueError, match=r"embed or transform\. Got IsolationForest"):
        EmbeddingDisplay.from_estimator(IsolationForest().fit(EMBEDDINGS), EMBEDDINGS)


@pytest.mark.parametrize(
    ("embeddings", "options", "match"),
    [
        (EMBEDDINGS, {"method": "umap"}, 'must be "tsne" or "pca". Got'),
        (EMBEDDINGS[0], {}, r"Got the shape \(5,\)"),
        (EMBEDDINGS[:2], {}, "three samples"),
        (np.where(EMBEDDINGS > 9, np.nan, EMBEDDINGS), {}, "not finite"),
        (EMBEDDINGS, {"y": Y, "values": Y, "method": "pca"}, "Pass one of them"),
        (EMBEDDINGS, {"values": Y[:3], "method": "pca"}, "a number for each sample"),
    ],
)
def test_embeddings_that_cannot_be_drawn(embeddings, options, match):
    with pytest.raises(ValueError, match=match):
        EmbeddingDisplay.from_predictions(embeddings, **options)
    assert not plt.get_fignums()


def test_losses_of_each_stage(mocca):
    display = LossCurveDisplay.from_estimator(mocca)
    before, after = display.axes_[0]
    assert (before.get_title(), after.get_title()) == ("pretraining", "training")
    for name, line in display.lines_.items():
        np.testing.assert_array_equal(line.get_ydata(), getattr(mocca, f"{name}_"))
        assert line.get_xdata()[0] == 1
    assert len(display.lines_) == 3
    kept = display.best_epoch_line_.get_xdata()[0]
    assert kept == mocca.best_epoch_ + 1
    assert display.lines_["pretrain_loss_curve"].axes is before
    assert display.lines_["validation_loss_curve"].axes is after


def test_held_out_losses_are_of_the_last_epochs():
    _, ax = plt.subplots()
    display = LossCurveDisplay([3, 2, 1], validation_loss_curve=[5, 4], best_epoch=1)
    assert display.plot(ax).axes_.tolist() == [[ax]]
    assert list(display.lines_["validation_loss_curve"].get_xdata()) == [2, 3]
    assert display.best_epoch_line_.get_xdata()[0] == 3


def test_losses_that_are_not_there(mocca):
    for estimator in (ConvAE(), IsolationForest().fit(EMBEDDINGS)):
        with pytest.raises(ValueError, match="loss_curve_"):
            LossCurveDisplay.from_estimator(estimator)
    with pytest.raises(ValueError, match="needs 1 x 2 axes"):
        LossCurveDisplay.from_estimator(mocca, ax=plt.subplots()[1])
