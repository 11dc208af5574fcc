"""Learn how people walk past a camera, then find the frames where one does not walk so.

The videos are drawn by this script, so nothing is downloaded: sprites walk to the right on
a noisy ground. In a test video, for a while, one runs or walks to the left.
"""

import numpy as np

SIZE = 24
# Of a sprite, in pixels.
HEIGHT, WIDTH = 6, 4


def make_video(n_frames, random_state, event=None):
    """Draw a video of sprites that walk on two lanes, one at a time on each.

    Parameters
    ----------
    n_frames : int
    random_state : int
    event : {"fast", "against"}, default=None
        How those on one of the lanes move in the middle third of the video: three times as
        fast as otherwise, or in the other direction. None: as otherwise.

    Returns
    -------
    frames : ndarray of shape (n_frames, 24, 24, 1), uint8
    is_anomaly : ndarray of shape (n_frames,), bool
        Whether a frame shows one that moves otherwise.
    """
    rng = np.random.default_rng(random_state)
    frames = np.broadcast_to(make_ground(), (n_frames, SIZE, SIZE)).copy()
    is_anomaly = np.zeros(n_frames, dtype=bool)
    lane_of_event = rng.integers(2) if event is not None else None
    for lane, top in enumerate((3, 14)):
        start = -rng.uniform(0, SIZE)
        while start < n_frames:
            speed = rng.uniform(0.8, 1.2)
            is_wrong = lane == lane_of_event and n_frames / 3 <= start < n_frames / 2
            if is_wrong:
                speed *= 3 if event == "fast" else -1
            seen = draw_walk(frames, top + rng.integers(3), start, speed, rng)
            if is_wrong:
                is_anomaly |= seen
            start += (SIZE + WIDTH) / abs(speed)
    frames += rng.normal(0, 0.02, frames.shape)
    pixels = np.clip(np.rint(255 * frames), 0, 255).astype(np.uint8)
    return pixels[..., np.newaxis], is_anomaly


def make_ground():
    """Return the background, the same in all videos: (24, 24), in [0, 1]."""
    rows, columns = np.mgrid[:SIZE, :SIZE]
    return 0.3 + 0.05 * np.sin(rows / 3) + 0.05 * np.sin(columns / 5 + rows / 7)


def draw_walk(frames, top, start, speed, rng):
    """Draw one sprite from edge to edge; return in which frames it is seen."""
    brightness = rng.uniform(0.7, 1.0)
    times = np.arange(len(frames)) - start
    left = -WIDTH + speed * times if speed > 0 else SIZE + speed * times
    seen = (times >= 0) & (left > -WIDTH) & (left < SIZE)
    columns = np.arange(SIZE)
    for index in np.flatnonzero(seen):
        # A pixel that is covered in part is as bright as its part says.
        begins = np.maximum(columns, left[index])
        ends = np.minimum(columns + 1, left[index] + WIDTH)
        rows = frames[index, top : top + HEIGHT]
        rows += np.clip(ends - begins, 0, 1) * (brightness - rows)
    return seen
