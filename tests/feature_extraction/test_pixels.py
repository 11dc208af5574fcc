import io

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from scipy import sparse
from sklearn.compose import make_column_transformer
from sklearn.exceptions import NotFittedError
from sklearn.pipeline import make_pipeline
from sklearn.svm import OneClassSVM
from sklearn.utils.estimator_checks import check_estimator

import skocc
from skocc.feature_extraction import Pixels


@pytest.fixture
def color_files(tmp_path):
    """Six RGB images (14, 10), in files: their array and their paths."""
    images = np.random.default_rng(1).integers(0, 256, (6, 14, 10, 3), dtype=np.uint8)
    paths = [tmp_path / f"color_{index}.png" for index in range(6)]
    for image, path in zip(images, paths, strict=True):
        Image.fromarray(image).save(path)
    return images, paths


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "params", [{}, {"image_shape": (1, -1), "image_size": None, "color": "gray"}]
)
def test_sklearn_suite(params):
    results = check_estimator(Pixels(**params), on_fail=None, on_skip=None)
    assert len(results) > 40
    assert not [result for result in results if result["status"] == "failed"]


def test_pixels_are_those_of_the_images(image_files):
    images, paths = image_files
    flat = (images / np.float32(255)).reshape(12, -1)
    transformer = Pixels(image_size=None)
    for X in [
        images,
        paths,
        np.array([str(path) for path in paths]),
        pd.Series(paths),
        [Image.fromarray(image) for image in images],
        [path.read_bytes() for path in paths],
        [io.BytesIO(path.read_bytes()) for path in paths],
        torch.from_numpy(images)[:, None],
        images.astype(np.uint16) * 257,
    ]:
        table = transformer.fit_transform(X)
        assert table.dtype == np.float32
        np.testing.assert_allclose(table, flat, rtol=1e-6)
        assert transformer.image_shape_ == (16, 12, 1)
    rows = Pixels(image_shape=(16, 12), image_size=None)
    np.testing.assert_array_equal(rows.fit_transform(flat), flat)


def test_color(image_files, color_files):
    (gray, gray_paths), (rgb, rgb_paths) = image_files, color_files
    levels = rgb @ [0.299, 0.587, 0.114]

    def table(color, X, then):
        transformer = Pixels(color=color, image_size=(16, 12)).fit(X)
        return transformer.image_shape_[2], transformer.transform(then)

    for X, then in [(gray, gray), (gray_paths, gray_paths)]:
        n_channels, found = table("auto", X, then)
        assert (n_channels, found.shape[1]) == (1, 16 * 12)
    for X in [[*gray_paths, *rgb_paths], rgb_paths, rgb, [*rgb_paths, *gray_paths]]:
        n_channels, found = table("auto", X, gray_paths)
        assert (n_channels, found.shape[1]) == (3, 16 * 12 * 3)
        np.testing.assert_array_equal(found[:, ::3], found[:, 2::3])
    # Later images are converted to what the training images were, also arrays.
    for then in [rgb, rgb_paths]:
        for X in [gray, gray_paths]:
            assert table("auto", X, then)[1].shape == (6, 16 * 12)
    for X, then in [(rgb, rgb), (rgb_paths, rgb_paths), (gray_paths, rgb_paths)]:
        transformer = Pixels(color="gray", image_size=None)
        found = transformer.fit(X[:1] if X is rgb else rgb_paths[:1]).transform(then)
        # Files are decoded to gray levels that are rounded.
        np.testing.assert_allclose(255 * found, levels.reshape(6, -1), atol=0.51)
    n_channels, found = table("rgb", gray_paths, rgb_paths)
    assert n_channels == 3
    np.testing.assert_array_equal(found, table("rgb", rgb_paths, rgb_paths)[1])
    with_alpha = np.concatenate([rgb, rgb[..., :1]], axis=3)
    np.testing.assert_array_equal(
        table("auto", with_alpha, rgb)[1], table("rgb", rgb, rgb)[1]
    )


def test_names_of_columns(image_files, color_files):
    _, paths = image_files
    for transformer in [
        Pixels(color="gray", image_size=(2, 3)),
        Pixels(image_size=(2, 3)).fit(paths),
    ]:
        names = transformer.get_feature_names_out()
        assert names.dtype == object
        assert names.tolist() == [f"pixel_{i}_{j}" for i in range(2) for j in range(3)]
    names = Pixels(color="rgb", image_size=4).get_feature_names_out()
    assert names[:4].tolist() == [
        "pixel_0_0_r",
        "pixel_0_0_g",
        "pixel_0_0_b",
        "pixel_0_1_r",
    ]
    transformer = Pixels(image_size=4).fit(color_files[1])
    assert transformer.get_feature_names_out().tolist() == names.tolist()
    marked = np.zeros((2, 4, 4, 3), dtype=np.uint8)
    marked[:, 2, 1, 2] = 255
    assert names[np.flatnonzero(transformer.transform(marked)[0])].tolist() == [
        "pixel_2_1_b"
    ]
    frame = Pixels(image_size=4).set_output(transform="pandas").fit_transform(paths)
    assert frame.shape == (12, 16)
    assert frame.columns[-1] == "pixel_3_3"
    for transformer in [Pixels(), Pixels(color="gray", image_size=None)]:
        with pytest.raises(NotFittedError):
            transformer.get_feature_names_out()


def test_tables_are_returned_as_they_are(image_files):
    rng = np.random.default_rng(0)
    table = rng.normal(size=(5, 3))
    assert np.array_equal(Pixels().fit_transform(table), table)
    table[0, 0] = np.nan
    np.testing.assert_array_equal(Pixels().fit_transform(table.tolist()), table)
    frame = pd.DataFrame(table, columns=["a", "b", "c"])
    transformer = Pixels().fit(frame)
    np.testing.assert_array_equal(transformer.transform(frame), table)
    assert transformer.get_feature_names_out().tolist() == ["a", "b", "c"]
    assert transformer.image_shape_ == (3,)
    found = Pixels().fit_transform(sparse.csr_array(np.eye(3)))
    assert sparse.issparse(found)
    assert np.array_equal(found.toarray(), np.eye(3))
    with pytest.raises(ValueError, match="X has 4 features"):
        Pixels().fit(table).transform(np.ones((2, 4)))
    with pytest.raises(ValueError, match=r"fitted on samples of shape \(3,\)"):
        transformer.transform(image_files[0])
    with pytest.raises(ValueError, match=r"2 dimensions.*fitted on images"):
        Pixels().fit(image_files[0]).transform(np.ones((2, 4)))
    with pytest.raises(ValueError, match=r"table of text.*X\['path'\]"):
        Pixels().fit(pd.DataFrame({"path": ["a.png", "b.png"]}))
    with pytest.raises(ValueError, match=r"unique names. Got \[1\] more than once"):
        Pixels().fit(pd.DataFrame(np.ones((2, 2)), columns=[1, 1]))
    with pytest.raises(ValueError, match="0 sample"):
        Pixels().fit(pd.DataFrame())
    # A fit on images forgets the columns of the table.
    assert not hasattr(transformer.fit(image_files[1]), "feature_names_in_")


@pytest.mark.parametrize(
    ("params", "X", "message"),
    [
        ({"color": "blue"}, np.zeros((2, 8, 8)), "color"),
        ({}, np.zeros((2, 8, 8, 5)), r"1 \(gray\), 3 \(RGB\).*Got.*Pick the channels"),
        ({}, ["gone.png"], "gone.png"),
        ({}, [], "0 sample"),
        ({"image_size": 0}, np.zeros((2, 8, 8)), "image_size"),
    ],
)
def test_what_is_refused(params, X, message):
    with pytest.raises(ValueError, match=message):
        Pixels(**params).fit(X)


def test_save_and_load(color_files, tmp_path):
    _, paths = color_files
    for X in [paths, np.eye(3)]:
        transformer = Pixels(image_size=4).fit(X)
        skocc.save(transformer, tmp_path / "pixels.safetensors")
        loaded = skocc.load(tmp_path / "pixels.safetensors")
        assert loaded.image_shape_ == transformer.image_shape_
        np.testing.assert_array_equal(loaded.transform(X), transformer.transform(X))
    transformer.fit(paths).set_params(color="gray")
    with pytest.raises(ValueError, match="cannot be saved"):
        skocc.save(transformer, tmp_path / "pixels.safetensors")


def test_beside_numbers_and_before_a_detector(image_files):
    images, paths = image_files
    frame = pd.DataFrame({"path": paths, "weight": np.linspace(0, 1, 12)})
    columns = make_column_transformer(
        (Pixels(image_size=4), "path"), ("passthrough", ["weight"])
    )
    detector = make_pipeline(columns, OneClassSVM(nu=0.2)).fit(frame)
    assert columns.fit_transform(frame).shape == (12, 17)
    assert detector.predict(frame).shape == (12,)
    detector = make_pipeline(Pixels(), OneClassSVM(nu=0.2))
    np.testing.assert_allclose(
        detector.fit(paths).score_samples(paths), detector.fit(images).score_samples(images)
    )
