import torch

from skocc._nets.mlp import MLP, DenseAutoencoder, dense_layers


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


def test_features_of_layers():
    torch.manual_seed(0)
    network = MLP((7, 16, 9, 5)).eval()
    rows = torch.randn(4, 7)
    assert network.n_layers == 3
    first, second, last = network.layer_features(rows, (0, 1, 2))
    # Linear layers, before BatchNorm and activation.
    assert torch.equal(first, network[0](rows))
    assert torch.equal(second, torch.nn.Sequential(*list(network)[:4])(rows))
    assert torch.equal(last, network(rows))
    for layers in [(0,), (1,), (0, 2)]:
        found = network.layer_features(rows, layers)
        assert [z.shape[1] for z in found] == [(16, 9, 5)[j] for j in layers]


def test_autoencoder_mirrors_its_layers():
    torch.manual_seed(0)
    autoencoder = DenseAutoencoder(7, (16, 9), 3)
    rows = torch.randn(4, 7)
    assert autoencoder.encoder(rows).shape == (4, 3)
    assert autoencoder(rows).shape == (4, 7)
    weights = [p.shape for p in autoencoder.parameters() if p.dim() == 2]
    assert weights == [(16, 7), (9, 16), (3, 9), (9, 3), (16, 9), (7, 16)]
    # Rows have any sign, and so have code and output.
    assert autoencoder.encoder(torch.randn(99, 7)).min() < 0 > autoencoder(rows).min()


def test_dense_layers():
    kinds = [type(layer).__name__ for layer in dense_layers((5, 4, 3), dropout=0.2)]
    assert kinds == ["Dropout", "Linear", "ReLU"] * 2
    assert [type(layer).__name__ for layer in dense_layers((5, 4))] == ["Linear", "ReLU"]
