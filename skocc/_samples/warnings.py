"""Warnings that point at the user's line, at any depth of the call stack."""

import sys
import warnings
from pathlib import Path

from skocc._samples.log import logger

_PACKAGE = str(Path(__file__).parents[1])
# scikit-learn wraps `fit`, `transform` and functions whose parameters it checks, and
# contextlib adds frames for contexts.
_WRAPPERS = (
    str(Path("sklearn", "base.py")),
    str(Path("sklearn", "utils", "_param_validation.py")),
    str(Path("sklearn", "utils", "_set_output.py")),
    "contextlib.py",
)


def warn(message, category=UserWarning):
    """Warn, and report the first line outside of the package as the location.

    The message goes to the log as well, for programs that nobody watches.

    Parameters
    ----------
    message : str
    category : type, default=UserWarning
    """
    level, frame = 2, sys._getframe(1)
    while frame.f_back is not None and _is_inner(frame.f_code.co_filename):
        level, frame = level + 1, frame.f_back
    logger.warning("%s", message)
    warnings.warn(message, category, stacklevel=level)


def _is_inner(filename):
    return filename.startswith(_PACKAGE) or filename.endswith(_WRAPPERS)
