"""Conversion of arguments to arrays, with error messages that name the argument."""

import numpy as np


def as_array(name, values, dtype=None, read=np.asarray):
    """Return values as an array.

    Parameters
    ----------
    name : str
        Name of the argument, for the message.
    values : array-like
    dtype : type, default=None
        Type of real numbers to convert to. None keeps the type of the values.
    read : callable, default=numpy.asarray
        Called as ``read(values, dtype=dtype)``.

    Returns
    -------
    array : ndarray

    Raises
    ------
    ValueError
        The values cannot be converted: for example a ragged list, complex numbers, or
        numbers that are too large for `dtype`.
    """
    try:
        # NumPy converts complex numbers and dates with a warning, or silently.
        if dtype is not None and np.asarray(values).dtype.kind in "cmMV":
            raise TypeError("the values are complex, or not numbers")
        return read(values, dtype=dtype)
    except (TypeError, ValueError, OverflowError) as error:
        what = "equally shaped samples" if dtype is None else "real numbers"
        raise ValueError(
            f"{name} must be an array of {what}. Got a {type(values).__name__} that cannot "
            f"be read as one: {error}. Convert it first, for example with np.array({name})."
        ) from error
