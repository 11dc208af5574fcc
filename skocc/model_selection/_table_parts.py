"""A table of scores in parts, by several processes, which goes on after a stop."""

import hashlib
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from joblib import Parallel, delayed

from skocc._engine.whole_files import replacing
from skocc._samples.progress import progress_bar

if TYPE_CHECKING:
    import pandas as pd

# The file that says of which files the parts are; readers of the folder pass over it.
_CONTENTS = "_contents.json"


def table_in_parts(
    make_frame: Callable[[Sequence], "pd.DataFrame"],
    paths: Sequence,
    directory: str | os.PathLike,
    chunk_size: int,
    n_jobs: int | None,
) -> list["pd.DataFrame"]:
    """Compute a table a chunk of rows at a time, and keep each chunk in a Parquet file.

    Chunks of which there is a file are not computed again. A file is there whole or not at
    all, so that any moment is one to be stopped at.

    Parameters
    ----------
    make_frame : callable
        Function from paths to their rows. With several processes it is pickled.
    paths : sequence
    directory : str or Path
        It is made if it is not there.
    chunk_size : int
    n_jobs : int or None
        As of joblib.

    Returns
    -------
    parts : list of DataFrame
        All chunks in order, with paths as they were given.

    Raises
    ------
    ValueError
        The directory holds the parts of another table.
    OSError
        It cannot be written to; parts that are there stay.
    """
    import pandas as pd

    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    _check_contents(directory, paths, chunk_size)
    starts = range(0, len(paths), chunk_size)
    files = [directory / f"part-{number:06}.parquet" for number in range(len(starts))]
    _check_scores(make_frame, paths, chunk_size, files)
    tasks = [
        delayed(_write_part)(make_frame, paths[start : start + chunk_size], file)
        for start, file in zip(starts, files, strict=True)
        if not file.exists()
    ]
    with progress_bar("files", len(paths), unit="file") as progress:
        progress.update(len(paths) - min(len(paths), chunk_size * len(tasks)))
        for _ in Parallel(n_jobs=n_jobs, return_as="generator")(tasks):
            progress.update(chunk_size)
    parts = [pd.read_parquet(file) for file in files]
    for start, part in zip(starts, parts, strict=True):
        # In a file a name that is not UTF-8 is written with escapes.
        names = [path_text(path) for path in paths[start : start + chunk_size]]
        part["path"] = pd.Series(names, dtype=object)
        errors = [text if isinstance(text, str) else None for text in part["error"]]
        part["error"] = pd.Series(errors, dtype=object)
    return parts


def path_text(path):
    """Return a path as text, and what is no path as it is shown."""
    try:
        return os.fsdecode(path)
    except TypeError:
        return str(path)[:80]


def _write_part(make_frame, paths, file):
    frame = make_frame(paths)
    frame["path"] = [
        path.encode("utf-8", "backslashreplace").decode() for path in frame["path"]
    ]
    # A part without errors has a column of text all the same, for readers of all parts.
    frame["error"] = frame["error"].astype("string")
    with replacing(file, durable=False) as temporary:
        frame.to_parquet(temporary)


def _check_contents(directory, paths, chunk_size):
    """Write of which files the parts are, or raise a ValueError if they are of others."""
    digest = hashlib.sha256()
    for path in paths:
        digest.update(path_text(path).encode("utf-8", "surrogateescape") + b"\0")
    contents = {
        "n_files": len(paths), "chunk_size": int(chunk_size), "paths": digest.hexdigest(),
    }  # fmt: skip
    file = directory / _CONTENTS
    if not file.exists():
        with replacing(file) as temporary:
            Path(temporary).write_text(json.dumps(contents), encoding="utf-8")
        return
    known = json.loads(file.read_text(encoding="utf-8"))
    if known != contents:
        raise ValueError(
            f"{str(directory)!r} holds parts of another table. Got {len(paths)} files in "
            f"chunks of {chunk_size}, where there are {known.get('n_files')} in chunks of "
            f"{known.get('chunk_size')}, or others. Pass the same paths in the same order, "
            "or another directory."
        )


def _check_scores(make_frame, paths, chunk_size, files):
    """Raise a ValueError if parts were written by another detector, as one file shows."""
    import pandas as pd

    for number, file in enumerate(files):
        part = pd.read_parquet(file) if file.exists() else None
        if part is None or part["score"].isna().all():
            continue
        row = int(np.flatnonzero(part["score"].notna())[0])
        (known,), (label,) = part["score"][row : row + 1], part["label"][row : row + 1]
        place = number * chunk_size + row
        found = make_frame(paths[place : place + 1])
        same = np.isclose(found["score"][0], known, rtol=1e-4, atol=1e-12)
        if not same or found["label"][0] != label:
            raise ValueError(
                f"{str(file.parent)!r} holds scores of another detector. Got a score of "
                f"{found['score'][0]:.6g} for {path_text(paths[place])!r}, where "
                f"{known:.6g} is written. Pass the detector that began the table, or "
                "another directory."
            )
        return
