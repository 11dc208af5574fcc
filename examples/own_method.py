"""A detector of one's own: a linear autoencoder with a robust loss.

Run it with ``python examples/own_method.py``. The tests run the class through everything
that is asked of skocc's own detectors.
"""

import math
from numbers import Integral, Real

import torch
from torch import nn

import skocc
from skocc.base import Interval, NetworkDetector


@skocc.register
class LinearAE(NetworkDetector):
    """What a few directions of the space of images cannot reconstruct is anomalous."""

    _parameter_constraints = {
        **NetworkDetector._parameter_constraints,
        "latent_dim": [Interval(Integral, 1, None, closed="left")],
        "delta": [Interval(Real, 0, None, closed="neither")],
    }

    def __init__(self, *, latent_dim=8, delta=1.0, learning_rate=1e-2, **params):
        super().__init__(learning_rate=learning_rate, **params)
        self.latent_dim = latent_dim
        self.delta = delta

    def build_network(self):
        n_values, latent_dim = math.prod(self.image_shape_), int(self.latent_dim)
        return nn.Sequential(
            nn.Flatten(), nn.Linear(n_values, latent_dim), nn.Linear(latent_dim, n_values)
        )

    def make_optimizer(self, parameters, learning_rate, weight_decay):
        return torch.optim.Adam(
            parameters, learning_rate, weight_decay=float(weight_decay), amsgrad=True
        )

    def loss(self, network, batch):
        return nn.functional.huber_loss(
            network(batch), batch.flatten(1), delta=float(self.delta)
        )

    def sample_scores(self, network, batch):
        return -(network(batch) - batch.flatten(1)).square().mean(dim=1)


if __name__ == "__main__":
    from sklearn.datasets import load_digits
    from sklearn.metrics import roc_auc_score

    digits = load_digits()
    images, is_zero = digits.images / 16, digits.target == 0
    detector = LinearAE(validation_fraction=0.2, random_state=0)
    detector.fit(images[:900][is_zero[:900]])
    auroc = roc_auc_score(is_zero[900:], detector.score_samples(images[900:]))
    print(f"AUROC {auroc:.3f}, {len(detector.loss_curve_)} epochs")
    skocc.save(detector, "linear_ae.safetensors")
    print(skocc.load("linear_ae.safetensors"))
