"""
Embeddings of a detector
========================

A trained detector maps each image to a vector. Drawn in the plane, the vectors show what
the network has made of the images, and which anomalies it cannot tell from normal ones.
"""

import numpy as np
from matplotlib import pyplot as plt
from sklearn.datasets import load_digits

from skocc import DataSplitOCC, DeepSVDD
from skocc.plotting import EmbeddingDisplay

digits = load_digits()
images = digits.images / 16
train = images[digits.target == 0][:120]
shown = np.concatenate(
    [np.flatnonzero(digits.target == digit)[-40:] for digit in (0, 1, 4, 6)]
)
names = np.array(["good", "one", "", "", "four", "", "six"])[digits.target[shown]]

# %%
# Two detectors learn zeros. ``DeepSVDD`` pulls the vectors of all training images to one
# point; ``DataSplitOCC`` tells the zeros that an autoencoder reconstructs well from those
# that it does not.

settings = {"learning_rate": 1e-3, "batch_size": 20, "random_state": 0}
detectors = [
    DeepSVDD(pretrain_n_epochs=20, pretrain_learning_rate=1e-3, n_epochs=20, **settings),
    DataSplitOCC(
        atypical_fraction=0.3, latent_dim=2, pretrain_n_epochs=8, n_epochs=8, **settings
    ),
]
for detector in detectors:
    detector.fit(train)
    print(type(detector).__name__, detector.embed(images[:3]).shape)

# %%
# t-SNE keeps neighbors together; distances between groups mean little in it. None of
# these images was trained on. Digits that lie among the zeros are those that the detector
# takes for one.

figure, axes = plt.subplots(1, 2, figsize=(10, 4.5), layout="constrained")
for ax, detector in zip(axes, detectors, strict=True):
    EmbeddingDisplay.from_estimator(detector, images[shown], names, ax=ax)
    ax.set_title(type(detector).__name__)
figure.suptitle("Embeddings of four digits, zero being normal")

# %%
# PCA keeps distances as far as a plane can. Here colors are scores, and bright is normal:
# the score of ``DeepSVDD`` is the distance to its center, from which anomalies lie
# farther away. Any table can be drawn so, also that of
# :class:`~skocc.feature_extraction.DeepFeatures`, see :doc:`/guide/plots`.

figure, ax = plt.subplots(layout="constrained")
display = EmbeddingDisplay.from_estimator(
    detectors[0],
    images[shown],
    values=detectors[0].score_samples(images[shown]),
    method="pca",
    ax=ax,
)
display.colorbar_.set_label("Score")
ax.set_title("DeepSVDD: principal components and scores")
