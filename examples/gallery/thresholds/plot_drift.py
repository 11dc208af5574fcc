"""
Has the camera moved?
=====================

Thresholds are promised for images like those held out. P-values of the images of each day tell whether
that is still so, without a label: as long as nothing has changed, they are uniform.
"""

import numpy as np
from matplotlib import pyplot as plt
from scipy import ndimage
from scipy.stats import ecdf, kstest

from skocc import DeepSVDD
from skocc.datasets import make_defects, make_objects
from skocc.model_selection import ThresholdTuner

settings = {"kind": "nut", "size": 32}
detector = DeepSVDD(
    pretrain_n_epochs=5,
    pretrain_learning_rate=1e-3,
    n_epochs=5,
    learning_rate=1e-3,
    batch_size=20,
    random_state=0,
)
tuner = ThresholdTuner(detector, max_fpr=0.05, calibration_size=400, random_state=0)
tuner.fit(make_objects(550, **settings, random_state=0))

# %%
# A week of production, 100 images a day, two of them scratched. On Thursday night somebody bumps into
# the camera, and from then on all images are shifted by two pixels.

days = ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"]
week = []
for number in range(7):
    images = make_objects(100, **settings, random_state=100 + number)
    images[98:], _ = make_defects(
        images[98:], kind="scratch", foreground=True, random_state=number
    )
    if number >= 4:
        images = ndimage.shift(images, (0, 0, 2), mode="nearest")
    week.append(images)

# %%
# For each day: the fraction of alarms, and the test of Kolmogorov and Smirnov of the p-values against the
# uniform distribution. The alarms alone would leave one guessing whether there are more bad parts; the
# test looks at all images. It is repeated daily, so that a small p-value is to be expected now and then:
# with a limit of 0.001, once in three years.

p_values = [tuner.p_values(images) for images in week]
for day, values in zip(days, p_values, strict=True):
    test = kstest(values, "uniform")
    alarms = np.mean(values <= tuner.max_fpr)
    verdict = "something has changed" if test.pvalue < 0.001 else "as before"
    print(f"{day}: {alarms:4.0%} alarms, KS test {test.pvalue:.1e}: {verdict}")

# %%
# How the p-values of each day are distributed. A day like those of the held-out images follows the
# diagonal. After the move small values are far too frequent: all images look a little unusual. Two
# scratched parts in a hundred do not show, as they should not. Hold out new images then, or weight
# those there are: see :doc:`/guide/promises`.

figure, ax = plt.subplots(layout="constrained")
for number, (day, values) in enumerate(zip(days, p_values, strict=True)):
    color = "tab:red" if number >= 4 else "tab:blue"
    style = ["-", "--", ":", "-."][number % 4]
    ecdf(values).cdf.plot(ax, color=color, linestyle=style, label=day)
ax.plot([0, 1], [0, 1], color="black", linewidth=0.8, label="uniform")
ax.set(title="P-values of each day", xlabel="p-value", ylabel="Fraction up to it")
ax.legend()
