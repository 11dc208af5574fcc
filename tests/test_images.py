import numpy as np
import pytest
from PIL import Image

from skocc._images import ArrayImages, FileImages


def test_files_are_decoded_on_load_only(image_files):
    images, paths = image_files
    source = FileImages(paths)
    assert source.shape == (12, 16, 12, 1)
    np.testing.assert_array_equal(source.load(np.array([3, 1])), images[[3, 1], :, :, None])
    np.testing.assert_array_equal(source.load(slice(0, 2)), images[:2, :, :, None])
    # What is on disk is what is read, each time anew.
    Image.fromarray(np.zeros((16, 12), dtype=np.uint8)).save(paths[3])
    assert source.load(np.array([3])).max() == 0


def test_grey_and_colour_are_mixed_to_colour(tmp_path):
    grey = np.full((4, 4), 100, dtype=np.uint8)
    colour = np.full((4, 4, 3), (10, 20, 30), dtype=np.uint8)
    Image.fromarray(grey).save(tmp_path / "grey.png")
    Image.fromarray(colour).save(tmp_path / "colour.png")
    Image.fromarray(np.dstack([colour, grey])).save(tmp_path / "alpha.png")
    paths = [tmp_path / f"{name}.png" for name in ["grey", "colour", "alpha"]]
    batch = FileImages(paths).load(slice(None))
    assert batch.shape == (3, 4, 4, 3)
    np.testing.assert_array_equal(batch[:, 0, 0], [[100] * 3, [10, 20, 30], [10, 20, 30]])
    assert FileImages(paths[:1]).shape[3] == 1
    assert FileImages(paths[:1], n_channels=3).load(slice(None)).shape == (1, 4, 4, 3)


def test_sixteen_bit_files_keep_their_depth(tmp_path):
    deep = np.array([[0, 1], [256, 65535]], dtype=np.uint16)
    shallow = np.array([[0, 51], [102, 255]], dtype=np.uint8)
    Image.fromarray(deep).save(tmp_path / "deep.png")
    Image.fromarray(shallow).save(tmp_path / "shallow.png")
    batch = FileImages([tmp_path / "deep.png", tmp_path / "shallow.png"]).load(slice(None))
    assert batch.dtype == np.float32
    np.testing.assert_allclose(batch[0, :, :, 0], deep / 65535, rtol=1e-6)
    np.testing.assert_allclose(batch[1, :, :, 0], shallow / 255, rtol=1e-6)


def test_palette_and_bilevel_files(tmp_path):
    image = Image.fromarray(np.full((4, 4, 3), (10, 200, 30), dtype=np.uint8))
    image.quantize(4).save(tmp_path / "palette.png")
    Image.fromarray(np.eye(4, dtype=bool)).save(tmp_path / "bilevel.png")
    palette = FileImages([tmp_path / "palette.png"]).load(slice(None))
    np.testing.assert_allclose(palette[0, 0, 0], [10, 200, 30], atol=4)
    bilevel = FileImages([tmp_path / "bilevel.png"]).load(slice(None))
    np.testing.assert_array_equal(bilevel[0, :, :, 0], 255 * np.eye(4))


def test_different_sizes_need_image_size(tmp_path):
    for name, shape in [("a", (6, 5)), ("b", (7, 5))]:
        Image.fromarray(np.zeros(shape, dtype=np.uint8)).save(tmp_path / f"{name}.png")
    paths = [tmp_path / "a.png", tmp_path / "b.png"]
    with pytest.raises(
        ValueError, match=r"b\.png.*is 7 x 5.*first image is 6 x 5.*Set image_size"
    ):
        FileImages(paths)
    assert FileImages(paths, image_size=(3, 4)).load(slice(None)).shape == (2, 3, 4, 1)
    mixed = FileImages(paths, mixed_sizes=True)
    assert mixed.shape == (2, -1, -1, 1)
    assert mixed.original_size is None
    assert [mixed.load([i]).shape for i in (0, 1)] == [(1, 6, 5, 1), (1, 7, 5, 1)]
    assert FileImages(paths[:1] * 2, mixed_sizes=True).shape == (2, 6, 5, 1)


def test_broken_files_are_named(tmp_path, image_files):
    _, paths = image_files
    text = tmp_path / "text.png"
    text.write_text("no image")
    with pytest.raises(ValueError, match=r"text\.png.*index 1.*cannot be read.*Check that"):
        FileImages([paths[0], text])
    with pytest.raises(ValueError, match=r"missing\.png"):
        FileImages([tmp_path / "missing.png"])
    large = np.random.default_rng(0).integers(0, 256, (64, 64), dtype=np.uint8)
    Image.fromarray(large).save(tmp_path / "cut.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "cut.png").read_bytes()[:1500])
    source = FileImages([tmp_path / "cut.png"])  # the header is whole
    with pytest.raises(ValueError, match=r"cut\.png.*cannot be read.*leave it out of X"):
        source.load(np.array([0]))


def test_a_file_that_changes_size_is_named(image_files):
    _, paths = image_files
    source = FileImages(paths)
    Image.fromarray(np.zeros((30, 30), dtype=np.uint8)).save(paths[2])
    # Resized to what was promised, so a batch keeps one shape.
    assert source.load(np.array([1, 2])).shape == (2, 16, 12, 1)


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_arrays_are_resized_as_files_are(dtype):
    array = np.random.default_rng(0).integers(0, 256, (2, 9, 8, 3)).astype(np.uint8)
    source = ArrayImages(array.astype(dtype), image_size=(5, 4))
    assert source.shape == (2, 5, 4, 3)
    batch = source.load(np.array([1]))
    assert batch.dtype == dtype
    expected = np.asarray(
        Image.fromarray(array[1]).resize((4, 5), Image.Resampling.BILINEAR)
    )
    np.testing.assert_allclose(
        batch[0], expected, atol=0 if dtype == np.uint8 else 1
    )  # Pillow rounds uint8 twice


def test_load_never_returns_the_users_memory():
    array = np.zeros((4, 2, 2, 1), dtype=np.float32)
    batch = ArrayImages(array).load(slice(0, 2))
    batch += 1
    assert array.max() == 0
