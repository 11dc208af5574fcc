"""A detector written after "Add a method" of CONTRIBUTING.md, and the common tests on it.

It is the template of a new method. Where this file has to do more than that section says,
the section or the base class is wrong.
"""

import copy
import math
from numbers import Integral

import pytest
from sklearn.utils.estimator_checks import (
    estimator_checks_generator,
    parametrize_with_checks,
)
from torch import nn

from skocc._base.constraints import TRAINING_CONSTRAINTS
from skocc._base.detector import BaseDetector, Scores
from skocc._base.private_sklearn import Interval
from skocc._engine.batches import ImageBatches
from skocc._engine.inference import map_batches
from skocc._engine.training import adam, train
from tests import test_common
from tests.quick import quick


class LinearAE(BaseDetector):
    """What a few directions of the space of images cannot reconstruct is anomalous."""

    _parameter_constraints = {
        **TRAINING_CONSTRAINTS,
        "latent_dim": [Interval(Integral, 1, None, closed="left")],
    }

    def __init__(
        self,
        *,
        latent_dim=8,
        n_epochs=50,
        learning_rate=1e-2,
        weight_decay=0.0,
        batch_size=32,
        contamination=0.1,
        image_shape=None,
        image_size=None,
        intensity_range=None,
        device=None,
        random_state=None,
        verbose=0,
        warm_start=False,
    ):
        self.latent_dim = latent_dim
        self.n_epochs = n_epochs
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.batch_size = batch_size
        self.contamination = contamination
        self.image_shape = image_shape
        self.image_size = image_size
        self.intensity_range = intensity_range
        self.device = device
        self.random_state = random_state
        self.verbose = verbose
        self.warm_start = warm_start

    def _fit(self, images, run):
        network = copy.deepcopy(self.network_) if run.is_warm else self._build_network()
        network.to(run.device)
        history = train(
            network,
            lambda batch: reconstruction_error(network, batch).mean(),
            ImageBatches(
                images, self.batch_size, device=run.device, generator=run.generator
            ),
            optimizer=adam(network.parameters(), self.learning_rate, self.weight_decay),
            n_epochs=self.n_epochs,
            verbose=self.verbose,
            stage="LinearAE",
        )
        self.network_ = network.cpu().eval()
        self._add_curves(run, loss_curve_=history.loss_curve)

    def _score(self, images, device):
        network, dtype = self._on_device(self.network_, device), self._dtype(device)
        batches = ImageBatches(images, self.batch_size, device=device)
        errors = map_batches(
            network, batches, lambda batch: reconstruction_error(network, batch.to(dtype))
        )
        return Scores(-errors)

    def _build_network(self):
        n_values, latent_dim = math.prod(self.image_shape_), int(self.latent_dim)
        return nn.Sequential(
            nn.Linear(n_values, latent_dim), nn.Linear(latent_dim, n_values)
        )


def reconstruction_error(network, batch):
    """Return the mean squared error of each image of a batch (b, C, H, W)."""
    values = batch.flatten(1)
    return (network(values) - values).square().mean(dim=1)


# Every common test but those of what is public: model files and documentation.
pytestmark = pytest.mark.parametrize("estimator_class", [LinearAE])
OF_PUBLIC_CLASSES = {
    "test_save_and_load_are_exact",
    "test_documented_attributes_exist_and_no_others",
    "test_documented_parameters_are_those_of_init_in_order",
    "test_docstrings_have_all_sections",
}
globals().update(
    (name, function)
    for name, function in vars(test_common).items()
    if name.startswith("test_") and name not in OF_PUBLIC_CLASSES
)


@pytest.mark.filterwarnings("ignore")
@parametrize_with_checks([quick(LinearAE, image_shape=(1, -1))])
def test_on_flattened_images(estimator_class, estimator, check):
    check(estimator)


def test_it_has_these_checks(estimator_class):
    estimator = quick(estimator_class, image_shape=(1, -1))
    assert len([*estimator_checks_generator(estimator)]) > 40
