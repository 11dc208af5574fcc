"""The causal network of MOCCA for video clips, and its decoder."""

from collections.abc import Iterable, Iterator
from itertools import islice, pairwise

import torch
from torch import nn
from torch.nn import functional

_WIDTHS = (8, 16, 32, 64, 64)
# Stride of each block in (T, H, W).
_STRIDES = ((1, 2, 2), (1, 2, 2), (2, 2, 2), (1, 2, 2), (2, 2, 2))
_HIDDEN_DIM = 512


def video_sizes(size: tuple[int, int, int]) -> list[tuple[int, int, int]]:
    """Return the (T, H, W) of a clip and of the output of each block.

    Parameters
    ----------
    size : tuple (T, H, W)
        Any number of frames and pixels of a clip. Halving rounds up.
    """
    frames, height, width = size
    sizes = [(frames, height, width)]
    for t, h, w in _STRIDES:
        frames, height, width = -(-frames // t), -(-height // h), -(-width // w)
        sizes.append((frames, height, width))
    return sizes


class CausalConvolution(nn.Conv3d):
    """A 3x3x3 convolution without bias whose output does not depend on future frames.

    Parameters
    ----------
    in_channels, out_channels : int
    stride : tuple (t, h, w), default=(1, 1, 1)

    Notes
    -----
    The published layer is centered in time and multiplies the weights of the next frame by
    zero. This layer uses only the other two thirds of the weights, on a clip with an empty
    frame before it, which gives the same output with two thirds of the multiplications. The
    parameter keeps its published shape, and therefore its count and its initial
    distribution.
    """

    def __init__(
        self, in_channels: int, out_channels: int, stride: tuple[int, int, int] = (1, 1, 1)
    ):
        super().__init__(in_channels, out_channels, 3, stride=stride, bias=False)

    def forward(self, clips: torch.Tensor) -> torch.Tensor:
        """Map (b, C_in, T, H, W) to (b, C_out, T', H', W')."""
        clips = functional.pad(clips, (0, 0, 0, 0, 1, 0))
        weight = self.weight[:, :, :2]
        return functional.conv3d(clips, weight, stride=self.stride, padding=(0, 1, 1))


class CausalDownBlock(nn.Module):
    """Residual block of two causal convolutions, the first of which has a stride.

    Parameters
    ----------
    in_channels, out_channels : int
    stride : tuple (t, h, w)
    """

    def __init__(self, in_channels: int, out_channels: int, stride: tuple[int, int, int]):
        super().__init__()
        self.path = nn.Sequential(
            CausalConvolution(in_channels, out_channels, stride),
            nn.BatchNorm3d(out_channels),
            nn.LeakyReLU(),
            CausalConvolution(out_channels, out_channels),
            nn.BatchNorm3d(out_channels),
        )
        self.skip = nn.Sequential(
            nn.Conv3d(in_channels, out_channels, 1, stride=stride, bias=False),
            nn.BatchNorm3d(out_channels),
        )

    def forward(self, clips: torch.Tensor) -> torch.Tensor:
        """Map (b, C_in, T, H, W) to (b, C_out, T', H', W')."""
        # In this layout, 3-D convolutions take half of the time on a CPU. Clips arrive in
        # this layout, but maps of a single pixel or channel lose it.
        clips = clips.contiguous(memory_format=torch.channels_last_3d)
        return functional.leaky_relu(self.path(clips) + self.skip(clips))


class VideoEncoder(nn.Module):
    """Encoder of causal blocks, with a code for each time step and an LSTM for each layer.

    Layers 0 to 4 are the outputs of the blocks, averaged over space. Layer 5 is the hidden
    layer of the code, and layer 6 is the code. Each layer is a sequence in time. Its
    feature is the last output of a separate LSTM.

    Parameters
    ----------
    in_shape : tuple (C, T, H, W)
        Shape of a clip. Time is halved twice, height and width five times.
    latent_dim : int
        Size of the code of a time step.
    feature_dim : int, default=100
        Size of a feature.

    Attributes
    ----------
    n_layers : int
        Number of layers, seven.
    """

    def __init__(
        self,
        in_shape: tuple[int, int, int, int],
        latent_dim: int,
        feature_dim: int = 100,
    ):
        super().__init__()
        channels = in_shape[0]
        _, height, width = video_sizes(in_shape[1:])[-1]
        self.blocks = nn.ModuleList(
            CausalDownBlock(a, b, stride)
            for (a, b), stride in zip(pairwise((channels, *_WIDTHS)), _STRIDES, strict=True)
        )
        self.hidden = nn.Sequential(
            nn.Linear(_WIDTHS[-1] * height * width, _HIDDEN_DIM), nn.Tanh()
        )
        self.code = nn.Sequential(nn.Linear(_HIDDEN_DIM, latent_dim), nn.Sigmoid())
        self.lstms = nn.ModuleList(
            nn.LSTM(width, feature_dim, batch_first=True)
            for width in (*_WIDTHS, _HIDDEN_DIM, latent_dim)
        )
        self.n_layers = len(self.lstms)

    def forward(self, clips: torch.Tensor) -> torch.Tensor:
        """Map clips (b, C, T, H, W) to codes (b, T', latent_dim) in (0, 1)."""
        *_, codes = self._sequences(clips)
        return codes

    def layer_features(
        self, clips: torch.Tensor, layers: Iterable[int]
    ) -> list[torch.Tensor]:
        """Return the features of some layers.

        Parameters
        ----------
        clips : Tensor of shape (b, C, T, H, W)
        layers : iterable of int
            Layers in ascending order. Layers after the last one are not computed.

        Returns
        -------
        features : list of Tensor of shape (b, feature_dim)
        """
        layers = list(layers)
        sequences = list(islice(self._sequences(clips), layers[-1] + 1))
        return [self._feature(sequences[j], j) for j in layers]

    def codes_and_features(
        self, clips: torch.Tensor, layers: Iterable[int]
    ) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """Return the results of `forward` and `layer_features`, in one pass."""
        sequences = list(self._sequences(clips))
        return sequences[-1], [self._feature(sequences[j], j) for j in layers]

    def _sequences(self, clips) -> Iterator[torch.Tensor]:
        """Yield the sequence (b, T', d) of each layer in turn."""
        for block in self.blocks:
            clips = block(clips)
            yield clips.mean(dim=(3, 4)).transpose(1, 2)
        hidden = self.hidden(clips.transpose(1, 2).flatten(2))
        yield hidden
        yield self.code(hidden)

    def _feature(self, sequence, layer):
        outputs, _ = self.lstms[layer](sequence)
        return outputs[:, -1]


class VideoUpBlock(nn.Module):
    """Residual block that enlarges its input by transposed 5x5x5 convolutions.

    Parameters
    ----------
    in_channels, out_channels : int
    stride : tuple (t, h, w)
        Factor by which each axis is enlarged.
    out_size : tuple (T, H, W)
        Size of the output. An odd size is one less than twice the input.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        stride: tuple[int, int, int],
        out_size: tuple[int, int, int],
    ):
        super().__init__()
        beyond = tuple(s - 1 - (-n % s) for n, s in zip(out_size, stride, strict=True))

        def enlarge():
            return nn.Sequential(
                nn.ConvTranspose3d(
                    in_channels,
                    out_channels,
                    5,
                    stride=stride,
                    padding=2,
                    output_padding=beyond,
                    bias=False,
                ),
                nn.BatchNorm3d(out_channels),
            )

        self.path = nn.Sequential(
            *enlarge(),
            nn.LeakyReLU(),
            nn.Conv3d(out_channels, out_channels, 3, padding=1, bias=False),
            nn.BatchNorm3d(out_channels),
        )
        self.skip = enlarge()

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        """Map (b, C_in, T, H, W) to (b, C_out, *out_size)."""
        maps = maps.contiguous(memory_format=torch.channels_last_3d)
        return functional.leaky_relu(self.path(maps) + self.skip(maps))


class VideoDecoder(nn.Module):
    """Mirror of :class:`VideoEncoder`, which maps the codes back to the clip.

    It is not causal, and its output has no activation.

    Parameters
    ----------
    in_shape, latent_dim
        As in :class:`VideoEncoder`.
    """

    def __init__(self, in_shape: tuple[int, int, int, int], latent_dim: int):
        super().__init__()
        channels = in_shape[0]
        *sizes, (_, *self.grid) = video_sizes(in_shape[1:])
        self.head = nn.Sequential(
            nn.Linear(latent_dim, _HIDDEN_DIM),
            nn.Tanh(),
            nn.Linear(_HIDDEN_DIM, _WIDTHS[-1] * self.grid[0] * self.grid[1]),
            nn.LeakyReLU(),
        )
        widths = (*_WIDTHS[::-1], _WIDTHS[0])
        self.blocks = nn.Sequential(
            *(
                VideoUpBlock(a, b, stride, out_size)
                for (a, b), stride, out_size in zip(
                    pairwise(widths), _STRIDES[::-1], sizes[::-1], strict=True
                )
            )
        )
        self.pixels = nn.Conv3d(widths[-1], channels, 1)

    def forward(self, codes: torch.Tensor) -> torch.Tensor:
        """Map codes (b, T', latent_dim) to clips (b, C, T, H, W)."""
        maps = self.head(codes).unflatten(2, (-1, *self.grid)).transpose(1, 2)
        return self.pixels(self.blocks(maps))
