"""Score photographs by a file of skocc.export_onnx, with neither skocc nor torch.

It needs onnxruntime, numpy and Pillow:

    python examples/run_onnx.py detector.onnx photograph.png another.jpg --maps heat/

prints a line with score and label for each photograph, and writes heat maps as gray PNG
files, in which the threshold of heat maps is at 128.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import onnxruntime
from PIL import Image, ImageOps


def read_photograph(path, given):
    """Return the pixels of a file, as the graph takes them; all else is in the graph."""
    height, width, *channels = given["shape"]
    with Image.open(path) as image:
        image = ImageOps.exif_transpose(image).convert("RGB" if channels else "L")
    if image.size != (width, height):
        image = image.resize((width, height), Image.Resampling.BILINEAR)
    pixels = np.asarray(image, dtype=given["dtype"])
    # A graph of floats takes numbers as the detector was fitted on, usually from 0 to 1.
    return pixels / np.float32(255) if given["range"] == [0, 1] else pixels


def heat_picture(heat, threshold):
    """Return a heat map (H, W) as a gray picture, in which the threshold is 128."""
    gray = np.clip(128 * heat / (threshold or heat.max() / 2), 0, 255)
    return Image.fromarray(gray.astype(np.uint8))


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("model", help="ONNX file that skocc has written")
    parser.add_argument("photographs", nargs="+", type=Path, help="files of images")
    parser.add_argument("--maps", type=Path, help="folder to write heat maps to")
    options = parser.parse_args(arguments)

    session = onnxruntime.InferenceSession(
        options.model, providers=["CPUExecutionProvider"]
    )
    about = json.loads(session.get_modelmeta().custom_metadata_map["skocc"])
    names = [output.name for output in session.get_outputs()]
    for path in options.photographs:
        # The first axis may have any length; one at a time takes the least memory.
        images = read_photograph(path, about["input"])[np.newaxis]
        found = dict(zip(names, session.run(None, {"images": images}), strict=True))
        columns = [str(path), f"{found['score'][0]:.6g}", f"{found['label'][0]:+d}"]
        if "p_value" in found:
            columns.append(f"p={found['p_value'][0]:.3g}")
        print("\t".join(columns))
        if options.maps is not None and "map" in found:
            options.maps.mkdir(parents=True, exist_ok=True)
            picture = heat_picture(found["map"][0], about["pixel_threshold"])
            picture.save(options.maps / f"{path.stem}.png")


if __name__ == "__main__":
    main()
