"""The script of the studies on MNIST and CIFAR-10: its part with pretrained networks."""

import csv
import importlib
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

FOLDER = Path(__file__).resolve().parents[1] / "examples" / "reproduction"


@pytest.fixture
def modules(monkeypatch):
    monkeypatch.syspath_prepend(FOLDER)
    return [importlib.import_module(name) for name in ("one_vs_rest", "batch_norm")]


@pytest.fixture(scope="module")
def images():
    """Images of three classes: noise about a color."""
    rng = np.random.default_rng(0)
    labels = np.arange(60) % 3
    pixels = 40 * (1 + labels)[:, None, None, None] + rng.normal(0, 30, (60, 32, 32, 3))
    return pixels.clip(0, 255).astype(np.uint8), labels


def folded(network):
    """Fold the statistics of batch normalization into scale and shift."""
    for layer in network.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            scale = layer.weight.data / (layer.running_var + layer.eps).sqrt()
            layer.bias.data -= scale * layer.running_mean
            layer.weight.data = scale * (1 + layer.eps) ** 0.5
            layer.running_mean.zero_()
            layer.running_var.fill_(1)
    return network.eval()


def small_network():
    network = torch.nn.Sequential(
        torch.nn.Conv2d(3, 8, 3, bias=False),
        torch.nn.BatchNorm2d(8),
        torch.nn.ReLU(),
        torch.nn.Conv2d(8, 4, 3, stride=2, bias=False),
        torch.nn.BatchNorm2d(4),
    )
    for layer in (network[1], network[4]):
        torch.nn.init.uniform_(layer.weight, 0.5, 2)
        torch.nn.init.uniform_(layer.bias, -1, 1)
    return network


def test_restored_statistics_keep_the_function(modules, images):
    _, batch_norm = modules
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        network = small_network()
    pixels = images[0]
    batch = torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255
    network.train()(batch)
    folded(network)
    expected = network(batch)
    in_training = (network.train()(batch) - expected).abs().mean()
    folded(network)  # the pass in train mode has moved the statistics
    expected = network(batch)
    batch_norm.restore_batch_norm(network, pixels, 32, batch_size=7)
    torch.testing.assert_close(network(batch), expected, rtol=1e-4, atol=1e-4)
    after = (network.train()(batch) - expected).abs().mean()
    assert after < 0.02 * in_training
    assert not network[1]._forward_pre_hooks


def test_thresholds_by_hand(modules):
    script, _ = modules
    is_anomaly = np.array([False, False, True, False, True, True, True, True])
    distances = np.array([1.0, 2, 3, 4, 5, 6, 7, 8])
    found = script.rates(is_anomaly, distances, 5.5)
    assert (found["precision, training"], found["recall, training"]) == ("100.00", "60.00")
    assert found["F1, best F1"] == f"{100 * 10 / 11:.2f}"  # at 3: one false alarm
    assert found["recall, median of test"] == "80.00"  # above 4.5
    assert found["recall, 80 % of test"] == "40.00"  # above 6.6


@pytest.mark.filterwarnings("ignore:.*collapsed")
def test_a_study_with_a_backbone(modules, images, tmp_path, monkeypatch):
    script, _ = modules
    models = pytest.importorskip("torchvision.models")
    pixels, labels = images
    weights = tmp_path / "weights.pt"
    torch.save(folded(models.mobilenet_v2(weights=None)).state_dict(), weights)
    monkeypatch.setattr(script, "load", lambda *args: (pixels, labels, pixels, labels))
    output, embedding = tmp_path / "rows.csv", tmp_path / "tsne.csv"
    arguments = [
        "one_vs_rest.py", "cifar10", "--output", output, "--backbone", "mobilenet_v2",
        "--weights", weights, "--image-size", 32, "--batch-size", 10, "--milestones",
        "--device", "cpu", "--embeddings", embedding, "--n-epochs", 1,
    ]  # fmt: skip
    for extra in (["--classes", 0], ["--classes", 0, 1], ["--classes", 0, "--n-epochs", 2]):
        monkeypatch.setattr(sys, "argv", [str(part) for part in [*arguments, *extra]])
        script.main()
    with output.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["class"], row["epochs"]) for row in rows] == [
        ("0", "1"),
        ("1", "1"),
        ("0", "2"),
    ]
    assert float(rows[0]["recall, median of test"]) <= 75  # 30 of 40 anomalies at most
    assert all(0 <= float(row["F1, training"]) <= 100 for row in rows)
    with embedding.open(newline="") as file:
        assert len(list(csv.DictReader(file))) == 3 * (20 + 60)


@pytest.mark.filterwarnings("ignore:.*collapsed")
def test_a_folder_in_the_place_of_a_data_set(modules, images, tmp_path, monkeypatch):
    script, _ = modules
    pytest.importorskip("torchvision")
    pixels, labels = images
    for part, label in (("train/good", 0), ("test/good", 0), ("test/hole", 1)):
        (tmp_path / "bottle" / part).mkdir(parents=True)
        for number, image in enumerate(pixels[labels == label][:8]):
            path = tmp_path / "bottle" / part / f"{number}.png"
            Image.fromarray(image[: 32 - number]).save(path)
    train, train_labels, test, test_labels = script.load_folder(tmp_path / "bottle", 24)
    assert train.shape == (8, 24, 24, 3)
    assert train.dtype == np.uint8
    assert train_labels.tolist() == [0] * 8
    assert (test_labels == 1).sum() == (test_labels == 0).sum() == 8
    assert test[test_labels == 1].mean() > test[test_labels == 0].mean()
    arguments = [
        "one_vs_rest.py", tmp_path / "bottle", "--output", tmp_path / "rows.csv",
        "--backbone", "resnet18", "--weights", tmp_path / "none.pt", "--image-size", 24,
        "--device", "cpu", "--n-epochs", 1, "--batch-size", 4,
    ]  # fmt: skip
    monkeypatch.setattr(script, "make_backbone", lambda *args: small_network())
    monkeypatch.setattr(sys, "argv", [str(part) for part in arguments])
    script.main()
    (row,) = script.read_rows(tmp_path / "rows.csv")
    assert 0 <= float(row["recall, 80 % of test"]) <= 100
    arguments[1] = tmp_path / "nothing"
    monkeypatch.setattr(sys, "argv", [str(part) for part in arguments])
    with pytest.raises(SystemExit):
        script.main()


def test_both_boundaries_and_what_is_missing(modules, images, tmp_path, monkeypatch):
    script, _ = modules
    pixels, labels = images[0][:, ::2, ::2], images[1]
    monkeypatch.setattr(script, "load", lambda *args: (pixels, labels, pixels, labels))
    output = tmp_path / "rows.csv"
    arguments = [
        "one_vs_rest.py", "cifar10", "--output", output, "--classes", 0, "--n-train", 12,
        "--methods", "deep_svdd", "mocca", "--filter-init", "random", "--device", "cpu",
        "--pretrain-n-epochs", 2, "--pretrain-milestones", 1, "--batch-size", 6,
        "--n-epochs", 14, "--milestones", 13, "--learning-rate", 0.01,
    ]  # fmt: skip
    found = []
    for boundaries in (["soft"], ["hard", "soft"]):
        arguments_now = [*arguments, "--boundary", *boundaries]
        monkeypatch.setattr(sys, "argv", [str(part) for part in arguments_now])
        script.main()
        rows = script.read_rows(output)
        found.append([(row["method"], row["boundary"]) for row in rows])
    assert found[0] == [("DeepSVDD", "soft"), ("MOCCA", "soft")]
    assert found[1][2:] == [("DeepSVDD", "hard"), ("MOCCA", "hard")]
    assert rows[1]["scored"] == "0+1+2"
    # Beyond ten epochs of warm-up, the radius of a soft boundary is part of the loss.
    assert rows[0]["auroc"] != rows[2]["auroc"]
