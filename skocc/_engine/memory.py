"""Errors for want of memory, in words that say what to do."""

from collections.abc import Iterator
from contextlib import contextmanager

# What torch and oneDNN say, in a RuntimeError of no kind of its own on a CPU.
_SAYINGS = (
    "out of memory",
    "can't allocate memory",
    "not enough memory",
    "could not create a primitive",
    "could not create a memory object",
    "Storage size calculation overflowed",
)
_MESSAGE = "There is not enough memory, or a parameter is far too large"


@contextmanager
def memory_errors_named() -> Iterator[None]:
    """Raise a MemoryError that says what to do where the block runs out of memory.

    Raises
    ------
    MemoryError
        In place of any other error of torch, oneDNN or NumPy that means the same.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        is_memory = isinstance(error, MemoryError)
        is_memory = is_memory or any(saying in str(error) for saying in _SAYINGS)
        # Methods that call each other name it once.
        if not is_memory or str(error).startswith(_MESSAGE):
            raise
        said = str(error).strip().splitlines() or [type(error).__name__]
        raise MemoryError(
            f"{_MESSAGE}. Got {said[0]!r}. Set a smaller batch_size or image_size, or "
            "parameters that make a smaller network or a smaller bank."
        ) from error
