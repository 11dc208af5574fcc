import copy
import os
import pickle
import subprocess
import sys

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional

from skocc._nets.backbones import BackboneEncoder, FeatureMaps, count_features
from skocc._nets.normalization import ImageNetNormalization


@pytest.mark.parametrize(
    ("name", "n_parameters", "n_features"),
    [("resnet18", 11_176_512, 512), ("mobilenet_v2", 2_223_872, 1280)],
)
def test_counts_and_shapes(name, n_parameters, n_features):
    encoder = BackboneEncoder(name, weights=None).eval()
    assert sum(p.numel() for p in encoder.parameters()) == n_parameters
    for size in [(32, 32), (40, 64)]:
        assert encoder(torch.rand(2, 3, *size)).shape == (2, n_features)


def test_gray_is_repeated():
    encoder = BackboneEncoder("resnet18", weights=None).eval()
    gray = torch.rand(2, 1, 32, 32)
    torch.testing.assert_close(encoder(gray), encoder(gray.repeat(1, 3, 1, 1)))


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
        ("resnet19", None, "not a classification network.*Use for example 'resnet18'"),
        ("fcn_resnet50", None, "not a classification network"),
        ("resnet18", "missing.pt", "missing.pt' is not a file. Pass None, the path"),
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


class Branches(nn.Module):
    """Operations in place behind the layers, one layer used twice, and one not at all."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(3, 4, 3)
        self.act = nn.ReLU(inplace=True)
        self.pair = nn.ModuleDict({"left": nn.Conv2d(4, 5, 1), "right": nn.Conv2d(4, 6, 1)})
        self.unused = nn.Linear(2, 2)
        self.last = nn.Linear(4, 2)

    def forward(self, x):
        y = self.act(self.first(x))
        z = functional.relu(self.pair["left"](y), inplace=True)
        return self.last(self.act(y - 1).mean((2, 3))), z, self.pair["right"](y)


@pytest.mark.parametrize(
    ("name", "layers", "n_parameters", "shapes"),
    [
        ("resnet18", ("layer2", "layer3"), 2_782_784, [(128, 28, 28), (256, 14, 14)]),
        ("resnet50", ("layer2", "layer3"), 8_543_296, [(512, 28, 28), (1024, 14, 14)]),
        (
            "mobilenet_v2",
            ("features.6", "features.13"),
            542_528,
            [(32, 28, 28), (96, 14, 14)],
        ),
        (
            "wide_resnet50_2",
            ("layer2", "layer3"),
            24_862_528,
            [(512, 28, 28), (1024, 14, 14)],
        ),
    ],
)
def test_shapes_of_layers_and_nothing_beyond(name, layers, n_parameters, shapes):
    maps = FeatureMaps(name, layers, weights=None)
    assert sum(p.numel() for p in maps.parameters()) == n_parameters
    assert maps.shapes(224, 224) == shapes
    assert not any(p.requires_grad for p in maps.parameters())


def test_layers_of_resnet50_at_224():
    maps = FeatureMaps("resnet50", [f"layer{i}" for i in range(1, 5)], weights=None)
    expected = [(256, 56, 56), (512, 28, 28), (1024, 14, 14), (2048, 7, 7)]
    assert maps.shapes(224, 224) == expected
    assert [m.shape[2:] for m in maps(torch.rand(2, 1, 64, 96))][-1] == (2, 3)


def test_layers_are_those_of_the_network():
    module = Branches().eval()
    batch = torch.rand(2, 3, 6, 6)
    names = ["act", "pair.left", "first"]
    first = module.first(batch)
    expected = [first.relu(), module.pair["left"](first.relu()), first]
    maps = FeatureMaps(module, names)
    for found, value in zip(maps(batch), expected, strict=True):
        torch.testing.assert_close(found, value)
    kept = {name.split(".")[0] for name, _ in maps.body.named_children()}
    assert kept == {"first", "act", "pair"}
    assert not hasattr(maps.body.pair, "right")
    for part in [*module.modules(), *maps.modules()]:
        assert not part._forward_hooks
        assert not part._forward_pre_hooks
    assert module.act.inplace
    assert module.first.weight.requires_grad


def test_layers_stay_in_eval_mode_through_copies():
    maps = FeatureMaps("resnet18", ["layer1"], weights=None)
    parent = nn.Sequential(maps, nn.Identity()).train()
    assert parent.training
    assert not any(module.training for module in maps.modules())
    batch = torch.rand(2, 3, 32, 32)
    for other in [copy.deepcopy(maps), pickle.loads(pickle.dumps(maps))]:
        assert torch.equal(other(batch)[0], maps(batch)[0])
        assert list(other.state_dict()) == list(maps.state_dict())


def test_transformers_give_maps():
    """Vision Transformers by their tokens but for that of the class, Swin permuted."""
    torch.manual_seed(0)
    maps = FeatureMaps("vit_b_32", ["encoder.layers.encoder_layer_1"], weights=None)
    assert maps.shapes(224, 224) == [(768, 7, 7)]
    batch = torch.rand(2, 3, 224, 224)
    with torch.no_grad():
        (tokens,), (found,) = maps.body(batch), maps(batch)
    for row, column in [(0, 0), (0, 6), (4, 2)]:
        assert torch.equal(found[:, :, row, column], tokens[:, 1 + 7 * row + column])
    with pytest.raises(ValueError, match=r"cannot take images of 32 x 32.*image_size=224"):
        maps.shapes(32, 32)
    with pytest.raises(ValueError, match=r"'heads', which returns \(1000,\) for.*Choose"):
        FeatureMaps("vit_b_32", ["heads"], weights=None).shapes(224, 224)
    swin = FeatureMaps("swin_t", ["features.0.0", "features.1", "permute"], weights=None)
    assert swin.shapes(64, 96) == [(96, 16, 24), (96, 16, 24), (768, 2, 3)]


def test_layer_names_and_modules_that_cannot_be_used():
    with pytest.raises(
        ValueError, match=r"'layer9', which this ResNet does not.*'layer1', .*'layer1.0'"
    ):
        FeatureMaps("resnet18", ["layer9"], weights=None)
    with pytest.raises(ValueError, match=r"'unused', which does not return a.*'act'"):
        FeatureMaps(Branches(), ["unused"])
    with pytest.raises(ValueError, match="'pair', which does not return a"):
        FeatureMaps(Branches(), ["pair"])


def test_layers_with_half_precision_weights(tmp_path):
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU())
    state = {name: value.half() for name, value in module.state_dict().items()}
    torch.save(state, tmp_path / "half.pt")
    maps = FeatureMaps(module, ["0"], weights=tmp_path / "half.pt")
    assert maps(torch.rand(1, 3, 5, 5))[0].dtype == torch.float32
    assert torch.equal(maps.state_dict()["body.0.bias"], state["0.bias"].float())


@pytest.mark.data
@pytest.mark.parametrize(
    ("name", "numbers"), [("mobilenet_v2", (3, 6, 13, 18)), ("squeezenet1_0", (5, 10, 12))]
)
def test_golden_layers(data_dir, name, numbers):
    layers = [f"features.{number}" for number in numbers]
    maps = FeatureMaps(name, layers, data_dir / f"{name}_imagenet.pt")
    with np.load(data_dir / "golden" / "backbones_io.npz") as arrays:
        golden = {key: arrays[key] for key in arrays}
    images = torch.from_numpy(golden["images"]).permute(0, 3, 1, 2) / 255
    with torch.no_grad():
        found = maps(ImageNetNormalization()(images))
    for layer, values in zip(layers, found, strict=True):
        mean = golden[f"{name}.{layer}/channel_mean"]
        # Means of SqueezeNet reach 1000, of which float32 resolves 1e-4.
        np.testing.assert_allclose(values.mean((2, 3)).numpy(), mean, atol=1e-4, rtol=1e-6)
        # Stored in half precision.
        first = golden[f"{name}.{layer}/first"].astype(np.float32)
        np.testing.assert_allclose(
            values[0].numpy(), first.reshape(values[0].shape), rtol=1e-3, atol=1e-3
        )


def test_hidden_layers_of_a_classifier_are_kept_on_request():
    hidden = BackboneEncoder("alexnet", weights=None, hidden=True)
    assert sum(p.numel() for p in hidden.parameters()) == 57_003_840
    assert count_features(hidden, (1, 64, 64)) == 4096
    assert count_features(BackboneEncoder("alexnet", weights=None), (3, 64, 64)) == 9216
    # Networks with one linear layer have no hidden ones.
    assert (
        count_features(BackboneEncoder("resnet18", None, hidden=True), (3, 32, 32)) == 512
    )


def test_modules_for_rows_and_for_gray_images():
    rows = BackboneEncoder(nn.Linear(5, 3), n_channels=1)
    assert count_features(rows, (5,)) == 3
    gray = BackboneEncoder(nn.Conv2d(1, 2, 3), n_channels=1)
    assert count_features(gray, (1, 5, 5)) == 2 * 9


def test_counting_features_leaves_modes_and_statistics_alone():
    module = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten()).train()
    module[1].eval()
    assert count_features(module, (1, 4, 4)) == 8
    assert module.training
    assert not module[1].training
    assert module[1].num_batches_tracked == 0


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (nn.Linear(7, 2), r"cannot turn samples of shape \(1, 5, 5\) into vectors.*Pass a"),
        (nn.Conv2d(1, 2, 3), r"it returns a tensor of shape \(1, 2, 3, 3\)"),
    ],
)
def test_modules_that_do_not_fit(module, message):
    with pytest.raises(ValueError, match=message):
        count_features(module, (1, 5, 5))


def test_named_weights_of_torchvision(monkeypatch, tmp_path):
    """A name that torchvision has is asked for; a file of the same name is read."""
    from torchvision import models

    asked = []
    get_model = models.get_model

    def record(name, weights=None):
        asked.append(weights)
        return get_model(name, weights=None)

    monkeypatch.setattr(models, "get_model", record)
    BackboneEncoder("mobilenet_v2", "IMAGENET1K_V1")
    BackboneEncoder("mobilenet_v2", "imagenet")
    assert asked == ["IMAGENET1K_V1", "DEFAULT"]
    with pytest.raises(ValueError, match=r"'IMAGENET1K_V9' is not a file.*'IMAGENET1K_V1'"):
        BackboneEncoder("mobilenet_v2", "IMAGENET1K_V9")
    monkeypatch.chdir(tmp_path)
    torch.save(get_model("resnet18").state_dict(), "IMAGENET1K_V1")
    asked.clear()
    BackboneEncoder("resnet18", "IMAGENET1K_V1")
    assert asked == [None]


def strided_1x1(module):
    """Return the layers whose gradient can end the process on some processors."""
    return [
        layer
        for layer in module.modules()
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d)
        and max(layer.kernel_size) == 1 < max(layer.stride)
    ]


def test_no_network_of_ours_has_a_1x1_convolution_with_a_stride():
    from skocc._nets import (
        alexnet,
        conv_autoencoder,
        feature_autoencoder,
        lenet,
        patch_encoder,
        residual_encoder,
        video_encoder,
    )

    networks = [
        alexnet.CompactAlexNet((1, 28, 28)),
        *(
            alexnet.AlexNetAutoencoder((3, size, size), spatial_code=spatial)
            for size in (8, 28, 64)
            for spatial in (False, True)
        ),
        conv_autoencoder.ConvAutoencoder(),
        feature_autoencoder.FeatureAutoencoder(6, 3),
        lenet.LeNetEncoder((3, 32, 32), 8, (4, 8)),
        lenet.LeNetDecoder((3, 32, 32), 8, (4, 8)),
        patch_encoder.HierarchicalPatchEncoder(8, 64),
        residual_encoder.ResidualEncoder((3, 16, 16), 4, True, (2, 3, 4, 5)),
        residual_encoder.ResidualDecoder((3, 16, 16), 4, (2, 3, 4, 5)),
        video_encoder.VideoEncoder((1, 8, 32, 32), 8),
        video_encoder.VideoDecoder((1, 8, 32, 32), 8),
    ]
    for network in networks:
        assert not strided_1x1(network), type(network).__name__


@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv2d(1, 4, 1, stride=2),
        nn.Conv2d(3, 4, 1, stride=(2, 1), bias=False),
        nn.ConvTranspose2d(9, 5, 1, stride=2),
    ],
)
def test_such_layers_of_others_are_kept_out_of_one_layout(layer):
    def is_plain(tensor):
        return tensor.stride() == torch.empty(tensor.shape).stride()

    body = nn.Sequential(layer, nn.Flatten()).to(memory_format=torch.channels_last)
    encoder = BackboneEncoder(body)
    seen = []
    encoder.n_channels = layer.in_channels
    handle = encoder.body[0].register_forward_hook(lambda m, x, out: seen.append(x[0]))
    batch = torch.rand(4, layer.in_channels, 6, 6).to(memory_format=torch.channels_last)
    expected = body.eval()(batch)
    torch.testing.assert_close(encoder(batch), expected)
    handle.remove()
    assert is_plain(seen[0])
    assert is_plain(encoder.body[0].weight)
    copied = pickle.loads(pickle.dumps(copy.deepcopy(encoder)))
    torch.testing.assert_close(copied(batch), expected)
    assert len(copied.body[0]._forward_pre_hooks) == 1


ODD_WIDTHS = """
import numpy as np, torch, skocc
torch.set_num_threads(1)
X = np.random.default_rng(0).random((20, 32, 32, 3), dtype=np.float32)
short = {"n_epochs": 2, "device": "cpu", "random_state": 0, "batch_size": 10}
for n in (1, 2, 3, 5, 7):
    widths = (n, n + 1, n + 2, n + 3)
    two = {**short, "pretrain_n_epochs": 2}
    skocc.MOCCA(backbone="residual", channels=widths, **two).fit(X)
    skocc.MOCCA(backbone="lenet", channels=widths[:3], **two).fit(X)
    skocc.DeepSVDD(channels=widths[:3], **two).fit(X)
    skocc.ConvAE(base_channels=n, augmentation=False, **short).fit(X)
    skocc.DataSplitOCC(channels=(*widths, n), embedding_dim=3, **two).fit(X)
    skocc.PatchSVDD(patch_size=16, embedding_dim=n, n_pairs=4, **short).fit(X)
    body = torch.nn.Sequential(
        torch.nn.Conv2d(3, n, 3), torch.nn.Conv2d(n, n + 1, 1, stride=2), torch.nn.Flatten()
    )
    skocc.DeepSVDD(backbone=body, **short).fit(X)
    print(n, flush=True)
"""


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("isa", ["AVX2", "SSE41", "ALL"])
def test_every_architecture_is_trained_at_odd_widths(isa):
    """In a process of its own, which some versions of torch would end."""
    result = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", ODD_WIDTHS],
        env=os.environ | {"ONEDNN_MAX_CPU_ISA": isa, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, (result.stdout, result.stderr[-1000:])
    assert result.stdout.split() == ["1", "2", "3", "5", "7"]
