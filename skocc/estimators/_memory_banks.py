"""Memory banks of a detector: how they are filled in `fit`, and grow in `partial_fit`."""

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import torch

from skocc._base.detector import Run
from skocc._base.private_sklearn import fit_context
from skocc._engine.ambient import isolated
from skocc._engine.batches import ImageBatches
from skocc._engine.inference import stream_batches
from skocc._ops.memory_bank import BankSearch, MemoryBank, TrainingVectors
from skocc._ops.neighbors import exact_distances
from skocc._ops.scores import reweighting
from skocc._ops.tensors import tensor_view
from skocc._samples.log import logger
from skocc._samples.progress import track


class GrowingBanksMixin:
    """Mixin for detectors with memory banks, which `partial_fit` adds images to.

    The detector implements ``_grow(images, run)``, which adds images to what it has: it
    replaces its banks, and sets `run.scores` for these images, or for all images so far.
    """

    train_scores_: np.ndarray
    train_map_maxima_: np.ndarray
    _learn: Callable
    _grow: Callable

    def partial_fit(self, X, y=None):
        """Add normal images to what was learned from others.

        The first call is a `fit`. In later ones the network stays as it is, and the memory
        banks grow. Read more in the :ref:`User Guide <growing_banks>`.

        .. versionadded:: 0.1

        Parameters
        ----------
        X : images or paths
            Normal images only, of the shape of those in the first call; a later call may
            have a single one.
        y : Ignored
            Present for scikit-learn. Labels of anomalies raise a warning, because they are
            being trained on.

        Returns
        -------
        self : estimator
            The fitted estimator.

        Raises
        ------
        ValueError
            X or a parameter is not usable, or X has another shape than in the first call.
            The estimator is then as it was before.

        Notes
        -----
        If the banks hold all vectors, before and after, the estimator is that of a `fit` on
        all images in the same order, to the last bit on a CPU for parts of whole batches.
        The training scores of all images are computed anew.

        If a budget leaves vectors out, those of the new images enter under the same budget.
        Random vectors are a random part of all that were ever given. A coreset is chosen
        from the bank and the new vectors, see :ref:`User Guide <growing_banks>`. The new
        images are scored in the new bank. Earlier images, of which vectors are missing,
        keep the scores of the call that they came in.

        Each call draws from a stream of its own, which an integer `random_state` and the
        number of images so far determine.
        """
        if not hasattr(self, "offset_"):
            return self.fit(X, y)
        return self._add(X, y)

    # Not `partial_fit` itself, whose parameters scikit-learn would check only once.
    @fit_context(prefer_skip_nested_validation=True)
    @isolated
    def _add(self, X, y):
        return self._learn(
            X, y, self._grow, is_warm=True, min_samples=1, n_before=len(self.train_scores_)
        )

    def _score_training(self, images, run):
        """Return the scores of all images so far, of which some may keep what they had."""
        n_samples = run.n_before + len(images)
        scores, maxima = (
            getattr(self, name, None) for name in ("train_scores_", "train_map_maxima_")
        )
        result = super()._score_training(images, run)
        if len(result.scores) < n_samples:
            result = result._replace(scores=np.concatenate([scores, result.scores]))
            if maxima is None:  # of a file before maps had a threshold
                del self.train_map_maxima_
            else:
                self.train_map_maxima_ = np.concatenate([maxima, self.train_map_maxima_])
        self.n_samples_seen_ = n_samples
        return result

    def _check_seen(self):
        """Set `n_samples_seen_` where a file has none, or check it."""
        n_samples = len(self.train_scores_)
        if getattr(self, "n_samples_seen_", n_samples) != n_samples:
            raise ValueError(f"n_samples_seen_={self.n_samples_seen_} of {n_samples}")
        self.n_samples_seen_ = n_samples


def filled_banks(
    detector,
    network,
    embed: Callable,
    images,
    run: Run,
    banks: Sequence[MemoryBank],
    *,
    n_each: Sequence[int],
    n_features: int,
    n_kept: Callable,
    fraction: float = 1.0,
    n_turns: int = 1,
) -> tuple[list[MemoryBank], list | None]:
    """Return memory banks of images, and the vectors of these for their own scores.

    Parameters
    ----------
    detector : estimator
        With the parameters `batch_size` and `subsampling`.
    network : nn.Module
        On the device of the run.
    embed : callable
        Function from a batch to the vectors (m, d) for each bank, image by image.
    images : image source
    run : Run
    banks : sequence of MemoryBank
        Banks that grow; none in a fit.
    n_each : sequence of int
        Number of vectors of an image in each bank.
    n_features : int
        Size d of a vector.
    n_kept : callable
        Function from the number of vectors of all images, a list with a number for each
        bank, to how many are kept.
    fraction : float, default=1.0
        As in :meth:`MemoryBank.grown`.
    n_turns : int, default=1
        In how many turns the vectors of an image are. The first are those of its scores.

    Returns
    -------
    banks : list of MemoryBank
    batches : list or None
        As :meth:`TrainingVectors.batches` returns them.
    """
    n_vectors = [len(images) * n for n in n_each]
    # More than it seems were put in before `set_params` has asked for fewer turns.
    sizes = [len(bank) for bank in banks] or [0] * len(n_each)
    n_full = [run.n_before * n for n in n_each]
    n_before = [max(n, size) for n, size in zip(n_full, sizes, strict=True)]
    n_all = [old + new for old, new in zip(n_before, n_vectors, strict=True)]
    kept = n_kept(n_all)
    are_all = sizes == n_full and kept == n_all
    has_groups = run.source.groups is not None
    all_vectors = TrainingVectors(n_vectors, are_all, n_features, n_turns, has_groups)
    digests = all_vectors.digests  # filled as the blocks come
    blocks = stream_batches(
        network,
        ImageBatches(images, detector.batch_size, device=run.device),
        lambda batch: all_vectors.add(batch, embed(batch)),
        stage="memory bank",
    )
    options = {
        "subsampling": detector.subsampling,
        "generator": run.generator,
        "track": partial(track, stage="coreset", unit="vector"),
        "groups": run.source.groups,
    }
    name = type(detector).__name__
    logger.info("%s: memory bank keeps %s of %s vectors", name, kept, n_all)
    new = blocks, digests, n_vectors, kept
    if banks:
        banks = MemoryBank.grown(banks, n_before, *new, fraction=fraction, **options)
    else:
        banks = MemoryBank.of_streams(*new, n_features, **options)
    return banks, all_vectors.batches(banks, int(detector.batch_size))


def check_neighbors(bank: MemoryBank, n_neighbors: int) -> None:
    """Raise a ValueError for a bank in which some training image finds too few."""
    n_others = bank.n_others()
    if n_others < n_neighbors:
        raise ValueError(
            f"Every image needs {n_neighbors} vectors of other images in the bank. Got "
            f"a bank of {len(bank)}, {n_others} beside some image. Pass more images, set "
            "n_neighbors=1, or raise bank_fraction or max_bank_bytes."
        )


def patchcore_weights(
    bank: MemoryBank,
    search: BankSearch,
    m_test: torch.Tensor,
    m_star: torch.Tensor,
    numbers: torch.Tensor,
    n: int,
) -> torch.Tensor:
    """Return PatchCore's weights (b,) of the scores of images (Eq. 7), in [0, 1).

    Parameters
    ----------
    bank : MemoryBank
    search : BankSearch
        Of the bank.
    m_test : Tensor of shape (b, d)
        Features of the farthest cell of each image.
    m_star : Tensor of shape (b,), int64
        Row of the bank that is nearest to it, on the CPU.
    numbers : Tensor of shape (b,)
        As :meth:`MemoryBank.numbers_of` returns them.
    n : int
        Number of vectors around `m_star`, itself among them.
    """
    vectors = tensor_view(bank.vectors)
    nearest = vectors[m_star].to(m_test.device)
    _, around = search.nearest(nearest, numbers, min(n, bank.n_others()))
    distances = exact_distances(m_test.cpu(), vectors, around.cpu())
    return reweighting(distances, vectors.shape[1])
