"""P-values with weights, labels with an undecided band, and streams."""

import numpy as np
import pytest
from scipy.special import gamma as gamma_function
from scipy.special import gammaincc

from skocc.model_selection import (
    OnlineFDR,
    conformal_p_values,
    labels_with_rejection,
)

# Weights


def test_weighted_p_values_by_hand():
    p_values = conformal_p_values(
        [0.0, 2.0, 2.5, np.nan], [3.0, 1.0, 2.0], weights=[2, 1, 4, 1],
        calibration_weights=[0.5, 3, 0],
    )  # fmt: skip
    np.testing.assert_allclose(p_values, [2 / 5.5, 4 / 4.5, 7 / 7.5, 1 / 4.5])
    scores, calibration = np.random.default_rng(0).normal(size=(2, 30)).round(1)
    same = conformal_p_values(
        scores, calibration, weights=np.full(30, 7), calibration_weights=np.full(30, 7)
    )
    np.testing.assert_allclose(same, conformal_p_values(scores, calibration))


def test_weights_keep_the_promise_under_covariate_shift():
    """Held-out images have a N(0, 1) feature, new ones N(1, 1); scores fall with it."""
    rng = np.random.default_rng(1)
    plain, weighted = [], []
    for _ in range(400):
        old, new = rng.normal(size=200), rng.normal(1, 1, size=50)
        scores = [-x + rng.normal(scale=0.5, size=len(x)) for x in (new, old)]
        plain.append(np.mean(conformal_p_values(*scores) <= 0.1))
        ratios = {"weights": np.exp(new), "calibration_weights": np.exp(old)}
        weighted.append(np.mean(conformal_p_values(*scores, **ratios) <= 0.1))
    error = np.std(weighted) / 20
    assert np.mean(plain) > 0.25
    assert 0.07 < np.mean(weighted) <= 0.1 + 3 * error


def test_weights_of_groups():
    """A group with one weight in all is one image, however many photographs it has."""
    rng = np.random.default_rng(2)
    pooled, weighted = [], []
    for _ in range(600):
        calibration = np.repeat(rng.normal(size=19), 5)
        new = rng.normal(size=20)
        pooled.append(np.mean(conformal_p_values(new, calibration) <= 0.04))
        p_values = conformal_p_values(
            new, calibration, calibration_weights=np.full(95, 1 / 5)
        )
        weighted.append(np.mean(p_values <= 0.05 + 1e-12))
    assert np.mean(pooled) > 0.045  # 1 / 20, for any rate from 1 / 96
    assert np.mean(weighted) == pytest.approx(0.05, abs=4 * np.std(weighted) / 600**0.5)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"weights": [1, 2, 3]}, r"weights must be.*shape \(3,\) for.*\(2,\).*Pass"),
        ({"weights": [1, 0]}, r"weights of new images.*Got 1 of 0\. Limit"),
        ({"weights": [1, np.nan]}, "1 out of range"),
        ({"calibration_weights": [1, -1, 1]}, "calibration_weights must.*1 out of range"),
        ({"calibration_weights": [1, np.inf, 1]}, "1 out of range"),
    ],
)
def test_errors_of_weights(params, message):
    with pytest.raises(ValueError, match=f"(?s){message}"):
        conformal_p_values([0.0, 1.0], [1.0, 2.0, 3.0], **params)


# Rejection


def test_undecided_band_by_hand():
    labels = labels_with_rejection([0, 0.05, 0.05001, 0.2, 0.3, 1], band=(0.05, 0.2))
    np.testing.assert_array_equal(labels, [-1, -1, 0, 0, 1, 1])
    assert labels.dtype.kind == "i"
    np.testing.assert_array_equal(
        labels_with_rejection([0.1, 0.2], band=[0.1, 0.1]), [-1, 1]
    )
    assert labels_with_rejection([]).shape == (0,)


def test_both_ends_of_the_band_keep_their_rate():
    rng = np.random.default_rng(3)
    labels = np.concatenate([
        labels_with_rejection(
            conformal_p_values(rng.normal(size=20), rng.normal(size=99)), band=(0.05, 0.2)
        )
        for _ in range(1000)
    ])  # fmt: skip
    assert np.mean(labels == -1) == pytest.approx(0.05, abs=0.01)
    assert np.mean(labels < 1) == pytest.approx(0.2, abs=0.02)


@pytest.mark.parametrize(
    "band", [[0.1], (0.2, 0.1), (-0.1, 0.1), (0.1, 1.0), (0.1, np.nan)]
)
def test_bands_out_of_range(band):
    with pytest.raises(ValueError, match=r"band must be two.*Got.*Set for example"):
        labels_with_rejection([0.1], band=band)


# Streams


def level_factor(t):
    return 0.07720838 * np.log(max(t, 2)) / (t * np.exp(np.sqrt(np.log(t))))


def test_levels_by_hand():
    """Discoveries at turns 2 and 4."""
    stream = OnlineFDR(rate=0.1, initial_wealth=0.02)
    assert stream.level_ == pytest.approx(0.02 * level_factor(1))
    stream.update([0.9])
    assert stream.level_ == pytest.approx(0.02 * level_factor(2))
    assert stream.update([1e-9]) == [-1]
    assert stream.level_ == pytest.approx(0.02 * level_factor(3) + 0.08 * level_factor(1))
    np.testing.assert_array_equal(stream.update([0.5, 1e-9, 0.5]), [1, -1, 1])
    assert stream.discoveries_ == [2, 4]
    assert stream.n_seen_ == 5
    assert stream.level_ == pytest.approx(
        0.02 * level_factor(6) + 0.08 * level_factor(4) + 0.1 * level_factor(2)
    )


def test_a_p_value_equal_to_the_level_is_found():
    stream = OnlineFDR()
    assert stream.update([stream.level_]) == [-1]
    assert stream.update([np.nextafter(stream.level_, 1)]) == [1]


def test_the_sequence_adds_up_to_no_more_than_one():
    n = 1_000_000
    turns = np.arange(1, n + 1)
    values = 0.07720838 * np.log(np.maximum(turns, 2))
    total = np.sum(values / (turns * np.exp(np.sqrt(np.log(turns)))))
    # The integral of the rest, by u = sqrt(log(t)): 2 * u**3 * exp(-u).
    rest = 0.07720838 * 2 * gamma_function(4) * gammaincc(4, np.sqrt(np.log(n)))
    assert 0.976 < total + rest < 1
    stream = OnlineFDR(rate=0.5)
    spent = 0.0
    for _ in range(300):
        spent += stream.level_
        stream.update([1.0])
    assert spent < stream.initial_wealth


def test_one_by_one_equals_all_at_once():
    p_values = np.random.default_rng(4).random(200) ** 4
    stream, other = OnlineFDR(rate=0.2), OnlineFDR(rate=0.2)
    labels = stream.update(p_values)
    np.testing.assert_array_equal(
        np.concatenate([other.update([p]) for p in p_values]), labels
    )
    assert 0 < np.sum(labels == -1) < 200


@pytest.mark.parametrize("n_calibration", [None, 20_000])
def test_false_discoveries_of_a_stream(n_calibration):
    """A tenth of 300 images is anomalous; p-values independent, or conformal.

    Found: 1.0 and 0.92; of 2,000 calibration images a quarter, as levels fall below 1/2001.
    """
    rng = np.random.default_rng(5)
    false, power = [], []
    for _ in range(100):
        is_anomaly = rng.random(300) < 0.1
        scores = rng.normal(size=300) - 5 * is_anomaly
        if n_calibration is None:
            p_values = np.where(is_anomaly, 1e-7, rng.random(300))
        else:
            p_values = conformal_p_values(scores, rng.normal(size=n_calibration))
        found = OnlineFDR(rate=0.2).update(p_values) == -1
        false.append(np.sum(found & ~is_anomaly) / max(1, found.sum()))
        power.append(np.mean(found[is_anomaly]))
    assert np.mean(false) <= 0.2 + 3 * np.std(false) / 10
    assert np.mean(power) > 0.5


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"rate": 0}, "rate must be a number between"),
        ({"initial_wealth": 0.1}, r"at most the rate\. Got 0\.1 with rate=0\.05\. Set"),
        ({"initial_wealth": 0}, "initial_wealth must be more than 0"),
        ({"initial_wealth": "x"}, "initial_wealth must be more than 0"),
    ],
)
def test_errors_of_streams(params, message):
    with pytest.raises(ValueError, match=message):
        OnlineFDR(**params)


def test_a_refused_p_value_leaves_the_stream_as_it_was():
    stream = OnlineFDR()
    with pytest.raises(ValueError, match=r"in \[0, 1\].*to 2\.0.*Pass"):
        stream.update([1e-9, 2.0])
    assert stream.n_seen_ == 0
