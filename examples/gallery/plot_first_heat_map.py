"""
A first heat map
================

Images of tiled walls are made; in some of them, a piece of the wall is out of place. A
detector learns from images without a defect only, and shows where new ones differ.
"""

# sphinx_gallery_thumbnail_number = 2
import numpy as np

from skocc import PatchSVDD
from skocc.datasets import make_defects, make_textures
from skocc.model_selection import ThresholdTuner
from skocc.plotting import AnomalyMapDisplay, ScoreHistogramDisplay

images = make_textures(120, kind="tiles", random_state=0)
defective, masks = make_defects(images[100:], kind="cut", random_state=0)
normal, others = images[:80], images[80:100]

# %%
# ``ThresholdTuner`` fits the detector on half of the images, and sets the threshold from
# the other half: of new normal images, at most 5 % are called anomalous, on average over
# sets of held-out images.

detector = PatchSVDD(
    patch_size=32,
    strides=(4, 8),
    normalization="local_contrast",
    padding_mode="reflect",
    max_bank_bytes=2**20,
    n_epochs=4,
    random_state=0,
)
tuner = ThresholdTuner(detector, max_fpr=0.05, calibration_size=0.5, random_state=0)
tuner.fit(normal)

# %%
# A line draws the scores of new images beside the threshold.

X = np.concatenate([others, defective])
y = ["good"] * len(others) + ["misplaced"] * len(defective)
display = ScoreHistogramDisplay.from_estimator(tuner, X, y)
display.ax_.set_title("Scores of new walls")

# %%
# Another line draws heat maps, contours and masks. All maps share one color scale, whose
# unit is the threshold, so that the normal image in the last row looks normal. A contour is
# drawn where the map is above the threshold.

shown = np.stack([*defective[:3], others[0]])
display = AnomalyMapDisplay.from_estimator(tuner, shown, masks=[*masks[:3], None])
display.figure_.suptitle("Three walls with a piece out of place, and one without")
