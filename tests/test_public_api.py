"""What a new public name must bring along."""

import subprocess
import sys
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
