import numpy as np
import pytest
import torch
from torch.nn import functional

from skocc._engine import seeding
from skocc._engine.seeding import seeded


def draw(random_state, device):
    with seeded(random_state, device) as generator:
        return (
            torch.rand(3, device=device).tolist(),
            torch.randperm(5, generator=generator).tolist(),
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


@pytest.mark.parametrize(
    "layer",
    [
        torch.nn.Dropout(0.4),
        torch.nn.Dropout(0.4, inplace=True),
        torch.nn.Dropout1d(0.4),
        torch.nn.AlphaDropout(0.4),
        torch.nn.FeatureAlphaDropout(0.4),
        torch.nn.RReLU(),
    ],
)
def test_layers_draw_what_they_would_after_a_seed(layer):
    values = torch.linspace(-1, 1, 24).view(2, 3, 4)
    with seeded(7, torch.device("cpu")) as generator:
        found = layer(values.clone()), layer(values.clone())
        seed = generator.initial_seed()
    state = torch.get_rng_state()
    torch.manual_seed(seed)
    expected = layer(values.clone()), layer(values.clone())
    torch.set_rng_state(state)
    assert torch.equal(found[0], expected[0])
    assert torch.equal(found[1], expected[1])
    assert not torch.equal(found[0], found[1])


def test_attention_and_recurrent_layers_draw_from_the_stream():
    torch.manual_seed(0)
    recurrent = torch.nn.LSTM(3, 4, num_layers=2, dropout=0.5)
    attention = torch.nn.MultiheadAttention(4, 2, dropout=0.5)
    before = torch.get_rng_state()

    def outputs():
        with seeded(0, torch.device("cpu")):
            z, _ = recurrent(torch.ones(5, 2, 3))
            return attention(z, z, z)[0]

    assert torch.equal(outputs(), outputs())
    assert torch.equal(torch.get_rng_state(), before)


def test_initial_weights_are_those_after_a_seed():
    with seeded(3, torch.device("cpu")) as generator:
        seed = generator.initial_seed()
        found = [torch.nn.Conv2d(3, 4, 3), torch.nn.LSTM(3, 4), torch.nn.Linear(3, 3)]
        torch.nn.init.kaiming_normal_(found[0].weight)
        torch.nn.init.trunc_normal_(found[2].weight)
    state = torch.get_rng_state()
    torch.manual_seed(seed)
    expected = [torch.nn.Conv2d(3, 4, 3), torch.nn.LSTM(3, 4), torch.nn.Linear(3, 3)]
    torch.nn.init.kaiming_normal_(expected[0].weight)
    torch.nn.init.trunc_normal_(expected[2].weight)
    torch.set_rng_state(state)
    for one, other in zip(found, expected, strict=True):
        for a, b in zip(one.parameters(), other.parameters(), strict=True):
            assert torch.equal(a, b)


def test_every_operation_that_draws_is_known():
    """Of torch's operators that are marked as random, those that Python can call."""
    names = set()
    for schema in torch._C._jit_get_all_schemas():
        namespace, _, name = schema.name.partition("::")
        if namespace != "aten" or name.startswith("_"):
            continue
        if not any(hasattr(place, name) for place in (torch, torch.Tensor, functional)):
            continue
        packet = getattr(torch.ops.aten, name)
        operator = getattr(packet, schema.overload_name or "default")
        if torch.Tag.nondeterministic_seeded in operator.tags:
            names.add(name)
    assert {"bernoulli", "randperm", "normal_", "dropout"} <= names
    # torch.random is a module of Python; torch.nn.LSTM calls MIOpen by itself.
    assert names - seeding._DRAWS == {"miopen_rnn", "random"}


def test_which_modules_may_draw():
    quiet = torch.nn.Sequential(torch.nn.Conv2d(1, 1, 1), torch.nn.LSTM(2, 2))
    assert not seeding.may_draw(quiet)
    assert seeding.may_draw(torch.nn.Sequential(quiet, torch.nn.Dropout()))
    assert seeding.may_draw(torch.nn.LSTM(2, 2, num_layers=2, dropout=0.1))

    class Own(torch.nn.Module):
        pass

    assert seeding.may_draw(torch.nn.Sequential(Own()))
