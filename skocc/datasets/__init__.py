"""Image data sets: lists of files with their labels, and synthetic images.

Loaders return a :class:`~sklearn.utils.Bunch`, whose paths can be passed directly to `fit`
and `predict`. Generators, and functions that add defects to images, return arrays.
"""

from skocc.datasets._defects import (
    cut_defects,
    make_defects,
    scratch_defects,
    stain_defects,
    twist_defects,
)
from skocc.datasets._folders import load_image_folder
from skocc.datasets._mvtec import fetch_mvtec, load_mvtec_layout
from skocc.datasets._one_vs_rest import fetch_one_vs_rest, one_vs_rest
from skocc.datasets._textures import make_objects, make_textures
from skocc.datasets._videos import load_video_folders

__all__ = [
    "cut_defects",
    "fetch_mvtec",
    "fetch_one_vs_rest",
    "load_image_folder",
    "load_mvtec_layout",
    "load_video_folders",
    "make_defects",
    "make_objects",
    "make_textures",
    "one_vs_rest",
    "scratch_defects",
    "stain_defects",
    "twist_defects",
]
