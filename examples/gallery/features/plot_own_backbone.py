"""
Your own network as a backbone
==============================

Wherever a detector takes a ``backbone``, it takes an ``nn.Module`` of yours as well.
Here, a small network learns to tell five digits apart, and is then put to work on digits
that it has never seen.
"""

import numpy as np
import torch
from matplotlib import pyplot as plt
from sklearn.datasets import load_digits
from torch import nn

from skocc import DeepSVDD, FeatureCAE, ResNetKNN
from skocc.model_selection import OneClassSplit
from skocc.plotting import RocCurveDisplay

digits = load_digits()
images = np.float32(digits.images / 16)

# %%
# A plain network and a plain training loop of torch: the digits 0 to 4 are its world.

torch.manual_seed(0)
network = nn.Sequential(
    nn.Conv2d(1, 32, 3, padding=1),
    nn.ReLU(),
    nn.Conv2d(32, 32, 3, padding=1),
    nn.ReLU(),
    nn.Conv2d(32, 64, 3, stride=2, padding=1),
    nn.ReLU(),
    nn.Flatten(),
    nn.Linear(64 * 4 * 4, 5),
)
known = digits.target < 5
batches = torch.utils.data.DataLoader(
    [*zip(images[known, np.newaxis], digits.target[known], strict=True)],
    batch_size=32,
    shuffle=True,
)
optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)
for _ in range(10):
    for batch, target in batches:
        optimizer.zero_grad()
        nn.functional.cross_entropy(network(batch), target).backward()
        optimizer.step()

# %%
# Sevens are normal now, and other digits that the network does not know are anomalies.
# ``OneClassSplit`` keeps a part of the sevens for the test.

chosen = np.flatnonzero(digits.target >= 5)[::2]
X, y = images[chosen], np.where(digits.target[chosen] == 7, 1, -1)
train, test = next(OneClassSplit(1, test_size=0.5, random_state=0).split(X, y))

# %%
# ``ResNetKNN`` compares the cells of its maps, named as in ``network.named_modules()``;
# ``FeatureCAE`` learns to reconstruct them; ``DeepSVDD`` trains the network itself
# further. Each takes a copy, so that ``network`` stays as it is. The control is the same
# network with random weights.

torch.manual_seed(1)
untrained = nn.Sequential(
    nn.Conv2d(1, 32, 3, padding=1),
    nn.ReLU(),
    nn.Conv2d(32, 32, 3, padding=1),
    nn.ReLU(),
    nn.Conv2d(32, 64, 3, stride=2, padding=1),
    nn.ReLU(),
)
maps = {"layers": ("5",), "image_size": None, "random_state": 0}
detectors = {
    "ResNetKNN": ResNetKNN(backbone=network, **maps),
    "FeatureCAE": FeatureCAE(backbone=network, latent_dim=16, n_epochs=20, **maps),
    "DeepSVDD": DeepSVDD(
        backbone=network[:-1],
        n_epochs=10,
        learning_rate=1e-4,
        batch_size=16,
        random_state=0,
    ),
    "ResNetKNN, random weights": ResNetKNN(backbone=untrained, **maps),
}

# %%
# The neighbors do well, and so they do with random weights: to compare such small images,
# nothing needs to be learned. Make this comparison before you give your network the
# credit. What a module must be like, and how to pass a class or function in its place, is
# in :doc:`/guide/own_networks`.

figure, ax = plt.subplots(layout="constrained")
for name, detector in detectors.items():
    detector.fit(X[train])
    RocCurveDisplay.from_estimator(detector, X[test], y[test], name=name, ax=ax)
ax.set_title("Sevens among digits that the network has never seen")
ax.legend(loc="lower right")
