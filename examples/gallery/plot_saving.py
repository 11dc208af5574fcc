"""
Saving and loading
==================

``save`` writes a fitted detector as one file of numbers, and ``load`` reads it without
running any code from it. What comes back gives the same maps, to the last bit.
"""

import json
import tempfile
from pathlib import Path

import numpy as np
from safetensors import safe_open
from safetensors.numpy import load_file

import skocc
from skocc import PatchSVDD
from skocc.datasets import make_objects, stain_defects
from skocc.plotting import AnomalyMapDisplay

images = make_objects(50, kind="nut", size=32, random_state=0)
stained, masks = stain_defects(images[40:], foreground=True, random_state=0)
detector = PatchSVDD(patch_size=16, strides=(4, 4), n_epochs=1, random_state=0).fit(
    images[:40]
)

# %%
# A path in, a path out.

temporary = tempfile.TemporaryDirectory()
path = Path(temporary.name) / "nuts.safetensors"
skocc.save(detector, path)
loaded = skocc.load(path)
loaded

# %%
# The format is that of safetensors: a header, then tensors. Any program can read it; the
# header says which class it is, with which parameters. A file that is not what it says is
# an error, see :doc:`/guide/saving`.

print(f"{path.name}: {path.stat().st_size / 1024:.0f} KiB")
with safe_open(path, framework="numpy") as file:
    header = json.loads(file.metadata()["skocc"])
print("Header:", ", ".join(header))
tensors = load_file(path)
for name in [*tensors][:4]:
    print(name, tensors[name].shape)
print("... and", len(tensors) - 4, "more")

# %%
# The maps of two stained nuts by the detector that was fitted, then by the one that was
# loaded.

maps, loaded_maps = detector.anomaly_map(stained[:2]), loaded.anomaly_map(stained[:2])
print("Equal:", np.array_equal(maps, loaded_maps))
display = AnomalyMapDisplay.from_predictions(
    np.tile(stained[:2], (2, 1, 1)),
    np.concatenate([maps, loaded_maps]),
    masks=np.tile(masks[:2], (2, 1, 1)),
)
display.figure_.suptitle("Fitted (above) and loaded (below)")
temporary.cleanup()
