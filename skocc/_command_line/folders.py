"""Folders of images and files that are written, as commands take and refuse them."""

import argparse
import glob
import json
import sys
import tempfile
from pathlib import Path

from skocc._samples.files import IMAGE_SUFFIXES, list_images

# Names of folders, in small letters, by which data sets say what is in them.
_NORMAL = {"good", "normal", "nominal", "ok"}
_OTHERS = {
    "abnormal", "anomalies", "anomalous", "anomaly", "bad", "defect", "defective",
    "defects", "faulty", "ground_truth", "mask", "masks", "ng", "nok", "not_good",
    "outlier", "outliers", "test",
}  # fmt: skip


def path_argument(text):
    """Return a path; an empty name, as of an unset variable, is not the folder here."""
    if not text.strip():
        raise argparse.ArgumentTypeError("a name expected, got ''; the folder here is .")
    return Path(text)


def add_model(command):
    """Add the file of a model to what a command is given."""
    command.add_argument(
        "model", type=path_argument, help="file that fit, or skocc.save, has written"
    )


def add_images(command, what):
    """Add the images that a command reads, a folder or a pattern, to what it is given."""
    command.add_argument(
        "folder",
        type=path_argument,
        metavar="FOLDER",
        help=f"{what}, also in folders within it; or a pattern in quotes, such as "
        "'line3/**/*.png'",
    )


def add_json(command, what):
    """Add the option of a command whose result is read by programs."""
    command.add_argument("--json", action="store_true", help=f"print {what} as JSON")


def print_json(found, indent=None):
    """Print a JSON object, which has no character that a terminal would obey."""
    sys.stdout.write(json.dumps(found, indent=indent) + "\n")


def normal_files(folder, normal):
    """Return the files to train on, if it is known that all of them are normal."""
    if normal is not None:
        if not normal.strip():
            raise ValueError("--normal names no folder. Got ''. Leave it out, or name one.")
        return files_in(folder / normal)
    if (folder / "train" / "good").is_dir():
        files = files_in(folder / "train" / "good")
        say(
            f"{str(folder)!r} is laid out like MVTec AD: fitting on the {len(files)} "
            "images in its train/good"
        )
        return files
    files = files_in(folder)
    if not folder.is_dir():
        return files  # of a pattern, which says what is meant
    homes = sorted({path.parent.relative_to(folder).parts for path in files})
    # A folder says what else there is if it is called so, or if one beside it is good.
    is_other = any(part.lower() in _OTHERS for home in homes for part in home)
    goods = {
        home[: depth + 1]
        for home in homes
        for depth, part in enumerate(home)
        if part.lower() in _NORMAL
    }
    if is_other or any(home[: len(good)] != good for home in homes for good in goods):
        names = [str(Path(*home)) for home in homes]
        shown = ", ".join(map(repr, names[:8])) + (" and more" if len(names) > 8 else "")
        raise ValueError(
            f"It is not said which images in {str(folder)!r} are normal, and all that are "
            f"fitted on are learned as normal. Got images in its folders {shown}. Name the "
            "one with normal images, as in --normal good, or pass that folder."
        )
    return files


def files_in(folder):
    """Return the images in a folder, or those that a pattern matches, in order."""
    if folder.is_dir():
        files = list_images(folder, recursive=True)
    elif glob.has_magic(str(folder)):
        found = map(Path, sorted(glob.glob(str(folder), recursive=True)))
        files = [path for path in found if path.suffix.lower() in IMAGE_SUFFIXES]
    else:
        raise ValueError(
            f"{str(folder)!r} is no folder. Pass a folder of images, or a pattern such as "
            "'folder/*.png'."
        )
    if not files:
        raise ValueError(
            f"There are no images in {str(folder)!r}. Got no file that ends in one of "
            f"{sorted(IMAGE_SUFFIXES)}. Pass a folder of images."
        )
    return files


def home_of(folder):
    """Return the folder that images are read from: of a pattern, that before wildcards."""
    while glob.has_magic(str(folder)) and not folder.is_dir():
        folder = folder.parent
    return folder


def check_destination(path, *sources):
    """Refuse what cannot be written, or is read, before there is work to lose."""
    if path.exists() and not path.is_file():
        raise ValueError(
            f"{str(path)!r} cannot be written: it is a folder or device. Pass the name of "
            "a file as --output."
        )
    if any(path.exists() and path.samefile(s) for s in sources if s.exists()):
        raise ValueError(
            f"{str(path)!r} cannot be written: it is one of the files that are read. Pass "
            "another name as --output."
        )
    try:
        with tempfile.TemporaryFile(dir=path.resolve().parent):
            pass
    except OSError as error:
        raise ValueError(
            f"{str(path)!r} cannot be written: {error.strerror}. Make its folder "
            f"{str(path.resolve().parent)!r} first, one that may be written to, or pass "
            "another name as --output."
        ) from error


def say(text):
    """Write a line for the user; names in it must not command the terminal."""
    shown = (c if c.isprintable() or c == "\n" else repr(c)[1:-1] for c in text)
    sys.stderr.write("".join(shown) + "\n")
