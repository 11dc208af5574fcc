"""Find tiles that were laid wrongly, beside detectors of scikit-learn.

The images are synthetic, so nothing is downloaded: walls of tiles, in some of which a
piece is out of place. It comes from the same wall, so that light and dark pixels are as
usual, and detectors that take pixels as a table have nothing to go by. All are trained on
images without a defect only. Run with ``--help`` to see the options.
"""

import argparse
import time
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageOps
from scipy.ndimage import binary_erosion
from sklearn.ensemble import IsolationForest
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.svm import OneClassSVM

from skocc import PatchSVDD
from skocc.datasets import make_defects, make_textures
from skocc.feature_extraction import Pixels
from skocc.model_selection import ThresholdTuner


def main():
    args = parse_args()
    normal, test, is_anomaly, masks = make_images(args.random_state)
    print(
        f"{len(normal)} walls to learn from; to test on, {np.sum(~is_anomaly)} "
        f"more and {np.sum(is_anomaly)} with a defect."
    )

    print(f"\n{'':<20}{'AUROC':>8}{'fit, seconds':>15}")
    detectors, scores = make_detectors(args.random_state), {}
    for name, detector in detectors.items():
        start = time.perf_counter()
        detector.fit(normal)
        seconds = time.perf_counter() - start
        scores[name] = detector.score_samples(test)
        # The anomalies are the positive class, and a higher score is more normal.
        auroc = roc_auc_score(is_anomaly, -scores[name])
        print(f"{name:<20}{auroc:>8.3f}{seconds:>15.2f}")

    tuner, scores = detectors["PatchSVDD"], scores["PatchSVDD"]
    found = scores < tuner.offset_
    n_trained = len(normal) - len(tuner.calibration_scores_)
    print(
        f"\nPatchSVDD was trained on {n_trained} of the images. The others set its "
        f"threshold, which\npromises at most {tuner.max_fpr:.0%} false alarms on average: "
        f"{np.sum(found[~is_anomaly])} of {np.sum(~is_anomaly)} here. Defects found: "
        f"{np.sum(found[is_anomaly])} of {np.sum(is_anomaly)}."
    )
    # Three defects from the clearest to the less clear, and a usual image without one.
    by_score = np.argsort(scores)
    defective, others = by_score[is_anomaly[by_score]], by_score[~is_anomaly[by_score]]
    shown = [*defective[[0, 6, 12]], others[len(others) // 2]]
    maps = tuner.anomaly_map(test[shown])
    draw(test[shown], maps, tuner.pixel_threshold_, masks[shown]).save(args.picture)
    print(f"Image, heat map, what is above the threshold, and the truth: {args.picture}")


def parse_args():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--random-state", type=int, default=0, help="seed of images and fits; default 0"
    )
    parser.add_argument(
        "--picture",
        type=Path,
        default=Path("heat_maps.png"),
        metavar="PATH",
        help="where the picture is saved; default heat_maps.png",
    )
    return parser.parse_args()


def make_images(random_state):
    """Return normal images; test images, which of these are anomalies, and their masks."""
    rng = np.random.default_rng(random_state)
    images = make_textures(160, kind="tiles", random_state=rng)  # (160, 96, 96)
    normal, others, intact = np.split(images, [80, 120])
    defective, masks = make_defects(intact, kind="cut", random_state=rng)
    test = np.concatenate([others, defective])
    is_anomaly = np.repeat([False, True], [len(others), len(defective)])
    return normal, test, is_anomaly, np.concatenate([np.zeros_like(masks), masks])


def make_detectors(random_state):
    detector = PatchSVDD(
        patch_size=32,
        strides=(4, 8),
        normalization="local_contrast",
        padding_mode="reflect",
        max_bank_bytes=2**20,
        n_epochs=4,
        random_state=random_state,
    )
    return {
        # Half of the normal images are held out for the threshold.
        "PatchSVDD": ThresholdTuner(
            detector, max_fpr=0.05, calibration_size=0.5, random_state=random_state
        ),
        # scikit-learn's detectors take rows: all pixels of an image side by side.
        "OneClassSVM": make_pipeline(Pixels(image_size=None), OneClassSVM()),
        "IsolationForest": make_pipeline(
            Pixels(image_size=None), IsolationForest(random_state=random_state)
        ),
    }


def draw(images, maps, threshold, masks):
    """Return a picture with a row for each image, all maps in the same colors."""
    size, gap = 192, 8
    picture = Image.new("RGB", (4 * (size + gap), len(images) * (size + gap) + 20), "white")
    pen = ImageDraw.Draw(picture)
    for column, title in enumerate(("image", "heat map", "above threshold", "truth")):
        pen.text((column * (size + gap) + gap, 4), title, fill="black")
    highest = max(maps.max(), threshold)
    for row, (image, heat, mask) in enumerate(zip(images, maps, masks, strict=True)):
        gray = to_gray(image)
        above = heat > threshold
        marked = np.stack([gray] * 3, axis=-1)
        marked[above & ~binary_erosion(above)] = 255, 0, 0
        cells = (
            Image.fromarray(gray),
            ImageOps.colorize(
                Image.fromarray(to_gray(heat / highest)), "black", "yellow", mid="purple"
            ),
            Image.fromarray(marked),
            Image.fromarray(to_gray(mask)),
        )
        for column, cell in enumerate(cells):
            cell = cell.resize((size, size), Image.Resampling.NEAREST)
            place = column * (size + gap) + gap // 2, row * (size + gap) + 20
            picture.paste(cell, place)
    return picture


def to_gray(values):
    return (np.clip(values, 0, 1) * 255).astype(np.uint8)


if __name__ == "__main__":
    main()
