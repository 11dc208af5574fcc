"""Clips of videos, cut when they are loaded, and score curves over the frames of a video.

A video is a folder of frame files, or anything that
:func:`~skocc._samples.validation.read_images` reads as images, which are then its frames in
order.
"""

import os
from pathlib import Path

import numpy as np

from skocc._samples.files import IMAGE_SUFFIXES, list_images
from skocc._samples.sources import ImageItem
from skocc._samples.validation import read_images
from skocc._samples.windows import window_starts


class Clips:
    """Source of clips (n, T, H, W, C), which are windows over the frames of videos.

    A clip is cut when it is loaded. The source keeps the frames of the last load, so that a
    pass in order reads each frame once and holds the frames of at most two batches.

    Parameters
    ----------
    frames : image source of shape (n_frames, H, W, C)
        The frames of all videos, one video after the other.
    n_frames : sequence of int
        Number of frames of each video.
    clip_length : int
        Number of frames in a clip, T. No video may have fewer.
    stride : int, default=1
        Number of frames from the start of one clip to the start of the next, at most
        `clip_length`. The last clip of a video always ends with its last frame.

    Attributes
    ----------
    starts : ndarray of shape (n_clips,), int
        Index of the first frame of each clip.
    videos : ndarray of shape (n_clips,), int
        Index of the video of each clip.
    """

    def __init__(self, frames, n_frames, clip_length, stride=1):
        starts = [window_starts(n, clip_length, stride) for n in n_frames]
        n_clips = [len(windows) for windows in starts]
        self._first_clips = np.cumsum([0, *n_clips[:-1]])
        self.videos = np.repeat(np.arange(len(n_clips)), n_clips)
        self.starts = np.concatenate(starts) + np.repeat(
            np.cumsum([0, *n_frames[:-1]]), n_clips
        )
        self._frames = frames
        self._window = np.arange(clip_length)
        self._kept = np.empty(0, dtype=int), None
        self.shape = (len(self.starts), clip_length, *frames.shape[1:])
        # Frames of the last batch are kept, so that batches are loaded one after another.
        self.dtype, self.n_ahead = frames.dtype, min(1, frames.n_ahead)
        # If every video is a single frame, these attributes describe a sample of X.
        is_single = max(n_frames) == 1
        self.is_table = is_single and getattr(frames, "is_table", False)
        self.n_features = frames.n_features if is_single else None

    def __len__(self):
        return self.shape[0]

    def load(self, indices):
        """Return the clips at `indices` as an array (b, T, H, W, C)."""
        frames = self.starts[indices][:, np.newaxis] + self._window
        needed, places = np.unique(frames, return_inverse=True)
        loaded = self._load_frames(needed)
        return loaded[places.reshape(frames.shape)]

    def lowest_of_videos(self, scores):
        """Return the lowest score of each video, from the scores of all clips."""
        return np.minimum.reduceat(scores, self._first_clips)

    def mean_of_videos(self, values):
        """Return the mean of each video, from the values (n_clips, d) of all clips."""
        n_clips = np.bincount(self.videos)[:, np.newaxis]
        return np.add.reduceat(values, self._first_clips) / n_clips

    def _load_frames(self, needed):
        """Return the frames at sorted indices, and load only those that are not kept."""
        kept_indices, kept_frames = self._kept
        is_kept = np.isin(needed, kept_indices, assume_unique=True)
        missing = needed[~is_kept]
        if len(missing) == len(needed):
            frames = self._frames.load(needed)
        else:
            frames = np.empty((len(needed), *kept_frames.shape[1:]), kept_frames.dtype)
            frames[is_kept] = kept_frames[np.searchsorted(kept_indices, needed[is_kept])]
            if len(missing) > 0:
                frames[~is_kept] = self._frames.load(missing)
        self._kept = needed, frames
        return frames


class _JoinedFrames:
    """Source of the frames of several sources, one source after the other."""

    def __init__(self, sources):
        self._sources = sources
        self._ends = np.cumsum([len(source) for source in sources])
        self.shape = (int(self._ends[-1]), *sources[0].shape[1:])
        self.n_ahead = max(source.n_ahead for source in sources)
        self.n_features = None
        is_bytes = all(source.dtype == np.uint8 for source in sources)
        self.dtype = np.dtype(np.uint8 if is_bytes else np.float32)

    def __len__(self):
        return self.shape[0]

    def load(self, indices):
        """Return the frames at `indices`, an array of int, as an array (b, H, W, C)."""
        frames = np.empty((len(indices), *self.shape[1:]), self.dtype)
        owners = np.searchsorted(self._ends, indices, side="right")
        for owner in np.unique(owners):
            source, chosen = self._sources[owner], owners == owner
            own = indices[chosen] - (self._ends[owner] - len(source))
            loaded = source.load(own)
            if loaded.dtype == np.uint8 and self.dtype != np.uint8:
                loaded = loaded.astype(np.float32) / 255
            frames[chosen] = loaded
        return frames


def read_clips(
    X,
    *,
    clip_length,
    clip_stride=1,
    image_shape=None,
    image_size=None,
    intensity_range=None,
    like=None,
    min_samples=1,
    name="The estimator",
) -> Clips:
    """Validate X and return the clips of its videos.

    Parameters
    ----------
    X : array (n, T, H, W, C), tensor (n, T, C, H, W), or list of videos
        A video is an array (T, H, W, C), (T, H, W) or (T, C, H, W), a tensor (T, C, H, W),
        the path of a folder of frame files, or a list of paths or PIL images. Any other
        input of :func:`~skocc._samples.validation.read_images` holds single-frame videos.
    clip_length : int or None
        Number of frames in a clip. None means the length of the videos, which must be
        equal.
    clip_stride : int, default=1
        Number of frames from one clip to the next.
    image_shape, image_size, intensity_range
        Parameters for a frame, as in :func:`~skocc._samples.validation.read_images`.
    like : tuple (T, H, W, C), default=None
        Shape of the clips in the fit of the estimator. None means that this is a fit.
    min_samples : int, default=1
        Minimum number of clips that the estimator needs.
    name : str, default="The estimator"
        Class of the estimator, for messages.

    Returns
    -------
    clips : Clips
        The clips of all videos.

    Raises
    ------
    ValueError
        X cannot be interpreted, a video is shorter than a clip, or a frame is invalid.
    """

    def read_frames(frames):
        return read_images(
            frames,
            image_shape=image_shape,
            image_size=image_size,
            intensity_range=intensity_range,
            like=None if like is None else like[1:],
            name=name,
        )

    if _holds_videos(X):
        frames, n_frames = _read_videos(_unwrap_videos(X), read_frames)
    else:
        frames = read_frames(X)
        n_frames = [1] * len(frames)
    clip_length = int(_check_lengths(n_frames, clip_length, clip_stride))
    clips = Clips(frames, n_frames, clip_length, int(clip_stride))
    if len(clips) < min_samples:
        raise ValueError(
            f"{name} needs at least {min_samples} clips here. Got "
            f"{len(clips)}, of {clip_length} frames each (n_samples={len(n_frames)}). Pass "
            "more or longer normal videos, or set a smaller clip_length or clip_stride."
        )
    return clips


def _holds_videos(X):
    """Return whether X holds videos rather than single frames."""
    if isinstance(X, ImageItem):
        return True  # _unwrap_videos raises an error
    if len(getattr(X, "shape", ())) == 1 and len(X) > 0:
        X = list(X)  # an array or a Series of paths
    if isinstance(X, list | tuple):
        if len(X) == 0:
            return True
        first = X[0]
        if isinstance(first, str | os.PathLike):  # a folder, or an image
            return Path(first).suffix.lower() not in IMAGE_SUFFIXES
        if isinstance(first, list | tuple) and len(first) > 0:
            return isinstance(first[0], ImageItem)
        return getattr(first, "ndim", 0) in (3, 4)
    return getattr(X, "ndim", 0) == 5


def _check_lengths(n_frames, clip_length, stride):
    """Return the clip length, or raise a ValueError if videos cannot be cut into clips."""
    if clip_length is None:
        clip_length = n_frames[0]
        if set(n_frames) != {clip_length}:
            raise ValueError(
                "The clips in X must have one length unless clip_length is set. Got "
                f"{min(n_frames)} to {max(n_frames)} frames. Set clip_length, at most "
                f"{min(n_frames)}, to cut the videos into clips."
            )
    if stride > clip_length:
        raise ValueError(
            "clip_stride must not exceed clip_length, or frames are skipped. Got "
            f"clip_stride={stride} and clips of {clip_length} frames. Set clip_stride to "
            f"{clip_length} or less."
        )
    shortest = int(np.argmin(n_frames))
    if n_frames[shortest] < clip_length:
        raise ValueError(
            f"A video must have at least clip_length={clip_length} frames. Got "
            f"{n_frames[shortest]} in the video at index {shortest} of X. Leave it out, or "
            "fit with a smaller clip_length; for one video pass [video]."
        )
    return clip_length


def list_frames(folder):
    """Return the image files of a folder in natural order: frame 9 before frame 10.

    Parameters
    ----------
    folder : str or Path

    Returns
    -------
    paths : list of Path

    Raises
    ------
    ValueError
        There is no such folder, or no image in it.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise ValueError(
            f"A video given as a path must be a folder of frame files. Got "
            f"{str(folder)!r}, which is {'a file' if folder.exists() else 'not there'}. "
            "Extract the frames of a film first, for example with ffmpeg -i film.mp4 "
            "folder/%06d.png, or pass frame files as a list of lists, one for each video."
        )
    paths = list_images(folder, natural=True)
    if not paths:
        raise ValueError(
            f"The folder {str(folder)!r} holds no frames. Got {len(os.listdir(folder))} "
            f"entries, none of which ends in one of {sorted(IMAGE_SUFFIXES)}. Put the "
            "frames there, or pass the folder that holds them."
        )
    return paths


def average_over_frames(scores, starts, clip_length):
    """Return for each frame the mean score of the clips that contain it.

    Parameters
    ----------
    scores : ndarray of shape (n_clips,)
    starts : ndarray of shape (n_clips,), int
        First frame of each clip, all different. Together the clips cover every frame.
    clip_length : int
        Number of frames in a clip.

    Returns
    -------
    curve : ndarray of shape (n_frames,), float64
        Scores up to the last frame of the last clip.
    """
    n_frames = int(np.max(starts)) + clip_length
    sums, counts = np.zeros(n_frames), np.zeros(n_frames)
    for offset in range(clip_length):
        sums[starts + offset] += scores
        counts[starts + offset] += 1
    return sums / counts


def normalize_within_clips(scores, starts, clip_length, tolerance=0.0):
    """Scale the mean score of each frame to [0, 1], by the extremes within its clips.

    Parameters
    ----------
    scores, starts, clip_length
        As in :func:`average_over_frames`.
    tolerance : float, default=0.0
        Scores whose range is at most this count as equal, to allow for rounding.

    Returns
    -------
    curve : ndarray of shape (n_frames,), float64
        Scaled scores; 0 if all frames in the clips of a frame have the same score.

    Notes
    -----
    This is Eq. 8 of the paper of :class:`~skocc.MOCCA`, with the minimum in the numerator.
    """
    curve = average_over_frames(scores, starts, clip_length)
    in_clips = curve[starts[:, np.newaxis] + np.arange(clip_length)]
    lowest, highest = in_clips.min(axis=1), in_clips.max(axis=1)
    low, high = curve.copy(), curve.copy()
    for offset in range(clip_length):
        frames = starts + offset
        low[frames] = np.minimum(low[frames], lowest)
        high[frames] = np.maximum(high[frames], highest)
    differ = high - low > tolerance
    normalized = np.zeros(len(curve))
    normalized[differ] = (curve - low)[differ] / (high - low)[differ]
    return normalized


def min_max_normalize(curve, tolerance=0.0):
    """Scale a curve to [0, 1]; a constant curve becomes zeros.

    Parameters
    ----------
    curve : ndarray of shape (n,)
    tolerance : float, default=0.0
        A curve whose range is at most this counts as constant, to allow for rounding.

    Returns
    -------
    curve : ndarray of shape (n,), float64
    """
    low, high = np.min(curve), np.max(curve)
    if high - low <= tolerance:
        return np.zeros(len(curve))
    return (curve - low) / (high - low)


def _unwrap_videos(X):
    """Return X as a list of videos, or as an array or tensor of five dimensions."""
    if isinstance(X, ImageItem):
        raise ValueError(
            f"X must be a collection of videos. Got a single {type(X).__name__}: "
            f"{X!r:.300}. Pass a list, for example [folder]."
        )
    if len(getattr(X, "shape", ())) == 1:
        X = list(X)  # an array or a Series of paths
    if isinstance(X, list | tuple):
        if len(X) == 0:
            raise ValueError(
                "X holds no videos. Got an empty list (n_samples=0). Pass at least one."
            )
        return list(X)
    if len(X) == 0:
        raise ValueError(
            f"X holds no clips. Got shape {tuple(X.shape)} (n_samples=0). Pass at least "
            "one."
        )
    return X


def _read_videos(X, read_frames):
    """Return the frames of all videos as one source, and the length of each video."""
    if not isinstance(X, list):
        n, length = X.shape[:2]
        frames = X.reshape(n * length, *X.shape[2:])
        return read_frames(frames), [length] * n
    are_files = [isinstance(v, str | os.PathLike | list | tuple) for v in X]
    if all(are_files):
        files = [list_frames(v) if isinstance(v, str | os.PathLike) else v for v in X]
        frames = [item for video in files for item in video]
        return read_frames(frames), [len(f) for f in files]
    if any(are_files) or not all(getattr(v, "ndim", 0) in (3, 4) for v in X):
        kinds = sorted({type(v).__name__ for v in X})
        shapes = sorted({tuple(v.shape) for v in X if hasattr(v, "shape")})
        raise ValueError(
            "X must hold videos of one kind: arrays (T, H, W, C) or (T, H, W), folders, or "
            f"lists of files. Got {', '.join(kinds)}"
            f"{f' of shapes {shapes[:5]}' if shapes else ''}. Pass for example a list of "
            "paths of folders."
        )
    sources = []
    for index, video in enumerate(X):
        try:
            sources.append(read_frames(video))
        except ValueError as error:
            raise ValueError(f"In the video at index {index} of X: {error}") from error
        if sources[-1].shape[1:] != sources[0].shape[1:]:
            raise ValueError(
                "All videos must have frames of one size unless image_size is set. Got "
                f"frames of shape {sources[-1].shape[1:]} (H, W, C) in the video at index "
                f"{index} of X, {sources[0].shape[1:]} in the first. Set "
                "image_size=(H, W) to resize them."
            )
    return _JoinedFrames(sources), [len(source) for source in sources]
