"""What a new public name must bring along."""

import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

import skocc
import skocc.datasets
import skocc.feature_extraction
import skocc.metrics
import skocc.model_selection

ROOT = Path(__file__).parent.parent
MODULES = [
    skocc,
    skocc.datasets,
    skocc.feature_extraction,
    skocc.metrics,
    skocc.model_selection,
]


@pytest.mark.parametrize(
    ("module", "name"),
    [
        (module, name)
        for module in MODULES
        for name in module.__all__
        if name != "__version__"
    ],
)
def test_public_name_is_documented(module, name):
    value = getattr(module, name)
    assert value.__doc__, f"{name} has no docstring"
    listed = (ROOT / "docs" / "api.rst").read_text().split()
    assert name in listed, f"add a line for {name} to docs/api.rst"


def test_subpackages_without_their_own_import():
    code = (
        "import skocc; skocc.datasets.load_mvtec_layout; "
        "skocc.feature_extraction.DeepFeatures; "
        "skocc.metrics.auroc; "
        "skocc.model_selection.classical_detectors"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("module", MODULES)
def test_unknown_name(module):
    with pytest.raises(AttributeError, match="no attribute 'NoSuchMethod'"):
        module.NoSuchMethod  # noqa: B018
    assert set(module.__all__) <= set(dir(module))


def test_every_estimator_has_a_test_file():
    for path in (ROOT / "skocc" / "estimators").glob("_[a-z]*.py"):
        expected = ROOT / "tests" / "estimators" / f"test{path.stem}.py"
        assert expected.exists(), f"{path.name} needs {expected}"


def test_show_versions(capsys):
    skocc.show_versions()
    shown = capsys.readouterr().out
    for package in ["python", "torch", "scikit-learn", "CUDA devices"]:
        assert f"{package}: " in shown


def test_oldest_versions_are_those_that_are_tested():
    # In 3.10 pytest brings the same parser by another name.
    tomllib = import_module("tomllib" if sys.version_info >= (3, 11) else "tomli")
    with (ROOT / "pyproject.toml").open("rb") as file:
        project = tomllib.load(file)["project"]
    extras = project["optional-dependencies"]
    named = [*project["dependencies"]]
    for extra in ("plot", "direct", "video", "test"):
        named += [name for name in extras[extra] if not name.startswith("skocc[")]
    lines = (ROOT / ".ci" / "oldest.txt").read_text().splitlines()
    tested = {line.replace("==", ">=") for line in lines if not line.startswith("#")}
    assert set(named) == tested
