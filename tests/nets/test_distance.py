import pytest
import torch

from skocc._nets.distance import LearntDistance
from skocc._ops.losses import closeness_loss, dispersion_loss


@pytest.fixture
def pairs():
    generator = torch.Generator().manual_seed(0)
    return torch.rand(2, 50, 6, generator=generator)


def randomized(difference):
    torch.manual_seed(1)
    distance = LearntDistance(6, difference)
    torch.nn.init.normal_(distance.unit.bias)
    return distance


def test_number_of_weights():
    assert sum(p.numel() for p in LearntDistance(512).parameters()) == 513


def test_absolute_difference_is_symmetric(pairs):
    distance, (first, second) = randomized("abs"), pairs
    assert torch.equal(distance(first, second), distance(second, first))
    # At no distance, the logit is the bias.
    torch.testing.assert_close(distance(first, first), distance.unit.bias.expand(50))
    by_hand = (first - second).abs() @ distance.unit.weight[0] + distance.unit.bias
    torch.testing.assert_close(distance(first, second), by_hand)


def test_signed_difference_contradicts_itself(pairs):
    distance, (first, second) = randomized("signed"), pairs
    there, back = distance(first, second), distance(second, first)
    torch.testing.assert_close(there + back, 2 * distance.unit.bias.expand(50))
    logits = torch.cat([there, back])
    assert closeness_loss(logits) + dispersion_loss(logits) >= 2 * torch.log(
        torch.tensor(2.0)
    )


@pytest.mark.parametrize(("difference", "least"), [("abs", 0.0), ("signed", 1.386)])
def test_what_a_tight_and_a_loose_cloud_can_reach(difference, least):
    """Only absolute differences satisfy both constraints, on clouds that do."""
    generator = torch.Generator().manual_seed(0)
    tight = 0.01 * torch.randn(200, 6, generator=generator)
    loose = 10 * torch.randn(200, 6, generator=generator)
    torch.manual_seed(0)
    distance = LearntDistance(6, difference)
    optimizer = torch.optim.Adam(distance.parameters(), lr=0.05)
    for _ in range(400):
        loss = 0.0
        for cloud, objective in [(tight, closeness_loss), (loose, dispersion_loss)]:
            ordered = (
                torch.cat([cloud, cloud.roll(1, 0)]),
                torch.cat([cloud.roll(1, 0), cloud]),
            )
            loss = loss + objective(distance(*ordered))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    if difference == "abs":
        assert loss < 0.05
    else:
        assert loss >= least
