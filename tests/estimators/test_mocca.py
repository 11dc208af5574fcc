import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

import skocc
from skocc import MOCCA, DeepSVDD
from skocc._nets.lenet import LeNetEncoder
from skocc._nets.mlp import MLP
from skocc._nets.residual_encoder import ResidualEncoder
from tests.quick import quick

# A residual encoder that trains in milliseconds.
RESIDUAL = {"backbone": "residual", "channels": (2, 3, 4, 5), "embedding_dim": 6}
TEXTURE = {"patch_size": 8, "n_crops": 4, "batch_size": 16}


@pytest.fixture(scope="module")
def rows(digits):
    return digits[0].reshape(len(digits[0]), -1)


@pytest.fixture(scope="module")
def textures():
    """Stripes with noise (20, 20, 28): neither side is a multiple of 8."""
    rng = np.random.default_rng(0)
    stripes = np.sin(np.arange(28)) + 0.1 * rng.normal(size=(20, 1, 1))
    return (stripes + 0.1 * rng.normal(size=(20, 20, 28))).astype(np.float32)


def features(detector, batch):
    """Features of each layer of pieces (b, C, H, W) or (b, d), after normalization."""
    with torch.no_grad():
        encoder = detector.network_["encoder"]
        return [z.double().numpy() for z in encoder.layer_features(batch, detector.layers_)]


def squared_distances(detector, batch):
    return np.stack(
        [
            np.sum((z - center) ** 2, axis=1)
            for z, center in zip(features(detector, batch), detector.centers_, strict=True)
        ],
        axis=1,
    )


def normalized(detector, images):
    with torch.no_grad():
        return detector.network_["normalize"](torch.from_numpy(images)[:, None])


@pytest.mark.parametrize("boundary", ["hard", "soft"])
@pytest.mark.parametrize("kind", ["rows", "images"])
def test_last_layer_alone_is_deep_svdd(boundary, kind, digits, rows):
    X = rows if kind == "rows" else digits[0]
    params = {"n_epochs": 4, "boundary": boundary}
    if boundary == "soft":
        params["warm_up_n_epochs"] = 1
    if kind == "images":
        params["filter_init"] = "dictionary"
    ours = quick(MOCCA, layers=(-1,), **params)
    shared = DeepSVDD().get_params().keys() & MOCCA().get_params().keys()
    values = {key: value for key, value in ours.get_params().items() if key in shared}
    deep = DeepSVDD(**values).fit(X)
    ours.fit(X)
    assert ours.loss_curve_ == deep.loss_curve_
    assert ours.pretrain_loss_curve_ == deep.pretrain_loss_curve_
    np.testing.assert_array_equal(ours.centers_[0], deep.center_)
    assert ours.radii_ == [deep.radius_]
    np.testing.assert_allclose(ours.score_samples(X), deep.score_samples(X), 1e-12, 1e-12)
    assert ours.offset_ == pytest.approx(deep.offset_, rel=1e-12)


@pytest.mark.parametrize("distance", ["sqeuclidean", "euclidean"])
@pytest.mark.parametrize("boundary", ["hard", "soft"])
def test_scores_by_hand(boundary, distance, digits):
    detector = quick(MOCCA, boundary=boundary, distance=distance).fit(digits[0])
    assert detector.layers_ == (0, 1)
    d = squared_distances(detector, normalized(detector, digits[1]))
    expected, radii = -d, detector.radii_**2
    if distance == "euclidean":
        expected, radii = -np.sqrt(d), detector.radii_
    if boundary == "soft":
        expected = expected + radii
    np.testing.assert_allclose(
        detector.layer_scores(digits[1]), expected, rtol=1e-4, atol=1e-5
    )
    np.testing.assert_allclose(
        detector.score_samples(digits[1]), expected.mean(axis=1), rtol=1e-4, atol=1e-5
    )


def test_the_loss_is_the_mean_over_the_layers(digits):
    params = {"pretrain_n_epochs": 0, "n_epochs": 1, "learning_rate": 1e-12}
    params |= {"boundary": "hard", "batch_size": 200, "batch_norm": "frozen"}
    detector = quick(MOCCA, **params).fit(digits[0])
    # One batch holds all images, and the step hardly moves the weights.
    assert detector.loss_curve_ == [pytest.approx(-detector.train_scores_.mean(), rel=1e-4)]


@pytest.mark.parametrize(
    ("layers", "used"),
    [(None, (0, 1, 2)), ((2, 0), (0, 2)), ((-1,), (2,)), ([1, -3], (0, 1))],
)
def test_any_layers_in_ascending_order(layers, used, rows):
    detector = quick(MOCCA, layers=layers, channels=(9, 7), embedding_dim=5).fit(rows)
    assert isinstance(detector.network_["encoder"], MLP)
    assert detector.layers_ == used
    assert [len(center) for center in detector.centers_] == [(9, 7, 5)[j] for j in used]
    assert detector.radii_.shape == (len(used),)
    assert detector.layer_scores(rows[:4]).shape == (4, len(used))
    z = features(detector, torch.from_numpy(rows))
    for column, zj, center, radius in zip(
        detector.layer_scores(rows).T, z, detector.centers_, detector.radii_, strict=True
    ):
        expected = radius**2 - np.sum((zj - center) ** 2, axis=1)
        np.testing.assert_allclose(column, expected, rtol=1e-3, atol=1e-4)


def test_centers_are_mean_features_after_pretraining(digits):
    detector = quick(MOCCA, n_epochs=0).fit(digits[0])
    z = features(detector, normalized(detector, digits[0]))
    for zj, center in zip(z, detector.centers_, strict=True):
        mean = zj.mean(axis=0)
        far = np.abs(mean) >= 0.1
        np.testing.assert_allclose(center[far], mean[far], rtol=1e-4)
        np.testing.assert_allclose(np.abs(center[~far]), 0.1)


@pytest.mark.parametrize("params", [{}, RESIDUAL])
def test_weights_of_the_autoencoder_are_transferred(params, digits):
    params = params | {"n_epochs": 0}
    start = quick(MOCCA, pretrain_n_epochs=0, **params).fit(digits[0])
    assert start.pretrain_loss_curve_ == []
    pretrained = quick(MOCCA, pretrain_n_epochs=2, **params).fit(digits[0])
    assert pretrained.pretrain_loss_curve_[1] < pretrained.pretrain_loss_curve_[0]
    before, after = start.network_.state_dict(), pretrained.network_.state_dict()
    for name, value in before.items():
        if name.startswith("encoder.") and "selectors" not in name:
            assert not torch.equal(value, after[name]), name


def test_gradients_reach_the_layers_with_spheres_and_those_before(digits):
    params = {**RESIDUAL, "layers": (2,), "pretrain_n_epochs": 0}
    before = quick(MOCCA, n_epochs=0, **params).fit(digits[0]).network_["encoder"]
    after = quick(MOCCA, n_epochs=1, **params).fit(digits[0]).network_["encoder"]
    trained = ("conv.", "residual.", "down.0.", "selectors.2.")
    for name, weight in before.named_parameters():
        same = torch.equal(weight, after.get_parameter(name))
        # A bias before BatchNorm has no gradient to speak of.
        assert name == "selectors.2.3.bias" or same != name.startswith(trained), name


@pytest.mark.parametrize(
    ("params", "changed"),
    [
        ({}, {"layers": (0,)}),
        ({}, {"boundary": "hard"}),
        ({}, {"distance": "euclidean"}),
        ({}, {"backbone": "residual"}),
        ({}, {"channels": (4,)}),
        ({}, {"embedding_dim": 7}),
        ({}, {"filter_init": "dictionary"}),
        ({}, {"normalization": None}),
        ({}, {"normalization": "symmetric"}),
        ({}, {"normalization": "local_contrast"}),
        ({}, {"batch_norm": "frozen"}),
        ({}, {"pretrain_n_epochs": 1}),
        ({}, {"pretrain_learning_rate": 1e-2}),
        ({}, {"pretrain_weight_decay": 1.0}),
        ({}, {"pretrain_milestones": (1,)}),
        ({}, {"n_epochs": 1}),
        ({}, {"learning_rate": 1e-2}),
        ({}, {"weight_decay": 1.0}),
        ({}, {"milestones": (1,)}),
        ({}, {"batch_size": 20}),
        ({}, {"image_size": 10}),
        (RESIDUAL, {"backbone": "plain_residual"}),
        (RESIDUAL, {"channels": (2, 3, 4, 6)}),
        ({"patch_size": 4}, {"patch_size": 5}),
        ({"patch_size": 4}, {"n_crops": 2}),
        ({"n_epochs": 4}, {"nu": 0.3}),
        ({"n_epochs": 4}, {"warm_up_n_epochs": 1}),
        ({"n_epochs": 4, "warm_up_n_epochs": 0}, {"radius_update": "epoch"}),
    ],
)
def test_every_parameter_changes_the_scores(params, changed, digits):
    normal, others = digits[0][:60], digits[1][:20]
    first = quick(MOCCA, **params).fit(normal).score_samples(others)
    second = quick(MOCCA, **(params | changed)).fit(normal).score_samples(others)
    assert not np.array_equal(first, second)


def test_radii_leave_nu_outside_of_each_sphere(digits):
    detector = quick(MOCCA, boundary="hard", nu=0.2, contamination="auto").fit(digits[0])
    outside = -detector.layer_scores(digits[0]) > detector.radii_**2
    np.testing.assert_allclose(outside.mean(axis=0), 0.2, atol=0.01)
    assert detector.offset_ == pytest.approx(-np.mean(detector.radii_**2))


@pytest.mark.parametrize("radius_update", ["batch", "epoch"])
def test_soft_boundaries_leave_about_nu_outside(radius_update, digits):
    detector = quick(
        MOCCA,
        nu=0.2,
        radius_update=radius_update,
        n_epochs=30,
        warm_up_n_epochs=5,
        contamination="auto",
        learning_rate=1e-3,
    ).fit(digits[0])
    assert detector.offset_ == 0
    outside = np.mean(detector.layer_scores(digits[0]) < 0, axis=0)
    assert ((outside > 0.05) & (outside < 0.4)).all()


def test_frozen_batch_norm_keeps_the_statistics_of_the_autoencoder(digits):
    params = {"n_epochs": 0}, {"batch_norm": "frozen"}, {}
    start, frozen, free = (
        quick(MOCCA, **p).fit(digits[0]).network_.state_dict() for p in params
    )
    name = "encoder.stages.0.1.running_mean"
    assert torch.equal(frozen[name], start[name])
    assert not torch.equal(free[name], start[name])


@pytest.mark.filterwarnings("ignore:MOCCA has collapsed")  # untrained nets of no width
def test_architecture_by_the_size_of_the_pieces(digits):
    def kind(**params):
        detector = quick(MOCCA, pretrain_n_epochs=0, n_epochs=0, **params)
        return type(detector.fit(digits[0][:4]).network_["encoder"])

    tiny = {"channels": (1, 1, 1, 1), "embedding_dim": 2}
    assert kind() is LeNetEncoder
    assert kind(image_size=64, **tiny) is ResidualEncoder
    assert kind(image_size=(64, 63), **tiny) is LeNetEncoder
    assert kind(image_size=64, patch_size=32, **tiny) is LeNetEncoder
    assert kind(image_size=64, backbone="lenet", **tiny) is LeNetEncoder
    assert kind(backbone="residual", **tiny) is ResidualEncoder
    assert kind(backbone="plain_residual", **tiny) is ResidualEncoder


@pytest.mark.parametrize("backbone", ["residual", "plain_residual"])
def test_residual_encoder(backbone, digits):
    params = RESIDUAL | {"backbone": backbone}
    detector = quick(MOCCA, **params).fit(digits[0])
    assert detector.layers_ == (4, 5, 6)
    sizes = [128] * 3 if backbone == "residual" else [5, 256, 6]
    assert [len(center) for center in detector.centers_] == sizes
    d = squared_distances(detector, normalized(detector, digits[1][:9]))
    np.testing.assert_allclose(
        detector.score_samples(digits[1][:9]),
        (detector.radii_**2 - d).mean(axis=1),
        rtol=1e-3,
        atol=1e-4,
    )
    # Pixels in [0, 1] are brought to [-1, 1].
    torch.testing.assert_close(
        normalized(detector, digits[0]), 2 * torch.from_numpy(digits[0])[:, None] - 1
    )


def test_a_texture_has_the_score_of_its_worst_patch(textures):
    detector = quick(MOCCA, **TEXTURE).fit(textures)
    rows, columns = (0, 8, 12), (0, 8, 16, 20)
    batch = normalized(detector, textures)
    d = np.stack(
        [
            squared_distances(detector, batch[:, :, i : i + 8, j : j + 8])
            for i in rows
            for j in columns
        ],
        axis=1,
    )
    scores = detector.radii_**2 - d
    expected = scores.mean(axis=2)
    tolerance = {"rtol": 1e-4, "atol": 1e-5}
    np.testing.assert_allclose(
        detector.score_samples(textures), expected.min(axis=1), **tolerance
    )
    np.testing.assert_allclose(
        detector.layer_scores(textures), scores.min(axis=1), **tolerance
    )
    maps = detector.anomaly_map(textures)
    assert maps.shape == textures.shape
    assert maps.dtype == np.float32
    np.testing.assert_allclose(
        maps[:, :8, :8], -expected[:, :1, None] + 0 * maps[:, :8, :8], **tolerance
    )
    # Row 8 to 12 and column 16 to 20 are covered once; rows from 12 to 16 twice.
    np.testing.assert_allclose(maps[:, 9, 18], -expected[:, 6], **tolerance)
    np.testing.assert_allclose(
        maps[:, 13, 3], -expected[:, [4, 8]].mean(axis=1), **tolerance
    )
    batched = detector.set_params(batch_size=300).score_samples(textures)
    np.testing.assert_allclose(batched, expected.min(axis=1), **tolerance)


def test_textures_with_a_spot_are_found_and_located(textures):
    spotted = textures[12:].copy()
    spotted[:, 8:12, 8:16] = 0
    detector = quick(
        MOCCA,
        pretrain_n_epochs=10,
        n_epochs=20,
        learning_rate=1e-3,
        warm_up_n_epochs=0,
        normalization=None,
        **(TEXTURE | {"n_crops": 16}),
    ).fit(textures[:12])
    maps = detector.anomaly_map(spotted)
    where = np.unravel_index(maps.reshape(8, -1).argmax(axis=1), maps.shape[1:])
    found = (where[0] >= 8) & (where[0] < 16) & (where[1] >= 8) & (where[1] < 16)
    # Both are 1.0 for ten seeds, and for four with other kernels.
    assert found.mean() > 0.5
    scores = detector.score_samples(np.concatenate([textures[12:], spotted]))
    assert roc_auc_score(np.repeat([1, 0], 8), scores) > 0.8


def test_textures_from_files_are_resized_and_maps_brought_back(image_files):
    images, paths = image_files
    detector = quick(MOCCA, image_size=(24, 16), pretrain_n_epochs=1, n_epochs=1, **TEXTURE)
    detector.fit(paths)
    assert detector.anomaly_map(paths[:3]).shape == (3, *images.shape[1:])


def test_no_map_of_whole_images(digits):
    detector = quick(MOCCA, pretrain_n_epochs=0, n_epochs=0).fit(digits[0])
    assert not hasattr(detector, "anomaly_map")
    with pytest.raises(AttributeError, match="anomaly_map") as info:
        detector.anomaly_map(digits[0])
    assert "Set patch_size=64" in str(info.value.__cause__)
    assert hasattr(MOCCA(patch_size=8), "anomaly_map")


@pytest.mark.filterwarnings("ignore:MOCCA has collapsed")
@pytest.mark.parametrize(
    "params", [TEXTURE, RESIDUAL | {"normalization": "local_contrast"}]
)
def test_save_and_load_are_exact(params, textures, tmp_path):
    detector = quick(MOCCA, **params).fit(textures)
    skocc.save(detector, tmp_path / "a.safetensors")
    loaded = skocc.load(tmp_path / "a.safetensors")
    assert [c.shape for c in loaded.centers_] == [c.shape for c in detector.centers_]
    np.testing.assert_array_equal(
        loaded.layer_scores(textures), detector.layer_scores(textures)
    )


def test_a_warm_start_may_change_the_layers(digits):
    detector = quick(MOCCA, layers=(1,), warm_start=True, boundary="hard").fit(digits[0])
    center, scores = detector.centers_[0], detector.score_samples(digits[1])
    detector.set_params(layers=(0, 1), n_epochs=0).fit(digits[0])
    assert detector.layers_ == (0, 1)
    # What was trained keeps its center, and its scores.
    np.testing.assert_array_equal(detector.centers_[1], center)
    np.testing.assert_array_equal(detector.layer_scores(digits[1])[:, 1], scores)
    # The new layer has one from the fitted weights.
    mean = features(detector, normalized(detector, digits[0]))[0].mean(axis=0)
    far = np.abs(mean) >= 0.1
    np.testing.assert_allclose(detector.centers_[0][far], mean[far], rtol=1e-4)


def test_a_warm_start_goes_on_with_the_warm_up(all_digits):
    detector = quick(MOCCA, n_epochs=1, warm_up_n_epochs=2, warm_start=True)
    detector.fit(all_digits[0]).fit(all_digits[0])
    # In the warm-up the radii are 0, and the loss is that of a hard boundary over nu.
    assert len(detector.loss_curve_) == 2
    radii = detector.radii_
    d = squared_distances(detector, normalized(detector, all_digits[0]))
    np.testing.assert_allclose(radii, np.quantile(np.sqrt(d), 0.9, axis=0), rtol=1e-4)
    detector.fit(all_digits[0])
    assert detector.loss_curve_[2] < 0.5 * detector.loss_curve_[1]


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"layers": ()}, r"numbers from 0 to 1.*Got \(\).*Set for example"),
        ({"layers": (2,)}, r"numbers from 0 to 1, or from -2 to -1.*Got \(2,\)"),
        ({"layers": (0, -2)}, r"each layer once.*Set layers=\(0,\)"),
        ({"layers": ("1",)}, "layers must hold numbers"),
        ({"nu": 0}, "nu"),
        ({"distance": "cosine"}, "distance"),
        ({"channels": (8, -4)}, r"channels must hold positive integers.*Pass for example"),
        ({"milestones": (0,)}, "milestones must hold positive integers"),
        (
            {"backbone": "residual", "channels": (4,)},
            "are four.*Set for example channels",
        ),
        ({"backbone": "plain_residual", "channels": (4,)}, "are four"),
        ({"patch_size": 9}, r"Patches of 9 pixels do not fit.*smaller patches"),
        (
            {"backbone": "residual", "patch_size": 2},
            r"at least 3 x 3 pixels. Got 2 x 2.*lenet",
        ),
    ],
)
def test_bad_parameters(params, message, digits):
    with pytest.raises(ValueError, match=message):
        quick(MOCCA, **params).fit(digits[0])


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"backbone": "residual"}, "is for images. Got rows of 64.*backbone=None"),
        ({"patch_size": 4}, "cuts images into patches. Got rows.*patch_size=None"),
        ({"normalization": "local_contrast"}, "is for images. Got rows.*image_shape"),
    ],
)
def test_rows_are_no_images(params, message, rows):
    with pytest.raises(ValueError, match=message):
        quick(MOCCA, **params).fit(rows)


def test_progress_bars_are_called_by_class_and_stage(digits, progress_labels):
    quick(MOCCA, verbose=1).fit(digits[0])
    stages = {"contrast", "autoencoder", "centers", "training", "scores"}
    assert progress_labels == {f"MOCCA: {stage}" for stage in stages}


def test_learning_rate_too_high_stops_with_advice(digits):
    with pytest.raises(FloatingPointError, match=r"MOCCA.*Lower the learning rate"):
        quick(MOCCA, learning_rate=1e25, n_epochs=50, milestones=()).fit(digits[0])


def golden(data_dir, name):
    with np.load(data_dir / "golden" / f"mocca_{name}_io.npz") as arrays:
        return {key: arrays[key] for key in arrays}


def fit_golden(detector, arrays, X):
    """Fit with the stored weights: centers, radii and scores are the estimator's own."""
    detector.set_params(pretrain_n_epochs=0, n_epochs=0, device="cpu").fit(X)
    encoder = detector.network_["encoder"]
    stored = {
        key: torch.from_numpy(np.array(value, dtype=np.float32))
        for key, value in arrays.items()
        if key.startswith("w/")
    }
    if isinstance(encoder, LeNetEncoder):
        # There the convolutions come first, then the statistics, then the code.
        for index, stage in enumerate(encoder.stages, start=1):
            stage[0].weight.data.copy_(stored[f"w/conv{index}.weight"])
            stage[1].running_mean.copy_(stored[f"w/bnd{index}.running_mean"])
            stage[1].running_var.copy_(stored[f"w/bnd{index}.running_var"])
        encoder.code.weight.data.copy_(stored["w/fc1.weight"])
    else:
        # Without selectors theirs, which come last, are left over.
        for own, value in zip(encoder.state_dict().values(), stored.values(), strict=False):
            own.copy_(value.view(own.shape))
    # A warm start keeps the weights, and layers that are new to it get their centers.
    detector.layers_, detector.centers_, detector.radii_ = (), [], np.array([])
    return detector.set_params(warm_start=True).fit(X)


@pytest.mark.data
@pytest.mark.parametrize("boundary", ["hard", "soft"])
def test_golden_lenet(data_dir, boundary):
    arrays = golden(data_dir, "cifar10_encoder")
    X = torch.from_numpy(arrays["input"])
    detector = MOCCA(boundary=boundary, normalization=None, nu=float(arrays["nu"]))
    fit_golden(detector, arrays, X)
    assert detector.layers_ == (0, 1, 2, 3)
    for index, center in enumerate(detector.centers_):
        np.testing.assert_allclose(center, arrays[f"center/{index:02d}"], atol=1e-4)
        np.testing.assert_allclose(
            detector.radii_[index], arrays[f"radius/{index:02d}"], atol=1e-4
        )
    np.testing.assert_allclose(
        -detector.score_samples(X), arrays[f"score_{boundary}"], atol=1e-4
    )
    if boundary == "hard":
        for index, column in enumerate(-detector.layer_scores(X).T):
            np.testing.assert_allclose(column, arrays[f"dist/{index:02d}"], atol=1e-4)


@pytest.mark.data
@pytest.mark.parametrize("boundary", ["hard", "soft"])
@pytest.mark.parametrize("backbone", ["residual", "plain_residual"])
def test_golden_residual_encoder(data_dir, boundary, backbone):
    arrays = golden(data_dir, "mvtec_encoder")
    kind = "sel" if backbone == "residual" else "pool"
    detector = MOCCA(
        backbone=backbone,
        layers=tuple(range(8)),
        boundary=boundary,
        distance="euclidean",
        embedding_dim=int(arrays["code_length"]),
        nu=float(arrays["nu"]),
    )
    fit_golden(detector, arrays, arrays["images"])
    for index, center in enumerate(detector.centers_):
        expected = arrays[f"{kind}/center/{index:02d}"]
        np.testing.assert_allclose(center, expected, atol=1e-4)
        np.testing.assert_allclose(
            detector.radii_[index], arrays[f"{kind}/radius/{index:02d}"], atol=1e-4
        )
    scores = detector.score_samples(arrays["images"])
    np.testing.assert_allclose(-scores, arrays[f"{kind}/score_{boundary}"], atol=1e-4)
    # The original takes the worst of a batch, which stands for the patches of a texture.
    np.testing.assert_allclose(
        -scores.min(), arrays[f"{kind}/score_{boundary}_texture"], atol=1e-4
    )


@pytest.mark.data
def test_textures_on_photographs(data_dir):
    folder = data_dir / "magnetic_tile" / "train" / "good"
    paths = sorted(folder.glob("*.jpg"))[:6]
    detector = MOCCA(
        patch_size=32, image_size=64, batch_size=16, pretrain_n_epochs=1, n_epochs=1,
        random_state=0, device="cpu",
    )  # fmt: skip
    detector.fit(paths)
    assert detector.image_shape_ == (64, 64, 1)
    assert detector.layers_ == (0, 1, 2, 3)
    assert detector.anomaly_map(paths[:2], size="model").shape == (2, 64, 64)
    assert not detector.collapsed_


@pytest.mark.parametrize("patch_size", [None, 16])
def test_training_images_are_rotated(patch_size):
    rng = np.random.default_rng(0)
    images = np.tile(np.sin(np.arange(24)), (8, 24, 1)) + rng.normal(0, 0.05, (8, 24, 24))
    params = {"patch_size": patch_size, "n_epochs": 1, "pretrain_n_epochs": 1}
    params |= {"normalization": None, "random_state": 0, "device": "cpu"}
    plain = MOCCA(**params).fit(images)
    turned = MOCCA(rotation_range=(-45, 45), **params).fit(images)
    not_turned = MOCCA(rotation_range=(0, 0), **params).fit(images)
    assert not np.allclose(turned.score_samples(images), plain.score_samples(images))
    if patch_size is None:  # no more draws before the same patches
        np.testing.assert_allclose(
            not_turned.score_samples(images), plain.score_samples(images), rtol=1e-2
        )
    again = MOCCA(rotation_range=(-45, 45), **params).fit(images)
    np.testing.assert_array_equal(again.score_samples(images), turned.score_samples(images))


@pytest.mark.parametrize("rotation_range", [(45,), (45, -45), (0, np.inf), ("a", "b")])
def test_angles_that_are_no_range(rotation_range):
    images = np.random.default_rng(0).random((4, 24, 24))
    with pytest.raises(ValueError, match="two numbers of degrees, the lower one first"):
        MOCCA(rotation_range=rotation_range).fit(images)
    with pytest.raises(ValueError, match=r"is for images\. Got rows of 576"):
        MOCCA(rotation_range=(0, 45)).fit(images.reshape(4, -1))
