import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from skocc.nets.backbones import BackboneEncoder


@pytest.mark.parametrize(
    ("name", "n_parameters", "n_features"),
    [("resnet18", 11_176_512, 512), ("mobilenet_v2", 2_223_872, 1280)],
)
def test_counts_and_shapes(name, n_parameters, n_features):
    encoder = BackboneEncoder(name, weights=None).eval()
    assert sum(p.numel() for p in encoder.parameters()) == n_parameters
    for size in [(32, 32), (40, 64)]:
        assert encoder(torch.rand(2, 3, *size)).shape == (2, n_features)


def test_grey_is_repeated():
    encoder = BackboneEncoder("resnet18", weights=None).eval()
    grey = torch.rand(2, 1, 32, 32)
    torch.testing.assert_close(encoder(grey), encoder(grey.repeat(1, 3, 1, 1)))


def test_a_module_is_copied_and_flattened():
    module = torch.nn.Conv2d(3, 4, 3)
    encoder = BackboneEncoder(module)
    assert encoder(torch.rand(2, 3, 5, 5)).shape == (2, 4 * 9)
    encoder.body.weight.data.zero_()
    assert module.weight.abs().sum() > 0


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_weights_from_a_file(tmp_path, suffix):
    module = torch.nn.Conv2d(3, 4, 3)
    state = {name: torch.full_like(value, 2) for name, value in module.state_dict().items()}
    path = tmp_path / f"weights{suffix}"
    save_file(state, path) if suffix == ".safetensors" else torch.save(state, path)
    encoder = BackboneEncoder(module, weights=path)
    assert torch.equal(encoder.body.weight, torch.full((4, 3, 3, 3), 2.0))


@pytest.mark.parametrize(
    ("backbone", "weights", "message"),
    [
        ("resnet19", None, "no classification network.*Use for example 'resnet18'"),
        ("fcn_resnet50", None, "no classification network"),
        ("resnet18", "missing.pt", "missing.pt' is no file. Pass 'imagenet', None, or"),
    ],
)
def test_bad_names_and_paths(backbone, weights, message):
    with pytest.raises(ValueError, match=message):
        BackboneEncoder(backbone, weights)


def test_weights_of_another_network(tmp_path):
    torch.save({"a": torch.zeros(1)}, tmp_path / "other.pt")
    with pytest.raises(
        ValueError, match=r"(?s)does not hold a state dict of this ResNet.*Save one"
    ):
        BackboneEncoder("resnet18", tmp_path / "other.pt")


def test_imagenet_weights_that_cannot_be_fetched(monkeypatch):
    from torchvision import models

    def no_network(name, weights):
        raise OSError("no route to host")

    monkeypatch.setattr(models, "get_model", no_network)
    with pytest.raises(ValueError, match=r"cannot be downloaded: no route.*pass its path"):
        BackboneEncoder("resnet18")


@pytest.mark.data
def test_mobilenet_from_a_local_file(data_dir):
    encoder = BackboneEncoder("mobilenet_v2", data_dir / "mobilenet_v2_imagenet.pt").eval()
    with np.load(data_dir / "golden" / "backbones_io.npz") as arrays:
        images = torch.from_numpy(arrays["images"]).permute(0, 3, 1, 2) / 255
        expected = arrays["mobilenet_v2.features.18/channel_mean"]
    mean = torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1)
    std = torch.tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1)
    with torch.no_grad():
        features = encoder((images - mean) / std)
    np.testing.assert_allclose(features.numpy(), expected, atol=1e-4)
