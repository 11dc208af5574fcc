"""The script ``examples/benchmarks/gpu.py``, without a card."""

import argparse
import importlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.quick import ESTIMATORS

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"


def read_lines(folder):
    text = (folder / "results.jsonl").read_text()
    return [json.loads(line) for line in text.splitlines()]


@pytest.fixture
def gpu(monkeypatch):
    monkeypatch.syspath_prepend(EXAMPLES / "benchmarks")
    return importlib.import_module("gpu")


@pytest.fixture
def lines(tmp_path):
    def read():
        return read_lines(tmp_path)

    return read


def options(tmp_path, seconds=60, **values):
    end = time.monotonic() + seconds
    return argparse.Namespace(
        output=tmp_path,
        device=torch.device("cpu"),
        quick=False,
        minutes=seconds / 60,
        n_jobs=2,
        left=lambda: end - time.monotonic(),
        **values,
    )


def test_lines_are_there_at_once_and_errors_are_lines(gpu, tmp_path, lines):
    report = gpu.Report(tmp_path)
    report.add("a", figure=0.123456)
    assert lines() == [{"part": "a", "figure": 0.123456}]
    with report.errors_of("b", estimator="X"):
        raise ZeroDivisionError("seven")
    report.add("c")
    parts = lines()
    assert [line["part"] for line in parts] == ["a", "b", "c"]
    assert parts[1]["status"] == "failed"
    assert "ZeroDivisionError: seven" in parts[1]["error"]
    text = (tmp_path / "results.txt").read_text()
    assert text.splitlines()[0].split() == ["a", "figure:", "0.1235"]


@pytest.mark.parametrize(
    ("code", "ended", "output"),
    [
        ("print('yes')", "ok", "yes"),
        ("print('no'); raise SystemExit(3)", "failed", "no"),
        ("import time; print('begun', flush=True); time.sleep(60)", "out of time", "begun"),
    ],
)
def test_commands_end_in_one_of_three_ways(gpu, code, ended, output):
    seconds = 1 if "sleep" in code else 30
    assert gpu.call([sys.executable, "-c", code], seconds) == (f"{output}\n", ended)


def test_parts_that_fail_or_hang_do_not_stop_the_others(gpu, tmp_path, lines, monkeypatch):
    """The parts are processes: here of another script, which behaves badly."""
    script = tmp_path / "script.py"
    script.write_text(
        "import os, sys, time\n"
        "name = sys.argv[sys.argv.index('--only') + 1]\n"
        "if name == 'tests': raise ValueError('broken')\n"
        "if name == 'equality': os.abort()\n"
        "open(f'{sys.argv[1]}/{name}', 'w').close()\n"
    )
    monkeypatch.setattr(gpu, "__file__", str(script))
    gpu.run_parts(gpu.Report(tmp_path), options(tmp_path), [str(tmp_path)])
    first, second = lines()
    assert (first["part"], first["status"]) == ("tests", "failed")
    assert "ValueError: broken" in first["error"]
    assert (second["part"], second["status"]) == ("equality", "failed")
    for name in ("about", "saved", "roofline", "knn", "reproduction"):
        assert (tmp_path / name).exists()


def test_no_part_starts_without_time(gpu, tmp_path, lines):
    gpu.run_parts(gpu.Report(tmp_path), options(tmp_path, seconds=1), [])
    assert {line["status"] for line in lines()} == {"not started"}
    assert [line["part"] for line in lines()] == [part.__name__ for part in gpu.PARTS]


def test_rows_side_by_side(gpu, tmp_path, lines, monkeypatch):
    """One writes two lines, one fails, one hangs; one has no data, one not enough time."""
    folder = tmp_path / "examples" / "reproduction"
    folder.mkdir(parents=True)
    (folder / "rows.py").write_text(
        "import sys, time\n"
        "kind, path = sys.argv[sys.argv.index('--classes') + 1], sys.argv[-1]\n"
        "if kind == '1': raise ValueError('no such class')\n"
        "with open(path, 'w') as file: file.write('class,auroc\\n0,97.5\\n0,98.5\\n')\n"
        "if kind == '2': time.sleep(60)\n"
    )
    (tmp_path / "here.npz").touch()
    monkeypatch.setenv("SKOCC_DATA", str(tmp_path))
    monkeypatch.setattr(gpu, "ROOT", tmp_path)
    rows = [
        ("here", "rows.py", (0, 1, 2), 0, []),
        ("there", "rows.py", (0,), 0, []),
        ("here", "rows.py", (3,), 60, []),
    ]
    monkeypatch.setattr(gpu, "ROWS", rows)
    last, values = tmp_path / "row-0-2.csv", options(tmp_path)
    # Time is up when the last of them has begun.
    values.left = lambda: 4 if len(gpu.read_rows(last)) == 2 else 60
    gpu.reproduction(gpu.Report(tmp_path), values)
    found = lines()
    measured = {(x["row"][-1], x["auroc"]) for x in found if "auroc" in x}
    assert measured == {("0", "97.5"), ("0", "98.5"), ("2", "97.5"), ("2", "98.5")}
    ended = {x["row"].split()[-1]: x["status"] for x in found if "status" in x}
    assert ended == {"0": "ok", "1": "failed", "2": "out of time", "3": "not started"} | {
        "rows.py": "skipped"
    }
    (failure,) = [x["output"] for x in found if x.get("status") == "failed"]
    assert "ValueError: no such class" in failure


def test_all_estimators_are_compared(gpu):
    assert set(gpu.SETTINGS) == {cls.__name__ for cls in ESTIMATORS}


def test_rows_are_commands_of_the_scripts(gpu, tmp_path, monkeypatch):
    """Every command of the last part is one that its script takes."""
    monkeypatch.syspath_prepend(EXAMPLES / "reproduction")
    for data, *_ in gpu.ROWS:
        (tmp_path / data).touch()
    monkeypatch.setenv("SKOCC_DATA", str(tmp_path))
    report = gpu.Report(tmp_path)
    found = gpu.jobs(report, options(tmp_path))
    assert len(found) == sum(max(1, len(classes)) for _, _, classes, *_ in gpu.ROWS)
    assert len({path for *_, path in found}) == len(found)  # a file each
    for _, _, command, path in found:
        script, taken = importlib.import_module(Path(command[1]).stem), []

        def stop(options, *arguments, taken=taken):
            taken.append(options)
            raise KeyboardInterrupt

        for name in ("run", "make"):  # what is done with the options that were read
            if hasattr(script, name):
                monkeypatch.setattr(script, name, stop)
        monkeypatch.setattr(sys, "argv", command[1:])
        with pytest.raises(KeyboardInterrupt):
            script.main()
        (read,) = taken
        assert read.output == path
        assert read.device == "cpu"


def test_shares_of_the_roofline(gpu):
    """Operations and bytes of a product, against numbers by hand."""
    roofline = importlib.import_module("bench_roofline")
    a, b = torch.ones(8, 4), torch.ones(4, 2)
    figures = roofline.measure(lambda: a @ b, torch.device("cpu"), 1e3, 1e9, 1)
    assert figures["gflop"] == pytest.approx(2 * 8 * 4 * 2 / 1e9)
    assert figures["gbyte"] == pytest.approx(4 * (8 * 4 + 4 * 2 + 8 * 2) / 1e9)
    assert figures["bound"] == "compute"
    assert figures["share"] == pytest.approx(128 / 1e3 / figures["seconds"])
    moved = roofline.measure(lambda: a + a, torch.device("cpu"), 1e3, 1e3, 1)
    assert moved["bound"] == "memory"
    assert moved["share"] == pytest.approx(4 * 3 * 32 / 1e3 / moved["seconds"])


def test_differences_are_relative_to_the_scores(gpu):
    expected = np.array([-2.0, 4.0])
    scores = np.array([-2.0, 4.3])
    assert gpu.difference(scores, expected) == pytest.approx(0.1)


@pytest.mark.parametrize(("wrong", "status"), [(1e-5, "ok"), (1e-3, "failed")])
def test_a_fit_is_compared_and_kept(gpu, tmp_path, lines, monkeypatch, wrong, status):
    """Also where the scores of the devices differ by too much."""
    monkeypatch.setattr(gpu, "difference", lambda *scores: wrong)
    values, setting = options(tmp_path), gpu.SETTINGS["DeepSVDD"][0]
    gpu.compare(gpu.Report(tmp_path), values, "DeepSVDD", "small", setting, "cpu")
    assert torch.backends.cudnn.allow_tf32  # as it was
    gpu.rescore(gpu.Report(tmp_path), values)
    compared, rescored = lines()
    assert [compared["status"], rescored["status"]] == [status, status]
    assert compared["difference_without_tf32"] == rescored["difference"] == wrong


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a card")
def test_nothing_is_measured_without_a_card(gpu, tmp_path, capsys, monkeypatch):
    folder = tmp_path / "results"
    gpu.main(["--output", str(folder)])
    assert "No CUDA device" in capsys.readouterr().out
    assert not folder.exists()
    # But what a card has fitted is scored without one.
    command = ["gpu.py", "--device", "cuda", "--output", str(folder)]
    folder.mkdir()
    monkeypatch.setattr(sys, "argv", command)
    gpu.main([*command[1:], "--only", "rescore"])
    (folder / "lost.skocc").touch()
    gpu.main([*command[1:], "--only", "saved"])
    last = read_lines(folder)[-1]
    assert (last["status"], last["files"], last["equal"]) == ("failed", 1, 0)


@pytest.mark.slow
def test_everything_on_a_cpu(tmp_path):
    """The whole command, with a few images of digits for a row of the last part."""
    rng = np.random.default_rng(0)
    np.savez(
        tmp_path / "mnist.npz",
        train_images=rng.integers(0, 256, (60, 28, 28), dtype=np.uint8),
        train_labels=np.arange(60) % 10,
        test_images=rng.integers(0, 256, (40, 28, 28), dtype=np.uint8),
        test_labels=np.arange(40) % 10,
    )
    output = tmp_path / "results"
    command = [
        sys.executable, EXAMPLES / "benchmarks" / "gpu.py", "--device", "cpu", "--quick",
        "--n-jobs", "1", "--minutes", "20", "--output", output,
    ]  # fmt: skip
    subprocess.run(command, check=True, env={**os.environ, "SKOCC_DATA": str(tmp_path)})
    found = read_lines(output)
    wrong = [line for line in found if line.get("status", "ok") not in ("ok", "skipped")]
    assert wrong == []
    parts = [line["part"] for line in found]
    order = ["about", "tests", "equality", "saved", "roofline", "knn", "reproduction"]
    assert list(dict.fromkeys(parts)) == order
    names = {cls.__name__ for cls in ESTIMATORS}
    assert {line["estimator"] for line in found if "estimator" in line} == names
    assert sum("file" in line for line in found) == len(names)
    assert any(line.get("method") == "DataSplitOCC" for line in found)
