import numpy as np
import torch

from skocc._engine.device import on_device
from skocc._engine.inference import map_batches

BATCHES = [torch.arange(3.0).view(3, 1), torch.arange(3.0, 5.0).view(2, 1)]


def test_results_in_order_without_gradients_in_eval_mode():
    module = torch.nn.Sequential(torch.nn.Linear(1, 2), torch.nn.BatchNorm1d(2))
    before = module[1].running_mean.clone()
    result = map_batches(module, BATCHES)
    assert result.shape == (5, 2)
    assert not module.training
    assert torch.equal(module[1].running_mean, before)
    expected = module(torch.cat(BATCHES)).detach().numpy()
    np.testing.assert_allclose(result, expected, rtol=1e-6)


def test_several_results():
    first, second = map_batches(
        torch.nn.Identity(), BATCHES, lambda batch: (batch, batch.sum(0, keepdim=True))
    )
    assert first.ravel().tolist() == [0, 1, 2, 3, 4]
    assert second.ravel().tolist() == [3, 7]


def test_a_fitted_module_is_never_moved():
    module = torch.nn.Linear(2, 2)
    assert on_device(module, torch.device("cpu")) is module
    double = on_device(module, torch.device("cpu"), torch.float64)
    assert double.weight.dtype == torch.float64
    assert module.weight.dtype == torch.float32
