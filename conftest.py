"""What tests and examples share; those that need an extra run where it is installed."""

import os
import sys
from importlib.metadata import version
from importlib.util import find_spec

import pytest

# Before matplotlib is loaded: figures are drawn without a window.
os.environ.setdefault("MPLBACKEND", "Agg")

# Copies of the examples, which building the documentation leaves there.
collect_ignore = ["docs/gallery"]
if find_spec("cv2") is None:
    collect_ignore.append("skocc/feature_extraction/_background.py")
if find_spec("matplotlib") is None:
    collect_ignore.append("skocc/plotting")
# Earlier versions of torch do not export.
exports = tuple(map(int, version("torch").split(".")[:2])) >= (2, 8)
if not exports or find_spec("onnxruntime") is None or find_spec("onnxscript") is None:
    collect_ignore += ["skocc/_export", "docs/guide/onnx.rst"]
if find_spec("latex2mathml") is None:
    collect_ignore.append("docs/_ext")


@pytest.fixture(autouse=True)
def closed_figures():
    """Close the figures of a test or example, of which matplotlib would keep all."""
    yield
    if pyplot := sys.modules.get("matplotlib.pyplot"):
        pyplot.close("all")
