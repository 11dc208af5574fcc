"""Steps before a one-class objective: contrast, first filters, an autoencoder."""

import math

import torch
from torch import nn

from skocc._engine.batches import ImageBatches
from skocc._engine.inference import map_batches
from skocc._engine.training import train_by_milestones
from skocc._nets.normalization import ContrastNormalization, global_contrast_normalize
from skocc._ops.losses import reconstruction_loss
from skocc._samples.log import logger
from skocc._samples.progress import waiting
from skocc.estimators._filters import dictionary_filters

# Fewest pixels per side for which contrast is normalized by default. It would leave too
# little of fewer pixels: of two, only their order.
_CONTRAST_SIZE = 8
# Values of images that are normalized at once, 32 MiB in float64.
_BLOCK_VALUES = 2**22


def has_contrast(sample_shape: tuple[int, ...]) -> bool:
    """Return whether samples are images large enough to have a contrast of their own."""
    return len(sample_shape) == 3 and min(sample_shape[:2]) >= _CONTRAST_SIZE


def contrast_normalization(images=None) -> ContrastNormalization:
    """Return the normalization of contrast with the constants of training images.

    Parameters
    ----------
    images : image source, default=None
        None leaves the constants to be loaded.
    """
    return ContrastNormalization(*((0, 1) if images is None else contrast_extremes(images)))


def contrast_extremes(images):
    """Return minimum and maximum over all images after normalization of each.

    Parameters
    ----------
    images : image source
    """
    # In double precision: the extremes of a float32 pass are off by 1e-5.
    n_images = max(1, _BLOCK_VALUES // math.prod(images.shape[1:]))
    batches = ImageBatches(images, n_images, device=torch.device("cpu"))

    def extremes(batch):
        normalized = global_contrast_normalize(batch.double())
        return normalized.amin().view(1), normalized.amax().view(1)

    minima, maxima = map_batches(nn.Identity(), batches, extremes, stage="contrast")
    return minima.min(), maxima.max()


def start_from_dictionary(filters: nn.Parameter, normalize, batches, generator) -> None:
    """Set the weights of a first layer to a dictionary of image patches.

    The weights do not change where all patches are alike.

    Parameters
    ----------
    filters : Parameter of shape (width, C, side, side)
    normalize, batches, generator
        As in :func:`skocc.estimators._filters.dictionary_filters`.
    """
    logger.info("learns %d filters of %d pixels a side", len(filters), filters.shape[-1])
    with waiting("first filters"):
        learned = dictionary_filters(
            batches, normalize, len(filters), filters.shape[-1], generator
        )
    if learned is not None:
        filters.data.copy_(learned)


def pretrain(
    encoder: nn.Module, decoder: nn.Module, prepare, batches, *, stage: str, **schedule
) -> list[float]:
    """Train an encoder as half of an autoencoder; return the loss curve.

    Parameters
    ----------
    encoder, decoder : torch.nn.Module
        Both are trained in place, the running statistics of the encoder as well.
    prepare : callable
        From a batch to what the encoder takes and the decoder gives.
    batches, stage, **schedule
        As in :func:`skocc._engine.training.train_by_milestones`.
    """
    autoencoder = nn.Sequential(encoder, decoder)

    def loss_fn(batch):
        batch = prepare(batch)
        return reconstruction_loss(autoencoder(batch), batch)

    return train_by_milestones(autoencoder, loss_fn, batches, stage=stage, **schedule)
