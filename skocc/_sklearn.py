"""The only file that imports scikit-learn's private names.

Everything here is used by scikit-learn's own estimators and recommended by its project
template, but carries no promise of stability. A rename upstream is fixed in this file.
"""

from sklearn.base import _fit_context as fit_context
from sklearn.utils import _safe_indexing as safe_indexing
from sklearn.utils._param_validation import (
    HasMethods,
    Interval,
    StrOptions,
    validate_params,
)
from sklearn.utils.validation import _estimator_has as estimator_has
from sklearn.utils.validation import _num_samples as num_samples

__all__ = [
    "HasMethods",
    "Interval",
    "StrOptions",
    "estimator_has",
    "fit_context",
    "num_samples",
    "safe_indexing",
    "validate_params",
]
