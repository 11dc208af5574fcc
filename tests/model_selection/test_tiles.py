import json
import pickle
from functools import partial

import numpy as np
import pandas as pd
import pytest
import safetensors.numpy
import torch
from numpydoc.docscrape import ClassDoc
from PIL import Image
from scipy import ndimage
from sklearn.base import BaseEstimator, clone
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.svm import OneClassSVM
from sklearn.utils import get_tags
from sklearn.utils.estimator_checks import check_estimator

import skocc
from skocc import ConvAE, DeepSVDD, PatchSVDD, ResNetKNN
from skocc._samples import sources, tiles
from skocc._samples.validation import read_images
from skocc.feature_extraction import Pixels
from skocc.model_selection import (
    DetectorEnsemble,
    NormalOnly,
    OneClassSplit,
    ThresholdTuner,
    TiledDetector,
)
from skocc.model_selection._stitching import normalized_ramps, ramp
from skocc.model_selection._tiles import _read_again
from tests.quick import quick

TILE = 8


class Brightness(BaseEstimator):
    """A detector whose map is the brightness, tinted by the place within the tile."""

    def __init__(self, intensity_range=None):
        self.intensity_range = intensity_range

    def fit(self, X, y=None):
        self.n_read_ = len(read_images(X, intensity_range=self.intensity_range))
        return self

    def score_samples(self, X):
        return -self.anomaly_map(X).max(axis=(1, 2)).astype(float)

    def anomaly_map(self, X, return_scores=False):
        images = read_images(X, intensity_range=self.intensity_range)
        pixels = images.load(slice(0, len(images)))[:, :, :, 0].astype(np.float32)
        rows, columns = np.indices(pixels.shape[1:])
        maps = pixels * (1 + 0.1 * rows + 0.03 * columns).astype(np.float32)
        return (maps, -maps.max(axis=(1, 2)).astype(float)) if return_scores else maps

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.string = True
        return tags


def surfaces(n_images=6, size=(20, 27), seed=0):
    """Return smooth random photographs (n, H, W), uint8."""
    noise = np.random.default_rng(seed).normal(size=(n_images, *size))
    smooth = ndimage.gaussian_filter(noise, (0, 1, 1))
    return (128 + 200 * smooth).clip(0, 255).astype(np.uint8)


def knn(**params):
    return quick(ResNetKNN, max_bank_bytes=2**30, **params)


def tiled(detector=None, **params):
    return TiledDetector(detector or knn(), **({"tile_size": TILE} | params))


def starts_of(size, tile, stride):
    """Return where tiles begin, found the slow way."""
    starts = [0]
    while starts[-1] + tile < size:
        starts.append(min(starts[-1] + stride, size - tile))
    return starts


def cut(image, tile=(TILE, TILE), stride=(6, 6)):
    """Return the tiles of a photograph, and where they begin."""
    places = [
        (row, column)
        for row in starts_of(image.shape[0], tile[0], stride[0])
        for column in starts_of(image.shape[1], tile[1], stride[1])
    ]
    return np.stack([image[r : r + tile[0], c : c + tile[1]] for r, c in places]), places


def stitch_by_hand(maps, places, size, overlap):
    """Return the weighted mean of maps, a pixel at a time."""
    total, weight = np.zeros(size), np.zeros(size)
    for heat, (top, left) in zip(maps, places, strict=True):
        height, width = heat.shape
        for i in range(height):
            for j in range(width):
                w = 1.0
                for k, side, o in ((i, height, overlap[0]), (j, width, overlap[1])):
                    if o:
                        w *= min(1, (k + 0.5) / o, (side - k - 0.5) / o)
                total[top + i, left + j] += w * heat[i, j]
                weight[top + i, left + j] += w
    return total / weight


# Where tiles lie, and how their maps are stitched


@pytest.mark.parametrize(("size", "overlap"), [(8, 0), (8, 2), (7, 5), (5, 4), (1, 0)])
def test_weights_are_positive_symmetric_and_sum_to_one(size, overlap):
    weights = ramp(size, overlap)
    assert weights.min() > 0
    assert weights.max() <= 1
    np.testing.assert_array_equal(weights, weights[::-1])
    starts = starts_of(23, size, size - overlap)
    total = np.zeros(23)
    for start, part in zip(starts, normalized_ramps(starts, size, overlap), strict=True):
        total[start : start + size] += part
    np.testing.assert_allclose(total, 1, rtol=1e-6)


@pytest.mark.parametrize(
    ("tile_size", "overlap", "pixels"),
    [
        (8, 0.25, (2, 2)),
        (8, 0, (0, 0)),
        ((5, 9), 0.5, (2, 4)),
        ((20, 6), 0.7, (14, 4)),
        ((20, 27), 0.25, (5, 7)),
    ],
)
def test_maps_are_stitched_as_by_hand(tile_size, overlap, pixels):
    images = surfaces(3)
    sides = (tile_size,) * 2 if isinstance(tile_size, int) else tile_size
    stride = tuple(side - width for side, width in zip(sides, pixels, strict=True))
    detector = TiledDetector(Brightness(), tile_size=tile_size, overlap=overlap)
    detector.fit(images)
    maps, scores = detector.anomaly_map(images, return_scores=True)
    assert maps.dtype == np.float32
    for image, heat, score in zip(images, maps, scores, strict=True):
        parts, places = cut(image, sides, stride)
        expected = Brightness().anomaly_map(parts)
        by_hand = stitch_by_hand(expected, places, image.shape, pixels)
        np.testing.assert_allclose(heat, by_hand, rtol=1e-5)
        assert score == -expected.max()
    assert detector.detector_.n_read_ == 3 * len(places)
    np.testing.assert_array_equal(detector.score_samples(images), scores)
    np.testing.assert_allclose(detector.train_map_maxima_, maps.max(axis=(1, 2)))


def test_a_detector_of_skocc_is_given_the_tiles(monkeypatch):
    images = surfaces()
    detector = tiled().fit(images)
    monkeypatch.setattr("skocc.model_selection._tiles._MAP_BYTES", 5 * 4 * TILE * TILE)
    maps, scores = detector.anomaly_map(images[3:], return_scores=True)
    for image, heat, score in zip(images[3:], maps, scores, strict=True):
        parts, places = cut(image)
        expected, of_tiles = detector.detector_.anomaly_map(parts, return_scores=True)
        by_hand = stitch_by_hand(expected, places, image.shape, (2, 2))
        np.testing.assert_allclose(heat, by_hand, rtol=1e-4)
        assert score == pytest.approx(of_tiles.min(), rel=1e-5)
    assert detector.n_features_in_ == 20 * 27
    assert detector.image_shape_ == (-1, -1, 1)
    assert detector.detector_.image_shape_ == (TILE, TILE, 1)
    assert not detector.collapsed_


def test_tiles_at_any_indices():
    images = surfaces(5, (14, 9))
    photographs = read_images(images)
    X = tiles.Tiles(photographs, None, None, (8, 4), (5, 3))
    expected = np.concatenate([cut(image, (8, 4), (5, 3))[0] for image in images])
    source = X.as_source(None, None, None)
    assert source.shape == (len(expected), 8, 4, 1) == (len(X), 8, 4, 1)
    order = np.random.default_rng(0).permutation(len(expected))
    for indices in (slice(3, 11), order, order[:1]):
        np.testing.assert_array_equal(source.load(indices)[..., 0], expected[indices])
    part = X.take(order[4:9])
    np.testing.assert_array_equal(
        part.as_source(None, None, None).load(slice(1, 4))[..., 0], expected[order[5:8]]
    )
    np.testing.assert_array_equal(part.groups, order[4:9] // (len(expected) // 5))
    # In another process they are read anew.
    read = partial(_read_again, partial(read_images, images), is_fit=True)
    sent = pickle.loads(pickle.dumps(tiles.Tiles(photographs, read, None, (8, 4), (5, 3))))
    np.testing.assert_array_equal(
        read_images(sent.take(order[:5])).load(slice(0, 5))[..., 0], expected[order[:5]]
    )
    resized = read_images(part, image_size=(4, 6))
    assert resized.load(slice(0, 2)).shape == (2, 4, 6, 1)
    assert resized.original_sizes() == [(8, 4)] * 5


# What X may be


def test_kinds_of_photographs_agree(tmp_path):
    images = surfaces()
    paths = [tmp_path / f"{index}.png" for index in range(len(images))]
    for path, image in zip(paths, images, strict=True):
        Image.fromarray(image).save(path)
    expected = tiled().fit(images)
    scores = expected.score_samples(images)

    class Photographs(torch.utils.data.Dataset):
        def __len__(self):
            return len(images)

        def __getitem__(self, index):
            return torch.from_numpy(images[index])[None], 0

    for X in [
        paths,
        pd.Series(paths),
        [Image.fromarray(image) for image in images],
        torch.from_numpy(images[:, None]),
        list(images),
        Photographs(),
        images[..., np.newaxis],
    ]:
        detector = tiled().fit(X)
        np.testing.assert_array_equal(detector.train_scores_, expected.train_scores_)
        np.testing.assert_array_equal(detector.score_samples(X), scores)
    rows = tiled(image_shape=(20, -1)).fit(images.reshape(6, -1))
    np.testing.assert_array_equal(rows.train_scores_, expected.train_scores_)
    with pytest.raises(ValueError, match="540"):
        rows.score_samples(images[:, :, :20].reshape(6, -1))
    table = pd.DataFrame(images.reshape(6, -1)).add_prefix("p")
    assert tiled(image_shape=(20, 27)).fit(table).feature_names_in_[3] == "p3"


def test_photographs_of_several_sizes():
    sizes = [(20, 27), (8, 30), (14, 14), (20, 27), (33, 9)]
    images = [surfaces(1, size, seed)[0] for seed, size in enumerate(sizes)]
    detector = tiled().fit(images)
    assert not hasattr(detector, "n_features_in_")
    maps, scores = detector.anomaly_map(images, return_scores=True)
    assert [heat.shape for heat in maps] == sizes
    np.testing.assert_allclose(scores, detector.train_scores_, rtol=1e-5)
    masks = detector.anomaly_mask(images, threshold=float(np.median(maps[0])))
    for mask, heat in zip(masks, maps, strict=True):
        np.testing.assert_array_equal(mask, heat > np.median(maps[0]))
    assert detector.anomaly_map(images, size=(4, 5)).shape == (5, 4, 5)
    assert detector.anomaly_map(images[:1], size="model").shape == (1, 20, 27)
    # Later photographs may have any size.
    assert detector.score_samples(surfaces(2, (50, 60))).shape == (2,)


def test_orientation_depth_and_range(tmp_path):
    images = surfaces(4, (12, 20))
    turned = Image.Exif()
    turned[0x0112] = 6  # to be rotated by 90 degrees, clockwise
    paths = [tmp_path / f"{index}.png" for index in range(4)]
    for path, image in zip(paths, images, strict=True):
        Image.fromarray(np.rot90(image).copy()).save(path, exif=turned)
    expected = tiled().fit(images)
    np.testing.assert_array_equal(tiled().fit(paths).train_scores_, expected.train_scores_)
    deep = images.astype(np.uint16) * 16
    detector = tiled(knn(intensity_range=(0, 16 * 255))).fit(deep)
    np.testing.assert_allclose(detector.train_scores_, expected.train_scores_, rtol=1e-4)
    with pytest.warns(UserWarning, match=r"values from .*intensity_range") as seen:
        tiled().fit(deep)
    assert len(seen) == 1
    for path, image in zip(paths, deep, strict=True):
        Image.fromarray(image).save(path)
    both = DetectorEnsemble(
        [("a", knn(intensity_range=[0, 4080])), ("b", knn(intensity_range=(0, 9000)))]
    )
    parts = tiled(both).fit(paths).detector_.part_train_scores_
    of_tiles = detector.detector_.train_scores_
    np.testing.assert_allclose(parts[:, 0], of_tiles, rtol=1e-4)
    assert not np.allclose(parts[:, 1], of_tiles)


def test_colors():
    images = np.stack([surfaces(4), surfaces(4, seed=1), surfaces(4, seed=2)], axis=-1)
    detector = tiled().fit(images)
    assert detector.anomaly_map(images[:1]).shape == (1, 20, 27)
    with pytest.raises(ValueError, match=r"shape \(20, 27, 1\).*Pass X in the shape"):
        detector.score_samples(surfaces())


def test_resized_tiles_have_maps_of_their_own_size():
    images = surfaces()
    detector = tiled(knn(image_size=16)).fit(images)
    assert detector.detector_.image_shape_ == (16, 16, 1)
    assert detector.anomaly_map(images).shape == images.shape
    parts, places = cut(images[0])
    expected = detector.detector_.anomaly_map(parts)
    by_hand = stitch_by_hand(expected, places, images[0].shape, (2, 2))
    np.testing.assert_allclose(detector.anomaly_map(images[:1])[0], by_hand, rtol=1e-4)


def test_scores_do_not_depend_on_batch_order_or_company():
    images = surfaces(8)
    detector = tiled(quick(ConvAE)).fit(images[:4])
    maps, scores = detector.anomaly_map(images, return_scores=True)
    order = np.random.default_rng(0).permutation(8)
    np.testing.assert_allclose(detector.score_samples(images[order]), scores[order], 1e-5)
    detector.set_params(detector__batch_size=3)
    detector.detector_.set_params(batch_size=3)
    again, scores_again = detector.anomaly_map(images[:1], return_scores=True)
    np.testing.assert_allclose(again[0], maps[0], rtol=1e-4, atol=1e-7)
    np.testing.assert_allclose(scores_again, scores[:1], rtol=1e-5)


def test_fits_are_reproducible():
    images = surfaces()
    for detector in (knn(), quick(ConvAE)):
        first, second = (tiled(detector).fit(images) for _ in range(2))
        np.testing.assert_array_equal(first.train_scores_, second.train_scores_)
        np.testing.assert_array_equal(first.train_map_maxima_, second.train_map_maxima_)


# Files are decoded once a pass, and few photographs are in memory


@pytest.fixture
def decoded(monkeypatch):
    """Return a list to which the index of each decoded file is added."""
    indices, decode = [], sources._decode

    def counted(item, index, *arguments):
        indices.append(int(item.stem))
        return decode(item, index, *arguments)

    monkeypatch.setattr(sources, "_decode", counted)
    return indices


@pytest.fixture
def paths(tmp_path):
    paths = [tmp_path / f"{index}.png" for index in range(8)]
    for path, image in zip(paths, surfaces(8), strict=True):
        Image.fromarray(image).save(path)
    return paths


@pytest.mark.parametrize("batch_size", [5, 50])
def test_files_are_decoded_once_a_pass(batch_size, paths, decoded, monkeypatch):
    monkeypatch.setattr(tiles, "_KEPT_BYTES", 0)  # three photographs, no more
    detector = tiled(knn(batch_size=batch_size), max_cache_bytes=0).fit(paths)
    # For the bank, which keeps all features for the scores; and for the maps, unless the
    # first pass has left some.
    counts = [decoded.count(number) for number in range(8)]
    assert max(counts) == 2
    assert min(counts) >= 1
    for method in (detector.score_samples, detector.anomaly_map, detector.anomaly_mask):
        decoded.clear()
        method(paths)
        assert sorted(decoded) == [*range(8)]
    decoded.clear()
    tiled(knn(), max_cache_bytes=2**20).fit(paths)
    assert sorted(decoded) == [*range(8)]  # they were kept for the second pass


def test_few_photographs_are_kept(paths, monkeypatch):
    monkeypatch.setattr(tiles, "_KEPT_BYTES", 0)
    most, forget = [], tiles.KeptPhotographs._forget_old

    def counted(kept):
        forget(kept)
        most.append(len(kept._kept))

    monkeypatch.setattr(tiles.KeptPhotographs, "_forget_old", counted)
    detector = tiled(quick(DeepSVDD, batch_size=4), max_cache_bytes=0)
    with pytest.warns(UserWarning, match=r"decoded again and again.*Got 8.*Set it to 4320"):
        detector.fit(paths)
    most.clear()
    detector.score_samples(paths)
    assert max(most) <= 5  # and not all eight: three, and those of another batch
    most.clear()
    tiled(quick(DeepSVDD, batch_size=4), max_cache_bytes=8 * 20 * 27).fit(paths)
    assert max(most) == 8


def test_a_data_set_is_read_by_one_thread_and_once_a_pass():
    images, n_read, inside = surfaces(5), [], []

    class Photographs(torch.utils.data.Dataset):
        def __len__(self):
            return len(images)

        def __getitem__(self, index):
            inside.append(index)
            assert len(inside) == 1
            n_read.append(index)
            inside.clear()
            return images[index]

    detector = tiled(max_cache_bytes=0).fit(Photographs())
    n_read.clear()
    detector.score_samples(Photographs())
    assert sorted(n_read) == sorted([0, *range(5), *range(5)])  # sizes, then pixels


def test_an_unreadable_file_is_named(paths):
    detector = tiled().fit(paths)
    paths[5].write_bytes(paths[5].read_bytes()[:150])
    with pytest.raises(ValueError, match=r"5\.png.*cannot be read"):
        detector.score_samples(paths)
    detector.score_samples(paths[:5])


# Thresholds are honest


def test_training_scores_leave_the_photograph_out():
    """They are the scores by a detector of the other photographs."""
    images = surfaces()
    for overlap in (0, 0.75):
        detector = tiled(overlap=overlap).fit(images)
        for left_out in range(len(images)):
            others = np.delete(images, left_out, axis=0)
            expected = tiled(overlap=overlap).fit(others)
            maps, scores = expected.anomaly_map(images[[left_out]], return_scores=True)
            assert detector.train_scores_[left_out] == pytest.approx(scores[0], rel=1e-4)
            assert detector.train_map_maxima_[left_out] == pytest.approx(
                maps.max(), rel=1e-4
            )
    assert detector._train_scores_leave_one_out
    assert not tiled(quick(ConvAE))._train_scores_leave_one_out


@pytest.mark.parametrize(
    "detector",
    [
        knn(),
        knn(neighbor_aggregation="mean", n_neighbors=2, reweighting=3),
        quick(PatchSVDD, patch_size=8, image_size=16, max_bank_bytes=None),
        quick(PatchSVDD, patch_size=8, image_size=16, subsampling="coreset"),
    ],
)
def test_banks_know_the_photograph_of_a_tile(detector):
    images = surfaces(4)
    fitted = tiled(detector, overlap=0.5).fit(images)
    inner = fitted.detector_
    bank = inner.bank_ if hasattr(inner, "bank_") else inner.bank_big_
    n_tiles = len(inner.train_scores_)
    np.testing.assert_array_equal(bank.groups, np.repeat(range(4), n_tiles // 4))
    honest = fitted.train_scores_
    np.testing.assert_allclose(fitted.score_samples(images), honest, rtol=1e-4)
    for name in ("bank_", "bank_small_", "bank_big_"):
        if hasattr(inner, name):
            bank = getattr(inner, name)
            setattr(inner, name, type(bank)(bank.vectors, bank.images, bank.digests))
    # The tile alone is left out: its overlap with the next is found there.
    scores = fitted.score_samples(images)
    assert np.all(scores >= honest - 1e-4 * np.abs(honest))
    assert scores.mean() > honest.mean() + 1e-3 * np.abs(honest.mean())


def test_false_alarms_are_those_of_contamination():
    """Each photograph has a light of its own, by which its tiles resemble each other."""
    rng = np.random.default_rng(0)
    light = rng.uniform(0.2, 0.8, (160, 1, 1))
    images = (light + rng.normal(0, 0.002, (160, 16, 16))).astype(np.float32)
    detector = tiled(contamination=0.2, overlap=0.5).fit(images[:40])
    # Three standard deviations of the rate, of a threshold from 40 images and 120 tested.
    rate, margin = (detector.predict(images[40:]) == -1).mean(), 3 * np.sqrt(0.16 / 30)
    assert 0.2 - margin < rate < 0.2 + margin
    marked = detector.anomaly_mask(images[40:]).any(axis=(1, 2)).mean()
    assert 0.2 - margin < marked < 0.2 + margin
    # With a bank that knows tiles alone, the threshold is too tight.
    bank = detector.detector_.bank_
    detector.detector_.bank_ = type(bank)(bank.vectors, bank.images, bank.digests)
    detector.train_scores_ = detector.score_samples(images[:40])
    detector.set_params(contamination=0.2)._set_offset()
    assert (detector.predict(images[40:]) == -1).mean() > 0.2 + margin


def test_thresholds_move_with_contamination():
    images = surfaces(10)
    detector = tiled(contamination=0.3).fit(images)
    assert detector.offset_ == pytest.approx(np.percentile(detector.train_scores_, 30))
    assert (detector.predict(images) == -1).sum() == 3
    assert detector.pixel_threshold_ == pytest.approx(
        np.percentile(detector.train_map_maxima_, 70)
    )
    assert detector.anomaly_mask(images).any(axis=(1, 2)).sum() == 3
    np.testing.assert_array_equal(
        detector.decision_function(images),
        detector.score_samples(images) - detector.offset_,
    )
    anew = tiled(contamination=0.1).fit(images)
    assert detector.set_contamination(0.1).offset_ == anew.offset_
    assert detector.pixel_threshold_ == anew.pixel_threshold_
    with pytest.raises(ValueError, match="contamination"):
        detector.set_contamination(0.7)


def test_a_small_defect_is_found_and_located():
    images = surfaces(16, (40, 40)) // 8 + 110
    spotted = images[12:].copy()
    spotted[:, 21:24, 30:33] = 255
    detector = tiled().fit(images[:8])
    scores = [detector.score_samples(part) for part in (images[8:12], spotted)]
    assert scores[0].min() > scores[1].max()
    for heat in detector.anomaly_map(spotted):
        row, column = np.unravel_index(heat.argmax(), heat.shape)
        assert 19 <= row <= 25
        assert 28 <= column <= 34


# A detector for each place


def striped(n_images, seed=0):
    """Return photographs (n, 16, 16): rows on the left, columns on the right."""
    rng = np.random.default_rng(seed)
    images = np.zeros((n_images, 16, 16))
    images[:, ::2, :8] = images[:, :, 8::2] = 1
    return images + rng.normal(0, 0.1, images.shape)


def test_places_have_detectors_of_their_own():
    images = striped(8)
    detector = tiled(overlap=0, position_aware=True).fit(images)
    assert len(detector.detectors_) == 4
    assert not hasattr(detector, "detector_")
    assert detector.image_shape_ == (16, 16, 1)
    new = striped(5, seed=1)
    places = [np.s_[:, r : r + 8, c : c + 8] for r in (0, 8) for c in (0, 8)]
    alone = [knn().fit(images[place]) for place in places]
    expected = [part.score_samples(new[p]) for part, p in zip(alone, places, strict=True)]
    np.testing.assert_allclose(detector.score_samples(new), np.min(expected, axis=0), 1e-5)
    np.testing.assert_allclose(
        detector.train_scores_, np.min([part.train_scores_ for part in alone], axis=0), 1e-5
    )
    maps, scores = detector.anomaly_map(new, return_scores=True)
    np.testing.assert_allclose(scores, detector.score_samples(new), rtol=1e-5)
    for part, place in zip(alone, places, strict=True):
        np.testing.assert_allclose(maps[place], part.anomaly_map(new[place]), rtol=1e-4)
    assert not detector.collapsed_


def test_a_place_knows_what_belongs_there():
    swapped = np.roll(striped(8, seed=2), 8, axis=2)
    images, new = striped(12), striped(8, seed=1)
    labels = np.repeat([0, 1], 8)
    auroc = {}
    for position_aware in (False, True):
        detector = tiled(overlap=0, position_aware=position_aware).fit(images)
        scores = [detector.score_samples(part) for part in (new, swapped)]
        auroc[position_aware] = roc_auc_score(labels, -np.concatenate(scores))
    assert auroc[True] == 1
    assert auroc[False] < 0.95


def test_files_are_decoded_once_for_all_places(paths, decoded, monkeypatch):
    detector = tiled(position_aware=True).fit(paths)
    assert sorted(decoded) == [*range(8)]
    monkeypatch.setattr(tiles, "_KEPT_BYTES", 0)
    for method in (detector.score_samples, detector.anomaly_map):
        decoded.clear()
        method(paths)
        assert sorted(decoded) == [*range(8)]
    with pytest.warns(UserWarning, match="because each position reads tiles"):
        tiled(position_aware=True, max_cache_bytes=0).fit(paths)


# Errors


@pytest.mark.parametrize(
    ("params", "X", "message"),
    [
        (
            {},
            surfaces(3, (20, 7)),
            r"at least as large as a tile, 8 x 8 .*20 x 7 at index 0",
        ),
        (
            {},
            [surfaces(1)[0], surfaces(1, (7, 9))[0]],
            "7 x 9 at index 1.*smaller tile_size",
        ),
        (
            {"overlap": 0.95},
            surfaces(),
            r"one pixel apart. Got overlap=0.95 .*Set a smaller",
        ),
        ({"tile_size": (8, 0)}, surfaces(), r"tile_size must be .*Got \(8, 0\)"),
        ({"tile_size": (8, 8, 8)}, surfaces(), r"tile_size must be"),
        ({"tile_size": 0}, surfaces(), "'tile_size' parameter"),
        ({"overlap": 1.0}, surfaces(), "'overlap' parameter"),
        ({"position_aware": True}, [surfaces(1)[0], surfaces(1, (9, 9))[0]], "one size"),
        ({}, surfaces(1), "at least 2 images"),
        ({}, surfaces().reshape(6, -1), "image_shape is None"),
        ({"detector": DeepSVDD}, surfaces(), r"Got the class DeepSVDD. Pass DeepSVDD\(\)"),
        (
            {"detector": make_pipeline(FunctionTransformer(), knn())},
            surfaces(),
            r"which photograph .*Got a Pipeline of 2 steps.*TiledDetector\(ResNetKNN",
        ),
    ],
)
def test_errors(params, X, message):
    with pytest.raises(ValueError, match=message):
        TiledDetector(**({"detector": knn(), "tile_size": TILE} | params)).fit(X)


def test_errors_of_later_calls():
    images = surfaces()
    detector = tiled().fit(images)
    with pytest.raises(ValueError, match=r"at least as large as a tile.*7 x 20"):
        detector.anomaly_map(surfaces(2, (7, 20)))
    with pytest.raises(ValueError, match=r"size must be"):
        detector.anomaly_map(images, size="large")
    with pytest.raises(ValueError, match="must be a number"):
        detector.anomaly_mask(images, threshold="low")
    aware = tiled(position_aware=True).fit(images)
    with pytest.raises(ValueError, match=r"one size.*Got 20 x 26.*20 x 27 before.*Resize"):
        aware.score_samples(images[:, :, :-1])
    with pytest.raises(ValueError, match="must have its size"):
        tiled(make_pipeline(Half(), Brightness())).fit(images)


class Half(BaseEstimator):
    """A transformer of tiles to halves of them."""

    def fit(self, X, y=None):
        self.is_fitted_ = True
        return self

    def transform(self, X):
        images = read_images(X)
        return images.load(slice(0, len(images)))[:, ::2, ::2, 0]


def test_a_failed_fit_changes_nothing():
    images = surfaces()
    detector = tiled().fit(images)
    before = dict(vars(detector))
    detector.set_params(overlap=0.99)
    with pytest.raises(ValueError, match="one pixel apart"):
        detector.fit(images)
    assert vars(detector) == before | {"overlap": 0.99}


def test_labels_of_anomalies_warn_once():
    with pytest.warns(UserWarning, match="labels 1 of 6") as seen:
        tiled().fit(surfaces(), np.r_[1, 1, 1, 1, 1, -1])
    assert len(seen) == 1


# As an estimator of scikit-learn


@pytest.mark.filterwarnings("ignore")
def test_scikit_learn_checks():
    results = check_estimator(
        TiledDetector(Brightness(), tile_size=1, overlap=0, image_shape=(1, -1)),
        on_fail=None,
        on_skip=None,
    )
    assert len(results) > 40
    assert {
        result["check_name"]: result["status"]
        for result in results
        if result["status"] != "passed"
    }.items() <= {"check_array_api_input": "skipped"}.items()


def test_parameters_of_the_detector():
    detector = tiled(overlap=0.5)
    assert detector.get_params()["detector__backbone"] == "shufflenet_v2_x0_5"
    detector.set_params(detector__n_neighbors=2, tile_size=(8, 9))
    again = clone(detector)
    assert (again.detector.n_neighbors, again.tile_size) == (2, (8, 9))
    assert again.detector is not detector.detector
    images = np.concatenate([surfaces(12), np.zeros((6, 20, 27), np.uint8)])
    search = GridSearchCV(
        NormalOnly(tiled()),
        {"estimator__overlap": [0, 0.5], "estimator__detector__n_neighbors": [1]},
        cv=OneClassSplit(test_size=0.5, random_state=0),
        scoring="roc_auc",
    ).fit(images, np.repeat([1, -1], [12, 6]))
    assert search.best_estimator_.anomaly_map(images[:2]).shape == (2, 20, 27)


def test_tags_pickle_and_html():
    assert not get_tags(tiled()).input_tags.two_d_array
    assert get_tags(tiled(image_shape=(8, 8))).input_tags.two_d_array
    assert get_tags(tiled()).input_tags.string
    assert get_tags(tiled()).estimator_type == "outlier_detector"
    images = surfaces()
    detector = tiled().fit(images)
    again = pickle.loads(pickle.dumps(detector))
    np.testing.assert_array_equal(again.anomaly_map(images), detector.anomaly_map(images))
    html = detector._repr_html_()
    assert all(name in html for name in ["TiledDetector", "ResNetKNN"])


def test_not_fitted_and_without_maps():
    detector = tiled()
    for name in ("score_samples", "predict", "anomaly_map", "anomaly_mask"):
        with pytest.raises(NotFittedError):
            getattr(detector, name)(surfaces())
    for name in ("collapsed_", "n_features_in_", "detector_"):
        assert not hasattr(detector, name)
    with pytest.raises(NotFittedError):
        detector.pixel_threshold_  # noqa: B018
    without = tiled(quick(DeepSVDD)).fit(surfaces())
    assert without.score_samples(surfaces()).shape == (6,)
    assert not hasattr(without, "anomaly_map")
    assert not hasattr(without, "anomaly_mask")
    assert not hasattr(without, "pixel_threshold_")
    # A refit leaves nothing of an earlier one behind.
    fitted = tiled().fit(surfaces()).set_params(detector=quick(DeepSVDD)).fit(surfaces())
    assert not hasattr(fitted, "train_map_maxima_")
    fitted = tiled(position_aware=True).fit(surfaces()).set_params(position_aware=False)
    assert not hasattr(fitted.fit(surfaces()), "detectors_")


@pytest.mark.parametrize(
    "detector",
    [
        DetectorEnsemble([("a", knn()), ("b", quick(DeepSVDD))]),
        make_pipeline(Pixels(), OneClassSVM()),
        make_pipeline(knn()),
        quick(PatchSVDD, patch_size=8),
    ],
    ids=["ensemble", "pipeline", "alone", "patches"],
)
def test_detectors_made_of_others(detector):
    images = surfaces(7)
    fitted = tiled(detector).fit(images[:5])
    scores = fitted.score_samples(images)
    parts = np.concatenate([cut(image)[0] for image in images])
    of_tiles = fitted.detector_.score_samples(parts).reshape(7, -1)
    np.testing.assert_allclose(scores, of_tiles.min(axis=1), rtol=1e-4)
    if hasattr(fitted, "anomaly_map"):
        assert fitted.anomaly_map(images).shape == images.shape


def test_a_frozen_detector_is_used_as_it_was_fitted():
    images = surfaces(9)
    parts = np.concatenate([cut(image)[0] for image in images[:4]])
    frozen = FrozenEstimator(quick(ConvAE).fit(parts))
    fitted = tiled(frozen).fit(images[4:])
    np.testing.assert_array_equal(fitted.train_scores_, fitted.score_samples(images[4:]))
    assert fitted.anomaly_map(images[:1]).shape == (1, 20, 27)


def test_others_around_it(paths):
    images = surfaces(8)
    tuner = ThresholdTuner(tiled(), max_fpr=0.5, random_state=0).fit(paths)
    assert tuner.anomaly_mask(paths[:2]).shape == (2, 20, 27)
    loo = ThresholdTuner(tiled(), cv="loo", max_fpr=0.5).fit(images)
    np.testing.assert_array_equal(
        np.sort(loo.estimator_.train_scores_), loo.calibration_scores_
    )
    np.testing.assert_array_equal(
        np.sort(loo.calibration_map_maxima_), np.sort(loo.estimator_.train_map_maxima_)
    )
    whole = knn(image_size=16)
    ensemble = DetectorEnsemble([("tiles", tiled()), ("whole", whole)]).fit(images)
    assert ensemble.anomaly_map(images[:2]).shape == (2, 20, 27)
    table = skocc.predict_table(tiled().fit(paths), [*paths, "none.png"])
    assert table["label"].notna().tolist() == [True] * 8 + [False]
    pipeline = make_pipeline(FunctionTransformer(), tiled()).fit(images)
    assert pipeline.predict(images).shape == (8,)


def test_displays():
    pytest.importorskip("matplotlib")
    from skocc.plotting import AnomalyMapDisplay, ScoreHistogramDisplay

    images = surfaces()
    detector = tiled().fit(images)
    display = AnomalyMapDisplay.from_estimator(detector, images[:2])
    assert display.maps[0].shape == (20, 27)
    ScoreHistogramDisplay.from_estimator(detector, images)


def test_docstring_is_complete():
    documentation = ClassDoc(TiledDetector)
    parameters = [entry.name for entry in documentation["Parameters"]]
    assert sorted(parameters) == [*tiled().get_params(deep=False)]
    fitted = [tiled(position_aware=p).fit(surfaces()) for p in (False, True)]
    for entry in documentation["Attributes"]:
        if entry.name != "feature_names_in_":
            assert any(hasattr(detector, entry.name) for detector in fitted), entry.name


# Files


@pytest.mark.parametrize(
    "detector",
    [
        tiled(),
        tiled(overlap=0, position_aware=True),
        tiled(quick(ConvAE), image_shape=(20, 27)),
        tiled(DetectorEnsemble([("a", knn()), ("b", quick(DeepSVDD))])),
        DetectorEnsemble([("tiles", tiled()), ("whole", knn(image_size=16))]),
    ],
    ids=["bank", "places", "flat", "ensemble inside", "ensemble around"],
)
def test_save_and_load(detector, tmp_path):
    images = surfaces()
    X = images.reshape(6, -1) if detector.get_params().get("image_shape") else images
    fitted = clone(detector).fit(X)
    skocc.save(fitted, tmp_path / "a")
    loaded = skocc.load(tmp_path / "a")
    for name in ("score_samples", "predict", "anomaly_map", "anomaly_mask"):
        np.testing.assert_array_equal(
            getattr(loaded, name)(X), getattr(fitted, name)(X), err_msg=name
        )
    assert loaded.offset_ == fitted.offset_
    assert repr(loaded) == repr(fitted)
    clone(loaded).fit(X)
    skocc.save(loaded, tmp_path / "b")
    for name in ("a", "b"):
        assert (tmp_path / name).exists()


def test_a_detector_of_scikit_learn_on_tiles_is_in_an_archive(tmp_path):
    pytest.importorskip("skops")
    X = surfaces()
    fitted = tiled(make_pipeline(Pixels(), OneClassSVM())).fit(X)
    skocc.save(fitted, tmp_path / "a")
    loaded = skocc.load(tmp_path / "a")
    np.testing.assert_array_equal(loaded.score_samples(X), fitted.score_samples(X))


def swap(header):
    header["params"]["position_aware"] = not header["params"]["position_aware"]


CHANGES = {
    "another number of places": swap,
    "a part too few": lambda header: header["parts"].clear(),
    "a part too many": lambda header: header["parts"].append(header["parts"][0]),
    "a part dropped": lambda header: header["parts"][0].__setitem__(1, None),
    "no parts": lambda header: header.pop("parts"),
    "another name": lambda header: header["parts"][0].__setitem__(0, "7"),
    "no detector": lambda header: header["parts"][0][1].update(estimator="DeepFeatures"),
    "a detector among the parameters": lambda header: header["params"].update(detector=1),
    "no tile": lambda header: header["params"].update(tile_size=-1),
}


@pytest.mark.parametrize("name", CHANGES)
@pytest.mark.parametrize("position_aware", [False, True])
def test_files_that_are_changed_are_refused(name, position_aware, tmp_path):
    fitted = tiled(overlap=0, position_aware=position_aware).fit(surfaces())
    skocc.save(fitted, tmp_path / "a")
    data = (tmp_path / "a").read_bytes()
    size = int.from_bytes(data[:8], "little")
    header = json.loads(json.loads(data[8 : 8 + size])["__metadata__"]["skocc"])
    arrays = safetensors.numpy.load(data)
    del header["digest"]
    CHANGES[name](header)
    header["digest"] = skocc._persistence.model_files._digest(header, arrays)
    changed = safetensors.numpy.save(arrays, {"skocc": json.dumps(header)})
    (tmp_path / "a").write_bytes(changed)
    with pytest.raises(ValueError, match="cannot be read as a model"):
        skocc.load(tmp_path / "a")


@pytest.mark.parametrize("groups", [[0, 1], [9] * 24, [-1] * 24])
def test_groups_of_no_image_are_refused(groups, tmp_path):
    fitted = tiled(overlap=0).fit(surfaces(2))
    bank = fitted.detector_.bank_
    bank.groups = np.array(groups, dtype=np.int32)[: len(bank.digests)]
    if len(groups) > 2:
        bank.groups[0] = 100 * groups[0]
    with pytest.raises(ValueError, match="could not put it together"):
        skocc.save(fitted, tmp_path / "a")
