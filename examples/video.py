"""Learn how people walk past a camera, then find the frames where one does not walk so.

The videos are drawn by this script, so nothing is downloaded: sprites walk to the right on
a noisy ground. In a test video, for a while, one runs or walks to the left.
"""

import numpy as np

SIZE = 32


def make_video(n_frames, random_state, event=None):
    """Draw a video of walking sprites.

    Parameters
    ----------
    n_frames : int
    random_state : int
    event : {"fast", "against"}, default=None
        How one more sprite moves, from a third of the video on: three times as fast as the
        others, or against their direction. None: there is none.

    Returns
    -------
    frames : ndarray of shape (n_frames, 32, 32, 1), uint8
    is_anomaly : ndarray of shape (n_frames,), bool
        Whether a frame shows the one that moves otherwise.
    """
    rng = np.random.default_rng(random_state)
    frames = np.broadcast_to(make_ground(), (n_frames, SIZE, SIZE)).copy()
    is_anomaly = np.zeros(n_frames, dtype=bool)
    # One after the other at a distance, on three lanes.
    for lane in (4, 14, 24):
        start = -rng.uniform(0, 2 * SIZE)
        while start < n_frames:
            draw_walk(frames, lane, start, rng.uniform(0.8, 1.2), rng)
            start += rng.uniform(25, 60)
    if event is not None:
        lane, start = rng.choice([9, 19]), n_frames // 3
        speed = rng.uniform(2.4, 3.6) if event == "fast" else -rng.uniform(0.8, 1.2)
        while start < 2 * n_frames // 3:
            is_anomaly |= draw_walk(frames, lane, start, speed, rng)
            start += (SIZE + 6) / abs(speed)
    frames += rng.normal(0, 0.02, frames.shape)
    pixels = np.clip(np.rint(255 * frames), 0, 255).astype(np.uint8)
    return pixels[..., np.newaxis], is_anomaly


def make_ground():
    """Return the background, the same in all videos: (32, 32), in [0, 1]."""
    rows, columns = np.mgrid[:SIZE, :SIZE]
    return 0.3 + 0.05 * np.sin(rows / 3) + 0.05 * np.sin(columns / 5 + rows / 7)


def draw_walk(frames, top, start, speed, rng):
    """Draw one sprite from edge to edge; return in which frames it is seen."""
    brightness, height = rng.uniform(0.7, 1.0), rng.integers(5, 8)
    times = np.arange(len(frames)) - start
    left = -4 + speed * times if speed > 0 else SIZE + speed * times
    seen = (times >= 0) & (left > -4) & (left < SIZE)
    columns = np.arange(SIZE)
    for index in np.flatnonzero(seen):
        # A pixel that is covered in part is as bright as its part says.
        cover = np.clip(
            np.minimum(columns + 1, left[index] + 4) - np.maximum(columns, left[index]),
            0,
            1,
        )
        rows = frames[index, top : top + height]
        rows += cover * (brightness - rows)
    return seen
