"""The parts of a sample that a network takes: the whole sample, or patches of an image.

Training draws patches at random; scoring cuts a sample into the same patches every time.
Both classes have the same attributes and methods.
"""

from numbers import Integral

import torch

from skocc._samples.warnings import warn
from skocc._samples.windows import window_starts
from skocc.estimators._patch_pairs import random_crops


class WholeSamples:
    """Whole samples: each is its only patch.

    Parameters
    ----------
    sample_shape : tuple
        (H, W, C), or (d,) for rows.

    Attributes
    ----------
    shape : tuple
        Shape of a patch, which is that of a sample.
    n_train_patches, n_score_patches : int
        Number of patches of a sample in training and in scoring.
    """

    n_train_patches = n_score_patches = 1

    def __init__(self, sample_shape: tuple[int, ...]):
        self.shape = tuple(sample_shape)

    def sample(self, batch: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """Return the batch."""
        return batch

    def tile(self, batch: torch.Tensor) -> torch.Tensor:
        """Return the batch."""
        return batch


class PatchGrid:
    """Square patches: at random places in training, side by side in scoring.

    Parameters
    ----------
    image_shape : tuple (H, W, C)
    patch_size : int
        Side of a patch in pixels, no larger than the images.
    n_train_patches : int
        Number of patches that training draws from an image.

    Attributes
    ----------
    shape : tuple
        Shape of a patch: (`patch_size`, `patch_size`, C).
    n_train_patches, n_score_patches : int
        Number of patches of an image in training and in scoring.
    starts : list of two lists of int
        Top rows, and left columns, of the patches that an image is cut into. The last are
        flush with the border, and overlap those before, where the image is no multiple of
        the patch.
    """

    def __init__(
        self, image_shape: tuple[int, int, int], patch_size: int, n_train_patches: int
    ):
        *size, n_channels = image_shape
        self.shape = (patch_size, patch_size, n_channels)
        self.starts = [window_starts(n, patch_size, patch_size) for n in size]
        self.n_train_patches = n_train_patches
        self.n_score_patches = len(self.starts[0]) * len(self.starts[1])

    def sample(self, batch: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """Map images (b, C, H, W) to patches (`n_train_patches` b, C, side, side)."""
        crops = [
            random_crops(batch, self.shape[:2], generator)
            for _ in range(self.n_train_patches)
        ]
        return torch.cat(crops).contiguous(memory_format=torch.channels_last)

    def tile(self, batch: torch.Tensor) -> torch.Tensor:
        """Map images (b, C, H, W) to (b `n_score_patches`, C, side, side), row by row."""
        side = self.shape[0]
        rows, columns = self.starts
        cuts = [batch[:, :, i : i + side, j : j + side] for i in rows for j in columns]
        patches = torch.stack(cuts, dim=1).flatten(0, 1)
        return patches.contiguous(memory_format=torch.channels_last)


def check_patch_scales(patch_size: int, strides: tuple[int, int] | None) -> None:
    """Raise a ValueError for patches that cannot be compared at two scales.

    Parameters
    ----------
    patch_size : int
        Side of the big patches in pixels.
    strides : tuple (small, big) or None
        Pixels from one patch to the next.
    """
    if patch_size % 8 or (patch_size > 64 and patch_size & (patch_size - 1)):
        raise ValueError(
            "patch_size must be a multiple of 8 up to 64, or 128, 256 and so on. Got "
            f"{patch_size}. Use for example patch_size=64."
        )
    if strides is not None and (
        len(strides) != 2 or not all(isinstance(n, Integral) for n in strides)
    ):
        raise ValueError(
            "strides must be two numbers of pixels, for the small and the big patches. "
            f"Got {strides!r}. Set for example strides=(4, 16)."
        )


def check_kept(n_kept: int, n_neighbors: int, n_images: int) -> None:
    """Raise a ValueError for a bank that keeps too few vectors for so many neighbors."""
    if n_kept <= n_neighbors:
        raise ValueError(
            f"n_neighbors={n_neighbors} needs more vectors in both banks than that. Got "
            f"{n_kept} in one of them, of {n_images} images. Set n_neighbors=1, pass more "
            "images, or raise max_bank_bytes."
        )


def check_sampling(sampling: str, is_published: bool, n_epochs: int) -> None:
    """Raise a ValueError for dense training of an encoder that has no dense pass.

    Parameters
    ----------
    sampling : {"dense", "patches"}
    is_published : bool
        Whether the encoder is the hierarchical one of the paper.
    n_epochs : int
    """
    if sampling == "dense" and n_epochs > 0 and not is_published:
        raise ValueError(
            "sampling='dense' needs the hierarchical encoder of the paper, which embeds "
            "all patches of a crop in one pass. Got a network of your own, or "
            "hierarchical=False, which embeds each by itself. Set sampling='patches', and "
            "for example n_pairs=8."
        )


def warn_about_positions(image_size: tuple[int, int], patch_size: int) -> None:
    """Warn of images in which the neighbors of a patch are nearly the patch itself."""
    side = min(image_size)
    if side < 1.25 * patch_size:
        warn(
            f"Patches of {patch_size} pixels fill the images, so that most of a patch's "
            "neighbors are the patch itself and their positions teach nothing. Got "
            f"images with a side of {side} pixels. Set a smaller patch_size, or an "
            f"image_size of at least {7 * patch_size // 4}, where every neighbor fits."
        )
