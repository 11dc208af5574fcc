"""One detector of a comparison on one split: fitted, timed, scored."""

import ctypes
import gc
import os
import signal
import sys
import threading
import time
import warnings
from contextlib import contextmanager, suppress

import numpy as np
from sklearn.base import clone

from skocc.metrics._weighted import summarize_pixels
from skocc.model_selection._indexing import take
from skocc.model_selection._maps import anomaly_map_of, has_maps, last_step

# Images whose heat maps are in memory at a time.
_N_MAPS = 16
# The contours of examples: the value that this fraction of held-out normal images exceeds
# anywhere, from at most so many of them.
_EXCEEDED, _N_FOR_THRESHOLD = 0.05, 100
_SECONDS_BETWEEN_SAMPLES = 0.01
_MIB = 2**20


def fit_and_score(detector, problem, fold):
    """Fit a clone on the training part of a split, and score the other part.

    Parameters
    ----------
    detector : estimator
    problem : Problem
    fold : int
        Index of the split.

    Returns
    -------
    values : dict of str to float, None or list of str
        What was measured; "warnings" are the texts of those that were raised.
    arrays : dict of str to ndarray
        "scores" of the samples that were not trained on, and what depends on the problem:
        points of the heat maps, scores of uniform samples, heat maps of examples.
    """
    train, test = problem.folds[fold]
    with _warnings_noted() as notes, ctrl_c_ends_all(), PeakMemory() as memory:
        start = time.perf_counter()
        fitted = clone(detector).fit(take(problem.X, train))
        fit_seconds = time.perf_counter() - start
        X_test = take(problem.X, test)
        start = time.perf_counter()
        scores = scores_of(fitted, X_test)
        score_seconds = time.perf_counter() - start
    values = {
        "fit_seconds": fit_seconds,
        "ms_per_image": 1000 * score_seconds / len(test),
        "peak_mib": memory.peak_mib,
        "threshold": _threshold(fitted),
    }
    arrays = {"scores": scores}
    if problem.uniform is not None:
        arrays["uniform_scores"] = scores_of(fitted, problem.uniform)
    if has_maps(fitted):
        if problem.masks is not None:
            values |= _rank_pixels(fitted, problem, test, arrays)
        if fold == 0 and problem.n_examples:
            values["pixel_threshold"] = _map_examples(fitted, problem, test, arrays)
    return values | {"warnings": notes}, arrays


def scores_of(fitted, X):
    """Return scores (n_samples,), float64, higher for more normal samples."""
    name = "score_samples" if hasattr(fitted, "score_samples") else "decision_function"
    scores = np.asarray(getattr(fitted, name)(X), dtype=np.float64)
    if scores.ndim != 1:
        raise ValueError(
            f"{name} must return one score for each sample. Got an array of shape "
            f"{scores.shape}. Return one of shape (n_samples,)."
        )
    return scores


def example_indices(scores, is_anomaly, n_examples):
    """Return the places of the worst misses and of the worst false alarms.

    Parameters
    ----------
    scores : ndarray of shape (n_samples,)
    is_anomaly : ndarray of shape (n_samples,), bool
    n_examples : int
        Of each, at most.

    Returns
    -------
    misses, false_alarms : ndarray of int
        The most normal anomalies, and the most anomalous normal samples, the worst first.
    """
    lowest_first = np.argsort(np.where(np.isnan(scores), -np.inf, scores), kind="stable")
    anomalies = lowest_first[is_anomaly[lowest_first]]
    return anomalies[::-1][:n_examples], lowest_first[~is_anomaly[lowest_first]][
        :n_examples
    ]


def _rank_pixels(fitted, problem, test, arrays):
    """Return metrics of the pixels, and add the points of the maps to the arrays."""
    # An anomaly without a mask has a defect somewhere.
    has_mask, is_anomaly = problem.has_mask[test], problem.is_anomaly[test]
    if not (has_mask & is_anomaly).any():
        return {}
    known = has_mask | ~is_anomaly
    masks = (problem.masks[i] for i in test[known])
    metrics, points = summarize_pixels(masks, _maps(fitted, problem.X, test[known]))
    # As rows of X, which several splits share.
    points["images"] = test[known][points["images"]]
    arrays |= {f"pixels/{name}": column for name, column in points.items()}
    return metrics


def _map_examples(fitted, problem, test, arrays):
    """Add the maps of the examples to the arrays, and return the threshold of contours."""
    is_anomaly = problem.is_anomaly[test]
    chosen = example_indices(arrays["scores"], is_anomaly, problem.n_examples)
    for name, places in zip(("misses", "false_alarms"), chosen, strict=True):
        for place, heat in zip(places, _maps(fitted, problem.X, test[places]), strict=True):
            arrays[f"examples/{name}/{place}"] = _small(np.asarray(heat, np.float32))
    return _pixel_threshold(fitted, problem.X, test[~is_anomaly])


def _pixel_threshold(fitted, X, normal):
    """Return the threshold of heat maps: of the detector, or from images held out."""
    known = getattr(last_step(fitted), "pixel_threshold_", None)
    if known is not None:
        return float(known)
    maps = _maps(fitted, X, normal[:_N_FOR_THRESHOLD])
    return float(np.quantile([np.max(heat) for heat in maps], 1 - _EXCEEDED))


def _small(heat, largest=256):
    """Return a map of at most so many pixels a side, of which some are left out."""
    step = -(-max(heat.shape) // largest)
    return np.ascontiguousarray(heat[::step, ::step])


def _maps(fitted, X, indices):
    """Yield the heat map of each image, at its size."""
    for start in range(0, len(indices), _N_MAPS):
        yield from anomaly_map_of(fitted, take(X, indices[start : start + _N_MAPS]))


def _threshold(fitted):
    """Return the threshold of the scores, None where the detector keeps it to itself."""
    offset = getattr(last_step(fitted), "offset_", None)
    return None if offset is None else float(np.ravel(offset)[0])


@contextmanager
def _warnings_noted():
    """Yield a list that holds the texts of warnings at the end, which are raised again."""
    notes = []
    with warnings.catch_warnings(record=True) as caught:
        try:
            yield notes
        finally:
            found = list(caught)
            notes += dict.fromkeys(str(one.message) for one in found)
    for one in found:
        warnings.warn_explicit(one.message, one.category, one.filename, one.lineno)


@contextmanager
def ctrl_c_ends_all():
    """Raise KeyboardInterrupt at the end of the block if Ctrl-C was pressed in it.

    Detectors take it as the end of a stage alone, and what they have learned until then is
    no result to keep.
    """
    before, pressed = signal.getsignal(signal.SIGINT), []
    if threading.current_thread() is not threading.main_thread() or not callable(before):
        yield
        return

    def note(number, frame):
        pressed.append(number)
        return before(number, frame)

    signal.signal(signal.SIGINT, note)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if pressed:
        raise KeyboardInterrupt


class PeakMemory:
    """Measure how much resident memory is added while the block runs.

    Attributes
    ----------
    peak_mib : float
        Largest addition in MiB, of samples 10 ms apart; NaN where the system does not tell
        it in ``/proc``, as Linux does.
    """

    def __enter__(self):
        gc.collect()
        # glibc keeps what earlier detectors have freed: what this one adds would be hidden.
        with suppress(AttributeError, OSError, TypeError):
            ctypes.CDLL(None).malloc_trim(0)
        self._first = self._highest = _resident_bytes()
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        if not np.isnan(self._first):
            self._thread.start()
        return self

    def __exit__(self, *_):
        self._done.set()
        if self._thread.is_alive():
            self._thread.join()
        self._highest = max(self._highest, _resident_bytes())
        self.peak_mib = float((self._highest - self._first) / _MIB)

    def _watch(self):
        while not self._done.wait(_SECONDS_BETWEEN_SAMPLES):
            self._highest = max(self._highest, _resident_bytes())


def _resident_bytes():
    """Return the resident memory of this process, NaN where it is not known."""
    if not sys.platform.startswith("linux"):
        return np.nan
    try:
        with open("/proc/self/statm") as file:
            return float(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, IndexError, ValueError):
        return np.nan
