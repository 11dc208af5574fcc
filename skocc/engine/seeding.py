"""Reproducible training that leaves the caller's random states alone."""

from contextlib import contextmanager

import numpy as np
import torch
from sklearn.utils import check_random_state


@contextmanager
def seeded(random_state, device: torch.device):
    """Seed torch and NumPy for the block, then give the caller's random states back.

    Parameters
    ----------
    random_state : None, int or RandomState
        An int makes everything in the block reproducible (bit by bit on a CPU). None
        takes fresh entropy of the system, not NumPy's global state.
    device : torch.device
        Its random state is seeded and given back too.

    Yields
    ------
    generator : torch.Generator
        On the CPU, for the order of batches.
    """
    if random_state is None:
        seed = int(np.random.SeedSequence().generate_state(1)[0])
    else:
        seed = int(check_random_state(random_state).randint(2**31 - 1))
    # Some of scikit-learn's solvers draw from NumPy's global state whatever they are given.
    numpy_state = np.random.get_state()  # noqa: NPY002
    # torch.manual_seed would seed every device there is, also those that are not ours.
    cuda_devices = [device] if device.type == "cuda" else []
    mps_state = torch.mps.get_rng_state() if device.type == "mps" else None
    with torch.random.fork_rng(devices=cuda_devices):
        torch.default_generator.manual_seed(seed)
        np.random.seed(seed)  # noqa: NPY002
        if device.type == "cuda":
            with torch.cuda.device(device):
                torch.cuda.manual_seed(seed)
        if device.type == "mps":
            torch.mps.manual_seed(seed)
        try:
            yield torch.Generator().manual_seed(seed)
        finally:
            np.random.set_state(numpy_state)  # noqa: NPY002
            if mps_state is not None:
                torch.mps.set_rng_state(mps_state)
