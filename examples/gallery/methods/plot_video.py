"""
Abnormal events in a video
==========================

People walk past a camera, to the right. Someone who walks to the left looks like the
others in every frame; ``VideoMOCCA`` looks at clips of several frames, and gives every
frame a score.
"""

import numpy as np
from matplotlib import pyplot as plt

from skocc import VideoMOCCA
from skocc.metrics import auroc

# %%
# The videos are made: one bright rectangle after the other crosses a frame of 16 x 16
# pixels with noise. In the middle third of a test video, they go the other way.


def make_video(random_state, n_frames=120, event=False):
    """Return frames (n_frames, 16, 16), and which of them are abnormal."""
    rng = np.random.default_rng(random_state)
    frames = 0.3 + rng.normal(0, 0.02, (n_frames, 16, 16))
    abnormal = np.zeros(n_frames, dtype=bool)
    start = -rng.integers(12)
    while start < n_frames:
        is_event = event and n_frames / 3 <= start < 2 * n_frames / 3
        top = rng.integers(2, 10)
        for step in range(max(0, -start), min(16, n_frames - start)):
            left = 13 - step if is_event else step - 2
            frames[start + step, top : top + 4, max(left, 0) : left + 3] = 0.9
            abnormal[start + step] = is_event
        start += 17
    return np.float32(frames.clip(0, 1)), abnormal


# %%
# Such small frames need the first layers only. The reconstruction, which is a part of the
# method, takes a far longer training before it tells anything, and is left out, see
# :doc:`/guide/videos`.

detector = VideoMOCCA(
    clip_length=8,
    layers=(0, 1, 2),
    reconstruction_weight=0,
    n_epochs=6,
    n_clips=320,
    batch_size=16,
    learning_rate=1e-3,
    warm_up_n_epochs=2,
    milestones=(),
    random_state=0,
).fit([make_video(seed)[0] for seed in range(8)])

# %%
# The AUROC over the frames of several videos together, as it is usually reported.

videos = [make_video(100 + seed, event=True) for seed in range(4)]
curves = [detector.score_frames(frames, normalize="video") for frames, _ in videos]
labels = np.concatenate([np.where(abnormal, -1, 1) for _, abnormal in videos])
print(f"AUROC over {len(labels)} frames: {auroc(labels, np.concatenate(curves)):.3f}")

# %%
# The scores of one video, with the abnormal frames shaded, and three of its frames. Near
# the ends of the event a clip shows both, so that the curve falls and rises a little
# beside it.

(frames, abnormal), scores = videos[0], curves[0]
lowest, highest = scores.argmin(), scores.argmax()
figure = plt.figure(figsize=(8, 5), layout="constrained")
axes = figure.subplot_mosaic([["curve"] * 3, [0, 1, 2]], height_ratios=(3, 2))
axes["curve"].plot(scores)
axes["curve"].fill_between(
    np.arange(len(frames)),
    0,
    1,
    where=abnormal,
    alpha=0.2,
    color="tab:red",
    transform=axes["curve"].get_xaxis_transform(),
    label="abnormal",
)
axes["curve"].set(title="Scores of the frames of a video", xlabel="Frame", ylabel="Score")
axes["curve"].legend(loc="lower right")
for cell, index in enumerate((highest, lowest, lowest + 3)):
    axes[cell].imshow(frames[index], cmap="gray", vmin=0, vmax=1)
    axes[cell].set_axis_off()
    axes[cell].set_title(f"frame {index}: {scores[index]:.2f}", fontsize="medium")
