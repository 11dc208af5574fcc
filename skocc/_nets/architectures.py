"""Pairs of an encoder and a decoder for a sample shape, and their default sizes."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from torch import nn

from skocc._nets.lenet import LeNetDecoder, LeNetEncoder, lenet_latent_dim, lenet_widths
from skocc._nets.mlp import MLP
from skocc._nets.residual_encoder import RESIDUAL_WIDTHS, ResidualDecoder, ResidualEncoder
from skocc._nets.video_encoder import VideoDecoder, VideoEncoder

# Number of units of the hidden layers and of the last layer for rows.
ROW_WIDTHS, ROW_DIM = (128, 64), 32
_RESIDUAL_DIM, _VIDEO_DIM = 128, 1024


class Architecture(NamedTuple):
    """Builders of the networks for a sample shape.

    Attributes
    ----------
    encoder, decoder : callable
        Functions that return a new module. The encoder maps samples to embeddings, and the
        decoder maps embeddings to samples.
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
        Number of units of the hidden layers. None means (128, 64).
    dim : int or None
        Size of the embedding. None means 32.
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
        Channels of the stages. None chooses them by the size of the images.
    dim : int or None
        Size of the embedding. None chooses it by the number of stages.
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
        Shape of one image, of at least 3 x 3 pixels.
    widths : sequence of int or None
        Channels of the first convolution and of the three blocks.
    dim : int or None
        Size of the embedding. None means 128.
    selectors : bool
        Whether each layer has a selector.

    Raises
    ------
    ValueError
        `widths` does not have four entries, or the images are too small.
    """
    height, width, n_channels = shape
    widths = tuple(widths or RESIDUAL_WIDTHS)
    if len(widths) != 4:
        raise ValueError(
            "channels of the residual encoder are four: those of the first convolution and "
            f"of three blocks. Got {widths!r}. Set for example channels={RESIDUAL_WIDTHS}."
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
        Size of the embedding. None means 1024.
    """
    in_shape, dim = (shape[3], *shape[:3]), int(dim or _VIDEO_DIM)
    return Architecture(
        lambda: VideoEncoder(in_shape, dim), lambda: VideoDecoder(in_shape, dim)
    )
