import copy

import numpy as np
import pytest
import torch
from torch import nn

import skocc
from skocc import CollapseWarning, PatchSVDD
from skocc._base import trained
from skocc._nets.patch_encoder import HierarchicalPatchEncoder
from skocc._ops.maps import patch_scores_to_map
from skocc._ops.memory_bank import MemoryBank
from skocc._samples.windows import window_starts
from tests.quick import quick


@pytest.fixture(scope="module")
def images(smooth_images):
    return smooth_images


def make(**params):
    small = {"patch_size": 16, "strides": (4, 8), "n_pairs": 8, "n_epochs": 1}
    return PatchSVDD(**(small | {"random_state": 0, "device": "cpu"} | params))


@pytest.fixture(scope="module")
def fitted(images):
    return make().fit(images)


def embeddings(detector, images):
    """Embeddings of small and of big patches, one list of vectors for an image."""
    with torch.no_grad():
        batch = torch.from_numpy(images)[:, None]
        scales = detector.network_.encoder.dense_scales(
            detector.network_.normalize(batch), 4, 8
        )
    return [z.flatten(2).mT.double().numpy() for z in scales]


def by_hand(detector, image, banks, n_neighbors=1):
    """The map of one image from its definition."""
    product = 1.0
    for z, bank, side, stride in zip(
        embeddings(detector, image[None]), banks, (8, 16), (4, 8), strict=True
    ):
        distances = np.linalg.norm(z[0][:, None] - bank[None], axis=2)
        scores = np.sort(distances, axis=1)[:, :n_neighbors].mean(axis=1)
        rows, columns = (window_starts(n, side, stride) for n in image.shape)
        scores = scores.reshape(1, len(rows), len(columns))
        product = product * patch_scores_to_map(scores, rows, columns, side, image.shape)
    return product[0]


@pytest.mark.parametrize("n_neighbors", [1, 3])
def test_map_of_a_new_image(images, n_neighbors):
    detector = make(n_neighbors=n_neighbors).fit(images[:6])
    banks = [np.concatenate(z) for z in embeddings(detector, images[:6])]
    np.testing.assert_allclose(detector.bank_small_.vectors, banks[0], atol=1e-6)
    np.testing.assert_allclose(detector.bank_big_.vectors, banks[1], atol=1e-6)
    expected = by_hand(detector, images[7], banks, n_neighbors)
    found = detector.anomaly_map(images[7:8])
    np.testing.assert_allclose(found[0], expected, rtol=1e-3, atol=1e-6)
    assert detector.score_samples(images[7:8])[0] == pytest.approx(
        -expected.max(), rel=1e-3
    )


def test_training_images_are_scored_against_the_others(images, fitted):
    z = embeddings(fitted, images)
    others = [np.concatenate(np.delete(part, 4, axis=0)) for part in z]
    expected = -by_hand(fitted, images[4], others).max()
    assert fitted.train_scores_[4] == pytest.approx(expected, rel=1e-3)
    np.testing.assert_array_equal(fitted.score_samples(images), fitted.train_scores_)
    # Were it not recognized, it would find all its patches in the bank.
    stranger = make().fit(images)
    for name in ("bank_small_", "bank_big_"):
        bank = getattr(stranger, name)
        unknown = MemoryBank(bank.vectors, bank.images, np.zeros_like(bank.digests))
        setattr(stranger, name, unknown)
    np.testing.assert_allclose(stranger.anomaly_map(images[4:5]), 0, atol=1e-9)


@pytest.mark.parametrize("max_bank_bytes", [None, 2**14])
@pytest.mark.parametrize("padding_mode", ["mean", "reflect"])
def test_fit_embeds_once_and_finds_the_maxima_of_maps(
    images, monkeypatch, max_bank_bytes, padding_mode
):
    """Whether embeddings are in the bank, held, or computed again."""
    counts, embed = [], PatchSVDD._embed

    def counting(self, network, batch):
        counts.append(len(batch))
        return embed(self, network, batch)

    monkeypatch.setattr(PatchSVDD, "_embed", counting)
    params = {"max_bank_bytes": max_bank_bytes, "padding_mode": padding_mode}
    fitted = make(**params).fit(images)
    assert sum(counts) == len(images)
    counts.clear()
    monkeypatch.setattr("skocc._ops.memory_bank._HELD_BYTES", 0)
    other = make(**params).fit(images)
    assert sum(counts) == len(images) * (1 if max_bank_bytes is None else 2)
    np.testing.assert_array_equal(other.train_map_maxima_, fitted.train_map_maxima_)
    maps, scores = fitted.anomaly_map(images, size="model", return_scores=True)
    np.testing.assert_array_equal(fitted.train_map_maxima_, maps.max(axis=(1, 2)))
    np.testing.assert_array_equal(fitted.train_scores_, scores)
    np.testing.assert_array_equal(fitted.score_samples(images), scores)


def test_copies_of_a_training_image_are_normal(images):
    detector = make().fit(np.concatenate([images, images[:1]]))
    assert detector.train_scores_[0] == detector.train_scores_[-1] == 0
    assert detector.train_scores_[1] < 0


def test_banks_keep_to_the_budget(images, fitted):
    full = fitted.bank_bytes(12, (40, 36))
    assert full == fitted.bank_small_.vectors.nbytes + fitted.bank_big_.vectors.nbytes
    for subsampling in ("random", "coreset"):
        detector = make(max_bank_bytes=full // 10, subsampling=subsampling).fit(images)
        kept = detector.bank_small_.vectors.nbytes + detector.bank_big_.vectors.nbytes
        assert full // 10 - 2 * 256 < kept <= full // 10
        vectors = {tuple(vector) for vector in fitted.bank_small_.vectors}
        assert {tuple(vector) for vector in detector.bank_small_.vectors} <= vectors
        ratio = len(detector.bank_small_) / len(detector.bank_big_)
        assert ratio == pytest.approx(
            len(fitted.bank_small_) / len(fitted.bank_big_), rel=0.1
        )
    assert len(make(max_bank_bytes=None).fit(images).bank_big_) == len(fitted.bank_big_)
    with pytest.raises(ValueError, match=r"Got a limit of 100 bytes.*at least 512"):
        make(max_bank_bytes=100).fit(images)


def test_published_weights_without_training(images, tmp_path):
    encoder = HierarchicalPatchEncoder(patch_size=16)
    path = tmp_path / "encoder.pkl"
    torch.save(encoder.state_dict(), path)
    detector = make(weights=path, n_epochs=0).fit(images)
    for key, value in encoder.state_dict().items():
        assert torch.equal(detector.network_.encoder.state_dict()[key], value)
    assert detector.loss_curve_ == []
    np.testing.assert_allclose(
        detector.network_.normalize[1].mean[0], images.mean(axis=0), atol=1e-6
    )
    with pytest.raises(ValueError, match="does not hold a state dict"):
        make(weights=path, patch_size=32, n_epochs=0).fit(images)


def test_color_is_taken_as_it_is(images):
    color = np.stack([images, images[::-1], 1 - images], axis=3)
    detector = make().fit(color)
    assert detector.network_.encoder.enc.conv1.in_channels == 3
    assert detector.anomaly_map(color[:2]).shape == (2, 40, 36)
    two = make(image_shape=(40, 36, 2)).fit(color[:, :, :, :2])
    assert two.network_.encoder.enc.conv1.in_channels == 2


def test_map_has_the_size_of_the_images(images):
    detector = make(image_size=(20, 24)).fit(images)
    assert detector.image_shape_ == (20, 24, 1)
    maps = detector.anomaly_map(images[:3])
    assert maps.shape == (3, 40, 36)
    assert maps.dtype == np.float32


def test_light_makes_no_difference_to_local_contrast(images):
    light = np.linspace(0, 0.2, 36, dtype=np.float32)
    for normalization, tolerance in [("local_contrast", 0.1), ("mean", None)]:
        detector = make(normalization=normalization, n_epochs=0).fit(images[:8])
        scores = detector.score_samples(images[8:])
        lit = detector.score_samples(0.5 * images[8:] + 0.3 + light)
        if tolerance is None:
            assert np.abs(lit / scores - 1).mean() > 0.1
        else:
            np.testing.assert_allclose(lit, scores, rtol=tolerance)
    # The mean image is that of what the network is given.
    detector = make(normalization="local_contrast").fit(images)
    contrast, center = detector.network_.normalize
    batch = contrast(torch.from_numpy(images)[:, None])
    torch.testing.assert_close(center.mean, batch.mean(dim=0), rtol=0, atol=1e-6)


def test_padding_mode_is_that_of_the_map(images, fitted):
    reflected = make(padding_mode="reflect").fit(images)
    maps, plain = reflected.anomaly_map(images), fitted.anomaly_map(images)
    assert np.abs(maps - plain)[:, :4].max() > 1e-3 * plain.max()
    # Rows 15 to 24 and columns 15 to 20 are covered by as many patches as anywhere.
    np.testing.assert_allclose(maps[:, 15:25, 15:21], plain[:, 15:25, 15:21], rtol=1e-4)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"patch_size": 20}, "patch_size must be a multiple of 8.* Got 20"),
        ({"patch_size": 96}, "or 128, 256 and so on. Got 96"),
        ({"patch_size": 64}, "Patches of 64 pixels do not fit .* side of 40"),
        ({"strides": (4, 16, 1)}, r"strides must be two .* Got \(4, 16, 1\)"),
        ({"strides": (9, 4)}, "stride=9 and patches of 8 pixels"),
        ({"contamination": "auto"}, "'contamination' parameter of PatchSVDD"),
        ({"n_neighbors": 10**6}, "n_neighbors=1000000 needs more .* Got 192"),
    ],
)
def test_what_cannot_be_used_is_said_before_training(images, params, message, monkeypatch):
    monkeypatch.setattr(trained, "train", lambda *args, **kwargs: pytest.fail("trained"))
    with pytest.raises(ValueError, match=message):
        make(**params).fit(images)


@pytest.mark.parametrize(("sampling", "n_pairs"), [("dense", 64), ("patches", 16)])
def test_position_can_be_learned(sampling, n_pairs):
    """A gradient of light tells where a neighbor is; its classes are then predictable."""
    ramp = np.add.outer(np.arange(48), 3 * np.arange(48)) / 200
    images = ramp + np.random.default_rng(0).random((8, 1, 1)) / 10
    detector = make(n_epochs=0, n_pairs=n_pairs, noise=0.001, sampling=sampling).fit(images)
    # What all images have in common would be subtracted.
    detector.network_.normalize[1].mean.zero_()
    detector.set_params(warm_start=True, n_epochs=30).fit(images)
    # Two scales, eight classes: chance is 2 ln 8 = 4.16.
    assert detector.loss_curve_[0] > 3.8
    assert detector.loss_curve_[-1] < 3.3


def test_svdd_weight_draws_close_patches_together(images):
    def spread(svdd_weight):
        detector = make(svdd_weight=svdd_weight, n_epochs=20).fit(images)
        small, _ = embeddings(detector, images)
        return np.linalg.norm(np.diff(small, axis=1), axis=2).mean()

    assert spread(10.0) < 0.7 * spread(0.0)


def test_progress_bars_are_called_by_class_and_stage(images, progress_labels):
    make(verbose=1).fit(images)
    stages = {"mean image", "training", "memory bank", "scores"}
    assert progress_labels == {f"PatchSVDD: {stage}" for stage in stages}


@pytest.mark.data
@pytest.mark.parametrize("name", ["bottle", "wood"])
def test_golden_map_and_score(data_dir, tmp_path, name):
    with np.load(data_dir / f"patch_svdd_{name}.npz") as arrays:
        weights = {key: torch.from_numpy(arrays[key]) for key in arrays}
    torch.save(weights, tmp_path / "encoder.pt")
    golden = np.load(data_dir / "golden" / f"patch_svdd_{name}_io.npz")
    detector = PatchSVDD(
        weights=tmp_path / "encoder.pt", n_epochs=0, max_bank_bytes=None, device="cpu"
    )
    detector.fit(golden["images"][:2])
    np.testing.assert_allclose(
        detector.anomaly_map(golden["images"][2:]), golden["map_mult"], atol=1e-4
    )
    score = detector.score_samples(golden["images"][2:])
    np.testing.assert_allclose(-score, golden["score_mult"].ravel(), atol=1e-4)
    assert detector.bank_small_.vectors.shape == (2 * 17 * 17, 64)


@pytest.mark.parametrize(("side", "warns"), [(16, True), (19, True), (20, False)])
def test_images_that_a_patch_fills_warn(side, warns):
    images = np.random.default_rng(0).random((3, side, 40), dtype=np.float32)
    detector = make(n_neighbors=1)
    if not warns:
        detector.fit(images)
        return
    with pytest.warns(UserWarning, match="side of 1. pixels.*image_size of at least 28"):
        detector.fit(images)
    # Where nothing is trained, positions do not matter.
    make(n_epochs=0).fit(images)


def test_a_bank_of_zeros_has_collapsed():
    images = np.ones((9, 16, 16), np.float32)
    with pytest.warns(CollapseWarning, match="collapsed"):
        quick(PatchSVDD, n_epochs=0).fit(images)


@pytest.mark.parametrize("aggregation", ["sum", "max", "small", "big"])
def test_maps_joined_otherwise(images, fitted, aggregation):
    maps = {
        name: copy.deepcopy(fitted).set_params(aggregation=name).anomaly_map(images[:3])
        for name in ("small", "big", aggregation)
    }
    product = fitted.anomaly_map(images[:3])
    np.testing.assert_allclose(maps["small"] * maps["big"], product, rtol=1e-5, atol=1e-9)
    join = {"sum": np.add, "max": np.maximum}.get(aggregation)
    if join is not None:
        expected = join(maps["small"], maps["big"])
        np.testing.assert_allclose(maps[aggregation], expected, rtol=1e-5, atol=1e-7)
    # Scores of an exact search that leaves patches out are those of the whole maps.
    detector = make(aggregation=aggregation).fit(images[:6])
    found = detector.anomaly_map(images).max(axis=(1, 2))
    np.testing.assert_allclose(detector.score_samples(images), -found, rtol=1e-5)


def test_one_center(images):
    start = make(n_epochs=0).fit(images)
    means = [np.concatenate(z).mean(axis=0) for z in embeddings(start, images)]
    detector = make(objective="svdd", n_epochs=12).fit(images)
    banks = (detector.bank_small_, detector.bank_big_)
    for bank, mean in zip(banks, means, strict=True):
        np.testing.assert_allclose(bank.vectors, mean[None], atol=1e-5)
    # The encoder comes closer to it, and scores are distances to it.
    assert detector.loss_curve_[-1] < 0.5 * detector.loss_curve_[0]
    centers = [bank.vectors for bank in banks]
    expected = by_hand(detector, images[0], centers)
    np.testing.assert_allclose(detector.anomaly_map(images[:1])[0], expected, rtol=1e-4)
    assert not hasattr(make().fit(images).network_, "centers")


def test_one_center_of_further_images_and_from_a_file(images, tmp_path):
    detector = make(objective="svdd", warm_start=True).fit(images[:5])
    center, offset = detector.bank_small_.vectors, detector.offset_
    detector.partial_fit(images[5:])
    assert len(detector.train_scores_) == detector.n_samples_seen_ == len(images)
    np.testing.assert_array_equal(detector.bank_small_.vectors, center)
    assert detector.offset_ != offset
    skocc.save(detector, tmp_path / "a.skocc")
    loaded = skocc.load(tmp_path / "a.skocc")
    np.testing.assert_array_equal(
        loaded.score_samples(images), detector.score_samples(images)
    )
    # It goes on from its center, or without one.
    detector.fit(images[:5])
    np.testing.assert_array_equal(detector.bank_small_.vectors, center)
    detector.set_params(objective="patch").fit(images[:5])
    assert "centers" not in detector.network_
    assert len(detector.bank_small_) > 1
    with pytest.raises(ValueError, match="n_neighbors has no effect: a center"):
        make(objective="svdd", n_neighbors=2).fit(images)


def test_pairs_alone(images):
    detector = make(objective="pairs", n_epochs=8).fit(images)
    assert detector.loss_curve_[-1] < 0.8 * detector.loss_curve_[0]
    start = make(n_epochs=0).fit(images).network_
    for name in ("classify_small", "classify_big"):
        for key, value in start[name].state_dict().items():
            assert torch.equal(detector.network_[name].state_dict()[key], value)
    with pytest.raises(ValueError, match="svdd_weight has no effect"):
        make(objective="pairs", svdd_weight=1.0).fit(images)


def test_big_patches_without_the_hierarchy(images, tmp_path):
    detector = make(hierarchical=False, sampling="patches").fit(images)
    batch = detector.network_.normalize(torch.from_numpy(images)[:, None])
    patch = batch[:1, :, 4:20, 8:24]
    small, big = detector.network_.encoder.enc, detector.network_.encoder.big
    with torch.no_grad():
        z_small, z_big = detector.network_.encoder.dense_scales(batch, 4, 4)
        torch.testing.assert_close(z_big[:1, :, 1, 2], big(patch))
        torch.testing.assert_close(z_small[:1, :, 1, 2], small(patch[..., :8, :8]))
    skocc.save(detector, tmp_path / "a.skocc")
    loaded = skocc.load(tmp_path / "a.skocc")
    np.testing.assert_array_equal(
        loaded.score_samples(images), detector.score_samples(images)
    )
    with pytest.raises(ValueError, match="needs the hierarchical encoder"):
        make(hierarchical=False).fit(images)


def test_own_network_at_both_scales_without_the_hierarchy(images):
    def network():
        return nn.Sequential(nn.Conv2d(1, 5, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())

    params = {"backbone": network, "hierarchical": False, "sampling": "patches"}
    detector = make(**params).fit(images)
    assert detector.bank_big_.vectors.shape[1] == 5
    assert np.isfinite(detector.score_samples(images)).all()


def test_step_size_stays(images):
    rates = {"cosine": [], "constant": []}

    class Recorder(PatchSVDD):
        def make_optimizer(self, *args):
            self.optimizer = super().make_optimizer(*args)
            return self.optimizer

    for schedule, last in rates.items():
        detector = Recorder(**make(n_epochs=3, schedule=schedule).get_params())
        detector.fit(images)
        last.append(detector.optimizer.param_groups[0]["lr"])
    assert rates == {"cosine": [pytest.approx(0.0)], "constant": [1e-3]}


def test_start_of_the_weights(images):
    he, torchs = (
        make(weight_init=start, n_epochs=0).fit(images).bank_small_.vectors.std(axis=0)
        for start in ("he", "torch")
    )
    assert torchs.mean() < 0.3 * he.mean()
