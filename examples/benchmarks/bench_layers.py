r"""Which layers of a torchvision network tell magnetic tiles with defects from good ones.

Fits :class:`skocc.ResNetKNN` on 100 of the good tiles for each set of layers and each seed,
and prints the AUROC of 100 other good tiles against half of those with defects::

    python examples/benchmarks/bench_layers.py --data FOLDER --seeds 3

FOLDER, by default that of the environment variable SKOCC_DATA, holds ``magnetic_tile`` in
MVTec AD's layout, and the weights ``mobilenet_v2_imagenet.pt`` and
``squeezenet1_0_imagenet.pt``. The user guide says what was measured where it lists the
default layers.
"""

import argparse
import os
import tempfile
from pathlib import Path

import numpy as np
from sklearn.metrics import roc_auc_score

from skocc import ResNetKNN
from skocc.datasets import load_mvtec_layout

# By network, the last block of each stride first: 4, 8, 16 and 32.
CANDIDATES = {
    "mobilenet_v2": ["6 13", "3 6", "6", "13", "13 17"],
    "squeezenet1_0": ["10 12", "5 10", "10", "12"],
}
N_TRAIN = 100


def main():
    """Read the command line, fit, score, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=os.environ.get("SKOCC_DATA"))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--image-size", type=int, default=96)
    options = parser.parse_args()
    root = Path(options.data)
    tiles = load_mvtec_layout(root / "magnetic_tile")
    paths, is_good = np.array(tiles.test_paths), tiles.test_labels == 1
    good = np.array([*tiles.train_paths, *paths[is_good]])
    bad, kinds = paths[~is_good][::2], tiles.test_defects[~is_good][::2]
    with tempfile.TemporaryDirectory() as folder:
        for name, candidates in CANDIDATES.items():
            for numbers in candidates:
                rows = []
                for seed in range(options.seeds):
                    order = np.random.default_rng(seed).permutation(len(good))
                    detector = ResNetKNN(
                        backbone=name, weights=root / f"{name}_imagenet.pt",
                        layers=tuple(f"features.{n}" for n in numbers.split()),
                        normalization="imagenet", image_size=options.image_size,
                        bank_fraction=0.05, memory=folder, random_state=seed, device="cpu",
                    ).fit(list(good[order[:N_TRAIN]]))  # fmt: skip
                    normal = detector.score_samples(list(good[order[N_TRAIN:]][:100]))
                    scores = detector.score_samples(list(bad))
                    for kind in np.unique(kinds):
                        of_kind = scores[kinds == kind]
                        y = np.r_[np.ones(len(normal)), np.zeros(len(of_kind))]
                        rows.append(roc_auc_score(y, np.r_[normal, of_kind]))
                rows = np.array(rows).reshape(options.seeds, -1)
                shown = "  ".join(
                    f"{kind} {mean:.3f} ({sd:.3f})"
                    for kind, mean, sd in zip(
                        np.unique(kinds), rows.mean(0), rows.std(0, ddof=1), strict=True
                    )
                )
                print(f"{name:14} {numbers:8} {shown}  mean {rows.mean():.3f}", flush=True)


if __name__ == "__main__":
    main()
