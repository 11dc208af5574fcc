"""Networks of the user: one contract for every method that trains or uses one.

``python -m tests.test_own_networks`` prints what each method says of each network.
"""

import pickle
import sys
import warnings
from functools import partial

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV
from torch import nn

import skocc
from skocc.feature_extraction import DeepFeatures
from tests.quick import SHARED, quick


class Encoder(nn.Module):
    """Encoder of images of any size, with weights that are not all the same."""

    def __init__(self, n_channels=3, n_features=6):
        super().__init__()
        self.first = nn.Conv2d(n_channels, 4, 3, 2, 1)
        self.norm = nn.BatchNorm2d(4)
        self.second = nn.Conv2d(4, n_features, 3, 2, 1)

    def forward(self, x):
        return self.second(self.norm(self.first(x)).relu()).mean((2, 3))


class Clips(nn.Module):
    """Encoder of clips."""

    def __init__(self, n_channels=3):
        super().__init__()
        self.first = nn.Conv3d(n_channels, 4, 3, 2, 1)
        self.second = nn.Conv3d(4, 6, 3, 2, 1)

    def forward(self, x):
        return self.second(self.first(x).relu()).mean((2, 3, 4))


class Rows(nn.Module):
    """Encoder of rows of ten numbers."""

    def __init__(self):
        super().__init__()
        self.first = nn.Linear(10, 5)
        self.second = nn.Linear(5, 3)

    def forward(self, x):
        return self.second(self.first(x).tanh())


class Autoencoder(nn.Module):
    """Autoencoder of images, or maps, of any size."""

    def __init__(self, n_channels=3):
        super().__init__()
        self.encoder = nn.Conv2d(n_channels, 2, 3, 1, 1)
        self.decoder = nn.Conv2d(2, n_channels, 3, 1, 1)

    def forward(self, x):
        return self.decoder(self.encoder(x).tanh())


class Pair(nn.Module):
    """Network that returns two tensors."""

    def __init__(self, network):
        super().__init__()
        self.network = network

    def forward(self, x):
        return self.network(x), x


class Broken(Pair):
    """Network that raises an error, whatever it is given."""

    def forward(self, x):
        raise KeyError("nothing here")


rng = np.random.default_rng(0)
SIZES = {"1 channel": (16, 16, 1), "3 channels": (16, 16, 3), "4 channels": (16, 16, 4)}
SAMPLES = {
    **{name: rng.random((12, *size)).astype(np.float32) for name, size in SIZES.items()},
    "28 pixels": rng.random((12, 28, 28)).astype(np.float32),
    "rows": rng.random((12, 10)).astype(np.float32),
}
CHANNELS = {"1 channel": 1, "3 channels": 3, "4 channels": 4, "28 pixels": 1, "rows": 1}
FROZEN = {"layers": ("first",), "image_size": None}
# Parameter, network by the number of channels, and other parameters.
METHODS = {
    "ConvAE": ("autoencoder", Autoencoder, {"base_channels": 32}),
    "DataSplitOCC": ("backbone", Encoder, {}),
    "DeepFeatures": ("backbone", Encoder, FROZEN),
    "DeepSVDD": ("backbone", Encoder, {"pretrain_n_epochs": 0}),
    "FeatureCAE": ("backbone", Encoder, FROZEN),
    "FeatureCAE, autoencoder": (
        "autoencoder",
        lambda n: Autoencoder(24),
        {"latent_dim": 100},
    ),
    "MOCCA": ("backbone", Encoder, {"pretrain_n_epochs": 0}),
    "MOCCA, layers": (
        "backbone", Encoder, {"pretrain_n_epochs": 0, "layers": ("first", -1)},
    ),
    "PatchSVDD": ("backbone", Encoder, {"embedding_dim": 64, "sampling": "patches"}),
    "ResNetKNN": ("backbone", Encoder, FROZEN),
    "VideoMOCCA": (
        "backbone", Clips, {"embedding_dim": None, "reconstruction_weight": 1.0},
    ),
}  # fmt: skip
TAKES_ROWS = ("DataSplitOCC", "DeepSVDD", "MOCCA")
# Methods of which the backbone stays as it is, so that only its layers count.
READS_LAYERS = ("DeepFeatures", "FeatureCAE", "ResNetKNN")


def make(method, network, **params):
    """Return an unfitted estimator with a network of the user."""
    name = method.partition(",")[0]
    parameter, _, others = METHODS[method]
    if name == "DeepFeatures":
        return DeepFeatures(**SHARED | others | {parameter: network} | params)
    return quick(getattr(skocc, name), **others | {parameter: network} | params)


def builder(method, samples):
    """Return a class or function that builds the network of a method for samples."""
    _, network, _ = METHODS[method]
    if samples == "rows" and network is Encoder:
        return Rows
    return partial(network, CHANNELS[samples])


def outcome(method, network, X):
    """Return "fits", or the message of the ValueError."""
    estimator = make(method, network)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", skocc.CollapseWarning)
            estimator.fit(X)
    except ValueError as error:
        return str(error)
    found = results(estimator, X)
    assert np.isfinite(found).all()
    assert np.ptp(found) > 0
    return "fits"


def results(estimator, X):
    method = "transform" if hasattr(estimator, "transform") else "score_samples"
    return getattr(estimator, method)(X)


@pytest.mark.parametrize("samples", SAMPLES)
@pytest.mark.parametrize("method", METHODS)
def test_networks_take_what_they_are_made_for(method, samples):
    name, *_ = method.split(",")
    found = outcome(method, builder(method, samples), SAMPLES[samples])
    if samples == "rows" and name not in TAKES_ROWS:
        assert "image_shape" in found  # rows are no images, whatever the network
    elif samples == "4 channels" and method == "FeatureCAE, autoencoder":
        assert "A backbone of torchvision needs 1 or 3 channels" in found
    else:
        assert found == "fits"


@pytest.mark.parametrize("method", METHODS)
def test_gray_is_repeated_only_for_networks_in_color(method):
    _, network, _ = METHODS[method]
    if method == "FeatureCAE, autoencoder":
        pytest.skip("takes maps")
    X = SAMPLES["1 channel"]
    for n_channels in (1, 3):
        fitted = make(method, partial(network, n_channels)).fit(X)
        layers = getattr(fitted, "backbone_", fitted.network_).modules()
        first = next(m for m in layers if isinstance(m, nn.Conv2d | nn.Conv3d))
        assert first.in_channels == n_channels


@pytest.mark.parametrize("kind", [Pair, Broken])
@pytest.mark.parametrize("method", METHODS)
def test_what_networks_do_wrong_is_said_in_three_parts(method, kind):
    parameter, network, _ = METHODS[method]
    X = SAMPLES["3 channels"]
    found = outcome(method, lambda: kind(network(3)), X)
    if method in READS_LAYERS:
        expected = "layers names 'first'"
        assert expected in found
        return
    assert found.startswith(f"{parameter}: your module {kind.__name__} ")
    wrong = "a tuple of 2" if kind is Pair else "KeyError: 'nothing here'"
    assert f"Got {wrong}" in found


@pytest.mark.parametrize(
    ("network", "message"),
    [
        (lambda: 3, r"your function .*<lambda> builds no module.*Got .*a int\. Pass one"),
        (nn.Linear, r"your class Linear builds no module when it is called without arg"),
        (nn.Flatten(), r"your module Flatten has nothing to train. Got an output .*Pass a"),
        (lambda: nn.Conv2d(3, 2, 3).requires_grad_(False), "your module Conv2d has not"),
        (
            lambda: nn.Sequential(nn.Conv2d(3, 2, 3), nn.Flatten(0)),
            r"your module Sequential must return vectors.*Got a tensor of shape \(784,\)",
        ),
        (lambda: nn.Conv2d(2, 2, 3), r"your module Conv2d does not take .* Got RuntimeErr"),
    ],
)
def test_networks_that_cannot_be_used(network, message):
    with pytest.raises(ValueError, match=f"^backbone: {message}"):
        make("DeepSVDD", network).fit(SAMPLES["3 channels"])


def test_an_autoencoder_that_changes_the_shape():
    message = r"^autoencoder: your module Conv2d must return a tensor of the shape.*Got \(2"
    with pytest.raises(ValueError, match=message):
        make("ConvAE", nn.Conv2d(3, 3, 3)).fit(SAMPLES["3 channels"])


@pytest.mark.parametrize("method", METHODS)
def test_detectors_with_a_class_are_saved_and_loaded(method, tmp_path):
    parameter, network, _ = METHODS[method]
    network = partial(network, 3)
    X = SAMPLES["3 channels"]
    fitted = make(method, network).fit(X)
    path = tmp_path / "model"
    skocc.save(fitted, path)
    with pytest.raises(
        ValueError, match=rf"'{path}' .*Pass the network.*{parameter}=, and"
    ):
        skocc.load(path)
    other = "autoencoder" if parameter == "backbone" else "backbone"
    with pytest.raises(ValueError, match="Got backbone and autoencoder"):
        skocc.load(path, **{parameter: network, other: network})
    with pytest.raises(ValueError, match=r"cannot be read as a model.*fitted with as"):
        skocc.load(path, **{parameter: nn.Sequential(nn.Conv2d(3, 3, 1), nn.Flatten())})
    # A module gives its structure, and the file its weights.
    for again in (network, network()):
        loaded = skocc.load(path, **{parameter: again})
        np.testing.assert_array_equal(results(loaded, X), results(fitted, X))
        assert getattr(loaded, parameter) is again
        skocc.save(loaded, tmp_path / "again")
        assert (tmp_path / "again").read_bytes() == path.read_bytes()
    assert b"Encoder" not in path.read_bytes()


def test_files_that_need_no_network(tmp_path):
    fitted = quick(skocc.DeepSVDD).fit(SAMPLES["1 channel"])
    skocc.save(fitted, tmp_path / "model")
    with pytest.raises(ValueError, match=r"fitted with no network .*Got backbone. Pass no"):
        skocc.load(tmp_path / "model", backbone=Encoder)


class Values(nn.Module):
    """Network whose constructor computes with values, and with a buffer of its own."""

    def __init__(self, plain=False):
        super().__init__()
        rates = torch.linspace(1, 2, 3).tolist()
        scale = torch.full((3, 1, 1), rates[1])
        if plain:
            self.scale = scale
        else:
            self.register_buffer("scale", scale, persistent=False)
        self.body = Encoder()

    def forward(self, x):
        return self.body(x * self.scale)


def test_networks_with_tensors_that_are_no_state(tmp_path):
    X = SAMPLES["3 channels"]
    fitted = make("DeepSVDD", Values).fit(X)
    skocc.save(fitted, tmp_path / "model")
    loaded = skocc.load(tmp_path / "model", backbone=Values)
    np.testing.assert_array_equal(loaded.score_samples(X), fitted.score_samples(X))
    plain = make("DeepSVDD", partial(Values, plain=True)).fit(X)
    with pytest.raises(ValueError, match=r"cannot be saved.*your module Values does not"):
        skocc.save(plain, tmp_path / "plain")


@pytest.mark.parametrize("method", METHODS)
def test_networks_are_built_under_the_seed_and_copied(method):
    parameter, network, _ = METHODS[method]
    X = SAMPLES["3 channels"]
    build = partial(network, 3)
    first, second = (results(make(method, build).fit(X), X) for _ in range(2))
    np.testing.assert_array_equal(first, second)
    other = results(make(method, build, random_state=1).fit(X), X)
    assert not np.array_equal(first, other)
    module = build()
    before = {key: value.clone() for key, value in module.state_dict().items()}
    fitted = make(method, module).fit(X)
    assert all(torch.equal(before[k], v) for k, v in module.state_dict().items())
    assert module.training
    assert getattr(clone(fitted), parameter) is not module
    again = pickle.loads(pickle.dumps(fitted))
    np.testing.assert_array_equal(results(again, X), results(fitted, X))


def test_classes_in_a_search_and_in_what_is_shown():
    X = np.concatenate([SAMPLES["3 channels"]] * 2)
    grid = {"backbone": [Encoder, partial(Encoder, 3, 4), None]}
    search = GridSearchCV(
        quick(skocc.DeepSVDD, pretrain_n_epochs=0), grid, cv=2, scoring=lambda d, X, y=None:
        d.score_samples(X).mean(), error_score="raise",
    ).fit(X)  # fmt: skip
    assert len(search.cv_results_["params"]) == 3
    detector = skocc.DeepSVDD(backbone=Encoder)
    assert clone(detector).backbone is Encoder
    assert "Encoder" in repr(detector)
    assert "Encoder" in detector._repr_html_()


@pytest.mark.parametrize("method", ["DeepSVDD", "MOCCA", "ConvAE", "VideoMOCCA"])
def test_a_warm_start_goes_on_with_the_fitted_network(method):
    _, network, _ = METHODS[method]
    X = SAMPLES["3 channels"]
    warm = make(method, partial(network, 3), warm_start=True).fit(X)
    assert len(warm.fit(X).loss_curve_) == 4


def test_layers_by_name_are_those_of_the_network():
    X = SAMPLES["3 channels"]
    layers = ("second", "first", -1)
    fitted = make("MOCCA", Encoder, layers=layers, boundary="hard", warm_up_n_epochs=10)
    fitted.fit(X)
    assert fitted.layers_ == layers
    body = fitted.network_["encoder"].encoder.body
    batch = torch.from_numpy(X).permute(0, 3, 1, 2)
    with torch.no_grad():
        first = body.first(batch)
        second = body.second(body.norm(first).relu())
        expected = [second.mean((2, 3)), first.mean((2, 3)), body(batch)]
    d = [
        (z.numpy() - center) ** 2
        for z, center in zip(expected, fitted.centers_, strict=True)
    ]
    found = -np.stack([part.sum(axis=1) for part in d], axis=1)
    np.testing.assert_allclose(fitted.layer_scores(X), found, rtol=1e-4, atol=1e-5)
    with pytest.raises(ValueError, match=r"layers must name.*Got \('third',\).*'first'"):
        make("MOCCA", Encoder, layers=("third",)).fit(X)


def test_the_last_layer_alone_is_deep_svdd():
    X = SAMPLES["3 channels"]
    shared = {
        "boundary": "hard", "warm_up_n_epochs": 10, "weight_decay": 0.0,
        "learning_rate": 1e-3,
    }  # fmt: skip
    first = make("MOCCA", Encoder, **shared).fit(X)
    second = make("DeepSVDD", Encoder, **shared).fit(X)
    np.testing.assert_allclose(first.train_scores_, second.train_scores_, rtol=1e-6)


def test_patches_of_a_network_are_embedded_where_they_are():
    """A network that sees the mean of a patch says where a bright one is."""
    X = np.zeros((6, 16, 16, 3), dtype=np.float32) + 0.1 * rng.random((6, 1, 1, 1))
    anomaly = X[:1].copy()
    anomaly[0, 8:12, 4:8] = 1

    class Mean(nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = nn.Parameter(torch.ones(()))

        def forward(self, x):
            return x.mean((2, 3)) * self.scale

    fitted = make("PatchSVDD", Mean, n_epochs=0, strides=(1, 2)).fit(X)
    (found,) = fitted.anomaly_map(anomaly)
    row, column = np.unravel_index(found.argmax(), found.shape)
    assert 8 <= row < 12
    assert 4 <= column < 8
    assert fitted.bank_bytes(6, (16, 16)) == 4 * 3 * (
        len(fitted.bank_small_) + len(fitted.bank_big_)
    )


def main():
    """Print what each method says of each network."""
    for method in METHODS:
        _, network, _ = METHODS[method]
        for samples in SAMPLES:
            found = outcome(method, builder(method, samples), SAMPLES[samples])
            sys.stdout.write(f"{method:24} {samples:10} {found[:150]}\n")
        for kind in (Pair, Broken):
            build = partial(kind, network(3))
            found = outcome(method, build, SAMPLES["3 channels"])
            sys.stdout.write(f"{method:24} {kind.__name__:10} {found[:150]}\n")


if __name__ == "__main__":
    main()
