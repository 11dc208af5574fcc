"""Odd inputs, parameters, files and bytes: a result that keeps promises, or plain words.

``python -m tests.fuzz --cases 10000 --seed 0`` says how many cases of each kind were tried,
and shows every fault with a line that repeats it (``--line``). A case is a line of Python,
a call of a function of this module; strategies of hypothesis write such lines.
``tests/test_fuzz.py`` draws from the same.

What a case calls may return what its documentation says, or raise an error that somebody
has written: a ``raise`` of skocc or of scikit-learn's checks, of a type that says that the
user can mend it. All else is a fault: other types, texts that Python, NumPy or torch say of
values that have got too far, warnings that do not point at the caller, crashes, and what
takes too long.
"""

import argparse
import contextlib
import faulthandler
import io
import linecache
import os
import re
import resource
import signal
import string
import sys
import tempfile
import time
import traceback
import warnings
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import cache
from multiprocessing import get_context
from pathlib import Path
from unittest import mock

import numpy as np
import pandas as pd
import polars as pl  # noqa: F401
import sklearn
import torch
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from numpy import inf, nan  # noqa: F401
from PIL import Image
from scipy import sparse
from sklearn.base import BaseEstimator, OutlierMixin
from sklearn.utils.validation import _num_samples

import skocc
import skocc.datasets
import skocc.feature_extraction
import skocc.metrics
import skocc.model_selection
from skocc.__main__ import main as command_line
from skocc._engine.feature_cache import cached
from skocc._persistence.model_files import _put_together  # noqa: F401
from skocc._samples.sources import FileImages
from tests.engine.test_feature_cache import Counting, batch_of, entries
from tests.persistence.test_model_files import CLASSES, ModelFile
from tests.quick import ESTIMATORS, quick

SECONDS = 120
# What a user can mend. NotFittedError is a ValueError.
ALLOWED = (ValueError, TypeError, FloatingPointError, FileNotFoundError, MemoryError)
SPOKEN = tuple(str(Path(package.__file__).parent) for package in (skocc, sklearn))
# NumPy says of a seed what is wrong with it.
SPOKEN += (__file__, os.path.join("numpy", "random"))
REFUSED = object()
# Where folders are made and removed in no time, if there is such a place.
FAST = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
# Bytes that a case may take beside those of the process.
MEMORY = 4 * 2**30


class Fault(AssertionError):
    """What must not happen."""


class Hang(BaseException):
    """Longer than a case may take; no handler of errors keeps it."""


def run(line):
    """Run one case, and raise a Fault where there is one."""

    def stop(number, frame):
        raise Hang(f"more than {SECONDS} s")

    previous = signal.signal(signal.SIGALRM, stop)
    here = os.getcwd()
    with tempfile.TemporaryDirectory(dir=FAST) as own, contextlib.ExitStack() as stack:
        os.chdir(own)
        # Outputs of the command line are bytes beneath.
        for name in ("stdout", "stderr"):
            stack.enter_context(getattr(contextlib, f"redirect_{name}")(_text_file()))
        stack.enter_context(mock.patch("torch.hub.download_url_to_file", _no_network))
        seen = stack.enter_context(warnings.catch_warnings(record=True))
        warnings.simplefilter("always")
        signal.alarm(SECONDS)
        try:
            eval(line, globals())
        except Hang as error:
            raise Fault(f"hang: {error}{_places(error)}") from None
        finally:
            signal.alarm(0)
            signal.signal(signal.SIGALRM, previous)
            os.chdir(here)
    for warning in seen:
        if not _is_ours(warning):
            raise Fault(
                f"warning: {warning.filename}:{warning.lineno} "
                f"{warning.category.__name__}: {warning.message}"
            )


def _is_ours(warning):
    """Return whether a warning points here, or is one that others give in our place."""
    # As of any estimator of scikit-learn.
    if "feature names, but" in str(warning.message):
        return warning.filename.startswith(SPOKEN)
    if f"{os.sep}PIL{os.sep}" in warning.filename:
        known = UserWarning | DeprecationWarning | Image.DecompressionBombWarning
        return issubclass(warning.category, known)
    return issubclass(warning.category, UserWarning) and warning.filename == __file__


def _no_network(*args, **kwargs):
    raise OSError("no case waits for the network")


def _text_file():
    return io.TextIOWrapper(io.BytesIO(), encoding="utf-8", errors="surrogateescape")


def attempt(function, *args, allowed=ALLOWED, **kwargs):
    """Return what a function returns, or REFUSED where it says in words that it cannot."""
    try:
        return function(*args, **kwargs)
    except Exception as error:
        frame = traceback.extract_tb(error.__traceback__)[-1]
        source = linecache.getline(frame.filename, frame.lineno)
        is_said = frame.filename.startswith(SPOKEN) and (
            "raise" in source.split() or not source  # of what is compiled
        )
        if isinstance(error, allowed) and is_said and str(error).strip():
            return REFUSED
        raise Fault(
            f"{type(error).__name__}: {str(error)[:300]}{_places(error)}"
        ) from error


def _places(error):
    """Return the lines that led to an error, the innermost first."""
    frames = traceback.extract_tb(error.__traceback__)[:-6:-1]
    return "".join(f"\n    {f.filename}:{f.lineno}: {f.line}" for f in frames)


def check(condition, *shown):
    if not condition:
        raise Fault(f"broken promise: {shown}")


# What X can be ---------------------------------------------------------------------------

SPECIAL = {
    "nan": np.nan, "inf": np.inf, "-inf": -np.inf, "huge": 1e300, "large": 3e38,
    "tiny": 1e-45, "None": None, "NaT": np.datetime64("NaT"), "NA": pd.NA, "text": "a",
    "bytes": b"a", "list": [1], "int": 10**400, "complex": 1j, "negative": -1e4,
    "thousand": 1e3,
}  # fmt: skip


def array(shape, dtype="float32", values="random", layout="plain"):
    rng, kind = np.random.default_rng(0), np.dtype(dtype).kind
    if kind in "iu":
        info = np.iinfo(dtype)
        native = info.dtype.newbyteorder("=")
        a = rng.integers(info.min, info.max, shape, native, endpoint=True)
        a = a.astype(dtype)
    elif kind == "V":
        a = np.zeros(shape, dtype)
    elif kind in "Mm":
        a = rng.integers(0, 9, shape).astype(dtype)
    elif kind == "b":
        a = rng.random(shape) > 0.5
    else:
        a = np.asarray(rng.random(shape)).astype(dtype)
    if values == "constant" and a.size:
        a[...] = a.flat[0]
    elif values in SPECIAL and a.size:
        # Where the dtype has such a value.
        unfit = contextlib.suppress(ValueError, TypeError, OverflowError)
        with unfit, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            a.flat[-1] = SPECIAL[values]
    if layout == "fortran":
        a = np.asfortranarray(a)
    elif layout == "reversed" and a.ndim:
        a = a[::-1]
    elif layout == "steps" and a.ndim:
        a = np.repeat(a, 2, axis=-1)[..., ::2]
    elif layout == "swapped" and a.ndim > 1:
        a = a.swapaxes(0, -1)
    elif layout == "read-only":
        a.setflags(write=False)
    elif layout == "broadcast" and a.ndim and a.size:
        a = np.broadcast_to(a[:1], a.shape)
    return a


def plain(a):
    """Return an array of a dtype that other packages know, for containers."""
    return a if a.dtype.kind in "buif" and a.dtype.itemsize <= 8 else a.real.astype("O")


def table(a, n_columns=64):
    """Return a table of what is in an array, or zeros."""
    return np.resize(plain(a), (len(a) if a.ndim else 1, n_columns))


def tensor(a, dtype=None):
    try:
        made = torch.from_numpy(np.ascontiguousarray(a))
    except (TypeError, ValueError):  # a dtype or an order of bytes that it has not
        made = torch.zeros(a.shape)
    return made if dtype is None else made.to(getattr(torch, dtype))


def pictures(a, mode="L"):
    """Return PIL images of the size of an array's, at most 12 of 16 x 16 pixels."""
    n, height, width = (*np.clip(a.shape[:3], 1, 16), 8, 8, 8)[:3]
    pixels = np.random.default_rng(0).integers(0, 256, (min(n, 12), height, width))
    return [Image.fromarray(p.astype(np.uint8)).convert(mode) for p in pixels]


def files(a, kind="png", n_broken=0):
    """Return the paths of images in files."""
    paths = [Path(f"{i}.{kind}") for i in range(len(pictures(a)))]
    for path, picture in zip(paths, pictures(a), strict=True):
        picture.save(path)
    for path, content in zip(paths[:n_broken], [b"", b"\x89PNG", b"x" * 999], strict=False):
        path.write_bytes(content)
    return paths


def special_files():
    if not os.path.exists("pipe.png"):
        os.mkfifo("pipe.png")
        os.mkdir("folder.png")
        os.symlink("nowhere.png", "link.png")
    return ["pipe.png", "folder.png", "link.png", "missing.png", "", "\0", "a" * 5000]


def contents(paths, kind=bytes):
    """Return what is in files."""
    return [kind(path.read_bytes()) for path in paths]


def closed(content):
    buffer = io.BytesIO(content)
    buffer.close()
    return buffer


class Images(torch.utils.data.Dataset):
    def __init__(self, items):
        self.items = items

    def __len__(self):
        return len(self.items)

    def __getitem__(self, index):
        return self.items[index]


class Stream(torch.utils.data.IterableDataset):
    def __iter__(self):
        return iter([torch.zeros(1, 8, 8)])


class Lying(Images):
    """Says that it is longer than it is."""

    def __len__(self):
        return len(self.items) + 3


class Arraylike:
    def __init__(self, a):
        self.a = a

    def __array__(self, dtype=None, copy=None):
        return self.a if dtype is None else self.a.astype(dtype)


CONTAINERS = [
    "{}", "{}", "{}", "tensor({})", "tensor({}, 'bfloat16')", "tensor({}, 'float16')",
    "tensor({}, 'bool')", "tensor({}, 'complex64')", "list({})", "list(tensor({}))",
    "{}.tolist()", "tuple({})", "[*{}, None]", "[*{}, array((3, 3))]",
    "pd.DataFrame(table({}))", "pl.DataFrame(table({}, 9))", "pd.Series(list({}))",
    "Images(tensor({}))", "Images([(x, 0) for x in {}])", "Images(list({}))", "Images([])",
    "Lying(tensor({}))", "Images(pictures({}))", "Images([None] * 3)", "Images([(), ()])",
    "torch.utils.data.DataLoader(Images({}))", "Stream()", "pictures({})",
    "pictures({}, 'RGB')", "pictures({}, 'P')", "pictures({}, 'I')", "pictures({}, 'F')",
    "pictures({}, '1')", "pictures({}, 'CMYK')", "pictures({}, 'RGBA')",
    "pictures({}) + [array((8, 8))]", "pictures({}) + ['a.png']", "files({})",
    "list(map(str, files({})))", "np.array(files({}))", "np.array(pictures({}))",
    "files({}, 'jpg')", "files({}, 'tif')", "files({}, 'bmp')", "files({}, n_broken=2)",
    "files({}) + special_files()", "special_files()[:1]", "pd.Series(files({}))",
    "pl.Series(list(map(str, files({}))))", "pd.DataFrame({{'path': files({})}})",
    "files({})[0]", "str(files({})[0])", "pictures({})[0]", "[None] * 5", "[]", "None",
    "'x'", "b'x'", "3", "object()", "print", "{{'a': {}}}", "{{1, 2}}", "iter([{}])",
    "np.ma.masked_array({}, mask=True)", "Arraylike({})", "np.array(1.5)", "[[]] * 5",
    "[b'a.png'] * 5", "contents(files({}))", "contents(files({}, 'jpg'), io.BytesIO)",
    "contents(files({}, n_broken=2), bytearray)", "contents(files({}, n_broken=2))",
    "np.array(contents(files({})), dtype=object)", "np.array(contents(files({})))",
    "pd.Series(contents(files({})))", "contents(files({}), closed)", "[b''] * 5",
    "[*contents(files({})), 'a.png']", "contents(files({}))[0]",
    "contents(files({}), memoryview)", "[contents(files({}))] * 2",
    "sparse.csr_matrix(np.ones((9, 64)))", "sparse.csr_array(np.ones((9, 64)))",
    "np.array([object()] * 5)", "range(9)",
    "memoryview(b'abc')", "[{}] * 3", "({} for _ in range(3))",
    "np.array(list({}) + [None], dtype=object)[:-1]",
    "pd.DataFrame(table({})).convert_dtypes()",
    "pd.DataFrame(np.ones((9, 64))).assign(x='text')", "pd.DataFrame()", "pl.DataFrame()",
    "pd.DataFrame(np.ones((9, 64)), columns=[1] * 64)", "[1, [2, 3]] * 4",
]  # fmt: skip
DTYPES = [
    "float32", "float32", "float32", "float32", "uint8", "uint8", "uint16", "bool", "int8",
    "int16", "int32", "int64", "uint32", "uint64", "float16", "float64", "longdouble",
    "complex64", "object", "U3", "S3", "M8[s]", "m8[s]", ">f4", ">u2", ">i8", "f4,i4",
]  # fmt: skip
LAYOUTS = ["plain"] * 3 + [
    "fortran", "reversed", "steps", "swapped", "read-only", "broadcast"
]  # fmt: skip
VALUES = ["random"] * 8 + ["constant", *SPECIAL]


@cache
def _pick(values):
    return st.sampled_from(values)


def pick(values):
    return _pick(tuple(values))


_n, _side = pick([9, 9, 9, 7, 5, 3, 2, 1, 0]), pick([8, 8, 8, 9, 12, 5, 3, 2, 1, 0])
_channels = pick([1, 1, 3, 3, 4, 2, 5, 0])
SHAPES = st.one_of(
    st.just((9, 8, 8)),
    st.tuples(_n, _side, _side),
    st.tuples(_n, _side, _side, _channels),
    st.tuples(_n, _channels, _side, _side),
    st.tuples(_n, pick([64, 64, 192, 60, 7, 1, 0])),
    st.lists(st.integers(0, 3), min_size=1, max_size=5).map(tuple),
)
LABELS = [
    "None", "None", "None", "[1] * 9", "[-1] + [1] * 8", "[0, 1] * 4 + [0]", "'x'", "3",
    "['good'] * 9", "['good'] * 8 + ['bad']", "np.ones((9, 1))", "np.ones((9, 2))", "[]",
    "[nan] * 9", "[None] * 9", "np.array([1, -1, None] * 3)", "pd.Series([1] * 9)",
    "pl.Series([1, -1])", "tensor(np.ones(9))", "object()", "{}", "[1j] * 9",
    "[[1], [2, 3]]", "np.array(['2020'], 'M8[s]')", "[b'good'] * 9", "iter([1])", "[-1]",
    "pd.Series([pd.NA, 1])", "sparse.csr_matrix(np.ones((9, 1)))", "[True, False] * 4",
    "[10**400] * 9", "[object()] * 9", "pd.Categorical(['good', 'bad'])", "np.zeros(9)",
    "np.float64(1)", "[1, 'good', None]",
]  # fmt: skip


@st.composite
def inputs(draw, shapes=SHAPES):
    """Text that makes an X."""
    made = "array({!r}, {!r}, {!r}, {!r})".format(
        draw(shapes), *(draw(pick(choice)) for choice in (DTYPES, VALUES, LAYOUTS))
    )
    return draw(pick(CONTAINERS)).format(made)


# Estimators ------------------------------------------------------------------------------

BY_NAME = {c.__name__: c for c in ESTIMATORS}
TRANSFORMERS = [
    getattr(skocc.feature_extraction, name) for name in skocc.feature_extraction.__all__
]
BY_NAME |= {c.__name__: c for c in TRANSFORMERS}
FEW = ["n_epochs=0", "n_epochs=1", "n_epochs=1, warm_start=True"]


def small(name, params):
    """Return an unfitted estimator whose stages take an epoch."""
    estimator = quick(BY_NAME[name]) if BY_NAME[name] in ESTIMATORS else BY_NAME[name]()
    names = estimator.get_params()
    if name == "DeepFeatures":
        estimator.set_params(
            backbone="shufflenet_v2_x0_5", weights=None, layers=("conv1",), image_size=None
        )
    few = {n: 1 for n in names if n.endswith("n_epochs")} | {"n_augmented": 9}
    # What has no effect is refused, and would hide everything else.
    if {**names, **params}.get("boundary") == "hard":
        del few["warm_up_n_epochs"]
    if not {**names, **params}.get("augmentation"):
        del few["n_augmented"]
    estimator.set_params(**{n: v for n, v in few.items() if n in names})
    return estimator.set_params(**{n: v for n, v in params.items() if n in names})


def fitting(name, params, X, y=None, X_again=None, X_new=None):
    """Fit an estimator twice, and score what it was fitted on and something else."""
    estimator = small(name, params)
    n_samples = _fit_and_check(estimator, X, y)
    if X_again is not None:
        n_samples = _fit_and_check(estimator, X_again, None) or n_samples
    if n_samples and X_new is not None:
        _check_results(estimator, X_new, is_finite=False)


def _fit_and_check(estimator, X, y):
    """Return how many samples it was fitted on, None where it was not."""
    before = dict(vars(estimator))
    fitted = attempt(estimator.fit, X, y)
    if fitted is REFUSED:
        after = vars(estimator)
        check(before.keys() == after.keys(), before.keys() ^ after.keys())
        check(all(before[k] is after[k] for k in before), "attributes of a failed fit")
        return None
    check(fitted is estimator, fitted)
    if hasattr(estimator, "train_scores_"):
        scores = estimator.train_scores_
        check(scores.dtype == np.float64 and scores.ndim == 1, scores.dtype, scores.shape)
        is_finite = _is_moderate(X)
        check(not is_finite or np.isfinite(scores).all(), "train_scores_", scores)
        check(isinstance(estimator.offset_, float), type(estimator.offset_))
        check(not is_finite or np.isfinite(estimator.offset_), estimator.offset_)
    check(isinstance(estimator.image_shape_, tuple), estimator.image_shape_)
    # Transformers read the first image in `fit`, and find a false length when they go on.
    is_true = not (isinstance(X, Lying) and hasattr(estimator, "transform"))
    _check_results(estimator, X, is_finite=_is_moderate(X), must=is_true)
    return _num_samples(X)


def _is_moderate(X):
    """Return whether numbers are of a size that squares and sums of them have no limit."""
    with contextlib.suppress(Exception):
        return bool(np.abs(np.asarray(X, dtype=np.float64)).max() <= 1e5)
    return True


def _check_results(estimator, X, *, is_finite, must=False):
    with contextlib.suppress(TypeError):
        n = _num_samples(X)
    if hasattr(estimator, "transform"):
        features = attempt(estimator.transform, X)
        check(not (must and features is REFUSED), "refuses what it was fitted on")
        if features is not REFUSED:
            if sparse.issparse(features):
                features = features.toarray()
            check(len(features) == n, np.shape(features))
            check(features.dtype.kind in "fu", features.dtype)
            # Pixels returns tables as they are.
            is_finite &= len(estimator.image_shape_) > 1
            check(not is_finite or np.isfinite(features).all(), "not finite")
        return
    scores = attempt(estimator.score_samples, X)
    check(not (must and scores is REFUSED), "refuses what it was fitted on")
    labels = attempt(estimator.predict, X)
    check((scores is REFUSED) == (labels is REFUSED), "only one of scores and labels")
    if scores is not REFUSED:
        check(scores.shape == (n,) and scores.dtype == np.float64, scores.shape, n)
        check(not is_finite or np.isfinite(scores).all(), "not finite", scores)
        decision = attempt(estimator.decision_function, X)
        with np.errstate(invalid="ignore"):
            expected = scores - estimator.offset_
        check(np.array_equal(decision, expected, equal_nan=True), decision, expected)
        check(labels.dtype.kind == "i", labels.dtype)
        check(np.array_equal(labels, np.where(decision >= 0, 1, -1)), labels, decision)
    for name in ("anomaly_map", "layer_scores", "score_frames", "normal_probability",
                 "reconstruction_similarity"):  # fmt: skip
        if hasattr(estimator, name):
            result = attempt(getattr(estimator, name), X)
            if result is REFUSED or name == "score_frames":
                continue
            check(scores is not REFUSED and len(result) == n, name, np.shape(result), n)
            if name == "anomaly_map":
                sizes = {heat.shape for heat in result}
                check(isinstance(result, np.ndarray) == (len(sizes) == 1), sizes)
                for heat in result:
                    check(heat.ndim == 2 and heat.dtype == np.float32, heat.shape)
                    check(not is_finite or np.isfinite(heat).all(), "map", heat)
                maps, same = estimator.anomaly_map(X, size="model", return_scores=True)
                check(maps.shape == (n, *estimator.image_shape_[:2]), maps.shape)
                check(np.array_equal(same, scores, equal_nan=True), same, scores)


@st.composite
def fits(draw):
    name = draw(pick(sorted(BY_NAME)))
    shapes = draw(SHAPES)
    same = st.just(shapes)
    params = draw(
        pick([*FEW, *FEW, "image_shape=(8, 8)", "image_size=8", "image_shape=(8, 8, 3)",
              "image_size=(9, 12)", "intensity_range=(0, 4095)", "image_shape=(-1, 8)"])
    )  # fmt: skip
    X = draw(st.one_of(inputs(same), inputs(same), inputs()))
    rest = [draw(st.one_of(st.just("None"), inputs(same), inputs())) for _ in range(2)]
    return (
        f"fitting({name!r}, dict({params}), {X}, {draw(pick(LABELS))}, {', '.join(rest)})"
    )


ODD = [
    "None", "True", "False", "np.True_", "np.False_", "0", "1", "2", "3", "-1", "7", "0.5",
    "0.0", "-0.5", "1.0", "2.5", "1e-300", "1e300", "nan", "inf", "-inf", "2**31", "2**63",
    "2**70", "-2**63", "np.int64(2)", "np.uint8(3)", "np.float32(0.25)", "np.float64(nan)",
    "np.array(1)", "np.array([1, 2])", "np.zeros(0)", "'auto'", "'x'", "''", "b'x'", "()",
    "[]", "{}", "(1,)", "(0,)", "(-1,)", "(2, 3)", "(3, 2)", "[4, 8]", "(1, 2, 3)",
    "(1.5,)", "(None,)", "('x',)", "((1,),)", "(nan, 1)", "(0, inf)", "(0, 255)",
    "(255, 0)", "(0, 0)", "(8, 8)", "(8, 8, 1)", "(-1, 8)", "(-1, -1)", "(2**40, 2**40)",
    "(True, True)", "('a', 'b')", "object()", "print", "int", "1j", "1 + 0j", "Path('x')",
    "Path('/')", "'/nowhere/x'", "torch.device('cpu')", "'cpu'", "'cuda:99'", "'nothing'",
    "'meta'", "torch.tensor(1)", "torch.nn.Identity()", "torch.nn.Linear(3, 2)",
    "np.random.RandomState(0)", "np.random.default_rng(0)", "np.random", "pd.NA", "pd.NaT",
    "{1, 2}", "range(3)", "iter(())", "'layer1'", "('conv1', 'conv1')",
    "('conv1', 'stage2')", "('stage9',)", "'resnet18'", "'\\x00'", "'imagenet'",
    "lambda *a, **k: 1", "sparse.eye(3)", "'1'",
]  # fmt: skip
# These may be as large as there is time, so that cases keep them small.
COUNTS = {
    "n_epochs", "n_pairs", "n_augmented", "n_iter_no_change", "n_crops", "n_dilations",
    "image_size",
}  # fmt: skip
LARGE = {"2**31", "2**63", "2**70", "1500", "224", "5000"}


def _choices(estimator_class, name):
    """Return texts of values that a parameter's constraints speak of."""
    found = [repr(getattr(estimator_class(), name))]
    for constraint in getattr(estimator_class, "_parameter_constraints", {}).get(name, ()):
        if hasattr(constraint, "options"):
            found += map(repr, sorted(constraint.options - {"approximate"}, key=str))
        for end in ("left", "right"):
            edge = getattr(constraint, end, None)
            if isinstance(edge, int | float):
                found += [repr(edge), repr(edge + 1), f"{edge} - 1", f"{edge} + 1e-3"]
                found += [f"np.float32({edge})", repr(edge + 0.25)]
                found += [f"np.int64({edge} + 1)"] if abs(edge) < 2**62 else []
        if constraint == "boolean":
            found += ["True", "False", "np.True_"]
    return [text for text in found if "<" not in text]


@st.composite
def parameters(draw):
    name = draw(pick(sorted(BY_NAME)))
    # Other processes, and compiling a search, take long to start.
    names = [n for n in small(name, {}).get_params() if n != "n_jobs"]
    chosen = draw(st.lists(pick(names), min_size=1, max_size=3, unique=True))
    texts = []
    for parameter in chosen:
        value = draw(pick(_choices_of(name, parameter)) | pick(ODD))
        if parameter.endswith(tuple(COUNTS)) and value in LARGE:
            value = "8"
        texts.append(f"{parameter!r}: {value}")
    X = draw(pick(["array((9, 8, 8))", "array((9, 8, 8))", "array((9, 9, 12, 3), 'uint8')",
                   "array((9, 64))", "array((5, 16, 16))"]))  # fmt: skip
    return f"fitting({name!r}, {{{', '.join(texts)}}}, {X})"


@cache
def _choices_of(name, parameter):
    return tuple(_choices(BY_NAME[name], parameter))


# Metrics, thresholds, splitters, makers --------------------------------------------------

_numbers = [
    "0", "1", "-1", "0.5", "2", "1e300", "-1e300", "5e-324", "0.25", "1e-9", "3", "0.1",
]  # fmt: skip
_odd_numbers = [
    "nan",
    "inf",
    "-inf",
    "None",
    "'good'",
    "'x'",
    "1j",
    "True",
    "10**400",
    "[1]",
]
_label_sets = [
    ["1", "-1"], ["1", "-1"], ["1", "-1", "-2"], ["'good'", "'bad'"], ["0", "1"], ["1"],
    ["-1"], ["1", "-1", "nan"], ["1", "'good'", "-1"], ["1", "None"], ["True", "False"],
    ["1.0", "-1.0", "0.5"], ["'good'"], ["''", "'good'"], ["b'good'", "b'x'"],
    ["1", "-10**400"],
]  # fmt: skip
WRAPS = ["{}"] * 5 + [
    "np.array({})", "np.array({})", "np.array({}, dtype=object)", "tuple({})",
    "pd.Series({})", "pd.Series({}, dtype=object)", "np.array({})[::-1]",
    "np.array({})[None]", "iter({})", "np.array({}).reshape(-1, 1)",
    "pd.DataFrame({{'a': {}}})", "torch.tensor({})", "pl.Series({}, strict=False)",
    "np.array({}, dtype='f2')", "set({})", "np.ma.masked_array({}, mask=False)",
    "pd.array({})", "Arraylike(np.array({}))",
]  # fmt: skip


@cache
@st.composite
def rows(draw, entries, n=None):
    """Text that makes a row of entries in some container."""
    n = draw(st.integers(0, 12)) if n is None else n
    row = draw(st.lists(pick(entries), min_size=n, max_size=n))
    return f"made({draw(pick(WRAPS))!r}, [{', '.join(row)}])"


def made(text, values):
    """Return values in a container, or a list of them where it does not take them."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return eval(text.format("values"), globals() | {"values": values})
    except Exception:
        return values


@cache
@st.composite
def scores(draw, n=None):
    return draw(rows(draw(pick([*[tuple(_numbers)] * 4, (*_numbers, *_odd_numbers)])), n))


@cache
@st.composite
def labels(draw, n=None):
    return draw(rows(draw(pick(map(tuple, _label_sets))), n) | scores(n))


def _is_rate(value):
    return isinstance(value, float) and 0 <= value <= 1


def _returns_floats(value):
    return isinstance(value, float) and not np.isnan(value)


PROMISES = {
    "auroc": _is_rate, "average_precision": _is_rate, "max_balanced_accuracy": _is_rate,
    "recall_at_fpr": _is_rate, "pixel_auroc": _is_rate, "aupro": _is_rate,
    "mass_volume_auc": _returns_floats, "excess_mass_auc": _returns_floats,
    "find_threshold": _returns_floats,
    "conformal_p_values": lambda p: p.size == 0 or 0 < p.min() <= p.max() <= 1,
    "benjamini_hochberg": lambda x: x.dtype.kind == "i" and set(x) <= {-1, 1},
    "labels_with_rejection": lambda x: x.dtype.kind == "i" and set(x) <= {-1, 0, 1},
    "make_textures": lambda x: np.isfinite(x).all(),
    "make_objects": lambda x: np.isfinite(x).all(),
}  # fmt: skip
FUNCTIONS = {
    name: getattr(module, name)
    for module in (skocc.metrics, skocc.model_selection, skocc.datasets)
    for name in module.__all__
    if not isinstance(getattr(module, name), type) and not name.startswith("fetch")
}


def calling(name, *args, **kwargs):
    """Call a public function."""
    result = attempt(FUNCTIONS[name], *args, **kwargs)
    if result is not REFUSED and name in PROMISES:
        check(PROMISES[name](result), name, result)


@cache
def options(*names):
    """Text of keyword arguments, with values that mean something or not."""
    values = st.sampled_from(
        [*ODD, *_numbers, "0.05", "(0.9, 0.999)", "(0.1, 0.2)", "'f1'", "3", "'loo'"]
    )
    values |= pick([f"{rule!r}" for rule in ("conformal", "percentile", "median", "std")])
    one = st.tuples(pick(names), values).map("{0[0]}={0[1]}".format)
    return st.lists(one, max_size=2, unique_by=lambda t: t.split("=")[0])


@st.composite
def metrics(draw):
    n = draw(st.integers(0, 12))
    m = draw(st.just(n) | st.just(n) | st.just(n) | st.integers(0, 12))
    name = draw(pick(
        ["auroc", "average_precision", "best_f1", "max_balanced_accuracy", "recall_at_fpr",
         "mass_volume_auc", "excess_mass_auc", "pixel_auroc", "aupro", "make_scorer"]
    ))  # fmt: skip
    if name in ("pixel_auroc", "aupro"):
        arguments = [
            f"array({draw(pick([(3, 8, 8), (3, 8, 8), (2, 9, 7), (0, 8, 8), (3, 8)]))}, "
            f"{draw(pick(['bool', 'float32', 'int8', 'float64', 'O', 'U3', 'uint8']))!r}, "
            f"{draw(pick(VALUES))!r}, {draw(pick(LAYOUTS))!r})"
            for _ in range(2)
        ]
        containers = pick(
            ["{}"] * 5 + ["list({})", "tensor({})", "[{}, None]", "files({})",
             "pictures({})", "contents(files({}, n_broken=1))", "special_files()[:3]",
             "'0.png'"]
        )  # fmt: skip
        arguments = [draw(containers).format(a) for a in arguments]
    elif name == "make_scorer":
        arguments = [draw(pick(["'auroc'", "'best_f1'", "'recall_at_fpr'", "'x'", "None"]))]
    else:
        first = scores(n) if "mass" in name else labels(n)
        arguments = [draw(first), draw(scores(m))]
    arguments += draw(options(*{
        "recall_at_fpr": ["max_fpr"], "aupro": ["max_fpr"], "make_scorer": ["max_fpr"],
        "mass_volume_auc": ["volume", "mass_range"], "excess_mass_auc": ["volume"],
    }[name])) if name in ("recall_at_fpr", "aupro", "mass_volume_auc", "excess_mass_auc",
                          "make_scorer") else []  # fmt: skip
    return f"calling({name!r}, {', '.join(arguments)})"


@st.composite
def thresholds(draw):
    n = draw(st.integers(0, 40))
    m = draw(st.just(n) | st.just(n) | st.integers(0, 12))
    names = ["find_threshold", "conformal_p_values", "benjamini_hochberg"]
    name = draw(pick([*names, "labels_with_rejection", "tuning"]))
    if name == "find_threshold":
        arguments = [draw(scores(n)), draw(labels(m) | st.just("None"))]
        arguments += draw(options("rule", "max_fpr", "k"))
    elif name == "conformal_p_values":
        arguments = [draw(scores()), draw(scores(n))]
        arguments += draw(options("weights", "calibration_weights"))
    elif name == "benjamini_hochberg":
        arguments = [draw(scores(n)), *draw(options("rate"))]
    elif name == "labels_with_rejection":
        arguments = [draw(scores(n)), *draw(options("band"))]
    else:
        dtype = draw(pick(["f4", "f4", "f8", "O", "U3"]))
        X = f"array(({n}, 3), {dtype!r}, {draw(pick(VALUES))!r})"
        others = ["list({})", "pd.DataFrame(plain({}))", "tensor({})"]
        others += ["sparse.csr_matrix(np.ones((9, 3)))"]
        X = draw(pick(["{}"] * 4 + others)).format(X)
        arguments = [X, draw(labels(m) | st.just("None"))]
        arguments += draw(
            options(
                "rule", "max_fpr", "k", "calibration_size", "cv", "random_state",
                "estimator", "refit",
            )
        )  # fmt: skip
        return f"tuning({', '.join(arguments)})"
    return f"calling({name!r}, {', '.join(arguments)})"


class FromMean(OutlierMixin, BaseEstimator):
    """The distance from the mean: as fast as a detector can be."""

    def fit(self, X, y=None):
        self.mean_ = self.checked(X).mean(axis=0)
        return self

    def checked(self, X):
        try:
            return sklearn.utils.check_array(X, dtype=np.float64)
        except (TypeError, ValueError, OverflowError) as error:
            raise ValueError("X is no table of numbers") from error

    def score_samples(self, X):
        X = self.checked(X)
        return -((X - self.mean_) ** 2).sum(axis=1)

    def decision_function(self, X):
        return self.score_samples(X) + 1.0

    def predict(self, X):
        return np.where(self.decision_function(X) >= 0, 1, -1)


def tuning(X, y, **params):
    """Fit a ThresholdTuner and a NormalOnly, and see what they say."""
    selection, detector = skocc.model_selection, params.pop("estimator", FromMean())
    with np.errstate(all="ignore"):
        tuner = selection.ThresholdTuner(detector, **params)
        if attempt(tuner.fit, X, y) is not REFUSED:
            check(np.isfinite(tuner.offset_), tuner.offset_)
            p_values = attempt(tuner.p_values, X)
            found = attempt(tuner.predict, X)
            # Anomalies that were left out of it all may be worse than the detector takes.
            check((found is REFUSED) == (p_values is REFUSED), found, p_values)
            if found is not REFUSED:
                check(set(found) <= {-1, 1}, found)
                check(0 < p_values.min() <= p_values.max() <= 1, p_values)
        normal_only = selection.NormalOnly(detector)
        if attempt(normal_only.fit, X, y) is not REFUSED:
            found = attempt(normal_only.predict, X)
            check(found is REFUSED or set(found) <= {-1, 1})


def splitting(name, X, y=None, groups=None, **params):
    """Draw the splits of a splitter: only normal samples are trained on."""
    splitter = attempt(getattr(skocc.model_selection, name), **params)
    if splitter is REFUSED:
        return
    splits = attempt(lambda: list(splitter.split(X, y, groups)))
    if splits is REFUSED:
        return
    check(len(splits) == splitter.get_n_splits(X, y, groups), len(splits))
    for train, validation in splits:
        check(train.dtype.kind == validation.dtype.kind == "i", train.dtype)
        check(len(train) and len(validation), train, validation)
        check(not set(train) & set(validation), train, validation)
        check(0 <= min(*train, *validation) <= max(*train, *validation) < _num_samples(X))
        if y is not None:
            trained = np.asarray(y).ravel()[train].tolist()
            check(all(v == "good" or float(v) > 0 for v in trained), trained)


@st.composite
def splits(draw):
    n = draw(st.integers(0, 12))
    lengths = st.just(n) | st.just(n) | st.just(n) | st.integers(0, 12)
    name = draw(pick(["OneClassKFold", "OneClassSplit", "SyntheticSplit"]))
    X = draw(scores(n) | st.just(f"np.zeros(({n}, 3))") | st.just(f"range({n})"))
    y = draw(labels(draw(lengths)) | st.just("None"))
    groups = draw(st.just("None") | scores(draw(lengths)) | labels(draw(lengths)))
    names = {"OneClassKFold": ["n_splits", "shuffle", "random_state"],
             "OneClassSplit": ["n_splits", "test_size", "random_state"],
             "SyntheticSplit": ["n_splits", "fraction", "random_state"]}[name]  # fmt: skip
    params = [p for p in draw(options(*names)) if "n_splits=2**" not in p]
    return f"splitting({', '.join([repr(name), X, y, groups, *params])})"


def darkened(images, random_state=None):
    if images.dtype.kind not in "iuf":
        raise ValueError("no pixels")
    return images // 2 if images.dtype.kind in "iu" else images / 2 - 1, images > 0


def unchanged(images, random_state=None):
    return images, None


def reshaped(images, random_state=None):
    return images[..., :1], None


@st.composite
def makers(draw):
    """Calls of what makes data, and adds defects or divides classes."""
    name = draw(pick(
        ["cut_defects", "scratch_defects", "stain_defects", "twist_defects", "make_defects",
         "make_objects", "make_textures", "one_vs_rest", "add_synthetic_anomalies",
         "two_protocol_split", "classical_detectors"]
    ))  # fmt: skip
    images = inputs(pick([(3, 24, 24), (2, 24, 24, 3), (2, 32, 16), (3, 8, 8), (0, 8, 8)]))
    good = st.sampled_from([f"array((3, 24, 24), {d!r})" for d in ("f4", "u1", "f8", "u2")])
    images = good | images
    shared = ["random_state"]
    if name in ("make_objects", "make_textures"):
        arguments = [
            draw(pick(["1", "2", "0", "-1", "None", "2.0", "True", "'x'", "np.int8(2)"]))
        ]
        kinds = "weave", "wood", "nut", "bolt", "carpet", "grid", "x", "tile", "screw"
        arguments += [f"kind={draw(pick(kinds))!r}"] if draw(st.booleans()) else []
        arguments += [
            t
            for t in draw(options("size", "random_state"))
            if "2**" not in t and "1e" not in t
        ]
    elif name == "one_vs_rest":
        n = draw(st.integers(0, 12))
        arguments = [draw(st.just(f"array(({n}, 8, 8))") | images), draw(labels(n))]
        arguments += [draw(pick([*_numbers, *_odd_numbers]))]
        arguments += draw(options("test_images", "test_labels", "test_size", *shared))
    elif name == "add_synthetic_anomalies":
        arguments = [draw(images), draw(pick(
            ["darkened", "darkened", "unchanged", "reshaped", "None",
             "skocc.datasets.cut_defects", "lambda images, random_state: 3"]
        ))]  # fmt: skip
        arguments += draw(options("groups", *shared))
    elif name == "two_protocol_split":
        n = draw(st.integers(0, 12))
        arguments = [draw(images), draw(st.just(f"array(({n}, 24, 24))") | images)]
        arguments += [draw(labels(n))]
        arguments += [
            f"protocol={draw(pick(['original', 'one-class', 'synthetic', 'x']))!r}"
        ]
        arguments += [draw(pick(["make_anomalies=darkened", "make_anomalies=None"]))]
        arguments += draw(options(*shared))
    elif name == "classical_detectors":
        arguments = draw(options(
            "features", "scaling", "n_components", "n_samples", "memory", *shared
        ))  # fmt: skip
    else:
        names = {
            "cut_defects": ["n_defects", "area", "aspect_ratio"],
            "scratch_defects": ["n_defects", "length", "width", "contrast"],
            "stain_defects": ["n_defects", "radius", "contrast"],
            "twist_defects": ["n_defects", "radius", "angle"],
            "make_defects": ["kind", "radius", "n_defects"],
        }[name]
        arguments = [draw(images), *draw(options(*names, "foreground", *shared))]
    return f"calling({', '.join([repr(name), *arguments])})"


# Folders, tables, the command line -------------------------------------------------------

_names = st.text(
    alphabet=[*string.printable.replace("/", ""), *"äß語\u202e\udc80\U0001f600"],
    min_size=1,
    max_size=12,
) | pick([
    "..png", ".", "good", "train", "test", "ground_truth", "a" * 255, "=1+1", "-x", "~",
    "a.PNG", "1", "01", "²", "\u0661", "Train001", "Test001", "Test001_gt", "frames",
    "training", "testing", "test_frame_mask", "bottle", "defect",
])  # fmt: skip
_suffixes = pick(
    [".png"] * 4 + [".PNG", ".jpg", ".tif", ".bmp", ".gif", ".npy", ".m", "", ".txt"]
)
_contents = pick([
    "image", "image", "image", "color", "large", "empty", "junk", "folder", "pipe",
    "link", "loop", "hidden", "truncated", "array", "matlab",
])  # fmt: skip


def tree(*entries):
    """Make a folder with such (path, content), and return its name."""
    root = Path("tree")
    root.mkdir()
    for name, content in entries:
        path = root / name
        with contextlib.suppress(OSError, ValueError):
            path.parent.mkdir(parents=True, exist_ok=True)
            if not os.path.lexists(path):
                put(path, content)
    return str(root)


def put(path, content):
    if content == "folder":
        path.mkdir()
    elif content == "pipe":
        os.mkfifo(path)
    elif content in ("link", "loop"):
        path.symlink_to("nowhere" if content == "link" else path.name)
    elif content in ("image", "color", "large", "truncated"):
        size = (8, 8) if content != "large" else (30, 20)
        image = Image.effect_noise(size, 64).convert("RGB" if content == "color" else "L")
        stream = io.BytesIO()
        image.save(stream, "PNG")
        whole = stream.getvalue()
        path.write_bytes(whole if content != "truncated" else whole[: len(whole) // 2])
    elif content == "array":
        with path.open("wb") as file:
            np.save(file, np.zeros(2))
    elif content == "matlab":
        path.write_text("gt_frame = [1:2 7];")
    else:
        path.write_bytes({"empty": b"", "junk": b"\x00\xff" * 50, "hidden": b"x"}[content])
        if content == "hidden":
            path.chmod(0)


@st.composite
def trees(draw):
    parts = st.lists(_names, min_size=1, max_size=3).map("/".join)
    paths = st.tuples(parts, _suffixes).map("".join)
    layouts = pick([
        "train/good/0.png", "train/good/1.png", "test/good/2.png", "test/bad/3.png",
        "ground_truth/bad/3_mask.png", "bottle/train/good/0.png", "bottle/test/bad/1.png",
        "Train/Train001/1.tif", "Test/Test001/1.tif", "Test/UCSDped1.m", "0.png",
        "good/0.png", "Test/Test001_gt/1.bmp", "training/frames/01/1.jpg",
        "testing/frames/01/1.jpg",
        "testing/test_frame_mask/01.npy", "bad/1.png",
    ])  # fmt: skip
    found = draw(st.lists(st.tuples(paths | layouts, _contents), max_size=8))
    extra = ['("0.png", "image")', '("1.png", "image")'] if draw(st.booleans()) else []
    return f"tree({', '.join([*map(repr, found), *extra])})"


def loading(name, folder, *args, **options):
    """Load a folder: the files that are listed are there."""
    bunch = attempt(FUNCTIONS[name], folder, *args, **options)
    if bunch is REFUSED:
        return
    for key, value in bunch.items():
        if ("path" in key or "mask" in key) and value is not None:
            for path in value:
                check(path is None or os.path.lexists(path), key, path)


@st.composite
def folders(draw):
    name = draw(pick(["load_image_folder", "load_mvtec_layout", "load_video_folders"]))
    folder = draw(trees() | trees() | trees() | pick(ODD) | _names.map(repr))
    arguments = [folder]
    if name == "load_video_folders":
        arguments.append(draw(pick(["'ucsd'", "'shanghaitech'", "'x'", "None"])))
    elif name == "load_image_folder":
        names = _names.map(repr) | pick(ODD) | pick(
            ["'good'", "['good']", "'*'", "'**/*.png'", "'bad'", "'..'", "'.'", "['', 3]",
             "'*.png'", "('0.png', '*1*')", "'test/*'", "[]", "{'0.png': '1.png'}"]
        )  # fmt: skip
        for option in draw(st.lists(pick(["normal", "anomalous", "masks"]), unique=True)):
            arguments.append(f"{option}={draw(names)}")
    elif name == "load_mvtec_layout" and draw(st.booleans()):
        arguments.append(draw(pick(["'bottle'", "''", "'..'", "None"]) | pick(ODD)))
    return f"loading({name!r}, {', '.join(arguments)})"


@cache
def fitted_detector(name="DeepSVDD"):
    pixels = np.random.default_rng(0).integers(0, 256, (20, 8, 8), dtype=np.uint8)
    return small(name, {}).fit(pixels)


def listed(folder):
    return sorted(Path(folder).rglob("*"), key=str)


def table_of(detector, paths, **kwargs):
    """Score files: one row each, with a score and a label, or an error."""
    paths = list(paths) if isinstance(paths, map) else paths
    table = attempt(skocc.predict_table, detector, paths, **kwargs)
    if table is REFUSED:
        return
    check(len(table) == len(paths), len(table))
    failed = table["error"].notna()
    check((failed == table["score"].isna()).all(), table)
    check((failed == table["label"].isna()).all(), table)
    check(all(str(e).strip() for e in table["error"][failed]), table)


@st.composite
def tables(draw):
    detector = draw(pick(
        ["fitted_detector()"] * 6
        + ["fitted_detector('ConvAE')", "skocc.DeepSVDD()", "None"]
    ))  # fmt: skip
    paths = draw(
        trees().map("listed({})".format)
        | trees().map("listed({}) + special_files()".format)
        | pick(
            [
                *ODD,
                "[None, 'x']",
                "[b'x']",
                "special_files()",
                "[nan]",
                "files(array((3, 8, 8)))",
            ]
        )
    )
    batch = draw(pick(["", ", batch_size=1", ", batch_size=2"]) | pick(ODD).map(
        ", batch_size={}".format))  # fmt: skip
    return f"table_of({detector}, {paths}{batch})"


def commanding(arguments, *folders):
    """Run the command line: it says what is wrong, and ends with a status."""
    if not Path("model.st").exists():
        skocc.save(fitted_detector(), "model.st")
    try:
        status = attempt(command_line, arguments, allowed=())
    except SystemExit as error:
        status = error.code
    sys.stderr.flush()
    said = sys.stderr.buffer.getvalue().decode(errors="replace")
    check(status in (0, 1, 2), status)
    check(status == 0 or said.strip(), status, said)
    check("Traceback" not in said and "Warning" not in said, said)


@st.composite
def commands(draw):
    folder = draw(trees())
    free = [
        "tree", "tree", "tree/good", "model.st", "", ".", "nowhere", "out.csv", "no/out",
        "/dev/null", "--help", "--version", "-x", "--output", "--normal", "good", "\0",
        "train", "--seed", "--param", "x", "x=1", "--method", "a" * 5000, "tree/0.png",
    ]  # fmt: skip
    if draw(st.booleans()):
        arguments = [
            "score",
            draw(pick(["model.st"] * 4 + free)),
            draw(pick(["tree"] * 4 + free)),
        ]
        arguments += ["--output", draw(pick(free))] if draw(st.booleans()) else []
    else:
        arguments = ["fit", draw(pick(["tree"] * 4 + free)), "--method"]
        arguments += [draw(pick(["DeepSVDD"] * 4 + ["ConvAE", "MOCCA", "x", "load", ""]))]
        arguments += ["--output", draw(pick(["out.st"] * 4 + free))]
        for name in ("n_epochs", "pretrain_n_epochs", "device"):
            arguments += ["--param", f"{name}={'cpu' if name == 'device' else 1}"]
        values = pick([
            "1", "-1", "x", "", "(1", "(2,3)", "nan", "1e999", "a,b", "{}", "None", "1_0",
            "0x1F", "'", "8", "[8,8]", "9" * 5000, "True", ",", "import os",
        ])  # fmt: skip
        names = pick([
            "nu", "image_size", "embedding_dim", "random_state", "batch_size", "widths",
            "channels", "boundary", "x", "", "contamination", "verbose", "image_shape",
            "device", "milestones", "backbone", "weights",
        ])  # fmt: skip
        for _ in range(draw(st.integers(0, 2))):
            arguments += ["--param", f"{draw(names)}={draw(values)}"]
        if draw(st.booleans()):
            option = draw(pick(["--normal", "--max-fpr", "--calibration-size", "--seed"]))
            numbers = ["0.5", "0.1", "1", "0", "-1", "nan", "2", "1e400", "9" * 30, "inf"]
            arguments += [option, draw(pick([*numbers, "x", "good", "..", ""]))]
    if draw(pick([False] * 4 + [True])):
        arguments = draw(st.permutations(arguments))[: draw(st.integers(0, len(arguments)))]
    return f"commanding({arguments!r}, {folder})"


# Bytes -----------------------------------------------------------------------------------


def changed(content, changes):
    """Return bytes with changes, each (kind, place and size as shares of 2**16, value)."""
    content = bytearray(content)
    for kind, place, size, value in changes:
        place = len(content) * place >> 16
        size = 1 + (size * (len(content) - place) >> 20)
        if kind == "flip" and content:
            content[place] ^= 1 << (value % 8)
        elif kind == "set" and content:
            content[place] = value
        elif kind == "truncate":
            del content[place:]
        elif kind == "cut":
            del content[place : place + size]
        elif kind == "insert":
            content[place:place] = bytes([value]) * size
        elif kind == "repeat":
            content[place:place] = content[place : place + size]
        elif kind == "swap":
            other = len(content) * value >> 8
            first, second = content[place : place + size], content[other : other + size]
            content[place : place + len(second)] = second
            content[other : other + len(first)] = first
    return bytes(content)


_changes = st.lists(
    st.tuples(
        pick(["flip", "flip", "set", "truncate", "cut", "insert", "repeat", "swap"]),
        # The headers are where the meaning is.
        st.integers(0, 2**16 - 1) | st.integers(0, 4000),
        st.integers(0, 2**16 - 1),
        st.integers(0, 255),
    ),
    min_size=1,
    max_size=3,
)


@cache
def model_file(name):
    images = np.random.default_rng(0).random((30, 14, 14)).astype(np.float32)
    return ModelFile({c.__name__: c for c in CLASSES}[name], images)


def model_bytes(name, changes):
    """Load a model file with other bytes: an equal model, or one error that names it."""
    model_file(name).check(
        Path("a.safetensors"), changed(model_file(name).content, changes)
    )


def cache_bytes(index, changes):
    """Compute by a cache with a file of other bytes: the same features, and a warning."""
    network, batch = Counting(), batch_of(0, 1)
    expected = cached(network, ".")(batch)
    path = entries(Path("."))[index]
    content = path.read_bytes()
    path.write_bytes(changed(content, changes))
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        found = cached(network, ".")(batch)
    check(bool(seen) == (changed(content, changes) != content), len(seen))
    for a, b in zip(found, expected, strict=True):
        check(a.dtype == b.dtype and torch.allclose(a, b), a, b)


FORMATS = ["png", "jpg", "bmp", "gif", "tif", "ppm", "webp", "tga", "ico", "jp2", "pcx",
           "dds", "sgi", "lzw.tif", "I.png", "I.tif", "F.tif", "P.png", "RGBA.png", "L.jpg",
           "exif.jpg", "progressive.jpg", "pages.gif", "pages.tif", "pages.webp", "1.png",
           "im", "pdf", "eps", "icns", "msp", "xbm", "avif", "spider"]  # fmt: skip


@cache
def image_content(kind):
    """Return the bytes of an image file, None where Pillow cannot write such."""
    *mode, suffix = kind.split(".")
    image = Image.fromarray(
        np.random.default_rng(0).integers(0, 256, (9, 7, 3), dtype=np.uint8)
    )
    params = {}
    if mode in (["I"], ["F"], ["P"], ["RGBA"], ["L"], ["1"]):
        image = image.convert("L").convert(mode[0])
    elif mode == ["lzw"]:
        params = {"compression": "tiff_lzw"}
    elif mode == ["exif"]:
        params = {"exif": Image.Exif()}
        params["exif"][0x0112] = 6
    elif mode == ["progressive"]:
        params = {"progressive": True}
    elif mode == ["pages"]:
        params = {"save_all": True, "append_images": [image.rotate(90)]}
    elif suffix in ("msp", "xbm"):
        image = image.convert("1")
    elif suffix == "spider":
        image = image.convert("F")
    stream = io.BytesIO()
    try:
        registered = Image.registered_extensions()
        image.save(stream, registered.get(f".{suffix}", suffix.upper()), **params)
    except (KeyError, OSError, ValueError):
        return None
    return stream.getvalue()


def image_bytes(kind, changes, image_size=(8, 8)):
    """Read an image file with other bytes: pixels, or an error that names the file."""
    content = image_content(kind)
    if content is None:
        return
    path = Path(f"picture.{kind}")
    path.write_bytes(changed(content, changes))
    try:
        pixels = FileImages([path], image_size).load([0])
    except ValueError as error:
        check(str(path) in str(error), error)
    else:
        check(pixels.shape[:3] == (1, *image_size), pixels.shape)
        check(np.isfinite(pixels).all(), pixels)


KINDS = {
    "fits": fits(),
    "parameters": parameters(),
    "metrics": metrics(),
    "thresholds": thresholds(),
    "splits": splits(),
    "makers": makers(),
    "folders": folders(),
    "tables": tables(),
    "commands": commands(),
    "models": st.builds(
        "model_bytes({!r}, {!r})".format, pick([c.__name__ for c in CLASSES]), _changes
    ),
    "caches": st.builds("cache_bytes({!r}, {!r})".format, pick([0, 1]), _changes),
    "images": st.builds("image_bytes({!r}, {!r})".format, pick(FORMATS), _changes),
}
# Of 100 cases: as many of each kind as its share says. Fits take the time.
SHARES = {
    "fits": 1, "parameters": 2, "metrics": 15, "thresholds": 13, "splits": 13, "makers": 11,
    "folders": 8, "tables": 2, "commands": 2, "models": 8, "caches": 8, "images": 17,
}  # fmt: skip


# The script ------------------------------------------------------------------------------

BATCH = 200


def batch_of_cases(kind, n, number, until):
    """Return how many cases were run, and a list of (fault, line)."""
    soft = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (soft + MEMORY, soft + MEMORY))
    faulthandler.enable()
    faults, n_run = [], 0

    @seed(number)
    @settings(
        max_examples=n, database=None, deadline=None, phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(KINDS[kind])
    def draw(line):
        nonlocal n_run
        if time.time() > until:
            return
        n_run += 1
        Path(tempfile.gettempdir(), f"fuzz-{os.getppid()}").write_text(line)
        try:
            run(line)
        except BaseException as error:
            if isinstance(error, KeyboardInterrupt):
                raise
            if not isinstance(error, Fault):
                error = Fault(f"{error!r:.300}{_places(error)}")
            faults.append((str(error), line))

    draw()
    return n_run, faults


def say(text):
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--cases", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kind", choices=KINDS)
    parser.add_argument("--minutes", type=float, default=float("inf"))
    parser.add_argument("--line", help="run this case alone")
    options = parser.parse_args()
    if options.line:
        return run(options.line)
    torch.set_num_threads(1)
    until = time.time() + 60 * options.minutes
    shares = {options.kind: 100} if options.kind else SHARES
    left = {kind: options.cases * share // 100 for kind, share in shares.items()}
    counts, n_faults, number = dict.fromkeys(left, 0), 0, options.seed
    shown = set()
    # What the slower ones need once is there for all processes.
    fitted_detector()
    for public_class in CLASSES if "models" in left else []:
        model_file(public_class.__name__)
    while any(left.values()) and time.time() < until:
        for kind in left:
            n = min(left[kind], BATCH)
            if not n:
                continue
            number += 1
            left[kind] -= n
            # A process of its own: a crash ends no more than this, and memory comes back.
            with ProcessPoolExecutor(1, get_context("fork")) as pool:
                try:
                    n_run, faults = pool.submit(
                        batch_of_cases, kind, n, number, until
                    ).result()
                except BrokenProcessPool:
                    last = Path(tempfile.gettempdir(), f"fuzz-{os.getpid()}").read_text()
                    n_run, faults = 0, [("crash of the process", last)]
            counts[kind] += n_run
            for fault, line in faults:
                n_faults += 1
                # Of many that are alike the first is shown.
                if (place := re.sub(r"\d+", "", fault)[-300:]) not in shown:
                    shown.add(place)
                    say(f"FAULT in {kind}: {fault}\n  {line}\n")
    say(f"{sum(counts.values())} cases, {n_faults} faults, seed {options.seed}: {counts}")
    return int(n_faults > 0)


if __name__ == "__main__":
    sys.exit(main())
