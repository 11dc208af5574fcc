"""Lists of the image files in a folder."""

import os
import re
from pathlib import Path

IMAGE_SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp"}


def list_images(folder, *, natural=False, recursive=False):
    """Return the image files in a folder, sorted by name or in natural order.

    Parameters
    ----------
    folder : Path
        An existing folder. Names that start with a dot are skipped.
    natural : bool, default=False
        Whether to sort in natural order, in which 9 comes before 10.
    recursive : bool, default=False
        Whether to include images in subfolders, sorted by folder first. Links to folders
        are skipped.

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
        # On foreign disks, macOS adds a file ._000.png, which is not an image, to 000.png.
        folders[:] = [name for name in folders if recursive and not name.startswith(".")]
        paths = (Path(parent, name) for name in names if not name.startswith("."))
        images += [path for path in paths if path.suffix.lower() in IMAGE_SUFFIXES]
    return sorted(images, key=_natural_key if natural else None)


def _natural_key(path):
    # "frame10" -> ["frame", 10, ""]: text and numbers alternate, so that two keys have the
    # same type at the same position.
    parts = re.split(r"(\d+)", path.stem)
    numbers = [int(part) if part.isdecimal() else part for part in parts]
    return path.parent, numbers, path.name
