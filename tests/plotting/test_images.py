import copy

import numpy as np
import pytest
from matplotlib import pyplot as plt
from PIL import Image

from skocc import ConvAE, DeepSVDD
from skocc.model_selection import NormalOnly
from skocc.plotting import AnomalyMapDisplay, ImageGridDisplay

IMAGES = np.linspace(0, 1, 4 * 8 * 6).reshape(4, 8, 6)
MAPS = np.zeros((4, 8, 6), np.float32)
MAPS[3, 2:5, 2:5] = 4
MAPS[2, 0, 0] = 1


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Three files of three sizes, and a detector of such files."""
    paths = [tmp_path_factory.mktemp("images") / f"{index}.png" for index in range(3)]
    for path, size in zip(paths, [(40, 30), (32, 48), (36, 36)], strict=True):
        Image.linear_gradient("L").resize(size).save(path)
    detector = ConvAE(
        image_size=32, n_epochs=1, base_channels=2, augmentation=False, device="cpu",
        random_state=0,
    )  # fmt: skip
    return paths, detector.fit(paths)


def titles_of(display):
    return [ax.get_title() for ax in display.axes_[0]]


def test_all_maps_have_one_scale():
    display = AnomalyMapDisplay.from_predictions(IMAGES, MAPS)
    assert {image.get_clim() for image in display.images_} == {(0, 4)}
    assert titles_of(display) == ["image", "map"]
    assert display.colorbar_.mappable is display.images_[0]
    assert display.contours_ == []
    # Normal images by themselves: only a threshold tells how much is much.
    alone = AnomalyMapDisplay.from_predictions(IMAGES[:3], MAPS[:3], threshold=3)
    assert (alone.unit_, alone.vmin_, alone.vmax_) == (3, 0, 1)
    assert alone.contours_ == [None] * 3
    np.testing.assert_array_equal(alone.images_[2].get_array(), MAPS[2] / 3)
    (line,) = [
        line for line in alone.colorbar_.ax.lines if list(line.get_ydata()) == [1, 1]
    ]
    assert line.get_color() == "red"
    assert alone.colorbar_.ax.get_ylabel() == "times the threshold"
    assert display.colorbar_.ax.get_ylabel() == "value of the heat map"
    given = AnomalyMapDisplay.from_predictions(IMAGES, MAPS, vmin=-1, vmax=2)
    assert given.images_[0].get_clim() == (-1, 2)


@pytest.mark.parametrize("threshold", [0, -2])
def test_a_threshold_that_is_no_unit(threshold):
    display = AnomalyMapDisplay.from_predictions(IMAGES, MAPS - 1, threshold=threshold)
    assert (display.unit_, display.vmin_, display.vmax_) == (1, min(-1, threshold), 3)
    (line,) = display.colorbar_.ax.lines[-1:]
    assert list(line.get_ydata()) == [threshold] * 2
    assert display.colorbar_.ax.get_ylabel() == "value of the heat map"


def test_threshold_of_the_estimator(folder):
    paths, detector = folder
    # The three images are nearly alike, so that none need be above the threshold.
    detector = copy.deepcopy(detector)
    detector.pixel_threshold_ *= 0.9
    display = AnomalyMapDisplay.from_estimator(detector, paths)
    assert titles_of(display) == ["image", "map", "above threshold"]
    assert display.unit_ == display.threshold == detector.pixel_threshold_
    for heat, contour in zip(detector.anomaly_map(paths), display.contours_, strict=True):
        assert (contour is not None) == (heat.max() > detector.pixel_threshold_)
        if contour is not None:
            assert contour.levels == [detector.pixel_threshold_]
    assert any(contour is not None for contour in display.contours_)
    only = NormalOnly(detector).fit(paths)
    only.estimator_.pixel_threshold_ = 7.5
    assert AnomalyMapDisplay.from_estimator(only, paths).unit_ == 7.5
    without = AnomalyMapDisplay.from_estimator(detector, paths, threshold=None)
    assert titles_of(without) == ["image", "map"]


def test_contour_is_around_what_is_above_the_threshold():
    large = np.kron(MAPS, np.ones((5, 5), np.float32))
    for maps, margin in ((MAPS, 0.5), (large, 0.6)):  # of another size than the images
        display = AnomalyMapDisplay.from_predictions(IMAGES, maps, threshold=2)
        assert display.contours_[:3] == [None] * 3
        vertices = np.concatenate(
            [path.vertices for path in display.contours_[3].get_paths()]
        )
        # In pixels of the image: columns and rows 2 to 4.
        np.testing.assert_allclose(vertices.min(axis=0), 2, atol=margin)
        np.testing.assert_allclose(vertices.max(axis=0), 4, atol=margin)
        ax = display.axes_[3, 2]
        assert ax.get_xlim() == (-0.5, 5.5)
        assert ax.get_ylim() == (7.5, -0.5)


def test_contour_is_not_upside_down():
    maps = np.zeros((1, 8, 6), np.float32)
    maps[0, 1, 4] = 1
    display = AnomalyMapDisplay.from_predictions(IMAGES[:1], maps, threshold=0.5)
    vertices = display.contours_[0].get_paths()[0].vertices
    np.testing.assert_allclose((vertices.min(axis=0) + vertices.max(axis=0)) / 2, (4, 1))


def test_maps_of_values_that_are_not_finite():
    maps = MAPS.copy()
    maps[3, 0, 0], maps[1] = np.nan, np.inf
    display = AnomalyMapDisplay.from_predictions(IMAGES, maps, threshold=2)
    assert (display.vmin_, display.vmax_) == (0, 2)  # times the threshold
    display.figure_.canvas.draw()


def test_masks_of_any_form(folder):
    paths, detector = folder
    masks = [None, paths[1], np.arange(36 * 36).reshape(36, 36) > 1000]
    display = AnomalyMapDisplay.from_estimator(detector, paths, masks=masks, threshold=0.1)
    assert titles_of(display) == ["image", "map", "above threshold", "defect"]
    shown = [row[3].images[0].get_array() for row in display.axes_]
    assert [mask.shape for mask in shown] == [(30, 40), (48, 32), (36, 36)]
    assert [int(mask.sum()) for mask in shown[::2]] == [0, 36 * 36 - 1001]
    assert 0 < shown[1].sum() <= 48 * 32
    maps = detector.anomaly_map(paths)
    for picture, heat, drawn in zip(display.pictures, maps, display.images_, strict=True):
        assert picture.shape == heat.shape
        np.testing.assert_allclose(drawn.get_array(), heat / 0.1, rtol=1e-6)
    # What the meta-estimator draws is what its detector draws.
    only = NormalOnly(detector).fit(paths)
    same = AnomalyMapDisplay.from_estimator(only, [Image.open(path) for path in paths])
    for one, other in zip(display.pictures, same.pictures, strict=True):
        np.testing.assert_array_equal(one, other)


def test_axes_that_are_given():
    _, axes = plt.subplots(2, 2)
    display = AnomalyMapDisplay.from_predictions(IMAGES[:2], MAPS[:2], ax=axes)
    assert (display.axes_ == axes).all()
    assert display.figure_ is axes[0, 0].figure
    with pytest.raises(ValueError, match=r"needs 4 x 2 axes .* Got 4"):
        AnomalyMapDisplay.from_predictions(IMAGES, MAPS, ax=axes)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"maps": MAPS[:3]}, "one map for each image. Got 3 for 4"),
        ({"masks": [None]}, "one mask for each image. Got 1 for 4"),
        ({"maps": MAPS[0]}, "one map for each image. Got 8"),
        ({"maps": MAPS[..., None]}, "A map must have the shape"),
        ({"masks": MAPS[..., None]}, "A mask must have the shape"),
        ({"masks": ["no.png"] * 4}, "no.png"),
    ],
)
def test_what_does_not_fit(options, match):
    with pytest.raises(ValueError, match=match):
        AnomalyMapDisplay.from_predictions(IMAGES, **({"maps": MAPS} | options))
    assert not plt.get_fignums()


def test_detectors_without_maps():
    with pytest.raises(
        ValueError, match=r"need a detector with anomaly_map\. Got DeepSVDD"
    ):
        AnomalyMapDisplay.from_estimator(DeepSVDD(), IMAGES)


@pytest.mark.parametrize(
    ("images", "expected"),
    [
        (np.full((1, 4, 4), 200, np.uint8), (200, (0, 255))),
        (np.full((1, 4, 4, 1), 0.5), (0.5, (0, 1))),
        (np.stack([np.arange(16.0).reshape(4, 4) - 8]), (None, (0, 1))),
        (np.full((1, 16, 16, 2), 40, np.uint8), (40, (0, 255))),
    ],
)
def test_gray_images_keep_their_brightness(images, expected):
    display = ImageGridDisplay.from_predictions(images, [0.0])
    drawn = display.axes_[0, 0].images[0]
    assert drawn.get_clim() == expected[1]
    assert drawn.get_array().shape == images.shape[1:3]
    if expected[0] is None:
        assert (drawn.get_array().min(), drawn.get_array().max()) == (0, 1)
    else:
        assert (drawn.get_array() == expected[0]).all()


def test_color_images_and_channels_first():
    image = np.zeros((1, 3, 40, 40), np.float32)
    image[:, 0] = 1
    drawn = ImageGridDisplay.from_predictions(image, [0]).axes_[0, 0].images[0].get_array()
    assert drawn.shape == (40, 40, 3)
    assert (drawn == [1, 0, 0]).all()


def test_both_ends_of_a_ranking():
    scores = np.array([0.3, np.nan, 0.9, 0.1])
    display = ImageGridDisplay.from_predictions(IMAGES, scores, n_images=2)
    assert [row.tolist() for row in display.indices] == [[2, 0], [1, 3]]
    titles = [[ax.get_title() for ax in row] for row in display.axes_]
    assert titles == [["0.9", "0.3"], ["nan", "0.1"]]
    assert [ax.get_ylabel() for ax in display.axes_[:, 0]] == [
        "most normal",
        "least normal",
    ]
    np.testing.assert_allclose(display.axes_[1, 1].images[0].get_array(), IMAGES[3])
    everything = ImageGridDisplay.from_predictions(
        IMAGES.reshape(4, 48), scores, image_shape=(8, 6), titles=("a", "b")
    )
    assert everything.axes_.shape == (2, 4)
    assert everything.axes_[1, 0].get_ylabel() == "b"
    for n_images, some in ((0, scores), (2, scores[:3])):
        with pytest.raises(ValueError, match="a score for each image"):
            ImageGridDisplay.from_predictions(IMAGES, some, n_images=n_images)


def test_grid_of_a_detector(folder):
    paths, detector = folder
    display = ImageGridDisplay.from_estimator(detector, paths, n_images=1)
    scores = detector.score_samples(paths)
    assert [row.tolist() for row in display.indices] == [
        [scores.argmax()],
        [scores.argmin()],
    ]
    assert display.scores == [[scores.max()], [scores.min()]]
