"""The rows of the contract's input table, and its list of bad input."""

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from scipy import sparse
from sklearn.base import BaseEstimator

import skocc
from skocc._base.reading import validate_images
from tests.quick import quick


class Probe(BaseEstimator):
    """The least that validate_images asks of an estimator."""

    def __init__(self, image_shape=None, image_size=None, intensity_range=None):
        self.image_shape = image_shape
        self.image_size = image_size
        self.intensity_range = intensity_range


def read(X, rows=True, **params):
    probe = Probe(**params)
    return validate_images(probe, X, reset=True, rows=rows), probe


RNG = np.random.default_rng(0)
GRAY = RNG.random((5, 10, 12)).astype(np.float32)
RGB = RNG.random((5, 10, 12, 3)).astype(np.float32)


class Images(torch.utils.data.Dataset):
    """A data set that counts what it has been asked for."""

    def __init__(self, items, transform=lambda item: item):
        self.items, self.transform = items, transform
        self.asked = []

    def __len__(self):
        return len(self.items)

    def __getitem__(self, index):
        self.asked.append(index)
        return self.transform(self.items[index])


class Stream(torch.utils.data.IterableDataset):
    def __iter__(self):
        yield from GRAY


@pytest.mark.parametrize(
    ("X", "params", "shape"),
    [
        (GRAY, {}, (5, 10, 12, 1)),
        (RGB, {}, (5, 10, 12, 3)),
        (np.moveaxis(RGB, -1, 1), {}, (5, 10, 12, 3)),
        (torch.from_numpy(RGB).permute(0, 3, 1, 2), {}, (5, 10, 12, 3)),
        (torch.from_numpy(RGB).permute(0, 3, 1, 2).bfloat16(), {}, (5, 10, 12, 3)),
        (torch.from_numpy(GRAY), {}, (5, 10, 12, 1)),
        (RNG.random((5, 9, 9, 7)), {}, (5, 9, 9, 7)),
        (RNG.random((5, 7, 9, 9)), {}, (5, 9, 9, 7)),
        (RNG.random((5, 3, 8, 3)), {"image_shape": (3, 8, 3)}, (5, 3, 8, 3)),
        (RNG.random((5, 3, 8, 3)), {"image_shape": (8, 3, 3)}, (5, 8, 3, 3)),
        (RNG.random((5, 3, 8, 3)), {"image_shape": (8, -1, 3)}, (5, 8, 3, 3)),
        (GRAY.reshape(5, -1), {"image_shape": (10, 12)}, (5, 10, 12, 1)),
        (GRAY.reshape(5, -1), {"image_shape": (-1, 12)}, (5, 10, 12, 1)),
        (RGB.reshape(5, -1), {"image_shape": (10, 12, 3)}, (5, 10, 12, 3)),
        (RGB.reshape(5, -1), {"image_shape": (10, 12, -1)}, (5, 10, 12, 3)),
        (GRAY.reshape(5, -1), {}, (5, 120)),
        (pd.DataFrame(GRAY.reshape(5, -1)), {}, (5, 120)),
        (GRAY.reshape(5, -1).tolist(), {}, (5, 120)),
        (GRAY.tolist(), {}, (5, 10, 12, 1)),
        (tuple(GRAY), {}, (5, 10, 12, 1)),
        (GRAY, {"image_size": 6}, (5, 6, 6, 1)),
        (
            GRAY.reshape(5, -1),
            {"image_shape": (10, 12), "image_size": (4, 6)},
            (5, 4, 6, 1),
        ),
    ],
)
def test_accepted(X, params, shape):
    images, probe = read(X, **params)
    assert images.shape == shape
    assert probe.image_shape_ == shape[1:]
    assert images.load(slice(None)).shape == shape


def test_channels_first_pixels_arrive_where_they_belong():
    images, _ = read(np.moveaxis(RGB, -1, 1))
    np.testing.assert_array_equal(images.load(slice(None)), RGB)


def test_float_images_are_not_truncated_to_integers():
    images, _ = read(GRAY.astype(np.float64))
    np.testing.assert_allclose(images.load(slice(None))[..., 0], GRAY, rtol=1e-6)


def test_byte_order_does_not_matter():
    deep = RNG.integers(0, 65536, (3, 4, 4)).astype(np.uint16)
    native, _ = read(deep)
    foreign, _ = read(deep.astype(deep.dtype.newbyteorder()))
    np.testing.assert_array_equal(foreign.load(slice(None)), native.load(slice(None)))
    assert native.load(slice(None)).max() <= 1


def test_memory_maps_are_not_read_into_memory(tmp_path):
    np.save(tmp_path / "images.npy", (GRAY * 255).astype(np.uint8))
    mapped = np.load(tmp_path / "images.npy", mmap_mode="r")
    images, _ = read(mapped)
    assert np.shares_memory(images._array, mapped)


@pytest.mark.parametrize(
    ("X", "message"),
    [
        (np.where(GRAY > 0.99, np.nan, GRAY), "NaN.*of 5 samples.*Remove"),
        (np.where(GRAY > 0.99, np.inf, GRAY), "infinity.*of 5 samples.*Remove"),
        (GRAY * 1j, "Complex data not supported.*complex.*Pass real values"),
        (torch.zeros(2, 1, 4, 4, dtype=torch.complex64), "Complex data not supported"),
        (sparse.csr_matrix(GRAY[0]), r"Sparse data.*csr.*Pass X.toarray\(\)"),
        (np.array([None, {}], dtype=object), "must hold paths.*NoneType at index 0"),
        (np.empty((0, 8, 8)), r"0 sample\(s\).*not empty"),
        (np.empty((0, 8)), r"0 sample\(s\).*not empty"),
        ([], r"0 sample\(s\).*not empty"),
        ("picture.png", "single str.*Pass a list"),
        (Image.new("L", (4, 4)), "single Image.*Pass a list"),
        (GRAY[0, 0], "ndarray of 1 dimension.*Reshape your data"),
        (None, "NoneType of 0 dimension"),
        (iter(GRAY), "iterator of 0 dimension.*for a generator its images as one array"),
        (
            torch.utils.data.DataLoader(Images(GRAY)),
            r"each image by its index.*DataLoader of Images.*Pass its data set, loader\.d",
        ),
        (Stream(), r"each image by its index.*Got Stream.*list\(X\)"),
        (Images(GRAY[:0]), r"0 sample\(s\).*not empty"),
        (Images(GRAY[0]), "Tensor of shape|ndarray of shape .12,.* index 0.*pass rows as"),
        (Images([{"image": GRAY[0]}]), "Got dict at index 0.*Wrap it in a Dataset"),
        (Images([(3, GRAY[0])]), "Got int at index 0.*Wrap it"),
        (Images([GRAY[0] * 1j]), "Got ndarray of shape .10, 12. and complex"),
        (Images([]), r"0 sample\(s\).*not empty"),
        (np.zeros((2, 2, 2, 2, 2)), "5 dimension.*Reshape your data"),
        (torch.zeros(3), "A tensor X must be images.*unsqueeze"),
        (RNG.random((5, 3, 8, 3)), r"two ways: as \(n, H, W, C\).*as \(n, C, H, W\).*Set"),
        (RNG.random((5, 8, 8, 8)), r"two ways: as \(n, H, W, C\).*as \(n, C, H, W\).*Set"),
        ([GRAY[0], GRAY[1][:4]], r"at index 1 of X is 4 x 12.*first.*10 x 12.*Set image_s"),
        ([GRAY[0], GRAY[1, 0]], r"one shape. Got shapes.*Resize them first"),
        ([[1, 2], [3]], "one shape. Got a ragged list"),
        (pd.DataFrame({"path": ["a.png", "b.png"]}), r"table of text.*a\.png.*X\['path'\]"),
        (np.array([["a.png"], ["b.png"]]), r"table of text.*a\.png.*X\[:, 0\]"),
    ],
)
def test_refused_in_three_parts(X, message):
    with pytest.raises(ValueError, match=message):
        read(X)


def with_object(value, dtype=object, shape=(5, 120)):
    """Numbers of which one is replaced."""
    X = GRAY.reshape(5, -1).astype(dtype)
    X[2, 7] = value
    return X.reshape(shape)


@pytest.mark.parametrize(
    "change",
    [
        lambda X: X, lambda X: X.reshape(5, 10, 12), lambda X: X.reshape(5, 2, 5, 12),
        pd.DataFrame, lambda X: [list(row) for row in X],
    ],
)  # fmt: skip
@pytest.mark.parametrize(
    ("value", "message"),
    [
        (None, "X contains NaN: 1 of 5 samples.*index 2.*Remove"),
        (np.nan, "X contains NaN: 1 of 5 samples.*index 2"),
        (pd.NA, "X contains NaN: 1 of 5 samples.*index 2"),
        (pd.NaT, "X contains NaN: 1 of 5 samples.*index 2"),
        (np.inf, r"X contains infinity \(inf\): 1 of 5 samples.*index 2"),
        (10**39, r"X contains values beyond 3.4e\+38.*1 of 5 samples.*index 2"),
        ("NA", "Got a str, 'NA', among its objects.*Convert|X is a table of text"),
        ("nan", "Got a str, 'nan', among its objects.*Convert|X is a table of text"),
        ({}, "X must hold numbers. Got a dict, {}, among its objects"),
        (10**400, "X must hold numbers. Got a int"),
        (np.datetime64("NaT"), "X must hold numbers. Got a "),
    ],
)
def test_what_is_no_finite_number_is_seen(change, value, message):
    X = change(with_object(value))
    with pytest.raises(ValueError, match=message):
        read(X, **({"image_shape": (2, 5, 12)} if getattr(X, "ndim", 0) == 4 else {}))
    numbers = change(with_object(1.5))
    params = {"image_shape": (2, 5, 12)} if getattr(X, "ndim", 0) == 4 else {}
    assert read(numbers, **params)[0].load(slice(None)).max() == 1.5


@pytest.mark.parametrize("shape", [(5, 120), (5, 10, 12)])
@pytest.mark.parametrize("value", [1e39, -1e39, 1e300])
def test_what_becomes_infinite_in_float32_is_seen(shape, value):
    with pytest.raises(ValueError, match=r"beyond 3.4e\+38.*float32.*1 of 5.*index 2"):
        read(with_object(value, np.float64, shape))
    with pytest.raises(ValueError, match=r"beyond 3.4e\+38"):
        read(torch.from_numpy(with_object(value, np.float64, shape)))
    images, _ = read(with_object(3.3e38, np.float64, shape))
    assert np.isfinite(images.load(slice(None))).all()


@pytest.mark.parametrize("dtype", ["datetime64[s]", "timedelta64[s]", "S8", "V8"])
def test_arrays_of_other_types_are_refused(dtype):
    with pytest.raises(ValueError, match=r"X must hold numbers. Got dtype"):
        read(np.zeros((3, 4, 4), dtype=dtype))


@pytest.mark.parametrize("dtype", ["Int64", "Float64", "boolean"])
def test_nullable_columns(dtype):
    table = pd.DataFrame((GRAY > 0.5).reshape(5, -1).astype(int)).astype(dtype)
    images, _ = read(table)
    np.testing.assert_array_equal(images.load(slice(None)), table.to_numpy(dtype="float32"))
    table.iloc[3, 4] = pd.NA
    with pytest.raises(ValueError, match=r"X contains NaN: 1 of 5 samples.*index 3"):
        read(table)


@pytest.mark.parametrize("package", ["pandas", "polars", "pyarrow"])
def test_tables_of_any_package_have_columns(package):
    module = pytest.importorskip(package)
    make = {"pandas": "DataFrame", "polars": "DataFrame", "pyarrow": "table"}[package]
    columns = {f"p{i}": GRAY.reshape(5, -1)[:, i] for i in range(12)}
    images, probe = read(getattr(module, make)(columns))
    np.testing.assert_array_equal(images.load(slice(None)), GRAY.reshape(5, -1)[:, :12])
    assert probe.feature_names_in_.tolist() == list(columns)
    assert probe.n_features_in_ == 12
    for names in [list(columns)[::-1], [f"q{i}" for i in range(12)]]:
        other = getattr(module, make)(dict.fromkeys(names, columns["p0"]))
        with pytest.raises(ValueError, match="feature names"):
            validate_images(probe, other, reset=False, rows=True)
    flat, _ = read(getattr(module, make)(columns), image_shape=(3, 4))
    assert flat.shape == (5, 3, 4, 1)
    columns["p3"] = [None, *columns["p3"][1:].tolist()]
    with pytest.raises(ValueError, match=r"X contains NaN: 1 of 5 samples.*index 0"):
        read(getattr(module, make)(columns))
    with pytest.raises(ValueError, match=r"table of text.*a\.png.*X\['path'\]"):
        read(getattr(module, make)({"path": ["a.png", "b.png"]}))


def test_series_of_paths_of_polars(tmp_path):
    polars = pytest.importorskip("polars")
    paths = [tmp_path / f"{index}.png" for index in range(5)]
    for path, image in zip(paths, GRAY, strict=True):
        Image.fromarray((255 * image).astype(np.uint8)).save(path)
    for series in [
        polars.Series([str(path) for path in paths]),
        polars.Series(paths, dtype=polars.Object),
    ]:
        assert read(series)[0].shape == (5, 10, 12, 1)


def test_rows_are_refused_where_the_method_needs_images():
    with pytest.raises(ValueError, match=r"works on images.*set image_shape=\(H, W\)"):
        read(GRAY.reshape(5, -1), rows=False)


def test_image_shapes_of_more_pixels_than_integers_count():
    with pytest.raises(ValueError, match="Rows of 64 values cannot be read as images"):
        read(np.zeros((9, 64)), image_shape=(2**40, 2**40))
    images, _ = read(np.zeros((9, 256)), image_shape=(np.uint8(16), np.uint8(16)))
    assert images.shape == (9, 16, 16, 1)


@pytest.mark.parametrize(
    ("X", "params", "message"),
    [
        (GRAY.reshape(5, -1), {"image_shape": (7, 7)}, "Rows of 120 values cannot be read"),
        (
            GRAY.reshape(5, -1),
            {"image_shape": (7, -1)},
            "Rows of 120 values cannot be read",
        ),
        (GRAY, {"image_shape": (12, 10)}, r"images of shape \(10, 12, 1\).*image_shape is"),
        (GRAY, {"image_shape": (0, 3)}, "at most one entry being -1"),
        (GRAY, {"image_size": (1, 2, 3)}, "one number of pixels or"),
    ],
)
def test_image_shape_and_size_must_fit(X, params, message):
    with pytest.raises(ValueError, match=message):
        read(X, **params)


@pytest.mark.parametrize(
    ("fitted", "later", "message"),
    [
        (
            GRAY,
            GRAY[:, :8],
            r"shape \(8, 12, 1\).*fitted on samples of shape \(10, 12, 1\)",
        ),
        (GRAY, RGB, r"shape \(10, 12, 3\).*fitted on samples"),
        (GRAY, GRAY.reshape(5, -1), "fitted on images of shape.*Reshape X"),
        (GRAY.reshape(5, -1), GRAY.reshape(5, -1)[:, :9], "X has 9 features"),
        (GRAY.reshape(5, -1), GRAY, "fitted on samples of shape"),
    ],
)
def test_another_shape_later_is_an_error(fitted, later, message):
    _, probe = read(fitted)
    with pytest.raises(ValueError, match=message):
        validate_images(probe, later, reset=False, rows=True)


def test_later_files_take_the_channels_of_fit(tmp_path):
    _, probe = read(RGB)
    Image.fromarray(np.zeros((10, 12), dtype=np.uint8)).save(tmp_path / "gray.png")
    images = validate_images(probe, [tmp_path / "gray.png"], reset=False, rows=True)
    assert images.shape == (1, 10, 12, 3)


def test_later_images_of_any_size_where_they_are_resized():
    _, probe = read(GRAY, image_size=6)
    images = validate_images(probe, RNG.random((2, 30, 40)), reset=False, rows=True)
    assert images.shape == (2, 6, 6, 1)


def test_names_of_columns_are_kept_and_forgotten():
    table = pd.DataFrame(GRAY.reshape(5, -1)).add_prefix("p")
    _, probe = read(table)
    assert probe.feature_names_in_[0] == "p0"
    with pytest.raises(ValueError, match="feature names"):
        validate_images(probe, table.add_prefix("x"), reset=False, rows=True)
    validate_images(probe, GRAY, reset=True, rows=True)
    assert not hasattr(probe, "feature_names_in_")


BYTES = RNG.integers(0, 256, (6, 10, 12, 3), dtype=np.uint8)
AS_ITEMS = {
    "tensors": lambda image: torch.from_numpy(image).permute(2, 0, 1),
    "pairs": lambda image: (torch.from_numpy(image).permute(2, 0, 1), 3),
    "floats": lambda image: [torch.from_numpy(image / 255).permute(2, 0, 1), 0, "a.png"],
    "arrays": lambda image: image,
    "channels first": lambda image: np.moveaxis(image, -1, 0),
    "pil": Image.fromarray,
    "pil pairs": lambda image: (Image.fromarray(image), 1),
}


@pytest.mark.parametrize("kind", AS_ITEMS)
def test_data_sets_are_read_when_they_are_loaded(kind):
    data = Images(BYTES, AS_ITEMS[kind])
    images, probe = read(data)
    assert set(data.asked) <= {0}
    assert images.shape == (6, 10, 12, 3)
    assert images.n_ahead == 1
    assert probe.n_features_in_ == 360
    data.asked.clear()
    batch = images.load(np.array([4, 1]))
    assert data.asked == [4, 1]
    if kind == "floats":
        np.testing.assert_allclose(batch, BYTES[[4, 1]] / np.float32(255), rtol=1e-6)
    else:
        np.testing.assert_array_equal(batch, BYTES[[4, 1]])
    assert images.load(slice(0, 3)).dtype == images.dtype
    # What scikit-learn's splitters make of it.
    fold, _ = read([data[index] for index in (4, 1)])
    np.testing.assert_array_equal(fold.load(slice(None)), batch)
    later = validate_images(probe, Images(BYTES[:2], AS_ITEMS[kind]), reset=False)
    assert later.shape == (2, 10, 12, 3)


def test_data_sets_of_gray_images():
    for kind in [torch.from_numpy, lambda image: image, Image.fromarray]:
        images, _ = read(Images((GRAY * 255).astype(np.uint8), kind))
        assert images.shape == (5, 10, 12, 1)
        as_color = validate_images(read(RGB)[1], Images(GRAY), reset=False)
        assert as_color.load([2]).shape == (1, 10, 12, 3)
    tensors = [torch.from_numpy(image)[None] for image in GRAY]
    assert read(tensors)[0].shape == (5, 10, 12, 1)


def test_data_sets_of_several_sizes():
    sizes = Images([BYTES[0], BYTES[1], BYTES[2][:7]])
    images, _ = read(sizes)
    images.load([0, 1])
    with pytest.raises(ValueError, match=r"index 2 of X is 7 x 12.*10 x 12.*image_size="):
        images.load([1, 2])
    resized, _ = read(sizes, image_size=(5, 6))
    assert resized.shape == (3, 5, 6, 3)
    assert resized.load(slice(0, 2)).shape == (2, 5, 6, 3)
    resized.load([2])
    assert resized.original_sizes() == [(10, 12), (10, 12), (7, 12)]
    mixed = validate_images(Probe(), sizes, reset=True, mixed_sizes=True)
    assert mixed.shape == (3, -1, -1, 3)
    assert mixed.load([2]).shape == (1, 7, 12, 3)
    as_list, _ = read(list(sizes.items), image_size=(5, 6))
    np.testing.assert_array_equal(as_list.load([2]), resized.load([2]))


@pytest.mark.parametrize(
    ("item", "message"),
    [
        (np.where(GRAY[0] > 0.9, np.nan, GRAY[0]), "X contains NaN: the image at index 2"),
        (np.full((10, 12), 1e300), r"X contains infinity \(inf\): the image at index 2"),
        (RGB[0], "Got 3 channels of float32 at index 2, where 1 of float32"),
        (None, "Got NoneType at index 2"),
        ("a.png", "Got str at index 2"),
        (Image.new("RGB", (12, 10)), "Got 3 channels of .* at index 2"),
    ],
)
def test_items_that_cannot_be_used_are_named(item, message):
    images, _ = read(Images([GRAY[0], GRAY[1], item]))
    with pytest.raises(ValueError, match=message):
        images.load(slice(None))


def test_errors_of_a_data_set_name_the_item():
    def stumble(item):
        if item == 3:
            raise KeyError("gone")
        return GRAY[item]

    images, _ = read(Images(range(5), stumble))
    with pytest.raises(
        ValueError, match=r"index 3 of X, a Images.*KeyError: 'gone'.*Leave"
    ):
        images.load([3])
    with pytest.raises(ValueError, match=r"index 0 of X, a Images.*KeyError"):
        read(Images([3], stumble))


TWELVE_BITS = RNG.integers(0, 4096, (5, 10, 12)).astype(np.uint16)
TWELVE_BITS[0, 0, :2] = 0, 4095


@pytest.mark.parametrize(
    "kind",
    [
        "array", "rows", "table", "tensor", "int16", "files", "pil", "data set", "resized",
        "memory map",
    ],
)  # fmt: skip
def test_intensity_range_is_that_of_every_image(kind, tmp_path):
    paths = [tmp_path / f"{index}.png" for index in range(5)]
    for path, image in zip(paths, TWELVE_BITS, strict=True):
        Image.fromarray(image).save(path)
    np.save(tmp_path / "images.npy", TWELVE_BITS)
    X = {
        "array": TWELVE_BITS,
        "rows": TWELVE_BITS.reshape(5, -1),
        "table": pd.DataFrame(TWELVE_BITS.reshape(5, -1)),
        "tensor": torch.from_numpy(TWELVE_BITS.astype(np.int32))[:, None],
        "int16": TWELVE_BITS.astype(np.int16),
        "files": paths,
        "pil": [Image.open(path).copy() for path in paths],
        "data set": Images(TWELVE_BITS),
        "resized": TWELVE_BITS.repeat(2, axis=1).repeat(2, axis=2),
        "memory map": np.load(tmp_path / "images.npy", mmap_mode="r"),
    }[kind]
    params = {"intensity_range": (0, 4095)}
    if kind in ("rows", "table"):
        params["image_shape"] = (10, 12)
    images, probe = read(
        X, **params, **({"image_size": (20, 24)} if kind == "resized" else {})
    )
    batch = images.load(slice(None))
    if kind == "resized":
        batch = batch[:, ::2, ::2]
    assert batch.dtype == images.dtype == np.float32
    np.testing.assert_allclose(batch[..., 0], TWELVE_BITS / 4095, rtol=1e-6)
    later = validate_images(probe, X[:1] if kind != "data set" else X, reset=False)
    assert later.load([0]).max() == batch[0].max()
    # Any numbers, and nothing is cut off.
    shifted, _ = read(TWELVE_BITS.astype(np.int16) - 1000, intensity_range=[-1000, 1000])
    assert shifted.load(slice(None)).max() == pytest.approx(4095 / 2000)


def test_intensity_range_of_bytes(tmp_path):
    Image.fromarray(BYTES[0]).save(tmp_path / "a.png")
    for X in [
        BYTES[:1],
        [tmp_path / "a.png"],
        [Image.fromarray(BYTES[0])],
        Images(BYTES[:1]),
    ]:
        images, _ = read(X, intensity_range=(10, 110))
        np.testing.assert_allclose(images.load([0]), (BYTES[:1] - 10.0) / 100, rtol=1e-5)
        whole, _ = read(X, intensity_range=(0, 255))
        np.testing.assert_allclose(whole.load([0]), BYTES[:1] / 255, rtol=1e-6)


@pytest.mark.parametrize("X", ["array", "files", "data set"])
def test_sixteen_bits_of_which_few_are_used_warn(X, tmp_path):
    paths = [tmp_path / f"{index}.png" for index in range(5)]
    for path, image in zip(paths, TWELVE_BITS, strict=True):
        Image.fromarray(image).save(path)
    X = {"array": TWELVE_BITS, "files": paths, "data set": Images(TWELVE_BITS)}.get(
        X, paths
    )
    match = r"values from 0 to 4095, where.*intensity_range=\(0, 4095\)"
    with pytest.warns(UserWarning, match=match) as seen:
        _, probe = read(X)
    assert seen[0].filename == __file__
    # Not of what is scored, nor where the range has been said, nor of other types.
    validate_images(probe, X, reset=False)
    read(X, intensity_range=(0, 65535))
    read(TWELVE_BITS * 16)
    read(TWELVE_BITS.astype(np.int32))
    read((TWELVE_BITS // 256).astype(np.uint8))


@pytest.mark.parametrize(
    "intensity_range",
    [
        (0,), (0, 0), (1, 0), (0, np.nan), (0, np.inf), ("0", "1"), (), (0, 1, 2),
        (1e30, 1e30 + 1), (0, 1e39), (None, 1),
    ],
)  # fmt: skip
def test_intensity_range_must_be_one(intensity_range):
    with pytest.raises(ValueError, match=r"must be two numbers.*Got .*Set for example"):
        read(GRAY, intensity_range=intensity_range)


def test_columns_with_one_name_are_refused():
    table = pd.DataFrame(np.ones((5, 64)), columns=["a", "a", *range(62)])
    with pytest.raises(ValueError, match=r"columns of X .*Got \['a'\] more than once"):
        quick(skocc.DeepSVDD).fit(table)


@pytest.mark.parametrize("size", [2**21, (8, 2**63)])
def test_sizes_beyond_all_images_are_refused(size):
    with pytest.raises(ValueError, match=r"image_size must be .*at most 1048576"):
        quick(skocc.DeepSVDD, image_size=size).fit(np.ones((5, 8, 8)))


@pytest.mark.parametrize("shape", [(0, 8), (8, 0), (8, 8, 0)])
def test_items_without_pixels_are_refused(shape):
    items = [np.ones(shape), np.ones((9, 9))]
    with pytest.raises(ValueError, match=r"must have pixels and channels.*index 0"):
        quick(skocc.DeepSVDD, image_size=8).fit(items)
