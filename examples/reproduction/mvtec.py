r"""All methods on MVTec AD, each category by the settings of its document: one table.

Fits on ``train/good`` of each category, scores ``test``, and appends one line for each
method and category to ``--output`` as soon as it is known, so that an interrupted run goes
on with what is missing::

    python examples/reproduction/mvtec.py ROOT --output mvtec.csv
    python examples/reproduction/mvtec.py ROOT --output mvtec.csv \
        --methods patch_svdd mocca --categories bottle carpet

ROOT is the folder that holds the categories, as MVTec AD is unpacked; any folder with the
layout of MVTec AD is a further category. ``--table`` prints the means of such a file beside
the published numbers, which are in ``docs/results/published_mvtec.csv``::

    python examples/reproduction/mvtec.py ROOT --output mvtec.csv --table

``patch_svdd`` has the settings of Patch SVDD's code, ``mocca`` and ``mocca_hard`` those of
MOCCA for textures (patches of 64 pixels) and for objects (128 pixels), ``feature_cae``,
``resnet_knn``, ``conv_ae`` and ``classical`` those of the report on MVTec AD, and
``patchcore`` those of PatchCore with a tenth of the vectors. What differs: Patch SVDD is
trained densely, for 20 epochs, where ``patch_svdd_published`` takes its own training, days
on a CPU; the strength of its second loss is one for all categories; PatchCore's images are
not cut.

Networks have ImageNet weights, which torchvision downloads once. Without internet,
``--backbone mobilenet_v2 --weights FILE --layers features.6 features.13`` takes another
network for all methods that have one.

Columns: AUROC of images and pixels, the area under the per-region overlap up to 30 % false
alarms, the highest balanced accuracy and F1 of images over all thresholds, which look at
the labels of the test images; seconds to fit, milliseconds an image to score and map, and
the peak memory of the process in MiB. Maps and masks are compared at the size of the
resized images, over all pixels of all test images. MOCCA has no maps of objects.
"""

import argparse
import time
from pathlib import Path

import magnetic_tile_classical
import magnetic_tile_patches
import numpy as np
from tiles import add_row, load_masks, parameter, peak_memory, read_rows

import skocc
from skocc import metrics
from skocc.datasets import load_mvtec_layout

TEXTURES = ("carpet", "grid", "leather", "tile", "wood")
OBJECTS = (
    "bottle", "cable", "capsule", "hazelnut", "metal_nut", "pill", "screw", "toothbrush",
    "transistor", "zipper",
)  # fmt: skip
# Objects that may lie any way, which the code of MOCCA rotates.
TURNED = ("bottle", "hazelnut", "metal_nut", "screw")
PUBLISHED = Path(__file__).parents[2] / "docs" / "results" / "published_mvtec.csv"
METRICS = ("image AUROC", "pixel AUROC", "AUPRO", "max BA", "best F1")


def patch_svdd(category):
    """Return Patch SVDD, and its parameters that do not come from the options."""
    return skocc.PatchSVDD(image_size=256)


def patch_svdd_published(category):
    """Return Patch SVDD with the training of its code, and all vectors in the banks."""
    detector = skocc.PatchSVDD(image_size=256, max_bank_bytes=None)
    return detector.set_params(**magnetic_tile_patches.PUBLISHED)


def mocca(category, boundary="soft"):
    """Return MOCCA for a texture, or for an object."""
    detector = skocc.MOCCA(backbone="residual", boundary=boundary)
    if category in OBJECTS:
        rotations = (-45, 45) if category in TURNED else None
        return detector.set_params(image_size=128, rotation_range=rotations)
    return detector.set_params(image_size=512, patch_size=64, rotation_range=(0, 45))


def mocca_hard(category):
    """Return MOCCA with a hard boundary."""
    return mocca(category, "hard")


def feature_cae(category):
    """Return the report's autoencoder of features."""
    return skocc.FeatureCAE(backbone="resnet50", layers=("layer2", "layer3"))


def resnet_knn(category):
    """Return the report's nearest neighbors."""
    return skocc.ResNetKNN(backbone="resnet50", layers=("layer2", "layer3"))


def patchcore(category):
    """Return PatchCore with a tenth of the vectors."""
    return skocc.ResNetKNN(
        backbone="wide_resnet50_2",
        layers=("layer2", "layer3"),
        normalization="imagenet",
        pooling="locally_aware",
        subsampling="coreset",
        bank_fraction=0.1,
        smoothing=4,
    )


def conv_ae(category):
    """Return the report's autoencoder of images."""
    return skocc.ConvAE(image_size=224)


DETECTORS = {
    function.__name__: function
    for function in (
        patch_svdd, patch_svdd_published, mocca, mocca_hard, feature_cae, resnet_knn,
        patchcore, conv_ae,
    )
}  # fmt: skip


def make(method, category, options):
    """Return the detector of a method, with what the command line says of it."""
    detector = DETECTORS[method](category)
    detector.set_params(device=options.device, random_state=options.seed)
    has_network = method in ("feature_cae", "resnet_knn", "patchcore")
    if has_network and options.backbone is not None:
        detector.set_params(backbone=options.backbone, layers=tuple(options.layers))
    if has_network:
        detector.set_params(weights=options.weights)
    for name, value in options.params.items():
        if name in detector.get_params():
            detector.set_params(**{name: value})
    return detector


def evaluate(detector, data):
    """Fit on the training images, score and map the test images; return the figures."""
    start = time.perf_counter()
    detector.fit(data.train_paths)
    fit_seconds = time.perf_counter() - start
    start = time.perf_counter()
    paths = data.test_paths
    if hasattr(detector, "anomaly_map"):
        maps, scores = detector.anomaly_map(paths, size="model", return_scores=True)
    else:
        maps, scores = None, detector.score_samples(paths)
    seconds = time.perf_counter() - start
    ranked = data.test_labels, scores
    found = {"image AUROC": metrics.auroc(*ranked)}
    if maps is not None and any(data.test_masks):
        masks = load_masks(data.test_masks, maps.shape[1])
        found["pixel AUROC"] = metrics.pixel_auroc(masks, maps)
        found["AUPRO"] = metrics.aupro(masks, maps)
    found["max BA"] = metrics.max_balanced_accuracy(*ranked)
    found["best F1"] = metrics.best_f1(*ranked)
    return {
        **{name: f"{found[name]:.4f}" if name in found else "" for name in METRICS},
        "fit, s": f"{fit_seconds:.0f}",
        "ms an image": f"{1000 * seconds / len(paths):.0f}",
        "peak, MiB": f"{peak_memory():.0f}",
    }


def evaluate_classical(folder, options):
    """Yield the name and the figures of scikit-learn's detectors, by the report."""
    protocol = argparse.Namespace(
        root=folder,
        features="deep",
        backbone=options.backbone or "resnet50",
        weights=options.weights,
        layers=options.layers if options.backbone else ["layer4"],
        normalization=None,
        image_size=options.params.get("image_size", 224),
        protocol="original",
        seeds=5,
        n_jobs=None,
    )
    start = time.perf_counter()
    for row in magnetic_tile_classical.run(protocol):
        row = dict(zip(magnetic_tile_classical.COLUMNS, row, strict=True))
        yield (
            f"classical, {row['detector']}",
            {
                "image AUROC": f"{float(row['test']) / 100:.4f}",
                **dict.fromkeys(METRICS[1:], ""),
                "fit, s": f"{time.perf_counter() - start:.0f}",
                "ms an image": "",
                "peak, MiB": f"{peak_memory():.0f}",
            },
        )


def run(options):
    """Fit and score what the output file does not hold yet."""
    done = set()
    if options.output.exists():
        done = {
            (row["method"].split(",")[0], row["category"], row["seed"])
            for row in read_rows(options.output)
        }
    for category in options.categories or categories_of(options.root):
        data = load_mvtec_layout(options.root, category)
        for method in options.methods:
            if (method, category, str(options.seed)) in done:
                continue
            if method == "classical":
                results = [*evaluate_classical(options.root / category, options)]
            else:
                detector = make(method, category, options)
                results = [(method, evaluate(detector, data))]
            for name, figures in results:
                row = {"method": name, "category": category, "seed": options.seed}
                print("  ".join(f"{k} {v}" for k, v in (row | figures).items()), flush=True)
                add_row(options.output, row | figures)


def categories_of(root):
    """Return the names of the categories in a folder."""
    names = [path.parent.parent.name for path in sorted(root.glob("*/train/good"))]
    if not names:
        raise SystemExit(
            f"{root} holds no category. Pass the folder in which MVTec AD was unpacked, "
            "with bottle/train/good and so on."
        )
    return names


def table(options):
    """Print the means over seeds beside the published numbers, as CSV."""
    published = {
        (row["method"], row["metric"], row["category"]): row["published"]
        for row in read_rows(PUBLISHED)
    }
    ours = {}
    if options.output.exists():
        for row in read_rows(options.output):
            for metric in METRICS:
                if row[metric]:
                    key = row["method"], metric, row["category"]
                    ours.setdefault(key, []).append(float(row[metric]))
    for method, metric in dict.fromkeys(key[:2] for key in ours):
        parts = [ours.get((method, metric, name)) for name in (*TEXTURES, *OBJECTS)]
        if all(parts):
            ours[method, metric, "mean"] = [np.mean([np.mean(part) for part in parts])]
    print("method,metric,category,published,skocc,skocc std,seeds")
    for key in dict.fromkeys([*published, *ours]):
        values = ours.get(key, [])
        mean = f"{np.mean(values):.3f}" if values else "open"
        std = f"{np.std(values):.3f}" if len(values) > 1 else ""
        cells = (*key, published.get(key, ""), mean, std, len(values))
        print(",".join(str(cell) for cell in cells))


def main():
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("root", type=Path, help="folder that holds the categories")
    parser.add_argument("--output", type=Path, required=True, help="CSV file to add to")
    parser.add_argument("--table", action="store_true", help="print the table and stop")
    methods = [*DETECTORS, "classical"]
    usual = [name for name in methods if name != "patch_svdd_published"]
    parser.add_argument("--methods", nargs="+", default=usual, choices=methods)
    parser.add_argument("--categories", nargs="+", help="default: all")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", help="default: the fastest there is")
    parser.add_argument("--backbone", help="in place of the documents' networks")
    parser.add_argument("--layers", nargs="+", default=["features.6", "features.13"])
    parser.add_argument("--weights", default="imagenet", help="imagenet, none, or a file")
    parser.add_argument(
        "--params", type=parameter, nargs="+", default=[], metavar="NAME=INT",
        help="other values, such as n_epochs=3, of all methods that have the parameter",
    )  # fmt: skip
    options = parser.parse_args()
    options.params = dict(options.params)
    if options.weights == "none":
        options.weights = None
    (table if options.table else run)(options)


if __name__ == "__main__":
    main()
