"""Deep SVDD on MNIST, Fashion-MNIST or CIFAR-10, one class normal: AUROC per class.

The protocol of Ruff et al. (2018): train on all training images of one class, score all
test images of all classes. One line per fit is appended to ``--output`` as soon as it is
known, so an interrupted run can go on later with the classes that are missing::

    python examples/reproduction/one_vs_rest.py mnist --output mnist.csv

``--table`` turns such a file into the table of the documentation::

    python examples/reproduction/one_vs_rest.py mnist --output mnist.csv --table

The images are read from the folder that the environment variable SKOCC_DATA names, where
it is set (``mnist.npz``, ``fashion_mnist.npz``, ``cifar10.npz``), else downloaded by
torchvision into ``--root``.
"""

import argparse
import csv
import io
import os
import time
from itertools import pairwise
from pathlib import Path

import numpy as np
from PIL import Image
from sklearn.metrics import roc_auc_score

from skocc import DeepSVDD

# AUROC in percent, mean and standard deviation over ten seeds (Ruff et al. 2018, Table 1;
# for Fashion-MNIST over five, as reported by the data-splitting paper).
PAPER = {
    "mnist": [
        (98.0, 0.7), (99.7, 0.1), (91.7, 0.8), (91.9, 1.5), (94.9, 0.8),
        (88.5, 0.9), (98.3, 0.5), (94.6, 0.9), (93.9, 1.6), (96.5, 0.3),
    ],
    "fashion_mnist": [
        (79.1, 1.5), (94.0, 1.3), (83.0, 1.4), (82.9, 1.9), (87.0, 0.5),
        (80.3, 4.6), (74.9, 1.3), (94.2, 2.1), (79.1, 4.5), (93.2, 2.4),
    ],
    "cifar10": [
        (61.7, 4.1), (65.9, 2.1), (50.8, 0.8), (59.1, 1.4), (60.9, 1.1),
        (65.7, 2.5), (67.7, 2.6), (67.3, 0.9), (75.9, 1.2), (73.1, 1.2),
    ],
}  # fmt: skip
NAMES = {
    "mnist": [f"digit {i}" for i in range(10)],
    "fashion_mnist": [
        "T-shirt", "trouser", "pullover", "dress", "coat",
        "sandal", "shirt", "sneaker", "bag", "ankle boot",
    ],
    "cifar10": [
        "airplane", "automobile", "bird", "cat", "deer",
        "dog", "frog", "horse", "ship", "truck",
    ],
}  # fmt: skip
TORCHVISION = {"mnist": "MNIST", "fashion_mnist": "FashionMNIST", "cifar10": "CIFAR10"}


def load(dataset, root):
    """Return training images and labels, test images and labels."""
    folder = os.environ.get("SKOCC_DATA")
    if folder is None:
        from torchvision import datasets

        parts = []
        for train in (True, False):
            part = getattr(datasets, TORCHVISION[dataset])(root, train, download=True)
            parts += [np.asarray(part.data), np.asarray(part.targets)]
        return parts
    with np.load(Path(folder) / f"{dataset}.npz") as arrays:
        if dataset != "cifar10":
            names = ("train_images", "train_labels", "test_images", "test_labels")
            return [arrays[name] for name in names]
        # JPEG files, one after another; five of the ten classes for training.
        parts = []
        for part in ("train", "test"):
            data, offsets = arrays[f"{part}_jpeg"].tobytes(), arrays[f"{part}_offsets"]
            files = [data[a:b] for a, b in pairwise(offsets)]
            decoded = [Image.open(io.BytesIO(file)).convert("RGB") for file in files]
            parts += [np.stack([np.asarray(image) for image in decoded])]
            parts += [arrays[f"{part}_labels"]]
        return parts


def run(options):
    """Fit and score every class and seed that the output file does not hold yet."""
    train_images, train_labels, test_images, test_labels = load(
        options.dataset, options.root
    )
    classes = options.classes or sorted(set(train_labels.tolist()))
    done = set()
    if options.output.exists():
        done = {(int(row["class"]), int(row["seed"])) for row in read(options.output)}
    for seed in range(options.first_seed, options.first_seed + options.seeds):
        for normal in classes:
            if (normal, seed) in done:
                continue
            detector = DeepSVDD(
                boundary=options.boundary,
                pretrain_n_epochs=options.pretrain_n_epochs,
                pretrain_milestones=options.pretrain_milestones,
                pretrain_weight_decay=options.pretrain_weight_decay,
                n_epochs=options.n_epochs,
                milestones=options.milestones,
                filter_init=options.filter_init,
                device=options.device,
                random_state=seed,
                verbose=options.verbose,
            )
            start = time.perf_counter()
            detector.fit(train_images[train_labels == normal])
            seconds = time.perf_counter() - start
            scores = -detector.score_samples(test_images)  # an anomaly is a positive
            auroc = 100 * roc_auc_score(test_labels != normal, scores)
            print(
                f"{NAMES[options.dataset][normal]:>12}  seed {seed}  {auroc:.2f}",
                flush=True,
            )
            is_new = not options.output.exists()
            with options.output.open("a", newline="") as file:
                writer = csv.writer(file)
                if is_new:
                    writer.writerow(["class", "seed", "auroc", "seconds"])
                writer.writerow([normal, seed, f"{auroc:.3f}", f"{seconds:.0f}"])


def read(path):
    """Return the lines of an output file."""
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def table(options):
    """Print mean and spread per class beside the paper's, as CSV."""
    rows = read(options.output)
    means, papers = [], []
    print("class,paper mean,paper std,skocc mean,skocc std,seeds")
    for index, name in enumerate(NAMES[options.dataset]):
        aurocs = [float(row["auroc"]) for row in rows if int(row["class"]) == index]
        mean, std = PAPER[options.dataset][index]
        if not aurocs:
            continue
        means.append(np.mean(aurocs))
        papers.append(mean)
        spread = f"{np.std(aurocs):.1f}" if len(aurocs) > 1 else ""
        print(f"{name},{mean},{std},{means[-1]:.1f},{spread},{len(aurocs)}")
    print(f"mean,{np.mean(papers):.1f},,{np.mean(means):.1f},,")


def main():
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("dataset", choices=sorted(PAPER))
    parser.add_argument("--output", type=Path, required=True, help="CSV file to add to")
    parser.add_argument("--table", action="store_true", help="print the table and stop")
    parser.add_argument(
        "--classes", type=int, nargs="+", help="normal classes; default all"
    )
    parser.add_argument("--seeds", type=int, default=1, help="number of seeds")
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--boundary", default="hard", choices=["hard", "soft"])
    defaults = DeepSVDD().get_params()
    for name in ("pretrain_n_epochs", "n_epochs"):
        parser.add_argument(f"--{name.replace('_', '-')}", type=int, default=defaults[name])
    for name in ("pretrain_milestones", "milestones"):
        option = f"--{name.replace('_', '-')}"
        parser.add_argument(option, type=int, nargs="*", default=defaults[name])
    decay = defaults["pretrain_weight_decay"]
    parser.add_argument("--pretrain-weight-decay", type=float, default=decay)
    parser.add_argument("--filter-init", default="dictionary")
    parser.add_argument("--device", help="default: the fastest there is")
    parser.add_argument("--root", default="data", help="where torchvision downloads to")
    parser.add_argument("--verbose", type=int, default=0)
    options = parser.parse_args()
    if options.table:
        table(options)
    else:
        run(options)


if __name__ == "__main__":
    main()
