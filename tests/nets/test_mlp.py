import torch

from skocc.nets.mlp import MLP


def test_shapes_and_no_bias():
    torch.manual_seed(0)
    network = MLP((7, 16, 5)).eval()
    rows = torch.randn(4, 7)
    assert network(rows).shape == (4, 5)
    assert sum(parameter.numel() for parameter in network.parameters()) == 7 * 16 + 16 * 5
    assert torch.equal(network(torch.zeros(1, 7)), torch.zeros(1, 5))
    torch.testing.assert_close(network(2 * rows), 2 * network(rows), rtol=1e-4, atol=1e-5)


def test_output_has_no_activation():
    torch.manual_seed(0)
    assert MLP((3, 8, 4)).eval()(torch.randn(50, 3)).min() < -0.1
