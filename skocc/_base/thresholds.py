"""Thresholds of detectors from the scores of their training images."""

import numpy as np

# Scores whose relative difference is at most this are ties.
TIE = 1e-6


def below_ties(offset: float, scores: np.ndarray) -> float:
    """Return a threshold, moved below the scores that equal it up to rounding.

    The last digits of a score depend on the batch in which it is computed. Ties at the
    threshold count as normal, so no label of a training image depends on these digits.

    Parameters
    ----------
    offset : float
        The threshold.
    scores : ndarray of shape (n,), float64
        Scores of the training images.

    Returns
    -------
    offset : float
    """
    margin = TIE * np.max(np.abs(scores))
    ties = scores[np.abs(scores - offset) <= margin]
    return float(ties.min() - margin) if ties.size and margin > 0 else offset
