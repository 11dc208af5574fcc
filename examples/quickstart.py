"""Learn one digit, then find the others: DeepSVDD beside scikit-learn's detectors.

The images are the 8 x 8 digits that come with scikit-learn, so nothing is downloaded.
All detectors see normal training images only, about 120 of one digit, and score held-out
images of all ten. The settings of DeepSVDD are the same for every digit; scikit-learn's
detectors keep their defaults. Run with ``--help`` to see the options.
"""

import argparse
import time
import warnings

import numpy as np
from PIL import Image, ImageDraw
from sklearn.covariance import EllipticEnvelope
from sklearn.datasets import load_digits
from sklearn.ensemble import IsolationForest
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import train_test_split
from sklearn.neighbors import LocalOutlierFactor
from sklearn.svm import OneClassSVM

from skocc import DeepSVDD


def main():
    args = parse_args()
    digits = load_digits()
    images, labels = digits.images / 16, digits.target
    train_images, test_images, train_labels, test_labels = train_test_split(
        images, labels, test_size=1 / 3, stratify=labels, random_state=args.random_state
    )
    normal_images = train_images[train_labels == args.digit]
    is_anomaly = test_labels != args.digit
    print(
        f"Normal is the digit {args.digit}: {len(normal_images)} images to train on; "
        f"to test on, {np.sum(~is_anomaly)} more and {np.sum(is_anomaly)} of other digits."
    )

    print(f"\n{'':<20}{'AUROC':>8}{'fit, seconds':>15}")
    detectors = make_detectors(args.random_state)
    for name, detector in detectors.items():
        # DeepSVDD takes images as they are, scikit-learn's detectors take rows.
        as_input = np.asarray if name == "DeepSVDD" else to_rows
        start = time.perf_counter()
        detector.fit(as_input(normal_images))
        seconds = time.perf_counter() - start
        scores = detector.score_samples(as_input(test_images))
        # The anomalies are the positive class, and a higher score is more normal.
        auroc = roc_auc_score(is_anomaly, -scores)
        print(f"{name:<20}{auroc:>8.3f}{seconds:>15.2f}")

    detector = detectors["DeepSVDD"]
    found = detector.predict(test_images) == -1
    print(
        f"\nDeepSVDD with contamination={detector.contamination} calls anomalous: "
        f"{found[is_anomaly].mean():.0%} of the other digits, "
        f"{found[~is_anomaly].mean():.0%} of the held-out {args.digit}s.\n"
        "A threshold from so few training images is tight; the user guide says how to "
        "set one\nfrom held-out images (Scores and thresholds)."
    )
    if args.picture is not None:
        scores = detector.score_samples(test_images)
        draw_extremes(test_images, test_labels, scores, args.digit).save(args.picture)
        print(f"The most and least normal images are in {args.picture}.")


def parse_args():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--digit", type=int, default=3, choices=range(10), help="what is normal; default 3"
    )
    parser.add_argument(
        "--random-state", type=int, default=0, help="seed of split and fits; default 0"
    )
    parser.add_argument(
        "--picture", metavar="PATH", help="save the most and least normal images here"
    )
    return parser.parse_args()


def make_detectors(random_state):
    return {
        # The defaults are those of the paper, for thousands of images. With 120 there
        # are few steps in an epoch, so batches are smaller and steps longer.
        "DeepSVDD": DeepSVDD(
            pretrain_n_epochs=100,
            pretrain_learning_rate=1e-3,
            n_epochs=100,
            learning_rate=1e-3,
            batch_size=32,
            random_state=random_state,
        ),
        "OneClassSVM": OneClassSVM(),
        "IsolationForest": IsolationForest(random_state=random_state),
        "LocalOutlierFactor": LocalOutlierFactor(novelty=True),
        "EllipticEnvelope": EllipticEnvelope(random_state=random_state),
    }


def to_rows(images):
    return images.reshape(len(images), -1)


def draw_extremes(images, labels, scores, digit):
    """Return a picture of the images at both ends of the scores, with label and score."""
    n_columns, cell = 10, 64
    by_score = np.argsort(-scores)  # most normal first
    normal = by_score[labels[by_score] == digit]
    other = by_score[labels[by_score] != digit]
    rows = {
        "Most normal of all": by_score[:n_columns],
        "Least normal of all": by_score[: -n_columns - 1 : -1],
        f"Least normal among the {digit}s": normal[: -n_columns - 1 : -1],
        "Most normal among the other digits": other[:n_columns],
    }
    row_height = cell + 52
    picture = Image.new("L", (n_columns * (cell + 8), len(rows) * row_height), 255)
    draw = ImageDraw.Draw(picture)
    for row, (title, indices) in enumerate(rows.items()):
        top = row * row_height
        draw.text((4, top + 4), title, fill=0)
        for column, index in enumerate(indices):
            left = 4 + column * (cell + 8)
            pixels = Image.fromarray((images[index] * 255).astype(np.uint8))
            picture.paste(
                pixels.resize((cell, cell), Image.Resampling.NEAREST), (left, top + 20)
            )
            caption = f"{labels[index]}: {scores[index]:.2g}"
            draw.text((left, top + cell + 22), caption, fill=0)
    return picture


if __name__ == "__main__":
    # Some pixels are black in every image of a digit, which EllipticEnvelope remarks on.
    warnings.filterwarnings("ignore", "The covariance matrix .* is not full rank")
    main()
