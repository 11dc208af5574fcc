import builtins
import errno
import json
import os
import random
import stat
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
import safetensors
import torch
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file
from sklearn.exceptions import InconsistentVersionWarning, NotFittedError

import skocc
from skocc._base import versions
from skocc._ops.memory_bank import MemoryBank
from skocc.model_selection import DetectorEnsemble
from tests.quick import ESTIMATORS, SMALL, quick


@pytest.fixture
def fitted(digits):
    return quick(skocc.DeepSVDD, image_shape=(8, 8)).fit(digits[0].reshape(-1, 64))


def test_the_file_holds_versions_and_no_code(fitted, tmp_path):
    path = tmp_path / "a.safetensors"
    skocc.save(fitted, path)
    with safe_open(path, framework="np") as file:
        header = json.loads(file.metadata()["skocc"])
    assert header["estimator"] == "DeepSVDD"
    assert header["versions"]["torch"] == torch.__version__.split("+")[0]
    assert header["versions"]["skocc"] == skocc.__version__


def test_names_of_columns_and_tuples_survive(digits, tmp_path):
    pandas = pytest.importorskip("pandas")
    table = pandas.DataFrame(digits[0].reshape(-1, 64)).add_prefix("p")
    fitted = quick(skocc.DeepSVDD, channels=(9, 8), image_size=None).fit(table)
    skocc.save(fitted, tmp_path / "a.safetensors")
    loaded = skocc.load(tmp_path / "a.safetensors")
    assert list(loaded.feature_names_in_) == list(table.columns)
    assert loaded.channels == (9, 8)
    assert loaded.image_shape_ == (64,)
    np.testing.assert_array_equal(loaded.predict(table), fitted.predict(table))


def test_refitting_a_loaded_estimator_equals_the_original(fitted, digits, tmp_path):
    skocc.save(fitted, tmp_path / "a.safetensors")
    rows = digits[1][:60].reshape(-1, 64)
    again = skocc.load(tmp_path / "a.safetensors").fit(rows)
    np.testing.assert_array_equal(again.train_scores_, fitted.fit(rows).train_scores_)


@pytest.mark.parametrize("objective", ["split", "naive"])
def test_after_a_warm_start_with_another_objective(digits, tmp_path, objective):
    detector = quick(skocc.DataSplitOCC).fit(digits[0])
    detector.set_params(warm_start=True, objective=objective).fit(digits[0])
    skocc.save(detector, tmp_path / "a")
    np.testing.assert_array_equal(
        skocc.load(tmp_path / "a").score_samples(digits[1][:9]),
        detector.score_samples(digits[1][:9]),
    )
    detector.set_params(objective="constrained").fit(digits[0])
    skocc.save(detector, tmp_path / "a")
    skocc.load(tmp_path / "a").fit(digits[0])


def test_unfitted_and_foreign_estimators_are_refused(fitted, tmp_path):
    with pytest.raises(NotFittedError):
        skocc.save(skocc.DeepSVDD(), tmp_path / "a.safetensors")
    fitted.set_params(random_state=np.random.RandomState(0))
    with pytest.raises(ValueError, match=r"random_state=.*cannot be saved.*set_params"):
        skocc.save(fitted, tmp_path / "a.safetensors")
    assert list(tmp_path.iterdir()) == []


def test_files_that_are_not_ours_are_refused(fitted, tmp_path):
    path = tmp_path / "a.safetensors"
    with pytest.raises(ValueError, match=r"a.safetensors' cannot be read .*No such file"):
        skocc.load(path)
    path.write_bytes(b"a pickle, say")
    with pytest.raises(ValueError, match=r"cannot be read as a model.*joblib\.load"):
        skocc.load(path)
    save_file({"weight": np.zeros(2)}, path)
    with pytest.raises(ValueError, match="holds tensors but no estimator"):
        skocc.load(path)
    header = {"format": "99", "estimator": "DeepSVDD", "versions": {"skocc": "9.0"}}
    save_file({"weight": np.zeros(2)}, path, {"skocc": json.dumps(header)})
    with pytest.raises(
        ValueError, match=r"written by skocc 9\.0 in format 99, .* up to 3: install that"
    ):
        skocc.load(path)


# What skocc 0.1.0 wrote, of a network of three values, one hidden unit and a code of two.
HEADER_OF_0_1 = {
    "format": "1",
    "estimator": "DeepSVDD",
    "modules": ["network_"],
    "lists": {},
    "params": {
        "boundary": "hard", "nu": 0.1, "radius_update": "batch", "warm_up_n_epochs": 10,
        "backbone": None, "weights": "imagenet", "widths": {"tuple": [1]}, "latent_dim": 2,
        "filter_init": "dictionary", "normalization": "auto", "pretrain_n_epochs": 150,
        "pretrain_learning_rate": 0.0001, "pretrain_weight_decay": 0.0005,
        "pretrain_milestones": {"tuple": [50]}, "n_epochs": 150, "learning_rate": 0.0001,
        "weight_decay": 1e-06, "milestones": {"tuple": [50]}, "batch_size": 200,
        "contamination": 0.1, "image_shape": None, "image_size": None, "device": "cpu",
        "random_state": 0, "verbose": 0, "warm_start": False,
    },
    "values": {
        "feature_names_in_": {"text": ["a", "b", "c"]}, "n_features_in_": 3,
        "image_shape_": {"tuple": [3]}, "pretrain_loss_curve_": [1.5, float("nan")],
        "loss_curve_": [], "radius_": 0.5, "offset_": -2.0, "collapsed_": False,
    },
    "versions": {"python": "3.11.9", "skocc": "0.1.0", "torch": "2.4.1", "scipy": None},
}  # fmt: skip
ARRAYS_OF_0_1 = {
    "network_/encoder.0.weight": np.array([[1, 2, -1]], dtype=np.float32),
    "network_/encoder.1.running_mean": np.array([0.5], dtype=np.float32),
    "network_/encoder.1.running_var": np.array([4 - 1e-4], dtype=np.float32),
    "network_/encoder.1.num_batches_tracked": np.array(7),
    "network_/encoder.3.weight": np.array([[2], [-1]], dtype=np.float32),
    "center_": np.array([0.25, -0.5], dtype=np.float32),
    "train_scores_": np.array([-1.0, -2.0, -3.0]),
}


def write(path, header=HEADER_OF_0_1, arrays=ARRAYS_OF_0_1, **changes):
    text = header if isinstance(header, str) else json.dumps({**header, **changes})
    save_file(arrays, path, {"skocc": text})
    return path


def with_params(**params):
    return {"params": {**HEADER_OF_0_1["params"], **params}}


def with_values(**values):
    return {"values": {**HEADER_OF_0_1["values"], **values}}


@pytest.fixture
def same_version(monkeypatch):
    monkeypatch.setattr(versions, "__version__", "0.1.0")


@pytest.mark.usefixtures("same_version")
def test_a_file_of_0_1_is_read_and_scores_as_by_hand(tmp_path):
    detector = skocc.load(write(tmp_path / "old"))
    assert detector.channels == (1,)
    assert detector.embedding_dim == 2
    assert list(detector.feature_names_in_) == ["a", "b", "c"]
    rows = np.array([[1, 2, 3], [0.5, 0, 1]])
    # Two weighted sums, 2 and -0.5; less 0.5 and by 2: 0.75 and -0.5; by 0.01 below zero.
    codes = np.array([[1.5, -0.75], [-0.01, 0.005]])
    expected = -((codes - [0.25, -0.5]) ** 2).sum(axis=1)
    np.testing.assert_allclose(
        detector.set_params(channels=(1,)).score_samples(table(rows)), expected, rtol=1e-6
    )
    assert detector.predict(table(rows)).tolist() == [1, 1]


def table(rows):
    pandas = pytest.importorskip("pandas")
    return pandas.DataFrame(rows, columns=["a", "b", "c"])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"estimator": "load"}, "written by skocc 0.1.0 as 'load', which"),
        ({"estimator": "show_versions"}, "as 'show_versions'"),
        ({"estimator": "CollapseWarning"}, "as 'CollapseWarning'"),
        ({"estimator": "os.system"}, "as 'os.system'"),
        ({"estimator": "predict_table"}, "as 'predict_table'"),
        ({"estimator": "datasets"}, "as 'datasets'"),
        ({"estimator": "_deep"}, "as '_deep'"),
        ({"estimator": "FittedMixin"}, "as 'FittedMixin'"),
        ({"estimator": ["DeepSVDD"]}, r"as \['DeepSVDD'\]|TypeError"),
        ({"estimator": "ConvAE"}, "'boundary'"),
        ({"estimator": "\x1b[31mred"}, r"as '\\x1b\[31mred'"),
        ({"versions": {"skocc": "\x1b]0;title\x07"}, "format": "4"}, r"skocc \\x1b\]0;"),
        ({"versions": None}, "no format or no versions"),
        ({"format": "0"}, "no format or no versions"),
        ({"format": "2"}, "its digest says"),
        ({"format": "10"}, "in format 10, and skocc"),
        (with_params(nu=2.0), "'nu' parameter"),
        (with_params(nu=float("nan")), "'nu' parameter"),
        (with_params(surplus=1), r"parameters \['surplus'\], which a DeepSVDD"),
        (with_params(device="abacus"), "abacus"),
        (with_params(image_shape={"tuple": [2, 2]}), "cannot come from image_shape"),
        (with_params(latent_dim=10**9), r"float32 of shape \(2, 1\), not .*\(1000000000"),
        (with_params(latent_dim=10**30), "too many digits"),
        (with_params(widths={"tuple": [10**9]}), "not float32 of shape"),
        (with_params(widths={"list": [1]}), "no plain value"),
        (with_params(widths=[[[[[1]]]]]), "no plain value"),
        (with_params(milestones=[1] * 1001), "no plain value"),
        (with_params(backbone="resnet18"), "backbone needs images"),
        (with_params(backbone="os"), "backbone"),
        (with_values(offset_=float("nan")), "offset_ is nothing that fit sets"),
        (with_values(offset_="-2"), "offset_ is nothing that fit sets"),
        (with_values(offset_=None), "offset_ is None"),
        (with_values(n_features_in_=-3), "n_features_in_ is nothing"),
        (with_values(n_features_in_=4), "feature_names_in_ has 3 names"),
        (with_values(collapsed_=0), "collapsed_ is nothing"),
        (with_values(loss_curve_=["low"]), "loss_curve_ is nothing"),
        (with_values(image_shape_=[3]), "image_shape_ is nothing"),
        (with_values(image_shape_={"tuple": [4]}), r"network_/encoder.0.weight is"),
        (with_values(image_shape_={"tuple": [0]}), "cannot come from"),
        (with_values(image_shape_={"tuple": [True]}), "image_shape_ is nothing"),
        (with_values(center_=[0.1]), "some twice"),
        (with_values(predict="x"), r"attributes \['predict'\]"),
        (with_values(_rebuilt="x"), r"attributes \['_rebuilt'\]"),
        (with_values(__class__="x"), r"attributes \['__class__'\]"),
    ],
)
@pytest.mark.usefixtures("same_version")
def test_what_a_header_says_is_checked(tmp_path, changes, message):
    path = write(tmp_path / "old", **changes)
    with pytest.raises(ValueError, match=rf"old' cannot be read as a model: .*{message}"):
        skocc.load(path)


@pytest.mark.parametrize(
    ("name", "array", "message"),
    [
        ("center_", np.zeros(3, np.float32), "have a size d of 3, not 2"),
        ("center_", np.zeros((2, 1), np.float32), r"center_ is float32 of shape \(2, 1\)"),
        ("center_", np.zeros(2), "center_ is float64"),
        ("center_", np.zeros(0, np.float32), "center_ is empty"),
        ("center_", np.array([0, np.inf], np.float32), "center_ has values that are not"),
        ("center_/0", np.zeros(2, np.float32), "center_ has other entries"),
        ("train_scores_", np.zeros(3, np.int64), "train_scores_ is int64"),
        ("predict", np.zeros(3), r"attributes \['predict'\]"),
        ("score_samples/0", np.zeros(3), r"attributes \['score_samples'\]"),
        ("nu", np.zeros(3), r"attributes \['nu'\]"),
        ("offset_", np.zeros(3), "some twice"),
        ("network_", np.zeros(3), "network_ has other tensors"),
        ("network_/encoder.0.bias", np.zeros(1, np.float32), "'encoder.0.bias'"),
        ("network_/encoder.0.weight", np.zeros((3, 1), np.float32), r"not .*\(1, 3\)"),
        ("network_/encoder.0.weight", np.zeros((1, 3)), "is float64"),
        ("network_/encoder.1.num_batches_tracked", np.zeros(()), "not int64"),
    ],
)
@pytest.mark.usefixtures("same_version")
def test_what_a_file_holds_is_checked(tmp_path, name, array, message):
    path = write(tmp_path / "old", arrays={**ARRAYS_OF_0_1, name: array})
    with pytest.raises(ValueError, match=rf"old' cannot be read as a model: .*{message}"):
        skocc.load(path)


@pytest.mark.parametrize("name", ARRAYS_OF_0_1)
@pytest.mark.usefixtures("same_version")
def test_what_is_missing_is_an_error(tmp_path, name):
    arrays = {key: array for key, array in ARRAYS_OF_0_1.items() if key != name}
    with pytest.raises(ValueError, match=name.removeprefix("network_/")):
        skocc.load(write(tmp_path / "old", arrays=arrays))


@pytest.mark.parametrize("name", ["image_shape_", "offset_", "radius_"])
@pytest.mark.usefixtures("same_version")
def test_what_a_header_lacks_is_an_error(tmp_path, name):
    values = {key: v for key, v in HEADER_OF_0_1["values"].items() if key != name}
    with pytest.raises(ValueError, match=name):
        skocc.load(write(tmp_path / "old", values=values))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[" * 100_000, "RecursionError"),
        ('{"format": "1", "format": "2"}', "names something twice"),
        ('{"format": ' + "1" * 5000 + "}", "too many digits"),
        ("{", "JSONDecodeError"),
        ("null", "is no object"),
        ("[]", "is no object"),
        ("7", "is no object"),
        ("{}", "no format or no versions"),
    ],
)
def test_what_is_no_header(tmp_path, text, message):
    with pytest.raises(ValueError, match=message):
        skocc.load(write(tmp_path / "old", text))


def test_another_version_warns(fitted, tmp_path, monkeypatch):
    path = tmp_path / "a.safetensors"
    monkeypatch.setattr(versions, "__version__", "0.0.9")
    skocc.save(fitted, path)
    skocc.load(path)
    monkeypatch.undo()
    with pytest.warns(
        InconsistentVersionWarning, match=r"DeepSVDD was written by skocc '0.0.9', and this"
    ) as seen:
        skocc.load(path)
    assert seen[0].filename == __file__


def test_another_patch_of_the_same_version_is_silent(fitted, tmp_path, monkeypatch):
    for version, same in (("0.1.0", True), ("0.1.9", True), ("0.2.0", False)):
        monkeypatch.setattr(versions, "__version__", version)
        skocc.save(fitted, tmp_path / "a")
        monkeypatch.setattr(versions, "__version__", "0.1.1")
        with nullcontext() if same else pytest.warns(InconsistentVersionWarning):
            skocc.load(tmp_path / "a")


def test_a_newer_format_is_refused_by_name(fitted, tmp_path):
    header, arrays = skocc._persistence.model_files._take_apart(fitted)
    header["versions"]["skocc"] = "7.0.0"
    header["what else there is"] = 1
    write(tmp_path / "a", header, arrays, format="4")
    with pytest.raises(
        ValueError,
        match=r"a' cannot be read .* by skocc 7.0.0 in format 4, and skocc .* reads "
        r"formats up to 3: install that version",
    ):
        skocc.load(tmp_path / "a")


@pytest.mark.parametrize("estimator_class", [skocc.ResNetKNN, skocc.PatchSVDD])
def test_mapped_banks_stay_in_the_file(estimator_class, digits, tmp_path):
    fitted = quick(estimator_class).fit(digits[0][:20])
    path = tmp_path / "a.safetensors"
    skocc.save(fitted, path)
    loaded = skocc.load(path, mmap=True)
    banks = [bank for bank in vars(loaded).values() if isinstance(bank, MemoryBank)]
    assert banks
    for bank in banks:
        for array in (bank.vectors, bank.images):
            assert isinstance(array, np.memmap)
            assert not array.flags.writeable
    for X in (digits[0][:20], digits[1][:20]):
        np.testing.assert_array_equal(loaded.score_samples(X), fitted.score_samples(X))
    # The map holds what was in the file when it was opened, whatever replaces that.
    skocc.save(loaded, path)
    skocc.save(fitted, tmp_path / "b.safetensors")
    assert path.read_bytes() == (tmp_path / "b.safetensors").read_bytes()
    loaded.partial_fit(digits[0][20:30])
    assert not isinstance(skocc.load(path).train_scores_, np.memmap)


def test_what_a_mapped_file_holds_is_checked(digits, tmp_path):
    fitted = quick(skocc.ResNetKNN).fit(digits[0][:20])
    header, arrays = skocc._persistence.model_files._take_apart(fitted)
    name = next(name for name in arrays if name.endswith("/vectors"))
    for change in (
        {name: arrays[name].astype(np.float64)},
        {name: arrays[name][:-1]},
        {name: arrays[name][:, :-1]},
        {name.replace("vectors", "images"): np.full(len(arrays[name]), 20, np.int32)},
    ):
        path = write(tmp_path / "a", header, arrays | change)
        with pytest.raises(ValueError, match="cannot be read as a model"):
            skocc.load(path, mmap=True)
    path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(ValueError, match="cannot be read as a model"):
        skocc.load(path, mmap=True)


def test_the_device_may_be_another(fitted, digits, tmp_path):
    fitted.set_params(device="cuda:7")
    skocc.save(fitted, tmp_path / "a")
    loaded = skocc.load(tmp_path / "a", device=torch.device("cpu"))
    assert loaded.device == "cpu"
    for device, said in (("abacus", "is not the name"), ("cuda:99", "is not available")):
        with pytest.raises(ValueError, match=f"device='{device}' {said}"):
            skocc.load(tmp_path / "a", device=device)
    ensemble = DetectorEnsemble([("one", quick(skocc.DeepSVDD, device=None))])
    skocc.save(ensemble.fit(digits[0]), tmp_path / "b")
    loaded = skocc.load(tmp_path / "b", device="cpu")
    found = {k: v for k, v in loaded.get_params().items() if k.endswith("device")}
    assert {*found.values()} == {"cpu"}


def test_memory_and_checkpoints_belong_to_the_program(digits, tmp_path, monkeypatch):
    fitted = quick(
        skocc.ConvAE, checkpoint_dir=tmp_path / "training", checkpoint_every=1
    ).fit(digits[0][:20])
    skocc.save(fitted, tmp_path / "a.safetensors")
    assert skocc.load(tmp_path / "a.safetensors").checkpoint_dir is None
    fitted = quick(skocc.ResNetKNN, memory=str(tmp_path / "features")).fit(digits[0][:20])
    skocc.save(fitted, tmp_path / "b.safetensors")
    # As 0.1 wrote them, the folder being one of the machine that reads the file.
    header, arrays = skocc._persistence.model_files._take_apart(fitted)
    monkeypatch.setitem(header["params"], "memory", str(tmp_path / "elsewhere"))
    write(tmp_path / "c.safetensors", header, arrays, format="1")
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    for name in ("b", "c"):
        loaded = skocc.load(f"{name}.safetensors")
        assert loaded.memory is None
        loaded.score_samples(digits[1][:5])
    assert sorted(tmp_path.rglob("*")) == before


def test_load_reads_one_file_and_moves_no_random_state(digits, tmp_path, monkeypatch):
    def states():
        python, numpy = random.getstate(), np.random.get_state()  # noqa: NPY002
        return python, numpy[1].tolist(), numpy[2:], torch.get_rng_state().tolist()

    # One whose network has tables that are not in the file.
    fitted = quick(skocc.PatchSVDD, normalization="local_contrast", weights=None)
    fitted.fit(digits[0][:20])
    fitted.set_params(weights="no/such/file.pt")
    skocc.save(fitted, tmp_path / "a.safetensors")
    skocc.load(tmp_path / "a.safetensors")  # imports what it needs
    for function in ("open", "stat", "scandir", "listdir", "mkdir"):
        monkeypatch.setattr(os, function, only(tmp_path, getattr(os, function)))
    monkeypatch.setattr(builtins, "open", only(tmp_path, open))
    before, modules = states(), set(sys.modules)
    loaded = skocc.load(tmp_path / "a.safetensors")
    assert states() == before
    assert set(sys.modules) == modules
    monkeypatch.undo()
    np.testing.assert_array_equal(
        loaded.score_samples(digits[1][:5]), fitted.score_samples(digits[1][:5])
    )


@pytest.mark.filterwarnings("ignore:DeepSVDD has collapsed")
@pytest.mark.parametrize(
    "estimator_class",
    [c for c in ESTIMATORS if str in c._parameter_constraints.get("backbone", [])],
)
def test_weights_are_those_of_the_file(estimator_class, digits, tmp_path, monkeypatch):
    images = np.kron(digits[0][:8], np.ones((1, 4, 4), dtype=np.float32))
    params = {"backbone": "shufflenet_v2_x0_5", "weights": None}
    if "pretrain_n_epochs" in SMALL[estimator_class.__name__]:
        params["pretrain_n_epochs"] = 0
    fitted = quick(estimator_class, **params).fit(images)
    # As if they had been: neither is looked for.
    for name, weights in [("a", "imagenet"), ("b", "no/such/file.pt")]:
        skocc.save(fitted.set_params(weights=weights), tmp_path / name)
        with monkeypatch.context() as patch:
            patch.setattr(torch.hub, "load_state_dict_from_url", pytest.fail)
            loaded = skocc.load(tmp_path / name)
        np.testing.assert_array_equal(
            loaded.score_samples(images), fitted.score_samples(images)
        )


def test_load_does_not_depend_on_what_the_process_has_set(digits, tmp_path):
    # With numbers, and tables, that are not the same in another precision.
    fitted = quick(skocc.PatchSVDD, normalization="local_contrast").fit(digits[0][:20])
    skocc.save(fitted, tmp_path / "a")
    torch.set_default_dtype(torch.float64)
    try:
        with torch.device("meta"), torch.inference_mode():
            loaded = skocc.load(tmp_path / "a")
            skocc.save(loaded, tmp_path / "b")
    finally:
        torch.set_default_dtype(torch.float32)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    np.testing.assert_array_equal(
        loaded.score_samples(digits[1][:5]), fitted.score_samples(digits[1][:5])
    )
    loaded.set_params(warm_start=True).fit(digits[0][:20])
    assert len(loaded.loss_curve_) == 2 * len(fitted.loss_curve_)


def only(folder, function):
    def checked(path, *args, **kwargs):
        assert os.fspath(path).startswith(str(folder))
        return function(path, *args, **kwargs)

    return checked


def test_tables_that_follow_from_sizes_are_bounded(digits, tmp_path, monkeypatch):
    fitted = quick(skocc.PatchSVDD, normalization="local_contrast").fit(digits[0][:20])
    skocc.save(fitted, tmp_path / "a.safetensors")
    monkeypatch.setattr(skocc._persistence.model_files, "_OTHER_BYTES", 0)
    skocc.load(tmp_path / "a.safetensors")
    monkeypatch.setattr(skocc._persistence.model_files, "_OTHER_FACTOR", 0)
    for call in (skocc.load, lambda path: skocc.save(fitted, path)):
        with pytest.raises(ValueError, match="network_ would take 512 bytes beside"):
            call(tmp_path / "a.safetensors")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="the system has no named pipes")
def test_pipes_folders_and_missing_files(fitted, tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path, message in [
        (tmp_path / "pipe", "it is not a regular file"),
        (tmp_path, "it is not a regular file"),
        (tmp_path / "no" / "file", "No such file"),
        ("a\0b", "null"),
    ]:
        with pytest.raises(ValueError, match=message) as raised:
            skocc.load(path)
        assert str(raised.value).startswith(repr(os.fspath(path)))
    with pytest.raises(OSError, match=r"device or a pipe.*Name another path") as raised:
        skocc.save(fitted, tmp_path / "pipe")
    assert raised.value.filename == str(tmp_path / "pipe")


def test_names_that_are_not_utf_8(fitted, tmp_path):
    path = os.fsencode(tmp_path) + b"/\xff\x1b[31m.safetensors"
    skocc.save(fitted, path)
    assert os.listdir(os.fsencode(tmp_path)) == [b"\xff\x1b[31m.safetensors"]
    skocc.load(path)
    with open(path, "wb"):
        pass
    with pytest.raises(ValueError, match=r"\\udcff\\x1b\[31m.safetensors' cannot be read"):
        skocc.load(path)


def mode(path):
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.skipif(os.name == "nt", reason="permissions are those of POSIX")
def test_permissions_are_those_of_any_new_file_or_stay(fitted, tmp_path):
    path = tmp_path / "a.safetensors"
    for umask, expected in [(0o022, 0o644), (0o002, 0o664), (0o077, 0o600)]:
        before = os.umask(umask)
        try:
            skocc.save(fitted, path)
        finally:
            os.umask(before)
        assert mode(path) == expected
        path.unlink()
    path.touch()
    for known in (0o604, 0o640, 0o755):
        path.chmod(known)
        skocc.save(fitted, path)
        assert mode(path) == known
    skocc.load(path)


@pytest.mark.skipif(os.name == "nt", reason="links need a privilege")
def test_symbolic_links_stay(fitted, tmp_path):
    folder = tmp_path / "folder"
    folder.mkdir()
    target, link = folder / "model", tmp_path / "link"
    link.symlink_to(Path("folder", "model"))
    for _ in range(2):  # the first time there is nothing at its end
        skocc.save(fitted, link)
        assert link.is_symlink()
        assert not target.is_symlink()
        skocc.load(target)
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["folder", "link", "model"]
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(OSError, match="loop"):
        skocc.save(fitted, tmp_path / "loop")


def test_places_that_cannot_be_written(fitted, tmp_path, monkeypatch):
    file = tmp_path / "file"
    file.write_text("kept")
    for path, kind in [
        (tmp_path / "no" / "a", FileNotFoundError),
        (tmp_path, IsADirectoryError),
        (f"{tmp_path}/new/", IsADirectoryError),
        (file / "a", NotADirectoryError),
    ]:
        with pytest.raises(kind, match=r"\. Nothing was written.*Name another") as raised:
            skocc.save(fitted, path)
        assert raised.value.filename == os.fspath(path)
    # As for any user but root.
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with pytest.raises(PermissionError, match="The file is read-only"):
        skocc.save(fitted, file)
    monkeypatch.undo()

    def refuse(*args, **kwargs):
        raise PermissionError(errno.EACCES, "Permission denied", args[0])

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(
        PermissionError, match=r"Permission denied.*a.safetensors"
    ) as raised:
        skocc.save(fitted, tmp_path / "a.safetensors")
    assert raised.value.filename == str(tmp_path / "a.safetensors")
    monkeypatch.undo()
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    assert file.read_text() == "kept"


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (SafetensorError("I/O error: No space left on device (os error 28)"), OSError),
        (
            SafetensorError('IoError(Os { code: 28, kind: StorageFull, message: "" })'),
            OSError,
        ),
        (SafetensorError("something new"), OSError),
        (MemoryError(), MemoryError),
        (KeyboardInterrupt(), KeyboardInterrupt),
    ],
)
def test_a_failure_leaves_the_old_file_alone(fitted, tmp_path, monkeypatch, error, kind):
    path = tmp_path / "a.safetensors"
    skocc.save(fitted, path)
    content = path.read_bytes()

    def fail(arrays, name, metadata):
        Path(name).write_bytes(b"half")
        raise error

    monkeypatch.setattr(safetensors.numpy, "save_file", fail)
    with pytest.raises(kind) as raised:
        skocc.save(fitted, path)
    if "28" in str(error):
        assert raised.value.errno == errno.ENOSPC
        assert raised.value.filename == str(path)
    assert [p.name for p in tmp_path.iterdir()] == [path.name]
    assert path.read_bytes() == content


def test_the_same_model_gives_the_same_bytes(fitted, tmp_path):
    for name in ("a", "b"):
        skocc.save(fitted, tmp_path / name)
    skocc.save(skocc.load(tmp_path / "a"), tmp_path / "c")
    contents = {(tmp_path / name).read_bytes() for name in ("a", "b", "c")}
    assert len(contents) == 1


@pytest.mark.parametrize("change", [{"embedding_dim": 5}, {"image_size": 16}, {"nu": 3}])
def test_what_could_not_be_read_is_not_written(fitted, tmp_path, change):
    fitted.set_params(**change)
    with pytest.raises(ValueError, match="cannot be saved, because load could not put it"):
        skocc.save(fitted, tmp_path / "a")
    fitted.remark = "of my own"
    with pytest.raises(ValueError, match=r"Got an attribute 'remark' besides\. Use joblib"):
        skocc.save(fitted, tmp_path / "a")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.slow
def test_killed_processes_and_full_disks():
    command = [sys.executable, "-m", "tests.saving", "30"]
    found = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert found.count("30 of 30 whole") == 2
