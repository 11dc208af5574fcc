"""Heat maps of PatchSVDD: image, map, contour of the threshold, ground truth.

Without arguments, on synthetic woven textures with stains as defects: no download,
and a minute on a CPU. ``--folder`` takes any folder in MVTec AD's layout::

    python examples/heat_map.py --picture maps.png
    python examples/heat_map.py --folder magnetic_tile --image-size 256 --picture maps.png

The contour is where the map exceeds the threshold of the detector. As the score of an image
is its map's maximum, an image is called anomalous if and only if there is a contour on it.
"""

import argparse
from pathlib import Path

import numpy as np
from PIL import Image
from sklearn.metrics import roc_auc_score

from skocc import PatchSVDD
from skocc.datasets import load_mvtec_layout, make_textures, stain_defects


def synthetic():
    """Return training images, test images, which of these are anomalous, their masks."""
    images = make_textures(80, kind="weave", random_state=0)
    train, normal, others = np.split(images, [40, 60])
    stained, masks = stain_defects(others, random_state=0)
    test = np.concatenate([normal, stained])
    is_anomaly = np.repeat([False, True], 20)
    return train, test, is_anomaly, np.concatenate([np.zeros_like(masks), masks])


def from_folder(folder, image_size):
    """Return the same of a folder in MVTec AD's layout, images as paths."""
    data = load_mvtec_layout(folder)
    masks = np.zeros((len(data.test_paths), image_size, image_size), dtype=bool)
    for mask, path in zip(masks, data.test_masks, strict=True):
        if path is not None:
            image = Image.open(path).convert("L").resize((image_size, image_size))
            mask[:] = np.asarray(image) > 127
    return data.train_paths, data.test_paths, data.test_labels == -1, masks


def draw(path, detector, images, maps, masks):
    """Save a picture with a row for each of a few images."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    threshold = detector.pixel_threshold_
    figure, axes = plt.subplots(
        len(images), 4, figsize=(8, 2.1 * len(images)), squeeze=False, layout="constrained"
    )
    for row, image, heat, mask in zip(axes, images, maps, masks, strict=True):
        row[0].imshow(image, cmap="gray")
        row[1].imshow(heat, cmap="inferno", vmin=0, vmax=maps.max())
        row[2].imshow(image, cmap="gray")
        if heat.max() > threshold:
            row[2].contour(heat, levels=[threshold], colors="red", linewidths=1)
        row[3].imshow(mask, cmap="gray", vmin=0, vmax=1)
    for axis, title in zip(axes[0], ("image", "map", "threshold", "truth"), strict=True):
        axis.set_title(title)
    for axis in axes.flat:
        axis.set_axis_off()
    figure.savefig(path, dpi=120)
    plt.close(figure)


def main():
    """Fit, score, print, draw."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, help="default: synthetic textures")
    parser.add_argument("--image-size", type=int, default=256, help="with --folder")
    parser.add_argument("--n-epochs", type=int, default=10)
    parser.add_argument("--picture", type=Path, help="PNG file, needs matplotlib")
    parser.add_argument("--device")
    options = parser.parse_args()
    if options.folder is None:
        train, test, is_anomaly, masks = synthetic()
        image_size = None
    else:
        image_size = options.image_size
        train, test, is_anomaly, masks = from_folder(options.folder, image_size)

    detector = PatchSVDD(
        patch_size=32,
        strides=(4, 8),
        normalization="local_contrast",
        padding_mode="reflect",
        svdd_weight=0.01,
        noise=0.1,
        n_epochs=options.n_epochs,
        image_size=image_size,
        device=options.device,
        random_state=0,
        verbose=1,
    )
    detector.fit(train)
    maps, scores = detector.anomaly_map(test, size="model", return_scores=True)
    predicted = scores < detector.offset_
    print(f"AUROC of images {roc_auc_score(is_anomaly, -scores):.3f}")
    print(f"AUROC of pixels {roc_auc_score(masks.ravel(), maps.ravel()):.3f}")
    print(
        f"Called anomalous: {predicted[is_anomaly].mean():.0%} of the anomalies, "
        f"{predicted[~is_anomaly].mean():.0%} of the normal images"
    )
    if options.picture is None:
        return
    # The anomalies from the clearest to the least clear, and the worst false alarm.
    anomalies = np.flatnonzero(is_anomaly)[np.argsort(scores[is_anomaly])]
    shown = [*anomalies[:: max(1, len(anomalies) // 4)][:4]]
    shown += [np.flatnonzero(~is_anomaly)[np.argmin(scores[~is_anomaly])]]
    images = [
        test[index]
        if options.folder is None
        else np.asarray(Image.open(test[index]).convert("L").resize((image_size,) * 2))
        for index in shown
    ]
    draw(options.picture, detector, images, maps[shown], masks[shown])


if __name__ == "__main__":
    main()
