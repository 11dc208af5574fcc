"""The script that runs the benchmarks, and the page that shows what they print."""

import argparse
import importlib
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "examples" / "benchmarks"


@pytest.fixture
def run_all(monkeypatch):
    monkeypatch.syspath_prepend(FOLDER)
    return importlib.import_module("run_all")


def test_every_script_is_run_or_left_out(run_all):
    scripts = {path.name for path in FOLDER.glob("bench_*.py")}
    run = {command.split()[0] for _, command, _ in run_all.RUNS}
    assert run | run_all.LEFT_OUT == scripts
    assert not run & run_all.LEFT_OUT


def test_the_page_shows_every_result(run_all):
    text = (ROOT / "docs" / "performance.rst").read_text(encoding="utf-8")
    shown = re.findall(r"literalinclude:: results/benchmarks/(\w+)\.txt", text)
    assert sorted(shown) == sorted(name for name, *_ in run_all.RUNS)
    for name in shown:
        result = (run_all.RESULTS / f"{name}.txt").read_text(encoding="utf-8")
        assert result.startswith("$ python examples/benchmarks/bench_")
        assert "Traceback" not in result


def test_results_are_written_and_failures_told(run_all, tmp_path, monkeypatch):
    monkeypatch.setattr(run_all, "FOLDER", tmp_path)
    (tmp_path / "good.py").write_text("import sys; print('ratio 1.5', sys.argv[1:])")
    (tmp_path / "bad.py").write_text("print('begun'); raise ValueError('seven')")
    output = tmp_path / "out"
    options = argparse.Namespace(device="cpu", output=output, peers_python=None)
    assert run_all.run("first", "good.py --n 3", options)
    lines = (output / "first.txt").read_text().splitlines()
    assert lines[0] == "$ python examples/benchmarks/good.py --n 3"
    assert "torch" in lines[1]
    assert lines[-1] == "ratio 1.5 ['--n', '3']"
    assert not run_all.run("second", "bad.py", options)
    text = (output / "second.txt").read_text()
    assert "begun" in text
    assert "ValueError: seven" in text
