"""Pairs of encoder and decoder for samples of a shape, and their default sizes."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from torch import nn

from skocc._nets.lenet import LeNetDecoder, LeNetEncoder, lenet_latent_dim, lenet_widths
from skocc._nets.mlp import MLP
from skocc._nets.residual_encoder import RESIDUAL_WIDTHS, ResidualDecoder, ResidualEncoder
from skocc._nets.video_encoder import VideoDecoder, VideoEncoder

# Units of the hidden layers for rows, and of the last one.
ROW_WIDTHS, ROW_DIM = (128, 64), 32
_RESIDUAL_DIM, _VIDEO_DIM = 128, 1024


class Architecture(NamedTuple):
    """How the networks for samples of a shape are built.

    Attributes
    ----------
    encoder, decoder : callable
        Return a new module: from samples to embeddings, and from these to samples.
    """

    encoder: Callable[[], nn.Module]
    decoder: Callable[[], nn.Module]


def row_architecture(
    shape: tuple[int], widths: Sequence[int] | None, dim: int | None
) -> Architecture:
    """Return fully connected networks for rows.

    Parameters
    ----------
    shape : tuple (d,)
    widths : sequence of int or None
        Units of the hidden layers. None: (128, 64).
    dim : int or None
        Size of the embedding. None: 32.
    """
    sizes = (*shape, *(widths or ROW_WIDTHS), int(dim or ROW_DIM))
    return Architecture(lambda: MLP(sizes), lambda: MLP(sizes[::-1]))


def lenet_architecture(
    shape: tuple[int, int, int], widths: Sequence[int] | None, dim: int | None
) -> Architecture:
    """Return LeNets without biases for images.

    Parameters
    ----------
    shape : tuple (H, W, C)
    widths : sequence of int or None
        Channels of the stages. None: by the size of the images.
    dim : int or None
        Size of the embedding. None: by the number of stages.
    """
    height, width, n_channels = shape
    widths = tuple(widths or lenet_widths(height, width))
    arguments = (n_channels, height, width), int(dim or lenet_latent_dim(widths)), widths
    return Architecture(lambda: LeNetEncoder(*arguments), lambda: LeNetDecoder(*arguments))


def residual_architecture(
    shape: tuple[int, int, int],
    widths: Sequence[int] | None,
    dim: int | None,
    selectors: bool,
) -> Architecture:
    """Return networks of residual blocks for large images.

    Parameters
    ----------
    shape : tuple (H, W, C)
        At least 3 x 3 pixels.
    widths : sequence of int or None
        Channels of the first convolution and of three blocks.
    dim : int or None
        Size of the embedding. None: 128.
    selectors : bool
        Whether each layer has a selector.

    Raises
    ------
    ValueError
        There are not four widths, or the images are too small.
    """
    height, width, n_channels = shape
    widths = tuple(widths or RESIDUAL_WIDTHS)
    if len(widths) != 4:
        raise ValueError(
            "channels of the residual encoder are four: of the first convolution and of "
            f"three blocks. Got {widths!r}. Set for example channels={RESIDUAL_WIDTHS}."
        )
    if min(height, width) < 3:
        raise ValueError(
            "The residual encoder needs images or patches of at least 3 x 3 pixels. Got "
            f"{height} x {width}. Set architecture='lenet'."
        )
    in_shape, dim = (n_channels, height, width), int(dim or _RESIDUAL_DIM)
    return Architecture(
        lambda: ResidualEncoder(in_shape, dim, selectors, widths),
        lambda: ResidualDecoder(in_shape, dim, widths),
    )


def video_architecture(shape: tuple[int, int, int, int], dim: int | None) -> Architecture:
    """Return networks of three-dimensional convolutions for clips.

    Parameters
    ----------
    shape : tuple (T, H, W, C)
    dim : int or None
        Size of the embedding. None: 1024.
    """
    in_shape, dim = (shape[3], *shape[:3]), int(dim or _VIDEO_DIM)
    return Architecture(
        lambda: VideoEncoder(in_shape, dim), lambda: VideoDecoder(in_shape, dim)
    )
