"""Image data sets, each returned as a :class:`~sklearn.utils.Bunch` of paths and labels.

The paths go into `fit` and `predict` as they are; nothing here downloads or decodes.
"""

from skocc.datasets._mvtec import fetch_mvtec, load_mvtec_layout

__all__ = ["fetch_mvtec", "load_mvtec_layout"]
