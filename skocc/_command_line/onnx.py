"""The commands that export a model as an ONNX file, and compare the file with it."""

import sys

import skocc
from skocc._command_line.folders import (
    add_images,
    add_json,
    add_model,
    check_destination,
    files_in,
    path_argument,
    print_json,
    say,
)


def add_export(commands):
    """Add the command that writes an ONNX file."""
    export = commands.add_parser(
        "export", help="write a model as an ONNX file, which runs without skocc"
    )
    add_model(export)
    export.add_argument(
        "output", type=path_argument, metavar="OUT", help="ONNX file to write"
    )
    export.add_argument(
        "--dtype",
        choices=["uint8", "float32"],
        help="type of the pixels that it takes: of files of 8 bits, or numbers as the "
        "model takes them (default: uint8, for plain rows float32)",
    )
    add_json(export, "class, path and bytes")
    export.set_defaults(run=_export)


def add_validate(commands):
    """Add the command that compares an ONNX file with its model."""
    validate = commands.add_parser(
        "validate",
        help="compare an ONNX file with the model it was made of, before it is deployed",
        description="The status is 1 where scores or maps differ by more than 1e-4 of "
        "their size.",
    )
    validate.add_argument(
        "exported", type=path_argument, metavar="EXPORTED", help="file that export wrote"
    )
    add_model(validate)
    add_images(
        validate,
        "images that the model was not trained on, for VideoMOCCA the frames of a video",
    )
    add_json(validate, "what was found")
    validate.set_defaults(run=_validate)


def _export(options):
    from skocc._export.validation import size_of

    check_destination(options.output, options.model)
    detector = skocc.load(options.model)
    skocc.export_onnx(detector, options.output, dtype=options.dtype)
    n_bytes = size_of(options.output)
    if options.json:
        found = {"path": str(options.output), "bytes": n_bytes}
        print_json({**found, "class": type(detector).__name__}, indent=2)
    else:
        name = type(detector).__name__
        say(f"{str(options.output)!r}: {name}, {n_bytes / 1e6:.1f} MB")


def _validate(options):
    # Here, because it loads torch, which is slow where --help is all that is asked for.
    from skocc._export.validation import TOLERANCE, validate

    detector, files = skocc.load(options.model), files_in(options.folder)
    found = validate(options.exported, detector, files)
    if options.json:
        print_json(found._asdict(), indent=2)
    else:
        for name, value in [
            ("images", found.n_images),
            ("largest difference of scores", f"{found.score_difference:.1e}"),
            ("labels that differ", found.label_differences),
            ("largest difference of maps", _maps(found)),
            ("milliseconds an image", f"{found.milliseconds:.2f}"),
            ("size of the file", f"{found.bytes / 1e6:.1f} MB"),
        ]:
            sys.stdout.write(f"{name}: {value}\n")
    if not found.agrees:
        raise ValueError(
            f"{str(options.exported)!r} does not do what {str(options.model)!r} does, to "
            f"within {TOLERANCE:g}. Got differences of {found.score_difference:.1e} of "
            f"scores, {_maps(found)} of maps and {found.label_differences} labels. "
            "Export the model again, and compare images that it was not trained on."
        )


def _maps(found):
    return "none" if found.map_difference is None else f"{found.map_difference:.1e}"
