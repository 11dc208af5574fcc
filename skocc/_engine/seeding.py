"""Private random number streams: the generators of the process are never used."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from sklearn.utils import check_random_state
from torch.nn import functional
from torch.overrides import TorchFunctionMode

# Functions and methods that accept a generator.
_TAKES_GENERATOR = frozenset(
    (
        "rand", "randn", "randint", "randperm", "normal", "bernoulli", "multinomial",
        "poisson", "uniform_", "normal_", "bernoulli_", "random_", "exponential_",
        "geometric_", "cauchy_", "log_normal_", "binomial", "kaiming_uniform_",
    )
)  # fmt: skip
# Functions that draw from the generator of the process and accept no other.
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
# Held while a generator of the process has a private state.
_process_generators = threading.RLock()
# The streams of each thread.
_current = threading.local()


@contextmanager
def seeded(
    random_state: int | np.random.RandomState | None,
    device: torch.device,
    n_before: int = 0,
) -> Iterator[torch.Generator]:
    """Draw all random numbers in the block from private streams.

    Every torch function that draws random numbers in this thread, including layers such as
    dropout and the initialization of any network, uses a stream that `random_state`
    determines. The generators of the process are neither read nor changed, so other threads
    may draw random numbers, or fit, at the same time.

    Parameters
    ----------
    random_state : None, int or RandomState
        An int makes the block reproducible (bit by bit on a CPU). None uses fresh entropy
        from the system, not NumPy's global state.
    device : torch.device
        Device that has a separate stream.
    n_before : int, default=0
        Number of samples of earlier calls. Each number has streams of its own: those of an
        int would otherwise be the same in every call.

    Yields
    ------
    generator : torch.Generator
        Generator on the CPU, for the order of batches.

    Notes
    -----
    A few operations do not accept a generator, such as dropout within an LSTM or an
    attention layer. While such an operation runs, the generator of the process has the
    state of the stream, and a lock excludes other blocks.
    """
    if random_state is None:
        seed = int(np.random.SeedSequence().generate_state(1)[0])
    else:
        seed = int(check_random_state(random_state).randint(2**31 - 1))
    if n_before:
        seed = int(np.random.SeedSequence([seed, n_before]).generate_state(1)[0])
    generator = torch.Generator().manual_seed(seed)
    before = getattr(_current, "streams", None)
    _current.streams = _Streams(seed, device)
    try:
        with _current.streams:
            yield generator
    finally:
        _current.streams = before


def random_states(device: torch.device) -> dict[str, torch.Tensor]:
    """Return the states of this thread's streams, by kind of device.

    Parameters
    ----------
    device : torch.device
        Device whose stream is included, in addition to that of the CPU.
    """
    streams = _current.streams
    return {kind: streams.on(kind).get_state() for kind in {"cpu", device.type}}


def set_random_states(states: dict[str, torch.Tensor], device: torch.device) -> None:
    """Set the streams of this thread to states that :func:`random_states` has returned."""
    for kind in {"cpu", device.type}:
        # The states may come from another kind of device.
        if kind == "cpu" or kind in states:
            _current.streams.on(kind).set_state(states[kind])


def may_draw(module: torch.nn.Module) -> bool:
    """Return whether a module may draw random numbers in training.

    This is known for the layers of torch and skocc. Any other layer may draw.
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
    """Mode in which torch draws from private generators, one for each kind of device."""

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
        kind = _kind_of_device(args, kwargs)
        if kind == "meta":
            return func(*args, **kwargs)  # there are no values to draw
        generator = self.on(kind)
        if name in _DROPOUTS:
            return _dropout(generator, *args, **kwargs)
        if name in _TAKES_NONE:
            with _process_generator_set_to(generator):
                return func(*args, **kwargs)
        return func(*args, **{**kwargs, "generator": generator})


def _kind_of_device(args, kwargs):
    """Return the kind of device on which an operation draws."""
    device = kwargs.get("device")
    if device is not None:
        return torch.device(device).type
    for value in (*args, *kwargs.values()):
        if isinstance(value, torch.Tensor):
            return value.device.type
    return "cpu"


def _may_draw(name, args, kwargs):
    """Return whether an operation may use dropout, whose rate is its only float."""
    if name not in ("lstm", "gru", "rnn_tanh", "rnn_relu", "scaled_dot_product_attention"):
        return True
    return any(isinstance(v, float) and v > 0 for v in (*args, *kwargs.values()))


def _dropout(generator, input, p=0.5, training=True, inplace=False, train=None):
    """Apply dropout with a given generator; on a CPU it equals torch's, bit by bit."""
    if train is not None:  # the name of the parameter in torch.dropout
        training = train
    if not training or p == 0:
        return input
    if not 0 < p < 1:
        return functional.dropout(input, p, training, inplace)  # returns zeros, or raises
    scale = torch.empty_like(input).bernoulli_(1 - p, generator=generator).div_(1 - p)
    return input.mul_(scale) if inplace else input * scale


@contextmanager
def _process_generator_set_to(generator):
    """Use the generator of the process with the state of another one in the block."""
    if generator.device.type == "cuda":
        index = generator.device.index
        index = torch.cuda.current_device() if index is None else index
        theirs = torch.cuda.default_generators[index]
    elif generator.device.type == "mps":
        theirs = torch.mps._get_default_mps_generator()
    else:
        theirs = torch.default_generator
    with _process_generators:
        before = theirs.get_state()
        # Whatever Ctrl-C ends, theirs is set back.
        try:
            theirs.set_state(generator.get_state())
            yield
            generator.set_state(theirs.get_state())
        finally:
            theirs.set_state(before)


@contextmanager
def numpy_state_kept() -> Iterator[None]:
    """Restore NumPy's global random state after the block.

    Some of scikit-learn's solvers draw from it even if they are given a random state. A
    lock allows one block at a time.
    """
    with _process_generators:
        state = np.random.get_state()  # noqa: NPY002
        try:
            yield
        finally:
            np.random.set_state(state)  # noqa: NPY002
