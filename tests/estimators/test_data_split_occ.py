import json

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from sklearn.datasets import load_breast_cancer
from sklearn.metrics import roc_auc_score
from sklearn.preprocessing import MinMaxScaler

import skocc
from skocc import DataSplitOCC
from skocc._engine.training import adam
from skocc._ops.scores import structural_similarity
from skocc.estimators._data_splitting import SplitNetworks, split_typical, weight_groups


@pytest.fixture(scope="module")
def images():
    """Thirty smooth gray images (30, 16, 14) in [0, 1] that differ from each other."""
    coarse = torch.from_numpy(np.random.default_rng(0).random((30, 1, 4, 4)))
    fine = torch.nn.functional.interpolate(coarse.float(), (16, 14), mode="bilinear")
    return fine[:, 0].numpy()


def make(**params):
    small = {
        "pretrain_n_epochs": 2, "n_epochs": 2, "channels": (4, 6, 8, 6, 6), "batch_size": 8,
        "embedding_dim": 12, "random_state": 0, "device": "cpu",
    }  # fmt: skip
    if params.get("backbone") is not None:
        del small["embedding_dim"]  # which a backbone has of its own
    return DataSplitOCC(**(small | params))


def tensor(images):
    return torch.from_numpy(images)[:, None]


@torch.no_grad()
def logits_by_hand(detector, batch):
    z = detector.network_["extractor"](batch)
    return detector.network_["classifier"](z)[:, 0].numpy()


def test_split_and_similarity_by_hand(images):
    detector = make(atypical_fraction=0.2).fit(images)
    with torch.no_grad():
        reconstruction = detector.autoencoder_(tensor(images))
    expected = structural_similarity(reconstruction, tensor(images)).numpy()
    np.testing.assert_allclose(detector.reconstruction_similarity_, expected, atol=1e-5)
    np.testing.assert_array_equal(
        detector.typical_, split_typical(detector.reconstruction_similarity_, 0.2)
    )
    np.testing.assert_array_equal(
        detector.reconstruction_similarity(images), detector.reconstruction_similarity_
    )


def test_similarity_of_small_images_is_the_squared_error(images):
    small = np.ascontiguousarray(images[:, :10])
    detector = make().fit(small)
    with torch.no_grad():
        reconstruction = detector.autoencoder_(tensor(small))[:, 0].numpy()
    expected = -((reconstruction - small) ** 2).mean(axis=(1, 2))
    np.testing.assert_allclose(detector.reconstruction_similarity_, expected, rtol=1e-4)
    squared = make(reconstruction_metric="mse").fit(images)
    assert squared.reconstruction_similarity_.max() < 0
    with pytest.raises(ValueError, match=r"at least 11 x 11.*\(10, 14, 1\).*image_size"):
        make(reconstruction_metric="ssim").fit(small)


def test_score_and_probability_by_hand(images):
    detector = make().fit(images)
    logits = logits_by_hand(detector, tensor(images))
    np.testing.assert_allclose(detector.score_samples(images), -logits, rtol=1e-4)
    probabilities = detector.normal_probability(images)
    np.testing.assert_allclose(probabilities, 1 - 1 / (1 + np.exp(-logits)), rtol=1e-4)
    assert probabilities.dtype == np.float64
    np.testing.assert_array_equal(detector.train_scores_, detector.score_samples(images))
    # "auto" is a probability of one half.
    labels = detector.set_contamination("auto").predict(images)
    np.testing.assert_array_equal(labels == 1, probabilities >= 0.5)


def test_atypical_images_are_told_from_typical_ones(images):
    detector = make(n_epochs=40, learning_rate=3e-3, tol=None, atypical_fraction=0.2)
    detector.fit(images)
    closeness, intra_class, dispersion = detector.step_loss_curves_
    # All three fall, which signed differences do not allow: over ten seeds, and three each
    # with two other sets of kernels, to 0.04 +- 0.07 of the first epoch, at most to 0.34.
    for curve in (closeness, intra_class, dispersion):
        assert curve[-1] < 0.7 * curve[0]
    probabilities = detector.normal_probability(images)
    typical = detector.typical_
    # 0.97 +- 0.03.
    assert probabilities[typical].mean() > probabilities[~typical].mean() + 0.3
    np.testing.assert_allclose(
        detector.loss_curve_, np.mean(detector.step_loss_curves_, axis=0), rtol=1e-5
    )


@pytest.mark.filterwarnings("ignore:DataSplitOCC has collapsed")
def test_signed_difference_cannot_satisfy_both_constraints(images):
    detector = make(n_epochs=20, learning_rate=3e-3, tol=None, difference="signed")
    closeness, _, dispersion = detector.fit(images).step_loss_curves_
    # Pairs of a batch are not symmetric, only on average.
    assert np.add(closeness, dispersion)[-5:].mean() > 1.386 - 0.1


def test_controls(images):
    split = make(objective="split").fit(images)
    constrained = make().fit(images)
    assert sorted(split.network_) == ["classifier", "extractor"]
    assert len(split.step_loss_curves_) == 1
    # The same autoencoder, and the same split.
    np.testing.assert_array_equal(
        split.reconstruction_similarity_, constrained.reconstruction_similarity_
    )
    np.testing.assert_array_equal(split.typical_, constrained.typical_)
    naive = make(objective="naive", n_epochs=60, learning_rate=1e-3).fit(images)
    assert naive.typical_.all()
    assert naive.autoencoder_ is naive.reconstruction_similarity_ is None
    # Nothing keeps it from calling everything typical: 0.966 +- 0.012 over ten seeds, 0.961
    # +- 0.010 over three with other kernels.
    assert naive.normal_probability(1 - images).min() > 0.8
    with pytest.raises(ValueError, match=r"needs the autoencoder.*'naive'.*Fit with"):
        naive.reconstruction_similarity(images)


def test_one_autoencoder_for_all_objectives(images):
    first = make(n_epochs=0, warm_start=True).fit(images)
    weights = first.autoencoder_.state_dict()
    for objective in ("split", "naive", "constrained"):
        first.set_params(objective=objective, n_epochs=1).fit(images)
    # "naive" has none, and the next fit trains one.
    first.set_params(objective="split").fit(images)
    again = make(n_epochs=0, warm_start=True).fit(images)
    before = again.typical_
    again.set_params(objective="split", n_epochs=2).fit(images)
    np.testing.assert_array_equal(again.typical_, before)
    for name, value in again.autoencoder_.state_dict().items():
        assert torch.equal(value, weights[name])


def test_training_ends_when_all_losses_have_converged(images):
    detector = make(n_epochs=50, tol=10.0, n_iter_no_change=3).fit(images)
    assert len(detector.loss_curve_) == 4
    assert len(make(n_epochs=7, tol=None).fit(images).loss_curve_) == 7


def test_balanced_batches_have_as_many_of_each(images, monkeypatch):
    seen = []
    module = "skocc.estimators._data_splitting.intra_class_loss"

    def counting(logits, is_atypical):
        seen.append(is_atypical.float().mean().item())
        return skocc._ops.losses.intra_class_loss(logits, is_atypical)

    monkeypatch.setattr(module, counting)
    make(objective="split", n_epochs=20).fit(images)
    natural = np.mean(seen)
    seen.clear()
    make(objective="split", n_epochs=20, balanced=True).fit(images)
    assert natural == pytest.approx(0.1, abs=0.02)
    assert np.mean(seen) == pytest.approx(0.5, abs=0.02)


def test_weight_decay_acts_on_convolutions_alone(images):
    detector = make().fit(images)
    groups = weight_groups(detector.network_)
    decayed, others = adam(groups, 1e-4, 1e-6).param_groups
    assert decayed["weight_decay"] == 1e-6
    assert [p.dim() for p in decayed["params"]] == [4] * 5
    assert others["weight_decay"] == 0
    n_parameters = len(list(detector.network_.parameters()))
    assert len(decayed["params"]) + len(others["params"]) == n_parameters


def test_rows():
    X, y = load_breast_cancer(return_X_y=True)
    X = MinMaxScaler().fit_transform(X)
    detector = DataSplitOCC(
        pretrain_n_epochs=20, n_epochs=20, learning_rate=3e-3, random_state=0, device="cpu"
    )
    detector.fit(X[y == 1][:250])
    rest = np.concatenate([X[y == 1][250:], X[y == 0]])
    is_normal = np.arange(len(rest)) < (y == 1).sum() - 250
    similarities = detector.reconstruction_similarity(rest)
    # Over ten seeds 0.878 +- 0.022, over three with other kernels 0.856 +- 0.021.
    assert roc_auc_score(is_normal, similarities) > 0.8
    # What is typical is learned, if not what is malignant: 0.959 +- 0.023.
    assert roc_auc_score(detector.typical_, detector.train_scores_) > 0.85
    # Not one of the values needs to lie in [0, 1].
    assert np.isfinite(make().set_params(channels=(9,)).fit(10 * X - 5).train_scores_).all()


class OwnNetwork(torch.nn.Module):
    """Takes gray images of any size."""

    def __init__(self, n_channels=1):
        super().__init__()
        self.convolution = torch.nn.Conv2d(n_channels, 3, 5, stride=2)
        self.norm = torch.nn.BatchNorm2d(3)

    def forward(self, batch):
        maps = self.norm(self.convolution(batch))
        return torch.nn.functional.elu(maps).mean(dim=(2, 3))


@pytest.mark.parametrize("n_channels", [1, 3])
def test_any_network_extracts_features(images, n_channels):
    torch.manual_seed(0)
    own = OwnNetwork(n_channels)
    detector = make(backbone=own, learning_rate=1e-2).fit(images)
    network = detector.network_
    assert network["classifier"].in_features == network["distance"].unit.in_features == 3
    trained = network["extractor"].body.convolution.weight
    assert not torch.equal(trained, own.convolution.weight)
    # The statistics of typical and of atypical batches are not mixed.
    assert network["extractor"].body.norm.num_batches_tracked == 0
    free = make(backbone=own, batch_norm="train").fit(images)
    assert free.network_["extractor"].body.norm.num_batches_tracked > 0
    assert own.norm.num_batches_tracked == 0
    # Its features have any sign.
    rows = make(backbone=torch.nn.Linear(5, 4), channels=(6,))
    assert np.isfinite(rows.fit(images[:, :5, 0]).train_scores_).all()


def batch_norms(detector):
    layers = detector.network_["extractor"].modules()
    return [layer for layer in layers if isinstance(layer, torch.nn.BatchNorm2d)]


def test_batch_norm_of_the_compact_network(images):
    for batch_norm in ("auto", "train"):
        detector = make(batch_norm=batch_norm).fit(images)
        norms = batch_norms(detector)
        assert len(norms) == 5
        # Two epochs of four batches of typical images, and as many of both other kinds.
        assert {int(norm.num_batches_tracked) for norm in norms} == {2 * 3 * 4}
        assert all((norm.running_mean != 0).any() for norm in norms)
    # By default it is for gray images.
    params = {"pretrain_n_epochs": 0, "n_epochs": 1}
    color = np.repeat(images[..., None], 3, axis=3)
    for X, batch_norm, n_norms in [
        (images, "none", 0), (color, "auto", 0), (color, "train", 5),
    ]:  # fmt: skip
        detector = make(batch_norm=batch_norm, **params).fit(X)
        assert len(batch_norms(detector)) == n_norms


def test_scores_with_batch_norm_do_not_depend_on_other_images(images):
    detector = make(learning_rate=1e-2, batch_size=7).fit(images)
    scores = detector.score_samples(images)
    alone = [detector.score_samples(images[[i]])[0] for i in range(len(images))]
    np.testing.assert_allclose(alone, scores, rtol=1e-3, atol=1e-5)
    others = np.concatenate([images[:5], np.ones_like(images), np.zeros_like(images)])
    np.testing.assert_allclose(
        detector.score_samples(others)[:5], scores[:5], rtol=1e-3, atol=1e-5
    )
    assert np.std(scores) > 1e-2


def test_average_of_weights_and_statistics(images, monkeypatch):
    steps = []
    step = torch.optim.Adam.step

    def recorded_step(self, *args, **kwargs):
        step(self, *args, **kwargs)
        steps.append([p.detach().clone() for g in self.param_groups for p in g["params"]])

    monkeypatch.setattr(torch.optim.Adam, "step", recorded_step)
    params = {"pretrain_n_epochs": 0, "n_epochs": 3, "learning_rate": 1e-2}
    last = make(**params).fit(images)
    steps.clear()
    averaged = make(weight_average=0.7, **params).fit(images)
    # The steps are the same.
    assert averaged.loss_curve_ == last.loss_curve_
    expected = steps[0]
    for n, weights in enumerate(steps[1:], start=2):
        kept = min(0.7, n / (n + 9))
        pairs = zip(expected, weights, strict=True)
        expected = [kept * before + (1 - kept) * now for before, now in pairs]
    groups = weight_groups(averaged.network_)
    found = [p.detach() for group in groups for p in group["params"]]
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-6)
    for first, second in zip(batch_norms(averaged), batch_norms(last), strict=True):
        assert not torch.equal(first.running_mean, second.running_mean)
    logits = logits_by_hand(averaged, tensor(images))
    np.testing.assert_allclose(averaged.train_scores_, -logits, rtol=1e-4, atol=1e-6)
    # A second fit starts from them.
    before = averaged.network_.state_dict()
    averaged.set_params(warm_start=True, n_epochs=0).fit(images)
    for name, value in averaged.network_.state_dict().items():
        assert torch.equal(value, before[name])


# Features of a random network of this depth hardly differ.
@pytest.mark.filterwarnings("ignore::skocc.CollapseWarning")
def test_networks_by_name(images):
    pytest.importorskip("torchvision")
    color = np.repeat(images[:6, :, :, None], 3, axis=3)
    params = {"n_epochs": 1, "pretrain_n_epochs": 1}
    named = make(backbone="shufflenet_v2_x0_5", image_size=32, **params).fit(color)
    assert named.network_["classifier"].in_features == 1024
    # From 63 pixels on, the network of the paper.
    large = make(image_size=64, n_epochs=0, pretrain_n_epochs=0, embedding_dim=None)
    large.fit(images[:6])
    assert large.network_["classifier"].in_features == 4096
    assert (
        make(image_size=62, n_epochs=0, pretrain_n_epochs=0)
        .fit(images[:6])
        .network_["classifier"]
        .in_features
        == 12
    )


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"atypical_fraction": 0.0}, "atypical_fraction"),
        ({"objective": "both"}, "objective"),
        ({"channels": (3, 4)}, r"five convolutions.*Got \(3, 4\).*Set for example"),
        ({"channels": (3, 4, 5, 6, 0)}, "channels"),
        ({"batch_norm": True}, "'batch_norm' parameter"),
        ({"latent_dim": "vector"}, "'latent_dim' parameter"),
        ({"batch_norm": "frozen"}, r"a backbone comes with. Got backbone=None.*Set batch"),
        (
            {"batch_norm": "none", "backbone": torch.nn.Flatten()},
            r"does not remove.*Got backbone=your module Flatten. Set batch_norm='frozen'",
        ),
        (
            {"backbone": torch.nn.Linear(3, 3)},
            r"^backbone: your module Linear does not take.* shape \(2, 3, 16, 14\)",
        ),
        ({"backbone": "resnet19"}, "not a classification network"),
    ],
)
def test_parameters_that_do_not_fit(images, params, message):
    with pytest.raises(ValueError, match=message):
        make(**params).fit(images)


def test_too_few_images_and_backbone_names_for_rows(images):
    with pytest.raises(ValueError, match="sample"):
        make().fit(images[:3])
    with pytest.raises(ValueError, match=r"is for images. Got rows of 14 values"):
        make(backbone="resnet18").fit(images[:, 0])
    with pytest.raises(ValueError, match=r"be a map. Got rows of 14 values. Set image_sh"):
        make(latent_dim="map", channels=(6,)).fit(images[:, 0])


def test_mixed_precision_scores_in_full_precision(images):
    plain, mixed = make(n_epochs=4), make(n_epochs=4, mixed_precision=True)
    plain.fit(images)
    mixed.fit(images)
    assert not np.array_equal(plain.train_scores_, mixed.train_scores_)
    np.testing.assert_allclose(
        mixed.reconstruction_similarity_, plain.reconstruction_similarity_, atol=0.05
    )
    logits = logits_by_hand(mixed, tensor(images))
    np.testing.assert_allclose(mixed.train_scores_, -logits, rtol=1e-4)
    # Losses have all digits, of which the rule for the end compares four.
    losses = torch.tensor(mixed.step_loss_curves_).flatten()
    assert (losses != losses.bfloat16().float()).all()


@pytest.mark.parametrize("objective", ["constrained", "split", "naive"])
def test_saved_detector_scores_alike(images, objective, tmp_path):
    detector = make(objective=objective, dropout=0.2).fit(images)
    skocc.save(detector, tmp_path / "a.safetensors")
    loaded = skocc.load(tmp_path / "a.safetensors")
    np.testing.assert_array_equal(
        loaded.score_samples(images), detector.score_samples(images)
    )
    np.testing.assert_array_equal(loaded.typical_, detector.typical_)
    if objective != "naive":
        np.testing.assert_array_equal(
            loaded.reconstruction_similarity(images), detector.reconstruction_similarity_
        )


def write_old(path, params, without=()):
    """Rewrite a file of this version as one of format 1, which has no digest."""
    with safe_open(path, framework="pt") as file:
        header = json.loads(file.metadata()["skocc"])
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    new = header["params"]
    for old, name in [("latent_dim", "embedding_dim"), ("widths", "channels")]:
        params[old] = new.pop(name)
    params["similarity"] = new.pop("reconstruction_metric")
    header["params"] = {**new, **params}
    header["values"]["code_size_"] = header["values"].pop("latent_dim_")
    for group in (header["values"], tensors):
        if "reconstruction_similarity_" in group:
            group["similarity_"] = group.pop("reconstruction_similarity_")
    for name in without:
        for group in (header["params"], header["values"]):
            group.pop(name, None)
    header["format"] = "1"
    del header["digest"]
    save_file(tensors, path, metadata={"skocc": json.dumps(header)})


def check_loaded(loaded, detector, images):
    np.testing.assert_array_equal(
        loaded.score_samples(images), detector.score_samples(images)
    )
    assert loaded.latent_dim_ == detector.latent_dim_
    if detector.objective == "naive":
        assert loaded.autoencoder_ is loaded.reconstruction_similarity_ is None
    else:
        np.testing.assert_array_equal(
            loaded.reconstruction_similarity(images), detector.reconstruction_similarity_
        )


@pytest.mark.parametrize("latent_dim", [None, 16, "map"])
@pytest.mark.parametrize("objective", ["constrained", "naive"])
def test_file_from_before_batch_norm(images, objective, latent_dim, tmp_path):
    """It has no `batch_norm`, and the code was of 16 by default."""
    images = np.tile(images[:12], (1, 2, 2))[:, :24, :24]
    detector = make(objective=objective, batch_norm="none", latent_dim=latent_dim or 16)
    detector.fit(images)
    path = tmp_path / "a.safetensors"
    skocc.save(detector, path)
    is_map = latent_dim == "map"
    old = {
        "code_size": None if is_map else latent_dim, "spatial_code": is_map,
        "freeze_bn": True,
    }  # fmt: skip
    write_old(path, old, ["batch_norm", "weight_average", "code_size_"])
    loaded = skocc.load(path)
    check_loaded(loaded, detector, images)
    assert loaded.batch_norm == "none"
    if objective != "naive":
        assert loaded.latent_dim == (latent_dim or 16)
    # It is an estimator like any other: saved again, and fitted further.
    skocc.save(loaded, path)
    again = skocc.load(path)
    assert again.get_params() == loaded.get_params()
    again.set_params(warm_start=True).fit(images)
    assert batch_norms(again) == []


@pytest.mark.parametrize(
    ("params", "old", "kept"),
    [
        ({}, {"batch_norm": None}, {"batch_norm": "auto"}),
        ({"batch_norm": "train"}, {"batch_norm": True}, {"batch_norm": "train"}),
        ({"batch_norm": "none"}, {"batch_norm": False}, {"batch_norm": "none"}),
        (
            {"backbone": "shufflenet_v2_x0_5", "image_size": 32},
            {"batch_norm": True, "freeze_bn": True},
            {"batch_norm": "frozen"},
        ),
        (
            {"backbone": "shufflenet_v2_x0_5", "image_size": 32, "batch_norm": "train"},
            {"batch_norm": None, "freeze_bn": False},
            {"batch_norm": "train"},
        ),
        ({"latent_dim": 5}, {"code_size": 5}, {"latent_dim": 5, "embedding_dim": 12}),
        ({"latent_dim": "map"}, {"spatial_code": True}, {"latent_dim": "map"}),
    ],
)
@pytest.mark.filterwarnings("ignore::skocc.CollapseWarning")
def test_files_with_parameters_that_were_merged(images, params, old, kept, tmp_path):
    images = images[:12]
    detector = make(pretrain_n_epochs=1, n_epochs=1, **params).fit(images)
    path = tmp_path / "a.safetensors"
    skocc.save(detector, path)
    old = {
        "batch_norm": None, "freeze_bn": True, "code_size": None, "spatial_code": False,
        **old,
    }  # fmt: skip
    write_old(path, old)
    loaded = skocc.load(path)
    check_loaded(loaded, detector, images)
    assert loaded.get_params().items() >= kept.items()


def test_a_map_of_another_number_of_channels_is_loaded(images, tmp_path):
    """It was ``code_size=7, spatial_code=True``, which no parameter says any longer."""
    detector = make(latent_dim="map", n_epochs=1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SplitNetworks, "code_size", lambda networks: 7)
        detector.fit(images[:12])
    path = tmp_path / "a.safetensors"
    skocc.save(detector, path)
    old = {"batch_norm": None, "freeze_bn": True, "code_size": 7, "spatial_code": True}
    write_old(path, old)
    loaded = skocc.load(path)
    check_loaded(loaded, detector, images[:12])
    assert loaded.latent_dim == "map"
    assert loaded.latent_dim_ == 7


def test_progress_names_the_class_and_the_stage(images, progress_labels):
    make(verbose=1, n_epochs=1, pretrain_n_epochs=1).fit(images)
    stages = {"autoencoder", "reconstructions", "training", "scores"}
    assert progress_labels == {f"DataSplitOCC: {stage}" for stage in stages}


def test_old_names_say_what_to_write():
    """`latent_dim` is no longer an old name, but one with a new meaning."""
    assert make(latent_dim=3).latent_dim == 3
    message = r"freeze_bn of DataSplitOCC was removed. Got .* Write batch_norm=\"frozen\""
    with pytest.raises(TypeError, match=message):
        make(freeze_bn=True)
    with pytest.raises(ValueError, match=r"spatial_code .* Write latent_dim=\"map\""):
        make().set_params(spatial_code=True)
    with pytest.raises(AttributeError, match=r"similarity_ .* reconstruction_similarity_"):
        make().similarity_  # noqa: B018


@pytest.mark.parametrize(
    ("shape", "params", "size"),
    [
        ((24, 24), {}, 2),
        ((24, 24), {"latent_dim": 5}, 5),
        ((24, 24), {"latent_dim": "map"}, 4),
        ((16, 12), {}, 8),
        ((24,), {"channels": (4,)}, 6),
        ((24, 24), {"objective": "naive"}, None),
    ],
)
def test_size_of_the_code(shape, params, size):
    X = np.random.default_rng(0).random((8, *shape), dtype=np.float32)
    detector = make(pretrain_n_epochs=0, n_epochs=1, **params).fit(X)
    assert detector.latent_dim_ == size
    if len(shape) == 2 and size is not None:
        assert detector.autoencoder_.encoder[-1].out_channels == size


@pytest.mark.slow
@pytest.mark.data
def test_trousers_of_fashion_mnist(data_dir):
    with np.load(data_dir / "fashion_mnist.npz") as arrays:
        train, labels = arrays["train_images"], arrays["train_labels"]
        test, test_labels = arrays["test_images"][:600], arrays["test_labels"][:600]
    detector = DataSplitOCC(
        channels=(8, 24, 48, 32, 32), pretrain_n_epochs=5, n_epochs=4, learning_rate=1e-3,
        batch_size=32, random_state=0, device="cpu",
    )  # fmt: skip
    detector.fit(train[labels == 1][:500])
    is_normal = test_labels == 1
    # Fewer images, epochs and channels than it takes; the published number is 0.989. Over
    # five seeds, and five others with other kernels, 0.964 +- 0.018, and 0.979 +- 0.012.
    assert roc_auc_score(is_normal, detector.score_samples(test)) > 0.85
    assert roc_auc_score(is_normal, detector.reconstruction_similarity(test)) > 0.9
