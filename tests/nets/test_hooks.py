import copy
import os
import pickle
import subprocess
import sys
import threading

import pytest
import torch
from torch import nn
from torch.nn import functional

from skocc._engine.feature_cache import fingerprint
from skocc._nets.backbones import FeatureMaps
from skocc._nets.hooks import HookedLayers, first_tensor
from skocc._nets.own_code import code_of


class Plain(nn.Module):
    """Operations in place behind layers, one layer used twice, a pair, one never used."""

    branches = False
    factor = 2

    def __init__(self):
        super().__init__()
        self.first, self.act = nn.Conv2d(3, 4, 3), nn.ReLU(inplace=True)
        self.pair, self.unused = Pair(), nn.Linear(2, 2)
        self.last = nn.Conv2d(4, 2, 1)

    def forward(self, x):
        y = self.act(self.first(x))
        if self.branches and x.shape[0] < 0:
            return y
        z = functional.relu(self.act(self.pair(y)[0] * self.factor - 1), inplace=True)
        return self.last(z)


class Pair(nn.Module):
    def forward(self, x):
        return x + 1, x.mean((2, 3))


class Branching(Plain):
    branches = True

    def forward(self, x):
        if x.shape[0] > 1000:
            raise RuntimeError("too many")
        return super().forward(x)


class NeedsValues(Branching):
    def forward(self, x):
        return super().forward(x if x.abs().sum() >= 0 else -x)


def pair_of(kind=Branching):
    torch.manual_seed(0)
    plain, other = Plain().eval(), kind().eval()
    other.load_state_dict(plain.state_dict())
    return plain, other


LAYERS = ["pair", "first", "act"]


@pytest.mark.parametrize("kind", [Branching, NeedsValues])
def test_hooks_keep_what_a_traced_graph_returns(kind):
    plain, other = pair_of(kind)
    traced = FeatureMaps(plain, LAYERS, in_shape=(1, 9, 9))
    hooked = FeatureMaps(other, LAYERS, in_shape=(1, 9, 9))
    assert not isinstance(traced.body, HookedLayers)
    assert isinstance(hooked.body, HookedLayers)
    assert hooked.n_channels == traced.n_channels == 3
    batch = torch.randn(4, 1, 9, 9)
    assert hooked.shapes(9, 9) == traced.shapes(9, 9)
    copies = [copy.deepcopy(hooked), pickle.loads(pickle.dumps(hooked))]
    for network in (hooked, *copies):
        for found, expected in zip(network(batch), traced(batch), strict=True):
            assert torch.equal(found, expected)
        assert not any(m._forward_hooks for m in network.modules())
    assert traced(batch)[1].min() < 0  # before the change in place


def test_nothing_behind_the_last_layer_runs():
    _, other = pair_of()
    hooked = FeatureMaps(other, ["pair"], in_shape=(3, 9, 9))
    hooked.body.model.last = None
    assert hooked(torch.rand(2, 3, 9, 9))[0].shape == (2, 4, 7, 7)


def test_hooks_are_removed_after_an_error():
    _, other = pair_of()
    hooked = FeatureMaps(other, LAYERS, in_shape=(3, 9, 9))
    with pytest.raises(RuntimeError, match="too many"):
        hooked(torch.rand(1001, 3, 9, 9))
    assert not any(m._forward_hooks for m in hooked.modules())
    assert hooked(torch.rand(2, 3, 9, 9))[0].shape == (2, 4, 7, 7)


def test_layers_that_do_not_run():
    _, other = pair_of()
    with pytest.raises(ValueError, match=r"'unused', which does not run when this Branch"):
        FeatureMaps(other, ["unused"], in_shape=(3, 9, 9))
    with pytest.raises(ValueError, match=r"does not take these samples.*\(2, 4, 9, 9\)"):
        FeatureMaps(other, ["first"], in_shape=(4, 9, 9))


def test_sizes_of_a_network_without_weights():
    """As when a file is loaded: there are no values, and the network asks for them."""
    _, other = pair_of(NeedsValues)
    with torch.device("meta"):
        empty = FeatureMaps(other, LAYERS, in_shape=(1, 9, 9))
    assert next(empty.parameters()).device.type == "meta"
    assert empty.shapes(9, 9) == [(4, 7, 7)] * 3
    assert next(empty.parameters()).device.type == "meta"


def test_threads_that_share_a_network():
    _, other = pair_of()
    hooked = FeatureMaps(other, LAYERS, in_shape=(3, 9, 9))
    batches = [torch.randn(2, 3, 9, 9) for _ in range(4)]
    expected = [hooked(batch) for batch in batches]
    start, wrong = threading.Barrier(4), []

    def work(index):
        start.wait()
        for _ in range(100):
            found = hooked(batches[index])
            same = zip(found, expected[index], strict=True)
            if not all(torch.equal(one, other) for one, other in same):
                wrong.append(index)
            if index == 0:
                copy.deepcopy(hooked)

    threads = [threading.Thread(target=work, args=(index,)) for index in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert not any(m._forward_hooks for m in hooked.modules())
    assert hooked.body._n_running == 0


def test_the_first_tensor():
    tensor = torch.ones(1)
    for output in (tensor, (tensor, 2), [None, tensor], {"a": tensor, "b": 1}):
        assert first_tensor(output) is tensor
    assert first_tensor((1, 2)) == (1, 2)


KEY = """
import torch
from tests.nets.test_hooks import FeatureMaps, fingerprint, pair_of
print(fingerprint(FeatureMaps(pair_of()[1], ["act"], in_shape=(3, 9, 9))))
"""


def test_keys_of_a_cache():
    """They differ by weights, settings and code, and not by process or copy."""
    _, other = pair_of()
    key = fingerprint(FeatureMaps(other, ["act"], in_shape=(3, 9, 9)))
    for seed in ("0", "1"):
        result = subprocess.run(
            [sys.executable, "-W", "ignore", "-c", KEY],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
        )
        assert result.stdout.strip() == key, result.stderr[-500:]
    again = FeatureMaps(copy.deepcopy(other), ["act"], in_shape=(3, 9, 9))
    assert fingerprint(pickle.loads(pickle.dumps(again))) == key
    again.body(torch.rand(1, 3, 9, 9))
    assert fingerprint(again) == key

    class Other(Branching):
        def forward(self, x):
            return super().forward(x) + 0

    keys = {key}
    weights, setting, code, layers = (pair_of()[1] for _ in range(4))
    weights.last.bias.data += 1
    setting.factor = 3
    code.__class__ = Other
    for module, names in ((weights, ["act"]), (setting, ["act"]), (code, ["act"]),
                          (layers, ["first"])):  # fmt: skip
        keys.add(fingerprint(FeatureMaps(module, names, in_shape=(3, 9, 9))))
    assert len(keys) == 5


def test_code_of_what_a_forward_calls():
    def network(scale, names):
        def helper(x):
            return scale * x

        class Net(nn.Module):
            def __init__(self):
                super().__init__()
                self.names, self.table = names, {"a": [1, scale]}

            def forward(self, x):
                return helper(x) if x.sum() > 0 and "a" in {"a", "b", "c"} else x

        Net.__qualname__ = "Net"
        return Net()

    text = code_of(network(2, {"a", "b"}))
    assert text == code_of(network(2, {"b", "a"}))
    assert len({text, code_of(network(3, {"a", "b"})), code_of(network(2, {"c"}))}) == 3
