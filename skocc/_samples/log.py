"""The logger of the package, which prints nothing unless the program asks for it."""

import logging

logger = logging.getLogger("skocc")
# Without a handler, Python would print the warnings of a library to standard error.
logger.addHandler(logging.NullHandler())
