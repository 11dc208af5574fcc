"""
Saving and loading
==================

``save`` writes a fitted detector as one file of numbers, and ``load`` reads it without running any code
from it. What comes back gives the same maps, to the last bit.
"""

import json
import tempfile
from pathlib import Path

import numpy as np
from safetensors import safe_open

import skocc
from skocc import ConvAE
from skocc.datasets import make_objects, stain_defects
from skocc.plotting import AnomalyMapDisplay

images = make_objects(80, kind="nut", size=64, random_state=0)
stained, masks = stain_defects(images[60:], foreground=True, random_state=0)
detector = ConvAE(base_channels=8, augmentation=False, n_epochs=10, random_state=0)
detector.fit(images[:60])

# %%
# A path in, a path out.

temporary = tempfile.TemporaryDirectory()
path = Path(temporary.name) / "nuts.safetensors"
skocc.save(detector, path)
loaded = skocc.load(path)
print(f"{path.name}: {path.stat().st_size / 1024:.0f} KiB")
loaded

# %%
# The format is that of safetensors: a header, then tensors. The header holds the name of the class, its
# parameters and the fitted values; any program can read it. A file from elsewhere that is not what it
# says is an error, see :doc:`/guide/saving`.

with safe_open(path, framework="numpy") as file:
    tensors = {name: file.get_slice(name).get_shape() for name in file.keys()}
    header = file.metadata()
for name in [*tensors][:4]:
    print(name, tensors[name])
print("...", len(tensors), "tensors;", "header:", {key: len(text) for key, text in header.items()})

# %%
# Maps of two stained nuts by the detector that was fitted, then by the one that was loaded.

maps, loaded_maps = detector.anomaly_map(stained[:2]), loaded.anomaly_map(stained[:2])
print("Equal:", np.array_equal(maps, loaded_maps))
display = AnomalyMapDisplay.from_predictions(
    np.tile(stained[:2], (2, 1, 1)),
    np.concatenate([maps, loaded_maps]),
    masks=np.tile(masks[:2], (2, 1, 1)),
)
display.figure_.suptitle("Fitted (above) and loaded (below)")
temporary.cleanup()
