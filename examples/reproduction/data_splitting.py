r"""Data splitting, its controls and its baselines, one class normal: AUROC.

The protocol and the baselines of Schlachter et al. (2019): train on images of one class of
MNIST, Fashion-MNIST or CIFAR-10, score test images of all classes. One line per detector
is appended to ``--output``, so that an interrupted run can go on later::

    python examples/reproduction/data_splitting.py mnist --output mnist.csv

For each class and seed one autoencoder is trained. Its similarity is the split of
`DataSplitOCC` and of the control that has a split and no constraints (NNwDS), and a
baseline of its own (SSIM). ``--atypical-fraction 0.05 0.1 0.25 0.5`` trains the classifier
once for each of these splits, ``--batch-norm none train`` without and with BatchNorm,
``--weight-average none 0.95`` with the weights of the last step and with their averages.
With ``--latent-dim 2 16`` there is an autoencoder for each size of the code. Rows are named
for what differs from the defaults of the class.

``--table`` turns such a file into the table of the documentation::

    python examples/reproduction/data_splitting.py mnist --output mnist.csv --table

Less than the whole takes less time: ``--n-train 2000`` trains on the first images of the
class, ``--n-test 3000`` scores its 1,000 test images and 2,000 others, the same for all.
"""

import argparse
import time
from itertools import product
from pathlib import Path

import numpy as np
from one_vs_rest import NAMES, load
from skimage.feature import hog
from sklearn.decomposition import PCA
from sklearn.ensemble import IsolationForest
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.svm import OneClassSVM
from tiles import add_row, read_rows

from skocc import DataSplitOCC, DeepSVDD

METHODS = (
    "OCSVM", "HOG", "IF", "SSIM", "DeepSVDD", "NaiveNN", "NNwDS", "DataSplitOCC",
)  # fmt: skip
OBJECTIVES = {"NaiveNN": "naive", "NNwDS": "split", "DataSplitOCC": "constrained"}
# Parameters of which a classifier each is trained from one autoencoder.
CHOICES = ("batch_norm", "weight_average", "atypical_fraction")
# AUROC in percent, means over five seeds (Schlachter et al. 2019, Table 1), in the order of
# METHODS.
PAPER = {
    "mnist": [
        (98.2, 87.3, 96.2, 98.7, 98.0, 96.8, 96.9, 98.9),
        (99.2, 72.7, 99.4, 99.8, 99.7, 74.8, 98.7, 99.8),
        (82.1, 85.7, 73.0, 82.6, 91.7, 67.5, 85.4, 91.7),
        (86.1, 92.1, 82.6, 90.6, 91.9, 67.1, 95.1, 96.6),
        (94.8, 73.4, 87.9, 76.6, 94.9, 94.1, 77.5, 86.5),
        (77.4, 86.4, 73.4, 92.3, 88.5, 55.8, 85.5, 88.9),
        (94.8, 93.3, 85.8, 96.6, 98.3, 89.7, 96.3, 98.8),
        (93.4, 73.0, 91.4, 96.0, 94.6, 68.2, 94.0, 96.1),
        (90.2, 91.2, 73.9, 80.2, 93.9, 77.7, 91.0, 95.0),
        (92.8, 81.9, 87.5, 79.5, 96.5, 81.8, 87.4, 90.0),
    ],
    "fashion_mnist": [
        (86.1, 83.8, 86.8, 83.7, 79.1, 62.9, 85.1, 88.3),
        (93.9, 96.7, 97.7, 98.5, 94.0, 65.6, 94.6, 98.9),
        (85.6, 87.1, 87.1, 87.2, 83.0, 73.6, 82.6, 88.2),
        (85.9, 89.7, 90.1, 89.2, 82.9, 70.0, 89.1, 92.1),
        (84.6, 89.7, 89.8, 87.3, 87.0, 80.8, 85.8, 90.2),
        (81.3, 89.0, 88.7, 85.2, 80.3, 64.0, 85.5, 89.4),
        (78.6, 82.3, 79.7, 75.3, 74.9, 71.8, 75.6, 78.3),
        (97.6, 96.5, 98.0, 97.8, 94.2, 92.0, 94.9, 98.3),
        (79.5, 82.0, 88.3, 81.6, 79.1, 72.9, 82.0, 88.6),
        (97.8, 94.4, 97.9, 98.4, 93.2, 90.7, 94.9, 98.5),
    ],
    "cifar10": [
        (61.9, 33.2, 66.7, 75.6, 61.7, 63.8, 62.7, 76.8),
        (38.5, 64.6, 43.6, 43.5, 65.9, 52.7, 63.2, 71.3),
        (60.6, 45.6, 59.1, 61.1, 50.8, 47.8, 57.6, 63.0),
        (49.4, 56.3, 50.3, 48.6, 59.1, 50.2, 58.0, 60.1),
        (71.3, 72.6, 74.4, 63.5, 60.9, 65.1, 61.9, 74.9),
        (52.0, 65.9, 51.4, 62.1, 65.7, 53.3, 65.7, 66.0),
        (63.8, 78.5, 71.1, 44.5, 67.7, 41.1, 64.2, 71.6),
        (48.2, 61.8, 53.6, 47.2, 67.3, 51.5, 62.4, 64.1),
        (63.7, 54.4, 69.4, 76.8, 75.9, 45.8, 73.9, 78.9),
        (48.8, 71.1, 53.9, 40.7, 73.1, 53.5, 55.6, 66.0),
    ],
}  # fmt: skip


def run(options):
    """Fit and score every class and seed that the output file does not hold yet."""
    train_images, train_labels, test_images, test_labels = load(
        options.dataset, options.root
    )
    done = set()
    if options.output.exists():
        done = {
            (row["class"], row["seed"], row["method"]) for row in read_rows(options.output)
        }
    for seed in range(options.first_seed, options.first_seed + options.seeds):
        for normal in options.classes or sorted(set(train_labels.tolist())):
            images = train_images[train_labels == normal][: options.n_train]
            chosen = choose(test_labels, normal, options.n_test)
            labels = test_labels[chosen]
            measured = measure(options, seed, images, test_images[chosen], done, normal)
            for method, scores, seconds in measured:
                # An anomaly is a positive.
                auroc = 100 * roc_auc_score(labels != normal, -scores)
                row = {"method": method, "class": normal, "seed": seed}
                row |= {"n_train": len(images), "n_test": len(labels)}
                row |= {"auroc": f"{auroc:.3f}", "seconds": f"{seconds:.0f}"}
                add_row(options.output, row)
                print("  ".join(f"{k} {v}" for k, v in row.items()), flush=True)


def choose(labels, normal, n_test):
    """Return the indices of all normal test images and of others at random, in order."""
    if n_test is None:
        return np.arange(len(labels))
    is_normal = labels == normal
    others = np.random.default_rng(0).permutation(np.flatnonzero(~is_normal))
    return np.sort(np.r_[np.flatnonzero(is_normal), others[: n_test - is_normal.sum()]])


def measure(options, seed, images, test_images, done, normal):
    """Yield name, scores and seconds of each detector that is wanted and missing."""

    def is_wanted(method, name):
        return method in options.methods and (str(normal), str(seed), name) not in done

    simple = {
        "OCSVM": lambda: pixels_before(one_class_svm()),
        "HOG": lambda: make_pipeline(FunctionTransformer(hog_features), one_class_svm()),
        "IF": lambda: pixels_before(
            PCA(0.95, random_state=seed),
            IsolationForest(n_estimators=100, max_samples=256, random_state=seed),
        ),
        "DeepSVDD": lambda: DeepSVDD(
            pretrain_n_epochs=options.deep_svdd_n_epochs[0],
            n_epochs=options.deep_svdd_n_epochs[1],
            random_state=seed,
            device=options.device,
        ),
    }
    for name, make in simple.items():
        if is_wanted(name, name):
            start = time.perf_counter()
            detector = make().fit(images)
            yield name, detector.score_samples(test_images), time.perf_counter() - start
    for latent_dim in options.latent_dim:
        yield from measure_splits(options, seed, latent_dim, images, test_images, is_wanted)


def measure_splits(options, seed, latent_dim, images, test_images, is_wanted):
    """Yield the same of the detectors that share an autoencoder."""
    wanted = {}
    for method, objective in OBJECTIVES.items():
        # Without a split there is no fraction to choose.
        chosen = CHOICES if objective != "naive" else CHOICES[:-1]
        for values in product(*(getattr(options, name) for name in chosen)):
            params = {"latent_dim": latent_dim, **dict(zip(chosen, values, strict=True))}
            if is_wanted(method, name := named(method, params)):
                wanted[name] = {"objective": objective, **params}
    similarity = named("SSIM", {"latent_dim": latent_dim})
    wants_similarity = is_wanted("SSIM", similarity)
    if not wanted and not wants_similarity:
        return
    start = time.perf_counter()
    split = data_splitter(options, seed).set_params(latent_dim=latent_dim).fit(images)
    split_seconds = time.perf_counter() - start
    if wants_similarity:
        yield similarity, split.reconstruction_similarity(test_images), split_seconds
    for name, params in wanted.items():
        start = time.perf_counter()
        # A network of its own, and then the autoencoder of all.
        detector = data_splitter(options, seed)
        detector.set_params(**{**params, "objective": "naive"}).fit(images)
        detector.autoencoder_ = split.autoencoder_
        detector.set_params(**params, n_epochs=options.n_epochs).fit(images)
        seconds = split_seconds + time.perf_counter() - start
        yield name, detector.score_samples(test_images), seconds


def named(method, params):
    """Return the name of a method with the parameters that are not the defaults."""
    defaults = DataSplitOCC().get_params()
    others = [
        f"{name}={value}" for name, value in params.items() if value != defaults[name]
    ]
    return " ".join([method, *others])


def one_class_svm():
    """Return the support vector machine of the paper."""
    return OneClassSVM(nu=0.15, gamma="auto")


def pixels_before(*steps):
    """Return a pipeline that starts from flattened images in [0, 1]."""
    return make_pipeline(
        FunctionTransformer(lambda images: images.reshape(len(images), -1) / 255), *steps
    )


def hog_features(images):
    """Return histograms of oriented gradients, as the paper takes them."""
    channel_axis = -1 if images.ndim == 4 else None
    return np.array(
        [
            hog(image, orientations=9, pixels_per_cell=(8, 8), cells_per_block=(3, 3),
                channel_axis=channel_axis)
            for image in images
        ]
    )  # fmt: skip


def data_splitter(options, seed):
    """Return data splitting before it is fitted, ready to go on from its autoencoder."""
    return DataSplitOCC(
        image_size=options.image_size,
        channels=options.channels,
        embedding_dim=options.embedding_dim,
        pretrain_n_epochs=options.pretrain_n_epochs,
        n_epochs=0,
        learning_rate=options.learning_rate,
        mixed_precision=options.mixed_precision,
        device=options.device,
        verbose=options.verbose,
        random_state=seed,
        warm_start=True,
    )


def table(options):
    """Print mean and spread per class beside the paper's, as CSV."""
    groups = {}
    for row in read_rows(options.output):
        group = groups.setdefault(row["method"], {})
        group.setdefault(int(row["class"]), []).append(float(row["auroc"]))
    classes = sorted({index for group in groups.values() for index in group})
    columns = {}
    for method in sorted(groups, key=lambda name: METHODS.index(name.split()[0])):
        columns[method] = groups[method]
        if method in METHODS:
            paper = PAPER[options.dataset]
            place = METHODS.index(method)
            columns[f"{method} published"] = {i: [paper[i][place]] for i in classes}
    print(",".join(["class", *columns, "seeds"]))
    for index in classes:
        cells = [show(column.get(index, [])) for column in columns.values()]
        n_seeds = max(len(group.get(index, ())) for group in groups.values())
        print(",".join([NAMES[options.dataset][index], *cells, str(n_seeds)]))
    means = [
        f"{np.mean([np.mean(column[index]) for index in classes]):.1f}"
        if set(classes) <= set(column)
        else ""
        for column in columns.values()
    ]
    print(",".join(["mean", *means, ""]))


def show(aurocs):
    """Return the mean, and the standard deviation of several, as text."""
    if len(aurocs) < 2:
        return "".join(f"{auroc:.1f}" for auroc in aurocs)
    return f"{np.mean(aurocs):.1f} ± {np.std(aurocs):.1f}"


def float_or_none(text):
    """Read a number, or none."""
    return None if text == "none" else float(text)


def main():
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("dataset", choices=sorted(NAMES))
    parser.add_argument("--output", type=Path, required=True, help="CSV file to add to")
    parser.add_argument("--table", action="store_true", help="print the table and stop")
    parser.add_argument(
        "--classes", type=int, nargs="+", help="normal classes; default all"
    )
    parser.add_argument("--seeds", type=int, default=1, help="number of seeds")
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--methods", nargs="+", default=METHODS, choices=METHODS)
    defaults = DataSplitOCC().get_params()
    for name, kind in [
        ("latent_dim", int),
        ("batch_norm", str),
        ("weight_average", float_or_none),
        ("atypical_fraction", float),
    ]:
        option = f"--{name.replace('_', '-')}"
        parser.add_argument(option, type=kind, nargs="+", default=[defaults[name]])
    parser.add_argument("--image-size", type=int, help="side that images are resized to")
    parser.add_argument("--channels", type=int, nargs=5, help="default: AlexNet's")
    parser.add_argument("--embedding-dim", type=int, help="features; default 512")
    parser.add_argument("--n-train", type=int, help="images to train on; default all")
    parser.add_argument("--n-test", type=int, help="images to test on; default all")
    for name in ("pretrain_n_epochs", "n_epochs"):
        parser.add_argument(f"--{name.replace('_', '-')}", type=int, default=defaults[name])
    parser.add_argument("--learning-rate", type=float, default=defaults["learning_rate"])
    parser.add_argument("--mixed-precision", action="store_true")
    parser.add_argument(
        "--deep-svdd-n-epochs", type=int, nargs=2, default=[150, 150],
        help="epochs of the two stages of DeepSVDD",
    )  # fmt: skip
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
