"""Layers of every kind of network, against what the network itself returns."""

import copy
import pickle
import warnings

import pytest
import torch
from torch import nn
from torch.nn import functional

from skocc._nets.backbones import FeatureMaps
from skocc._nets.hooks import HookedLayers, LayerError

SMALL = {
    "hidden_size": 16, "num_hidden_layers": 4, "num_attention_heads": 2, "image_size": 32,
    "patch_size": 8,
}  # fmt: skip


def random_weights(module):
    """Return the module with weights that differ, where an initialization has zeros."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=generator)
    return module.eval()


def timm_model(name, **options):
    timm = pytest.importorskip("timm")
    return random_weights(timm.create_model(name, num_classes=0, **options))


def timm_vit(**options):
    small = {"patch_size": 8, "depth": 4, "embed_dim": 16, "num_heads": 2}
    return timm_model("vit_tiny_patch16_224", img_size=32, **small, **options)


def hugging_face(name, **options):
    transformers = pytest.importorskip("transformers")
    config = getattr(transformers, f"{name}Config")(**SMALL, **options)
    return random_weights(getattr(transformers, f"{name}Model")(config))


class Block(nn.Module):
    def __init__(self, dim):
        super().__init__()
        self.norm, self.linear = nn.LayerNorm(dim), nn.Linear(dim, dim)

    def forward(self, x):
        return x + functional.gelu(self.linear(self.norm(x)))


class HubDino(nn.Module):
    """What skocc looks for in torch.hub's DINOv2: names, attributes and ``forward``."""

    def __init__(self, n_registers=2, dim=8):
        super().__init__()
        self.num_register_tokens, self.patch_size = n_registers, 4
        self.patch_embed = nn.Conv2d(3, dim, 4, 4)
        self.cls_token = nn.Parameter(torch.randn(1, 1, dim))
        self.register_tokens = nn.Parameter(torch.randn(1, n_registers, dim))
        self.pos_embed = nn.Parameter(torch.randn(1, dim, 8, 8))
        self.blocks = nn.ModuleList([Block(dim) for _ in range(4)])
        self.norm, self.head = nn.LayerNorm(dim), nn.Identity()

    def forward_features(self, x):
        x = self.patch_embed(x)
        if x.shape[2:] == (8, 8):  # a branch that torch.fx cannot follow
            x = x + self.pos_embed
        else:
            x = x + functional.interpolate(self.pos_embed, x.shape[2:], mode="bicubic")
        tokens = [self.cls_token, self.register_tokens]
        tokens = [token.expand(len(x), -1, -1) for token in tokens]
        x = torch.cat([*tokens, x.flatten(2).mT], dim=1)
        for block in self.blocks:
            x = block(x)
        return {"x_norm_patchtokens": self.norm(x)[:, 1 + self.num_register_tokens :]}

    def forward(self, *args, is_training=False, **kwargs):
        features = self.forward_features(*args, **kwargs)
        return features if is_training else self.head(features["x_norm_patchtokens"])


def as_grid(tokens, n_prefix, rows, columns):
    return tokens[:, n_prefix:].mT.reshape(len(tokens), -1, rows, columns)


def check(module, layers, batch, expected, *, default=None, hooked=None, **options):
    """Compare the layers with what is expected of them, through copies, and by default."""
    in_shape = tuple(batch.shape[1:])
    maps = FeatureMaps(module, layers, in_shape=in_shape, **options)
    if hooked is not None:
        assert isinstance(maps.body, HookedLayers) == hooked
    with torch.no_grad():
        found = maps(batch)
        copied = pickle.loads(pickle.dumps(maps))(batch)
    assert maps.shapes(*in_shape[1:]) == [tuple(m.shape[1:]) for m in found]
    for one, other, value in zip(found, copied, expected, strict=True):
        torch.testing.assert_close(one, value, atol=1e-5, rtol=1e-5)
        assert torch.equal(one, other)
    assert not any(m._forward_hooks for m in [*maps.modules(), *module.modules()])
    if default is not None:
        assert FeatureMaps(module, None, in_shape=in_shape, **options).layers == default


@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("mobilenet_v3_small", (40, 56)),
        ("regnet_y_400mf", (40, 64)),
        ("resnet18", (33, 47)),
    ],
)
def test_convolutional_networks_of_torchvision(name, size):
    from torchvision import models

    module = random_weights(models.get_model(name, weights=None))
    batch = torch.rand(2, 3, *size)
    with torch.no_grad():
        if name == "resnet18":
            x = module.maxpool(module.relu(module.bn1(module.conv1(batch))))
            last, layer = module.layer2(module.layer1(x)), "layer2"
        elif name == "regnet_y_400mf":
            last, layer = module.trunk_output(module.stem(batch)), "trunk_output"
        else:
            last, layer = module.features(batch), "features"
    check(module, [layer], batch, [last], hooked=False)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["convnext_tiny", "efficientnet_b0"])
def test_larger_networks_of_torchvision(name):
    from torchvision import models

    module = random_weights(models.get_model(name, weights=None))
    batch = torch.rand(2, 3, 64, 96)
    with torch.no_grad():
        check(module, ["features"], batch, [module.features(batch)], hooked=False)


@pytest.mark.parametrize("size", [(32, 32), (16, 16), (40, 24)])
def test_vision_transformer_of_torchvision(size):
    from torchvision.models.vision_transformer import (
        VisionTransformer,
        interpolate_embeddings,
    )

    module = random_weights(VisionTransformer(32, 8, 4, 2, 16, 32))
    batch, rows, columns = torch.rand(2, 3, *size), size[0] // 8, size[1] // 8
    with torch.no_grad():
        embedding = module.encoder.pos_embedding
        if size[0] == size[1] != 32:  # as torchvision does it for squares
            state = interpolate_embeddings(size[0], 8, module.state_dict())
            embedding = state["encoder.pos_embedding"]
        elif size[0] != size[1]:
            grid = embedding[:, 1:].mT.unflatten(2, (4, 4))
            grid = functional.interpolate(
                grid, (rows, columns), mode="bicubic", align_corners=True
            )
            embedding = torch.cat([embedding[:, :1], grid.flatten(2).mT], dim=1)
        x = module.conv_proj(batch).flatten(2).mT
        x = torch.cat([module.class_token.expand(2, -1, -1), x], dim=1) + embedding
        states = []
        for layer in module.encoder.layers:
            x = layer(x)
            states.append(as_grid(x, 1, rows, columns))
    layers = tuple(f"encoder.layers.encoder_layer_{i}" for i in (1, 2))
    check(module, layers, batch, states[-3:-1], default=layers, hooked=False)


def test_a_size_that_patches_do_not_fit():
    from torchvision.models import VisionTransformer

    module = VisionTransformer(32, 8, 2, 2, 16, 32)
    with pytest.raises(
        ValueError, match=r"take images of 36 x 32 .*8 x 8 .*Set image_size"
    ):
        FeatureMaps(module, None, in_shape=(3, 36, 32))


def test_swin_of_torchvision():
    from torchvision.models import SwinTransformer

    module = random_weights(SwinTransformer([4, 4], 16, [2, 2], [2, 2], [4, 4]))
    batch = torch.rand(2, 3, 64, 96)
    with torch.no_grad():
        last = module.norm(module.features(batch)).permute(0, 3, 1, 2)
        first = module.features[:2](batch).permute(0, 3, 1, 2)
    check(module, ("features.1", "norm"), batch, [first, last], hooked=False)
    check(module, ("permute",), batch, [last], default=("permute",), strides=(8,))


@pytest.mark.parametrize(
    ("options", "size", "hooked"),
    [
        ({}, (32, 32), False),
        ({}, (48, 32), False),
        ({"reg_tokens": 3, "dynamic_img_size": True}, (32, 32), True),
        ({"reg_tokens": 3, "dynamic_img_size": True}, (40, 56), True),
        ({"reg_tokens": 2, "class_token": False, "global_pool": "avg"}, (32, 32), False),
    ],
)
def test_vision_transformer_of_timm(options, size, hooked):
    module, batch = timm_vit(**options), torch.rand(2, 3, *size)
    reference = copy.deepcopy(module)
    if size != (32, 32) and not hooked:
        reference.set_input_size(img_size=size)
    with torch.no_grad():
        states = reference.forward_intermediates(batch, intermediates_only=True)
        n_prefix = reference.num_prefix_tokens
        last = as_grid(
            reference.forward_features(batch), n_prefix, size[0] // 8, size[1] // 8
        )
    layers = ("blocks.1", "blocks.2")
    check(module, layers, batch, states[1:3], default=layers, hooked=hooked)
    check(module, ("norm",), batch, [last])
    last_block = FeatureMaps(module, None, in_shape=batch.shape[1:], strides=(32,))
    assert last_block.layers == ("blocks.3",)


def test_convolutional_networks_of_timm():
    batch = torch.rand(2, 3, 64, 96)
    small = {"depths": (1, 1, 1, 1), "dims": (8, 16, 24, 32)}
    module = timm_model("convnext_atto", **small)
    with torch.no_grad():
        states = module.forward_intermediates(batch, intermediates_only=True)
    layers = ("stages.1", "stages.2")
    check(module, layers, batch, states[-3:-1], default=layers, hooked=False)
    module = timm_model("tf_efficientnet_lite0")
    with torch.no_grad():
        expected = module.forward_features(batch)
    # Its padding depends on the size of the images.
    check(module, ("bn2",), batch, [expected], hooked=True)
    assert FeatureMaps(module, None, in_shape=(3, 64, 96)).layers == (
        "blocks.2",
        "blocks.4",
    )


@pytest.mark.parametrize("size", [(64, 64), (64, 128)])
def test_swin_of_timm(size):
    options = {"depths": (1, 1), "embed_dim": 16, "num_heads": (1, 2), "window_size": 4}
    module = timm_model("swin_tiny_patch4_window7_224", img_size=64, **options)
    reference = copy.deepcopy(module)
    batch = torch.rand(2, 3, *size)
    if size != (64, 64):
        reference.set_input_size(img_size=size, window_size=4)
    with torch.no_grad():
        last = reference.forward_features(batch).permute(0, 3, 1, 2)
        first = reference.layers[0](reference.patch_embed(batch)).permute(0, 3, 1, 2)
    check(module, ("layers.0", "norm"), batch, [first, last])


@pytest.mark.parametrize(
    ("name", "options", "n_prefix"),
    [
        ("ViT", {"intermediate_size": 32}, 1),
        ("Dinov2", {"mlp_ratio": 2}, 1),
        ("Dinov2WithRegisters", {"mlp_ratio": 2, "num_register_tokens": 3}, 4),
    ],
)
@pytest.mark.parametrize("size", [(32, 32), (40, 56)])
def test_transformers_of_hugging_face(name, options, n_prefix, size):
    module, batch = hugging_face(name, **options), torch.rand(2, 3, *size)
    more = {"interpolate_pos_encoding": True} if name == "ViT" and size[0] != 32 else {}
    with torch.no_grad():
        # It leaves hooks, which cannot be pickled.
        output = copy.deepcopy(module)(batch, output_hidden_states=True, **more)
    states = [as_grid(s, n_prefix, *(n // 8 for n in size)) for s in output.hidden_states]
    (container,) = (
        name
        for name, part in module.named_modules()
        if isinstance(part, nn.ModuleList) and len(part) == 4
    )
    layers = (f"{container}.1", f"{container}.2")
    check(module, layers, batch, states[2:4], default=layers, hooked=True)
    norm = next(n for n, _ in module.named_children() if n.startswith("layernorm"))
    last = as_grid(output.last_hidden_state, n_prefix, *(n // 8 for n in size))
    check(module, (norm,), batch, [last])


@pytest.mark.parametrize("size", [(32, 32), (20, 28)])
def test_dinov2_of_torch_hub(size):
    module, batch = random_weights(HubDino()), torch.rand(2, 3, *size)
    with torch.no_grad():
        tokens = module(batch, is_training=True)["x_norm_patchtokens"]
    expected = as_grid(tokens, 0, size[0] // 4, size[1] // 4)
    check(module, ("norm",), batch, [expected], hooked=True)
    found = FeatureMaps(module, None, in_shape=batch.shape[1:])
    assert found.layers == ("blocks.1", "blocks.2")
    assert found.shapes(*size) == [(8, size[0] // 4, size[1] // 4)] * 2


class OwnTransformer(nn.Module):
    """Tokens of which nothing is known: one for the class, and one for each patch."""

    def __init__(self, dim=6):
        super().__init__()
        self.embed, self.first = (
            nn.Conv2d(3, dim, 8, 8),
            nn.Parameter(torch.ones(1, 1, dim)),
        )
        self.blocks = nn.Sequential(Block(dim), Block(dim))

    def forward(self, x):
        x = self.embed(x).flatten(2).mT
        return self.blocks(torch.cat([self.first.expand(x.shape[0], -1, -1), x], dim=1))


def test_the_number_of_tokens_that_is_not_known():
    module, batch = random_weights(OwnTransformer()), torch.rand(2, 3, 24, 40)
    with torch.no_grad():
        expected = as_grid(module(batch), 1, 3, 5)
    check(module, ("blocks",), batch, [expected], n_prefix_tokens=1, hooked=False)
    maps = FeatureMaps(module, ("blocks",), in_shape=(3, 24, 40))
    with pytest.raises(LayerError, match=r"'blocks', which returns 16 tokens .*Set it to"):
        maps.shapes(24, 40)
    maps = FeatureMaps(module, ("blocks",), in_shape=(3, 24, 40), n_prefix_tokens=0)
    with pytest.raises(LayerError, match=r"form no map of an image of 24 x 40"):
        maps.shapes(24, 40)
    for other, layers in (
        (nn.Sequential(nn.Conv2d(3, 4, 3)), ("0",)),
        (module, ("embed",)),
    ):
        maps = FeatureMaps(other, layers, in_shape=(3, 24, 40), n_prefix_tokens=1)
        with pytest.raises(LayerError, match=r"n_prefix_tokens has no effect.*at None"):
            maps.shapes(24, 40)


def test_networks_within_a_module_of_the_user():
    class Wrapper(nn.Module):
        def __init__(self, inner):
            super().__init__()
            self.inner = inner

        def forward(self, x):
            return self.inner(x)

    module, batch = random_weights(Wrapper(HubDino())), torch.rand(2, 3, 32, 20)
    with torch.no_grad():
        tokens = module.inner(batch, is_training=True)["x_norm_patchtokens"]
    layers = ("inner.blocks.1", "inner.blocks.2")
    expected = as_grid(tokens, 0, 8, 5)
    maps = FeatureMaps(module, None, in_shape=(3, 32, 20))
    assert maps.layers == layers
    with torch.no_grad():
        found = FeatureMaps(module, ("inner.norm",), in_shape=(3, 32, 20))(batch)
    torch.testing.assert_close(found[0], expected)


def test_no_network_warns_when_it_is_built():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        FeatureMaps(timm_vit(dynamic_img_size=True), None, in_shape=(3, 40, 40))
