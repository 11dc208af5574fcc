"""Out-of-memory errors with a message that says what to do."""

from collections.abc import Iterator
from contextlib import contextmanager

# On a CPU, torch and oneDNN raise a plain RuntimeError with one of these messages.
_PHRASES = (
    "out of memory",
    "can't allocate memory",
    "not enough memory",
    "could not create a primitive",
    "could not create a memory object",
    "Storage size calculation overflowed",
    # Sizes that are no 64-bit integers are a TypeError or an OverflowError.
    "Overflow when unpacking long",
    "int too large to convert",
    "int too big to convert",
)
_MESSAGE = "There is not enough memory, or a parameter is far too large"


@contextmanager
def memory_errors_named() -> Iterator[None]:
    """Raise a MemoryError that says what to do if the block runs out of memory.

    Raises
    ------
    MemoryError
        Replaces the various errors of torch, oneDNN and NumPy for a lack of memory.
    """
    try:
        yield
    except (MemoryError, RuntimeError, TypeError, OverflowError) as error:
        is_memory = isinstance(error, MemoryError)
        is_memory = is_memory or any(phrase in str(error) for phrase in _PHRASES)
        # Nested blocks replace the error only once.
        if not is_memory or str(error).startswith(_MESSAGE):
            raise
        said = str(error).strip().splitlines() or [type(error).__name__]
        raise MemoryError(
            f"{_MESSAGE}. Got {said[0]!r}. Set a smaller batch_size or image_size, or "
            "parameters that make a smaller network or a smaller bank."
        ) from error
