"""Export of fitted detectors as ONNX files."""

import json
import os
import warnings
from importlib import import_module
from numbers import Integral, Real
from pathlib import Path

import numpy as np
import torch

from skocc._base.versions import __version__
from skocc._engine.ambient import own_settings
from skocc._engine.whole_files import replacing
from skocc._export.graphs import DetectorGraph, Subject, check_dtype, read_as

#: Version of ONNX's operators that graphs are made of.
OPSET = 20
# Oldest torch that is asked to export; the other parts of skocc need less.
_TORCH = "2.8"
# Bytes of weights from which they are in a second file: protobuf ends at 2 GiB.
_MAX_BYTES = 2**31 - 2**24
# Parameters of the running program, not of the model.
_OF_THE_PROGRAM = ("checkpoint_dir", "device", "memory", "verbose")


def export_onnx(estimator, path: str | os.PathLike, *, dtype: str | None = None) -> None:
    """Write a fitted detector as an ONNX file, which runs without torch and skocc.

    The graph in the file begins with pixels and ends with scores, labels and heat maps.
    Read more in the :ref:`User Guide <onnx>`.

    .. versionadded:: 0.1

    Parameters
    ----------
    estimator : estimator of skocc
        Fitted detector; a :class:`~skocc.model_selection.DetectorEnsemble` of such, all for
        one size of images; a :class:`~skocc.model_selection.ThresholdTuner` with one
        `estimator_`, whose threshold and p-values are exported; or a
        :class:`skocc.base.NetworkDetector` of your own whose network torch can trace.
    path : str or Path
        File to write. An existing file is replaced at the end. Where the weights take more
        than 2 GB, they are in a second file, of the same name and ``.data``.
    dtype : {"uint8", "float32"}, default=None
        Type of the pixels that the graph takes. "uint8": those of files of 8 bits, of which
        255 is white. "float32": numbers as they are in arrays of floats that the detector
        takes, usually from 0 to 1. None: "uint8", and "float32" for plain rows.

    Raises
    ------
    ValueError
        The detector, or a parameter of it, cannot be exported.
    ImportError
        onnx or onnxscript cannot be imported, or torch is too old to export.
    OSError
        The file cannot be written. The error's `filename` is the path.
    sklearn.exceptions.NotFittedError
        The detector is not fitted.

    See Also
    --------
    save : Write a file from which :func:`load` makes the detector again.

    Notes
    -----
    The graph has one input, ``images``, whose first axis may have any length n. With the
    H, W and C of ``image_shape_`` it is (n, H, W) for gray images, else (n, H, W, C);
    (n, T, H, W) or (n, T, H, W, C) for the clips of `VideoMOCCA`; (n, d) for rows. Images
    of other sizes must be resized before: Pillow's bilinear ``resize`` is what skocc
    applies to files. The outputs are, all float32 but for the labels,

    - ``score`` (n,): that of `score_samples`; for `VideoMOCCA` that of each clip;
    - ``label`` (n,), int64: +1 for normal, -1 for anomalous;
    - ``p_value`` (n,), of a `ThresholdTuner`: that of its method `p_values`;
    - ``map`` (n, H, W), where the detector has heat maps: that of `anomaly_map`;
    - ``reconstruction_error`` (n,), of the clips of a `VideoMOCCA` with a decoder.

    The operators are those of opset 20. Everything is computed in float32, where the
    library takes float64 for small images, thresholds and means: scores differ by about
    1e-6 of their size.

    A memory bank is part of the graph, and is searched by matrix products with 4,096
    vectors of it at a time, from which eight candidates more than there are neighbors are
    compared exactly. That is an exhaustive search for ``search="approximate"`` as well,
    whose own scores may differ. A graph does not recognize training images, which
    `ResNetKNN` and `PatchSVDD` compare with the other images only: in the graph they find
    themselves, and score as perfectly normal. Compare new images.

    The metadata of the file has an entry "skocc", JSON with the version of skocc, the
    class, its parameters, the thresholds, the number of training images, and the shape,
    type and range of the input.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> import onnxruntime
    >>> import skocc
    >>> from sklearn.datasets import load_digits
    >>> images = load_digits(n_class=1).images.astype("float32") / 16
    >>> detector = skocc.DeepSVDD(pretrain_n_epochs=1, n_epochs=1).fit(images)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = pathlib.Path(folder) / "zeros.onnx"
    ...     skocc.export_onnx(detector, path, dtype="float32")
    ...     session = onnxruntime.InferenceSession(path)
    >>> scores, labels = session.run(["score", "label"], {"images": images})
    >>> bool((abs(scores - detector.score_samples(images)) < 1e-4 * abs(scores)).all())
    True
    """
    _check_packages()
    subject = Subject.of(estimator)
    dtype = check_dtype(dtype, subject.detector)
    with own_settings():  # whatever the process has set for torch
        graph = DetectorGraph(subject, dtype).eval().requires_grad_(False)
        program = _traced(graph, subject.detector)
    for node in program.model.graph.all_nodes():
        node.metadata_props.clear()  # names of files on this machine among them
    metadata = _metadata(subject, graph, dtype)
    program.model.metadata_props["skocc"] = json.dumps(metadata, sort_keys=True)
    program.model.producer_name, program.model.producer_version = "skocc", __version__
    _write(program, Path(os.fsdecode(path)))


def _check_packages():
    """Raise an ImportError unless torch can export, and has what it needs for that."""
    for name in ("onnx", "onnxscript"):
        try:
            import_module(name)
        except ImportError as error:
            raise ImportError(
                f"export_onnx needs {name}, which cannot be imported: {error}. Install it "
                'with pip install "skocc[onnx]".'
            ) from error
    if torch.__version__ < _TORCH:  # a str that compares as versions do
        raise ImportError(
            f"export_onnx needs torch {_TORCH}, whose exporter follows torch.export. Got "
            f"torch {torch.__version__}. Install a newer one; the file runs without torch."
        )


def _traced(graph, detector):
    """Return the graph of a module as torch's ONNXProgram."""
    try:
        with warnings.catch_warnings():
            # Of deprecated functions that the exporter itself calls.
            warnings.simplefilter("ignore")
            program = torch.onnx.export(
                graph,
                (graph.pixels.example(2),),
                dynamo=True,
                opset_version=OPSET,
                input_names=["images"],
                output_names=graph.output_names,
                dynamic_shapes=({0: torch.export.Dim("n")},),
                verbose=False,
            )
    except MemoryError:
        raise
    except Exception as error:  # the forward of a user's module may raise anything
        reason = str(error.__cause__ or error).strip().partition("\n")[0]
        raise ValueError(
            f"{type(detector).__name__} cannot be exported: torch cannot follow its "
            "network, or ONNX has no operator for a part of it. Got "
            f"{type(error).__name__}: {reason[:300]}. Use a network of standard layers "
            "whose forward does not branch on values, or deploy skocc itself."
        ) from error
    assert program is not None  # for mypy: it is None for other options
    (images,) = program.model.graph.inputs
    if images.shape is None or isinstance(images.shape[0], int):
        raise ValueError(
            f"{type(detector).__name__} cannot be exported for any number of images: its "
            "network depends on the number that it is traced with. Got a fixed first axis. "
            "In the network's code, replace len(batch) by batch.shape[0]."
        )
    return program


def _metadata(subject, graph, dtype):
    """Return what the file says of the detector."""
    detector, pixels = subject.detector, graph.pixels
    span = [float(pixels.low), float(pixels.low + pixels.span)]
    scores = subject.calibration_scores
    params = detector.get_params(deep=False)
    return {
        "version": __version__,
        "class": type(detector).__name__,
        "threshold": subject.offset,
        "pixel_threshold": subject.pixel_threshold,
        "n_train": len(detector.train_scores_),
        "n_calibration": None if scores is None else len(scores),
        "image_shape": list(read_as(detector)[0]),
        "input": {"shape": list(pixels.shape), "dtype": dtype, "range": span},
        "opset": OPSET,
        "params": {
            name: _plain(value)
            for name, value in params.items()
            if name not in _OF_THE_PROGRAM and _is_plain(value)
        },
    }


def _is_plain(value):
    if isinstance(value, tuple | list):
        return all(map(_is_plain, value))
    return value is None or isinstance(value, str | bool | np.bool_ | Real)


def _plain(value):
    if isinstance(value, tuple | list):
        return [_plain(item) for item in value]
    if isinstance(value, bool | np.bool_):
        return bool(value)
    if isinstance(value, Integral):
        return int(value)
    return float(value) if isinstance(value, Real) else value


def _write(program, path):
    """Write a program, and its weights into a second file where one cannot hold them."""
    initializers = program.model.graph.initializers.values()
    n_bytes = sum(value.const_value.nbytes for value in initializers)
    if n_bytes > _MAX_BYTES:
        program.save(path, external_data=True)
        return
    with replacing(path) as temporary:
        program.save(temporary, external_data=False)
