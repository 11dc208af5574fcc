"""Detectors of one's own: what their base class does, and what it says to mistakes."""

import inspect

import numpy as np
import pytest
import torch
from torch import nn

import skocc
from skocc.base import BaseDetector, Fitted, NetworkDetector


class Sphere(NetworkDetector):
    """The distance to the mean embedding of a linear map."""

    def build_network(self):
        network = nn.Sequential(nn.Flatten(), nn.LazyLinear(3))
        network(torch.zeros(1, *self.image_shape_))
        network.register_buffer("center", torch.zeros(3))
        return network

    def prepare(self, network, batches):
        assert not torch.is_grad_enabled()
        assert not network.training
        network.center.copy_(torch.cat([network(b) for b in batches]).mean(dim=0))

    def loss(self, network, batch):
        return (network(batch) - network.center).square().sum(dim=1).mean()

    def sample_scores(self, network, batch):
        return -(network(batch) - network.center).square().sum(dim=1)


QUICK = {"n_epochs": 3, "random_state": 0, "device": "cpu"}


@pytest.fixture
def registered(monkeypatch):
    monkeypatch.setattr("skocc._persistence.model_files._registered", {})


def test_what_is_prepared_is_kept_by_files_and_warm_starts(digits, tmp_path, registered):
    skocc.register(Sphere)
    detector = Sphere(warm_start=True, **QUICK).fit(digits[0])
    center = detector.network_.center.clone()
    assert center.abs().sum() > 0
    skocc.save(detector, tmp_path / "sphere.safetensors")
    loaded = skocc.load(tmp_path / "sphere.safetensors")
    np.testing.assert_array_equal(
        loaded.score_samples(digits[1]), detector.score_samples(digits[1])
    )
    assert torch.equal(loaded.fit(digits[0]).network_.center, center)


def test_attributes_of_a_subclass_are_saved(digits, tmp_path, registered):
    @skocc.register
    class Calibrated(Sphere):
        _fitted_attributes = {**Sphere._fitted_attributes, "median_": Fitted("float")}

        def _fit(self, images, run):
            super()._fit(images, run)
            self.median_ = 0.5

    detector = Calibrated(**QUICK).fit(digits[0])
    skocc.save(detector, tmp_path / "model.safetensors")
    assert skocc.load(tmp_path / "model.safetensors").median_ == 0.5
    detector.median_ = "half"
    with pytest.raises(ValueError, match=r"cannot be saved.*median_"):
        skocc.save(detector, tmp_path / "model.safetensors")


def test_rows_where_a_class_takes_them(digits):
    rows = digits[0].reshape(60, -1)
    with pytest.raises(ValueError, match="image_shape"):
        Sphere(**QUICK).fit(rows)

    class OfRows(Sphere):
        _accepts_rows = True

    detector = OfRows(**QUICK).fit(rows)
    assert detector.image_shape_ == (64,)
    assert detector.score_samples(rows).shape == (60,)


@pytest.mark.parametrize("method", ["build_network", "loss", "sample_scores"])
def test_what_is_missing_is_named(method, digits):
    class Partial(Sphere):
        pass

    setattr(Partial, method, getattr(NetworkDetector, method))
    with pytest.raises(NotImplementedError, match=f"needs {method}. Got a Partial.*Define"):
        Partial(**QUICK).fit(digits[0])


@pytest.mark.parametrize(
    ("method", "value", "message"),
    [
        ("build_network", lambda self: "net", "build_network.*Got a str"),
        ("loss", lambda self, network, batch: network(batch), r"one number.*\(32, 3\)"),
        ("loss", lambda self, network, batch: 1.0, r"loss of Wrong.*Got 1\.0\. Take"),
        ("sample_scores", lambda self, network, batch: network(batch), r"Got .*\(32, 3\)"),
        ("sample_scores", lambda self, network, batch: 1.0, r"each image\. Got 1\.0\."),
    ],
)
def test_what_a_method_returns_wrongly(method, value, message, digits):
    class Wrong(Sphere):
        pass

    setattr(Wrong, method, value)
    with pytest.raises(ValueError, match=message):
        Wrong(**QUICK).fit(digits[0])


def test_parameters_of_all_classes_are_in_the_signature():
    class First(NetworkDetector):
        def __init__(self, *, width=4, n_epochs=7, **params):
            super().__init__(n_epochs=n_epochs, **params)
            self.width = width

    class Second(First):
        def __init__(self, *, depth=2, **params):
            super().__init__(**params)
            self.depth = depth

    names = [*inspect.signature(NetworkDetector).parameters]
    assert [*inspect.signature(First).parameters] == ["width", *names]
    assert [*inspect.signature(Second).parameters] == ["depth", "width", *names]
    second = Second(depth=3, batch_size=5)
    assert repr(second) == "Second(batch_size=5, depth=3)"
    assert (second.n_epochs, second.width) == (7, 4)
    assert second.set_params(width=9).get_params()["width"] == 9

    class MyDeepSVDD(skocc.DeepSVDD):
        def __init__(self, *, penalty=1.0, **params):
            super().__init__(**params)
            self.penalty = penalty

    assert repr(MyDeepSVDD(nu=0.2, penalty=2.0)) == "MyDeepSVDD(nu=0.2, penalty=2.0)"
    with pytest.raises(TypeError, match="latent_dim of MyDeepSVDD was renamed"):
        MyDeepSVDD(latent_dim=3)


def test_a_name_stands_for_one_class(registered):
    first = type("Mine", (Sphere,), {"__module__": "one"})
    assert skocc.register(first) is first
    again = type("Mine", (Sphere,), {"__module__": "one"})
    assert skocc.register(again) is again  # as a cell of a notebook that runs twice
    other = type("Mine", (Sphere,), {"__module__": "two"})
    with pytest.raises(ValueError, match=r"'Mine' of two, .* class of one too. Rename"):
        skocc.register(other)
    for name in ("DeepSVDD", "DirectFeatures"):
        with pytest.raises(ValueError, match=rf"'{name}' of .* class of skocc too. Rename"):
            skocc.register(type(name, (Sphere,), {}))
    for cls in (int, Sphere(), None, nn.Linear):
        with pytest.raises(ValueError, match=r"subclass of skocc.base.BaseDetector. Got"):
            skocc.register(cls)


def test_only_registered_classes_are_written_and_read(digits, tmp_path, registered):
    detector, path = Sphere(**QUICK).fit(digits[0]), tmp_path / "sphere.safetensors"
    with pytest.raises(ValueError, match=r"Got a Sphere. Call skocc.register\(Sphere\)"):
        skocc.save(detector, path)
    skocc.register(Sphere)
    skocc.save(detector, path)
    skocc._persistence.model_files._registered.clear()
    with pytest.raises(ValueError, match=r"'Sphere', .* unless a class of that name is"):
        skocc.load(path)


def test_a_detector_of_any_kind_needs_two_methods(digits):
    class First(BaseDetector):
        def _fit(self, images, run):
            self.n_ = len(images)

        def _score(self, images, device):
            pixels = images.load(slice(0, len(images)))
            return skocc.base.Scores(-pixels.reshape(len(images), -1).mean(axis=1))

    detector = First(contamination=0.2).fit(digits[0])
    assert detector.n_ == 60
    assert (detector.predict(digits[0]) == -1).sum() == 12
