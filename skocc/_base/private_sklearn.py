"""The only file that imports private names of scikit-learn.

scikit-learn's own estimators use all of these names, and its project template recommends
them, but they are not guaranteed to be stable. If scikit-learn renames one, only this file
has to change.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

from sklearn.utils import _safe_indexing as safe_indexing
from sklearn.utils._param_validation import HasMethods, Interval, StrOptions
from sklearn.utils.metaestimators import _BaseComposition as BaseComposition
from sklearn.utils.validation import _estimator_has as estimator_has
from sklearn.utils.validation import _num_samples as num_samples

try:
    from sklearn.utils._repr_html.estimator import _VisualBlock as VisualBlock
except ImportError:  # before scikit-learn 1.7
    from sklearn.utils._estimator_html_repr import _VisualBlock as VisualBlock

# scikit-learn has no type hints, so a function that it decorates would lose its own.
if TYPE_CHECKING:
    _Function = TypeVar("_Function", bound=Callable)

    def fit_context(
        *, prefer_skip_nested_validation: bool
    ) -> Callable[[_Function], _Function]: ...
    def validate_params(
        parameter_constraints: dict, *, prefer_skip_nested_validation: bool
    ) -> Callable[[_Function], _Function]: ...
else:
    from sklearn.base import _fit_context as fit_context
    from sklearn.utils._param_validation import validate_params

__all__ = [
    "BaseComposition",
    "HasMethods",
    "Interval",
    "StrOptions",
    "VisualBlock",
    "estimator_has",
    "fit_context",
    "num_samples",
    "safe_indexing",
    "validate_params",
]
