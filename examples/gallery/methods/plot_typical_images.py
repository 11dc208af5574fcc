"""
Typical and atypical images
===========================

Before it learns anything, ``DataSplitOCC`` sorts the normal images: which of them does an
autoencoder reconstruct well? Both ends are worth a look, whatever detector is used in the
end.
"""

import numpy as np
from sklearn.datasets import load_digits

from skocc import DataSplitOCC
from skocc.metrics import auroc
from skocc.plotting import ImageGridDisplay

digits = load_digits()
images, y = digits.images / 16, np.where(digits.target == 6, 1, -1)
train = np.flatnonzero(y == 1)[:120]
test = np.setdiff1d(np.arange(len(y)), train)

# %%
# The defaults are for thousands of images. With a hundred there are few steps in an
# epoch, so that batches are smaller, and three tenths instead of one are set apart as
# atypical.

detector = DataSplitOCC(
    atypical_fraction=0.3,
    pretrain_n_epochs=10,
    n_epochs=10,
    learning_rate=1e-3,
    batch_size=20,
    random_state=0,
).fit(images[train])

# %%
# ``reconstruction_similarity_`` and ``typical_`` say how the training images were split.
# Then a classifier learns to tell the two parts, and gives the probability of being
# typical.

similarity, typical = detector.reconstruction_similarity_, detector.typical_
probability = detector.normal_probability(images[train])
print(f"{np.sum(~typical)} of {len(train)} images are atypical.")
print(
    f"Similarity up to {similarity[~typical].max():.3f}; of the others from "
    f"{similarity[typical].min():.3f} to {similarity.max():.3f}."
)
print(
    f"Mean probability of the typical images {probability[typical].mean():.2f}, "
    f"of the atypical ones {probability[~typical].mean():.2f}."
)

# %%
# A hundred images are few for the classifier. The reconstruction is a score as well, and
# here the better one: compare the two on some known anomalies, see
# :doc:`/methods/data_split_occ`.

for name, scores in {
    "classifier": detector.score_samples(images[test]),
    "reconstruction alone": detector.reconstruction_similarity(images[test]),
}.items():
    print(f"AUROC of the {name}: {auroc(y[test], scores):.3f}")

# %%
# The sixes at both ends, each with its similarity. To find the odd images among your own
# normal ones, pass the paths of a folder to ``fit`` and to the display.

display = ImageGridDisplay.from_predictions(
    images[train], similarity, titles=("most typical", "least typical")
)
display.figure_.suptitle("Sixes by how well they are reconstructed")
