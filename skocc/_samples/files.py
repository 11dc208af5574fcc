"""Image files in folders, in order."""

import os
import re
from pathlib import Path

IMAGE_SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp"}


def list_images(folder, *, natural=False, recursive=False):
    """Return the image files in a folder in order of their names, or in natural order.

    Parameters
    ----------
    folder : Path
        Must be there. Names that start with a dot are passed over.
    natural : bool, default=False
        Whether 9 comes before 10.
    recursive : bool, default=False
        Whether images in folders within it are listed too, in order of these. Links to
        folders are passed over.

    Returns
    -------
    paths : list of Path

    Raises
    ------
    OSError
        A folder cannot be read.
    """

    def fail(error):
        raise error

    images = []
    for parent, folders, names in os.walk(folder, onerror=fail):
        # macOS puts a file ._000.png, which is no image, beside 000.png on foreign disks.
        folders[:] = [name for name in folders if recursive and not name.startswith(".")]
        paths = (Path(parent, name) for name in names if not name.startswith("."))
        images += [path for path in paths if path.suffix.lower() in IMAGE_SUFFIXES]
    return sorted(images, key=_natural_key if natural else None)


def _natural_key(path):
    # "frame10" -> ["frame", 10, ""]: text and numbers take turns, so that two keys have
    # the same type at the same place.
    parts = re.split(r"(\d+)", path.stem)
    numbers = [int(part) if part.isdecimal() else part for part in parts]
    return path.parent, numbers, path.name
