"""
Many detectors as one
=====================

The same detector with another seed is another detector. An ensemble averages them, and
puts detectors of different kinds together.
"""

import numpy as np
from matplotlib import pyplot as plt
from sklearn.datasets import load_digits
from sklearn.ensemble import IsolationForest

from skocc import DeepSVDD
from skocc.metrics import auroc, max_balanced_accuracy, recall_at_fpr
from skocc.model_selection import DetectorEnsemble
from skocc.plotting import PrecisionRecallDisplay

digits = load_digits()
rows, y = digits.data / 16, np.where(digits.target == 3, 1, -1)
train = np.flatnonzero(y == 1)[:120]
# Anomalies are rare: of the other digits, every thirtieth.
test = np.r_[np.flatnonzero(y == 1)[120:], np.flatnonzero(y == -1)[::30]]

# %%
# Four seeds, and a forest that sees things differently. Scores of different detectors
# have different units; each is brought to a scale that its training scores define before
# they are averaged.

settings = {
    "image_shape": (8, 8),
    "filter_init": "random",
    "pretrain_n_epochs": 10,
    "pretrain_learning_rate": 1e-3,
    "n_epochs": 10,
    "learning_rate": 1e-3,
    "batch_size": 20,
}
parts = [(f"seed {seed}", DeepSVDD(random_state=seed, **settings)) for seed in range(4)]
parts.append(("forest", IsolationForest(random_state=0)))
ensemble = DetectorEnsemble(parts)
ensemble.fit(rows[train])

# %%
# Each part alone, and all together. The spread of the seeds is what chance does; the
# ensemble is better than most of its parts, but need not be better than the best of them.

detectors = {**ensemble.named_estimators_, "ensemble": ensemble}
print(f"{'':<12}AUROC  recall at 5 % FPR  balanced accuracy")
for name, detector in detectors.items():
    scores = detector.score_samples(rows[test])
    print(
        f"{name:<12}{auroc(y[test], scores):.3f}  "
        f"{recall_at_fpr(y[test], scores, max_fpr=0.05):<17.3f}  "
        f"{max_balanced_accuracy(y[test], scores):.3f}"
    )

# %%
# Of the images that raise an alarm, the precision is the fraction of anomalies. Gray are
# the four seeds. How to save, tune and threshold an ensemble is in
# :doc:`/guide/ensembles`.

figure, ax = plt.subplots(layout="constrained")
for name, detector in detectors.items():
    style = {"color": "lightgray"} if name.startswith("seed") else {"linewidth": 2}
    PrecisionRecallDisplay.from_estimator(
        detector, rows[test], y[test], name=name, ax=ax, **style
    )
ax.set_title("Precision and recall of an ensemble and its parts")
ax.legend(loc="lower left")
