import pytest
import torch
from torch.nn import functional

from skocc._nets.video_encoder import (
    CausalConvolution,
    CausalDownBlock,
    VideoDecoder,
    VideoEncoder,
    video_sizes,
)

PUBLISHED = (3, 16, 256, 512)


def n_parameters(module):
    return sum(parameter.numel() for parameter in module.parameters())


def test_published_sizes_and_parameter_counts():
    encoder = VideoEncoder(PUBLISHED, latent_dim=1024)
    decoder = VideoDecoder(PUBLISHED, latent_dim=1024)
    assert [n_parameters(block) for block in encoder.blocks] == [
        2_448, 10_592, 42_176, 168_320, 225_664,
    ]  # fmt: skip
    assert [n_parameters(lstm) for lstm in encoder.lstms] == [
        44_000, 47_200, 53_600, 66_400, 66_400, 245_600, 450_400,
    ]  # fmt: skip
    assert n_parameters(encoder.hidden) == 8192 * 512 + 512
    assert n_parameters(encoder.code) == 512 * 1024 + 1024
    assert n_parameters(decoder.head) == 1024 * 512 + 512 + 512 * 8192 + 8192
    assert n_parameters(decoder.pixels) == 8 * 3 + 3
    assert video_sizes(PUBLISHED[1:]) == [
        (16, 256, 512), (16, 128, 256), (16, 64, 128), (8, 32, 64), (8, 16, 32), (4, 8, 16),
    ]  # fmt: skip


def test_maps_have_the_sizes_they_are_said_to_have():
    encoder, decoder = VideoEncoder((1, 8, 70, 33), 6), VideoDecoder((1, 8, 70, 33), 6)
    sizes = video_sizes((8, 70, 33))
    maps = torch.rand(2, 1, 8, 70, 33)
    for block, width, size in zip(
        encoder.blocks, (8, 16, 32, 64, 64), sizes[1:], strict=True
    ):
        maps = block(maps)
        assert maps.shape == (2, width, *size)
    for block, width, size in zip(
        decoder.blocks, (64, 32, 16, 8, 8), sizes[-2::-1], strict=True
    ):
        maps = block(maps)
        assert maps.shape == (2, width, *size)


@pytest.mark.parametrize("stride", [(1, 1, 1), (1, 2, 2), (2, 2, 2)])
def test_causal_convolution_is_the_masked_one(stride):
    torch.manual_seed(0)
    convolution = CausalConvolution(2, 4, stride)
    clips = torch.randn(3, 2, 7, 9, 8)
    mask = torch.ones(4, 2, 3, 3, 3)
    mask[:, :, 2] = 0
    expected = functional.conv3d(clips, convolution.weight * mask, stride=stride, padding=1)
    torch.testing.assert_close(convolution(clips), expected)


@pytest.mark.parametrize(("stride", "changed"), [(1, {5, 6, 7}), (2, {3})])
def test_blocks_are_causal(stride, changed):
    """Check 4: frames 5 to 7 of 8 are others, and earlier outputs stay as they are."""
    torch.manual_seed(0)
    block = CausalDownBlock(3, 4, (stride, 2, 2)).eval()
    clips = torch.randn(2, 3, 8, 12, 10)
    others = clips.clone()
    others[:, :, 5:] = torch.randn(2, 3, 3, 12, 10)
    difference = (block(clips) - block(others)).abs().amax(dim=(0, 1, 3, 4))
    assert len(difference) == 8 // stride
    assert {index for index, d in enumerate(difference.tolist()) if d > 0} == changed


@pytest.mark.parametrize(
    "in_shape", [(1, 8, 32, 32), (3, 5, 17, 40), (2, 2, 1, 3), (1, 16, 64, 33)]
)
def test_clips_of_any_size(in_shape):
    torch.manual_seed(0)
    encoder, decoder = VideoEncoder(in_shape, 6), VideoDecoder(in_shape, 6)
    clips = torch.rand(2, *in_shape)
    codes, features = encoder.codes_and_features(clips, range(encoder.n_layers))
    assert codes.shape == (2, video_sizes(in_shape[1:])[-1][0], 6)
    assert [feature.shape for feature in features] == [(2, 100)] * 7
    assert decoder(codes).shape == clips.shape


def test_layers_on_their_own_and_batches_of_one():
    torch.manual_seed(0)
    encoder = VideoEncoder((1, 4, 8, 8), 6, feature_dim=5).double().eval()
    decoder = VideoDecoder((1, 4, 8, 8), 6).double().eval()
    clips = torch.rand(3, 1, 4, 8, 8, dtype=torch.float64)
    codes, features = encoder.codes_and_features(clips, (1, 3, 6))
    torch.testing.assert_close(encoder(clips), codes)
    for layers in [(1,), (1, 3), (3, 6)]:
        own = encoder.layer_features(clips, layers)
        expected = [features[(1, 3, 6).index(layer)] for layer in layers]
        torch.testing.assert_close(own, expected)
    alone = encoder.layer_features(clips[1:2], (1, 3, 6))
    torch.testing.assert_close(alone, [feature[1:2] for feature in features])
    torch.testing.assert_close(decoder(codes[1:2]), decoder(codes)[1:2])
    assert features[0].shape == (3, 5)


def test_what_is_above_the_last_layer_is_not_computed(monkeypatch):
    encoder = VideoEncoder((1, 4, 8, 8), 6).eval()
    monkeypatch.setattr(encoder.blocks[2], "forward", None)
    encoder.layer_features(torch.rand(2, 1, 4, 8, 8), (0, 1))


def test_features_depend_on_the_order_of_frames():
    torch.manual_seed(0)
    encoder = VideoEncoder((1, 8, 16, 16), 6).eval()
    clips = torch.rand(2, 1, 8, 16, 16)
    for there, back in zip(
        encoder.layer_features(clips, range(7)),
        encoder.layer_features(clips.flip(2), range(7)),
        strict=True,
    ):
        assert not torch.allclose(there, back, rtol=1e-4, atol=1e-5)
