"""
Choosing without an anomaly
===========================

A search needs anomalies to compare detectors. If there are none, they can be made from
normal images. Is the detector that is best at finding made defects also the best at
finding real ones?
"""

import numpy as np
import pandas as pd
from matplotlib import pyplot as plt
from scipy.stats import spearmanr
from sklearn.covariance import EllipticEnvelope
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA
from sklearn.ensemble import IsolationForest
from sklearn.model_selection import cross_val_score
from sklearn.neighbors import LocalOutlierFactor
from sklearn.pipeline import make_pipeline
from sklearn.svm import OneClassSVM

from skocc import ConvAE, DeepSVDD, metrics
from skocc.datasets import cut_defects
from skocc.feature_extraction import Pixels
from skocc.model_selection import SyntheticSplit, add_synthetic_anomalies

# %%
# Detectors of several kinds, none of them well tuned.


def on_pixels(detector, n_components=0.95):
    """Let a detector of scikit-learn see the principal components of the pixels."""
    return make_pipeline(Pixels(), PCA(n_components, random_state=0), detector)


training = {"n_epochs": 5, "learning_rate": 1e-3, "random_state": 0}
detectors = {
    "SVM": on_pixels(OneClassSVM()),
    "SVM, 3 components": on_pixels(OneClassSVM(), 3),
    "forest": on_pixels(IsolationForest(random_state=0)),
    "LOF": on_pixels(LocalOutlierFactor(novelty=True)),
    "LOF, 3 neighbors": on_pixels(LocalOutlierFactor(3, novelty=True)),
    "ellipse": on_pixels(EllipticEnvelope(random_state=0), 10),
    "DeepSVDD": DeepSVDD(pretrain_n_epochs=5, batch_size=20, **training),
    "ConvAE": ConvAE(base_channels=8, augmentation=False, **training),
}

# %%
# Threes are there, without labels. ``add_synthetic_anomalies`` makes a defect in each: a
# piece is cut out and set in elsewhere. ``SyntheticSplit`` trains on normal images only,
# and validates what was made from an image where that image is held out.

digits = load_digits()
images = np.float32(digits.images / 16)
threes = np.flatnonzero(digits.target == 3)
normal = images[threes[:100]]


def cut(images, random_state):
    """Cut a piece out of each image, and set it in elsewhere."""
    return cut_defects(images, area=(0.1, 0.3), random_state=random_state)


X, y, groups = add_synthetic_anomalies(normal, cut, random_state=0)
folds = SyntheticSplit(2, random_state=0)
scorer = metrics.make_scorer("auroc")
table = pd.DataFrame(index=[*detectors])
table["made defects"] = [
    cross_val_score(d, X, y, groups=groups, cv=folds, scoring=scorer).mean()
    for d in detectors.values()
]

# %%
# Another criterion makes nothing but comparison images, uniform in the box of the first
# principal components: ``mass_volume_auc`` is the part of that box which a detector needs
# to hold most of the normal images, ``excess_mass_auc`` a relative of it.
#
# The truth, which nobody would have at hand, are other digits.

held_out = images[threes[100:]]
others = images[digits.target != 3][::5]
pca = PCA(4, random_state=0).fit(normal.reshape(100, -1))
components = pca.transform(normal.reshape(100, -1))
box = components.min(axis=0), components.max(axis=0)
uniform = np.random.default_rng(0).uniform(*box, size=(500, 4))
uniform = np.float32(pca.inverse_transform(uniform).clip(0, 1).reshape(-1, 8, 8))
for name, detector in detectors.items():
    scores = detector.fit(normal).score_samples(held_out)
    scores_uniform = detector.score_samples(uniform)
    table.loc[name, "1 - mass volume"] = 1 - metrics.mass_volume_auc(
        scores, scores_uniform, mass_range=(0.5, 0.99)
    )
    table.loc[name, "excess mass"] = metrics.excess_mass_auc(scores, scores_uniform)
    both = np.concatenate([scores, detector.score_samples(others)])
    labels = np.repeat([1, -1], [len(scores), len(others)])
    table.loc[name, "truth"] = metrics.auroc(labels, both)
table.round(2)

# %%
# Rank correlations of the criteria with the truth. Here, made defects order the detectors
# much as the truth does, and volumes do not: they tell who describes normal images most
# tightly within a few components, which is another question. How this went on three data
# sets is in :doc:`/reproduction/choosing`, and how to search like this in
# :doc:`/guide/choosing`.

figure, axes = plt.subplots(1, 2, figsize=(10, 4), layout="constrained", sharey=True)
for ax, criterion in zip(axes, table.columns[:2], strict=True):
    for name, row in table.iterrows():
        ax.scatter(row[criterion], row["truth"], label=name)
    correlation = spearmanr(table[criterion], table["truth"]).statistic
    ax.set(xlabel=criterion, title=f"rank correlation {correlation:.2f}")
axes[0].set_ylabel("AUROC on other digits")
figure.suptitle("Two criteria without a label, and the truth")
figure.legend(*axes[0].get_legend_handles_labels(), loc="outside right center")
