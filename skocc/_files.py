"""Image files in folders, in order."""

import re

IMAGE_SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp"}


def list_images(folder, *, natural=False):
    """Return the image files in a folder in order of their names, or in natural order.

    Parameters
    ----------
    folder : Path
        Must be there. Names that start with a dot are passed over.
    natural : bool, default=False
        Whether 9 comes before 10.

    Returns
    -------
    paths : list of Path
    """
    # macOS puts a file ._000.png, which is no image, beside 000.png on foreign disks.
    images = (
        path
        for path in folder.iterdir()
        if path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".")
    )
    return sorted(images, key=_natural_key if natural else lambda path: path.name)


def _natural_key(path):
    # "frame10" -> ["frame", 10, ""]: text and numbers take turns, so that two keys have
    # the same type at the same place.
    parts = re.split(r"(\d+)", path.stem)
    return [int(part) if part.isdecimal() else part for part in parts], path.name
