"""
Has the camera moved?
=====================

Thresholds are promised for images like those held out. The p-values of a day's images
tell whether that is still so, without a label: as long as nothing has changed, they are
uniform.
"""

import numpy as np
from matplotlib import pyplot as plt
from scipy import ndimage
from scipy.stats import ecdf, kstest

from skocc import ConvAE
from skocc.datasets import make_defects, make_objects
from skocc.model_selection import ThresholdTuner

detector = ConvAE(
    base_channels=8, augmentation=False, n_epochs=8, batch_size=16, random_state=0
)
images = make_objects(500, kind="nut", size=32, random_state=0)
tuner = ThresholdTuner(detector, max_fpr=0.05, calibration_size=400, random_state=0).fit(
    images
)

# %%
# A week of production, 100 images a day, three of them defective. On Thursday the camera
# has moved by a pixel, which is mended in the evening; on Sunday its lens is a little out
# of focus.

changes = dict.fromkeys(["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"], lambda x: x)
changes["Thu"] = lambda images: ndimage.shift(images, (0, 0, 1), mode="nearest")
changes["Sun"] = lambda images: ndimage.gaussian_filter(images, (0, 0.4, 0.4))
p_values = {}
for number, (day, change) in enumerate(changes.items()):
    images = make_objects(100, kind="nut", size=32, random_state=100 + number)
    images[97:], _ = make_defects(
        images[97:], kind="cut", foreground=True, random_state=number
    )
    p_values[day] = tuner.p_values(change(images))

# %%
# For each day: the fraction of alarms, and the test of Kolmogorov and Smirnov of the
# p-values against the uniform distribution. Alarms tell less: more of them could be due
# to worse parts, and images out of focus are easier to reconstruct, so that on Sunday
# there are fewer. With a limit of 0.001, a day on which nothing has changed is suspected
# once in three years.

for day, values in p_values.items():
    test = kstest(values, "uniform")
    alarms = np.mean(values <= tuner.max_fpr)
    verdict = "something has changed" if test.pvalue < 0.001 else "as before"
    print(f"{day}: {alarms:4.0%} alarms, p-value of the test {test.pvalue:.0e}: {verdict}")

# %%
# How the p-values of each day are distributed. A day like those of the held-out images
# follows the diagonal; a few defective parts do not show, as they should not. Above the
# line images look less normal than they did, below it more so. In both cases hold out new
# images, or weight those there are, see :doc:`/guide/promises`.

figure, ax = plt.subplots(layout="constrained")
for day, values in p_values.items():
    color = {"Thu": "tab:red", "Sun": "tab:orange"}.get(day, "tab:blue")
    # matplotlib leaves labels that begin with an underscore out of the legend.
    label = {"Thu": "Thu", "Sun": "Sun", "Mon": "other days"}.get(day, "_")
    ecdf(values).cdf.plot(ax, color=color, label=label)
ax.plot([0, 1], [0, 1], color="black", linewidth=0.8, label="uniform")
ax.set(title="P-values of each day", xlabel="p-value", ylabel="Fraction up to it")
ax.legend()
