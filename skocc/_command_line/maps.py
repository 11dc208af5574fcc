"""The command ``maps``: pictures of where images are anomalous, in a folder."""

import numpy as np
from PIL import Image
from scipy import ndimage

import skocc
from skocc._command_line.folders import (
    add_images,
    add_json,
    add_model,
    files_in,
    home_of,
    path_argument,
    print_json,
    say,
)
from skocc._samples.progress import clear_bars, shown, track
from skocc._samples.sources import read_image

# Weight of the colors where a map is at twice its threshold, or at its highest value.
_OPACITY = 0.6


def add_maps(commands):
    """Add the command to the parsers of all commands."""
    maps = commands.add_parser(
        "maps", help="draw heat maps over the images of a folder, into another folder"
    )
    add_model(maps)
    add_images(maps, "images")
    maps.add_argument(
        "--output", type=path_argument, required=True, help="folder to write PNG files to"
    )
    maps.add_argument(
        "--anomalous",
        action="store_true",
        help="draw only images that the model calls anomalous",
    )
    maps.add_argument(
        "--verbose", action="store_true", help="show a progress bar on stderr"
    )
    add_json(maps, "the files that were drawn, and the errors,")
    maps.set_defaults(run=_maps)


def _maps(options):
    detector, files = skocc.load(options.model), files_in(options.folder)
    if not hasattr(detector, "anomaly_map"):
        raise ValueError(
            f"Heat maps need a method that has them. Got a {type(detector).__name__} in "
            f"{str(options.model)!r}. Fit for example PatchSVDD, ResNetKNN or FeatureCAE."
        )
    source = home_of(options.folder)
    home, output = source.resolve(), options.output.resolve()
    if output == home or home in output.parents:
        raise ValueError(
            f"Pictures would be taken for images the next time. Got {str(output)!r} as "
            "--output, within the folder that is read. Name a folder outside of it."
        )
    drawn, errors = [], {}
    with shown("maps", options.verbose, inner=False):
        for path in track(files, "maps", unit="file"):
            try:
                picture = overlay(detector, path, options.anomalous)
            except (OSError, ValueError) as error:
                errors[str(path)] = str(error)
                clear_bars()
                say(str(error))
                continue
            if picture is not None:
                place = output / path.relative_to(source)
                place.parent.mkdir(parents=True, exist_ok=True)
                # The whole name stays, since a.jpg and a.png are two images.
                place = place.with_name(f"{place.name}.png")
                Image.fromarray(picture).save(place)
                drawn.append(str(place))
    say(f"{len(files)} images: {len(drawn)} drawn, {len(errors)} that cannot be read")
    if options.json:
        print_json({"images": len(files), "drawn": drawn, "errors": errors})
    if len(errors) == len(files):
        first = next(iter(errors.values()))
        raise ValueError(f"None of the files can be read. Got of the first: {first}")


def overlay(detector, path, only_anomalous=False):
    """Return an image with its heat map over it, and a red line around what is marked.

    Parameters
    ----------
    detector : estimator
        Fitted, with `anomaly_map`.
    path : Path
        File of the image.
    only_anomalous : bool, default=False
        Whether an image that is normal by `offset_` has no picture.

    Returns
    -------
    picture : ndarray of shape (H, W, 3), uint8, or None
    """
    from matplotlib import colormaps

    maps, scores = detector.anomaly_map([path], return_scores=True)
    if only_anomalous and scores[0] >= detector.offset_:
        return None
    image, heat = read_image(path, n_channels=3), np.asarray(maps[0], float)
    if image.dtype != np.uint8:  # of more than 8 bits, from 0 to 1
        image = 255 * image.clip(0, 1)
    threshold = getattr(detector, "pixel_threshold_", None)
    low = float(np.median(heat))
    high = float(heat.max()) if threshold is None else 2 * threshold - low
    share = ((heat - low) / max(high - low, 1e-12)).clip(0, 1)[..., None]
    colors = 255 * colormaps["inferno"](share[..., 0])[..., :3]
    picture = image + _OPACITY * share * (colors - image)
    if threshold is not None:
        marked = heat > threshold
        picture[marked & ~ndimage.binary_erosion(marked)] = (255, 0, 0)
    return picture.round().clip(0, 255).astype(np.uint8)
