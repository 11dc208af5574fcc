"""
Few false alarms among the alarms
=================================

Someone looks at each alarm. What matters then is not how many good parts raise one, but
how many of the alarms are about a good part: the rate of false discoveries.
"""

import numpy as np
from matplotlib import pyplot as plt

from skocc import ConvAE
from skocc.datasets import make_defects, make_objects
from skocc.model_selection import (
    OnlineFDR,
    benjamini_hochberg,
    conformal_p_values,
    labels_with_rejection,
)

# %%
# A detector, and the p-values of a batch: 950 good parts and 50 defective ones. The
# p-value of an image is the fraction of 2,000 good parts, held out, that score as low.

settings = {"kind": "nut", "size": 32}
detector = ConvAE(
    base_channels=8, augmentation=False, n_epochs=8, batch_size=16, random_state=0
)
detector.fit(make_objects(100, **settings, random_state=0))
held_out = detector.score_samples(make_objects(2000, **settings, random_state=1))
batch = make_objects(1000, **settings, random_state=2)
batch[950:], _ = make_defects(
    batch[950:], kind="cut", area=(0.1, 0.3), foreground=True, random_state=0
)
is_defective = np.arange(1000) >= 950
p_values = conformal_p_values(detector.score_samples(batch), held_out)

# %%
# Labels by a threshold of 0.05 on the p-values, and by ``benjamini_hochberg`` for the
# batch as a whole.


def report(name, labels):
    """Print how many alarms there are, and about what."""
    n_alarms = np.sum(labels == -1)
    n_false = np.sum((labels == -1) & ~is_defective)
    n_found = np.sum((labels == -1) & is_defective)
    print(
        f"{name:<24}{n_alarms:3} alarms, {n_false:3} of them false; {n_found} of 50 found"
    )


report("p-values up to 0.05", np.where(p_values <= 0.05, -1, 1))
report("benjamini_hochberg", benjamini_hochberg(p_values, rate=0.1))

# %%
# ``OnlineFDR`` labels each part as it comes off the line. Its levels fall as long as it
# finds nothing, and after a few parts they are below the smallest p-value there is, one
# in 2,001. For a stream with so few defects, far more held-out images are needed.

stream = OnlineFDR(rate=0.1)
order = np.random.default_rng(0).permutation(1000)
for part in order[:8]:
    print(f"level {stream.level_:.5f}, p-value {p_values[part]:.5f}")
    stream.update(p_values[[part]])

# %%
# Or leave some undecided, for a person to look at: here those with p-values from 0.002 to
# 0.02.

decided = labels_with_rejection(p_values, band=(0.002, 0.02))
for name, label in {"anomalous": -1, "undecided": 0, "normal": 1}.items():
    print(f"{name}: {np.sum(decided == label)}")

# %%
# The smallest p-values, in order. Those of good parts are spread evenly from 0 to 1,
# whatever the detector is, so that their points climb. ``benjamini_hochberg`` stops at
# the last point below its line, and the fixed threshold goes on, among good parts mostly.
# The promise is one on average over batches: of a single one the part of false alarms may
# be higher. See :doc:`/guide/promises`.

ranks = np.arange(1, 121)
smallest = np.argsort(p_values, kind="stable")[:120]
figure, ax = plt.subplots(layout="constrained")
for name, members in {"good": ~is_defective, "defective": is_defective}.items():
    inside = members[smallest]
    ax.scatter(ranks[inside], p_values[smallest][inside], s=14, label=name)
ax.plot(ranks, 0.1 * ranks / 1000, color="black", label="benjamini_hochberg, rate 0.1")
ax.axhline(0.05, color="gray", linestyle="--", label="threshold of 0.05")
ax.set(title="The smallest p-values of a batch", xlabel="Rank", ylabel="p-value")
ax.legend()
