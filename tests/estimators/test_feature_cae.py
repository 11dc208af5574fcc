import numpy as np
import pytest
import torch
from torch.nn import functional

from skocc import FeatureCAE
from skocc._base import trained
from skocc._nets import backbones
from skocc.estimators import _feature_cae as module


class Pyramid(torch.nn.Module):
    """Layers of 4, 6 and 8 channels at a half, a quarter and an eighth of the image."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.first = torch.nn.Conv2d(3, 4, 3, stride=2, padding=1)
        self.second = torch.nn.Conv2d(4, 6, 3, stride=2, padding=1)
        self.third = torch.nn.Conv2d(6, 8, 3, stride=2, padding=1)

    def forward(self, batch):
        return self.third(self.second(self.first(batch).relu()).relu())


@pytest.fixture(scope="module")
def backbone():
    with torch.random.fork_rng():
        return Pyramid()


@pytest.fixture(scope="module")
def images():
    """Sixteen images (16, 40, 48, 3) of smooth texture."""
    coarse = torch.from_numpy(np.random.default_rng(0).random((16, 3, 10, 12)))
    fine = functional.interpolate(coarse.float(), (40, 48), mode="bilinear")
    return fine.permute(0, 2, 3, 1).contiguous().numpy()


def make(backbone, **params):
    small = {"layers": ("first", "second"), "latent_dim": 2, "n_epochs": 3}
    small |= {"image_size": None, "batch_size": 5, "random_state": 0, "device": "cpu"}
    return FeatureCAE(backbone=backbone, **(small | params))


@pytest.fixture(scope="module")
def fitted(backbone, images):
    return make(backbone).fit(images)


def by_hand(detector, images):
    """Errors of cells (n, rows, columns) from their definition."""
    with torch.no_grad():
        features = detector.backbone_(torch.from_numpy(images).permute(0, 3, 1, 2))
        reconstruction = detector.network_(features)
    return ((features - reconstruction) ** 2).mean(dim=1).numpy()


def test_published_number_of_parameters_and_shapes():
    detector = FeatureCAE(weights=None, n_epochs=0, device="cpu")
    detector.fit(np.random.default_rng(0).random((3, 64, 64)))
    assert sum(p.numel() for p in detector.network_.parameters()) == 1_434_036
    assert detector.grid_shape_ == (28, 28)
    with torch.no_grad():
        features = detector.backbone_(torch.rand(1, 3, 224, 224))
        codes = detector.network_.encode(features)
        reconstruction = detector.network_.decode(codes)
    assert features.shape == reconstruction.shape == (1, 1536, 28, 28)
    assert features.min() >= 0
    assert codes.shape == (1, 100, 28, 28)
    assert detector._borders() == (3, 3)


@pytest.mark.parametrize("border", [None, 0, 5])
@pytest.mark.parametrize("cell_aggregation", ["top-k", "max", "mean"])
def test_scores_by_hand(backbone, images, fitted, cell_aggregation, border):
    params = {"cell_aggregation": cell_aggregation, "border": border}
    if cell_aggregation == "top-k":
        params["n_top"] = 4
    detector = make(backbone, **params).fit(images)
    margins = (2, 3) if border is None else (border, border)  # an eighth of 20, 3 of 24
    errors = by_hand(detector, images)
    cells = errors[:, margins[0] : 20 - margins[0], margins[1] : 24 - margins[1]]
    cells = np.sort(cells.reshape(16, -1).astype(float), axis=1)
    expected = {"top-k": cells[:, -4:], "max": cells[:, -1:], "mean": cells}[
        cell_aggregation
    ]
    np.testing.assert_allclose(detector.train_scores_, -expected.mean(axis=1), rtol=1e-5)
    np.testing.assert_array_equal(detector.score_samples(images), detector.train_scores_)
    # How cells become a score plays no part in training.
    assert detector.loss_curve_ == fitted.loss_curve_


def test_scores_relative_to_the_image(backbone, images, fitted):
    detector = make(backbone, score_normalization="median", border=2, n_top=4).fit(images)
    errors = by_hand(fitted, images)
    medians = torch.from_numpy(errors).flatten(1).median(dim=1).values.numpy()
    relative = errors / medians[:, None, None]
    cells = np.sort(relative[:, 2:-2, 2:-2].reshape(16, -1).astype(float), axis=1)
    np.testing.assert_allclose(detector.train_scores_, -cells[:, -4:].mean(1), rtol=1e-4)
    maps = fitted.anomaly_map(images[:4]) / medians[:4, None, None]
    np.testing.assert_allclose(detector.anomaly_map(images[:4]), maps, rtol=1e-4)


def test_map_is_the_error_of_cells_at_the_size_of_the_images(images, fitted):
    errors = torch.from_numpy(by_hand(fitted, images[:4]))[:, None]
    expected = functional.interpolate(errors, (40, 48), mode="bilinear")[:, 0]
    maps = fitted.anomaly_map(images[:4])
    assert maps.dtype == np.float32
    np.testing.assert_allclose(maps, expected, rtol=1e-4, atol=1e-7)


def test_top_ten_of_a_map_with_one_cell(backbone):
    detector = make(backbone)
    detector.grid_shape_ = (28, 28)
    maps = torch.zeros(3, 28, 28)
    maps[0, 3, 24] = 7.0  # just within the border of three cells
    maps[1, 2, 20] = 7.0
    np.testing.assert_allclose(detector._image_errors(maps), [0.7, 0, 0])
    detector.set_params(cell_aggregation="max")
    np.testing.assert_allclose(detector._image_errors(maps), [7, 0, 0])
    detector.set_params(cell_aggregation="mean")
    np.testing.assert_allclose(detector._image_errors(maps), [7 / 484, 0, 0])


@pytest.mark.parametrize(
    ("grid", "borders"),
    [((28, 28), (3, 3)), ((56, 14), (3, 1)), ((7, 1), (0, 0)), ((8, 16), (1, 2))],
)
def test_small_grids_have_a_narrower_border_and_fewer_cells(backbone, grid, borders):
    detector = make(backbone)
    detector.grid_shape_ = grid
    assert detector._borders() == borders
    errors = detector._image_errors(torch.ones(2, *grid))
    np.testing.assert_allclose(errors, 1)


def test_threshold_of_the_source(fitted, images):
    scores = -np.array([1.0, 2.0, 3.0, 4.0, 5.0])
    assert fitted._auto_offset(scores) == pytest.approx(-7.24264, abs=1e-5)
    train = fitted.train_scores_
    previous = fitted.offset_
    fitted.set_contamination("auto")
    assert fitted.offset_ == pytest.approx(train.mean() - 3 * train.std())
    fitted.set_contamination(0.1)
    assert fitted.offset_ == previous


def test_perfect_reconstruction_scores_zero(images, fitted, monkeypatch):
    monkeypatch.setattr(fitted.network_, "encode", lambda features: features)
    monkeypatch.setattr(fitted.network_, "decode", lambda codes: codes)
    np.testing.assert_array_equal(fitted.score_samples(images), 0)


def test_backbone_passes_over_the_images_once(backbone, images, monkeypatch):
    n_images = []
    original = module.FrozenFeatures.grid

    def grid(self, height, width):
        shape = original(self, height, width)
        self.extract.register_forward_hook(lambda *args: n_images.append(len(args[1][0])))
        return shape

    monkeypatch.setattr(module.FrozenFeatures, "grid", grid)
    held = make(backbone, n_epochs=6, n_iter_no_change=None).fit(images)
    assert sum(n_images) == 16
    n_images.clear()
    computed = make(
        backbone, n_epochs=6, n_iter_no_change=None, max_feature_bytes=1000
    ).fit(images)
    # All in each epoch, 13 to train on and 3 held out, and once for the scores.
    assert sum(n_images) == 7 * 16
    np.testing.assert_allclose(computed.loss_curve_, held.loss_curve_, rtol=1e-3)
    np.testing.assert_allclose(computed.train_scores_, held.train_scores_, rtol=1e-2)
    # 16 images, 20 x 24 cells, 10 features of four bytes.
    n_bytes = 16 * 20 * 24 * 10 * 4
    n_images.clear()
    make(backbone, n_epochs=1, max_feature_bytes=n_bytes).fit(images)
    assert sum(n_images) == 16


def test_features_are_kept_for_other_fits(backbone, images, tmp_path, monkeypatch):
    first = make(backbone, memory=tmp_path).fit(images)
    # The backbone is asked for its channels and the size of its maps, and nothing else.
    monkeypatch.setattr(backbones, "taken_channels", lambda *args, **kwargs: (3, None))
    monkeypatch.setattr(module.FrozenFeatures, "grid", lambda *args: (10, 20, 24))
    original = torch.nn.Conv2d.forward

    def refuse_images(self, batch):
        assert self.in_channels != 3
        return original(self, batch)

    monkeypatch.setattr(torch.nn.Conv2d, "forward", refuse_images)
    again = make(backbone, memory=tmp_path).fit(images)
    np.testing.assert_array_equal(again.train_scores_, first.train_scores_)


def test_some_images_are_held_out_and_the_best_epoch_is_kept(backbone, images, monkeypatch):
    seen = {True: [], False: []}
    original = module.FeatureAutoencoder.forward

    def forward(self, maps):
        seen[self.training].append(maps.detach().clone())
        return original(self, maps)

    monkeypatch.setattr(module.FeatureAutoencoder, "forward", forward)
    detector = make(backbone, n_epochs=60, learning_rate=0.3).fit(images)
    curve = detector.validation_loss_curve_
    assert detector.best_epoch_ == int(np.argmin(curve))
    assert len(curve) == len(detector.loss_curve_) == detector.best_epoch_ + 3 < 60

    def known(batches):
        return {maps.contiguous().numpy().tobytes() for maps in torch.cat(batches)}

    trained, held_out = known(seen[True]), known(seen[False])
    assert len(held_out) == 3  # a fifth of 16
    assert len(trained) == 13
    assert not trained & held_out
    # The kept weights are those of the best epoch.
    errors = by_hand(detector, images)
    losses = {
        maps.tobytes(): error
        for maps, error in zip(
            _features(detector, images), errors.mean((1, 2)), strict=True
        )
    }
    assert np.mean([losses[key] for key in held_out]) == pytest.approx(min(curve), rel=1e-3)


def _features(detector, images):
    with torch.no_grad():
        features = detector.backbone_(torch.from_numpy(images).permute(0, 3, 1, 2))
    return features.contiguous().numpy()


@pytest.mark.parametrize(("fraction", "n_held_out"), [(0.01, 1), (0.5, 8), (0.99, 14)])
def test_at_least_one_is_held_out_and_two_trained_on(
    backbone, images, fraction, n_held_out, monkeypatch
):
    sizes = []
    original = trained.Subset.__init__

    def record(self, source, indices):
        sizes.append(len(indices))
        original(self, source, indices)

    monkeypatch.setattr(trained.Subset, "__init__", record)
    make(backbone, n_epochs=0, validation_fraction=fraction).fit(images)
    assert sizes == [16 - n_held_out, n_held_out]


def test_options_of_the_features(backbone, images, fitted):
    scores = fitted.train_scores_
    for params in (
        {"layers": ("second",)},
        {"interpolation": "bilinear"},
        {"normalization": "imagenet"},
        {"latent_dim": 3},
    ):
        assert not np.allclose(make(backbone, **params).fit(images).train_scores_, scores)
    assert make(backbone, layers=("second",)).fit(images).grid_shape_ == (10, 12)


def test_map_has_the_size_of_the_images(backbone, images):
    detector = make(backbone, image_size=(32, 24)).fit(images)
    assert detector.image_shape_ == (32, 24, 3)
    assert detector.anomaly_map(images[:2]).shape == (2, 40, 48)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"border": 10}, r"border=10 leaves no cell.* Got a grid of 20 x 24 cells"),
        ({"layers": ("fourth",)}, "layers names 'fourth'"),
    ],
)
def test_what_cannot_be_used_is_said_before_training(
    backbone, images, params, message, monkeypatch
):
    monkeypatch.setattr(trained, "train", lambda *args, **kwargs: pytest.fail("trained"))
    with pytest.raises(ValueError, match=message):
        make(backbone, **params).fit(images)
    with pytest.raises(ValueError, match=r"^backbone: your module .* \(2, 2, 40, 48\)"):
        make(backbone, image_shape=(40, 48, 2)).fit(images[..., :2])


@pytest.mark.slow
@pytest.mark.data
def test_defects_of_tiles_are_found(data_dir):
    from sklearn.metrics import roc_auc_score

    from skocc.datasets import load_mvtec_layout

    tiles = load_mvtec_layout(data_dir / "magnetic_tile")
    detector = FeatureCAE(
        backbone="mobilenet_v2",
        weights=data_dir / "mobilenet_v2_imagenet.pt",
        layers=("features.6", "features.13"),
        normalization="imagenet",
        n_epochs=10,
        batch_size=4,
        random_state=0,
    )
    detector.fit(tiles.train_paths[::4])
    scores = detector.score_samples(tiles.test_paths[::4])
    # Over five seeds 0.762 +- 0.006.
    assert roc_auc_score(tiles.test_labels[::4], scores) > 0.7


def test_progress_names_the_class_and_the_stage(backbone, images, progress_labels):
    make(backbone, n_epochs=1, verbose=1).fit(images)
    stages = {"features", "training", "held-out images", "scores"}
    assert progress_labels == {f"FeatureCAE: {stage}" for stage in stages}
