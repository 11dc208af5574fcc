"""The networks of Patch SVDD: patch encoders at two scales, and a position classifier.

An encoder maps patches to embeddings. ``dense`` computes the embeddings of all windows of
an image in few fully convolutional passes, instead of one pass per window.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise, product
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from skocc._nets.weights import load_weights

# Slope of the leaky ReLU below zero.
_SLOPE = 0.1
# Numbers of the patches that are embedded at once, 64 MiB in float32.
_BLOCK_NUMBERS = 2**24
N_POSITIONS = 8


def _initialize(module, weight_init):
    """Draw the weights of convolutions from He's distribution and zero their biases.

    The published encoder uses torch's default initialization, ``weight_init="torch"``,
    with which the eight layers map all patches to nearly the same embedding.
    """
    if weight_init == "torch":
        return
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, a=_SLOPE)
            nn.init.zeros_(layer.bias)


class PatchEncoder(nn.Module):
    """Encoder of small patches: 3x3 convolutions without padding, and a final tanh.

    The published encoder is for patches of 32 pixels. It has eight convolutions, the first
    of stride 2, and leaky ReLUs with a slope of 0.1 between them. Without padding, an
    embedding depends only on the pixels of its window.

    Parameters
    ----------
    embedding_dim : int, default=64
        Size D of an embedding.
    patch_size : int, default=32
        Side of a patch in pixels, a multiple of 4 and at most 32. The number of
        convolutions is a quarter of the patch size; smaller patches omit the widest
        convolutions in the middle.
    in_channels : int, default=3
        Number of channels C of the images.
    weight_init : {"he", "torch"}, default="he"
        Distribution of the weights at the start: He's, or torch's default.
    """

    def __init__(
        self,
        embedding_dim: int = 64,
        patch_size: int = 32,
        in_channels: int = 3,
        weight_init: str = "he",
    ):
        super().__init__()
        self.patch_size = patch_size
        hidden: tuple[int, ...] = (32, 64, 128, 128, 64, 32, 32)
        n_hidden = patch_size // 4 - 1
        first, last = -(-n_hidden // 2), n_hidden // 2
        hidden = (*hidden[:first], *hidden[len(hidden) - last :])
        widths = (in_channels, *hidden, embedding_dim)
        # conv1 to conv8, the names of the published checkpoints.
        for index, (a, b) in enumerate(pairwise(widths)):
            stride = 2 if index == 0 else 1
            self.add_module(f"conv{index + 1}", nn.Conv2d(a, b, 3, stride=stride))
        _initialize(self, weight_init)

    def forward(self, patches: torch.Tensor) -> torch.Tensor:
        """Map patches (b, C, patch_size, patch_size) to embeddings (b, D) in (-1, 1)."""
        return self.base_map(patches).flatten(1)

    def base_map(self, images: torch.Tensor) -> torch.Tensor:
        """Compute the embeddings of all windows that start on even pixels, in one pass.

        Parameters
        ----------
        images : Tensor of shape (b, C, H, W)

        Returns
        -------
        z : Tensor of shape (b, D, rows, columns)
            ``z[:, :, i, j]`` is the embedding of the window whose top left pixel is
            (2 i, 2 j).
        """
        *convolutions, last = self.children()
        for convolution in convolutions:
            # In place, because the maps of whole images are large.
            images = functional.leaky_relu_(convolution(images), _SLOPE)
        return torch.tanh(last(images))

    def pick(
        self, base: torch.Tensor, b: torch.Tensor, i: torch.Tensor, j: torch.Tensor
    ) -> torch.Tensor:
        """Return the embeddings (n, D) of single windows of a base map.

        Parameters
        ----------
        base : Tensor of shape (images, D, rows, columns)
            Result of `base_map`.
        b, i, j : Tensor of shape (n,), int64
            Image, row and column in `base`; the window starts at (2 i, 2 j).
        """
        return base[b, :, i, j]

    def map_size(self, base: torch.Tensor) -> tuple[int, int]:
        """Return the number of rows and columns of windows in a base map, for `pick`."""
        return base.shape[2], base.shape[3]

    def dense(self, images: torch.Tensor, stride: int) -> torch.Tensor:
        """Compute the embeddings of all windows of the images.

        Parameters
        ----------
        images : Tensor of shape (b, C, H, W)
        stride : int
            Distance between windows in pixels. An odd stride takes four passes. An even
            stride takes one pass, and up to three over the last 32 rows or columns, where
            windows aligned with the border start on odd pixels.

        Returns
        -------
        z : Tensor of shape (b, D, rows, columns)
            Embeddings of windows every `stride` pixels, and of those aligned with the end.
        """
        return self.windows(images, *_grid(images, self.patch_size, stride))

    def windows(
        self, images: torch.Tensor, row_starts: Sequence[int], column_starts: Sequence[int]
    ) -> torch.Tensor:
        """Compute the embeddings of the windows on a grid.

        Parameters
        ----------
        images : Tensor of shape (b, C, H, W)
        row_starts, column_starts : sequence of int
            First pixel rows and columns of the windows, in any order.

        Returns
        -------
        z : Tensor of shape (b, D, rows, columns)
        """
        # Because of the first stride of 2, one pass covers windows whose starts have the
        # same parity.
        bands = []
        for rows in _split_by_parity(row_starts):
            band = []
            for columns in _split_by_parity(column_starts):
                z = self.base_map(
                    images[
                        :,
                        :,
                        rows[0] : rows[-1] + self.patch_size,
                        columns[0] : columns[-1] + self.patch_size,
                    ]
                )
                z = z[:, :, [(row - rows[0]) // 2 for row in rows]]
                band.append(z[..., [(column - columns[0]) // 2 for column in columns]])
            bands.append(torch.cat(band, dim=3))
        z = torch.cat(bands, dim=2)
        return z[:, :, _order_after_split(row_starts)][
            ..., _order_after_split(column_starts)
        ]


class HierarchicalPatchEncoder(nn.Module):
    """Encoder of large patches, which combines the embeddings of their four quadrants.

    ``f_big(p) = g_big(f_small(p))`` (Yi and Yoon 2020, Eq. 7). The embeddings of the
    quadrants are arranged 2x2 as in the patch. A 2x2 convolution to 128 channels, a leaky
    ReLU with a slope of 0.1, a 1x1 convolution and tanh follow.

    Parameters
    ----------
    embedding_dim : int, default=64
        Size D of an embedding, at both scales.
    patch_size : int, default=64
        Side of a patch in pixels: a multiple of 8 up to 64, as published; or 128, 256 and
        so on, for which encoders are nested.
    in_channels : int, default=3
        Number of channels C of the images.
    small : OwnPatchEncoder, default=None
        Encoder of the quadrants. None: a PatchEncoder, or one like this for patches of
        more than 64 pixels.
    weight_init : {"he", "torch"}, default="he"
        Distribution of the weights at the start, see PatchEncoder.

    Attributes
    ----------
    enc : PatchEncoder, HierarchicalPatchEncoder or OwnPatchEncoder
        The encoder of the quadrants.
    """

    def __init__(
        self,
        embedding_dim: int = 64,
        patch_size: int = 64,
        in_channels: int = 3,
        small: nn.Module | None = None,
        weight_init: str = "he",
    ):
        super().__init__()
        self.patch_size = patch_size
        if small is None:
            small = patch_encoder(embedding_dim, patch_size // 2, in_channels, weight_init)
        # Names of the published checkpoints.
        self.enc: Any = small
        # The published stride is 1. For a 2x2 input there is no difference; on a map of
        # arranged quadrants, stride 2 computes every patch once.
        self.conv1 = nn.Conv2d(embedding_dim, 128, 2, stride=2)
        self.conv2 = nn.Conv2d(128, embedding_dim, 1)
        for convolution in (self.conv1, self.conv2):
            _initialize(convolution, weight_init)

    @property
    def embedding_dim(self) -> int:
        """Size of an embedding."""
        return self.conv2.out_channels

    def forward(self, patches: torch.Tensor) -> torch.Tensor:
        """Map patches (b, C, patch_size, patch_size) to embeddings (b, D) in (-1, 1)."""
        side = self.enc.patch_size
        # Top left, top right, bottom left, bottom right.
        corners = product((0, side), repeat=2)
        quadrants = [patches[:, :, i : i + side, j : j + side] for i, j in corners]
        return self._join(self.enc(torch.cat(quadrants)).chunk(4))

    def base_map(self, images: torch.Tensor) -> torch.Tensor:
        """Return the base map of the innermost encoder, see :class:`PatchEncoder`."""
        return self.enc.base_map(images)

    def pick(
        self, base: torch.Tensor, b: torch.Tensor, i: torch.Tensor, j: torch.Tensor
    ) -> torch.Tensor:
        """Return the embeddings (n, D) of single windows, see :class:`PatchEncoder`."""
        half = self.enc.patch_size // 2
        corners = product((0, half), repeat=2)
        return self._join([self.enc.pick(base, b, i + di, j + dj) for di, dj in corners])

    def map_size(self, base: torch.Tensor) -> tuple[int, int]:
        """Return the number of rows and columns, see :class:`PatchEncoder`."""
        rows, columns = self.enc.map_size(base)
        half = self.enc.patch_size // 2
        return rows - half, columns - half

    def _join(self, quadrants):
        """Map the embeddings (b, D) of four quadrants to those of the patches (b, D)."""
        z = torch.stack(tuple(quadrants), dim=2)
        return self._head(z.unflatten(2, (2, 2))).flatten(1)

    def _head(self, z):
        """Map arranged quadrants (b, D, 2 rows, 2 columns) to (b, D, rows, columns)."""
        return torch.tanh(self.conv2(functional.leaky_relu(self.conv1(z), _SLOPE)))

    def dense(self, images: torch.Tensor, stride: int) -> torch.Tensor:
        """Compute the embeddings of all windows of `patch_size` pixels.

        Parameters
        ----------
        images : Tensor of shape (b, C, H, W)
        stride : int
            Distance between windows in pixels.

        Returns
        -------
        z : Tensor of shape (b, D, rows, columns)
            Embeddings of windows every `stride` pixels, and of those aligned with the end.
        """
        return self.windows(images, *_grid(images, self.patch_size, stride))

    def windows(
        self, images: torch.Tensor, row_starts: Sequence[int], column_starts: Sequence[int]
    ) -> torch.Tensor:
        """Compute the embeddings of the windows on a grid, see :class:`PatchEncoder`."""
        half = self.enc.patch_size
        rows, columns = _halves(row_starts, half), _halves(column_starts, half)
        return self._head(self.enc.windows(images, rows, columns))

    def dense_scales(
        self, images: torch.Tensor, stride_small: int, stride_big: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Compute the embeddings at both scales with one run of the small encoder.

        Parameters
        ----------
        images : Tensor of shape (b, C, H, W)
        stride_small, stride_big : int
            Distance in pixels between windows of half the patch size, and between windows
            of the patch size.

        Returns
        -------
        z_small, z_big : Tensor of shape (b, D, rows, columns)
            Embeddings of the windows at each scale.
        """
        rows, columns = _grid(images, self.enc.patch_size, stride_small)
        rows_big, columns_big = _grid(images, self.patch_size, stride_big)
        half = self.enc.patch_size
        z = self.enc.windows(
            images, rows + _halves(rows_big, half), columns + _halves(columns_big, half)
        )
        z_big = self._head(z[:, :, len(rows) :, len(columns) :])
        return z[:, :, : len(rows), : len(columns)], z_big


def patch_encoder(
    embedding_dim: int, patch_size: int, in_channels: int, weight_init: str = "he"
) -> PatchEncoder | HierarchicalPatchEncoder:
    """Return the encoder for small patches of a size, nested for more than 32 pixels."""
    if patch_size <= 32:
        return PatchEncoder(embedding_dim, patch_size, in_channels, weight_init)
    return HierarchicalPatchEncoder(
        embedding_dim, patch_size, in_channels, weight_init=weight_init
    )


class WholePatchEncoder(nn.Module):
    """Encoder of large patches that is not made of that of small ones.

    For the ablation of the hierarchy (Yi and Yoon 2020, Table A2). The published one, for
    patches of 64 pixels, has four 5x5 convolutions without padding, the first three of
    stride 2, leaky ReLUs with a slope of 0.1 between them, and a final tanh.

    Parameters
    ----------
    embedding_dim : int, default=64
        Size D of an embedding.
    patch_size : int, default=64
        Side of a patch in pixels, at least 8. There are as many layers of stride 2 as it
        takes to come to 6 x 6 cells or fewer, and one over all of these.
    in_channels : int, default=3
        Number of channels C of the images.
    weight_init : {"he", "torch"}, default="he"
        Distribution of the weights at the start, see PatchEncoder.
    """

    def __init__(
        self,
        embedding_dim: int = 64,
        patch_size: int = 64,
        in_channels: int = 3,
        weight_init: str = "he",
    ):
        super().__init__()
        self.patch_size, self.embedding_dim = patch_size, embedding_dim
        n_strided, side = 0, patch_size
        while side > 6:
            n_strided, side = n_strided + 1, (side - 5) // 2 + 1
        hidden = (64,) * (n_strided - 1) + (128,)
        for index, (a, b) in enumerate(pairwise((in_channels, *hidden))):
            self.add_module(f"conv{index + 1}", nn.Conv2d(a, b, 5, stride=2))
        last = nn.Conv2d(128, embedding_dim, side)
        self.add_module(f"conv{n_strided + 1}", last)
        _initialize(self, weight_init)

    def forward(self, patches: torch.Tensor) -> torch.Tensor:
        """Map patches (b, C, patch_size, patch_size) to embeddings (b, D) in (-1, 1)."""
        *convolutions, last = self.children()
        for convolution in convolutions:
            patches = functional.leaky_relu(convolution(patches), _SLOPE)
        return torch.tanh(last(patches)).flatten(1)

    def windows(
        self, images: torch.Tensor, row_starts: Sequence[int], column_starts: Sequence[int]
    ) -> torch.Tensor:
        """Return the embeddings of windows, one pass each, see :func:`cut_windows`."""
        return cut_windows(self, images, self.patch_size, row_starts, column_starts)


class SeparatePatchEncoders(nn.Module):
    """Encoders of small and of large patches that share nothing.

    Parameters
    ----------
    small, big : PatchEncoder, WholePatchEncoder or OwnPatchEncoder
        With the same size of an embedding, and the same channels.

    Attributes
    ----------
    enc : nn.Module
        The encoder of small patches.
    big : nn.Module
        That of large ones.
    """

    def __init__(self, small: nn.Module, big: nn.Module):
        super().__init__()
        self.enc: Any = small
        self.big: Any = big
        self.patch_size, self.embedding_dim = big.patch_size, big.embedding_dim

    def forward(self, patches: torch.Tensor) -> torch.Tensor:
        """Map large patches (b, C, patch_size, patch_size) to embeddings (b, D)."""
        return self.big(patches)

    def dense_scales(
        self, images: torch.Tensor, stride_small: int, stride_big: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Compute the embeddings at both scales, see :class:`HierarchicalPatchEncoder`."""
        scales = ((self.enc, stride_small), (self.big, stride_big))
        z_small, z_big = (
            encoder.windows(images, *_grid(images, encoder.patch_size, stride))
            for encoder, stride in scales
        )
        return z_small, z_big


def cut_windows(
    encoder: Callable[[torch.Tensor], torch.Tensor],
    images: torch.Tensor,
    side: int,
    row_starts: Sequence[int],
    column_starts: Sequence[int],
) -> torch.Tensor:
    """Compute the embeddings of the windows on a grid, one pass for each window.

    Parameters
    ----------
    encoder : callable
        Function from patches (b, C, side, side) to embeddings (b, D).
    images : Tensor of shape (b, C, H, W)
    side : int
        Side of a window in pixels.
    row_starts, column_starts : sequence of int
        First pixel rows and columns of the windows, in any order.

    Returns
    -------
    z : Tensor of shape (b, D, rows, columns)
    """
    rows = torch.tensor(row_starts, device=images.device)
    columns = torch.tensor(column_starts, device=images.device)
    # (b, C, rows, columns, side, side), without a copy.
    views = images.unfold(2, side, 1).unfold(3, side, 1)
    # In a graph that is exported, the number of images is a symbol, and blocks are fixed.
    n_images = 1 if torch.compiler.is_compiling() else len(images)
    n_numbers = n_images * images.shape[1] * side**2 * len(columns)
    n_rows = max(1, _BLOCK_NUMBERS // n_numbers)
    bands = []
    for block in rows.split(n_rows):
        patches = views[:, :, block][:, :, :, columns].permute(0, 2, 3, 1, 4, 5)
        z = encoder(patches.flatten(0, 2))
        bands.append(z.unflatten(0, patches.shape[:3]))
    return torch.cat(bands, dim=1).permute(0, 3, 1, 2)


def _grid(images, patch_size, stride):
    """Return the starts of window rows and columns, the last aligned with the end."""
    lasts = [size - patch_size for size in images.shape[2:]]
    if min(lasts) < 0:
        raise ValueError(
            f"Patches of {patch_size} pixels do not fit into images of "
            f"{' x '.join(map(str, images.shape[2:]))} pixels. Use larger images, or "
            "smaller patches."
        )
    return [sorted({*range(0, last, stride), last}) for last in lasts]


def _halves(starts, half):
    """Return the starts of the two halves of each window."""
    return [start + offset for start in starts for offset in (0, half)]


def _split_by_parity(starts):
    """Return the distinct even starts and odd starts, ascending, without empty groups."""
    groups = [sorted({s for s in starts if s % 2 == parity}) for parity in (0, 1)]
    return [group for group in groups if group]


def _order_after_split(starts):
    """Return the index of each start in the joined groups of `_split_by_parity`."""
    joined = [start for group in _split_by_parity(starts) for start in group]
    places = {start: place for place, start in enumerate(joined)}
    return [places[start] for start in starts]


class PositionClassifier(nn.Module):
    """Classifier of the relative position of two neighboring patches.

    It predicts which of the eight neighbors of a patch another patch is. Its input is the
    difference of their embeddings. It has two layers of 128 units with leaky ReLUs of slope
    0.1, and a linear layer.

    Parameters
    ----------
    embedding_dim : int, default=64
        Size D of an embedding.
    train_head : bool, default=False
        Whether the last layer learns its weights. If not, it keeps its random initial
        weights, with each column divided by its length, and learns only its bias.

    Notes
    -----
    The paper (Yi and Yoon 2020) describes a plain perceptron with two hidden layers,
    ``train_head=True``. Its code, which produced the published results, divides the columns
    by their length without recording this for the gradient, so that the weights never
    change.
    """

    def __init__(self, embedding_dim: int = 64, train_head: bool = False):
        super().__init__()
        self.train_head = train_head = bool(train_head)  # torch rejects NumPy Booleans
        self.fc1 = nn.Linear(embedding_dim, 128)
        self.fc2 = nn.Linear(128, 128)
        self.fc3 = nn.Linear(128, N_POSITIONS)
        self.fc3.weight.requires_grad_(train_head)

    def forward(self, z: torch.Tensor, z_neighbor: torch.Tensor) -> torch.Tensor:
        """Map embeddings (b, D) of patches and of neighbors to logits (b, 8)."""
        hidden = functional.leaky_relu(self.fc1(z - z_neighbor), _SLOPE)
        hidden = functional.leaky_relu(self.fc2(hidden), _SLOPE)
        if self.train_head:
            return self.fc3(hidden)
        weight = self.fc3.weight / self.fc3.weight.norm(dim=0)
        return functional.linear(hidden, weight, self.fc3.bias)


def load_encoder_weights(
    encoder: HierarchicalPatchEncoder, weights: Mapping | str | os.PathLike
) -> HierarchicalPatchEncoder:
    """Load a state dict with the keys of the published checkpoints.

    Parameters
    ----------
    encoder : HierarchicalPatchEncoder or SeparatePatchEncoders
        Encoder that is changed in place.
    weights : mapping, str or Path
        Tensors or arrays with exactly the keys ``enc.conv1.weight`` ... ``conv2.bias``; or
        the file of such a state dict (``.pt``, ``.pth``, ``.safetensors``).

    Returns
    -------
    encoder : HierarchicalPatchEncoder

    Raises
    ------
    ValueError
        The file does not exist, or keys or shapes differ.
    """
    if not isinstance(weights, Mapping):
        load_weights(encoder, weights)
        return encoder
    try:
        encoder.load_state_dict({key: torch.as_tensor(weights[key]) for key in weights})
    except (RuntimeError, TypeError) as error:
        raise ValueError(
            "weights is not a state dict of a HierarchicalPatchEncoder: "
            f"{str(error)[:300]}. "
            "Pass encoder.state_dict() or the published arrays, with all of the keys "
            "'enc.conv1.weight' ... 'enc.conv8.bias', 'conv1.weight' ... 'conv2.bias'."
        ) from error
    return encoder
