"""An epoch through `torch.load` and through ptview, side by side.

    python benches/python/epoch.py            # small data sets, a minute
    python benches/python/epoch.py --full     # 20,000 files, 200,000 rows, 5,000 ragged files

The page cache is warm. Figures are medians over interleaved rounds; the ratio is to `torch.load` without workers.
"""

import argparse
import platform

import numpy as np
import ptview
import torch

import contenders
import samples


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--full", action="store_true", help="the sizes of docs/benchmarks.md")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", choices=["small", "rows", "ragged"], help="one of the data sets")
    arguments = parser.parse_args()

    counts = {"small": 20_000, "rows": 200, "ragged": 5_000} if arguments.full else {"small": 1_000, "rows": 5, "ragged": 300}
    print(f"Python {platform.python_version()}, torch {torch.__version__}, numpy {np.__version__}, "
          f"ptview {ptview.__version__}, {torch.get_num_threads()} threads, rounds: {arguments.rounds}")  # fmt: skip
    for name, count in counts.items():
        if arguments.only not in (None, name):
            continue
        data = getattr(samples, name)(count)
        ptview.Dataset(data.folder, mode=data.mode)
        single = samples.measure(contenders.one_by_one(data), arguments.rounds)
        print(samples.table(f"\n{name}: one sample at a time", single, "torch.load"))
        figures = samples.measure(contenders.epoch(data), arguments.rounds)
        title = f"\n{name}: an epoch of {data.samples:,} samples, batch {contenders.BATCH_SIZE}, shuffled"
        print(samples.table(title, figures, "torch.load, 0 workers"))


if __name__ == "__main__":
    main()
