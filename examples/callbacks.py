"""Follow a training with scikit-learn's callbacks: losses in a CSV file, and scores.

Run it with ``python examples/callbacks.py``; it needs scikit-learn 1.9. Where TensorBoard
is installed, the losses go there as well: ``tensorboard --logdir runs``.
"""

import csv
import time
from pathlib import Path

import numpy as np
from sklearn.datasets import load_digits
from sklearn.metrics import roc_auc_score

import skocc

try:
    from torch.utils.tensorboard import SummaryWriter
except ImportError:
    SummaryWriter = None


class LossLog:
    """Callback that writes the losses of every epoch to a CSV file, and to TensorBoard.

    Parameters
    ----------
    path : path
        CSV file, which is written anew in each fit.
    folder : path, default="runs"
        Folder of TensorBoard, where it is installed. None: TensorBoard is not used.
    """

    def __init__(self, path, folder="runs"):
        self.path, self.folder = Path(path), folder

    def setup(self, estimator, context):
        """Begin the files."""
        self.started, self.n_epochs = time.monotonic(), 0
        self.write(["stage", "epoch", "loss", "held_out_loss", "seconds"], "w")
        use_board = SummaryWriter is not None and self.folder is not None
        self.board = SummaryWriter(self.folder) if use_board else None

    def on_fit_task_begin(self, estimator, context):
        """Do nothing."""

    def on_fit_task_end(self, estimator, context):
        """Write the losses of an epoch, which the estimator has in its curves."""
        if context.task_name != "epoch":
            return
        stage = context.parent.task_name
        is_main = not stage.endswith(": autoencoder")
        loss = (estimator.loss_curve_ if is_main else estimator.pretrain_loss_curve_)[-1]
        held_out = estimator.validation_loss_curve_[-1:] if is_main else []
        seconds = round(time.monotonic() - self.started, 3)
        self.write([stage, context.task_id, loss, *(held_out or [""]), seconds], "a")
        if self.board is not None:
            self.board.add_scalar(f"{stage}/loss", loss, self.n_epochs)
            for value in held_out:
                self.board.add_scalar(f"{stage}/held-out loss", value, self.n_epochs)
        self.n_epochs += 1

    def teardown(self, estimator, context):
        """Close what is open."""
        if self.board is not None:
            self.board.close()
            self.board = None

    def write(self, row, mode):
        """Write a row."""
        with self.path.open(mode, newline="") as file:
            csv.writer(file).writerow(row)


def main(path="losses.csv", n_epochs=20, folder="runs"):
    from sklearn.callback import ScoringMonitor

    digits = load_digits()
    images, is_zero = digits.images / 16, digits.target == 0
    normal, others = images[is_zero], images[~is_zero][:200]
    test, y_test = np.r_[normal[120:], others], np.r_[np.ones(58), np.zeros(200)]

    def auroc(detector, X, y):
        """Score held-out images, whatever the callback passes."""
        return roc_auc_score(y_test, detector.score_samples(test))

    monitor = ScoringMonitor(scoring={"auroc": auroc})
    detector = skocc.DeepSVDD(
        pretrain_n_epochs=n_epochs, n_epochs=n_epochs, batch_size=20, random_state=0,
        validation_fraction=0.1,
    )  # fmt: skip
    detector.set_callbacks(LossLog(path, folder), monitor)
    # The monitor computes scores only where there are labels, here of normal images.
    detector.fit(normal[:120], np.ones(120))
    print(Path(path).read_text())
    for row in monitor.get_logs().data:
        print(row["task_name"], row["task_id_path"], f"AUROC {row['auroc']:.3f}")


if __name__ == "__main__":
    main()
