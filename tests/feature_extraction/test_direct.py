import pickle

import joblib
import numpy as np
import pandas as pd
import pytest
import torch
from numpydoc.docscrape import ClassDoc, FunctionDoc
from PIL import Image
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import OneClassSVM
from sklearn.utils.estimator_checks import check_estimator

from skocc.feature_extraction import DirectFeatures

REPORT_NAMES = [
    "width", "height", "aspect_ratio", "num_pixels_b", "num_pixels_g", "num_pixels_r",
    "brightness_b", "brightness_g", "brightness_r", "contrast_b", "contrast_g",
    "contrast_r", "luminance", "edge_density", "h_symmetry", "v_symmetry",
    "mean_grad_x", "std_grad_x", "mean_grad_y", "std_grad_y", "object_count",
    "bounding_box_area", "bounding_box_aspect_ratio", "bounding_box_x",
    "bounding_box_y", "bounding_box_width", "bounding_box_height", "perimeter",
    "mean_intensity", "variance_intensity", "mode_intensity", "median_intensity",
    "entropy", "mean_magnitude", "variance_magnitude", "line_length", "blob_count",
    "region_homogeneity", "noise_level", "signal_to_noise_ratio",
    "quantiles_intensity_25", "quantiles_intensity_50", "quantiles_intensity_75",
]  # fmt: skip


def describe(image):
    """Return the statistics of one image by name."""
    features = DirectFeatures().fit(image[np.newaxis])
    row = features.transform(image[np.newaxis])[0]
    return dict(zip(features.get_feature_names_out(), row, strict=True))


def on_black(height, width, *boxes):
    """Return a black image with white boxes (top, left, height, width)."""
    image = np.zeros((height, width), dtype=np.uint8)
    for top, left, box_height, box_width in boxes:
        image[top : top + box_height, left : left + box_width] = 255
    return image


@pytest.fixture(scope="module")
def color_images():
    return np.random.default_rng(0).integers(0, 256, (5, 20, 16, 3), dtype=np.uint8)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "pixels", [True, *(pytest.param(value, marks=pytest.mark.slow) for value in (False, 2))]
)
def test_sklearn_suite(pixels):
    transformer = DirectFeatures(image_shape=(1, -1), pixels=pixels)
    results = check_estimator(transformer, on_fail=None, on_skip=None)
    assert len(results) > 40
    failed = [result for result in results if result["status"] == "failed"]
    assert not failed


def test_names_are_those_of_the_report(color_images):
    names = DirectFeatures().fit(color_images).get_feature_names_out()
    assert names.tolist() == REPORT_NAMES
    assert len(names) == 43
    documented = " ".join(ClassDoc(DirectFeatures)["Notes"])
    for name in names:
        # A group has the first name in full, the others by what differs.
        start, _, end = name.rpartition("_")
        assert name in documented or (start in documented and f"_{end}" in documented)


def test_size():
    values = describe(on_black(6, 15))
    assert (values["width"], values["height"], values["aspect_ratio"]) == (15, 6, 2.5)


def test_color():
    image = np.zeros((2, 2, 3), dtype=np.uint8)
    image[:, :, 0] = 100  # red
    image[0, :, 1] = 50  # green, in one of two rows
    image[1, 1, 2] = 200  # blue, in one of four pixels
    values = describe(image)
    sums = [values[f"num_pixels_{channel}"] for channel in "rgb"]
    assert sums == [400, 100, 200]
    assert [values[f"brightness_{channel}"] for channel in "rgb"] == [100, 25, 50]
    deviations = [values[f"contrast_{channel}"] for channel in "rgb"]
    np.testing.assert_allclose(deviations, [0, 25, 200 * np.sqrt(3 / 16)])
    expected = 0.2126 * 100 + 0.7152 * 25 + 0.0722 * 50
    assert values["luminance"] == pytest.approx(expected)
    # Of three of the pixels: red, red and green, and red and blue.
    assert values["quantiles_intensity_75"] == pytest.approx(round(29.9 + 29.35))
    assert values["mode_intensity"] == pytest.approx(round(29.9 + 29.35))
    gray = [round(29.9 + 29.35)] * 2 + [round(29.9), round(29.9 + 22.8)]
    assert values["mean_intensity"] == pytest.approx(np.mean(gray))


def test_symmetry():
    values = describe(on_black(8, 8, (1, 2, 3, 4)))
    assert values["h_symmetry"] == 0
    # Rows 1 to 3 of 4 columns, mirrored to rows 4 to 6: 24 of 64 pixels differ.
    assert values["v_symmetry"] == 255 * 24 / 64
    turned = describe(on_black(8, 8, (1, 2, 3, 4)).T)
    assert turned["v_symmetry"] == 0
    assert turned["h_symmetry"] == values["v_symmetry"]


def test_gradients_are_signed_and_not_normalized():
    ramp = np.tile(np.arange(0, 30, 3, dtype=np.uint8), (6, 1))  # 3 levels a pixel
    values = describe(ramp)
    # 8 * 3 inside; the border repeats its pixel, which halves the two outer columns.
    assert values["mean_grad_x"] == pytest.approx((8 * 24 + 2 * 12) / 10)
    assert values["std_grad_x"] == pytest.approx(np.std([24] * 8 + [12] * 2))
    assert values["mean_grad_y"] == values["std_grad_y"] == 0
    assert describe(ramp[:, ::-1])["mean_grad_x"] == -values["mean_grad_x"]
    assert describe(np.ascontiguousarray(ramp.T))["mean_grad_y"] == values["mean_grad_x"]


def test_edges_lines_and_blobs():
    square = on_black(100, 100, (20, 20, 60, 60))
    values = describe(square)
    # The edge between two flat areas has one pixel on either side: 236 within, 240 without.
    assert 460 <= values["edge_density"] * 100**2 <= 236 + 240
    # Each side is found as two lines of up to 62 pixels.
    assert 400 <= values["line_length"] <= 2 * 4 * 62
    one_line = describe(on_black(100, 100, (20, 20, 60, 1)))
    assert 50 <= one_line["line_length"] <= 2 * 62
    # Lines have at least 50 pixels.
    assert describe(on_black(100, 100, (20, 20, 40, 40)))["line_length"] == 0
    # The gradient 4 * 24 is below the lower threshold.
    faint = describe((square // 255 * 24).astype(np.uint8))
    assert faint["edge_density"] == faint["line_length"] == 0

    y, x = np.mgrid[:100, :100]
    spots = sum(
        np.exp(-((y - cy) ** 2 + (x - cx) ** 2) / (2 * sigma**2))
        for cy, cx, sigma in [(20, 20, 2), (20, 70, 5), (70, 60, 8)]
    )
    dark = np.rint(200 - 150 * spots).astype(np.uint8)
    assert describe(dark)["blob_count"] == 3
    assert describe(255 - dark)["blob_count"] == 3
    both = np.rint(128 + 100 * np.where(y < 45, 1, -1) * spots).astype(np.uint8)
    assert describe(both)["blob_count"] == 3  # a bright one counts as much as a dark one


def test_objects():
    image = on_black(20, 30, (2, 3, 5, 12), (10, 20, 4, 4), (18, 0, 1, 1))
    image[3:5, 5:8] = 0  # a hole in the largest
    image[4, 6] = 255  # and what is in it
    image[14, 24] = 255  # joined to the second by a corner
    values = describe(image)
    assert values["object_count"] == 3
    box = ["x", "y", "width", "height", "area", "aspect_ratio"]
    assert [values[f"bounding_box_{name}"] for name in box] == [3, 2, 12, 5, 60, 12 / 5]
    # Through the centers of the outermost pixels.
    assert values["perimeter"] == 2 * (11 + 4)
    whole = describe(on_black(10, 10, (0, 0, 10, 9)))
    assert (whole["bounding_box_area"], whole["perimeter"]) == (90, 2 * (9 + 8))


def test_intensity():
    levels = np.repeat([10, 10, 10, 10, 20, 20, 40, 80], 4).reshape(4, 8).astype(np.uint8)
    values = describe(levels)
    assert values["mean_intensity"] == 25
    assert values["variance_intensity"] == np.var(levels.astype(float))
    assert values["mode_intensity"] == 10
    assert values["median_intensity"] == 15
    assert values["entropy"] == 1.75  # 1/2, 1/4, 1/8, 1/8
    quantiles = [values[f"quantiles_intensity_{q}"] for q in (25, 50, 75)]
    np.testing.assert_allclose(quantiles, np.percentile(levels, [25, 50, 75]))
    assert describe(np.array([[7, 3], [3, 7]], dtype=np.uint8))["mode_intensity"] == 3


def test_fourier_magnitude():
    image = np.full((4, 8), 10, dtype=np.uint8)
    image[:, ::2] = 30
    values = describe(image)
    # A constant term of 32 * 20 and one frequency of 32 * 10; 30 others are 0.
    assert values["mean_magnitude"] == pytest.approx((640 + 320) / 32)
    assert values["variance_magnitude"] == pytest.approx((640**2 + 320**2) / 32 - 30**2)


def test_homogeneity_of_regions():
    halves = np.zeros((40, 40), dtype=np.uint8)
    halves[:, 20:] = 200
    assert describe(halves)["region_homogeneity"] == pytest.approx(1, abs=0.05)
    noise = np.random.default_rng(0).normal(128, 20, (40, 40)).astype(np.uint8)
    assert describe(noise)["region_homogeneity"] < 0.6
    # Fewer pixels than seeds: every pixel is a region.
    assert describe(noise[:6, :6])["region_homogeneity"] == 1


@pytest.mark.parametrize("sigma", [2, 10])
def test_noise(sigma):
    noise = np.random.default_rng(0).normal(0, sigma, (128, 128))
    ramp = np.linspace(60, 160, 128)  # a slow change of brightness is no noise
    image = np.rint(noise + ramp).astype(np.uint8)
    values = describe(image)
    assert values["noise_level"] == pytest.approx(sigma, rel=0.1)
    expected = values["mean_intensity"] / values["noise_level"]
    assert values["signal_to_noise_ratio"] == pytest.approx(expected)


@pytest.mark.parametrize(
    "shape", [(1, 1), (1, 2), (1, 40), (40, 1), (2, 2), (3, 5), (64, 64)]
)
def test_finite_whatever_the_image(shape):
    images = [np.full(shape, level, dtype=np.uint8) for level in (0, 77, 255)]
    images.append(np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8))
    table = DirectFeatures().fit_transform(np.stack(images))
    assert np.isfinite(table).all()


def test_an_image_of_one_color():
    values = describe(np.full((32, 32), 77, dtype=np.uint8))
    zero = [
        "contrast_r", "edge_density", "h_symmetry", "v_symmetry", "std_grad_x",
        "object_count", "bounding_box_area", "bounding_box_aspect_ratio", "perimeter",
        "variance_intensity", "entropy", "line_length", "blob_count", "noise_level",
    ]  # fmt: skip
    assert {name: values[name] for name in zero} == dict.fromkeys(zero, 0)
    assert values["region_homogeneity"] == 1
    assert values["signal_to_noise_ratio"] == pytest.approx(77 * np.sqrt(12))


def test_gray_is_three_equal_channels(color_images):
    gray = color_images[:, :, :, 0]
    color = np.repeat(gray[:, :, :, np.newaxis], 3, axis=3)
    np.testing.assert_array_equal(
        DirectFeatures(pixels=True).fit_transform(gray),
        DirectFeatures(pixels=True).fit_transform(color),
    )
    with_alpha = np.concatenate([color, gray[:, :, :, np.newaxis]], axis=3)
    np.testing.assert_array_equal(
        DirectFeatures().fit_transform(with_alpha), DirectFeatures().fit_transform(color)
    )


def test_floats_and_deep_integers_agree_with_bytes(color_images):
    expected = DirectFeatures(pixels=True).fit_transform(color_images)
    for X in [
        color_images / 255,
        (color_images / 255).astype(np.float32),
        color_images.astype(np.uint16) * 257,
    ]:
        table = DirectFeatures(pixels=True).fit_transform(X)
        np.testing.assert_array_equal(table, expected)


def test_floats_out_of_range_are_cut_off_with_a_warning(color_images):
    X = color_images / 255
    X[0, 0, 0, 0], X[1, 0, 0, 0] = -3, 7
    features = DirectFeatures().fit(X)
    with pytest.warns(UserWarning, match=r"from -3 to 7.*Scale X to \[0, 1\]") as caught:
        table = features.transform(X)
    assert caught[0].filename == __file__
    np.testing.assert_array_equal(table, features.transform(np.clip(X, 0, 1)))


def test_every_kind_of_x(image_files):
    images, paths = image_files
    expected = DirectFeatures().fit_transform(images)
    for X in [
        images[:, :, :, np.newaxis],
        torch.from_numpy(images[:, np.newaxis]),
        paths,
        [str(path) for path in paths],
        np.array([str(path) for path in paths]),
        pd.Series(paths),
        [Image.fromarray(image) for image in images],
        torch.utils.data.TensorDataset(torch.from_numpy(images)),
        [(Image.fromarray(image), 0) for image in images],
    ]:
        features = DirectFeatures().fit(X)
        np.testing.assert_array_equal(features.transform(X), expected)
        assert features.image_shape_ == (16, 12, 1)
        assert features.n_features_in_ == 16 * 12
        np.testing.assert_array_equal(features.transform(images[:2]), expected[:2])
    flat = DirectFeatures(image_shape=(16, -1))
    table = pd.DataFrame(images.reshape(12, -1)).add_prefix("p")
    np.testing.assert_array_equal(flat.fit_transform(table), expected)
    assert flat.feature_names_in_[0] == "p0"


def test_files_of_different_sizes(tmp_path):
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 256, shape, dtype=np.uint8) for shape in [(9, 7), (5, 12)]]
    paths = [tmp_path / "0.png", tmp_path / "1.png"]
    for path, image in zip(paths, images, strict=True):
        Image.fromarray(image).save(path)
    features = DirectFeatures().fit(np.zeros((2, 6, 2, 3)))
    table = features.fit_transform(paths)
    assert table[:, :2].tolist() == [[7, 9], [12, 5]]
    for row, image in zip(table, images, strict=True):
        np.testing.assert_array_equal(row, list(describe(image).values()))
    assert features.image_shape_ == (-1, -1, 1)
    assert not hasattr(features, "n_features_in_")
    # Any size may follow, also in an array.
    assert features.transform(np.stack(images[:1]))[0].tolist() == table[0].tolist()
    pil_images = [Image.fromarray(image) for image in images]
    np.testing.assert_array_equal(features.transform(pil_images), table)

    resized = DirectFeatures(image_size=8).fit_transform(paths)
    assert resized[:, :2].tolist() == [[8, 8], [8, 8]]
    with pytest.raises(ValueError, match=r"differ in size.*pixels=224"):
        DirectFeatures(pixels=True).fit(paths)
    with_pixels = DirectFeatures(pixels=(4, 3)).fit_transform(paths)
    assert with_pixels.shape == (2, 43 + 36)
    np.testing.assert_array_equal(with_pixels[:, :43], table)
    # What was fitted on one size stays with it.
    with pytest.raises(ValueError, match=r"\(-1: sizes differ\).*fitted on.*\(9, 7, 1\)"):
        DirectFeatures().fit(paths[:1]).transform(paths)


def test_pixels(color_images):
    features = DirectFeatures(pixels=True).fit(color_images)
    table = features.transform(color_images)
    names = features.get_feature_names_out()
    assert names[43] == "pixel_1"
    assert names[-1] == f"pixel_{20 * 16 * 3}"
    np.testing.assert_array_equal(table[:, 43:], color_images.reshape(5, -1))
    resized = DirectFeatures(pixels=(6, 4)).fit_transform(color_images)
    expected = Image.fromarray(color_images[2]).resize((4, 6), Image.Resampling.BILINEAR)
    np.testing.assert_array_equal(resized[2, 43:], np.asarray(expected).ravel())
    np.testing.assert_array_equal(resized[:, :43], table[:, :43])


@pytest.mark.parametrize(
    "params",
    [{}, {"pixels": 3}, {"pixels": (2, 5)}, {"pixels": True, "image_size": (4, 3)}],
    ids=range(4),
)
def test_names_are_known_before_fit(params, color_images):
    features = DirectFeatures(**params)
    names = features.get_feature_names_out().tolist()
    assert names == features.fit(color_images).get_feature_names_out().tolist()
    assert len(names) == features.transform(color_images).shape[1]


def test_as_many_pixels_as_the_report_has(color_images):
    features = DirectFeatures(pixels=224).fit(color_images)
    assert features.get_feature_names_out()[-1] == "pixel_150528"


def test_rows_do_not_depend_on_company_order_or_jobs(color_images):
    features = DirectFeatures().fit(color_images)
    table = features.transform(color_images)
    order = np.array([3, 0, 4, 1, 2])
    np.testing.assert_array_equal(features.transform(color_images[order]), table[order])
    np.testing.assert_array_equal(features.transform(color_images[2:3]), table[2:3])
    many = np.concatenate([color_images] * 5)
    with joblib.parallel_config(backend="threading"):
        parallel = DirectFeatures(n_jobs=2).fit(color_images)
        np.testing.assert_array_equal(parallel.transform(many), np.tile(table, (5, 1)))


def test_n_jobs_counts_the_workers(color_images, monkeypatch):
    import skocc.feature_extraction._direct as module

    asked = []

    class Recorder(module.Parallel):
        def __init__(self, n_jobs=None, **kwargs):
            asked.append(n_jobs)
            super().__init__(n_jobs=1, **kwargs)

    monkeypatch.setattr(module, "Parallel", Recorder)
    for n_jobs in [None, 2, -1]:
        DirectFeatures(n_jobs=n_jobs).fit_transform(color_images)
    assert asked == [None, 2, -1]


@pytest.mark.slow
def test_processes_give_the_same_table(color_images):
    serial = DirectFeatures().fit_transform(color_images)
    parallel = DirectFeatures(n_jobs=2).fit_transform(color_images)
    np.testing.assert_array_equal(parallel, serial)


def test_broken_file_is_named_while_others_are_in_work(tmp_path, image_files):
    _, paths = image_files
    pixels = np.random.default_rng(0).integers(0, 256, (64, 64), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "cut.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "cut.png").read_bytes()[:1500])
    X = [*paths, tmp_path / "cut.png"]
    with (
        joblib.parallel_config(backend="threading"),
        pytest.raises(ValueError, match=r"cut\.png.*cannot be read"),
    ):
        DirectFeatures(n_jobs=2).fit_transform(X)


def test_pandas_output(image_files):
    images, paths = image_files
    features = DirectFeatures().set_output(transform="pandas")
    assert features.fit_transform(pd.Series(paths)).columns.tolist() == REPORT_NAMES
    rows = pd.DataFrame(images.reshape(12, -1), index=np.arange(12) + 100)
    table = features.set_params(image_shape=(16, 12)).fit_transform(rows)
    assert table.index.tolist() == rows.index.tolist()


def test_clone_pickle_and_pipeline(color_images, image_files):
    features = DirectFeatures(pixels=(2, 3), n_jobs=1).fit(color_images)
    loaded = pickle.loads(pickle.dumps(features))
    np.testing.assert_array_equal(
        loaded.transform(color_images), features.transform(color_images)
    )
    assert clone(features).get_params() == features.get_params()
    with pytest.raises(NotFittedError):
        clone(features).transform(color_images)
    with pytest.raises(NotFittedError):
        DirectFeatures(pixels=True).get_feature_names_out()
    # Size and color of all images are the same, and must survive scaling.
    pipeline = make_pipeline(DirectFeatures(), StandardScaler(), OneClassSVM())
    scores = pipeline.fit(image_files[1]).decision_function(image_files[1])
    assert np.isfinite(scores).all()
    assert len(set(scores)) > 1


@pytest.mark.parametrize(
    ("params", "X", "message"),
    [
        ({}, np.zeros((3, 4, 4, 2)), "2 channels.*Pick the channels"),
        ({}, np.zeros((3, 16)), "image_shape"),
        ({"pixels": (2, 0)}, np.zeros((3, 4, 4)), "pixels must be.*both positive"),
        ({"pixels": (2, 2, 3)}, np.zeros((3, 4, 4)), "pixels must be.*Set for example"),
        ({"pixels": 0}, np.zeros((3, 4, 4)), "'pixels' parameter"),
        ({"pixels": "all"}, np.zeros((3, 4, 4)), "'pixels' parameter"),
        ({"n_jobs": 1.5}, np.zeros((3, 4, 4)), "'n_jobs' parameter"),
    ],
)
def test_errors_leave_no_half_fitted_state(params, X, message):
    shape = (4, 4, 2) if X.ndim == 4 else None
    features = DirectFeatures(image_shape=shape, **params)
    with pytest.raises(ValueError, match=message):
        features.fit(X)
    assert not hasattr(features, "image_shape_")


def test_another_size_later_is_an_error(color_images):
    features = DirectFeatures().fit(color_images)
    with pytest.raises(ValueError, match=r"\(20, 8, 3\).*fitted on.*\(20, 16, 3\)"):
        features.transform(color_images[:, :, :8])


def test_documentation_belongs_to_the_code(image_files):
    images, _ = image_files
    doc = ClassDoc(DirectFeatures)
    for section in ["Summary", "See Also", "Notes", "References", "Examples"]:
        assert doc[section], section
    code = DirectFeatures.__init__.__code__
    names = code.co_varnames[1 : 1 + code.co_kwonlyargcount]
    assert [p.name for p in doc["Parameters"]] == list(names)
    for parameter in doc["Parameters"]:
        default = DirectFeatures().get_params()[parameter.name]
        assert parameter.type.endswith(f"default={default}")
    rows = pd.DataFrame(images.reshape(12, -1)).add_prefix("p")
    fitted = vars(DirectFeatures(image_shape=(16, 12)).fit(rows))
    fitted = {name for name in fitted if name.endswith("_") and not name.startswith("_")}
    assert {p.name for p in doc["Attributes"]} == fitted
    for method in ["fit", "transform", "get_feature_names_out"]:
        method_doc = FunctionDoc(getattr(DirectFeatures, method))
        assert method_doc["Parameters"], method
        assert method_doc["Returns"], method
    assert repr(DirectFeatures()) == "DirectFeatures()"


@pytest.mark.data
def test_real_files_of_different_sizes(data_dir):
    paths = sorted((data_dir / "magnetic_tile" / "test" / "good").glob("*.jpg"))[:3]
    table = DirectFeatures().fit_transform(paths)
    for row, path in zip(table, paths, strict=True):
        with Image.open(path) as image:
            assert row[:2].tolist() == list(image.size)
    assert np.isfinite(table).all()
