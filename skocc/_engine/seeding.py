"""Random numbers of our own: nothing is drawn from the generators of the process."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from sklearn.utils import check_random_state
from torch.nn import functional
from torch.overrides import TorchFunctionMode

# Functions and methods that take a generator.
_TAKES_GENERATOR = frozenset(
    (
        "rand", "randn", "randint", "randperm", "normal", "bernoulli", "multinomial",
        "poisson", "uniform_", "normal_", "bernoulli_", "random_", "exponential_",
        "geometric_", "cauchy_", "log_normal_", "binomial", "kaiming_uniform_",
    )
)  # fmt: skip
# Those that draw from the generator of the process and cannot be told another.
_TAKES_NONE = frozenset(
    (
        "rand_like", "randn_like", "randint_like", "alpha_dropout", "alpha_dropout_",
        "feature_dropout", "feature_dropout_", "feature_alpha_dropout",
        "feature_alpha_dropout_", "dropout1d", "dropout2d", "dropout3d", "rrelu",
        "rrelu_", "gumbel_softmax", "multi_head_attention_forward",
        "scaled_dot_product_attention", "lstm", "gru", "rnn_tanh", "rnn_relu",
        "native_dropout", "fractional_max_pool2d_with_indices",
        "fractional_max_pool3d_with_indices",
    )
)  # fmt: skip
_DROPOUTS = frozenset(("dropout", "dropout_"))
_DRAWS = _TAKES_GENERATOR | _TAKES_NONE | _DROPOUTS
# Whoever puts a state of his own into a generator of the process.
_process_generators = threading.RLock()
# The stream that each thread draws from at present.
_current = threading.local()


@contextmanager
def seeded(
    random_state: int | np.random.RandomState | None, device: torch.device
) -> Iterator[torch.Generator]:
    """Draw everything in the block from streams of its own.

    Whatever draws random numbers by torch in this thread, layers such as dropout and the
    initial weights of anybody's networks included, gets them from a stream that
    `random_state` determines. The generators of the process are neither read nor changed,
    so that other threads may draw, or fit, at the same time.

    Parameters
    ----------
    random_state : None, int or RandomState
        An int makes everything in the block reproducible (bit by bit on a CPU). None
        takes fresh entropy of the system, not NumPy's global state.
    device : torch.device
        What is drawn there has a stream of its own.

    Yields
    ------
    generator : torch.Generator
        On the CPU, for the order of batches.

    Notes
    -----
    A few operations cannot be given a generator, among them dropout within an LSTM or an
    attention. For as long as one of these takes, the generator of the process has the state
    of the stream, and a lock keeps other blocks out.
    """
    if random_state is None:
        seed = int(np.random.SeedSequence().generate_state(1)[0])
    else:
        seed = int(check_random_state(random_state).randint(2**31 - 1))
    generator = torch.Generator().manual_seed(seed)
    before = getattr(_current, "streams", None)
    _current.streams = _Streams(seed, device)
    try:
        with _current.streams:
            yield generator
    finally:
        _current.streams = before


def random_states(device: torch.device) -> dict[str, torch.Tensor]:
    """Return the states of the streams that this thread draws from, by kind of device.

    Parameters
    ----------
    device : torch.device
        Of which there is a stream beside that of the CPU.
    """
    streams = _current.streams
    return {kind: streams.on(kind).get_state() for kind in {"cpu", device.type}}


def set_random_states(states: dict[str, torch.Tensor], device: torch.device) -> None:
    """Put the streams of this thread into states of :func:`random_states`."""
    for kind in {"cpu", device.type}:
        # On another kind of device there is no state to go on from.
        if kind == "cpu" or kind in states:
            _current.streams.on(kind).set_state(states[kind])


def may_draw(module: torch.nn.Module) -> bool:
    """Return whether a module may draw random numbers when it is trained.

    Layers of torch that do not are known, and so are networks of ours; what anybody else
    has written may do anything.
    """
    return any(_layer_may_draw(layer) for layer in module.modules())


def _layer_may_draw(layer):
    if isinstance(layer, torch.nn.RNNBase | torch.nn.MultiheadAttention):
        return layer.dropout > 0
    origin = type(layer).__module__
    if not origin.startswith(("torch.nn.", "skocc.")):
        return True
    return origin == "torch.nn.modules.dropout" or isinstance(
        layer, torch.nn.RReLU | torch.nn.FractionalMaxPool2d | torch.nn.FractionalMaxPool3d
    )


class _Streams(TorchFunctionMode):
    """Draws from generators of its own, one a kind of device."""

    def __init__(self, seed, device):
        super().__init__()
        self._seed, self._device = seed, device
        self._generators = {}

    def on(self, kind):
        """Return the generator for a kind of device."""
        if kind not in self._generators:
            device = self._device if kind == self._device.type else torch.device(kind)
            generator = torch.Generator(device=device)
            self._generators[kind] = generator.manual_seed(self._seed)
        return self._generators[kind]

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "")
        if name not in _DRAWS or kwargs.get("generator") is not None:
            return func(*args, **kwargs)
        if name in _TAKES_NONE and not _may_draw(name, args, kwargs):
            return func(*args, **kwargs)
        generator = self.on(_kind_of_device(args, kwargs))
        if name in _DROPOUTS:
            return _dropout(generator, *args, **kwargs)
        if name in _TAKES_NONE:
            with _as_that_of_process(generator):
                return func(*args, **kwargs)
        return func(*args, **{**kwargs, "generator": generator})


def _kind_of_device(args, kwargs):
    """Return the kind of the device that an operation draws on."""
    device = kwargs.get("device")
    if device is not None:
        return torch.device(device).type
    for value in (*args, *kwargs.values()):
        if isinstance(value, torch.Tensor):
            return value.device.type
    return "cpu"


def _may_draw(name, args, kwargs):
    """Return whether dropout is on, as the only numbers that are no integers say."""
    if name not in ("lstm", "gru", "rnn_tanh", "rnn_relu", "scaled_dot_product_attention"):
        return True
    return any(isinstance(v, float) and v > 0 for v in (*args, *kwargs.values()))


def _dropout(generator, input, p=0.5, training=True, inplace=False, train=None):
    """Do what torch's dropout does, number for number on a CPU, by another generator."""
    if train is not None:  # as torch.dropout calls it
        training = train
    if not training or p == 0:
        return input
    if not 0 < p < 1:
        return functional.dropout(input, p, training, inplace)  # zeros, or an error
    scale = torch.empty_like(input).bernoulli_(1 - p, generator=generator).div_(1 - p)
    return input.mul_(scale) if inplace else input * scale


@contextmanager
def _as_that_of_process(generator):
    """Let the generator of the process go on from the state of another one."""
    if generator.device.type == "cuda":
        index = generator.device.index or torch.cuda.current_device()
        theirs = torch.cuda.default_generators[index]
    elif generator.device.type == "mps":
        theirs = torch.mps._get_default_mps_generator()
    else:
        theirs = torch.default_generator
    with _process_generators:
        before = theirs.get_state()
        theirs.set_state(generator.get_state())
        try:
            yield
        finally:
            generator.set_state(theirs.get_state())
            theirs.set_state(before)


@contextmanager
def numpy_state_kept() -> Iterator[None]:
    """Give NumPy's global state back after a block that draws from it without need.

    Some of scikit-learn's solvers do, whatever they are given. One block at a time.
    """
    with _process_generators:
        state = np.random.get_state()  # noqa: NPY002
        try:
            yield
        finally:
            np.random.set_state(state)  # noqa: NPY002
