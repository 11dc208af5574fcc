import numpy as np
import pytest
import torch

from skocc._engine.memory import memory_errors_named


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("could not create a primitive"),
        RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB.\nGPU 0 has 79 GiB"),
        MemoryError(),
    ],
)
def test_errors_that_mean_no_memory(error):
    with (
        pytest.raises(
            MemoryError, match=r"not enough memory.*Got '.*'\. Set a smaller"
        ) as e,
        memory_errors_named(),
        memory_errors_named(),
    ):  # named once
        raise error
    assert str(e.value).count("not enough memory") == 1
    assert "\n" not in str(e.value)
    assert e.value.__cause__ is error


@pytest.mark.parametrize("make", [torch.empty, np.empty])
def test_as_they_are_raised(make):
    message = "not enough memory.*allocate"
    with pytest.raises(MemoryError, match=message), memory_errors_named():
        make(10**15)


@pytest.mark.parametrize("size", [2**63, 2**70])
@pytest.mark.parametrize("make", [torch.empty, lambda n: torch.nn.Linear(2, n)])
def test_sizes_that_are_no_64_bit_integers(make, size):
    message = "parameter is far too large"
    with pytest.raises(MemoryError, match=message), memory_errors_named():
        make(size)


def test_other_errors_are_left_alone():
    message = "must match the size"
    with pytest.raises(RuntimeError, match=message) as e, memory_errors_named():
        torch.zeros(2) + torch.zeros(3)
    assert type(e.value) is RuntimeError
