"""
Following a training
====================

scikit-learn's callbacks see the detector after each epoch. One of them watches how well
it ranks labeled images while it learns, another writes its losses to a file.
"""

import csv
import tempfile
from pathlib import Path

import numpy as np
from matplotlib import pyplot as plt
from sklearn.callback import ScoringMonitor  # of scikit-learn 1.9
from sklearn.datasets import load_digits

from skocc import DeepSVDD
from skocc.metrics import auroc
from skocc.plotting import LossCurveDisplay

digits = load_digits()
images, y = digits.images / 16, np.where(digits.target == 8, 1, -1)
train = np.flatnonzero(y == 1)[:120]
test = np.setdiff1d(np.arange(len(y)), train)[::3]

# %%
# A callback is an object with four methods. This one writes the losses of each epoch,
# which the detector has in its curves, to a CSV file; :doc:`/guide/training` does the
# same for TensorBoard.


class LossLog:
    """Callback that writes the losses of every epoch to a CSV file."""

    def __init__(self, path):
        self.path = path

    def setup(self, estimator, context):
        """Open the file."""
        self.file = self.path.open("w", newline="")
        self.rows = csv.writer(self.file)
        self.rows.writerow(["stage", "epoch", "loss"])

    def on_fit_task_begin(self, estimator, context):
        """Do nothing."""

    def on_fit_task_end(self, estimator, context):
        """Write a row after each epoch."""
        if context.task_name == "epoch":
            stage = context.parent.task_name
            is_pretraining = stage.endswith(": autoencoder")
            curve = "pretrain_loss_curve_" if is_pretraining else "loss_curve_"
            loss = getattr(estimator, curve)[-1]
            self.rows.writerow([stage, context.task_id, f"{loss:.4f}"])

    def teardown(self, estimator, context):
        """Close the file."""
        self.file.close()


# %%
# ``ScoringMonitor`` is scikit-learn's own. It passes the training images to its scores;
# this one looks at the test images instead. It is asked after each epoch in which there
# is a detector to score with, that is, not during the pretraining, and only where ``fit``
# is given labels.


def test_auroc(detector, X, y_train):
    """Score the test images, whatever the callback passes."""
    return auroc(y[test], detector.score_samples(images[test]))


temporary = tempfile.TemporaryDirectory()
path = Path(temporary.name) / "losses.csv"
monitor = ScoringMonitor(scoring={"auroc": test_auroc})
detector = DeepSVDD(
    pretrain_n_epochs=20,
    pretrain_learning_rate=1e-3,
    n_epochs=20,
    learning_rate=1e-3,
    batch_size=20,
    validation_fraction=0.1,
    n_iter_no_change=20,
    random_state=0,
)
detector.set_callbacks(LossLog(path), monitor)
detector.fit(images[train], np.ones(len(train)))
print(*path.read_text().splitlines()[:4], sep="\n")
temporary.cleanup()

# %%
# Losses, and the AUROC on the test images. A falling loss says that training images come
# closer to the center; whether anomalies stay away it cannot say. Do not choose the epoch
# by such a curve and then report its highest value: that would be a test that has been
# seen.

rows = [row for row in monitor.get_logs().data if row["task_name"] == "epoch"]
figure, axes = plt.subplots(1, 3, figsize=(12, 3.5), layout="constrained")
LossCurveDisplay.from_estimator(detector, ax=axes[:2])
axes[2].plot(np.arange(1, len(rows) + 1), [row["auroc"] for row in rows])
axes[2].set(title="test images", xlabel="Epoch", ylabel="AUROC")
figure.suptitle("DeepSVDD learns eights, epoch by epoch")
