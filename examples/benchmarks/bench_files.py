"""Scores of image files with a small network, against decoding the files alone.

Where the network is small, scoring files is decoding them: what skocc adds must be small.
In each of ``--n-pairs`` pairs, in changing order,

- a pool of threads, one for each core, decodes the files by Pillow, resizes each to
  ``--image-size`` and writes it into one array: each thread its share, in a plain loop;
- ``DeepSVDD.score_samples`` scores the list of their paths,
- and, for the share of the network, the pixels that are decoded already.

The files are JPEG and PNG of smooth random colors with some noise, 256 and 1024 pixels
wide. A few are made in a temporary folder and named many times, by symbolic links where the
system has them. Printed for each number of files are the medians of all three in
milliseconds a file, and the ratio of the second to the first, median and range over the
pairs: at most 1.2 is the aim. The ratio of processor times, of all threads together, is
that of the work, which other programs of the machine change less.

Run it as ``python examples/benchmarks/bench_files.py``; ``--formats jpg --sides 256
--n-files 1000`` is one row, and ``--quick`` runs everything on little.
"""

import argparse
import os
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from skocc import DeepSVDD


def make_files(folder, file_format, n_distinct, side):
    """Write files of smooth random colors with noise; return their paths."""
    rng = np.random.default_rng(0)
    paths = []
    for index in range(n_distinct):
        coarse = rng.integers(0, 256, (16, 16, 3), dtype=np.uint8)
        image = Image.fromarray(coarse).resize((side, side), Image.Resampling.BICUBIC)
        noisy = np.asarray(image) + rng.normal(0, 4, (side, side, 3))
        image = Image.fromarray(noisy.clip(0, 255).astype(np.uint8))
        paths.append(folder / f"{side}_{index:03d}.{file_format}")
        image.save(paths[-1], **({"quality": 90} if file_format == "jpg" else {}))
    return paths


def name_often(folder, paths, n_files):
    """Return `n_files` different paths that lead to the files."""
    links = []
    for index in range(n_files):
        original = paths[index % len(paths)]
        link = folder / f"link_{n_files}_{index:06d}_{original.name}"
        try:
            link.symlink_to(original)
        except OSError:  # not every system lets every user make links
            return [paths[index % len(paths)] for index in range(n_files)]
        links.append(link)
    return links


def decode(paths, size, n_threads):
    """Decode and resize files in threads, as a plain program would; return all pixels."""
    pixels = np.empty((len(paths), size, size, 3), np.uint8)

    def decode_share(first):
        for index in range(first, len(paths), n_threads):
            with Image.open(paths[index]) as image:
                # RGB already: image.convert("RGB") would be a copy.
                image = image.resize((size, size), Image.Resampling.BILINEAR)
            pixels[index] = np.asarray(image)

    with ThreadPoolExecutor(n_threads) as pool:
        list(pool.map(decode_share, range(n_threads)))
    return pixels


def seconds(function):
    """Return the seconds that a call takes, by the clock and by the processor."""
    start = time.perf_counter(), time.process_time()
    function()
    return time.perf_counter() - start[0], time.process_time() - start[1]


def measure(detector, paths, options):
    """Return times (n_pairs, 3, 2) of all ways, by the clock and by the processor."""
    pixels = decode(paths, options.image_size, options.n_threads)
    ways = [
        lambda: decode(paths, options.image_size, options.n_threads),
        lambda: detector.score_samples(paths),
        lambda: detector.score_samples(pixels),
    ]
    times = np.empty((options.n_pairs, 3, 2))
    for pair in range(options.n_pairs):
        for way in (0, 1, 2) if pair % 2 else (1, 0, 2):
            times[pair, way] = seconds(ways[way])
    return times


def report(name, n_files, times):
    """Print a row of the table."""
    medians = 1000 * np.median(times[:, :, 0], axis=0) / n_files
    shown = [
        f"{np.median(ratio):.2f} ({ratio.min():.2f} to {ratio.max():.2f})"
        for ratio in (times[:, 1] / times[:, 0]).T
    ]
    columns = "".join(f"{median:>10.3f}" for median in medians)
    print(f"{name:<10}{n_files:>7}{columns}   {shown[0]:<22}{shown[1]}", flush=True)


def main():
    """Read the command line, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--formats", nargs="+", default=["jpg", "png"])
    parser.add_argument("--sides", type=int, nargs="+", default=[256, 1024])
    parser.add_argument("--n-files", type=int, nargs="+", default=[100, 1000, 10_000])
    parser.add_argument("--n-distinct", type=int, default=20)
    parser.add_argument("--image-size", type=int, default=32)
    parser.add_argument("--n-pairs", type=int, default=5)
    parser.add_argument("--n-threads", type=int, default=os.cpu_count(), help="that decode")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args()
    if options.quick:
        options.sides, options.n_files, options.n_distinct = [64], [10, 30], 2
    print(
        f"torch {torch.__version__}, {torch.get_num_threads()} thread(s), "
        f"{torch.backends.cpu.get_cpu_capability()}, {options.n_threads} that decode"
    )
    columns = f"{'decoding':>10}{'scores':>10}{'of pixels':>10}"
    print(f"{'files':<10}{'number':>7}{columns}   ratio{'':<17}of work")
    detector = DeepSVDD(
        channels=(8, 4),
        embedding_dim=32,
        image_size=options.image_size,
        pretrain_n_epochs=0,
        n_epochs=1,
        device=options.device,
        random_state=0,
    )
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        for file_format in options.formats:
            for side in options.sides:
                originals = make_files(folder, file_format, options.n_distinct, side)
                detector.fit(originals)
                for n_files in options.n_files:
                    paths = name_often(folder, originals, n_files)
                    times = measure(detector, paths, options)
                    report(f"{file_format} {side}", n_files, times)


if __name__ == "__main__":
    main()
