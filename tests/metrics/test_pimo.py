import inspect

import numpy as np
import pytest
from scipy.integrate import trapezoid

from skocc.metrics import aupimo


def authors_example():
    """Return masks and maps of the authors' own tests, of 7 values a factor of 10 apart.

    ``tests/test_aupimo/test_pimo.py`` of https://github.com/jpcbertoldo/aupimo, commit
    188ec86. The first image has no defect; all of the second is one, and the tenth of the
    pixels of the third that have the highest values.
    """
    heat = np.ones(1_000_000, np.float32)
    for n_pixels in (100_000, 10_000, 1_000, 100, 10, 1):
        heat[:n_pixels] += 1
    masks = np.zeros((3, 1_000_000), bool)
    masks[1] = True
    masks[2, :100_000] = True
    return masks.reshape(3, 1000, 1000), np.stack([heat.reshape(1000, 1000)] * 3)


@pytest.mark.parametrize("factor", [1, 10])
@pytest.mark.parametrize(
    ("fpr_range", "expected"),
    [
        ((1e-1, 1.0), [(0.1 + 1) / 2, 1.0]),
        (
            (1e-3, 1e-1),
            [((1e-3 + 1e-2) / 2 + (1e-2 + 1e-1) / 2) / 2,
             ((1e-2 + 1e-1) / 2 + (1e-1 + 1) / 2) / 2],
        ),
        ((1e-5, 1e-4), [(1e-5 + 1e-4) / 2, (1e-4 + 1e-3) / 2]),
    ],
)  # fmt: skip
def test_values_of_the_authors(factor, fpr_range, expected):
    masks, maps = authors_example()
    values = aupimo(masks, factor * maps, fpr_range=fpr_range)
    np.testing.assert_allclose(values, [np.nan, *expected], rtol=1e-9)


def make(n_images=8, size=40, n_values=None, seed=0):
    rng = np.random.default_rng(seed)
    masks = np.zeros((n_images, size, size), bool)
    masks[n_images // 2 :, 5:15, 5:20] = True
    maps = rng.normal(size=masks.shape) + 1.5 * masks
    if n_values is not None:
        maps = np.round(maps * n_values / 8)
    return masks, maps.astype(np.float32)


def on_a_grid(masks, maps, low, high, n_thresholds):
    """Return AUPIMO as its authors compute it, from equidistant thresholds."""
    normal = maps[~masks.any(axis=(1, 2))]
    thresholds = np.linspace(normal.min(), normal.max(), n_thresholds)[::-1]
    rates = np.mean([[np.mean(h >= t) for t in thresholds] for h in normal], axis=0)
    x = np.log(np.clip(rates, low, high))
    recalls = [
        [np.mean(h[m] >= t) for t in thresholds] if m.any() else np.full(len(x), np.nan)
        for m, h in zip(masks, maps, strict=True)
    ]
    return trapezoid(recalls, x, axis=1) / np.log(high / low)


@pytest.mark.parametrize("fpr_range", [(1e-3, 1e-1), (5e-2, 0.4)])
def test_the_limit_of_many_thresholds(fpr_range):
    masks, maps = make()
    exact = aupimo(masks, maps, fpr_range=fpr_range)
    # 0.009 with 1,000 thresholds and 0.002 with 4,000: in proportion to their distance.
    np.testing.assert_allclose(on_a_grid(masks, maps, *fpr_range, 4000), exact, atol=4e-3)


def test_rates_are_means_over_images_not_over_pixels():
    """A pixel of a small image counts more, and sizes may differ."""
    large, small, bad = np.zeros((20, 20)), np.zeros((2, 2)), np.array([[1.0, 2.0]])
    small[0, 0] = 3.0  # a rate of (1/4 + 0) / 2
    mask = np.ones((1, 2), bool)
    maps = [large, small, bad]
    assert aupimo([None, None, mask], maps, fpr_range=(0.01, 0.12))[2] == 0
    # From a rate of 1/8 to 1 the threshold is above 0, and below both pixels.
    assert aupimo([None, None, mask], maps, fpr_range=(0.125, 0.9))[2] == pytest.approx(1)
    half = aupimo([None, None, mask], maps, fpr_range=(0.125 / np.e, 0.125 * np.e))
    assert half[2] == pytest.approx(0.5)


def test_no_false_positive_at_all_below_the_lowest_rate():
    mask = np.array([[True, True], [False, False]])
    masks, maps = [None, mask], [np.arange(4.0).reshape(2, 2), [[2.0, 9.0], [99, 99]]]
    assert aupimo(masks, maps)[1] == 0.5
    assert aupimo(masks, maps, fpr_range=(1e-9, 1e-8))[1] == 0.5


@pytest.mark.parametrize("n_values", [None, 3, 20])
def test_order_of_images_and_what_normal_pixels_of_bad_images_are(n_values):
    masks, maps = make(n_values=n_values)
    values = aupimo(masks, maps, fpr_range=(1e-3, 0.2))
    assert np.isnan(values).tolist() == [True] * 4 + [False] * 4
    assert np.all((values[4:] >= 0) & (values[4:] <= 1))
    order = np.random.default_rng(1).permutation(8)
    again = aupimo(
        (m for m in masks[order]), (m for m in maps[order]), fpr_range=(1e-3, 0.2)
    )
    np.testing.assert_allclose(again, values[order], rtol=1e-12)
    changed = np.where(masks.any(axis=(1, 2), keepdims=True) & ~masks, 1e9, maps)
    np.testing.assert_array_equal(aupimo(masks, changed, fpr_range=(1e-3, 0.2)), values)


def test_perfect_random_and_nan():
    masks, maps = make()
    np.testing.assert_array_equal(aupimo(masks, masks)[4:], 1)
    masks, maps = make(n_images=60, size=100)
    random = aupimo(masks, maps - 1.5 * masks, fpr_range=(1e-2, 1e-1))
    assert np.nanmean(random) == pytest.approx(0.09 / np.log(10), rel=0.1)
    maps[0, 0, 0] = np.nan  # a false positive at every threshold, at a rate of 3e-6
    assert np.nanmean(aupimo(masks, maps, fpr_range=(1e-7, 1e-6))) == 0


@pytest.mark.parametrize(
    ("masks", "arguments", "message"),
    [
        (np.zeros((2, 3, 3), bool), {}, "Got none with a defect among 2"),
        (np.ones((2, 3, 3), bool), {}, "Got none without a defect among 2"),
        (np.zeros((3, 3, 3), bool), {}, "Got only 2 maps"),
        ([None, np.eye(3)], {}, "Got float64 for mask 1"),
        ([None, np.eye(3) > 0], {"fpr_range": (0, 1)}, r"in \(0, 1\]. Got \(0, 1\)"),
        ([None, np.eye(3) > 0], {"fpr_range": (0.1, 0.1)}, "the lower first"),
        ([None, np.eye(3) > 0], {"fpr_range": (0.1, 0.2, 0.3)}, "must be two"),
    ],
)
def test_errors(masks, arguments, message):
    with pytest.raises(ValueError, match=message):
        aupimo(masks, np.zeros((2, 3, 3)), **arguments)


def test_the_range_of_the_paper_is_the_default():
    assert inspect.signature(aupimo).parameters["fpr_range"].default == (1e-5, 1e-4)
