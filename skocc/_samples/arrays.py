"""Arrays of what is passed in, or words that name the argument where there is none."""

import numpy as np


def as_array(name, values, dtype=None, read=np.asarray):
    """Return values as an array.

    Parameters
    ----------
    name : str
        The argument's, for the message.
    values : array-like
    dtype : type, default=None
        Of real numbers. None: whatever they are.
    read : callable, default=numpy.asarray
        Called as ``read(values, dtype=dtype)``.

    Returns
    -------
    array : ndarray

    Raises
    ------
    ValueError
        There is no such array, as of a ragged list, complex numbers, or numbers that are
        too large for `dtype`.
    """
    try:
        # Complex numbers and moments in time would be converted with a warning, or none.
        if dtype is not None and np.asarray(values).dtype.kind in "cmMV":
            raise TypeError("they are complex, or no numbers")
        return read(values, dtype=dtype)
    except (TypeError, ValueError, OverflowError) as error:
        what = "samples alike" if dtype is None else "real numbers"
        raise ValueError(
            f"{name} must be an array of {what}. Got a {type(values).__name__} that cannot "
            f"be read as one: {error}. Convert it first, for example by np.array({name})."
        ) from error
