"""What editors and type checkers see of the package, which run none of it."""

import os
import subprocess
import sys
from pathlib import Path

import jedi
import pytest

import skocc

ROOT = Path(skocc.__file__).parent.parent
# Other libraries are passed over: with them, a check takes a minute.
SETTINGS = """
[mypy]
follow_imports = skip
[mypy-skocc,skocc.*]
follow_imports = silent
"""


def completed(code):
    """Return the names that an editor offers at the end of code."""
    script = jedi.Script(
        code, project=jedi.Project(ROOT), environment=jedi.InterpreterEnvironment()
    )
    return {completion.name for completion in script.complete()}


@pytest.mark.parametrize(
    ("code", "names"),
    [
        ("from skocc import D", {"DataSplitOCC", "DeepSVDD"}),
        ("import skocc\nskocc.", {*skocc.__all__}),
        ("import skocc\nskocc.DeepSVDD().", {"fit", "score_samples", "set_params"}),
        ("import skocc\nskocc.DeepSVDD(n_ep", {"n_epochs="}),
        ("import skocc\nskocc.metrics.", {*skocc.metrics.__all__}),
        ("import skocc\nskocc.model_selection.", {*skocc.model_selection.__all__}),
        ("import skocc\nskocc.metrics.auroc([], []).", {"is_integer"}),
        ("import skocc\nskocc.feature_extraction.D", {"DeepFeatures", "DirectFeatures"}),
        (
            "from skocc.feature_extraction import DeepFeatures\nDeepFeatures().fit([]).",
            {"transform", "get_feature_names_out"},
        ),
        ("from skocc.datasets import make_textures\nmake_textures(2).", {"astype"}),
    ],
)
def test_an_editor_completes(code, names):
    assert completed(code) >= names


def test_a_type_checker_knows_the_names_and_refuses_others(tmp_path):
    (tmp_path / "mypy.ini").write_text(SETTINGS)
    (tmp_path / "code.py").write_text(
        "import skocc\n"
        "from skocc import NoSuchThing\n"
        "from skocc.metrics import NoSuchMetric\n"
        "reveal_type(skocc.DeepSVDD)\n"
        "reveal_type(skocc.metrics.auroc([1, -1], [0.5, 0.1]))\n"
        "skocc.datasets.make_textures('ten')\n"
    )
    options = ["--no-incremental", "--no-site-packages"]
    result = subprocess.run(
        [sys.executable, "-m", "mypy", *options, "code.py"],
        cwd=tmp_path,
        env=os.environ | {"MYPYPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert "Found 3 errors in 1 file" in result.stdout, result
    said = dict(line.split(": ", 1) for line in result.stdout.splitlines() if ": " in line)
    assert '"skocc" has no attribute "NoSuchThing"' in said["code.py:2"]
    assert '"skocc.metrics" has no attribute "NoSuchMetric"' in said["code.py:3"]
    assert "-> skocc.estimators._deep_svdd.DeepSVDD" in said["code.py:4"]
    assert said["code.py:5"].endswith(('"float"', '"builtins.float"'))
    assert 'incompatible type "str"; expected "int"' in said["code.py:6"]


def test_the_package_says_that_it_has_types():
    assert (ROOT / "skocc" / "py.typed").exists()
