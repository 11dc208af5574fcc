"""Comparison of an exported file with the detector that it was made of."""

import json
import os
import time
from typing import Any, NamedTuple

import numpy as np

from skocc._export.graphs import read_as

# Images that are compared at a time.
_BATCH_SIZE = 16
#: Largest difference that is rounding: of scores by the mean size of the scores, of maps by
#: their highest value.
TOLERANCE = 1e-4


class Comparison(NamedTuple):
    """How a file and a detector differ on some images.

    Attributes
    ----------
    n_images : int
        Of clips for `VideoMOCCA`.
    score_difference : float
        Largest difference of two scores, divided by the mean absolute score.
    label_differences : int
        Number of images with another label.
    map_difference : float or None
        Largest difference of two maps, divided by their highest absolute value; None
        without maps.
    milliseconds : float
        Time that the file takes for an image, without reading it.
    bytes : int
        Size of the file, and of the weights beside it where there are any.
    agrees : bool
        Whether all differences are at most `TOLERANCE`, and labels differ only where the
        score is as near as that to the threshold.
    """

    n_images: int
    score_difference: float
    label_differences: int
    map_difference: float | None
    milliseconds: float
    bytes: int
    agrees: bool


def open_file(path):
    """Return a session of onnxruntime, and what the file says of its detector.

    Parameters
    ----------
    path : str or Path

    Raises
    ------
    ImportError
        onnxruntime cannot be imported.
    ValueError
        The file is none that `export_onnx` has written.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise ImportError(
            f"validate needs onnxruntime, which cannot be imported: {error}. Install it "
            'with pip install "skocc[onnx]".'
        ) from error
    try:
        session = onnxruntime.InferenceSession(
            os.fsdecode(path), providers=["CPUExecutionProvider"]
        )
        metadata = json.loads(session.get_modelmeta().custom_metadata_map["skocc"])
    except Exception as error:  # onnxruntime raises classes of its own
        raise ValueError(
            f"{os.fsdecode(path)!r} cannot be read as a detector: "
            f"{type(error).__name__}: {str(error)[:200]}. Pass a file that export_onnx has "
            "written."
        ) from error
    return session, metadata


def validate(path, detector, files) -> Comparison:
    """Compare an exported file with its detector on images.

    Parameters
    ----------
    path : str or Path
        File that `export_onnx` has written.
    detector : estimator
        Fitted detector.
    files : list of Path
        Images, none of which the detector was trained on. For `VideoMOCCA` the frames of
        one video, in order.

    Raises
    ------
    ImportError, ValueError
        As of :func:`open_file`; or the file is of another class or size.
    """
    session, metadata = open_file(path)
    _check_same(path, metadata, detector)
    samples, source = _samples(detector, files)
    names = [output.name for output in session.get_outputs()]
    has_maps = "map" in names
    parts: list[dict[str, Any]] = []
    seconds, n_timed = 0.0, 0
    for start in range(0, len(samples), _BATCH_SIZE):
        batch = slice(start, min(start + _BATCH_SIZE, len(samples)))
        images = _pixels(source.load(batch), metadata["input"], detector)
        if not parts:
            session.run(None, {"images": images})  # the first run takes longer
        started = time.perf_counter()
        outputs = session.run(None, {"images": images})
        seconds, n_timed = seconds + time.perf_counter() - started, n_timed + len(images)
        found = dict(zip(names, outputs, strict=True))
        parts.append(_differences(found, detector, samples[batch], has_maps))
    joined = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    return _compared(joined, detector.offset_, 1000 * seconds / n_timed, size_of(path))


def _check_same(path, metadata, detector):
    """Raise a ValueError if a file is not of such a detector."""
    expected = {
        "class": type(detector).__name__,
        "image_shape": list(read_as(detector)[0]),
    }
    for name, value in expected.items():
        if metadata.get(name) != value:
            raise ValueError(
                f"{os.fsdecode(path)!r} was not made of this model: its {name} is "
                f"{metadata.get(name)!r}. Got a model with {value!r}. Pass the model that "
                "was exported, or export it again."
            )


def _samples(detector, files):
    """Return what the detector scores one by one, and the source of the same pixels."""
    while hasattr(detector, "estimators_"):  # parts read alike
        detector = detector.estimators_[0]
    if type(detector).__name__ != "VideoMOCCA":
        return files, detector._read(files, reset=False)
    clips = detector._read([files], reset=False)
    length = detector.image_shape_[0]
    return [files[start : start + length] for start in clips.starts], clips


def _pixels(images, given, detector):
    """Return images (b, ..., C) of a source as the input of a graph."""
    if images.shape[-1] == 1 and images.ndim > 2:
        images = images[..., 0]
    images = np.ascontiguousarray(images)
    is_scaled = read_as(detector)[1] is not None
    if images.dtype == np.uint8:
        is_same = given["dtype"] == "uint8"
        return images if is_same else images.astype(np.float32) / np.float32(255)
    low, high = map(np.float32, given["range"])
    if given["dtype"] == "float32":
        return low + (high - low) * images if is_scaled else images
    if not is_scaled:
        raise ValueError(
            "The file takes pixels of 8 bits. Got images of more. Export the model with "
            "dtype='float32'."
        )
    return np.rint(low + (high - low) * images).astype(np.uint8)


def _differences(found, detector, samples, has_maps):
    """Return scores of both, labels of the file, and what maps differ by, by image."""
    part = {"found": found["score"], "labels": found["label"]}
    if not has_maps:
        return part | {"scores": detector.score_samples(samples)}
    maps, scores = detector.anomaly_map(samples, size="model", return_scores=True)
    return part | {
        "scores": scores,
        "map_differences": np.abs(maps - found["map"]).max(axis=(1, 2)),
        "map_sizes": np.abs(maps).max(axis=(1, 2)),
    }


def _compared(joined, offset, milliseconds, n_bytes):
    """Return the comparison from the values of all images."""
    scores, tiny = joined["scores"], np.finfo(np.float64).tiny
    size = max(np.abs(scores).mean(), tiny)
    score_difference = float(np.abs(scores - joined["found"]).max() / size)
    is_other = np.where(scores >= offset, 1, -1) != joined["labels"]
    is_clear = np.abs(scores - offset) > TOLERANCE * size
    map_difference = None
    if "map_sizes" in joined:
        highest = max(joined["map_sizes"].max(), tiny)
        map_difference = float(joined["map_differences"].max() / highest)
    # NaN is no agreement.
    agrees = score_difference <= TOLERANCE and not (is_other & is_clear).any()
    agrees = agrees and (map_difference is None or map_difference <= TOLERANCE)
    return Comparison(
        n_images=len(scores),
        score_difference=score_difference,
        label_differences=int(is_other.sum()),
        map_difference=map_difference,
        milliseconds=milliseconds,
        bytes=n_bytes,
        agrees=bool(agrees),
    )


def size_of(path) -> int:
    """Return the bytes of an exported file, and of the weights beside it."""
    files = (os.fsdecode(path), f"{os.fsdecode(path)}.data")
    return sum(os.path.getsize(file) for file in files if os.path.exists(file))
