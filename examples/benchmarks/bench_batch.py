"""What a second device could win of a training step: the step at half of its batch.

Training on two devices gives each half of a batch, and then adds up gradients. What a step
at half of the batch takes is therefore the least that two devices would take, and what
stays of it at two images is spent on launches and on the optimizer. A ratio of 0.5 says
that a second device could win as much as half; one of 1, that it could win nothing.

Steps of the three sizes are timed in turns; on one thread, times are those of the
processor, which other processes change little. The ratio is the median over the rounds.

Run it as ``python examples/benchmarks/bench_batch.py``, with ``--device cuda`` for a GPU;
``--quick`` runs all code on small batches.
"""

import argparse
import statistics

import torch
from bench_epoch import STAGES, caught_stage, seconds

from skocc._engine.seeding import seeded

# Stages of bench_epoch.py, with the sizes of their batches as published.
SIZES = {
    "DeepSVDD, autoencoder": 200,
    "DeepSVDD, one class": 200,
    "MOCCA, one class": 200,
    "ConvAE": 128,
}


def steps(name, size, device):
    """Return functions that train a step on `size`, half as many, and two images."""
    params = {**STAGES[name].params, "batch_size": size}
    STAGES[name] = STAGES[name]._replace(params=params)
    # Of some methods a part of the images is held out.
    caught, _ = caught_stage(name, device, n_images=2 * size)
    images, optimizer = next(iter(caught.batches)), caught.options["optimizer"]
    caught.module.train()

    def step_of(n):
        batch = images[:n].contiguous(memory_format=torch.channels_last)

        def step():
            optimizer.zero_grad()
            caught.loss_fn(batch).backward()
            optimizer.step()

        return step

    return [step_of(n) for n in (size, size // 2, 2)]


def main():
    """Read the command line, and measure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", type=torch.device, default="cpu")
    parser.add_argument("--n-rounds", type=int, default=8)
    parser.add_argument("--n-threads", type=int, default=1, help="threads of torch")
    parser.add_argument("--quick", action="store_true", help="small batches, one round")
    options = parser.parse_args()
    torch.set_num_threads(options.n_threads)
    print(f"{options.n_threads} thread(s), {options.device}; milliseconds of a step")
    header = f"{'stage':<24} {'batch':>5} {'whole':>7} {'half':>7} {'two':>7} {'ratio':>6}"
    print(f"{header}   range", flush=True)
    for name, size in SIZES.items():
        size, n_rounds = (8, 1) if options.quick else (size, options.n_rounds)
        with seeded(0, options.device):
            functions = steps(name, size, options.device)
            for function in functions:
                function()
            rounds = [
                [1000 * seconds(function, options.device) for function in functions]
                for _ in range(n_rounds)
            ]
        whole, half, two = map(statistics.median, zip(*rounds, strict=True))
        ratios = [b / a for a, b, _ in rounds]
        print(
            f"{name:<24} {size:>5} {whole:>7.1f} {half:>7.1f} {two:>7.1f} "
            f"{statistics.median(ratios):>6.2f}   {min(ratios):.2f}-{max(ratios):.2f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
