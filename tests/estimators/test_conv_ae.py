import numpy as np
import pytest
import torch

from skocc import ConvAE
from skocc._base import trained
from skocc._ops.scores import similarity_map
from skocc.estimators import _conv_ae as module


@pytest.fixture(scope="module")
def images():
    """Fourteen smooth images (14, 24, 20, 3) that differ from each other."""
    coarse = torch.from_numpy(np.random.default_rng(0).random((14, 3, 6, 5)))
    fine = torch.nn.functional.interpolate(coarse.float(), (24, 20), mode="bilinear")
    return fine.permute(0, 2, 3, 1).contiguous().numpy()


def make(**params):
    small = {"base_channels": 2, "n_augmented": 14, "n_epochs": 2, "batch_size": 5}
    if not params.get("augmentation", True):
        del small["n_augmented"]
    return ConvAE(**(small | {"random_state": 0, "device": "cpu"} | params))


def reconstruct(detector, images):
    batch = torch.from_numpy(images).permute(0, 3, 1, 2)
    with torch.no_grad():
        return detector.network_(batch).permute(0, 2, 3, 1).numpy()


def test_default_network_is_the_published_one(images):
    detector = ConvAE(n_epochs=0, device="cpu").fit(images)
    assert sum(p.numel() for p in detector.network_.parameters()) == 933_443
    assert detector.best_epoch_ is None


def test_score_and_map_by_hand(images):
    detector = make(border=3).fit(images)
    errors = ((reconstruct(detector, images) - images).astype(float) ** 2).mean(axis=3)
    np.testing.assert_allclose(detector.anomaly_map(images), errors, rtol=1e-4, atol=1e-7)
    expected = -errors[:, 3:-3, 3:-3].mean(axis=(1, 2))
    np.testing.assert_allclose(detector.score_samples(images), expected, rtol=1e-5)
    np.testing.assert_array_equal(detector.train_scores_, detector.score_samples(images))


def test_ssim_score_and_map_by_hand(images):
    detector = make(reconstruction_metric="ssim", border=2).fit(images)
    batch, reconstruction = (
        torch.from_numpy(x).permute(0, 3, 1, 2)
        for x in (images, reconstruct(detector, images))
    )
    errors = 1 - similarity_map(reconstruction, batch).numpy()
    maps = detector.anomaly_map(images)
    assert maps.shape == (14, 24, 20)
    np.testing.assert_allclose(maps[:, 5:-5, 5:-5], errors, atol=1e-5)
    np.testing.assert_array_equal(maps[:, 0, 7:9], maps[:, 5, 7:9])
    np.testing.assert_array_equal(maps[:, 3, 0], maps[:, 5, 5])
    # Windows inside the border.
    expected = -errors[:, 2:-2, 2:-2].mean(axis=(1, 2))
    np.testing.assert_allclose(detector.score_samples(images), expected, atol=1e-5)
    # The same measure is what training minimizes.
    assert detector.validation_loss_curve_[detector.best_epoch_] == pytest.approx(
        -np.average(
            expected,
            weights=np.repeat([1 / 15, 1 / 12], [10, 4]),  # batches of 5, 5 and 4 images
        ),
        rel=1e-3,
    )


@pytest.mark.parametrize(
    ("size", "borders"), [((224, 300), (4, 4)), ((8, 31), (1, 3)), ((1, 64), (0, 4))]
)
def test_default_border_by_size(size, borders):
    detector = make()
    detector.image_shape_ = (*size, 3)
    assert detector._borders() == borders


def test_pixels_of_the_border_are_not_in_the_loss(images, monkeypatch):
    detector = make(border=3, n_epochs=0).fit(images)
    # Whatever the network says, the same for both images.
    monkeypatch.setattr(
        detector.network_, "decode", lambda codes, size: torch.zeros(2, 3, *size)
    )
    framed = images[:2].copy()
    framed[1] = framed[0]
    framed[1, :3], framed[1, :, -3:] = 0.123, 0.9
    scores = detector.score_samples(framed)
    assert scores[0] == scores[1]
    framed[1, 3, 3] = 0.123
    assert np.diff(detector.score_samples(framed)) != 0


def test_perfect_reconstruction_scores_zero(images, monkeypatch):
    detector = make(n_epochs=0).fit(images)
    batch = torch.from_numpy(images).permute(0, 3, 1, 2)
    monkeypatch.setattr(detector.network_, "decode", lambda codes, size: batch)
    detector.set_params(batch_size=20)
    np.testing.assert_array_equal(detector.score_samples(images), 0)


def test_trains_on_variants_and_stops_by_the_images_themselves(images, monkeypatch):
    seen = {True: [], False: []}
    original = module.ConvAutoencoder.forward

    def forward(self, batch):
        seen[self.training].append(batch.clone())
        return original(self, batch)

    monkeypatch.setattr(module.ConvAutoencoder, "forward", forward)
    make(n_epochs=1, n_augmented=40).fit(images)
    trained, validated = torch.cat(seen[True]), torch.cat(seen[False])
    assert len(trained) == 3 * 14  # the number of passes that comes closest to 40
    np.testing.assert_array_equal(validated.permute(0, 2, 3, 1), images)
    known = {image.numpy().tobytes() for image in validated}
    assert (
        np.mean([image.contiguous().numpy().tobytes() in known for image in trained]) < 0.3
    )
    seen[True].clear()
    make(n_epochs=1, augmentation=False).fit(images)
    trained = torch.cat(seen[True])
    assert {image.contiguous().numpy().tobytes() for image in trained} == known


def test_rotations_can_be_left_out(images, monkeypatch):
    calls = []
    monkeypatch.setattr(
        module, "random_variants", lambda *args: calls.append(args) or (lambda batch: batch)
    )
    make(n_epochs=0).fit(images)
    make(n_epochs=0, rotations=False).fit(images)
    make(n_epochs=0, augmentation=False).fit(images)
    assert calls == [((24, 20), True), ((24, 20), False)]


def test_early_stopping_keeps_the_best_epoch(images):
    # With steps this long the error goes up and down.
    detector = make(n_epochs=60, learning_rate=0.1, n_iter_no_change=2).fit(images)
    curve = detector.validation_loss_curve_
    assert detector.best_epoch_ == int(np.argmin(curve))
    assert len(curve) == len(detector.loss_curve_) == detector.best_epoch_ + 3 < 60
    # A mean over images, the last batch being smaller.
    assert -detector.train_scores_.mean() == pytest.approx(min(curve), rel=1e-4)


def test_augmented_fits_are_reproducible_and_leave_the_random_state(images):
    state = torch.get_rng_state()
    first, second = (make().fit(images).score_samples(images) for _ in range(2))
    np.testing.assert_array_equal(first, second)
    assert torch.equal(torch.get_rng_state(), state)


def test_gray_is_repeated_and_other_channels_stay(images):
    gray = images[:, :, :, 0]
    color = make().fit(np.repeat(gray[..., None], 3, axis=3))
    np.testing.assert_allclose(
        make().fit(gray).score_samples(gray), color.train_scores_, rtol=1e-4
    )
    two = make(image_shape=(24, 20, 2)).fit(images[..., :2])
    assert two.network_.output.out_channels == 2
    assert two.anomaly_map(images[:3, :, :, :2]).shape == (3, 24, 20)


def test_map_has_the_size_of_the_images(images):
    detector = make(image_size=(17, 13)).fit(images)
    assert detector.image_shape_ == (17, 13, 3)
    assert detector.anomaly_map(images[:2]).shape == (2, 24, 20)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"border": 10}, r"needs 1 pixel.*Got images of 24 x 20 .* borders of \(10, 10\)"),
        (
            {"reconstruction_metric": "ssim", "border": 5},
            r"'ssim' needs 11 pixel.*Set a smaller border",
        ),
        ({"contamination": "auto"}, "'contamination' parameter of ConvAE"),
    ],
)
def test_what_cannot_be_used_is_said_before_training(images, params, message, monkeypatch):
    monkeypatch.setattr(trained, "train", lambda *args, **kwargs: pytest.fail("trained"))
    with pytest.raises(ValueError, match=message):
        make(**params).fit(images)


def test_interrupted_and_resumed_equals_unbroken(images, tmp_path, monkeypatch):
    whole = make(n_epochs=5).fit(images)
    step, n_steps = torch.optim.Adam.step, 0

    def killed(self, *args, **kwargs):
        nonlocal n_steps
        n_steps += 1
        if n_steps == 8:  # in the middle of the third epoch of three batches
            raise RuntimeError("power cut")
        return step(self, *args, **kwargs)

    resumable = make(n_epochs=5, checkpoint_dir=tmp_path / "run")
    with monkeypatch.context() as patch:
        patch.setattr(torch.optim.Adam, "step", killed)
        with pytest.raises(RuntimeError, match="power cut"):
            resumable.fit(images)
    assert [file.name for file in (tmp_path / "run").iterdir()] == ["conv_ae.pt"]
    resumable.fit(images)
    assert resumable.loss_curve_ == whole.loss_curve_
    assert resumable.validation_loss_curve_ == whole.validation_loss_curve_
    for key, value in whole.network_.state_dict().items():
        assert torch.equal(resumable.network_.state_dict()[key], value), key
    np.testing.assert_array_equal(resumable.train_scores_, whole.train_scores_)
    # More epochs may be asked for.
    longer = make(n_epochs=6, checkpoint_dir=tmp_path / "run").fit(images)
    assert longer.loss_curve_ == make(n_epochs=6).fit(images).loss_curve_


def test_state_of_another_fit_is_an_error(images, tmp_path):
    make(checkpoint_dir=tmp_path).fit(images)
    with pytest.raises(ValueError, match=r"learning_rate=0.001 in the file, 0.01 here"):
        make(checkpoint_dir=tmp_path, learning_rate=0.01).fit(images)
    with pytest.raises(ValueError, match=r"another training: images='\w+' in the file"):
        make(checkpoint_dir=tmp_path).fit(images[::-1])
    with pytest.raises(ValueError, match="image_shape_="):
        make(checkpoint_dir=tmp_path, image_size=16).fit(images)
    other = make(checkpoint_dir=tmp_path, random_state=np.random.RandomState(0))
    with pytest.raises(ValueError, match="random_state=0 in the file, 'RandomState' here"):
        other.fit(images)
    # What does not change the training may differ.
    make(checkpoint_dir=str(tmp_path), contamination=0.2, verbose=0).fit(images)
    warm = make(warm_start=True).fit(images)
    with pytest.raises(ValueError, match=r"Got both.*checkpoint_dir=None"):
        warm.set_params(checkpoint_dir=tmp_path).fit(images)
