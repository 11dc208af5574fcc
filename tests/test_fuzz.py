"""A few odd cases; more of them are slow, and ``python -m tests.fuzz`` tries others."""

import pytest
from hypothesis import HealthCheck, given, settings

from tests import fuzz

# At least 2,000 in all. Fits take most of the time.
N_CASES = {
    "fits": 15, "parameters": 30, "metrics": 300, "thresholds": 280, "splits": 280,
    "makers": 250, "folders": 180, "tables": 50, "commands": 35, "models": 100,
    "caches": 180, "images": 300,
}  # fmt: skip


def test_every_kind_is_tried():
    assert N_CASES.keys() == fuzz.KINDS.keys() == fuzz.SHARES.keys()
    assert sum(N_CASES.values()) >= 2000
    assert sum(fuzz.SHARES.values()) == 100


@pytest.mark.filterwarnings("ignore:Patches of 8 pixels")
@pytest.mark.parametrize("part", [0.1, pytest.param(1, marks=pytest.mark.slow)])
@pytest.mark.parametrize("kind", N_CASES)
def test_odd_cases(kind, part):
    @settings(
        max_examples=round(part * N_CASES[kind]),
        derandomize=True,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(fuzz.KINDS[kind])
    def run(line):
        fuzz.run(line)

    run()


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("attempt(lambda: 1 / 0)", "ZeroDivisionError"),
        ("attempt(lambda: [][0])", "IndexError"),
        ("attempt(lambda: int('x'))", "ValueError: invalid literal"),
        ("attempt(lambda: np.zeros(2).reshape(3))", "ValueError: cannot reshape"),
        ("attempt(lambda: torch.zeros(2) @ torch.zeros(3))", "RuntimeError"),
        ("np.log(np.zeros(1))", "warning: .*RuntimeWarning"),
        ("check(1 > 2, 'one', 'two')", "broken promise.*one.*two"),
        ("any(None for _ in iter(int, 1))", "hang"),
    ],
)
def test_what_is_a_fault(line, message, monkeypatch):
    monkeypatch.setattr(fuzz, "SECONDS", 1)
    with pytest.raises(fuzz.Fault, match=message):
        fuzz.run(line)


def test_words_of_ours_are_none():
    fuzz.run("attempt(skocc.metrics.auroc, [1, 1], [1, 2])")
    fuzz.run("attempt(skocc.DeepSVDD().predict, np.ones((3, 8, 8)))")
