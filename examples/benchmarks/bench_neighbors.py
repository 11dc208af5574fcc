"""Nearest neighbors: exact search against a KD-tree, approximate against exact search.

The bank is as that of PatchSVDD, vectors of 64 features, and the queries are the patches of
one image, 57 x 57. The features are those of a random layer on points of few dimensions, as
the features of images are; "collapsed" ones differ by 1e-4 around 1.

The table times ``skocc._ops.neighbors.nearest`` and ``sklearn.neighbors.KDTree`` on the
same data, with the ratio, and the largest difference of their distances, relative to the
distance. The tree is built before, and that time is not counted.

The lines below it time ``ApproximateIndex`` against the exact search, with the recall: the
fraction of queries for which it finds a vector as near as the nearest. Compiling, and then
building the graph of a full bank of 650,000 vectors, take a minute or two each.

Run it as ``python examples/benchmarks/bench_neighbors.py``; ``--quick`` runs all of its
code on few vectors, but its figures mean nothing.
"""

import argparse
import time

import torch
from sklearn.neighbors import KDTree

from skocc._ops.neighbors import ApproximateIndex, nearest

N_FEATURES = 64


def make_features(n_bank, n_queries, latent_dim, collapsed):
    """Return a bank and queries that it does not hold, as tensors."""
    generator = torch.Generator().manual_seed(0)
    latent = torch.randn(n_bank + n_queries, latent_dim, generator=generator)
    weight = torch.randn(latent_dim, N_FEATURES, generator=generator) / latent_dim**0.5
    features = torch.tanh(latent @ weight)
    if collapsed:
        features = 1 + 1e-4 * features
    return features[:n_bank], features[n_bank:]


def timed(function, device=None):
    """Return the seconds and the result of a call."""
    start = time.perf_counter()
    result = function()
    if device is not None and device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - start, result


def compare_with_tree(n_bank, n_queries, latent_dim, device):
    print(f"{n_bank} x {N_FEATURES} bank vectors, {n_queries} queries")
    columns = f"{'tree (s)':>9} {'exact (s)':>10} {'ratio':>6} {'difference':>11}"
    print(f"{'features':<10} {columns}")
    for collapsed in (False, True):
        bank, queries = make_features(n_bank, n_queries, latent_dim, collapsed)
        tree = KDTree(bank.double().numpy())
        bank, queries = bank.to(device), queries.to(device)
        nearest(queries[:100], bank)  # what a first call loads is not the search
        seconds, (distances, _) = timed(lambda q=queries, b=bank: nearest(q, b), device)
        tree_queries = queries.cpu().double().numpy()
        tree_seconds, (expected, _) = timed(lambda t=tree, q=tree_queries: t.query(q))
        expected = torch.from_numpy(expected)
        difference = float(((distances.cpu() - expected).abs() / expected).max())
        print(
            f"{'collapsed' if collapsed else 'plain':<10} {tree_seconds:>9.2f} "
            f"{seconds:>10.2f} {tree_seconds / seconds:>6.1f} {difference:>11.1e}",
            flush=True,
        )


def compare_with_approximate(n_bank, n_queries, latent_dim, device):
    print(f"\n{n_bank} x {N_FEATURES} bank vectors, {n_queries} queries")
    bank, queries = make_features(n_bank, n_queries, latent_dim, collapsed=False)
    bank_there, queries_there = bank.to(device), queries.to(device)
    seconds, (expected, _) = timed(lambda: nearest(queries_there, bank_there), device)
    print(f"exact: {seconds:.2f} s", flush=True)
    warm_up = ApproximateIndex(bank[:5000])  # compiles
    warm_up.nearest(queries)
    build_seconds, index = timed(lambda: ApproximateIndex(bank))
    index.nearest(queries[:10])
    approximate_seconds, (distances, _) = timed(lambda: index.nearest(queries))
    recall = (distances <= expected.cpu() * (1 + 1e-6)).double().mean()
    print(
        f"approximate: {approximate_seconds:.2f} s, "
        f"ratio {seconds / approximate_seconds:.1f}, recall at 1 {recall:.4f}, "
        f"after {build_seconds:.0f} s to build the graph"
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--n-tree", type=int, default=100_000, help="bank beside the tree")
    parser.add_argument("--n-bank", type=int, default=650_000, help="bank beside the graph")
    parser.add_argument("--n-queries", type=int, default=57 * 57)
    parser.add_argument("--latent-dim", type=int, default=10)
    parser.add_argument("--device", default="cpu", help="of the exact search")
    parser.add_argument("--only", choices=["tree", "approximate"])
    parser.add_argument("--quick", action="store_true", help="few vectors")
    arguments = parser.parse_args()
    n_tree = 5000 if arguments.quick else arguments.n_tree
    n_bank = 5000 if arguments.quick else arguments.n_bank
    n_queries = 200 if arguments.quick else arguments.n_queries
    device = torch.device(arguments.device)
    print(f"torch {torch.__version__}, {torch.get_num_threads()} thread(s), {device}")
    if arguments.only != "approximate":
        compare_with_tree(n_tree, n_queries, arguments.latent_dim, device)
    if arguments.only != "tree":
        compare_with_approximate(n_bank, n_queries, arguments.latent_dim, device)


if __name__ == "__main__":
    main()
