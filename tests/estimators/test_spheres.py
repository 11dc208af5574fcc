import numpy as np
import pytest
import torch

from skocc._ops.losses import soft_boundary_loss
from skocc.estimators._spheres import (
    HardBoundary,
    SoftBoundary,
    away_from_zero,
    distances_to_centers,
    final_radius,
    initial_centers,
    quantile_radius,
)

D = torch.tensor([1.0, 4.0, 9.0, 16.0])


def test_center_rule():
    center = away_from_zero(torch.tensor([0.05, -0.05, 0.0, 0.2, -0.3]))
    assert center.tolist() == pytest.approx([0.1, -0.1, 0.1, 0.2, -0.3])


def test_radius_is_a_quantile_of_distances_not_squares():
    assert quantile_radius(D, 0.1).item() == pytest.approx(3.7)
    assert quantile_radius(D, 0.25).item() == pytest.approx(3.25)


def test_radius_waits_for_the_warm_up_then_follows_batches():
    sphere = SoftBoundary(0.1, n_batches=2, warm_up_n_epochs=1, update="batch")
    for _ in range(2):
        assert sphere(D).item() == pytest.approx(D.mean().item() / 0.1)
        assert sphere.radius == 0
    # The loss of a batch is that of the radius before it.
    assert sphere(D).item() == pytest.approx(D.mean().item() / 0.1)
    assert sphere.radius.item() == pytest.approx(3.7)
    torch.testing.assert_close(sphere(D), soft_boundary_loss(D, torch.tensor(3.7), 0.1))


def test_radius_by_epoch_uses_all_batches():
    sphere = SoftBoundary(0.25, n_batches=2, warm_up_n_epochs=0, update="epoch")
    sphere(D[:2])
    assert sphere.radius == 0
    sphere(D[2:])
    assert sphere.radius.item() == pytest.approx(3.25)
    sphere(D[:2])
    assert sphere.radius.item() == pytest.approx(3.25)


def test_radius_takes_no_part_in_the_gradient():
    distances = D.clone().requires_grad_()
    sphere = SoftBoundary(0.1, n_batches=1, warm_up_n_epochs=0, update="batch", radius=2.0)
    sphere(distances).backward()
    assert not sphere.radius.requires_grad
    # Each image outside pulls with 1 / (nu n), those inside with nothing.
    assert distances.grad.tolist() == pytest.approx([0, 0, 2.5, 2.5])


def two_spaces(batch):
    """Features of sizes 2 and 1, two of each sample."""
    pairs = batch.repeat_interleave(2, dim=0)
    return [pairs, 10 * pairs[:, :1]]


BATCHES = torch.tensor([[1.0, 0.0], [3.0, 0.1], [8.0, -0.4]]).split(2)


def test_centers_are_means_over_batches_of_any_size():
    network = torch.nn.Dropout().train()
    first, second = initial_centers(network, two_spaces, BATCHES)
    torch.testing.assert_close(first, torch.tensor([4.0, -0.1]))
    torch.testing.assert_close(second, torch.tensor([40.0]))
    assert not network.training


def test_distances_and_spreads_of_each_space():
    centers = [torch.tensor([4.0, -0.1]), torch.tensor([40.0])]
    distances, spreads = distances_to_centers(
        torch.nn.Identity(), two_spaces, BATCHES, centers
    )
    a, b = np.array([1, 3, 8.0]), np.array([0, 0.1, -0.4])
    expected = np.stack([(a - 4) ** 2 + (b + 0.1) ** 2, 100 * (a - 4) ** 2], axis=1)
    np.testing.assert_allclose(distances, np.repeat(expected, 2, axis=0), rtol=1e-5)
    assert spreads[0] == pytest.approx((a.std() + b.std()) / 2 / 2.05, rel=1e-5)
    assert spreads[1] == pytest.approx(a.std() / 4, rel=1e-5)


def test_hard_boundary_is_the_mean():
    assert HardBoundary()(D).item() == pytest.approx(7.5)


def test_radius_after_training_leaves_nu_outside():
    assert final_radius(D.numpy(), 0.25) == pytest.approx(3.25)
    distances = np.random.default_rng(0).random(997)
    for nu in (0.01, 0.1, 0.5, 1):
        outside = np.mean(distances > final_radius(distances, nu) ** 2)
        assert outside == pytest.approx(nu, abs=1.01 / 997)
