import io
import os
import struct
import threading
import time
import tracemalloc
import warnings
import zlib

import numpy as np
import pytest
from PIL import Image, ImageOps

from skocc._samples import sources
from skocc._samples.sources import ArrayImages, FileImages, read_image
from skocc._samples.validation import read_images


def test_files_are_decoded_on_load_only(image_files):
    images, paths = image_files
    source = FileImages(paths)
    assert source.shape == (12, 16, 12, 1)
    np.testing.assert_array_equal(source.load(np.array([3, 1])), images[[3, 1], :, :, None])
    np.testing.assert_array_equal(source.load(slice(0, 2)), images[:2, :, :, None])
    # What is on disk is what is read, each time anew.
    Image.fromarray(np.zeros((16, 12), dtype=np.uint8)).save(paths[3])
    assert source.load(np.array([3])).max() == 0


def test_gray_and_color_are_mixed_to_color(tmp_path):
    gray = np.full((4, 4), 100, dtype=np.uint8)
    color = np.full((4, 4, 3), (10, 20, 30), dtype=np.uint8)
    Image.fromarray(gray).save(tmp_path / "gray.png")
    Image.fromarray(color).save(tmp_path / "color.png")
    Image.fromarray(np.dstack([color, gray])).save(tmp_path / "alpha.png")
    paths = [tmp_path / f"{name}.png" for name in ["gray", "color", "alpha"]]
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


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_files_of_floats_are_finite(value, tmp_path):
    pixels = np.linspace(0, 1, 12, dtype=np.float32).reshape(3, 4)
    Image.fromarray(pixels).save(tmp_path / "a.tif")
    batch = FileImages([tmp_path / "a.tif"]).load([0])
    np.testing.assert_array_equal(batch[0, :, :, 0], pixels)
    pixels[1, 2] = value
    Image.fromarray(pixels).save(tmp_path / "a.tif")
    source = FileImages([tmp_path / "a.tif"])
    with pytest.raises(ValueError, match=r"a\.tif.*values that are NaN or infinite"):
        source.load([0])


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
    assert mixed.original_sizes() == [(6, 5), (7, 5)]
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


def kinds_of_content(paths):
    """Return the same files as paths, bytes and buffers that were read to their end."""
    contents = [path.read_bytes() for path in paths]
    buffers = [io.BytesIO(content) for content in contents]
    for buffer in buffers:
        buffer.read()
    objects = np.array(contents, dtype=object)
    return [contents, buffers, [bytearray(c) for c in contents], objects]


def test_contents_of_files_are_read_like_files(image_files, turned):
    images, paths = image_files
    for items in kinds_of_content(paths):
        for _ in range(2):  # nothing is used up
            source = read_images(items)
            assert source.shape == (12, 16, 12, 1)
            np.testing.assert_array_equal(source.load(slice(None))[..., 0], images)
            np.testing.assert_array_equal(read_image(items[3])[..., 0], images[3])
    # One buffer many times, in the threads that decode.
    many = FileImages([io.BytesIO(paths[0].read_bytes())] * 100)
    assert (many.load(slice(None))[..., 0] == images[0]).all()
    upright, paths = turned
    for items in kinds_of_content(paths):
        source = FileImages(items, n_channels=1)
        assert source.shape == (24, 6, 4, 1)
        assert (source.load(slice(None))[..., 0] == upright).all()


def test_files_are_decoded_in_a_thread_for_each_core(image_files, monkeypatch):
    images, paths = image_files
    decode, meeting = sources._decode, threading.Barrier(3)

    def meet(*args):
        meeting.wait(timeout=60)
        return decode(*args)

    monkeypatch.setattr(sources, "cpu_count", lambda: 3)
    monkeypatch.setattr(sources, "_decode", meet)
    batch = FileImages(paths).load(slice(None))
    np.testing.assert_array_equal(batch[..., 0], images)


def test_the_first_of_several_errors_is_raised_and_ends_the_work(image_files, monkeypatch):
    _, paths = image_files
    seen = []

    def fail(item, index, *args):
        seen.append(index)
        if index == 2:
            time.sleep(0.2)  # until the next one has failed in the other thread
        if index >= 2:
            raise ValueError(f"number {index}")
        return np.zeros((16, 12, 1), np.uint8)

    monkeypatch.setattr(sources, "cpu_count", lambda: 2)
    monkeypatch.setattr(sources, "_decode", fail)
    with pytest.raises(ValueError, match="number 2"):
        FileImages(paths).load(slice(None))
    assert sorted(seen) == [0, 1, 2, 3]


def test_contents_that_are_no_image_are_named_by_their_place():
    file = io.BytesIO()
    pixels = np.random.default_rng(0).integers(0, 256, (64, 64), dtype=np.uint8)
    Image.fromarray(pixels).save(file, "png")
    whole, cut = file.getvalue(), file.getvalue()[:1500]
    source = FileImages([whole, whole, whole, cut])  # the header is whole
    message = r"^Item 3 \(bytes\) cannot be read as an image: .*Check that it holds a compl"
    with pytest.raises(ValueError, match=message):
        source.load(slice(None))
    closed = io.BytesIO(whole)
    closed.close()
    for item, name in [
        (b"", "bytes"), (io.BytesIO(b"text"), "BytesIO"), (closed, "BytesIO"),
        (bytearray(cut[:20]), "bytearray"),
    ]:  # fmt: skip
        with pytest.raises(ValueError, match=rf"^Item 1 \({name}\) cannot.*leave it out"):
            read_images([whole, item])
        with pytest.raises(ValueError, match=rf"^The item \({name}\) cannot be read"):
            read_images([item])
    eps = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 2 2\n%%EndComments\n"
    with pytest.raises(ValueError, match=r"Item 0 \(bytes\).*PostScript is a program"):
        read_images([eps, whole])


@pytest.mark.parametrize(
    ("X", "message"),
    [
        (
            b"\x89PNG" * 10**6,
            r"collection of images. Got a single bytes: .{1,301}\. Pass a",
        ),
        (io.BytesIO(b"abc"), "collection of images. Got a single BytesIO"),
        (np.array([b"ab\0", b"c"]), "NumPy cuts zeros.*dtype.*S.*Pass a list of bytes"),
        ([b"a", np.zeros((4, 4))], "Got"),
    ],
)
def test_contents_that_are_refused(X, message):
    with pytest.raises(ValueError, match=message):
        read_images(X)


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


@pytest.fixture
def turned(tmp_path):
    """A 6 x 4 (H x W) image, and files of all orientations that show the same."""
    upright = np.random.default_rng(0).integers(0, 256, (6, 4), dtype=np.uint8)
    paths = []
    for suffix in ["png", "tif", "webp"]:
        for orientation in range(1, 9):
            path = tmp_path / f"{orientation}.{suffix}"
            exif = Image.Exif()
            exif[0x0112] = orientation
            stored = Image.fromarray(stored_as(upright, orientation))
            # Compressed, because Pillow 13 garbles pixels that it maps and turns.
            more = {"webp": {"lossless": True}, "tif": {"compression": "tiff_lzw"}}
            stored.save(path, exif=exif, **more.get(suffix, {}))
            paths.append(path)
    return upright, paths


def stored_as(upright, orientation):
    """Return what a camera stores; written from the definition, not from Pillow's words."""
    return {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.T,
        6: upright.T[::-1],  # the first column of the file is the top, seen from the right
        7: upright.T[::-1, ::-1],
        8: upright.T[:, ::-1],
    }[orientation]


def test_orientation_is_applied_before_sizes_are_compared(turned):
    upright, paths = turned
    source = FileImages(paths, n_channels=1)
    assert source.shape == (24, 6, 4, 1)
    assert source.original_sizes() == [(6, 4)] * 24
    for path, image in zip(paths, source.load(slice(None)), strict=True):
        np.testing.assert_array_equal(image[:, :, 0], upright, err_msg=str(path))
        np.testing.assert_array_equal(read_image(path)[:, :, 0], upright)


@pytest.mark.parametrize("loaded", [False, True])
def test_orientation_of_pil_images(turned, loaded):
    upright, paths = turned
    images = [Image.open(path) for path in paths]
    if loaded:
        for image in images:
            image.load()
    source = FileImages(images, n_channels=1)
    assert source.shape == (24, 6, 4, 1)
    for image in source.load(slice(None)):
        np.testing.assert_array_equal(image[:, :, 0], upright)
    # What has been turned already is not turned again.
    images = [ImageOps.exif_transpose(image) for image in images if image.format != "TIFF"]
    once = FileImages(images, n_channels=1)
    for image in once.load(slice(None)):
        np.testing.assert_array_equal(image[:, :, 0], upright)


def test_orientation_of_jpegs_and_of_what_xmp_says(tmp_path):
    ramp = np.linspace(0, 255, 32 * 16).reshape(32, 16).astype(np.uint8)
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(ramp).save(tmp_path / "a.jpg", exif=exif, quality=100)
    images = FileImages([tmp_path / "a.jpg"]).load([0])
    assert images.shape == (1, 16, 32, 1)
    np.testing.assert_allclose(images[0, :, :, 0], ramp.T[:, ::-1], atol=4)


def test_a_broken_exif_block_leaves_the_image_as_stored(tmp_path):
    for exif in [b"nonsense", b"MM\0*\0\0\0\x08\xff", b"MM\0*" + b"\xff" * 30]:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            Image.new("L", (4, 6)).save(tmp_path / "a.webp", exif=b"Exif\0\0" + exif)
            assert FileImages([tmp_path / "a.webp"]).shape == (1, 6, 4, 3)


def test_several_pages_are_said_of_the_first_such_file(image_files, tmp_path):
    _, paths = image_files
    pages = [Image.fromarray(np.full((16, 12), v, dtype=np.uint8)) for v in (10, 200)]
    names = [tmp_path / f"pages.{suffix}" for suffix in ["tif", "gif", "png", "webp"]]
    for name in names:
        pages[0].save(name, save_all=True, append_images=pages[1:], lossless=True)
        with pytest.warns(UserWarning, match=rf"{name.name}.*index 1.*first is read"):
            source = FileImages([paths[0], name, name], n_channels=1)
        assert source.load([1]).max() == 10
    Image.open(paths[0]).save(tmp_path / "one.gif")
    FileImages([tmp_path / "one.gif"])  # and a warning would be an error
    with Image.open(names[0]) as page:
        page.seek(1)
        assert FileImages([page]).load([0]).min() == 200


def png_header(width, height):
    header = struct.pack(">II5B", width, height, 8, 0, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(b"\0" * 100)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data
        + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in chunks
    )  # fmt: skip


def test_declared_sizes_are_not_believed(tmp_path):
    huge, large = tmp_path / "huge.png", tmp_path / "large.png"
    huge.write_bytes(png_header(60_000, 60_000))
    large.write_bytes(png_header(11_000, 11_000))
    tracemalloc.start()
    with pytest.raises(ValueError, match=r"huge\.png.*limit.*MAX_IMAGE_PIXELS"):
        FileImages([huge])
    assert tracemalloc.get_traced_memory()[1] < 10e6
    tracemalloc.stop()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        with pytest.warns(
            UserWarning, match=r"large\.png.*11000 x 11000.*89478485"
        ) as seen:
            source = FileImages([large], image_size=(4, 4))
        assert seen[-1].filename == __file__
        with pytest.raises(ValueError, match=r"large\.png.*truncated"):
            source.load([0])
    # Where warnings are errors, the file is named all the same.
    with pytest.raises(ValueError, match=r"large\.png.*DecompressionBombWarning"):
        FileImages([large])


def test_only_regular_files_are_opened(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "link.png").symlink_to("/dev/zero")
    (tmp_path / "circle.png").symlink_to("circle.png")
    for name in ["pipe.png", "folder.png", "link.png"]:
        with pytest.raises(ValueError, match=rf"{name}.*not a regular file"):
            FileImages([tmp_path / name])
    for name in ["circle.png", "nul\0byte.png", "x" * 5000, ""]:
        with pytest.raises(ValueError, match=r"The file .*cannot be read as an image"):
            FileImages([str(tmp_path / name) if name else name])


def test_postscript_is_not_run(tmp_path):
    Image.new("RGB", (4, 4)).save(tmp_path / "a.eps")
    (tmp_path / "a.eps").rename(tmp_path / "a.png")
    with pytest.raises(ValueError, match=r"a\.png.*PostScript is a program"):
        FileImages([tmp_path / "a.png"])


@pytest.mark.parametrize(
    "error",
    [
        struct.error("unpack"), IndexError("list"), MemoryError(), zlib.error("-3"),
        EOFError(), KeyError("mode"), OverflowError(), RecursionError(), SyntaxError("png"),
        TypeError("int"), AttributeError("fp"), RuntimeError("x"), OSError("truncated"),
        AssertionError(), Image.DecompressionBombError("pixels"),
    ],
)  # fmt: skip
def test_whatever_pillow_raises_names_the_file(error, image_files, monkeypatch):
    _, paths = image_files
    source = FileImages(paths)

    def stumble(self):
        raise error

    monkeypatch.setattr("PIL.PngImagePlugin.PngImageFile.load", stumble)
    with pytest.raises(ValueError, match=r"03\.png.*index 3.*cannot.*out of X") as raised:
        source.load([3])
    assert raised.value.__cause__ is error
    assert type(error).__name__ in str(raised.value)
    monkeypatch.setattr("PIL.PngImagePlugin.PngImageFile._open", stumble)
    with pytest.raises(ValueError, match=r"00\.png.*index 0.*cannot be read as an image"):
        FileImages(paths)


@pytest.mark.parametrize("suffix", ["png", "jpg", "gif", "tif", "bmp", "webp"])
def test_bytes_changed_at_random_give_an_image_or_a_valueerror(suffix, tmp_path):
    rng = np.random.default_rng(0)
    path = tmp_path / f"a.{suffix}"
    image = Image.fromarray(rng.integers(0, 256, (9, 7, 3), dtype=np.uint8))
    image.save(path, **({"compression": "tiff_lzw"} if suffix == "tif" else {}))
    whole, named = np.frombuffer(path.read_bytes(), dtype=np.uint8), []
    for _ in range(60):
        broken = whole[: rng.integers(len(whole) // 2, len(whole) + 1)].copy()
        places = rng.integers(0, min(len(broken), 200), rng.integers(1, 4))
        broken[places] = rng.integers(0, 256, len(places))
        path.write_bytes(broken.tobytes())
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                source = FileImages([path])
                assert source.load([0]).shape == source.shape
            except ValueError as error:
                named.append(str(path) in str(error))
    assert named
    assert all(named)
