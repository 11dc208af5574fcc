from functools import partial

import numpy as np
import pytest
import torch

from skocc._engine import inference
from skocc._engine.device import on_device
from skocc._engine.inference import map_batches
from tests.quick import ESTIMATORS, quick

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


def limited(n_most, seen):
    """Return a function for which a GPU has memory for so many images."""

    def function(batch):
        seen.append(len(batch))
        if len(batch) > n_most:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory.")
        return batch * 2

    return function


def test_batches_are_halved_where_memory_does_not_suffice():
    batches, seen = [*torch.arange(28.0).view(28, 1).split(9)], []
    with pytest.warns(UserWarning, match=r"Got \d images in scores; .* halved to") as said:
        result = map_batches(torch.nn.Identity(), batches, limited(3, seen))
    assert result.ravel().tolist() == [2.0 * i for i in range(28)]
    # Once that is known, later batches are cut at once.
    assert seen == [9, 5, 3, 2, 3, 1, 3, 3, 3, 3, 3, 3, 1]
    assert len(said) == 2


def test_an_image_that_is_too_large_is_an_error():
    with (
        pytest.warns(UserWarning, match="halved to 1"),
        pytest.raises(torch.cuda.OutOfMemoryError),
    ):
        map_batches(torch.nn.Identity(), [torch.zeros(2, 1)], limited(0, []))


@pytest.mark.parametrize("estimator_class", ESTIMATORS)
def test_scores_are_the_same_in_halves(estimator_class, digits, monkeypatch):
    def call(function, batch):
        """Stands for a function on a GPU with memory for seven images."""
        if isinstance(batch, torch.Tensor) and len(batch) > 7:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory.")
        return function(batch)

    whole = quick(estimator_class).fit(digits[0][:24])
    expected = whole.score_samples(digits[1][:20])
    results = inference._Sizes.results
    monkeypatch.setattr(
        inference._Sizes,
        "results",
        lambda sizes, function, batch: results(sizes, partial(call, function), batch),
    )
    with pytest.warns(UserWarning, match="batches are halved"):
        halves = quick(estimator_class).fit(digits[0][:24])
    with pytest.warns(UserWarning, match="batches are halved"):
        found = halves.score_samples(digits[1][:20])
    np.testing.assert_allclose(found, expected, rtol=1e-4)
    np.testing.assert_allclose(halves.train_scores_, whole.train_scores_, rtol=1e-4)
