r"""Deep SVDD and MOCCA on MNIST, Fashion-MNIST or CIFAR-10, one class normal: AUROC.

The protocol of Ruff et al. (2018): train on all training images of one class, score all
test images of all classes. One line per fit is appended to ``--output`` as soon as it is
known, so an interrupted run can go on later with the classes that are missing::

    python examples/reproduction/one_vs_rest.py mnist --output mnist.csv

``--table`` turns such a file into the table of the documentation::

    python examples/reproduction/one_vs_rest.py mnist --output mnist.csv --table

``--methods deep_svdd mocca`` runs both with the same seeds, schedules and batches. MOCCA's
autoencoder is trained once; from its weights, the objective is trained for each set of
``--train-layers``, and each of these is scored by each set of ``--score-layers``::

    python examples/reproduction/one_vs_rest.py cifar10 --output layers.csv \
        --methods deep_svdd mocca --train-layers 3 0,1,2,3 --score-layers 3 0,1,2,3

``--boundary hard soft`` trains both from one autoencoder, and ``--n-train 2000`` on the
first 2000 images of a class.

A layer that is scored and was not trained has a center of its own all the same: the mean
of its features after the training, or before it with ``--centers before``.

``--backbone`` trains Deep SVDD with a network of torchvision, as the student report on both
does, whose settings are 5 epochs, batches of 64 and no milestones::

    python examples/reproduction/one_vs_rest.py cifar10 --output backbones.csv \
        --backbone mobilenet_v2 --image-size 64 --n-epochs 5 --batch-size 64 \
        --milestones --weight-decay 0 --classes 0 1 2

A line then has four thresholds as well, each with F1, precision and recall of the
anomalies: the one that a user gets (``contamination=0.1`` of the training images), the best
F1, and the report's two, the median and the 80 % percentile of the distances of the test
images. The last three look at the test. ``--weights`` may be a file whose batch
normalization was folded into scale and shift: it is given statistics again (see
batch_norm.py). ``--embeddings FILE`` keeps the t-SNE of 1000 test images. In the place of
the name of a data set, a folder with the layout of MVTec AD has one class, 0, as in the
report's experiment on bottles::

    python examples/reproduction/one_vs_rest.py mvtec/bottle --output bottle.csv \
        --backbone mobilenet_v2 --image-size 224 --n-epochs 5 --batch-size 64 \
        --milestones --weight-decay 0

The images are read from the folder that the environment variable SKOCC_DATA names, where
it is set (``mnist.npz``, ``fashion_mnist.npz``, ``cifar10.npz``), else downloaded by
torchvision into ``--root``.
"""

import argparse
import copy
import io
import os
import time
from itertools import pairwise, product
from pathlib import Path

import numpy as np
from batch_norm import restore_batch_norm
from PIL import Image
from sklearn.manifold import TSNE
from sklearn.metrics import (
    precision_recall_curve,
    precision_recall_fscore_support,
    roc_auc_score,
)
from tiles import add_row, layer_set, read_rows

from skocc import MOCCA, DeepSVDD
from skocc._nets.weights import load_weights
from skocc._samples.sources import FileImages
from skocc.datasets import load_mvtec_layout

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
}  # fmt: skip
# For CIFAR-10 the same from Massoli et al. (2022), Table I: mean over ten seeds.
PAPER_CIFAR10 = {
    ("DeepSVDD", "soft"): [61.7, 64.8, 49.5, 56.0, 59.9, 62.1, 67.8, 65.2, 75.6, 71.0],
    ("DeepSVDD", "hard"): [61.7, 65.9, 50.8, 59.1, 60.9, 65.7, 67.7, 67.3, 75.9, 73.1],
    ("MOCCA", "soft"): [62.6, 74.6, 57.5, 57.8, 61.5, 66.3, 67.4, 72.1, 79.1, 77.3],
    ("MOCCA", "hard"): [66.0, 70.5, 52.4, 60.1, 60.9, 68.4, 67.1, 68.5, 79.2, 75.8],
}
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


def load_folder(folder, image_size):
    """Return the images of a folder in MVTec AD's layout and their labels, 0 if normal."""
    data = load_mvtec_layout(folder)
    size = (image_size or 224,) * 2
    images = [
        FileImages(paths, size, 3).load(range(len(paths)))
        for paths in (data.train_paths, data.test_paths)
    ]
    labels = np.zeros(len(images[0]), int), np.where(data.test_labels == 1, 0, 1)
    return images[0], labels[0], images[1], labels[1]


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
    train_images, train_labels, test_images, test_labels = (
        load(options.dataset, options.root)
        if options.dataset in NAMES
        else load_folder(options.dataset, options.image_size)
    )
    classes = options.classes or sorted(set(train_labels.tolist()))
    done = set()
    setting = settings_of(options)
    if options.output.exists():
        names = ("method", "boundary", "class", "seed", *setting)
        done = {tuple(row[name] for name in names) for row in read_rows(options.output)}
    measures = {"deep_svdd": measure_deep_svdd, "mocca": measure_mocca}
    if options.backbone is not None:
        measures["deep_svdd"] = measure_backbone
    for seed in range(options.first_seed, options.first_seed + options.seeds):
        for normal in classes:
            for method in options.methods:
                name = {"deep_svdd": "DeepSVDD", "mocca": "MOCCA"}[method]
                key = (str(normal), str(seed), *setting.values())
                boundaries = [b for b in options.boundary if (name, b, *key) not in done]
                if not boundaries:
                    continue
                images = train_images[train_labels == normal][: options.n_train]
                # All of them before any is written: a fit is there or is not.
                measure = measures[method]
                parts = list(measure(options, boundaries, seed, images, test_images))
                for part in parts:
                    scores = part.pop("scores")
                    # An anomaly is a positive.
                    auroc = 100 * roc_auc_score(test_labels != normal, -scores)
                    row = {"method": name, "boundary": part.pop("boundary"), **setting}
                    row |= {**part, "class": normal, "seed": seed, "auroc": f"{auroc:.3f}"}
                    if "threshold" in row:
                        is_anomaly = test_labels != normal
                        row |= rates(is_anomaly, -scores, -row.pop("threshold"))
                    add_row(options.output, row)
                    print("  ".join(f"{k} {v}" for k, v in row.items()), flush=True)


def shared_params(options, seed):
    """Return what both methods have in common."""
    names = (
        "filter_init", "pretrain_n_epochs", "pretrain_learning_rate",
        "pretrain_milestones", "pretrain_weight_decay", "n_epochs", "learning_rate",
        "milestones", "weight_decay", "batch_size", "device", "verbose",
    )  # fmt: skip
    params = {name: getattr(options, name) for name in names}
    return {**params, "random_state": seed}


def pretrain(detector, images):
    """Return a detector whose autoencoder alone was trained, and the seconds."""
    start = time.perf_counter()
    detector.set_params(n_epochs=0, warm_start=True).fit(images)
    return detector, time.perf_counter() - start


def measure_deep_svdd(options, boundaries, seed, images, test_images):
    """Yield the scores of Deep SVDD for each boundary, from one autoencoder."""
    detector = DeepSVDD(**shared_params(options, seed))
    pretrained, pretrain_seconds = pretrain(detector, images)
    for boundary in boundaries:
        start = time.perf_counter()
        detector = copy.deepcopy(pretrained)
        detector.set_params(boundary=boundary, n_epochs=options.n_epochs).fit(images)
        seconds = pretrain_seconds + time.perf_counter() - start
        yield {
            "boundary": boundary,
            "trained": "last",
            "scored": "last",
            "scores": detector.score_samples(test_images),
            "seconds": f"{seconds:.0f}",
        }


def settings_of(options):
    """Return what sets the lines of a study with backbones apart, as text."""
    if options.backbone is None:
        return {}
    return {
        "backbone": options.backbone,
        "pixels": str(options.image_size or 32),
        "epochs": str(options.n_epochs),
    }


def measure_backbone(options, boundaries, seed, images, test_images):
    """Yield the scores of Deep SVDD with a network of torchvision, and its threshold."""
    for boundary in boundaries:
        yield measure_one_backbone(options, boundary, seed, images, test_images)


def measure_one_backbone(options, boundary, seed, images, test_images):
    """Return the scores of Deep SVDD with a network of torchvision, and its threshold."""
    start = time.perf_counter()
    detector = DeepSVDD(
        backbone=make_backbone(options, images),
        image_size=options.image_size,
        boundary=boundary,
        n_epochs=options.n_epochs,
        learning_rate=options.learning_rate,
        milestones=options.milestones,
        weight_decay=options.weight_decay,
        batch_size=options.batch_size,
        device=options.device,
        random_state=seed,
        verbose=options.verbose,
    ).fit(images)
    seconds = time.perf_counter() - start
    if options.embeddings is not None:
        keep_embedding(detector, images, test_images, options.embeddings, seed)
    return {
        "boundary": boundary,
        "trained": "last",
        "scored": "last",
        "scores": detector.score_samples(test_images),
        "seconds": f"{seconds:.0f}",
        "threshold": detector.offset_,
    }


def make_backbone(options, images):
    """Return a network without its classifier, with statistics of these images."""
    from torch import nn
    from torchvision import models

    is_file = Path(options.weights).is_file()
    network = models.get_model(options.backbone, weights=None if is_file else "DEFAULT")
    if is_file:
        load_weights(network, options.weights)
        restore_batch_norm(network, images[:1000], options.image_size or 32)
    for name in ("fc", "classifier"):
        if hasattr(network, name):
            setattr(network, name, nn.Identity())
    return network


def rates(is_anomaly, distances, threshold):
    """Return F1, precision and recall of the anomalies at four thresholds, in percent."""
    precisions, recalls, candidates = precision_recall_curve(is_anomaly, distances)
    f1 = 2 * precisions * recalls / np.maximum(precisions + recalls, 1e-12)
    thresholds = {
        "training": threshold,
        "best F1": candidates[np.argmax(f1[:-1])],
        "median of test": np.median(distances),
        "80 % of test": np.percentile(distances, 80),
    }
    found = {}
    for name, value in thresholds.items():
        # The best threshold is itself called anomalous.
        flagged = distances >= value if name == "best F1" else distances > value
        figures = precision_recall_fscore_support(
            is_anomaly, flagged, average="binary", zero_division=0
        )
        for kind, figure in zip(("precision", "recall", "F1"), figures[:3], strict=True):
            found[f"{kind}, {name}"] = f"{100 * figure:.2f}"
    return found


def keep_embedding(detector, images, test_images, path, seed):
    """Write the t-SNE of the embeddings of some training and test images, as CSV."""
    rng = np.random.default_rng(seed)
    parts = [
        part[np.sort(rng.choice(len(part), min(500, len(part)), replace=False))]
        for part in (images, test_images)
    ]
    vectors = detector.embed(np.concatenate(parts))
    points = TSNE(random_state=seed).fit_transform(vectors)
    kinds = ["training"] * len(parts[0]) + ["test"] * len(parts[1])
    for kind, point in zip(kinds, points, strict=True):
        add_row(path, {"images": kind, "x": f"{point[0]:.3f}", "y": f"{point[1]:.3f}"})


def measure_mocca(options, boundaries, seed, images, test_images):
    """Yield the scores of MOCCA for all sets of layers, from one autoencoder."""
    detector = MOCCA(batch_norm=options.batch_norm, **shared_params(options, seed))
    pretrained, pretrain_seconds = pretrain(detector, images)
    train_layers = options.train_layers or [pretrained.layers_]
    for boundary, layers in product(boundaries, train_layers):
        start = time.perf_counter()
        detector = copy.deepcopy(pretrained)
        detector.set_params(boundary=boundary, layers=layers, n_epochs=options.n_epochs)
        detector.fit(images)
        seconds = pretrain_seconds + time.perf_counter() - start
        columns = score_all_layers(detector, pretrained, options, images, test_images)
        for scored in options.score_layers or [pretrained.layers_]:
            yield {
                "boundary": boundary,
                "trained": show(layers),
                "scored": show(scored),
                "scores": columns[:, list(scored)].mean(axis=1),
                "seconds": f"{seconds:.0f}",
            }


def score_all_layers(detector, pretrained, options, images, test_images):
    """Return the scores of each layer of the network, trained or not."""
    detector = copy.deepcopy(detector)
    if options.centers == "before":
        # A radius of zero is replaced by the quantile of the distances.
        spheres = {
            j: (center, 0.0)
            for j, center in zip(pretrained.layers_, pretrained.centers_, strict=True)
        }
        own = zip(detector.layers_, detector.centers_, detector.radii_, strict=True)
        spheres |= {j: (center, radius) for j, center, radius in own}
        detector.layers_ = tuple(sorted(spheres))
        detector.centers_ = [spheres[j][0] for j in detector.layers_]
        detector.radii_ = np.array([spheres[j][1] for j in detector.layers_])
    # A warm start of no epochs: layers that are new get a center from the weights.
    detector.set_params(layers=None, n_epochs=0).fit(images)
    return detector.layer_scores(test_images)


def show(layers):
    """Return layers as text."""
    return "+".join(str(j) for j in layers)


def table(options):
    """Print mean and spread per class beside the papers', as CSV."""
    groups = {}
    for row in read_rows(options.output):
        key = row["method"], row["boundary"], row["trained"], row["scored"]
        aurocs = groups.setdefault(key, {}).setdefault(int(row["class"]), [])
        aurocs.append(float(row["auroc"]))
    classes = sorted({index for group in groups.values() for index in group})
    columns = published_columns(options.dataset, list(groups))
    for (method, boundary, trained, scored), group in groups.items():
        name = f"{method} {boundary}"
        if method == "MOCCA":
            name += f" trained {trained} scored {scored}"
        columns[name] = {index: np.mean(aurocs) for index, aurocs in group.items()}
        if max(map(len, group.values())) > 1:
            columns[f"{name} std"] = {i: np.std(aurocs) for i, aurocs in group.items()}
    seeds = {i: max(len(g.get(i, ())) for g in groups.values()) for i in classes}
    print(",".join(["class", *columns, "seeds"]))
    for index in classes:
        cells = [f"{c[index]:.1f}" if index in c else "" for c in columns.values()]
        print(",".join([NAMES[options.dataset][index], *cells, str(seeds[index])]))
    means = [
        ""
        if name.endswith("std") or not set(classes) <= set(column)
        else f"{np.mean([column[index] for index in classes]):.1f}"
        for name, column in columns.items()
    ]
    print(",".join(["mean", *means, ""]))


def published_columns(dataset, groups):
    """Return the published numbers for the methods and boundaries in a file."""
    columns = {}
    for method, boundary in dict.fromkeys(group[:2] for group in groups):
        name = f"{method} {boundary} published"
        if dataset == "cifar10":
            columns[name] = dict(enumerate(PAPER_CIFAR10[method, boundary]))
        elif (method, boundary) == ("DeepSVDD", "hard"):
            columns[name] = {i: mean for i, (mean, _) in enumerate(PAPER[dataset])}
            columns[f"{name} std"] = {i: std for i, (_, std) in enumerate(PAPER[dataset])}
    return columns


def main():
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("dataset", help=f"{', '.join(NAMES)}, or a folder")
    parser.add_argument("--output", type=Path, required=True, help="CSV file to add to")
    parser.add_argument("--table", action="store_true", help="print the table and stop")
    parser.add_argument(
        "--classes", type=int, nargs="+", help="normal classes; default all"
    )
    parser.add_argument("--seeds", type=int, default=1, help="number of seeds")
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument(
        "--methods", nargs="+", default=["deep_svdd"], choices=["deep_svdd", "mocca"]
    )
    parser.add_argument(
        "--train-layers", type=layer_set, nargs="+",
        help="sets of layers to train MOCCA on, such as 3 0,1,2,3; default all",
    )  # fmt: skip
    parser.add_argument(
        "--score-layers", type=layer_set, nargs="+",
        help="sets of layers to score by; default all",
    )  # fmt: skip
    parser.add_argument(
        "--centers", default="after", choices=["after", "before"],
        help="of which weights layers that were not trained have centers",
    )  # fmt: skip
    parser.add_argument("--batch-norm", choices=["train", "frozen"], default="train")
    parser.add_argument("--boundary", nargs="+", default=["hard"], choices=["hard", "soft"])
    parser.add_argument("--n-train", type=int, help="images of a class; default all")
    defaults = DeepSVDD().get_params()
    for name in ("pretrain_n_epochs", "n_epochs"):
        parser.add_argument(f"--{name.replace('_', '-')}", type=int, default=defaults[name])
    for name in ("pretrain_milestones", "milestones"):
        option = f"--{name.replace('_', '-')}"
        parser.add_argument(option, type=int, nargs="*", default=defaults[name])
    for name in (
        "pretrain_weight_decay", "pretrain_learning_rate", "weight_decay", "learning_rate"
    ):  # fmt: skip
        option = f"--{name.replace('_', '-')}"
        parser.add_argument(option, type=float, default=defaults[name])
    parser.add_argument("--batch-size", type=int, default=defaults["batch_size"])
    parser.add_argument("--filter-init", default="dictionary")
    parser.add_argument("--backbone", help="network of torchvision, for Deep SVDD")
    parser.add_argument("--weights", default="imagenet", help="imagenet, or a file")
    parser.add_argument("--image-size", type=int, help="pixels, for a backbone")
    parser.add_argument("--embeddings", type=Path, help="CSV file, for a backbone")
    parser.add_argument("--device", help="default: the fastest there is")
    parser.add_argument("--root", default="data", help="where torchvision downloads to")
    parser.add_argument("--verbose", type=int, default=0)
    options = parser.parse_args()
    if options.dataset not in NAMES and not Path(options.dataset).is_dir():
        parser.error(f"{options.dataset!r} is neither one of {list(NAMES)} nor a folder")
    if options.table:
        table(options)
    else:
        run(options)


if __name__ == "__main__":
    main()
