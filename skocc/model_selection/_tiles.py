"""A meta-estimator that scores large images by their tiles."""

from functools import partial
from numbers import Integral, Real

import numpy as np
from sklearn.base import BaseEstimator, MetaEstimatorMixin, OutlierMixin, clone
from sklearn.frozen import FrozenEstimator
from sklearn.pipeline import Pipeline
from sklearn.utils import get_tags
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import check_is_fitted

from skocc._base.constraints import IMAGE_CONSTRAINTS
from skocc._base.fitted import IMAGE_ATTRIBUTES, MAP_ATTRIBUTES, Fitted, FittedMixin
from skocc._base.private_sklearn import HasMethods, Interval, fit_context
from skocc._base.reading import compare, remember, unchanged_on_error
from skocc._base.thresholds import (
    ContaminationMixin,
    PixelThresholdMixin,
    highest_value,
    is_above,
    pixel_threshold,
)
from skocc._samples.sources import resize_array
from skocc._samples.tiles import Tiles, decoded_bytes, sizes_of
from skocc._samples.validation import (
    check_image_size,
    check_map_size,
    read_images,
    warn_about_anomalies,
)
from skocc._samples.warnings import warn
from skocc.model_selection._conformal import finite_scores
from skocc.model_selection._maps import anomaly_map_of, has_maps, last_step
from skocc.model_selection._stitching import StitchedMap

# Bytes of the heat maps of tiles that are computed before they are stitched.
_MAP_BYTES = 2**26


def _gives_maps(tiled):
    """Return whether the detector has heat maps, or raise an AttributeError."""
    return callable(last_step(tiled._a_detector()).anomaly_map)


class TiledDetector(
    FittedMixin,
    MetaEstimatorMixin,
    PixelThresholdMixin,
    ContaminationMixin,
    OutlierMixin,
    BaseEstimator,
):
    r"""Find small defects in large images, by a detector of their overlapping tiles.

    A network sees a photograph of many megapixels reduced to a few hundred pixels a side,
    in which a defect of a dozen pixels is gone. Here each photograph is cut into tiles, on
    which the detector is fitted and which it scores; the most anomalous tile is the score
    of the photograph, and the heat maps of the tiles are stitched to one of its size. Read
    more in the :ref:`User Guide <large_images>`.

    .. versionadded:: 0.1

    Parameters
    ----------
    detector : estimator
        A detector of skocc, a :class:`DetectorEnsemble` of such, or a Pipeline that begins
        with a transformer of ``skocc.feature_extraction``. It reads the tiles as it
        reads images: its `image_size` resizes them, its `intensity_range` scales them. A
        detector in a :class:`~sklearn.frozen.FrozenEstimator` is used as it was fitted.
    tile_size : int or tuple (H, W), default=256
        Size of a tile in pixels. No photograph may be smaller.
    overlap : float in [0, 1), default=0.25
        Fraction of the sides of a tile that the next one covers as well, rounded to pixels.
        A defect no larger than the overlap lies within some tile as a whole.
    position_aware : bool, default=False
        Whether one detector is fitted for each place of a tile, which then knows what is
        normal there. All photographs must have one size, and show things that always lie
        alike.
    max_cache_bytes : int, default=2**29
        Bytes that decoded photographs may take in `fit`, so that they need not be decoded
        again: for training, which reads tiles in random order, for detectors of each
        position, and for a second pass. The least are three photographs, and 128 MiB.
    contamination : float in (0, 0.5], default=0.1
        Fraction of the training photographs called anomalous; it sets `offset_`. That of
        the detector is about its tiles, and sets nothing here.
    image_shape : tuple (H, W) or (H, W, C), default=None
        Shape of the photographs in flattened rows, in pixels; one entry may be -1. That of
        the detector would be about its tiles.

    Attributes
    ----------
    detector_ : estimator
        The fitted detector. Not there if `detectors_` is.
    detectors_ : list of estimator
        With `position_aware`, the fitted detectors, row by row.
    offset_ : float
        Threshold: ``decision_function(X) = score_samples(X) - offset_``.
    train_scores_ : ndarray of shape (n_samples,), float64
        Scores of the training photographs.
    pixel_threshold_ : float
        Threshold of heat maps, which `contamination` sets for `train_map_maxima_`:
        `anomaly_mask` marks what is above it. If the detector has heat maps.
    train_map_maxima_ : ndarray of shape (n_samples,), float64
        Highest value of the stitched map of each training photograph. If the detector has
        heat maps.
    collapsed_ : bool
        Whether a detector has collapsed, where it says so.
    image_shape_ : tuple
        (H, W, C) of the photographs; H and W are -1 without `position_aware`, for later
        ones may have any size.
    n_features_in_ : int
        Values per photograph, if all of the training had one size.
    feature_names_in_ : ndarray of shape (`n_features_in_`,)
        Names of the columns, where X was a table with names that are all text.

    See Also
    --------
    ThresholdTuner : Takes a TiledDetector, and bounds its false alarms.
    skocc.ResNetKNN : Needs no training, which suits few photographs of many tiles.

    Notes
    -----
    Along each side, tiles of L pixels begin every ``L - o`` pixels, with an overlap of o;
    the last one is moved inwards, to end with the photograph. Where tiles overlap, the map
    is the weighted mean of theirs,

    .. math::

       m(y, x) = \frac{\sum_k w(y - y_k) \, w(x - x_k) \, m_k(y - y_k, x - x_k)}
                      {\sum_k w(y - y_k) \, w(x - x_k)}, \qquad
       w(i) = \min\left(1, \frac{i + 1/2}{o}, \frac{L - i - 1/2}{o}\right)

    so that the border of a tile, where a network sees nothing beyond it, counts least.

    **Thresholds** are those of photographs. A memory bank (``ResNetKNN``, ``PatchSVDD``)
    leaves all tiles of a photograph out of the scores of each of them: a tile would find
    its own pixels in those that overlap it. Detectors that train are scored on what they
    were trained on, as they are without tiles; so is LocalOutlierFactor, for it leaves out
    the tile alone. Take a :class:`ThresholdTuner` for these. As a photograph has hundreds
    of tiles, its score is the extreme of hundreds.

    **Files** are decoded in the background, once for each pass over the tiles in order, as
    long as the memory of a batch and three photographs. Nothing is written to disk. `fit`
    of ResNetKNN makes two passes, the second for `train_map_maxima_`, and a third if its
    features take more than 128 MiB. Training decodes the photographs of each batch, unless
    `max_cache_bytes` holds them all. A torch data set is read once more at first, for the
    sizes.

    Examples
    --------
    Stripes, and stripes with a small spot. Random weights suffice here, and need no
    download:

    >>> import numpy as np
    >>> from skocc import ResNetKNN
    >>> from skocc.model_selection import TiledDetector
    >>> rng = np.random.default_rng(0)
    >>> stripes = np.sin(np.arange(56)) + rng.normal(scale=0.1, size=(12, 56, 56))
    >>> spotted = stripes[8:].copy()
    >>> spotted[:, 40:44, 30:34] = 0
    >>> detector = ResNetKNN(
    ...     backbone="resnet18", weights=None, layers=("relu",), image_size=None,
    ...     device="cpu", random_state=0,
    ... )
    >>> tiled = TiledDetector(detector, tile_size=32).fit(stripes[:8])
    >>> scores = tiled.score_samples(stripes[8:])
    >>> bool(scores.min() > tiled.score_samples(spotted).max())
    True
    >>> maps = tiled.anomaly_map(spotted)
    >>> maps.shape
    (4, 56, 56)
    >>> bool(maps[:, 40:44, 30:34].mean() > 2 * maps.mean())
    True
    """

    _parameter_constraints: dict = {
        "detector": [HasMethods(["fit", "score_samples"])],
        "tile_size": [Interval(Integral, 1, None, closed="left"), tuple, list],
        "overlap": [Interval(Real, 0, 1, closed="left")],
        "position_aware": ["boolean"],
        "max_cache_bytes": [Interval(Integral, 0, None, closed="left")],
        "contamination": [Interval(Real, 0, 0.5, closed="right")],
        "image_shape": IMAGE_CONSTRAINTS["image_shape"],
    }
    _fitted_attributes = {
        **IMAGE_ATTRIBUTES,
        "offset_": Fitted("float"),
        "train_scores_": Fitted("float64", ("n",)),
        **MAP_ATTRIBUTES,
    }
    # What `skocc.save` writes as parts.
    _part_names = ("detector", "detector_", "detectors_")

    def __init__(
        self,
        detector,
        *,
        tile_size=256,
        overlap=0.25,
        position_aware=False,
        max_cache_bytes=2**29,
        contamination=0.1,
        image_shape=None,
    ):
        self.detector = detector
        self.tile_size = tile_size
        self.overlap = overlap
        self.position_aware = position_aware
        self.max_cache_bytes = max_cache_bytes
        self.contamination = contamination
        self.image_shape = image_shape

    # The detector checks its own parameters.
    @fit_context(prefer_skip_nested_validation=False)
    def fit(self, X, y=None):
        """Fit the detector on the tiles of normal photographs.

        Parameters
        ----------
        X : images or paths
            Normal photographs only, at least two, which may differ in size: whatever
            detectors of skocc take, see :ref:`images_in`.
        y : Ignored
            Present for scikit-learn. Labels of anomalies raise a warning.

        Returns
        -------
        self : TiledDetector
            Fitted.

        Raises
        ------
        ValueError
            A photograph is smaller than a tile, or tiles do not move on with so much
            overlap; with `position_aware`, photographs differ in size; a Pipeline hides
            from a memory bank which photograph a tile is from; or X is not usable.

        Warns
        -----
        UserWarning
            The photographs are decoded again and again, because `max_cache_bytes` does not
            hold them.
        """
        warn_about_anomalies(y)
        self._check_steps()
        with unchanged_on_error(self):
            tiles = self._read(X, reset=True)
            shares = [tiles]
            if self.position_aware:
                n = len(tiles) // len(tiles.grids)
                shares = [tiles.take(tiles.firsts + place) for place in range(n)]
            detectors = [_fitted(clone(self.detector), share) for share in shares]
            self._set_parts(detectors)
            pairs = zip(detectors, shares, strict=True)
            scores = np.stack([_train_scores(*pair) for pair in pairs], axis=1)
            self.train_scores_ = _of_photographs(scores.ravel(), tiles)
            vars(self).pop("train_map_maxima_", None)  # of an earlier fit
            vars(self).pop("pixel_threshold_", None)
            if has_maps(self):
                found = [highest_value(heat) for heat, _ in self._stitched(tiles)]
                self.train_map_maxima_ = np.array(found)
            self._set_offset()
        return self

    def score_samples(self, X):
        """Score photographs: higher is more normal.

        Parameters
        ----------
        X : images or paths
            As in `fit`, of any size that is no less than that of a tile; with
            `position_aware`, of the size in `fit`.

        Returns
        -------
        scores : ndarray of shape (n_samples,), float64
            The lowest score of the tiles of each photograph.

        Raises
        ------
        ValueError
            X is not usable, or has other channels than in `fit`.
        """
        check_is_fitted(self)
        tiles = self._read(X, reset=False)
        scores = np.empty(len(tiles))
        for detector, indices in self._shares(tiles, len(tiles)):
            scores[indices] = detector.score_samples(tiles.take(indices))
        return _of_photographs(scores, tiles)

    @available_if(_gives_maps)
    def anomaly_map(self, X, *, size="input", return_scores=False):
        """Score every pixel by the maps of the tiles: higher is more anomalous.

        Parameters
        ----------
        X : images or paths
            As in `score_samples`.
        size : {"input", "model"}, int or tuple (H, W), default="input"
            Size of the maps in pixels. "input" and "model" are the size of each photograph,
            for this is where tiles are stitched; any other is resized to from it.
        return_scores : bool, default=False
            Whether to return the scores of the photographs as well, from the same pass.

        Returns
        -------
        maps : ndarray of shape (n_samples, H, W), or list of ndarray (H, W), float32
            A map for each photograph. A list if they differ in size.
        scores : ndarray of shape (n_samples,), float64
            Those of `score_samples`. Only returned if `return_scores` is True.

        Raises
        ------
        ValueError
            X is not usable, or `size` is no size.

        Notes
        -----
        All maps are in memory, 4 bytes per pixel: 48 MB for a photograph of 12 megapixels.
        For many photographs ask for a smaller `size`, or pass them in parts.
        """
        of_map = partial(np.asarray, dtype=np.float32)
        maps, scores = self._maps(X, size, np.float32, of_map, return_scores)
        return (maps, scores) if return_scores else maps

    @available_if(_gives_maps)
    def anomaly_mask(self, X, *, size="input", threshold=None):
        """Mark the pixels whose value in `anomaly_map` is above a threshold.

        Parameters
        ----------
        X : images or paths
            As in `score_samples`.
        size : {"input", "model"}, int or tuple (H, W), default="input"
            Size of the masks in pixels, as in `anomaly_map`.
        threshold : float, default=None
            Value of a map above which a pixel is anomalous. None: `pixel_threshold_`.

        Returns
        -------
        masks : ndarray of shape (n_samples, H, W), or list of ndarray (H, W), bool
            True is anomalous. A list where `anomaly_map` returns one.

        Raises
        ------
        ValueError
            X is not usable, `size` is no size, or `threshold` is no number.
        """
        check_is_fitted(self)
        threshold = pixel_threshold(self, threshold)
        return self._maps(X, size, bool, lambda heat: is_above(heat, threshold))[0]

    @property
    def collapsed_(self):
        """Whether a detector has collapsed."""
        if not hasattr(self, "offset_"):
            raise AttributeError(f"{type(self).__name__} is not fitted")
        return any(last_step(part).collapsed_ for _, part in self._named_parts())

    @property
    def _train_scores_leave_one_out(self):
        last = last_step(self.detector)
        is_frozen = isinstance(last, FrozenEstimator)  # it was fitted on other images
        return not is_frozen and getattr(last, "_train_scores_leave_one_out", False)

    def __sklearn_is_fitted__(self):
        return hasattr(self, "offset_")

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        try:
            tags.input_tags = get_tags(self.detector).input_tags
        except (AttributeError, TypeError, ValueError):  # no detector, which fit reports
            return tags
        # Rows are flattened photographs, whatever the detector makes of rows.
        tags.input_tags.two_d_array = self.image_shape is not None
        return tags

    def _read(self, X, *, reset):
        """Return X as tiles, and store the shape of the photographs or compare it."""
        tile_size, overlap = self._sides()
        intensity_range = _intensity_range(self.detector)
        name, like = type(self).__name__, None if reset else self.image_shape_
        read = partial(
            read_images, X, image_shape=self.image_shape, mixed_sizes=True, name=name
        )
        photographs = read(
            intensity_range=intensity_range, like=like, min_samples=1 + reset
        )
        if self.position_aware:
            _check_one_size(photographs, like)
        (remember if reset else compare)(self, X, photographs)
        if reset and not self.position_aware:
            self.image_shape_ = (-1, -1, photographs.shape[-1])
        stride = [side - width for side, width in zip(tile_size, overlap, strict=True)]
        n_bytes = self.max_cache_bytes if reset else 0
        tiles = Tiles(
            photographs,
            partial(_read_again, read, is_fit=reset),
            intensity_range,
            tile_size,
            tuple(stride),
            n_bytes,
        )
        if reset:
            self._warn_about_decoding(photographs)
        return tiles

    def _sides(self):
        """Return the sides of a tile and their overlap in pixels, both (height, width)."""
        try:
            sides = check_image_size(self.tile_size)
        except ValueError:
            raise ValueError(
                "tile_size must be one number of pixels or (H, W), both positive. Got "
                f"{self.tile_size!r}. Set for example tile_size=(256, 256)."
            ) from None
        overlap = tuple(round(self.overlap * side) for side in sides)
        if any(width >= side for side, width in zip(sides, overlap, strict=True)):
            raise ValueError(
                "Tiles must begin at least one pixel apart. Got "
                f"overlap={self.overlap!r} of tiles of {sides[0]} x {sides[1]} pixels, "
                "which is all of a side. Set a smaller overlap, for example 0.5."
            )
        return sides, overlap

    def _shares(self, tiles, n_tiles):
        """Yield each detector with the indices of tiles that it scores together.

        Without `position_aware` these are at most `n_tiles`; with it, one of each of a few
        photographs, which are all decoded.
        """
        if not self.position_aware:
            for start in range(0, len(tiles), n_tiles):
                end = min(start + n_tiles, len(tiles))
                yield self.detector_, np.arange(start, end)
            return
        n_together = tiles.n_together()
        for start in range(0, len(tiles.firsts), n_together):
            firsts = tiles.firsts[start : start + n_together]
            for place, detector in enumerate(self.detectors_):
                yield detector, firsts + place

    def _stitched(self, tiles, with_scores=False):
        """Yield the map (H, W) of each photograph, and the scores of its tiles or None."""
        sides, overlap = self._sides()
        options = {"return_scores": True} if with_scores else {}
        scores = np.empty(len(tiles)) if with_scores else None
        started, n_done = {}, 0
        n_tiles = max(1, _MAP_BYTES // (4 * sides[0] * sides[1]))
        for detector, indices in self._shares(tiles, n_tiles):
            maps = anomaly_map_of(detector, tiles.take(indices), **options)
            if with_scores:
                maps, scores[indices] = maps
            for index, heat in zip(indices.tolist(), maps, strict=True):
                _check_map(heat, sides)
                number = int(tiles.groups[index])
                if number not in started:
                    started[number] = StitchedMap(*tiles.grids[number], sides, overlap)
                started[number].add(index - int(tiles.firsts[number]), heat)
            while n_done in started and not started[n_done].n_missing:
                yield started.pop(n_done).heat, scores
                n_done += 1

    def _scores_and_map_maxima(self, X):
        """Return scores and the maxima of maps, both (n,), from one pass."""
        check_is_fitted(self)
        tiles, maxima, scores = self._read(X, reset=False), [], None
        for heat, scores in self._stitched(tiles, with_scores=True):  # noqa: B007
            maxima.append(highest_value(heat))
        return _of_photographs(scores, tiles), np.array(maxima)

    def _maps(self, X, size, dtype, of_map, with_scores=False):
        """Return a function of the map of each photograph in a size, and the scores."""
        check_is_fitted(self)
        size = check_map_size(size)
        tiles = self._read(X, reset=False)
        sides = self._sides()[0]
        sizes = [
            tuple(c[-1] + n for c, n in zip(g, sides, strict=True)) for g in tiles.grids
        ]
        sizes = sizes if isinstance(size, str) else [size] * len(sizes)
        is_one_size = len(set(sizes)) == 1
        maps = np.empty((len(sizes), *sizes[0]), dtype) if is_one_size else []
        scores = None
        found = enumerate(self._stitched(tiles, with_scores))
        for index, (heat, scores) in found:  # noqa: B007
            if heat.shape != sizes[index]:
                heat = resize_array(heat[:, :, np.newaxis], sizes[index])[:, :, 0]
            if is_one_size:
                maps[index] = of_map(heat)
            else:
                maps.append(of_map(heat))
        return maps, _of_photographs(scores, tiles) if with_scores else None

    def _check_maps(self):
        _gives_maps(self)

    def _a_detector(self):
        """Return one of the fitted detectors, or that which will be fitted."""
        parts = [part for _, part in self._named_parts()]
        return parts[0] if parts else self.detector

    def _named_parts(self):
        """Return pairs of a name and a fitted detector."""
        if hasattr(self, "detectors_"):
            return [(str(place), part) for place, part in enumerate(self.detectors_)]
        return [("detector", self.detector_)] if hasattr(self, "detector_") else []

    def _set_parts(self, detectors):
        """Set the fitted detectors."""
        vars(self).pop("detector_", None)
        vars(self).pop("detectors_", None)
        if self.position_aware:
            self.detectors_ = detectors
        else:
            (self.detector_,) = detectors

    @classmethod
    def _of_parts(cls, pairs, fitted, params):
        """Return an estimator with fitted detectors; `pairs` are unfitted, by name."""
        tiled = cls(pairs[0][1], **params)
        tiled._validate_params()
        tiled._set_parts(fitted)
        names = [name for name, _ in tiled._named_parts()]
        if [name for name, _ in pairs] != names:
            raise ValueError("its detectors have other names than places of tiles")
        return tiled

    def _check_loaded(self):
        n_tiles, (sides, overlap) = 1, self._sides()
        if self.position_aware:
            sizes = zip(self.image_shape_[:2], sides, overlap, strict=True)
            for size, side, width in sizes:
                n_tiles *= 1 + max(0, -(-(size - side) // (side - width)))
        n_parts = len(self._named_parts())
        kinds = {type(part) for _, part in self._named_parts()}
        has_size = len(self.image_shape_) == 3 and self.image_shape_[0] != -1
        if n_parts != n_tiles or len(kinds) > 1 or has_size != bool(self.position_aware):
            raise ValueError(f"it has {n_parts} detectors of {n_tiles} places of tiles")
        return {}

    def _check_steps(self):
        """Raise a ValueError for a class, or a bank behind steps that hide photographs."""
        if isinstance(self.detector, type):
            raise ValueError(
                "detector must be an instance of a detector, with fit and score_samples. "
                f"Got the class {self.detector.__name__}. Pass "
                f"{self.detector.__name__}()."
            )
        last = last_step(self.detector)
        is_alone = not isinstance(self.detector, Pipeline) or len(self.detector) == 1
        if not is_alone and getattr(last, "_train_scores_leave_one_out", False):
            raise ValueError(
                f"{type(last).__name__} must know which photograph a tile is from, or a "
                "tile finds itself in those that overlap it, and the threshold is too "
                f"tight. Got a Pipeline of {len(self.detector)} steps, which do not "
                "pass it on. Put the steps before the tiles, as in "
                f"make_pipeline(step, TiledDetector({type(last).__name__}()))."
            )

    def _warn_about_decoding(self, photographs):
        """Warn if photographs are decoded again for each batch, or for each position."""
        n_bytes = sum(decoded_bytes(photographs))
        params = self.detector.get_params()
        trains = any(key.endswith("n_epochs") and value for key, value in params.items())
        if photographs.n_ahead == 0 or n_bytes <= self.max_cache_bytes:
            return
        if trains or self.position_aware:
            what = "each position reads" if self.position_aware else "training reads"
            warn(
                f"The photographs are decoded again and again, because {what} tiles of all "
                f"of them. Got {len(photographs)} that take {n_bytes} bytes when decoded, "
                f"and max_cache_bytes={self.max_cache_bytes!r}. Set it to {n_bytes} if "
                "there is memory, or pass fewer photographs."
            )


def _read_again(read, intensity_range, n_channels, is_fit):
    """Return photographs as `read` reads them, for a detector with another range."""
    like = None if is_fit else (-1, -1, n_channels)
    return read(intensity_range=intensity_range, n_channels=n_channels, like=like)


def _fitted(detector, tiles):
    return detector.fit(tiles, None)  # a FrozenEstimator asks for y


def _train_scores(detector, tiles):
    """Return the scores of the training tiles, as honest as the detector has them."""
    last = last_step(detector)
    if not isinstance(last, FrozenEstimator):  # it was fitted on other images
        for name in ("train_scores_", "negative_outlier_factor_"):
            if hasattr(last, name):
                return finite_scores(getattr(last, name))
    return finite_scores(detector.score_samples(tiles))


def _of_photographs(scores, tiles):
    """Return the lowest of the scores of the tiles of each photograph; NaN is lower."""
    return np.minimum.reduceat(scores, tiles.firsts) + 0.0  # no -0.0


def _intensity_range(detector):
    """Return the parameter of a detector, or of a part of it that has it first."""
    for key, value in detector.get_params().items():
        if key.rpartition("__")[2] == "intensity_range" and value is not None:
            return tuple(value)
    return None


def _check_one_size(photographs, like):
    """Raise a ValueError unless photographs have one size, that of the fit."""
    sizes = sizes_of(photographs)
    expected = sizes[0] if like is None else like[:2]
    for index, size in enumerate(sizes):
        if size != expected:
            raise ValueError(
                "With position_aware=True all photographs must have one size, because each "
                f"detector has a place in them. Got {size[0]} x {size[1]} pixels (H x W) "
                f"at index {index} of X, and {expected[0]} x {expected[1]} before. Resize "
                "them, or set position_aware=False."
            )


def _check_map(heat, sides):
    if heat.shape != sides:
        raise ValueError(
            "The heat map of a tile must have its size, to be stitched. Got "
            f"{heat.shape[0]} x {heat.shape[1]} for tiles of {sides[0]} x {sides[1]} "
            "pixels (H x W). Leave out steps before the detector that change the size."
        )
