"""
A threshold with a guarantee
============================

"At most 5 % false alarms" can be promised, for any detector and without an anomaly: by
images that it was not trained on. Here is what the promise means, and what it does not.
"""

import numpy as np
from matplotlib import pyplot as plt

from skocc import ConvAE
from skocc.datasets import make_defects, make_objects
from skocc.model_selection import ThresholdTuner, find_threshold
from skocc.plotting import ConfusionMatrixDisplay, ScoreHistogramDisplay

images = make_objects(350, kind="nut", size=32, random_state=0)
defective, _ = make_defects(
    images[250:], kind="cut", area=(0.1, 0.3), foreground=True, random_state=0
)

# %%
# ``ThresholdTuner`` trains on a part of the images, and sets the threshold from the
# scores of the others.

detector = ConvAE(
    base_channels=8, augmentation=False, n_epochs=12, batch_size=10, random_state=0
)
tuner = ThresholdTuner(detector, max_fpr=0.05, calibration_size=100, random_state=0)
tuner.fit(images[:150])

# %%
# Scores of new images, and how they are labeled. The promise is about normal images only.
# How many defects are found depends on how good the detector is, and this one is trained
# for seconds.

X = np.concatenate([images[150:250], defective])
y = ["good"] * 100 + ["defective"] * 100
figure, axes = plt.subplots(
    1, 2, figsize=(10, 4), layout="constrained", width_ratios=(3, 2)
)
ScoreHistogramDisplay.from_estimator(tuner, X, y, ax=axes[0])
ConfusionMatrixDisplay.from_estimator(tuner, X, y, ax=axes[1])
figure.suptitle("Scores of new images, and their labels")

# %%
# The promise holds on average over the images that were held out. To see it, take another
# 100 of them again and again, find the threshold, and count the false alarms among a
# thousand other images. A quantile of the *training* scores, which ``contamination``
# takes, promises nothing: the detector knows its training images.

scores = tuner.score_samples(make_objects(1100, kind="nut", size=32, random_state=1))
training_threshold = np.quantile(tuner.estimator_.train_scores_, 0.05)
rng = np.random.default_rng(0)
rates = []
for _ in range(500):
    held_out, new = np.split(rng.permutation(scores), [100])
    rates.append(np.mean(new < find_threshold(held_out, max_fpr=0.05)))
training_rate = np.mean(scores < training_threshold)
print(f"held-out images: {np.mean(rates):.1%} on average")
print(f"training images: {training_rate:.1%}")

# %%
# Each bar counts thresholds. Their mean is at the line, but with 100 images a single one
# may be off by a few points, in both directions: more images make the bars narrower. See
# :ref:`thresholds` for the way to use all images for both, and :doc:`/guide/promises` for
# what breaks the promise.

figure, ax = plt.subplots(layout="constrained")
ax.hist(rates, np.arange(0, 0.162, 0.005), alpha=0.6, label="100 held-out images")
ax.axvline(0.05, color="black", linestyle="--", label="promised")
ax.axvline(training_rate, color="tab:orange", label="quantile of training scores")
ax.set(
    title="False alarms of 500 thresholds",
    xlabel="Rate of false alarms among new images",
    ylabel="Number of thresholds",
)
ax.legend()
# sphinx_gallery_thumbnail_number = 2
