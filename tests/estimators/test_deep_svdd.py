import re

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.metrics import roc_auc_score

from skocc import MOCCA, DeepSVDD
from skocc._nets.lenet import LeNetEncoder
from skocc._nets.mlp import MLP
from skocc._samples.sources import ArrayImages
from skocc.estimators._pretraining import contrast_extremes
from tests.quick import quick


@pytest.fixture
def rgb():
    return np.random.default_rng(0).integers(0, 256, (20, 32, 32, 3), dtype=np.uint8)


def embed(detector, images):
    batch = torch.from_numpy(images)[:, None]
    with torch.no_grad():
        return detector.network_(batch).numpy().astype(np.float64)


def test_hard_score_is_the_squared_distance_to_the_center(digits):
    detector = quick(DeepSVDD).fit(digits[0])
    z = embed(detector, digits[1])
    expected = -np.sum((z - detector.center_) ** 2, axis=1)
    np.testing.assert_allclose(detector.score_samples(digits[1]), expected, rtol=1e-4)
    assert (expected <= 0).all()


def test_soft_score_is_zero_on_the_sphere(digits):
    detector = quick(DeepSVDD, boundary="soft", warm_up_n_epochs=1, n_epochs=4).fit(
        digits[0]
    )
    z = embed(detector, digits[1])
    squared = np.sum((z - detector.center_) ** 2, axis=1)
    np.testing.assert_allclose(
        detector.score_samples(digits[1]),
        detector.radius_**2 - squared,
        rtol=1e-4,
        atol=1e-4,
    )


def test_center_is_the_mean_embedding_after_pretraining(digits):
    detector = quick(DeepSVDD, n_epochs=0).fit(digits[0])
    mean = embed(detector, digits[0]).mean(axis=0)
    far = np.abs(mean) >= 0.1
    np.testing.assert_allclose(detector.center_[far], mean[far], rtol=1e-4)
    np.testing.assert_allclose(np.abs(detector.center_[~far]), 0.1)
    assert (np.sign(detector.center_[~far]) == np.where(mean[~far] < 0, -1, 1)).all()


def test_hard_radius_leaves_nu_outside_and_serves_as_auto_threshold(digits):
    detector = quick(DeepSVDD, nu=0.2, contamination="auto").fit(digits[0])
    assert detector.offset_ == -(detector.radius_**2)
    assert np.mean(detector.predict(digits[0]) == -1) == pytest.approx(0.2, abs=0.01)


@pytest.mark.parametrize("radius_update", ["batch", "epoch"])
def test_soft_boundary_leaves_about_nu_outside(digits, radius_update):
    detector = quick(
        DeepSVDD,
        boundary="soft",
        nu=0.2,
        radius_update=radius_update,
        n_epochs=30,
        warm_up_n_epochs=5,
        contamination="auto",
        learning_rate=1e-3,
    ).fit(digits[0])
    assert detector.offset_ == 0
    outside = np.mean(detector.predict(digits[0]) == -1)
    assert outside == pytest.approx(0.2, abs=1.01 / len(digits[0]))


def test_soft_boundary_does_not_hang_on_the_last_batch(digits):
    """The last batch of an epoch, of two images, has a radius of its own."""
    images = digits[0][:82]
    detector = quick(
        DeepSVDD,
        boundary="soft",
        n_epochs=12,
        batch_size=40,
        warm_up_n_epochs=2,
        contamination="auto",
    ).fit(images)
    outside = np.mean(detector.predict(images) == -1)
    assert outside == pytest.approx(0.1, abs=1.01 / len(images))


def test_soft_boundary_that_never_left_the_warm_up_has_a_radius(digits):
    detector = quick(DeepSVDD, boundary="soft", warm_up_n_epochs=10).fit(digits[0])
    distances = np.sqrt(detector.radius_**2 - detector.train_scores_)
    assert detector.radius_ == pytest.approx(np.quantile(distances, 0.9), rel=1e-5)


def test_stages_are_trained_and_transferred(digits):
    detector = quick(DeepSVDD, pretrain_n_epochs=30, n_epochs=30).fit(digits[0])
    for curve in (detector.pretrain_loss_curve_, detector.loss_curve_):
        assert len(curve) == 30
        assert curve[-1] < 0.9 * curve[0]
    without = quick(DeepSVDD, pretrain_n_epochs=0, n_epochs=0).fit(digits[0])
    pretrained = quick(DeepSVDD, pretrain_n_epochs=30, n_epochs=0).fit(digits[0])
    assert without.pretrain_loss_curve_ == []
    for name, start in without.network_.named_parameters():
        # Gradients of the autoencoder reach every layer of the encoder.
        assert not torch.equal(start, pretrained.network_.get_parameter(name)), name
    statistics = pretrained.network_.get_buffer("encoder.stages.0.1.running_var")
    assert not torch.equal(statistics, torch.ones_like(statistics))


def test_gradients_of_the_objective_reach_every_layer(digits):
    before = quick(DeepSVDD, n_epochs=0).fit(digits[0])
    after = quick(DeepSVDD, n_epochs=1).fit(digits[0])
    for name, start in before.network_.named_parameters():
        assert not torch.equal(start, after.network_.get_parameter(name)), name


@pytest.mark.parametrize(
    ("params", "changed"),
    [
        ({}, {"channels": (4,)}),
        ({}, {"embedding_dim": 7}),
        ({}, {"filter_init": "dictionary"}),
        ({}, {"normalization": None}),
        ({}, {"pretrain_n_epochs": 1}),
        ({}, {"pretrain_learning_rate": 1e-2}),
        ({}, {"pretrain_weight_decay": 1.0}),
        ({}, {"pretrain_milestones": (1,)}),
        ({}, {"n_epochs": 1}),
        ({}, {"learning_rate": 1e-2}),
        ({}, {"weight_decay": 1.0}),
        ({}, {"milestones": (1,)}),
        ({}, {"batch_size": 20}),
        ({}, {"boundary": "soft"}),
        ({}, {"image_size": 10}),
        ({"boundary": "soft", "n_epochs": 4}, {"nu": 0.3}),
        ({"boundary": "soft", "n_epochs": 4}, {"warm_up_n_epochs": 1}),
        (
            {"boundary": "soft", "n_epochs": 4, "warm_up_n_epochs": 0},
            {"radius_update": "epoch"},
        ),
    ],
)
def test_every_parameter_changes_the_scores(params, changed, digits):
    first = quick(DeepSVDD, **params).fit(digits[0]).score_samples(digits[1])
    second = quick(DeepSVDD, **(params | changed)).fit(digits[0]).score_samples(digits[1])
    assert not np.array_equal(first, second)


def test_nets_by_kind_of_input(digits, rgb):
    rows = digits[0].reshape(len(digits[0]), -1)
    on_rows = quick(DeepSVDD, channels=(20, 10), embedding_dim=5).fit(rows)
    assert isinstance(on_rows.network_.encoder, MLP)
    assert on_rows.center_.shape == (5,)
    assert on_rows.image_shape_ == (64,)
    on_images = quick(DeepSVDD).fit(rgb)
    assert isinstance(on_images.network_.encoder, LeNetEncoder)
    assert on_images.center_.shape == (128,)


def test_filters_start_from_a_dictionary(digits):
    params = {"pretrain_n_epochs": 0, "n_epochs": 0}
    learned = quick(DeepSVDD, filter_init="dictionary", **params)
    learned = learned.fit(digits[0]).network_.encoder.filters
    norms = learned.flatten(1).norm(dim=1)
    torch.testing.assert_close(norms, torch.ones_like(norms), rtol=1e-3, atol=1e-3)
    drawn = quick(DeepSVDD, **params).fit(digits[0])
    assert not torch.allclose(drawn.network_.encoder.filters, learned)


def test_backbones_are_fine_tuned_in_all_layers(rgb):
    params = {"backbone": "resnet18", "weights": None, "batch_size": 10, "random_state": 0}
    start = DeepSVDD(n_epochs=0, device="cpu", **params).fit(rgb)
    tuned = DeepSVDD(n_epochs=1, device="cpu", **params).fit(rgb)
    assert tuned.pretrain_loss_curve_ == []
    for layer, weight in start.network_.named_parameters():
        assert not torch.equal(weight, tuned.network_.get_parameter(layer)), layer
    # Features are not negative, so that the margin of the center is always above zero.
    assert (tuned.center_ >= 0.1 - 1e-6).all()
    # A frozen net at no epochs: distance to the mean feature.
    z = start.network_(torch.from_numpy(rgb).permute(0, 3, 1, 2) / 255).detach().numpy()
    expected = -np.sum((z - start.center_) ** 2, axis=1, dtype=np.float64)
    np.testing.assert_allclose(start.score_samples(rgb), expected, rtol=1e-3)


def test_backbone_as_a_module_is_left_alone(rgb):
    module = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3, stride=2), torch.nn.Flatten())
    before = module[0].weight.clone()
    detector = quick(DeepSVDD, backbone=module).fit(rgb)
    assert torch.equal(module[0].weight, before)
    assert not torch.equal(detector.network_.encoder.body[0].weight, before)


def test_backbone_takes_gray_images_and_resizes_small_ones(digits):
    detector = quick(
        DeepSVDD,
        backbone=torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3, stride=2), torch.nn.ReLU()),
        image_size=32,
        normalization="imagenet",
    )
    detector.fit(digits[0])
    assert detector.image_shape_ == (32, 32, 1)
    assert detector.center_.shape == (4 * 15 * 15,)
    assert detector.score_samples(digits[1][:5]).shape == (5,)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"nu": 0}, "nu"),
        ({"nu": 1.5}, "nu"),
        ({"boundary": "fuzzy"}, "boundary"),
        ({"pretrain_n_epochs": -1}, "pretrain_n_epochs"),
        ({"channels": (8, -4)}, r"channels must hold positive integers.*Pass for example"),
        ({"milestones": ("5",)}, r"milestones must hold positive integers"),
        ({"backbone": "resnet18"}, r"at least 32 x 32 pixels.*Set image_size=64"),
        ({"normalization": "imagenet"}, "Got backbone=None. Set backbone"),
    ],
)
def test_bad_parameters(params, message, digits):
    with pytest.raises(ValueError, match=message):
        quick(DeepSVDD, weights=None, **params).fit(digits[0])


def test_backbone_refuses_rows_and_other_channels(digits, rgb):
    detector = quick(DeepSVDD, backbone="resnet18", weights=None)
    with pytest.raises(ValueError, match="needs images of at least"):
        detector.fit(digits[0].reshape(-1, 64))
    with pytest.raises(ValueError, match=r"1 or 3 channels.*X\[:, :, :, :3\]"):
        detector.fit(np.concatenate([rgb, rgb[..., :1]], axis=3))


def test_fewer_images_than_a_batch_and_trailing_batches_of_one(digits):
    assert quick(DeepSVDD, batch_size=200).fit(digits[0][:2]).collapsed_ in (True, False)
    quick(DeepSVDD, batch_size=10).fit(digits[0][:11])


def test_progress_bars_are_called_by_class_and_stage(digits, progress_labels):
    quick(DeepSVDD, verbose=1).fit(digits[0])
    stages = {"contrast", "autoencoder", "centers", "training", "scores"}
    assert progress_labels == {f"DeepSVDD: {stage}" for stage in stages}


def test_learning_rate_too_high_stops_with_advice(digits):
    with pytest.raises(FloatingPointError, match=r"DeepSVDD .*Lower the learning rate"):
        quick(DeepSVDD, learning_rate=1e25, n_epochs=50, milestones=()).fit(digits[0])


def test_collapsed_network_warns(digits):
    detector = quick(
        DeepSVDD, backbone=ConstantNet(), normalization=None, learning_rate=1e-9
    )
    images = np.random.default_rng(0).random((20, 32, 32, 3))
    with pytest.warns(UserWarning, match=r"has collapsed: .* hardly differ"):
        detector.fit(images)
    assert detector.collapsed_


class ConstantNet(torch.nn.Module):
    """Features of size one that vary by 1e-5."""

    def __init__(self):
        super().__init__()
        self.scale = torch.nn.Parameter(torch.tensor(1e-4))

    def forward(self, batch):
        return 1 + self.scale * batch.mean(dim=(2, 3))


def test_save_refuses_a_generator_and_joblib_is_named(digits, rgb, tmp_path):
    import skocc

    module = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3, stride=2), torch.nn.Flatten())
    detector = quick(DeepSVDD, backbone=module).fit(rgb)
    detector.set_params(random_state=np.random.RandomState(0))
    with pytest.raises(ValueError, match=r"(?s)random_state=.*Use joblib\.dump"):
        skocc.save(detector, tmp_path / "a.safetensors")
    assert not (tmp_path / "a.safetensors").exists()


def test_hundreds_of_paths_to_the_same_picture(tmp_path):
    path = tmp_path / "one.png"
    Image.fromarray(
        np.random.default_rng(0).integers(0, 256, (64, 64), dtype=np.uint8)
    ).save(path)
    detector = quick(DeepSVDD, image_size=8, pretrain_n_epochs=0, n_epochs=0)
    with pytest.warns(UserWarning, match="collapsed"):  # they are all the same picture
        detector.fit([path] * 500)
    assert detector.train_scores_.shape == (500,)


GCN_TABLE = """
0 -0.882657 9.001545
1 -0.666146 20.108062
2 -0.782045 11.665101
3 -0.764577 12.895051
4 -0.725392 12.683236
5 -0.769850 13.103278
6 -0.778418 10.457837
7 -0.712978 12.057778
8 -0.828040 10.581538
9 -0.736996 10.697040
"""


@pytest.mark.data
@pytest.mark.parametrize("row", GCN_TABLE.strip().splitlines(), ids=lambda row: row[0])
def test_contrast_constants_of_mnist(data_dir, row):
    digit, minimum, maximum = (float(value) for value in row.split())
    with np.load(data_dir / "mnist.npz") as arrays:
        images = arrays["train_images"][arrays["train_labels"] == digit]
    found = contrast_extremes(ArrayImages(images[..., None]))
    np.testing.assert_allclose(found, [minimum, maximum], atol=1e-5)


@pytest.mark.data
@pytest.mark.slow
def test_mnist_score_range(data_dir):
    """Digit 3 after a tenth of the published schedule."""
    with np.load(data_dir / "mnist.npz") as arrays:
        detector = DeepSVDD(
            pretrain_n_epochs=15, pretrain_milestones=(5,), n_epochs=15, milestones=(5,),
            random_state=0, device="cpu",
        )  # fmt: skip
        detector.fit(arrays["train_images"][arrays["train_labels"] == 3])
        scores = detector.score_samples(arrays["test_images"])
        assert roc_auc_score(arrays["test_labels"] == 3, scores) > 0.88
    assert not detector.collapsed_


@pytest.mark.data
def test_pretrained_backbone_on_photographs(data_dir):
    """The report's setting: MobileNetV2 from ImageNet, weights from a local file."""
    folder = data_dir / "magnetic_tile"
    detector = DeepSVDD(
        backbone="mobilenet_v2",
        weights=data_dir / "mobilenet_v2_imagenet.pt",
        image_size=64,
        n_epochs=1,
        weight_decay=0,
        milestones=(),
        batch_size=8,
        random_state=0,
        device="cpu",
    )
    detector.fit(sorted((folder / "train" / "good").glob("*.jpg"))[:16])
    assert detector.center_.shape == (1280,)
    assert not detector.collapsed_
    assert (
        detector.score_samples(sorted((folder / "test" / "crack").glob("*.jpg"))[:3]).max()
        < 0
    )


@pytest.mark.data
def test_real_photographs_from_files(data_dir):
    folder = data_dir / "magnetic_tile"
    paths = sorted((folder / "train" / "good").glob("*.jpg"))[:24]
    detector = quick(DeepSVDD, image_size=32, batch_size=12).fit(paths)
    assert detector.image_shape_ == (32, 32, 1)
    assert np.isfinite(detector.score_samples(paths[:4])).all()
    with pytest.raises(ValueError, match=re.escape(str(folder / "manifest.csv"))):
        detector.predict([folder / "manifest.csv"])


@pytest.mark.parametrize("estimator_class", [DeepSVDD, MOCCA])
def test_warm_start_goes_on_with_the_warm_up(estimator_class, digits):
    """With a step size that changes nothing, two fits equal one of as many epochs."""
    params = {
        "boundary": "soft",
        "warm_up_n_epochs": 5,
        "learning_rate": 1e-30,
        "weight_decay": 0.0,
        "warm_start": True,
        "batch_size": 200,
    }
    once = quick(estimator_class, n_epochs=8, **params).fit(digits[0])
    twice = quick(estimator_class, n_epochs=4, **params).fit(digits[0]).fit(digits[0])
    # The warm-up, and then the radius, which training and its end agree about but for
    # BatchNorm's modes.
    np.testing.assert_allclose(twice.loss_curve_[:6], once.loss_curve_[:6], rtol=1e-5)
    assert len(twice.loss_curve_) == 8
    assert twice.loss_curve_[4] == pytest.approx(once.loss_curve_[0], rel=1e-5)
    assert twice.loss_curve_[6] < 0.9 * twice.loss_curve_[4]
