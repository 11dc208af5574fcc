"""Heat maps of photographs of several sizes, by every detector that has them."""

import io

import numpy as np
import pytest
import torch
from PIL import Image

from skocc import MOCCA, ConvAE, FeatureCAE, PatchSVDD, ResNetKNN
from skocc._samples.sources import resize_array
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
