"""
One digit among ten
===================

The digits that come with scikit-learn have 8 x 8 pixels. One of them is normal; a
detector learns from some 120 images of it, and tells the others apart.
"""

import numpy as np
from sklearn.datasets import load_digits
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import train_test_split

from skocc import DeepSVDD
from skocc.model_selection import find_threshold
from skocc.plotting import ImageGridDisplay

digits = load_digits()
images, y = digits.images / 16, np.where(digits.target == 3, 1, -1)
train, test, y_train, y_test = train_test_split(
    images, y, test_size=1 / 3, stratify=y, random_state=0
)
threes = train[y_train == 1]
len(threes)

# %%
# ``DeepSVDD`` first trains an autoencoder, then trains its encoder to map the training
# images close to a center. Its defaults are those of the paper, for thousands of images.
# With 120 there are few steps in an epoch, so that batches are smaller and steps longer
# here.

detector = DeepSVDD(
    pretrain_n_epochs=100,
    pretrain_learning_rate=1e-3,
    n_epochs=100,
    learning_rate=1e-3,
    batch_size=32,
    random_state=0,
).fit(threes)

# %%
# A higher score is more normal. Anomalies are the positive class of the AUROC, so that
# scores are negated.

scores = detector.score_samples(test)
roc_auc_score(y_test == -1, -scores)

# %%
# The threshold is the ``contamination`` quantile of the scores of the training images,
# 0.1 unless it is set. A network fits so few training images better than other images of
# the same kind, and this threshold is too high: more than a tenth of the held-out threes
# are called anomalous.

np.mean(detector.predict(test[y_test == 1]) == -1)

# %%
# Held-out images give a threshold that bounds the rate of false alarms. Half of the test
# images are held out here, and the other half says what the rate is.

held_out, rest = np.arange(0, len(test), 2), np.arange(1, len(test), 2)
detector.offset_ = find_threshold(scores[held_out], y_test[held_out], max_fpr=0.1)
labels = detector.predict(test[rest])
for name, label in {"threes": 1, "other digits": -1}.items():
    print(f"{name} called anomalous: {np.mean(labels[y_test[rest] == label] == -1):.0%}")

# %%
# The images at both ends of the scores.

display = ImageGridDisplay.from_estimator(detector, test)
