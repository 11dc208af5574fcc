"""Examples of what needs an extra are tested where the extra is installed."""

from importlib.util import find_spec

collect_ignore = []
if find_spec("cv2") is None:
    collect_ignore.append("skocc/feature_extraction/_background.py")
