"""Loader of video data sets in the layouts of ShanghaiTech and UCSD."""

import os
import re
from pathlib import Path

import numpy as np
from sklearn.utils import Bunch

from skocc._base.private_sklearn import validate_params
from skocc._samples.files import list_images
from skocc.datasets._folders import subfolders


@validate_params(
    {
        "folder": [str, os.PathLike],
        "layout": [str],
    },
    prefer_skip_nested_validation=True,
)
def load_video_folders(folder: str | os.PathLike, layout: str) -> Bunch:
    """List the videos of a folder with the layout of ShanghaiTech or UCSD's Ped1 and Ped2.

    In both layouts, a video is a folder of frames::

        shanghaitech                             ucsd
        training/frames/<video>/<frame>.jpg      Train/Train001/<frame>.tif
        testing/frames/<video>/<frame>.jpg       Test/Test001/<frame>.tif
        testing/test_frame_mask/<video>.npy      Test/UCSDped1.m, or
                                                 Test/Test001_gt/<frame>.bmp

    Read more in the :ref:`User Guide <video>`.

    Parameters
    ----------
    folder : str or Path
        Folder that contains ``training`` and ``testing``, or ``Train`` and ``Test``.
    layout : {"shanghaitech", "ucsd"}
        Layout of the folder.

    Returns
    -------
    videos : Bunch
        Folders are sorted by their names.

        train_videos : list of Path
            Folders of frames of normal videos, to fit on.
        test_videos : list of Path of length n_test
            Folders of frames to score.
        test_frame_labels : list of ndarray of shape (n_frames,), int
            Labels of each video's frames, in natural order of their names: +1 for normal
            frames and -1 for anomalous frames.

    Raises
    ------
    FileNotFoundError
        A folder of the layout, or all ground truth, is missing.
    ValueError
        The layout is unknown, a video has no frames, or the ground truth of a video is
        missing, has the wrong length, or cannot be interpreted.

    See Also
    --------
    skocc.MOCCA : Accepts ``train_videos`` and ``test_videos`` with ``clip_length`` set.

    Notes
    -----
    The training data of ShanghaiTech are films (``.avi``): extract their frames first. The
    frames may also be in folders in ``training/videos``. Its masks are arrays with one
    number per frame, which is not 0 if the frame is anomalous. UCSD has two kinds of ground
    truth. If the file exists, it is read; it has a line ``gt_frame = [60:152];`` for each
    video, counted from 1. Otherwise, a frame is anomalous if any pixel of its mask is not
    0.

    The layouts are taken from descriptions of the data sets, and have not been tried on the
    data sets themselves.

    References
    ----------
    W. Luo, W. Liu, S. Gao: A revisit of sparse coding based anomaly detection in stacked
    RNN framework. ICCV 2017 (ShanghaiTech).

    V. Mahadevan, W. Li, V. Bhalodia, N. Vasconcelos: Anomaly detection in crowded scenes.
    CVPR 2010 (UCSD).

    Examples
    --------
    >>> import pathlib, tempfile
    >>> import numpy as np
    >>> from PIL import Image
    >>> from skocc.datasets import load_video_folders
    >>> folder = tempfile.TemporaryDirectory()
    >>> for video in ["training/frames/01_001", "testing/frames/01_0014"]:
    ...     path = pathlib.Path(folder.name) / video
    ...     path.mkdir(parents=True)
    ...     for index in range(3):
    ...         Image.new("L", (8, 8)).save(path / f"{index:03d}.jpg")
    >>> masks = pathlib.Path(folder.name) / "testing" / "test_frame_mask"
    >>> masks.mkdir()
    >>> np.save(masks / "01_0014.npy", [0, 0, 1])
    >>> videos = load_video_folders(folder.name, "shanghaitech")
    >>> [video.name for video in videos.train_videos]
    ['01_001']
    >>> videos.test_frame_labels
    [array([ 1,  1, -1])]
    >>> folder.cleanup()
    """
    if layout not in _LAYOUTS:
        raise ValueError(
            f"There is no such layout. Got layout={layout!r}. Pass one of {list(_LAYOUTS)}."
        )
    train_videos, test_videos, is_anomalous = _LAYOUTS[layout](Path(folder))
    labels = []
    for video, anomalous in zip(test_videos, is_anomalous, strict=True):
        n_frames = len(list_images(video))
        if anomalous.shape != (n_frames,):
            raise ValueError(
                "The ground truth must have one value for each frame. Got "
                f"{n_frames} frames in '{video}' and values of shape {anomalous.shape}. "
                "Check that exactly its frames were extracted."
            )
        labels.append(np.where(anomalous, -1, 1))
    return Bunch(
        train_videos=train_videos, test_videos=test_videos, test_frame_labels=labels
    )


def _load_shanghaitech(folder):
    """Return training videos, test videos, and masks of the anomalous test frames."""
    training = folder / "training" / "frames"
    if not training.is_dir():
        training = folder / "training" / "videos"
    test_videos = _list_videos(folder / "testing" / "frames", r".*")
    masks = folder / "testing" / "test_frame_mask"
    is_anomalous = []
    for video in test_videos:
        path = masks / f"{video.name}.npy"
        if not path.is_file():
            error = ValueError if masks.is_dir() else FileNotFoundError
            raise error(
                f"The video '{video}' has no ground truth. Got no file '{path}'. Add it, "
                "or leave the video out."
            )
        try:
            with path.open("rb") as file:
                is_anomalous.append(np.lib.format.read_array(file) != 0)
        except (EOFError, MemoryError, OSError, ValueError) as error:
            raise ValueError(
                f"The ground truth of '{video}' cannot be read. Got '{path}', which is not "
                f"an array of numbers: {error}. Unpack the data again."
            ) from error
    return _list_videos(training, r".*"), test_videos, is_anomalous


def _load_ucsd(folder):
    """Return the results of `_load_shanghaitech` for UCSD's Ped1 or Ped2."""
    train_videos = _list_videos(folder / "Train", r"Train\d+")
    test_videos = _list_videos(folder / "Test", r"Test\d+")
    files = sorted((folder / "Test").glob("[Uu][Cc][Ss][Dd]*.m"))
    if len(files) > 1:
        raise ValueError(
            f"There is more than one ground truth. Got {[f.name for f in files]} in "
            f"'{folder / 'Test'}'. Keep only one of them there."
        )
    if files:
        return train_videos, test_videos, _read_matlab(files[0], test_videos)
    return train_videos, test_videos, [_read_masks(video) for video in test_videos]


def _read_matlab(path, videos):
    """Return masks of the anomalous frames of each video, from a file like UCSDped1.m."""
    # A per cent sign starts a comment.
    text = re.sub(r"%.*", "", path.read_text(errors="replace"))
    entries = re.findall(r"gt_frame\s*=\s*\[?([^\];]*)", text)
    if len(entries) != len(videos):
        raise ValueError(
            f"The ground truth must have an entry for each video. Got {len(entries)} lines "
            f"with gt_frame in '{path}' and {len(videos)} folders Test<number> beside it. "
            "Unpack the data again."
        )
    is_anomalous = []
    for video, entry in zip(videos, entries, strict=True):
        anomalous = np.zeros(len(list_images(video)), dtype=bool)
        for part in re.sub(r"\s*:\s*", ":", entry).replace(",", " ").split():
            ends = re.fullmatch(r"(\d+)(?::(\d+))?", part)
            first, last = (int(ends[1]), int(ends[2] or ends[1])) if ends else (0, 0)
            if not 1 <= first <= last <= len(anomalous):
                raise ValueError(
                    f"The ground truth of '{video}' cannot be interpreted. Got {part!r} in "
                    f"'{path}' for {len(anomalous)} frames. Frames are counted from 1 and "
                    "written as first:last; unpack the data again."
                )
            anomalous[first - 1 : last] = True
        is_anomalous.append(anomalous)
    return is_anomalous


def _read_masks(video):
    """Return a mask of the frames of a UCSD video whose pixel masks are not empty."""
    # Importing the package does not load Pillow.
    from skocc._samples.sources import open_image

    folder = video.with_name(f"{video.name}_gt")
    if not folder.is_dir():
        raise FileNotFoundError(
            f"The video '{video}' has no ground truth. Got neither '{folder}' nor a file "
            "UCSDped1.m or UCSDped2.m beside it. Add one of them, or leave the video out."
        )
    is_anomalous = []
    for path in list_images(folder, natural=True):
        with open_image(path) as mask:
            is_anomalous.append(bool(np.any(np.asarray(mask))))
    return np.array(is_anomalous, dtype=bool)


def _list_videos(folder, pattern):
    """Return the folders of frames in a folder whose names match a pattern."""
    videos = [folder / name for name in subfolders(folder) if re.fullmatch(pattern, name)]
    if not videos:
        raise FileNotFoundError(
            f"There are no videos in '{folder}', which "
            f"{'holds no folder of frames' if folder.is_dir() else 'does not exist'}. "
            "Check folder and layout. If the folder holds films, extract their frames "
            "first, for example with ffmpeg -i film.avi film/%03d.jpg."
        )
    for video in videos:
        if not list_images(video):
            raise ValueError(
                f"The video '{video}' has no frames. Got {len(list(video.iterdir()))} "
                "other entries. Extract the frames of films into it, or remove the folder."
            )
    return videos


_LAYOUTS = {"shanghaitech": _load_shanghaitech, "ucsd": _load_ucsd}
