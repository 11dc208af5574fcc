"""Networks by name: torchvision's, timm's, and what their weights were trained with.

torchvision and timm are imported only when a network of theirs is requested, so methods
without a backbone work if they are missing or broken.
"""

import os
from pathlib import Path
from typing import Any, NamedTuple, TypeGuard

from torch import nn

from skocc._nets.own import is_own, own_module, subject
from skocc._nets.weights import OFFLINE, load_offline_weights, load_weights

_TIMM = "timm/"
# Families of torchvision that warn unless they are told how to draw their weights.
_WARN_OF_INIT = ("googlenet", "inception_v3")


class Published(NamedTuple):
    """Images that weights were trained on.

    Attributes
    ----------
    mean, std : tuple of float
        Of each channel, subtracted and divided by.
    size : tuple (H, W)
        In pixels, of the images that the weights were evaluated on.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    size: tuple[int, int]


def build_network(
    backbone: Any, weights: str | os.PathLike | None, *, any_head: bool = False
) -> nn.Module:
    """Return a network of torchvision, of timm or of the user, with its first weights.

    Parameters
    ----------
    backbone : str, nn.Module, class or function
        A name is that of a classification network of torchvision, or ``"timm/<name>"``.
        Networks of timm come without their classifier.
    weights : "imagenet", "offline", None, str or Path
        As in :class:`~skocc._nets.backbones.BackboneEncoder`.
    any_head : bool, default=False
        As of :func:`~skocc._nets.weights.load_weights`.

    Raises
    ------
    ImportError
        torchvision or timm, or the package of the offline weights, cannot be imported.
    ValueError
        The network or the weights do not exist.
    """
    if weights == "offline" and backbone != OFFLINE:
        raise ValueError(
            "weights='offline' are those that a Python package has, of one network. Got "
            f"backbone={backbone!r:.100}. Set backbone={OFFLINE!r}, or pass the path of a "
            "file as weights."
        )
    if is_own(backbone):
        module = own_module(backbone, "backbone")
        if weights in ("imagenet", None):
            return module
        return load_weights(module, weights, any_head=any_head)
    if backbone.startswith(_TIMM):
        return _build_timm(backbone, weights, any_head)
    return _build_torchvision(backbone, weights, any_head)


def _build_torchvision(name, weights, any_head):
    models = _torchvision_models(name)
    published = models.get_model_weights(name).__members__
    if weights == "imagenet":
        weights = "DEFAULT"
    elif weights not in published or Path(weights).is_file():
        # Without it, two families warn that it will change.
        options = {"init_weights": True} if name in _WARN_OF_INIT else {}
        model = models.get_model(name, weights=None, **options)
        if weights is None:
            return model
        return load_weights(model, weights, any_head=any_head)
    try:
        return models.get_model(name, weights=weights)
    except OSError as error:  # URLError among them
        raise _no_download(name, error) from error


def _torchvision_models(name):
    """Return torchvision's models, of which one has the name."""
    try:
        from torchvision import models
    # A torchvision that does not match the installed torch raises a RuntimeError.
    except (ImportError, RuntimeError) as error:
        raise ImportError(
            f"backbone={name!r} needs torchvision, which cannot be imported: {error}. "
            "Install the torchvision that matches your torch, or pass an nn.Module."
        ) from error
    if name not in models.list_models(module=models):
        raise ValueError(
            f"backbone={name!r} is not a classification network of torchvision. Use for "
            "example 'resnet18' or 'mobilenet_v2', 'timm/' and the name of a network of "
            "timm, or pass an nn.Module."
        )
    return models


def _build_timm(name, weights, any_head):
    timm, timm_name = _timm_of(name)
    if weights == "offline":
        model = load_offline_weights(timm.create_model(timm_name))
        model.reset_classifier(0)
        return model
    if weights != "imagenet":
        model = timm.create_model(timm_name, num_classes=0)
        if weights is None:
            return model
        return load_weights(model, weights, any_head=any_head)
    try:
        return timm.create_model(timm_name, pretrained=True, num_classes=0)
    except (MemoryError, ImportError):
        raise
    except Exception as error:  # of the hub, its client, a proxy, or of timm
        raise _no_download(name, error) from error


def _timm_of(name):
    """Return timm, and the name of one of its networks with the tag of its weights."""
    try:
        import timm
    except (ImportError, RuntimeError) as error:
        raise ImportError(
            f"backbone={name!r} needs timm, which cannot be imported: {error}. Install it "
            'with pip install "skocc[timm]", or pass an nn.Module.'
        ) from error
    timm_name = name.removeprefix(_TIMM)
    try:
        timm.models.get_pretrained_cfg(timm_name)  # which checks the tag as well
        is_known = timm.is_model(timm_name.partition(".")[0])
    except (RuntimeError, KeyError):
        is_known = False
    if not is_known:
        raise ValueError(
            f"backbone={name!r} is not a network of timm {timm.__version__}, or one "
            "without weights of this tag. Use a name that timm.list_models(pretrained=True)"
            " has, for example 'timm/resnet18.a1_in1k', or pass an nn.Module."
        )
    return timm, timm_name


def _no_download(name, error):
    return ValueError(
        f"The ImageNet weights of {name} cannot be downloaded: {str(error)[:300]}. Without "
        "internet, copy the file from a machine that has it and pass its path as "
        "weights, or set weights=None to start from random weights."
    )


def published_of(backbone: Any, weights: Any, parameter: str) -> Published:
    """Return the mean, deviation and size of the images that weights were trained on.

    Parameters
    ----------
    backbone : str, nn.Module, class or function
    weights : "imagenet", "offline", None, str or Path
        With a name as `backbone`, the weights that torchvision or timm has under it; for a
        file and for None, the best ones.
    parameter : str
        The parameter that asks, with its value, for messages.

    Raises
    ------
    ImportError
        torchvision or timm cannot be imported.
    ValueError
        Nothing is known of the weights.
    """
    if is_own(backbone):
        return _published_of_own(backbone, parameter)
    if backbone.startswith(_TIMM):
        timm, timm_name = _timm_of(backbone)
        config = timm.models.get_pretrained_cfg(timm_name)
        if config is not None:
            return _of_timm(config.to_dict())
    else:
        members = _torchvision_models(backbone).get_model_weights(backbone).__members__
        transform = members.get(str(weights), members["DEFAULT"]).transforms()
        size = transform.crop_size
        return Published(tuple(transform.mean), tuple(transform.std), (size[0], size[-1]))
    raise _nothing_known(repr(backbone), parameter)


def _published_of_own(module, parameter):
    config = getattr(module, "pretrained_cfg", None)  # of timm
    if isinstance(config, dict) and "mean" in config and "input_size" in config:
        return _of_timm(config)
    raise _nothing_known(subject(module), parameter)


def _of_timm(config):
    _, height, width = config["input_size"]
    return Published(tuple(config["mean"]), tuple(config["std"]), (height, width))


def published_size(backbone: Any, weights: Any) -> tuple[int, int]:
    """Return the size (H, W) of the images that weights were trained on.

    Parameters and errors are those of :func:`published_of`. Networks of Hugging Face's
    transformers have it in their configuration.
    """
    parameter = "image_size='weights'"
    if isinstance(backbone, str) and weights is None:
        raise ValueError(
            f"{parameter} takes the size that the weights were trained for, and random "
            f"weights were not trained. Got weights=None of backbone={backbone!r}. Set "
            "image_size to a number of pixels, or weights to 'imagenet'."
        )
    size = getattr(getattr(backbone, "config", None), "image_size", None)
    if isinstance(size, int):
        return size, size
    if isinstance(size, tuple | list) and len(size) == 2:
        return int(size[0]), int(size[1])
    return published_of(backbone, weights, parameter).size


def size_of_weights(estimator: Any) -> tuple[int, int]:
    """Return the size that ``image_size="weights"`` of an estimator stands for."""
    return published_size(estimator.backbone, estimator.weights)


def _nothing_known(name, parameter):
    return ValueError(
        f"{parameter} needs a network that says what its weights were trained on: one of "
        f"torchvision or timm. Got {name}, which does not. Look it up where the weights "
        "come from; for a network of Hugging Face's, AutoImageProcessor.from_pretrained "
        "shows image_mean, image_std and size. Then set image_size to the size, and "
        "normalization to 'imagenet' or None, or normalize in the module."
    )


def remove_classifier(model: nn.Module, name: str, hidden: bool) -> None:
    """Replace the classifier, or with `hidden` only its last layer, by the identity."""
    if name.startswith(_TIMM):
        return  # built without one
    if getattr(model, "aux_logits", False):
        # Classifiers of GoogLeNet and Inception, whose outputs come in a tuple.
        for attribute in ("aux1", "aux2", "AuxLogits"):
            if hasattr(model, attribute):
                setattr(model, attribute, None)
        vars(model)["aux_logits"] = False
    for attribute in ("fc", "classifier", "heads", "head"):
        classifier = getattr(model, attribute, None)
        if isinstance(classifier, nn.Module):
            if hidden and _ends_linear(classifier):
                classifier[-1] = nn.Identity()
            else:
                setattr(model, attribute, nn.Identity())
            return
    raise ValueError(
        f"backbone={name!r} has no classifier under a known name. Pass the network as an "
        "nn.Module that returns features (n, d)."
    )


def _ends_linear(module: nn.Module) -> TypeGuard[nn.Sequential]:
    return isinstance(module, nn.Sequential) and isinstance(module[-1], nn.Linear)
