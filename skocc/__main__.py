"""The command line: ``python -m skocc fit`` and ``python -m skocc score``."""

import argparse
import ast
import sys
from pathlib import Path

import skocc
from skocc._files import IMAGE_SUFFIXES
from skocc.model_selection import ThresholdTuner

_METHODS = sorted(
    name
    for name, module in skocc._MODULES.items()
    if module.startswith("skocc.estimators.")
)


def main(arguments=None):
    """Run the command line.

    Parameters
    ----------
    arguments : list of str, default=None
        Instead of those of the process.

    Returns
    -------
    status : int
        0, or 1 where the images or parameters are not usable, which is said on stderr.
    """
    options = _parser().parse_args(arguments)
    try:
        options.run(options)
    except (ImportError, OSError, ValueError) as error:
        _say(f"skocc {options.command}: {error}")
        return 1
    return 0


def _parser():
    parser = argparse.ArgumentParser(
        prog="python -m skocc", description="Detect anomalous images in folders."
    )
    commands = parser.add_subparsers(dest="command", required=True)
    fit = commands.add_parser("fit", help="train a detector on a folder of normal images")
    fit.add_argument("folder", type=Path, help="normal images, also in folders within it")
    fit.add_argument("--method", choices=_METHODS, required=True)
    fit.add_argument(
        "--param",
        action="append",
        default=[],
        type=_parameter,
        metavar="NAME=VALUE",
        help="a parameter of the method, such as n_epochs=20; may be repeated",
    )
    fit.add_argument("--output", type=Path, required=True, help="safetensors file to write")
    fit.add_argument(
        "--false-alarm-rate",
        type=float,
        default=0.05,
        metavar="RATE",
        help="of normal images, kept by a conformal threshold (default: 0.05)",
    )
    fit.add_argument(
        "--calibration-size",
        type=float,
        default=0.2,
        metavar="FRACTION",
        help="of the images, held out from training for the threshold (default: 0.2)",
    )
    fit.set_defaults(run=_fit)
    score = commands.add_parser("score", help="score a folder of images")
    score.add_argument("model", type=Path, help="file that fit, or skocc.save, has written")
    score.add_argument("folder", type=Path, help="images, also in folders within it")
    score.add_argument("--output", type=Path, help="CSV file to write (default: print it)")
    score.set_defaults(run=_score)
    return parser


def _fit(options):
    params = dict(options.param)
    detector = getattr(skocc, options.method)().set_params(**params)
    tuner = ThresholdTuner(
        detector,
        false_alarm_rate=options.false_alarm_rate,
        calibration_size=options.calibration_size,
        random_state=params.get("random_state"),
    ).fit(_files(options.folder))
    # The file holds a detector: of the held-out images it keeps the threshold alone.
    fitted = tuner.detector_
    fitted.offset_ = tuner.offset_
    skocc.save(fitted, options.output)
    _say(
        f"{options.output}: {options.method}; threshold {tuner.offset_:.6g}, a false-alarm "
        f"rate of at most {options.false_alarm_rate:g} by "
        f"{len(tuner.calibration_scores_)} images held out from training"
    )


def _score(options):
    table = skocc.predict_table(skocc.load(options.model), _files(options.folder))
    table.to_csv(options.output or sys.stdout, index=False)
    _say(
        f"{len(table)} images: {(table['label'] == -1).sum()} anomalous, "
        f"{table['error'].notna().sum()} that cannot be scored"
    )


def _files(folder):
    if not folder.is_dir():
        raise ValueError(f"{str(folder)!r} is no folder. Pass a folder of images.")
    files = sorted(
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in IMAGE_SUFFIXES and path.is_file()
    )
    if not files:
        raise ValueError(
            f"There are no images in {str(folder)!r}. Got no file that ends in one of "
            f"{sorted(IMAGE_SUFFIXES)}. Pass a folder of images."
        )
    return files


def _parameter(text):
    """Return (name, value) of NAME=VALUE; what is no Python literal is text."""
    name, equals, value = text.partition("=")
    if not (name and equals):
        raise argparse.ArgumentTypeError(f"NAME=VALUE expected, got {text!r}")
    try:
        return name, ast.literal_eval(value)
    except (SyntaxError, ValueError):
        return name, value


def _say(text):
    sys.stderr.write(text + "\n")


if __name__ == "__main__":
    sys.exit(main())
