"""The most and the least typical of some normal images, and what is learned from them.

DataSplitOCC splits normal images by how well an autoencoder reconstructs them, and learns
to tell the two parts. Without arguments, on the 8 x 8 digits that come with scikit-learn:
one digit is normal, nothing is downloaded, some ten seconds on a CPU. A hundred images are
few for the classifier, and the reconstruction alone ranks better there. ``--folder`` shows
which images of a folder of yours are the odd ones::

    python examples/typical_images.py --picture typical.png
    python examples/typical_images.py --folder photographs --picture typical.png
"""

import argparse
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw
from sklearn.datasets import load_digits
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import train_test_split

from skocc import DataSplitOCC
from skocc.datasets import load_image_folder

CELL, N_COLUMNS = 64, 10


def main():
    args = parse_args()
    detector = DataSplitOCC(
        atypical_fraction=args.atypical_fraction,
        pretrain_n_epochs=args.n_epochs,
        n_epochs=args.n_epochs,
        # The defaults are for thousands of images. With a hundred there are few steps in
        # an epoch, so batches are smaller and steps longer.
        learning_rate=1e-3,
        batch_size=20,
        image_size=args.image_size if args.folder else None,
        random_state=args.random_state,
        verbose=1,
    )
    if args.folder:
        train = load_image_folder(args.folder).paths
        detector.fit(train)
    else:
        train, test, is_anomaly = one_digit(args.digit, args.random_state)
        detector.fit(train)
    typical, similarity = detector.typical_, detector.reconstruction_similarity_
    print(
        f"{len(train)} normal images, of which {np.sum(~typical)} are atypical: similarity "
        f"to the reconstruction at most {similarity[~typical].max():.3f}, median of the "
        f"others {np.median(similarity[typical]):.3f}."
    )
    probability = detector.normal_probability(train)
    print(
        f"Probability of being typical: {probability[typical].mean():.2f} on average for "
        f"the typical ones, {probability[~typical].mean():.2f} for the atypical ones."
    )
    if not args.folder:
        print("\nAUROC on held-out images of this digit and all of the others")
        for name, scores in {
            "classifier": detector.score_samples(test),
            "reconstruction alone": detector.reconstruction_similarity(test),
        }.items():
            print(f"{name:<22}{roc_auc_score(is_anomaly, -scores):.3f}")
    if args.picture:
        draw(train, similarity, probability).save(args.picture)
        print(f"The most and least typical images are in {args.picture}.")


def parse_args():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, help="of images; default: digits")
    parser.add_argument("--image-size", type=int, default=32, help="with --folder")
    parser.add_argument("--digit", type=int, default=6, choices=range(10))
    parser.add_argument("--atypical-fraction", type=float, default=0.3)
    parser.add_argument("--n-epochs", type=int, default=40)
    parser.add_argument("--random-state", type=int, default=0)
    parser.add_argument("--picture", metavar="PATH", help="save them here")
    return parser.parse_args()


def one_digit(digit, random_state):
    """Return images of a digit, held-out images of all digits, and which are others."""
    digits = load_digits()
    train, test, train_labels, test_labels = train_test_split(
        digits.images / 16, digits.target, test_size=1 / 3, stratify=digits.target,
        random_state=random_state,
    )  # fmt: skip
    return train[train_labels == digit], test, test_labels != digit


def draw(images, similarity, probability):
    """Return a picture of both ends, with similarity and probability below each image."""
    order = np.argsort(-similarity)
    rows = {
        "Most typical": order[:N_COLUMNS],
        "Least typical": order[: -N_COLUMNS - 1 : -1],
    }
    row_height = CELL + 62
    picture = Image.new("RGB", (N_COLUMNS * (CELL + 8), len(rows) * row_height), "white")
    pen = ImageDraw.Draw(picture)
    for row, (title, indices) in enumerate(rows.items()):
        top = row * row_height
        pen.text((4, top + 4), f"{title}: similarity, probability", fill="black")
        for column, index in enumerate(indices):
            left = 4 + column * (CELL + 8)
            picture.paste(as_picture(images[index]), (left, top + 20))
            pen.text((left, top + CELL + 22), f"{similarity[index]:.3f}", fill="black")
            pen.text((left, top + CELL + 36), f"{probability[index]:.3f}", fill="black")
    return picture


def as_picture(image):
    """Return an array in [0, 1], or a file, as a small picture."""
    if isinstance(image, Path):
        return Image.open(image).convert("RGB").resize((CELL, CELL))
    pixels = Image.fromarray((image * 255).astype(np.uint8))
    return pixels.resize((CELL, CELL), Image.Resampling.NEAREST)


if __name__ == "__main__":
    main()
