"""The template of a detector of one's own, and what is asked of every detector, on it.

Where the template has to do more than `docs/guide/own_method.rst` says, that page or the base
class is wrong.
"""

import ast
import inspect
from pathlib import Path

import pytest
from sklearn.utils.estimator_checks import (
    estimator_checks_generator,
    parametrize_with_checks,
)

from examples import own_method
from examples.own_method import LinearAE
from tests import test_common
from tests.quick import quick

# Every common test but those of the documentation of public classes.
pytestmark = pytest.mark.parametrize("estimator_class", [LinearAE])
OF_PUBLIC_CLASSES = {
    "test_documented_attributes_exist_and_no_others",
    "test_documented_parameters_are_those_of_init_in_order",
    "test_docstrings_have_all_sections",
}
globals().update(
    (name, function)
    for name, function in vars(test_common).items()
    if name.startswith("test_") and name not in OF_PUBLIC_CLASSES
)


@pytest.mark.filterwarnings("ignore")
@parametrize_with_checks([quick(LinearAE, image_shape=(1, -1))])
def test_on_flattened_images(estimator_class, estimator, check):
    check(estimator)


def test_it_has_these_checks(estimator_class):
    estimator = quick(estimator_class, image_shape=(1, -1))
    assert len([*estimator_checks_generator(estimator)]) > 40


def test_it_has_forty_lines(estimator_class):
    lines = inspect.getsource(estimator_class).splitlines()
    assert len([line for line in lines if line.strip()]) <= 40


def test_it_is_on_the_page(estimator_class):
    page = Path(__file__).parent.parent / "docs" / "guide" / "own_method.rst"
    assert ".. literalinclude:: ../../examples/own_method.py" in page.read_text()
    tree = ast.parse(Path(own_method.__file__).read_text())
    imported = [n.module for n in ast.walk(tree) if isinstance(n, ast.ImportFrom)]
    assert not [name for name in imported if "._" in name], "the template is public"


def test_its_parameters_are_all_in_the_signature(estimator_class):
    names = [*inspect.signature(estimator_class).parameters]
    assert names[:3] == ["latent_dim", "delta", "validation_fraction"]
    assert names[-1] == "warm_start"
    assert sorted(names) == sorted(estimator_class().get_params())
    assert estimator_class().learning_rate == 1e-2
    with pytest.raises(TypeError, match="unexpected keyword argument 'no_such'"):
        estimator_class(no_such=1)
