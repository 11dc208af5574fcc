"""Peers on the same images: anomalib, PyOD, faiss and scikit-learn beside skocc.

Peers are no dependencies; install them in an environment of their own, with
``pip install anomalib pyod faiss-cpu``. What is not there is left out. Images are synthetic
textures, and networks have random weights. Each line has the median seconds of skocc and of
the peer, taken in turns, and the median of the ratios, peer by skocc, with their range:
above 1, skocc is faster. On one thread, times are those of the processor, which other
processes change little; ``--n-threads 2`` and a ``--device`` that is not the CPU take wall
times.

``patchcore``: ``ResNetKNN`` against anomalib's PatchcoreModel. Equal are ResNet18 and its
weights, the layers 2 and 3, the images at 224 pixels, the pooling of 3 x 3 cells, the grid
of 28 x 28 cells, the number of vectors in the bank, their 384 features, and the score: the
distance to one nearest neighbor, where anomalib's default weights it by eight more. Each
bank has features of its own detector, because these differ at the borders: anomalib pads
before it pools, skocc does not. anomalib is given a ready tensor, and always computes
scores and maps; skocc is given pixels in uint8, and asked for scores, for maps smoothed as
anomalib's, or for both. Both get the same images at once.

``search``: the exact search of the cells of an image in 31,360 of these vectors against
faiss's flat index; and a product of the same matrices, the least work there is.

``deepsvdd``: ``DeepSVDD`` on rows of pixels against PyOD's. Equal are the units of the
layers (128, 64, 32), Adam's steps, the epochs and the images a batch; neither pretrains.
PyOD standardizes the columns and drops units out, skocc normalizes batches.

``pixels``: scikit-learn's OneClassSVM and IsolationForest on these rows, with their
defaults, beside ``DeepSVDD`` with its own, for orientation only: the methods differ.

Run it as ``python examples/benchmarks/bench_peers.py``; ``--quick`` runs all of its code on
little data, but its figures mean nothing.
"""

import argparse
import importlib
import importlib.metadata
import platform
import tempfile
import warnings
from functools import partial
from pathlib import Path

import numpy as np
import torch
from bench_epoch import seconds
from sklearn.ensemble import IsolationForest
from sklearn.svm import OneClassSVM

from skocc import DeepSVDD, ResNetKNN
from skocc._ops.memory_bank import MemoryBank, to_rows
from skocc._ops.neighbors import PreparedBank
from skocc.datasets import make_textures

PEERS = {"anomalib": "anomalib", "pyod": "pyod", "faiss": "faiss-cpu"}


def load(module):
    """Return a module of a peer, or None after a line which says that it is not there."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        print(f"left out, not installed: {module.split('.')[0]} ({error})", flush=True)
        return None


def print_line(name, ours, peers):
    """Print the medians and the ratio of seconds that were taken in turns."""
    ratios = np.array(peers) / ours
    print(
        f"{name:<46}{np.median(ours):>10.4f}{np.median(peers):>10.4f}"
        f"   {np.median(ratios):.2f} ({ratios.min():.2f} to {ratios.max():.2f}, "
        f"{len(ratios)} pairs)",
        flush=True,
    )


def print_pair(name, steps, options):
    """Take the times of a step of skocc and one of a peer, and print their line."""
    print_line(name, *in_turns(dict(enumerate(steps)), options).values())


def in_turns(steps, options):
    """Return the seconds of each of several steps, each taken after the other."""
    times = {name: [] for name in steps}
    for _ in range(options.n_pairs):
        for name, step in steps.items():
            times[name].append(seconds(step, torch.device(options.device)))
    return times


def textures(n_images, size, seed):
    """Return gray images (n, size, size), uint8."""
    images = make_textures(n_images, size=size, random_state=seed)
    return (255 * images).round().astype(np.uint8)


def as_batch(images):
    """Return a tensor (n, 3, H, W) of gray images."""
    batch = torch.from_numpy(images)[:, None].float().div(255)
    return batch.expand(-1, 3, -1, -1).contiguous()


def fit_resnet(state, images, device):
    """Return a detector with given weights, fitted on two images."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "resnet18.pt"
        torch.save(state, path)
        detector = ResNetKNN(
            backbone="resnet18",
            weights=path,
            layers=("layer2", "layer3"),
            interpolation="bilinear",
            smoothing=4,
            image_size=None,
            device=device,
            random_state=0,
        )
        return detector.fit(np.repeat(images[:2, ..., None], 3, axis=3))


@torch.no_grad()
def bank_of(embed, images, n_vectors):
    """Return features (n_vectors, 384) of cells."""
    blocks = [embed(as_batch(block)) for block in np.array_split(images, len(images))]
    return torch.cat(blocks)[:n_vectors].contiguous()


def compare_patchcore(options):
    """Print lines for scores and maps, for each size of the bank."""
    import torchvision

    peer = load("anomalib.models.image.patchcore.torch_model")
    if peer is None:
        return
    sizes = [784, 1568] if options.quick else [3_136, 31_360, 300_000]
    train = textures(-(-sizes[-1] // 784), 224, 0)
    torch.manual_seed(0)
    state = torchvision.models.resnet18(weights=None).state_dict()
    detector = fit_resnet(state, train, options.device)
    model = peer.PatchcoreModel(
        ["layer2", "layer3"], "resnet18", pre_trained=False, num_neighbors=1
    )
    backbone = model.feature_extractor.feature_extractor
    missing, _ = backbone.load_state_dict(state, strict=False)
    if missing:
        raise RuntimeError(f"weights of another network: {missing}")
    # While it trains, the model returns the embeddings. Its network does not train.
    model.train().feature_extractor.eval()
    own, theirs = (
        bank_of(embed, train, sizes[-1])
        for embed in (lambda batch: to_rows(detector.network_(batch)), model)
    )
    model.embedding_store.clear()
    model.eval().to(options.device)
    for size in sizes:
        chosen = torch.randperm(sizes[-1], generator=torch.Generator().manual_seed(0))
        chosen = chosen[:size].sort().values
        vectors = own[chosen].numpy()
        images = np.zeros(size, dtype=np.int32)
        detector.bank_ = MemoryBank(vectors, images, detector.bank_.digests)
        model.memory_bank = theirs[chosen].to(options.device)
        # The matrix of distances to 300,000 vectors takes 0.9 GiB an image.
        test = textures(1 if size > 100_000 else 4, 224, 1)
        compare_inference(detector, model, test, options)


def compare_inference(detector, model, images, options):
    """Print lines for scores, maps, and both."""
    pixels = np.repeat(images[..., None], 3, axis=3)
    batch = as_batch(images).to(options.device)
    steps = {
        "scores": lambda: detector.score_samples(pixels),
        "maps": lambda: detector.anomaly_map(pixels),
        "scores and maps": lambda: detector.anomaly_map(pixels, return_scores=True),
        "anomalib": torch.no_grad()(lambda: model(batch)),
    }
    found, expected = -steps["scores"](), steps["anomalib"]().pred_score.cpu().numpy()
    times = in_turns(steps, options)
    peers = np.array(times.pop("anomalib")) / len(images)
    for name, ours in times.items():
        label = f"{len(model.memory_bank)} vectors, an image: {name}"
        print_line(label, np.array(ours) / len(images), peers)
    print(f"  scores of skocc by those of anomalib: {np.round(found / expected, 3)}")


def compare_search(options):
    """Print lines for the search of all cells of an image."""
    n_bank = 1568 if options.quick else 31_360
    images = textures(-(-n_bank // 784) + 1, 224, 0)
    detector = ResNetKNN(
        backbone="resnet18", weights=None, image_size=None, device="cpu", random_state=0
    )
    network = detector.fit(np.repeat(images[:2, ..., None], 3, axis=3)).network_
    vectors = bank_of(lambda batch: to_rows(network(batch)), images, n_bank + 784)
    vectors = vectors.to(options.device)
    bank, queries = vectors[:n_bank], vectors[n_bank:].clone()
    prepared, columns = PreparedBank(bank), bank.T
    steps = {
        "skocc": lambda: prepared.nearest(queries),
        "product": lambda: torch.mm(queries, columns),
    }
    faiss = load("faiss") if options.device == "cpu" else None
    if faiss is not None:
        faiss.omp_set_num_threads(options.n_threads)
        index = faiss.IndexFlatL2(bank.shape[1])
        index.add(bank.numpy())
        steps["faiss"] = lambda: index.search(queries.numpy(), 1)
        squares, rows = steps["faiss"]()
    distances, expected = steps["skocc"]()
    steps["product"]()
    times = in_turns(steps, options)
    print_line(f"{len(queries)} x {n_bank}: product", times["skocc"], times["product"])
    if faiss is not None:
        label = f"{len(queries)} x {n_bank}: IndexFlatL2"
        print_line(label, times["skocc"], times["faiss"])
        error = np.abs(np.sqrt(squares[:, 0]) / distances[:, 0].numpy() - 1).max()
        n_others = int((expected[:, 0].numpy() != rows[:, 0]).sum())
        print(f"  faiss: {n_others} other neighbors, largest relative error {error:.1e}")


def compare_deepsvdd(options):
    """Print lines for `fit` and scores of DeepSVDD on rows."""
    peer = load("pyod.models.deep_svdd")
    if peer is None:
        return
    rows = pixel_rows(options)
    n_epochs = 2 if options.quick else 20
    for batch_size in (32, 200):
        common = {"batch_size": batch_size, "learning_rate": 1e-3, "random_state": 0}
        ours = DeepSVDD(
            channels=(128, 64), embedding_dim=32, pretrain_n_epochs=0, n_epochs=n_epochs,
            milestones=(), device=options.device, **common,
        )  # fmt: skip
        theirs = peer.DeepSVDD(
            rows.shape[1], hidden_neurons=[128, 64, 32], epochs=n_epochs, verbose=0,
            device=options.device, **common,
        )  # fmt: skip
        fits = [partial(detector.fit, rows) for detector in (ours, theirs)]
        print_pair(f"PyOD, fit, batches of {batch_size}", fits, options)
        scores = [
            partial(ours.score_samples, rows),
            partial(theirs.decision_function, rows),
        ]
    print_pair("PyOD, scores", scores, options)


def compare_pixels(options):
    """Print the seconds of scikit-learn's detectors beside DeepSVDD."""
    rows = pixel_rows(options)
    n_epochs = {"pretrain_n_epochs": 1, "n_epochs": 1} if options.quick else {}
    ours = DeepSVDD(device=options.device, random_state=0, **n_epochs)
    detectors = [OneClassSVM(), IsolationForest(random_state=0), ours]
    for detector in detectors:
        times = in_turns({"fit": lambda d=detector: d.fit(rows)}, one_pair(options))
        scoring = {"scores": lambda d=detector: d.score_samples(rows)}
        times |= in_turns(scoring, options)
        print(
            f"{type(detector).__name__}, {len(rows)} rows: fit {times['fit'][0]:.2f} s, "
            f"scores {np.median(times['scores']):.3f} s",
            flush=True,
        )


def one_pair(options):
    """Return the options for what is measured once."""
    return argparse.Namespace(**{**vars(options), "n_pairs": 1})


def pixel_rows(options):
    """Return flattened images of 28 x 28 pixels, in [0, 1]."""
    images = textures(200 if options.quick else 2000, 28, 0)
    return (images.reshape(len(images), -1) / 255).astype(np.float32)


PARTS = {
    "patchcore": compare_patchcore,
    "search": compare_search,
    "deepsvdd": compare_deepsvdd,
    "pixels": compare_pixels,
}


def versions():
    """Return the versions of the peers that are installed."""
    texts = []
    for module, package in PEERS.items():
        try:
            texts.append(f"{module} {importlib.metadata.version(package)}")
        except importlib.metadata.PackageNotFoundError:
            texts.append(f"{module} not installed")
    return ", ".join(texts)


def main():
    """Read the command line, and print the lines of each part."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", choices=[*PARTS], default=[*PARTS])
    parser.add_argument("--n-pairs", type=int, default=5)
    parser.add_argument("--n-threads", type=int, default=1)
    parser.add_argument("--device", default="cpu", help="of skocc, anomalib and PyOD")
    parser.add_argument("--quick", action="store_true", help="little data")
    options = parser.parse_args()
    warnings.filterwarnings("ignore")  # of peers; their results are not in question
    torch.set_num_threads(options.n_threads)
    capability = torch.backends.cpu.get_cpu_capability()
    print(
        f"torch {torch.__version__}, {options.n_threads} thread(s), {capability}, "
        f"{platform.processor() or platform.machine()}, {options.device}; {versions()}"
    )
    print(f"{'seconds':<46}{'skocc':>10}{'peer':>10}   ratio")
    for name in options.only:
        print(f"{name}:", flush=True)
        PARTS[name](options)


if __name__ == "__main__":
    main()
