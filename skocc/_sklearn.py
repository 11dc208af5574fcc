"""The only file that imports scikit-learn's private names.

Everything here is used by scikit-learn's own estimators and recommended by its project
template, but carries no promise of stability. A rename upstream is mended in this file.
"""

from sklearn.base import _fit_context as fit_context
from sklearn.utils._param_validation import (
    HasMethods,
    Interval,
    StrOptions,
    validate_params,
)

__all__ = ["HasMethods", "Interval", "StrOptions", "fit_context", "validate_params"]
