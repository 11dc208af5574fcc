"""Images turned about their center."""

import math

import torch
from torch.nn import functional


def turned(batch: torch.Tensor, n_turns: int) -> list[torch.Tensor]:
    """Return images in several turns, evenly spaced over the full circle.

    Parameters
    ----------
    batch : Tensor of shape (b, C, H, W)
    n_turns : int
        Number of turns, at least 1.

    Returns
    -------
    turns : list of Tensor of shape (b, C, H, W)
        The k-th is turned by k / n_turns of the circle, counterclockwise; the first is the
        batch itself.

    Notes
    -----
    Half a turn, and for square images a quarter, only moves pixels. All others interpolate
    bilinearly; what comes from beyond the border is the image, reflected there.
    """
    return [_turned(batch, step, n_turns) for step in range(n_turns)]


def _turned(batch, step, n_turns):
    if step == 0:
        return batch
    quarters, rest = divmod(4 * step, n_turns)
    is_square = batch.shape[2] == batch.shape[3]
    if rest == 0 and (is_square or quarters == 2):
        turn = torch.rot90(batch, quarters, (2, 3))
    elif batch.device.type == "mps":  # which reflects no borders
        turn = _rotated(batch.cpu(), 2 * math.pi * step / n_turns).to(batch.device)
    else:
        turn = _rotated(batch, 2 * math.pi * step / n_turns)
    # Of one layout in memory, as batches are, because the rounding of networks depends on
    # it.
    return turn.contiguous(memory_format=torch.channels_last)


def _rotated(batch, angle):
    """Return images turned counterclockwise by an angle in radians."""
    height, width = batch.shape[2:]
    cos, sin = math.cos(angle), math.sin(angle)
    # From places in the turned image to those in the image, each in units of half a side.
    matrix = [[cos, -sin * height / width, 0.0], [sin * width / height, cos, 0.0]]
    places = functional.affine_grid(
        batch.new_tensor(matrix).expand(len(batch), 2, 3), list(batch.shape), False
    )
    return functional.grid_sample(
        batch, places, mode="bilinear", padding_mode="reflection", align_corners=False
    )
