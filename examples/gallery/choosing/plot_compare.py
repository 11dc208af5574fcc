"""
Several detectors on the same images
====================================

Which detector is best for these images, by how much, and at what cost?
:func:`~skocc.model_selection.compare` fits each on the same normal images, scores the same
others, and says how far the difference may be chance. :doc:`/guide/comparing` has the same
for a folder, by one command that writes a page.
"""

import numpy as np
from matplotlib import pyplot as plt
from sklearn.ensemble import IsolationForest
from sklearn.pipeline import make_pipeline
from sklearn.svm import OneClassSVM

from skocc import DeepSVDD, PatchSVDD
from skocc.datasets import make_defects, make_textures
from skocc.feature_extraction import DirectFeatures, Pixels
from skocc.model_selection import compare
from skocc.plotting import RocCurveDisplay

# %%
# Of 80 images of cloth, 20 have a stain. A quarter of the others is held out.

images = make_textures(80, kind="weave", size=48, random_state=0)
images[60:], masks = make_defects(images[60:], kind="stain", random_state=0)
y = np.repeat([1, -1], [60, 20])
masks = [None] * 60 + list(masks)

detectors = {
    "PatchSVDD": PatchSVDD(
        patch_size=16,
        strides=(8, 8),
        normalization="local_contrast",
        n_epochs=2,
        random_state=0,
    ),
    "DeepSVDD": DeepSVDD(image_size=28, pretrain_n_epochs=10, n_epochs=10, random_state=0),
    "SVM on pixels": make_pipeline(Pixels(image_size=32), OneClassSVM()),
    "forest on statistics": make_pipeline(
        DirectFeatures(), IsolationForest(random_state=0)
    ),
}
comparison = compare(detectors, images, y, masks=masks, n_resamples=300, random_state=0)

# %%
# A row for each detector, the best first. Pixels are ranked where there are heat maps.

columns = [
    "detector",
    "image_auroc",
    "p_value",
    "pixel_auroc",
    "fit_seconds",
    "ms_per_image",
]
comparison.table[columns].round(3)

# %%
# The intervals say how much the choice of test images matters. Where they overlap, the
# p-value of the paired test says more, because both detectors score the same images.

figure, axes = plt.subplots(1, 2, figsize=(10, 4.5), layout="constrained")
table = comparison.table[::-1]
axes[0].errorbar(
    table["image_auroc"],
    table["detector"],
    xerr=[
        table["image_auroc"] - table["image_auroc_low"],
        table["image_auroc_high"] - table["image_auroc"],
    ],
    fmt="o",
    capsize=4,
)
axes[0].axvline(0.5, color="gray", linestyle=":")
axes[0].set(xlabel="AUROC of the images, with 95 % intervals", title="How well")
for name, scores in comparison.scores.items():
    RocCurveDisplay.from_predictions(comparison.labels[0], scores[0], name=name, ax=axes[1])
axes[1].set_title("At which rate of false alarms")
