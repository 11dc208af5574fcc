"""Heat maps of photographs of several sizes, by every detector that has them."""

import io

import numpy as np
import pytest
import torch
from PIL import Image

from skocc import MOCCA, ConvAE, FeatureCAE, PatchSVDD, ResNetKNN
from skocc._base.maps import AnomalyMapMixin, map_maxima
from skocc._base.thresholds import highest_value
from skocc._samples.sources import resize_array
from skocc.base import BaseDetector, ImageBatches, Scores
from skocc.metrics import aupro, pixel_auroc
from tests.quick import quick

SIZES = [(48, 40), (32, 56), (70, 33)]
CASES = {
    "ConvAE": lambda: quick(ConvAE, image_size=32),
    "ConvAE-ssim": lambda: quick(ConvAE, image_size=32, reconstruction_metric="ssim"),
    "FeatureCAE": lambda: quick(FeatureCAE, image_size=32),
    "MOCCA": lambda: quick(MOCCA, image_size=(32, 40), patch_size=16),
    "PatchSVDD": lambda: quick(PatchSVDD, image_size=32),
    "ResNetKNN": lambda: quick(ResNetKNN, image_size=32, smoothing=2),
    "ResNetKNN-reweighting": lambda: quick(ResNetKNN, image_size=32, reweighting=3),
}


@pytest.fixture(scope="module")
def photographs(tmp_path_factory):
    """Nine files of three sizes, the last three with a spot and a mask in a file."""
    folder, rng = tmp_path_factory.mktemp("photographs"), np.random.default_rng(0)
    paths, masks = [], []
    for index in range(9):
        height, width = SIZES[index % 3]
        image = 120 + 40 * np.sin(np.arange(width) / 3) + rng.normal(0, 4, (height, width))
        masks.append(None)
        if index >= 6:
            image[8:18, 10:22] = 250
            mask = np.zeros((height, width), dtype=np.uint8)
            mask[8:18, 10:22] = 255
            masks[-1] = folder / f"{index}_mask.png"
            Image.fromarray(mask).save(masks[-1])
        paths.append(folder / f"{index}.png")
        Image.fromarray(image.clip(0, 255).astype(np.uint8)).save(paths[-1])
    return paths, masks


def opened(path):
    with Image.open(path) as image:
        return image.copy()


@pytest.fixture(scope="module", params=CASES)
def fitted(request, photographs):
    return CASES[request.param]().fit(photographs[0][:6])


def test_each_map_has_the_size_of_its_photograph(fitted, photographs):
    paths, _ = photographs
    maps = fitted.anomaly_map(paths)
    assert [heat.shape for heat in maps] == SIZES * 3
    for path, heat in zip(paths, maps, strict=True):
        (alone,) = fitted.anomaly_map([path])
        assert alone.dtype == heat.dtype == np.float32
        np.testing.assert_allclose(alone, heat, rtol=1e-4, atol=1e-5)
    same = fitted.anomaly_map(paths[::3])
    assert isinstance(same, np.ndarray)
    assert same.shape == (3, *SIZES[0])


def test_sizes_of_maps(fitted, photographs):
    paths, _ = photographs
    model = fitted.anomaly_map(paths, size="model")
    assert model.shape == (9, *fitted.image_shape_[:2])
    assert model.dtype == np.float32
    for size in [(20, 31), [20, 31], 24]:
        height, width = (size, size) if size == 24 else size
        maps = fitted.anomaly_map(paths[:4], size=size)
        assert maps.shape == (4, height, width)
        expected = resize_array(np.moveaxis(model[:4], 0, -1), (height, width))
        np.testing.assert_allclose(maps, np.moveaxis(expected, -1, 0), rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(fitted.anomaly_map(paths, size=model.shape[1:]), model)


def test_masks_of_photographs_of_several_sizes(fitted, photographs):
    paths, _ = photographs
    maps, masks = fitted.anomaly_map(paths), fitted.anomaly_mask(paths)
    assert isinstance(masks, list)
    for heat, mask in zip(maps, masks, strict=True):
        assert mask.dtype == bool
        np.testing.assert_array_equal(mask, heat > fitted.pixel_threshold_)
    assert fitted.anomaly_mask(paths[::3]).shape == (3, *SIZES[0])
    assert fitted.anomaly_mask(paths, size=20).shape == (9, 20, 20)
    # No size has marked pixels in more training images than the size of the model.
    n_marked = [
        sum(mask.any() for mask in fitted.anomaly_mask(paths[:6], size=size))
        for size in ("model", "input", 20, 100)
    ]
    # Contamination is 0.1, of six images. Two may be the nearest of each other, and tie.
    assert max(n_marked) == n_marked[0] <= 1
    assert n_marked[0] == np.sum(fitted.train_map_maxima_ > fitted.pixel_threshold_)


def test_scores_from_the_same_pass(fitted, photographs):
    paths, _ = photographs
    maps, scores = fitted.anomaly_map(paths, return_scores=True)
    np.testing.assert_array_equal(scores, fitted.score_samples(paths))
    assert scores.dtype == np.float64
    for heat, expected in zip(maps, fitted.anomaly_map(paths), strict=True):
        np.testing.assert_array_equal(heat, expected)


@pytest.mark.parametrize("size", ["output", 0, (4,), (4, -1), (4.0, 4.0), None, 1.5])
def test_sizes_that_are_refused(photographs, size):
    detector = CASES["ResNetKNN"]().fit(photographs[0][:6])
    with pytest.raises(ValueError, match=r'size must be "input".*Got .*Pass for example'):
        detector.anomaly_map(photographs[0], size=size)


def test_images_are_read_once(photographs):
    """A data set counts how often its items are read; their sizes are known afterwards."""

    class Counting(torch.utils.data.Dataset):
        n_read = 0

        def __len__(self):
            return 9

        def __getitem__(self, index):
            Counting.n_read += 1
            return opened(photographs[0][index])

    detector = CASES["ConvAE"]().fit(photographs[0][:6])
    maps, _ = detector.anomaly_map(Counting(), return_scores=True)
    assert Counting.n_read == 9 + 1  # the first item says how many channels there are
    assert [heat.shape for heat in maps] == SIZES * 3


def test_all_kinds_of_input_have_the_same_maps(photographs):
    detector, (paths, _) = CASES["ResNetKNN"]().fit(photographs[0][:6]), photographs
    arrays = [np.array(opened(path)) for path in paths]
    expected = detector.anomaly_map(paths)
    for X in [
        [opened(path) for path in paths],
        [path.read_bytes() for path in paths],
        [io.BytesIO(path.read_bytes()) for path in paths],
        arrays,
        [torch.from_numpy(array)[None] for array in arrays],
    ]:
        for heat, other in zip(detector.anomaly_map(X), expected, strict=True):
            np.testing.assert_allclose(heat, other, rtol=1e-3, atol=1e-3)
    stack = np.stack(arrays[::3])
    np.testing.assert_allclose(
        detector.anomaly_map(stack), np.stack(expected[::3]), rtol=1e-3, atol=1e-3
    )


def test_orientation_is_that_of_the_viewer(tmp_path, photographs):
    detector = CASES["ResNetKNN"]().fit(photographs[0][:6])
    image = opened(photographs[0][6])
    exif = Image.Exif()
    exif[0x0112] = 6
    image.save(tmp_path / "turned.png", exif=exif)
    (heat,) = detector.anomaly_map([tmp_path / "turned.png"])
    assert heat.shape == (SIZES[0][1], SIZES[0][0])


def test_area_under_the_overlap_of_a_folder_of_three_sizes(photographs):
    """One line each: maps, and AUPRO by the masks in files. A spot is found at any size."""
    paths, masks = photographs
    detector = quick(ResNetKNN, image_size=32).fit(paths[:6])
    maps = detector.anomaly_map(paths)
    area = aupro(masks, maps)
    # Measured: 0.995 with two kinds of kernels. Chance is 0.15.
    assert area > 0.9
    read = [None if mask is None else np.array(opened(mask)) for mask in masks]
    assert area == aupro(read, iter(maps))
    assert pixel_auroc(masks, maps) == pixel_auroc(read, maps) > 0.9


def test_maxima_leave_the_image_itself_out(photographs):
    """Those of the map that a bank of the other images gives."""
    paths, whole_bank = photographs[0][:6], {"max_bank_bytes": None, "image_size": 32}
    fitted = quick(ResNetKNN, smoothing=1, **whole_bank).fit(paths)
    for index, maximum in enumerate(fitted.train_map_maxima_):
        others = [path for path in paths if path != paths[index]]
        rest = quick(ResNetKNN, smoothing=1, **whole_bank).fit(others)
        (heat,) = rest.anomaly_map([paths[index]], size="model")
        assert heat.max() == pytest.approx(maximum, rel=1e-4)


def test_maximum_is_the_score_where_it_is_in_the_source(photographs):
    fitted = CASES["PatchSVDD"]().fit(photographs[0][:6])
    np.testing.assert_allclose(fitted.train_map_maxima_, -fitted.train_scores_, rtol=1e-6)
    assert fitted.pixel_threshold_ == pytest.approx(-fitted.offset_, rel=1e-6)


def test_automatic_thresholds_of_maps_are_those_of_the_sources(photographs):
    paths = photographs[0][:6]
    for estimator_class, n_deviations in [(FeatureCAE, 3), (ResNetKNN, 2)]:
        fitted = quick(estimator_class, image_size=32, contamination="auto").fit(paths)
        maxima = fitted.train_map_maxima_
        expected = maxima.mean() + n_deviations * maxima.std()
        assert fitted.pixel_threshold_ == pytest.approx(expected)
    fitted = CASES["MOCCA"]().set_params(contamination="auto").fit(paths)
    assert fitted.pixel_threshold_ == 0  # the spheres
    fitted.set_params(boundary="hard", warm_up_n_epochs=10).fit(paths)
    expected = np.mean(fitted.radii_**2)
    assert fitted.pixel_threshold_ == pytest.approx(expected)


def test_a_fit_without_maps_forgets_their_threshold(photographs):
    fitted = CASES["MOCCA"]().fit(photographs[0][:6])
    assert fitted.pixel_threshold_ > -np.inf
    fitted.set_params(patch_size=None).fit(photographs[0][:6])
    assert not {"pixel_threshold_", "train_map_maxima_"} & vars(fitted).keys()
    for name in ("pixel_threshold_", "anomaly_map", "anomaly_mask"):
        assert not hasattr(fitted, name)
    with pytest.raises(AttributeError, match=r"needs patches. Got patch_size=None. Set"):
        fitted.pixel_threshold_  # noqa: B018


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 3.0])
def test_maxima_are_finite(value):
    maps = torch.full((1, 2, 2), -np.inf)
    maps[0, 1, 0] = value
    (maximum,) = map_maxima(maps).numpy()
    largest = np.finfo(np.float32).max
    expected = {"nan": largest, "inf": largest, "-inf": -largest}.get(str(value), value)
    assert maximum == highest_value(maps[0].numpy()) == expected


def test_nan_is_marked(photographs, monkeypatch):
    fitted = CASES["ConvAE"]().fit(photographs[0][:6])
    maps = np.zeros((2, 32, 32), np.float32)
    maps[1, 3, 4] = np.nan
    monkeypatch.setattr(fitted, "_maps_and_scores", lambda *_: (maps, np.zeros(2)))
    masks = fitted.anomaly_mask(photographs[0][:2], size="model", threshold=1)
    np.testing.assert_array_equal(masks, np.isnan(maps))


class Brightness(AnomalyMapMixin, BaseDetector):
    """A method of somebody else: a map is the image. It keeps no maxima in `_fit`."""

    def _fit(self, images, run):
        self.n_fits_ = 1

    def _score(self, images, device):
        return Scores(self._maps_and_scores(images, device, lambda maps: maps)[1])

    def _maps_and_scores(self, images, device, of_maps):
        batches = list(ImageBatches(images, self.batch_size, device=device))
        kept = np.concatenate([of_maps(batch.mean(dim=1)).numpy() for batch in batches])
        scores = [-batch.mean(dim=(1, 2, 3)).numpy() for batch in batches]
        return kept, np.concatenate(scores)


def test_a_method_of_ones_own_has_a_threshold_for_nothing():
    images = np.random.default_rng(0).random((20, 8, 8), dtype=np.float32)
    fitted = Brightness(batch_size=3, contamination=0.5).fit(images)
    np.testing.assert_array_equal(fitted.train_map_maxima_, images.max(axis=(1, 2)))
    assert fitted.anomaly_mask(images).any(axis=(1, 2)).sum() == 10


def test_a_subclass_that_scores_otherwise_has_the_maxima_of_its_maps(photographs):
    class Other(ConvAE):
        def _score(self, images, device):
            return Scores(np.arange(len(images), dtype=float))

    paths = photographs[0][:6]
    tests = {"image_size": 32, "n_epochs": 1, "base_channels": 2, "augmentation": False}
    fitted = Other(**tests, device="cpu", random_state=0).fit(paths)
    np.testing.assert_array_equal(fitted.train_scores_, np.arange(6))
    expected = fitted.anomaly_map(paths, size="model").max(axis=(1, 2))
    np.testing.assert_allclose(fitted.train_map_maxima_, expected, rtol=1e-5)
