"""Masks of images, found by the names of their files."""

import os
from collections.abc import Mapping
from pathlib import Path

from skocc._samples.files import list_images


def by_stem(paths: list[Path], ending: str = "") -> dict[str, Path]:
    """Return a dictionary of paths by their names without `ending` and suffix.

    Raises
    ------
    ValueError
        Two names differ in the suffix alone.
    """
    found: dict[str, Path] = {}
    for path in paths:
        stem = path.stem.removesuffix(ending)
        if stem in found:
            raise ValueError(
                "Masks are matched by the names of their images, so the names must differ "
                f"in more than the suffix. Got '{found[stem]}' and '{path}'. Rename or "
                "remove one."
            )
        found[stem] = path
    return found


def find_masks(
    paths: list[Path], defects: list[str], folder: Path, masks
) -> list[Path | None]:
    """Return the mask of each image, None for those that have none.

    Parameters
    ----------
    paths : list of Path
        Images within `folder`.
    defects : list of str
        The defect of each image, "good" for normal ones.
    folder : Path
    masks : path, dict, callable or None
        As in :func:`~skocc.datasets.load_image_folder`.

    Raises
    ------
    ValueError
        A mask is missing, or meant for none or several of the images.
    """
    if masks is None:
        return [None] * len(paths)
    if isinstance(masks, str | os.PathLike):
        found = _in_folder(paths, defects, folder, mask_folder(folder, masks))
    elif isinstance(masks, Mapping):
        found = _in_mapping(paths, folder, masks)
    else:
        pairs = zip(paths, defects, strict=True)
        found = [None if defect == "good" else masks(path) for path, defect in pairs]
    found = [None if mask is None else _as_path(mask) for mask in found]
    for path, mask in zip(paths, found, strict=True):
        if mask is not None and not mask.is_file():
            raise ValueError(
                f"The mask of '{path}' is not there. Got '{mask}', which is no file. Let "
                "masks give the path of an existing file, or None."
            )
    return found


def mask_folder(folder: Path, masks: str | os.PathLike) -> Path:
    """Return the folder of masks, in `folder` or by a path of its own."""
    # An absolute path stays as it is when it is joined to another.
    for candidate in (folder / masks, Path(masks)):
        if candidate.is_dir():
            return candidate
    names = sorted(path.name for path in folder.iterdir() if path.is_dir())
    raise ValueError(
        f"There is no folder of masks. Got masks={str(masks)!r}, and the folders "
        f"{names[:20]} in '{folder}'. Pass the name of one of them, or a path."
    )


def _in_folder(paths, defects, folder, home):
    """Return masks with the names of images, in the same folders within `home` or in it."""
    found, owners = {}, {}
    for parent in dict.fromkeys(path.parent for path in paths):
        same = home / parent.relative_to(folder)
        masks = by_stem(list_images(same if same.is_dir() else home), "_mask")
        images = [
            (path, defect)
            for path, defect in zip(paths, defects, strict=True)
            if path.parent == parent and defect != "good"
        ]
        found |= {path: masks.get(path.stem) for path, _ in images}
        for defect in {defect for _, defect in images}:
            _check_all_or_none({p: found[p] for p, d in images if d == defect}, home)
    for path, mask in found.items():
        if mask is not None and owners.setdefault(mask, path) != path:
            raise ValueError(
                f"The mask '{mask}' is that of two images. Got '{owners[mask]}' and "
                f"'{path}'. Put masks into folders like those of the images in "
                f"'{folder}', or pass a dictionary."
            )
    return [found.get(path) for path in paths]


def _check_all_or_none(found, home):
    """Raise a ValueError if some images of a defect have a mask, and others have not."""
    without = [path for path, mask in found.items() if mask is None]
    if without and len(without) < len(found):
        path = without[0]
        raise ValueError(
            f"The image '{path}' has no mask, unlike others of its defect. Got no "
            f"'{path.stem}_mask.*' or '{path.stem}.*' in '{home}'. Add it, or leave the "
            "image out."
        )


def _as_path(value):
    if isinstance(value, str | os.PathLike):
        return Path(value)
    raise ValueError(
        "masks must give paths of images and of their masks, or None for no mask. Got a "
        f"{type(value).__name__}, {value!r:.60}. Pass str or Path."
    )


def _in_mapping(paths, folder, masks):
    """Return masks from a dictionary, whose keys are paths, also within `folder`."""
    by_path = {_as_path(path): mask for path, mask in masks.items()}
    names = {name: path for path in paths for name in (path, path.relative_to(folder))}
    if unknown := [str(path) for path in by_path if path not in names]:
        raise ValueError(
            f"masks names images that are not in the list. Got {unknown[:5]}, "
            f"{len(unknown)} in all. Let its keys be paths within '{folder}', such as "
            f"'{paths[0].relative_to(folder)}'."
        )
    found = {names[path]: mask for path, mask in by_path.items()}
    return [found.get(path) for path in paths]
