import numpy as np
import pytest
import torch

from skocc.engine.seeding import seeded


def draw(random_state, device):
    with seeded(random_state, device) as generator:
        return (
            torch.rand(3, device=device).tolist(),
            torch.randperm(5, generator=generator).tolist(),
            np.random.rand(2).tolist(),  # noqa: NPY002
        )


def test_an_int_repeats_and_none_does_not(device):
    assert draw(0, device) == draw(0, device)
    assert draw(0, device) != draw(1, device)
    assert draw(None, device) != draw(None, device)


@pytest.mark.parametrize("random_state", [0, None])
def test_the_callers_states_come_back(random_state, device):
    torch.manual_seed(5)
    np.random.seed(5)  # noqa: NPY002
    draw(random_state, device)
    after = torch.rand(2), torch.rand(2, device=device), np.random.rand(2)  # noqa: NPY002
    torch.manual_seed(5)
    np.random.seed(5)  # noqa: NPY002
    expected = torch.rand(2), torch.rand(2, device=device), np.random.rand(2)  # noqa: NPY002
    assert torch.equal(after[0], expected[0])
    assert torch.equal(after[1], expected[1])
    np.testing.assert_array_equal(after[2], expected[2])


def test_states_come_back_after_an_error():
    before = torch.get_rng_state()

    def stumble():
        with seeded(0, torch.device("cpu")):
            torch.rand(1)
            raise RuntimeError("halfway")

    with pytest.raises(RuntimeError, match="halfway"):
        stumble()
    assert torch.equal(torch.get_rng_state(), before)


def test_a_random_state_object_moves_on():
    random_state = np.random.RandomState(0)
    device = torch.device("cpu")
    assert draw(random_state, device) != draw(random_state, device)
