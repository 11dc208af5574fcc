"""Images with their heat maps, contours and masks."""

import numpy as np

from skocc._samples.arrays import as_array
from skocc._samples.sources import ImageFile
from skocc.metrics._inputs import read_mask
from skocc.model_selection._maps import anomaly_map_of, last_step
from skocc.plotting._axes import axes_grid
from skocc.plotting._inputs import inner_detector, read_pictures, show_picture


class AnomalyMapDisplay:
    """Draw images, their heat maps, contours at a threshold, and masks of the defects.

    All maps share one color scale, so that normal images look normal beside a defect. With
    a threshold, the scale is in multiples of it and reaches at least up to it, so that
    images without a defect look normal by themselves as well. Read more in the :ref:`User
    Guide <plots>`.

    .. versionadded:: 0.1

    Parameters
    ----------
    pictures : sequence of ndarray of shape (H, W) or (H, W, 3)
        Images as ``imshow`` takes them: uint8, or floats in [0, 1].
    maps : sequence of ndarray of shape (h, w)
        A heat map for each, higher is more anomalous. Its size may be another one.
    masks : sequence of ndarray of shape (h, w) or None, default=None
        True, or other than 0, at the pixels of a defect. None as a mask: there is no
        defect. None: no masks are drawn.
    threshold : float, default=None
        What is above it in a map is drawn with a contour on the image. None: no contours.

    Attributes
    ----------
    unit_ : float
        What is 1 in the color scale: the threshold, if it is positive, else 1.
    vmin_, vmax_ : float
        Ends of the color scale, in its unit.
    images_ : list of matplotlib AxesImage
        The maps that are drawn, in units of the color scale.
    contours_ : list of matplotlib ContourSet or None
        The contour of each image; None where its map does not cross the threshold.
    colorbar_ : matplotlib Colorbar
        The color scale, with its unit as label, and a line at the threshold.
    axes_ : ndarray of shape (n_images, n_columns), object
        The matplotlib Axes: a row for each image, whose columns are the image, the map, the
        contour and the mask, without the last two where they are not asked for.
    figure_ : matplotlib Figure
        That of `axes_`.

    See Also
    --------
    ImageGridDisplay : The most and least normal images.
    skocc.metrics.aupro : How well maps find the masks.

    Notes
    -----
    The scale begins at the lowest of the medians of the maps, since most pixels of most
    images are normal, and ends at the highest value of all maps, or at the threshold if
    that is higher. The threshold of images, ``offset_``, is no threshold of pixels: that is
    ``pixel_threshold_``.

    Examples
    --------
    >>> from skocc import ResNetKNN
    >>> from skocc.datasets import make_textures, stain_defects
    >>> from skocc.plotting import AnomalyMapDisplay
    >>> textures = make_textures(12, size=64, random_state=0)
    >>> stained, masks = stain_defects(textures[10:], random_state=0)
    >>> detector = ResNetKNN(
    ...     backbone="resnet18", weights=None, layers=("relu",), image_size=None,
    ...     device="cpu", random_state=0,
    ... ).fit(textures[:10])
    >>> display = AnomalyMapDisplay.from_estimator(detector, stained, masks=masks)
    >>> display.axes_.shape
    (2, 4)
    >>> display.unit_ == detector.pixel_threshold_
    True
    """

    def __init__(self, pictures, maps, *, masks=None, threshold=None):
        self.pictures = pictures
        self.maps = maps
        self.masks = masks
        self.threshold = threshold

    @classmethod
    def from_estimator(
        cls, estimator, X, *, masks=None, threshold="auto", vmin=None, vmax=None, ax=None
    ):
        """Draw the heat maps of a fitted detector.

        Parameters
        ----------
        estimator : estimator
            Fitted detector with ``anomaly_map``, also within a ThresholdTuner, or at the
            end of a Pipeline whose steps before return images.
        X : images or paths
            The images to draw, a row of the picture each.
        masks : sequence of arrays (H, W), paths or None, default=None
            True, or other than 0, at the pixels of a defect; None for an image without a
            defect. None: no masks are drawn.
        threshold : float, "auto" or None, default="auto"
            What is above it in a map is drawn with a contour. "auto": ``pixel_threshold_``
            of the estimator, if it has one. None: no contours.
        vmin, vmax : float, default=None
            Ends of the color scale, in its unit. None: from the maps, see Notes of the
            class.
        ax : array-like of matplotlib Axes, default=None
            Axes to draw on, a row for each image. None: a new figure.

        Returns
        -------
        display : AnomalyMapDisplay
            The display, drawn.

        Raises
        ------
        ValueError
            The detector has no heat maps, there is not one mask for each image, or a mask
            cannot be read.
        ImportError
            matplotlib is not installed.
        """
        detector = inner_detector(estimator)
        if not hasattr(detector, "anomaly_map"):
            raise ValueError(
                "Heat maps need a detector with anomaly_map. Got "
                f"{type(detector).__name__}. Pass for example a fitted ResNetKNN, "
                "PatchSVDD, ConvAE or FeatureCAE."
            )
        if isinstance(threshold, str) and threshold == "auto":
            threshold = getattr(last_step(estimator), "pixel_threshold_", None)
        return cls.from_predictions(
            X,
            anomaly_map_of(estimator, X),
            masks=masks,
            threshold=threshold,
            image_shape=getattr(detector, "image_shape", None),
            vmin=vmin,
            vmax=vmax,
            ax=ax,
        )

    @classmethod
    def from_predictions(
        cls,
        X,
        maps,
        *,
        masks=None,
        threshold=None,
        image_shape=None,
        vmin=None,
        vmax=None,
        ax=None,
    ):
        """Draw images and their heat maps.

        Parameters
        ----------
        X : images or paths
            As detectors take them, in any of their sizes.
        maps : array-like of shape (n_samples, h, w), or list of arrays (h, w)
            From ``anomaly_map``. A map of another size than its image is stretched over it.
        masks : sequence of arrays (H, W), paths or None, default=None
            True, or other than 0, at the pixels of a defect; None for an image without a
            defect. None: no masks are drawn.
        threshold : float, default=None
            What is above it in a map is drawn with a contour. None: no contours.
        image_shape : tuple (H, W) or (H, W, C), default=None
            Shape of the images if X holds them as rows.
        vmin, vmax : float, default=None
            Ends of the color scale, in its unit. None: from the maps, see Notes of the
            class.
        ax : array-like of matplotlib Axes, default=None
            Axes to draw on, a row for each image. None: a new figure.

        Returns
        -------
        display : AnomalyMapDisplay
            The display, drawn.

        Raises
        ------
        ValueError
            There is not one map, or one mask, for each image, or one cannot be read.
        ImportError
            matplotlib is not installed.
        """
        pictures = list(read_pictures(X, image_shape))
        maps = [as_array("maps", heat, np.float32) for heat in maps]
        if masks is not None:
            masks = [_read_mask(mask, index) for index, mask in enumerate(masks)]
        display = cls(pictures, maps, masks=masks, threshold=threshold)
        return display.plot(ax, vmin=vmin, vmax=vmax)

    def plot(self, ax=None, *, vmin=None, vmax=None, cmap="inferno"):
        """Draw the images, a row each.

        Parameters
        ----------
        ax : array-like of matplotlib Axes, default=None
            Axes to draw on, a row for each image. None: a new figure.
        vmin, vmax : float, default=None
            Ends of the color scale, in its unit. None: from the maps, see Notes of the
            class.
        cmap : str or matplotlib Colormap, default="inferno"
            Colors of the maps.

        Returns
        -------
        display : AnomalyMapDisplay
            This display.
        """
        self._check_lengths()
        columns = ["image", "map"]
        columns += ["above threshold"] * (self.threshold is not None)
        columns += ["defect"] * (self.masks is not None)
        axes = axes_grid(self, ax, (len(self.pictures), len(columns)), (2.1, 2.1))
        self.unit_, low, high = self._scale()
        self.vmin_ = low if vmin is None else float(vmin)
        self.vmax_ = high if vmax is None else float(vmax)
        self.images_, self.contours_ = [], []
        for index, row in enumerate(axes):
            cells = dict(zip(columns, row, strict=True))
            picture, heat = self.pictures[index], self.maps[index]
            height, width = picture.shape[:2]
            extent = (-0.5, width - 0.5, height - 0.5, -0.5)
            show_picture(cells["image"], picture)
            self.images_.append(
                cells["map"].imshow(
                    heat / self.unit_,
                    cmap=cmap,
                    vmin=self.vmin_,
                    vmax=self.vmax_,
                    extent=extent,
                )
            )
            if "above threshold" in cells:
                show_picture(cells["above threshold"], picture)
                self.contours_.append(
                    self._draw_contour(cells["above threshold"], heat, extent)
                )
            if "defect" in cells:
                mask = self.masks[index]
                mask = np.zeros((height, width), bool) if mask is None else mask != 0
                cells["defect"].imshow(mask, cmap="gray", vmin=0, vmax=1, extent=extent)
        for cell in axes.flat:
            cell.set_axis_off()
        for cell, title in zip(axes[0], columns, strict=True):
            cell.set_title(title)
        self._draw_colorbar(axes)
        return self

    def _check_lengths(self):
        n_images = len(self.pictures)
        for name, given in (("map", self.maps), ("mask", self.masks)):
            if given is not None and len(given) != n_images:
                raise ValueError(
                    f"There must be one {name} for each image. Got {len(given)} for "
                    f"{n_images} images. Pass those of the images that are drawn, and None "
                    "as the mask of an image without a defect."
                )
        for index, heat in enumerate(self.maps):
            if heat.ndim != 2 or not heat.size:
                raise ValueError(
                    f"A map must have the shape (h, w). Got {heat.shape} for map {index}. "
                    "Pass what anomaly_map returns."
                )

    def _scale(self):
        """Return the unit of a color scale for all maps, and its ends in that unit."""
        finite = [heat[np.isfinite(heat)] for heat in self.maps]
        finite = [values for values in finite if len(values)] or [np.zeros(1)]
        low = float(min(np.median(values) for values in finite))
        high = float(max(values.max() for values in finite))
        if self.threshold is None:
            return 1.0, low, high
        low, high = min(low, self.threshold), max(high, self.threshold)
        unit = float(self.threshold) if self.threshold > 0 else 1.0
        return unit, low / unit, high / unit

    def _draw_contour(self, ax, heat, extent):
        """Draw where a map crosses the threshold, if it does."""
        finite = heat[np.isfinite(heat)]
        if not len(finite) or not finite.min() < self.threshold < finite.max():
            return None
        contour = ax.contour(
            heat,
            levels=[self.threshold],
            colors="red",
            linewidths=1,
            extent=extent,
            origin="upper",
        )
        ax.set(xlim=extent[:2], ylim=extent[2:])
        return contour

    def _draw_colorbar(self, axes):
        is_unit = self.threshold is not None and self.threshold > 0
        label = "times the threshold" if is_unit else "value of the heat map"
        self.colorbar_ = self.figure_.colorbar(
            self.images_[0], ax=list(axes[:, -1]), label=label
        )
        if self.threshold is not None:
            self.colorbar_.ax.axhline(self.threshold / self.unit_, color="red")


def _read_mask(mask, index):
    """Return a mask as an array (h, w), or None."""
    if mask is None:
        return None
    if isinstance(mask, ImageFile):
        return read_mask(mask, index)
    mask = as_array("masks", mask)
    if mask.ndim != 2:
        raise ValueError(
            f"A mask must have the shape (h, w). Got {mask.shape} for mask {index}. Pass "
            "one array, path or None for each image."
        )
    return mask
