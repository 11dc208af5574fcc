"""The command line: ``skocc fit``, ``score``, ``maps`` and others."""

import argparse
import ast
import csv
import json
import os
import sys
from contextlib import nullcontext

import numpy as np

import skocc
from skocc._base.renamed import RENAMED
from skocc._command_line.compare import add_compare
from skocc._command_line.folders import (
    add_images,
    add_json,
    add_model,
    check_destination,
    files_in,
    normal_files,
    path_argument,
    print_json,
    say,
)
from skocc._command_line.info import add_info
from skocc._command_line.maps import add_maps
from skocc._command_line.onnx import add_export, add_validate
from skocc._samples.progress import clear_bars, shown
from skocc.model_selection import ThresholdTuner
from skocc.model_selection._table import score_files

# Files after which rows are written: few enough to look on, many enough to be fast.
_BATCH_SIZE = 64
# As a shell reports a process that was ended by SIGINT and by SIGPIPE.
_INTERRUPTED, _NO_READER = 130, 141
_ESCAPES = """\
In the columns path and error, what would break the table or a terminal is written as in
an address of the web, %0A for a line feed: per cent signs, characters that cannot be
printed or encoded, bytes that are not UTF-8, and =, +, -, @ at the beginning, which a
spreadsheet takes for a formula. In Python, unquote(path, errors="surrogateescape") of
urllib.parse gives the name back."""


def main(arguments=None):
    """Run the command line.

    Parameters
    ----------
    arguments : list of str, default=None
        Instead of those of the process.

    Returns
    -------
    status : int
        0, or 1 where the images or parameters are not usable, which is said on stderr; 130
        after Ctrl-C, and 141 where nobody reads what is printed any more.
    """
    options = _parser().parse_args(arguments)
    try:
        options.run(options)
        sys.stdout.flush()
    except BrokenPipeError:
        # Or Python complains when it flushes what is left at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return _NO_READER
    except KeyboardInterrupt:
        return _INTERRUPTED
    except (ArithmeticError, ImportError, MemoryError, OSError, ValueError) as error:
        say(f"skocc {options.command}: {str(error) or type(error).__name__}")
        return 1
    return 0


def _parser():
    parser = argparse.ArgumentParser(
        prog=_program(), description="Detect anomalous images in folders."
    )
    parser.add_argument("--version", action="version", version=f"skocc {skocc.__version__}")
    commands = parser.add_subparsers(dest="command", required=True)
    _add_fit(commands)
    _add_score(commands)
    add_maps(commands)
    add_compare(commands)
    add_info(commands)
    add_export(commands)
    add_validate(commands)
    return parser


def _program():
    """Return how the program was called."""
    is_script = os.path.basename(sys.argv[0]).startswith("skocc")
    return "skocc" if is_script else "python -m skocc"


def _add_fit(commands):
    fit = commands.add_parser("fit", help="train a detector on a folder of normal images")
    add_images(fit, "normal images (of a folder in MVTec AD's layout, those in train/good)")
    fit.add_argument(
        "--normal",
        metavar="NAME",
        help="folder within it that holds the normal images, where it has others as well",
    )
    fit.add_argument(
        "--method",
        choices=skocc.DETECTORS,
        required=True,
        metavar="METHOD",
        help="a detector: %(choices)s",
    )
    fit.add_argument(
        "--param",
        action="append",
        default=[],
        type=_parameter,
        metavar="NAME=VALUE",
        help="a parameter of the method, such as n_epochs=20, backbone=resnet18 or "
        "layers=layer2,layer3; may be repeated",
    )
    fit.add_argument("--output", type=path_argument, required=True, help="file to write")
    _add_threshold(fit)
    fit.add_argument(
        "--seed",
        type=int,
        default=0,
        help="of the training and of what is held out (default: 0)",
    )
    fit.add_argument(
        "--keep-held-out",
        action="store_true",
        help="write the scores of the held-out images as well, so that score has a column "
        "p_value (needs skops)",
    )
    _add_verbose(fit)
    add_json(fit, "class, threshold and numbers of images")
    for old, new in RENAMED["python -m skocc fit"].items():
        fit.add_argument(old, type=_renamed_to(new), help=argparse.SUPPRESS)
    fit.set_defaults(run=_fit)


def _add_threshold(fit):
    fit.add_argument(
        "--max-fpr",
        type=float,
        default=0.05,
        metavar="RATE",
        help="largest fraction of normal images that is called anomalous, kept by a "
        "conformal threshold (default: 0.05)",
    )
    fit.add_argument(
        "--calibration-size",
        type=float,
        default=0.2,
        metavar="FRACTION",
        help="of the images, held out from training for the threshold (default: 0.2)",
    )
    fit.add_argument(
        "--cv",
        type=_folds,
        metavar="FOLDS",
        help="hold out each image once: in that many fits beside that of the detector, or "
        "in none with the word loo, for methods whose training scores leave the image out "
        "(default: a part of the images is held out)",
    )


def _folds(text):
    return text if text == "loo" else int(text)


def _add_score(commands):
    score = commands.add_parser(
        "score", help="score a folder of images", description=_ESCAPES
    )
    add_model(score)
    add_images(score, "images")
    score.add_argument(
        "--output", type=path_argument, help="CSV file to write (default: print it)"
    )
    _add_verbose(score)
    add_json(score, "the table, an object a line,")
    score.set_defaults(run=_score)


def _add_verbose(command):
    command.add_argument(
        "--verbose", action="store_true", help="show progress bars on stderr"
    )


def _fit(options):
    files = normal_files(options.folder, options.normal)
    check_destination(options.output)
    detector = getattr(skocc, options.method)().set_params(random_state=options.seed)
    for name, value in options.param:
        # One word or number stands for a list where nothing but a list is taken.
        constraints = detector._parameter_constraints.get(name, [None])
        if all(constraint in (None, tuple, list) for constraint in constraints) and (
            tuple in constraints and isinstance(value, str | int | float)
        ):
            value = (value,)
        detector.set_params(**{name: value})
    if options.verbose:
        detector.set_params(verbose=1)
    tuner = ThresholdTuner(
        detector,
        max_fpr=options.max_fpr,
        calibration_size=options.calibration_size,
        cv=options.cv,
        refit=isinstance(options.cv, int),
        random_state=detector.random_state,
    ).fit(files)
    _keep(tuner, options.output, options.keep_held_out)
    _report(options, tuner, detector, len(files))


def _keep(tuner, path, with_held_out):
    """Write a tuner, or its detector with the thresholds of the tuner."""
    fitted = tuner.estimator_
    for name in ("offset_", "pixel_threshold_"):
        if hasattr(tuner, name):  # not all methods have heat maps
            setattr(fitted, name, getattr(tuner, name))
    # Those who score say for themselves what they see.
    for detector in (fitted, tuner.estimator):
        detector.set_params(verbose=0)
    skocc.save(tuner if with_held_out else fitted, path)


def _report(options, tuner, detector, n_files):
    """Say what was fitted."""
    n_held_out = len(tuner.calibration_scores_)
    if options.json:
        print_json(
            {
                "path": str(options.output), "class": options.method, "images": n_files,
                "held_out_images": n_held_out, "threshold": float(tuner.offset_),
                "max_fpr": options.max_fpr, "seed": detector.random_state,
            }
        )  # fmt: skip
        return
    how = ("at most", "from training") if options.cv is None else ("about", "in turn")
    say(
        f"{str(options.output)!r}: {options.method} of {n_files} images with seed "
        f"{detector.random_state}; threshold {tuner.offset_:.6g}, a false-alarm "
        f"rate of {how[0]} {options.max_fpr:g} by {n_held_out} images held out {how[1]}"
    )


def _score(options):
    detector, files = skocc.load(options.model), files_in(options.folder)
    if options.output is None:
        destination = nullcontext(sys.stdout)
    else:
        check_destination(options.output, options.model, *files)
        destination = options.output.open("w", encoding="utf-8", newline="")
    n_anomalous, first_error, n_errors = 0, None, 0
    verbose = shown("score", options.verbose, inner=False)
    with destination as file, verbose:
        write = _writer_of(file, detector, options.json)
        for rows in score_files(detector, files, _BATCH_SIZE):
            clear_bars()  # the rows may go to the terminal that shows them
            for path, score, label, error in rows:
                write(path, score, label, error)
                n_anomalous += label == -1
                n_errors += error is not None
                first_error = first_error or error
            file.flush()
    say(f"{len(files)} images: {n_anomalous} anomalous, {n_errors} that cannot be scored")
    if n_errors == len(files):
        raise ValueError(
            f"None of the files can be scored. Got of the first: {first_error}"
        )


def _writer_of(file, detector, as_json):
    """Return a function that writes a row: of a table of CSV, or an object of JSON."""
    has_p_values = hasattr(detector, "p_values")

    def row_of(path, score, label, error):
        row = {"path": os.fspath(path), "score": None}
        row |= {"p_value": None} if has_p_values else {}
        row |= {"label": None, "error": None if error is None else str(error)}
        if error is None:
            row |= {"score": float(score), "label": int(label)}
        if error is None and has_p_values:
            row["p_value"] = float(detector._p_values_of(np.array([score]))[0])
        return row

    def write_json(*cells):
        file.write(json.dumps(row_of(*cells)) + "\n")

    def write_csv(*cells):
        row = row_of(*cells)
        for name in ("path", "error"):
            row[name] = _escaped(row[name] or "", file.encoding)
        table.writerow(row.values())  # of None, nothing

    if as_json:
        return write_json
    table = csv.writer(file, lineterminator="\n")
    table.writerow(["path", "score", *["p_value"][: int(has_p_values)], "label", "error"])
    return write_csv


def _renamed_to(option):
    """Return a type that takes no value, for an option with an old name."""

    def fail(text):
        raise argparse.ArgumentTypeError(f"it was renamed to {option}")

    return fail


def _parameter(text):
    """Return (name, value) of NAME=VALUE."""
    name, equals, value = text.partition("=")
    if not (name and equals):
        raise argparse.ArgumentTypeError(f"NAME=VALUE expected, got {text!r}")
    return name, _value(value)


def _value(text):
    """Return a literal of Python; a list of words or literals; else the text."""
    try:
        return ast.literal_eval(text)
    except (SyntaxError, ValueError, MemoryError, RecursionError):
        pass
    if "," in text and not text.startswith(("(", "[", "{")):
        return tuple(_value(part.strip()) for part in text.split(",") if part.strip())
    return text


def _escaped(text, encoding):
    """Return text for one cell of a table: see _ESCAPES."""
    cell = ""
    for place, character in enumerate(text):
        is_plain = character.isprintable() and character != "%"
        is_plain &= not (place == 0 and character in "=+-@")
        try:
            character.encode(encoding or "utf-8")
        except UnicodeEncodeError:
            is_plain = False
        if is_plain:
            cell += character
        else:
            is_byte = "\udc80" <= character <= "\udcff"  # one that is not UTF-8
            errors = "surrogateescape" if is_byte else "surrogatepass"
            cell += "".join(f"%{byte:02X}" for byte in character.encode("utf-8", errors))
    return cell


if __name__ == "__main__":
    sys.exit(main())
