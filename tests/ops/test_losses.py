import numpy as np
import pytest
import torch

from skocc._ops.losses import (
    closeness_loss,
    dispersion_loss,
    hard_boundary_loss,
    intra_class_loss,
    pairwise_distance_loss,
    reconstruction_loss,
    soft_boundary_loss,
    squared_distance,
)

D = torch.tensor([1.0, 4.0, 9.0, 16.0])


def test_values_by_hand():
    assert soft_boundary_loss(D, torch.tensor(2.0), 0.1).item() == pytest.approx(46.5)
    assert hard_boundary_loss(D).item() == 7.5
    batch = torch.zeros(2, 1, 2, 2)
    assert reconstruction_loss(batch + 0.5, batch).item() == 1.0
    z = torch.tensor([[0.0, 0.0], [3.0, 4.0]])
    assert squared_distance(z, torch.zeros(2)).tolist() == [0.0, 25.0]
    assert pairwise_distance_loss(z, torch.zeros(2, 2)).item() == 2.5


def test_distances_of_nearly_collapsed_embeddings_do_not_cancel():
    z = torch.tensor([[1000.0, 1000.0]]) + torch.tensor([[0.0, 1e-3]])
    exact = (z.double() - 1000).square().sum()
    assert squared_distance(z, torch.full((2,), 1000.0)).item() == pytest.approx(
        exact.item()
    )


def test_gradients():
    z = torch.randn(5, 3, dtype=torch.float64, requires_grad=True)
    center, radius = torch.ones(3, dtype=torch.float64), torch.tensor(1.0).double()
    torch.autograd.gradcheck(lambda z: hard_boundary_loss(squared_distance(z, center)), z)
    torch.autograd.gradcheck(
        lambda z: soft_boundary_loss(squared_distance(z, center), radius, 0.2), z
    )
    # A batch of one.
    torch.autograd.gradcheck(lambda z: reconstruction_loss(z[:1], torch.zeros(1, 3)), z)
    # Neighbors of the same embedding stay where they are.
    z_neighbor = torch.randn(5, 3, dtype=torch.float64)
    torch.autograd.gradcheck(lambda z: pairwise_distance_loss(z, z_neighbor), z)
    pairwise_distance_loss(z, z.detach()).backward()
    assert torch.equal(z.grad, torch.zeros_like(z))


def test_losses_of_data_splitting():
    zeros = torch.zeros(4)
    labels = torch.tensor([True, False, True, False])
    for loss in (
        closeness_loss(zeros), dispersion_loss(zeros), intra_class_loss(zeros, labels)
    ):  # fmt: skip
        assert loss.item() == pytest.approx(np.log(2))
    logits = torch.tensor([-3.0, 0.5, 2.0, -0.1], dtype=torch.float64, requires_grad=True)
    probability = torch.sigmoid(logits)
    # The formulas of the paper, which overflow for large logits.
    torch.testing.assert_close(closeness_loss(logits), -(1 - probability).log().mean())
    torch.testing.assert_close(dispersion_loss(logits), -probability.log().mean())
    y = labels.double()
    entropy = y * probability.log() + (1 - y) * (1 - probability).log()
    torch.testing.assert_close(intra_class_loss(logits, labels), -entropy.mean())
    assert closeness_loss(torch.tensor([1000.0])) == 1000
    assert dispersion_loss(torch.tensor([-1000.0])) == 1000
    for loss in (closeness_loss, dispersion_loss, lambda u: intra_class_loss(u, labels)):
        torch.autograd.gradcheck(loss, logits)
