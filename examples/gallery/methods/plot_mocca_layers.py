"""
The layers of MOCCA
===================

``MOCCA`` has a sphere in each layer of its network, not only in the last. Drawn layer by
layer, the distances to their centers show where a network tells anomalies from normal
images.
"""

import numpy as np
from matplotlib import pyplot as plt
from sklearn.datasets import load_digits

from skocc import MOCCA
from skocc.metrics import auroc, average_precision, best_f1
from skocc.plotting import LayerDistanceDisplay

digits = load_digits()
images, y = digits.images / 16, np.where(digits.target == 2, 1, -1)
train = np.flatnonzero(y == 1)[:120]
test = np.setdiff1d(np.arange(len(y)), train)

# %%
# Twos are normal. At 28 x 28 pixels, which ``image_size`` enlarges them to, the network
# has more layers.

detector = MOCCA(
    image_size=28,
    pretrain_n_epochs=15,
    n_epochs=15,
    learning_rate=1e-3,
    batch_size=20,
    warm_up_n_epochs=5,
    random_state=0,
).fit(images[train])

# %%
# ``layer_scores`` has a column for each of ``layers_``. The score of an image is their
# mean. It need not be better than that of the best layer, but which one that is nobody
# knows without anomalies.

layer_scores = detector.layer_scores(images[test])
scores = {
    f"layer {layer}": column
    for layer, column in zip(detector.layers_, layer_scores.T, strict=True)
}
scores["mean of all"] = detector.score_samples(images[test])
print(f"{'':<14}AUROC  AP     best F1")
for name, column in scores.items():
    values = [metric(y[test], column) for metric in (auroc, average_precision, best_f1)]
    print(f"{name:<14}" + "  ".join(f"{value:.3f}" for value in values))

# %%
# Distances less the squared radius of each sphere, summed from layer to layer: below zero
# an image is inside of most spheres. A line is a median, and around it is the middle half
# of the images. Where lines part, the layers tell the digits apart. This is Figure 5 of
# the paper; more on the method is in :doc:`/methods/mocca`.

names = np.full(len(y), "other digits", dtype=object)
names[digits.target == 2], names[digits.target == 0] = "good", "zeros"
names[digits.target == 7] = "sevens"
figure, ax = plt.subplots(layout="constrained")
LayerDistanceDisplay.from_estimator(detector, images[test], names[test], ax=ax)
ax.set_title("Distances to the centers, layer by layer")
