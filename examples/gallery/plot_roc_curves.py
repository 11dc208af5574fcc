"""
ROC curves of five detectors
============================

Zeros among the digits of scikit-learn are normal. One figure compares a detector of skocc
with four of scikit-learn: a line of code for each.
"""

import numpy as np
from matplotlib import pyplot as plt
from sklearn.covariance import EllipticEnvelope
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA
from sklearn.ensemble import IsolationForest
from sklearn.neighbors import LocalOutlierFactor
from sklearn.pipeline import make_pipeline
from sklearn.svm import OneClassSVM

from skocc import DeepSVDD
from skocc.plotting import RocCurveDisplay

# %%
# Two thirds of the zeros are there to train on.

X, y = load_digits(return_X_y=True)
X, y = X / 16, np.where(y == 0, 1, -1)
train = np.flatnonzero(y == 1)[:120]
test = np.setdiff1d(np.arange(len(X)), train)

detectors = [
    DeepSVDD(
        image_shape=(8, 8),
        pretrain_n_epochs=20,
        pretrain_learning_rate=1e-3,
        n_epochs=20,
        learning_rate=1e-3,
        batch_size=16,
        random_state=0,
    ),
    OneClassSVM(),
    IsolationForest(random_state=0),
    LocalOutlierFactor(novelty=True),
    make_pipeline(PCA(0.95), EllipticEnvelope(random_state=0)),
]

# %%
# Each display draws on the same axes.

figure, ax = plt.subplots(figsize=(6, 6), layout="constrained")
ax.set_title("Zeros among digits")
for detector in detectors:
    detector.fit(X[train])
    RocCurveDisplay.from_estimator(detector, X[test], y[test], ax=ax)
