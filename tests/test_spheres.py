import pytest
import torch

from skocc.losses import soft_boundary_loss
from skocc.spheres import SoftBoundary, away_from_zero, quantile_radius

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
