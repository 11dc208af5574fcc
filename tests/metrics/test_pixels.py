import io
from itertools import pairwise

import numpy as np
import pytest
from PIL import Image
from skimage.measure import label
from sklearn.metrics import average_precision_score, f1_score, roc_auc_score

from skocc.metrics import (
    _pixels,
    aupimo,
    aupro,
    pixel_auroc,
    pixel_average_precision,
    pixel_f1,
)


def make(n=6, shape=(9, 11), n_levels=None, seed=0):
    """Masks with several regions, some of which touch at corners, and maps."""
    rng = np.random.default_rng(seed)
    masks = rng.random((n, *shape)) < 0.25
    masks[0] = False
    maps = rng.normal(size=masks.shape) + masks
    if n_levels:
        maps = np.round(maps * n_levels / 6)
    return masks, maps.astype(np.float32)


def brute_force_aupro(masks, maps, max_fpr):
    """Every threshold, every region; linear between the points, cut at max_fpr."""
    regions = [
        (i, labels == k)
        for i, labels in enumerate(label(mask, connectivity=2) for mask in masks)
        for k in range(1, labels.max() + 1)
    ]
    points = [(0.0, 0.0)]
    for threshold in np.unique(maps)[::-1]:
        above = maps >= threshold
        overlap = np.mean([above[i][region].mean() for i, region in regions])
        points.append((above[~masks].mean(), overlap))
    area = 0.0
    for (x0, y0), (x1, y1) in pairwise(points):
        if x0 < max_fpr and x1 > x0:
            stop = min(x1, max_fpr)
            y_stop = y0 + (y1 - y0) * (stop - x0) / (x1 - x0)
            area += (stop - x0) * (y0 + y_stop) / 2
    return area / max_fpr


@pytest.mark.parametrize("max_fpr", [0.01, 0.3, 1.0])
@pytest.mark.parametrize("n_levels", [None, 2, 20])
@pytest.mark.parametrize("n_points", [7, 2**20])
def test_aupro_equals_brute_force(max_fpr, n_levels, n_points, monkeypatch):
    monkeypatch.setattr(_pixels, "_N_POINTS", n_points)
    masks, maps = make(n_levels=n_levels)
    expected = brute_force_aupro(masks, maps, max_fpr)
    assert aupro(masks, maps, max_fpr=max_fpr) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("n_levels", [None, 2, 20])
def test_pixel_auroc_equals_scikit_learn(n_levels, monkeypatch):
    monkeypatch.setattr(_pixels, "_N_POINTS", 16)
    masks, maps = make(n_levels=n_levels)
    expected = roc_auc_score(masks.ravel(), maps.ravel())
    assert pixel_auroc(masks, maps) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("n_levels", [None, 5])
def test_thinned_values_stay_within_the_bound(n_levels, monkeypatch):
    masks, maps = make(n=80, shape=(32, 32), n_levels=n_levels)
    exact = aupro(masks, maps), pixel_auroc(masks, maps)
    kept, waiting = 2**13, 2**11
    monkeypatch.setattr(_pixels, "_MAX_KEPT", kept)
    monkeypatch.setattr(_pixels, "_N_WAITING", waiting)
    # The docstring's bound: 3e-8 + 1e-15 N is 2 / kept + 1 / (waiting * kept) * N.
    bound = 2 / kept + masks.size / (waiting * kept)
    assert masks.size > 4 * kept
    assert aupro(masks, maps) == pytest.approx(exact[0], abs=bound / 0.3)
    assert pixel_auroc(masks, maps) == pytest.approx(exact[1], abs=2 * bound)


def test_thinned_values_count_all_and_rank_within_the_bound():
    values = _pixels.Values(max_kept=256, n_waiting=64)
    given = np.random.default_rng(0).normal(size=5000).astype(np.float32)
    for start in range(0, 5000, 37):
        values.add(given[start : start + 37])
    assert len(values) == 5000
    assert len(values._kept) <= 256
    assert values._weight == 32
    thresholds = np.sort(given)[::50]
    above, at_least = values.counts(thresholds)
    exact = np.array([(given > t).sum() for t in thresholds])
    weight = values._weight
    assert np.abs(above - exact).max() <= weight + 5000 / 64 * weight / 2
    assert np.all(at_least >= above)


def test_few_values_are_kept_as_they_are():
    values = _pixels.Values(max_kept=256, n_waiting=64)
    given = np.random.default_rng(0).integers(0, 9, size=250).astype(np.float32)
    values.add(given)
    above, at_least = values.counts(np.arange(9.0))
    assert above.tolist() == [(given > t).sum() for t in range(9)]
    assert at_least.tolist() == [(given >= t).sum() for t in range(9)]


@pytest.mark.parametrize("metric", [aupro, pixel_auroc])
def test_generators_none_and_sizes_that_differ(metric):
    masks, maps = make()
    expected = metric(masks, maps)
    masks_read = (mask if mask.any() else None for mask in masks)
    assert metric(masks_read, (heat for heat in maps)) == expected
    assert metric(masks.astype(np.uint8) * 255, list(maps)) == expected
    wide = [np.hstack([mask, mask]) for mask in masks[:1]] + list(masks[1:])
    metric(wide, [np.hstack([maps[0], maps[0]]), *maps[1:]])


@pytest.mark.parametrize("metric", [aupro, pixel_auroc])
def test_perfect_chance_and_nan(metric):
    masks, maps = make()
    assert metric(masks, masks.astype(np.float32)) == pytest.approx(1)
    chance = 0.15 if metric is aupro else 0.5
    assert metric(masks, np.zeros_like(maps)) == pytest.approx(chance)
    holes = np.where(maps > 1.5, np.nan, maps)
    assert metric(masks, holes) == metric(masks, np.where(maps > 1.5, np.inf, maps))


def test_regions_weigh_the_same():
    """A large defect found and a small one missed are half of the defects."""
    mask = np.zeros((20, 20), bool)
    mask[:10, :10], mask[15, 15] = True, True
    heat = np.zeros((20, 20))
    heat[:10, :10], heat[15, 15] = 1, -1
    assert aupro([mask], [heat], max_fpr=1e-9) == pytest.approx(0.5)


def test_corners_connect():
    mask = np.eye(4, dtype=bool)
    mask[0, 3] = True
    heat = np.where(np.eye(4, dtype=bool), 1.0, -1.0)
    assert aupro([mask], [heat], max_fpr=1e-9) == pytest.approx(0.5)


@pytest.mark.parametrize("metric", [aupro, pixel_auroc])
@pytest.mark.parametrize(
    ("masks", "maps", "message"),
    [
        (np.ones((2, 3, 3), bool), np.zeros((3, 3, 3)), "Got only 2 masks"),
        (np.ones((3, 3, 3), bool), np.zeros((2, 3, 3)), "Got only 2 maps"),
        (np.ones((2, 3, 4), bool), np.zeros((2, 3, 3)), r"Got \(3, 4\) for mask 0"),
        (np.ones((2, 3, 3)), np.zeros((2, 3, 3)), "Got float64 for mask 0"),
        (np.ones((3, 3), bool), np.zeros((3, 3)), r"Got \(3,\) for map 0"),
        ([None, None], np.zeros((2, 3, 3)), "Got no defect pixel"),
        (np.ones((2, 3, 3), bool), np.zeros((2, 3, 3)), "Got no normal pixel"),
    ],
)
def test_what_is_refused(metric, masks, maps, message):
    with pytest.raises(ValueError, match=message):
        metric(masks, maps)


@pytest.mark.parametrize("max_fpr", [0.0, 1.1, np.nan])
def test_rate_that_is_refused(max_fpr):
    with pytest.raises(ValueError, match="max_fpr must be a rate"):
        aupro(*make(), max_fpr=max_fpr)


@pytest.mark.parametrize("metric", [pixel_auroc, aupro])
def test_values_that_float32_has_not_rank_as_infinite(metric):
    masks = np.array([[[True, False, False], [False, False, False]]])
    maps = np.array([[[1e300, 0.5, 0.2], [0.1, -1e300, 0.3]]])
    assert metric(masks, maps) == metric(masks, np.clip(maps, -1e30, 1e30)) == 1.0


def test_maps_that_are_none_are_named():
    with pytest.raises(ValueError, match=r"^maps must be an array of real numbers"):
        pixel_auroc([np.ones((2, 2), bool)], [[["a", "b"], ["c", "d"]]])


def test_a_rate_of_float32_gives_a_float():
    masks = np.zeros((2, 4, 4), dtype=bool)
    masks[0, :2, :2] = True
    maps = np.random.default_rng(0).random(masks.shape)
    area = aupro(masks, maps, max_fpr=np.float32(0.25))
    assert type(area) is float
    assert area == aupro(masks, maps, max_fpr=0.25)


@pytest.mark.parametrize("metric", [aupro, pixel_auroc])
def test_masks_in_files_equal_arrays(metric, tmp_path):
    """Sizes differ, and so do formats: bits, palettes, gray levels, bytes of a file."""
    rng = np.random.default_rng(0)
    masks = [np.zeros(size, dtype=bool) for size in [(9, 7), (5, 12), (9, 7), (6, 6)]]
    for mask in masks[:3]:
        mask[1:3, 2:5] = True
    maps = [rng.normal(size=mask.shape) + 2 * mask for mask in masks]
    paths = [tmp_path / f"{i}.png" for i in range(3)]
    Image.fromarray(masks[0]).save(paths[0])
    palette = Image.fromarray(masks[1].astype(np.uint8))
    palette.putpalette([0, 0, 0, 200, 0, 0])
    palette.save(paths[1])
    Image.fromarray(masks[2].astype(np.uint8)).save(paths[2])
    expected = metric(masks, maps)
    given = [str(paths[0]), paths[1], paths[2].read_bytes(), None]
    assert metric(given, maps) == expected
    buffer = io.BytesIO(given[2])
    assert metric(iter([*given[:2], buffer, None]), (heat for heat in maps)) == expected


@pytest.mark.parametrize("metric", [aupro, pixel_auroc])
def test_mask_files_that_are_refused(metric, tmp_path):
    path = tmp_path / "0.png"
    Image.fromarray(np.eye(4, dtype=np.uint8)).save(path)
    maps = np.zeros((1, 5, 4))
    with pytest.raises(ValueError, match=r"Got \(4, 4\) for mask 0, the file '.*0.png'"):
        metric([path], maps)
    with pytest.raises(ValueError, match=r"mask 0 .* 'gone.png' \(index 0\) cannot be"):
        metric(["gone.png"], maps)
    with pytest.raises(ValueError, match=r"mask 0 .* Item 0 \(bytes\) cannot be read"):
        metric([path.read_bytes()[:-30]], maps)
    with pytest.raises(ValueError, match="Got a single str"):
        metric(str(path), maps)


@pytest.mark.parametrize("n_values", [1, 3, 50, None])
@pytest.mark.parametrize("n_points", [2**20, 7])
def test_precision_and_f1_against_scikit_learn(n_values, n_points, monkeypatch):
    monkeypatch.setattr(_pixels, "_N_POINTS", n_points)
    rng = np.random.default_rng(n_points)
    masks = rng.random((5, 12, 9)) > 0.9
    masks[0] = False
    maps = rng.normal(size=masks.shape) + masks
    if n_values is not None:
        maps = np.floor(maps * n_values / 8)
    maps = maps.astype(np.float32)
    y, values = masks.ravel(), maps.ravel()
    expected = average_precision_score(y, values)
    assert pixel_average_precision(masks, maps) == pytest.approx(expected, rel=1e-12)
    f1s = {t: f1_score(y, values >= t) for t in np.unique(values).tolist()}
    best, threshold = pixel_f1(masks, maps, return_threshold=True)
    assert best == pytest.approx(max(f1s.values()), rel=1e-12)
    assert pixel_f1(masks, maps) == best
    assert threshold == max(t for t, f1 in f1s.items() if np.isclose(f1, best, rtol=1e-12))
    for given in [-99.0, 0.0, 0.3, threshold]:
        expected = pytest.approx(f1_score(y, values >= given), rel=1e-12)
        assert pixel_f1(masks, maps, threshold=given) == expected
    assert pixel_f1(masks, maps, threshold=99.0, return_threshold=True) == (0.0, 99.0)


def test_precision_and_f1_of_thinned_values(monkeypatch):
    masks, maps = make(n=60)
    exact = pixel_average_precision(masks, maps), pixel_f1(masks, maps)
    monkeypatch.setattr(_pixels, "_MAX_KEPT", 2**9)
    monkeypatch.setattr(_pixels, "_N_WAITING", 2**8)
    thinned = pixel_average_precision(masks, maps), pixel_f1(masks, maps)
    assert thinned != exact
    np.testing.assert_allclose(thinned, exact, atol=5e-3)


def test_a_threshold_of_f1_is_no_nan():
    with pytest.raises(ValueError, match=r"Got nan\. Pass None"):
        pixel_f1([[[1, 0]]], [[[1.0, 0.0]]], threshold=np.nan)


@pytest.mark.parametrize("metric", [pixel_average_precision, pixel_f1, aupimo])
def test_masks_in_files(metric, tmp_path):
    masks, maps = make()
    paths = [tmp_path / f"{index}.png" for index in range(len(masks))]
    for mask, path in zip(masks, paths, strict=True):
        Image.fromarray(mask.astype(np.uint8) * 255).save(path)
    read = [path if mask.any() else None for mask, path in zip(masks, paths, strict=True)]
    np.testing.assert_array_equal(metric(read, maps), metric(masks, maps))
