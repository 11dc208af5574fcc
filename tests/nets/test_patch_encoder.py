import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional

from skocc._nets.patch_encoder import (
    HierarchicalPatchEncoder,
    PatchEncoder,
    PositionClassifier,
    WholePatchEncoder,
    load_encoder_weights,
)
from skocc._ops.losses import pairwise_distance_loss
from skocc._ops.maps import patch_scores_to_map
from skocc._samples.windows import window_starts


def n_parameters(module):
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.fixture(scope="module")
def encoder():
    torch.manual_seed(0)
    encoder = HierarchicalPatchEncoder()
    # At torch's start all embeddings are nearly the same; spread, errors would show.
    with torch.no_grad():
        for parameter in encoder.parameters():
            parameter.mul_(1.7)
    return encoder.requires_grad_(False)


def patch_by_patch(encoder, images, rows, columns):
    """Embed each window by itself."""
    side = encoder.patch_size
    z = [[encoder(images[:, :, i : i + side, j : j + side]) for j in columns] for i in rows]
    return torch.stack([torch.stack(row, dim=2) for row in z], dim=2)


def test_parameter_counts():
    assert n_parameters(PatchEncoder()) == 360_832
    assert n_parameters(HierarchicalPatchEncoder()) == 401_984
    assert n_parameters(PositionClassifier()) == 25_864


@pytest.mark.parametrize("embedding_dim", [64, 8])
def test_shapes_and_range(embedding_dim):
    for encoder in (PatchEncoder(embedding_dim), HierarchicalPatchEncoder(embedding_dim)):
        z = encoder(torch.randn(2, 3, encoder.patch_size, encoder.patch_size))
        assert z.shape == (2, embedding_dim)
        assert z.abs().max() < 1
    assert PositionClassifier(embedding_dim)(z, z).shape == (2, 8)


def test_encoder_of_whole_patches_is_that_of_the_published_code():
    encoder = WholePatchEncoder()
    shapes = [tuple(layer.weight.shape) for layer in encoder.children()]
    assert shapes == [(64, 3, 5, 5), (64, 64, 5, 5), (128, 64, 5, 5), (64, 128, 5, 5)]
    assert [layer.stride[0] for layer in encoder.children()] == [2, 2, 2, 1]
    for patch_size in (8, 16, 24, 40, 64, 128):
        patches = torch.rand(2, 3, patch_size, patch_size)
        z = WholePatchEncoder(5, patch_size)(patches)
        assert z.shape == (2, 5)
        assert z.abs().max() < 1
    # Windows anywhere have the embeddings of patches that are cut out.
    encoder, images = WholePatchEncoder(5, 16), torch.rand(2, 3, 40, 33)
    rows, columns = [0, 3, 4, 8, 21, 24], [17, 0, 5, 4]
    z = encoder.windows(images, rows, columns)
    for i, row in enumerate(rows):
        for j, column in enumerate(columns):
            patch = images[:, :, row : row + 16, column : column + 16]
            torch.testing.assert_close(z[:, :, i, j], encoder(patch))


def test_quadrants_are_arranged_as_in_the_patch():
    class Mean(nn.Module):
        patch_size = 32

        def forward(self, patches):
            return patches.mean(dim=(1, 2, 3))[:, None].expand(-1, 64)

    encoder = HierarchicalPatchEncoder()
    encoder.enc = Mean()
    arranged = []
    encoder.conv1.register_forward_pre_hook(lambda _, inputs: arranged.append(inputs[0]))
    quadrants = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    patch = torch.kron(quadrants, torch.ones(32, 32)).expand(1, 3, 64, 64)
    encoder(torch.cat([patch, 10 * patch]))
    assert torch.equal(arranged[0][0, 5], quadrants)
    assert torch.equal(arranged[0][1, 5], 10 * quadrants)


@pytest.mark.parametrize(
    ("size", "patch_size", "stride", "starts"),
    [
        (64, 64, 16, [0]),
        (96, 64, 16, [0, 16, 32]),
        (97, 64, 16, [0, 16, 32, 33]),
        (64, 32, 32, [0, 32]),
    ],
)
def test_windows_reach_the_border(size, patch_size, stride, starts):
    assert window_starts(size, patch_size, stride) == starts


@pytest.mark.parametrize(
    ("size", "stride", "message"),
    [
        (63, 16, "64 pixels do not fit .* side of 63 pixels. Use larger images"),
        (99, 65, "left out. Got stride=65 .* Set for example stride=16"),
        (99, 0, "between 1 and .* Got stride=0"),
    ],
)
def test_impossible_windows(size, stride, message):
    with pytest.raises(ValueError, match=message):
        window_starts(size, 64, stride)


@pytest.mark.parametrize(
    ("image_size", "stride_small", "stride_big"),
    [
        ((64, 64), 4, 16),  # one window of 64 pixels
        ((96, 80), 16, 16),
        ((97, 84), 12, 10),  # windows flush with the border on odd and on even pixels
        ((71, 66), 9, 3),  # odd strides
    ],
)
def test_dense_is_patch_by_patch(encoder, image_size, stride_small, stride_big):
    images = torch.randn(2, 3, *image_size, generator=torch.Generator().manual_seed(0))
    both = encoder.dense_scales(images, stride_small, stride_big)
    for net, stride, z in zip(
        (encoder.enc, encoder), (stride_small, stride_big), both, strict=True
    ):
        rows, columns = (window_starts(n, net.patch_size, stride) for n in image_size)
        expected = patch_by_patch(net, images, rows, columns)
        assert expected.std(dim=(0, 2, 3)).max() > 0.01
        torch.testing.assert_close(net.dense(images, stride), expected, rtol=0, atol=1e-5)
        torch.testing.assert_close(z, expected, rtol=0, atol=1e-5)


def test_dense_names_an_image_without_a_window(encoder):
    with pytest.raises(ValueError, match="64 pixels do not fit"):
        encoder.dense_scales(torch.zeros(1, 3, 64, 63), 4, 16)


def test_position_classifier_learns_what_it_should():
    z = torch.randn(5, 64, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(5)
    for train_head in (False, True):
        torch.manual_seed(0)
        classifier = PositionClassifier(train_head=train_head)
        functional.cross_entropy(classifier(z, z.flip(0)), labels).backward()
        learns = {
            name: parameter.grad is not None
            for name, parameter in classifier.named_parameters()
        }
        assert learns.pop("fc3.weight") == train_head
        assert all(learns.values())
        # The scale of the last weights counts in the plain perceptron only.
        logits = classifier(z, z.flip(0))
        classifier.fc3.weight.data *= 2
        assert torch.allclose(classifier(z, z.flip(0)), logits) != train_head


@pytest.mark.parametrize("form", ["tensors", "arrays", ".pt", ".safetensors"])
def test_load_encoder_weights(encoder, tmp_path, form):
    weights = dict(encoder.state_dict())
    assert list(weights)[:2] == ["enc.conv1.weight", "enc.conv1.bias"]
    assert list(weights)[-2:] == ["conv2.weight", "conv2.bias"]
    assert len(weights) == 20
    if form == "arrays":
        weights = {key: value.numpy() for key, value in weights.items()}
    elif form != "tensors":
        path = tmp_path / f"encoder{form}"
        torch.save(weights, path) if form == ".pt" else save_file(weights, path)
        weights = path
    loaded = load_encoder_weights(HierarchicalPatchEncoder(), weights)
    patches = torch.rand(1, 3, 64, 64)
    assert torch.equal(loaded(patches), encoder(patches))


def test_load_encoder_weights_is_strict(encoder, tmp_path):
    weights = dict(encoder.state_dict())
    del weights["conv2.bias"]
    message = r"(?s)not a state dict of a Hier.*Missing.*conv2.bias.*Pass encoder.state_d"
    with pytest.raises(ValueError, match=message):
        load_encoder_weights(HierarchicalPatchEncoder(), weights)
    with pytest.raises(ValueError, match="size mismatch"):
        load_encoder_weights(HierarchicalPatchEncoder(8), encoder.state_dict())
    with pytest.raises(ValueError, match=r"is not a file\. Pass"):
        load_encoder_weights(HierarchicalPatchEncoder(), tmp_path / "missing.pt")


def load_arrays(path):
    with np.load(path) as arrays:
        return {key: arrays[key] for key in arrays}


@pytest.fixture(params=["bottle", "wood"])
def published(request, data_dir):
    """The published encoder of a category, and what the original computed with it."""
    weights = load_arrays(data_dir / f"patch_svdd_{request.param}.npz")
    arrays = load_arrays(data_dir / "golden" / f"patch_svdd_{request.param}_io.npz")
    encoder = load_encoder_weights(HierarchicalPatchEncoder(), weights)
    return encoder.requires_grad_(False), arrays


def standardized(images, mean):
    images = (images.astype(np.float32) - mean) / 255
    return torch.from_numpy(images).permute(0, 3, 1, 2)


def close(actual, expected):
    np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-4)


@pytest.mark.data
def test_golden_embeddings(published):
    encoder, arrays = published
    z64 = encoder(standardized(arrays["patch64"], np.float32(127.5)))
    close(z64, arrays["out64"][:, :, 0, 0])
    patches = standardized(arrays["patch32"], np.float32(127.5))
    close(encoder.enc(patches), arrays["out32"][:, :, 0, 0])
    close(pairwise_distance_loss(z64[:2], z64[2:]), arrays["svdd_loss64"])
    images = standardized(arrays["images"], arrays["image_mean"])
    z32, z64 = encoder.dense_scales(images, 4, 16)
    close(z32.movedim(1, 3), arrays["emb32"])
    close(z64.movedim(1, 3), arrays["emb64"])


@pytest.mark.data
def test_golden_maps(published):
    encoder, arrays = published
    images = standardized(arrays["images"], arrays["image_mean"])
    maps = {}
    for name, z, patch_size, stride in zip(
        ("map32", "map64"), encoder.dense_scales(images, 4, 16), (32, 64), (4, 16),
        strict=True,
    ):  # fmt: skip
        z = z.movedim(1, 3).double().numpy()
        bank = z[:2].reshape(-1, 64)
        distances = np.linalg.norm(z[2].reshape(-1, 1, 64) - bank, axis=2).min(axis=1)
        starts = window_starts(96, patch_size, stride)
        scores = distances.reshape(1, len(starts), len(starts))
        maps[name] = patch_scores_to_map(scores, starts, starts, patch_size, (96, 96))
        close(maps[name], arrays[name])
    close(maps["map32"] * maps["map64"], arrays["map_mult"])
    close(maps["map32"] + maps["map64"], arrays["map_sum"])
    close((maps["map32"] * maps["map64"]).max(axis=(1, 2)), arrays["score_mult"])


@pytest.mark.data
def test_golden_position_classifier(data_dir):
    arrays = load_arrays(data_dir / "golden" / "patch_svdd_position_classifier_io.npz")
    classifier = PositionClassifier()
    classifier.load_state_dict(
        {
            key.removeprefix("w/"): torch.from_numpy(value)
            for key, value in arrays.items()
            if key.startswith("w/")
        }
    )
    z, z_neighbor = (torch.from_numpy(arrays[key]).flatten(1) for key in ("h1", "h2"))
    close(classifier(z, z_neighbor).detach(), arrays["logits"])
