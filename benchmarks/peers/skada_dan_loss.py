"""Milliseconds of skada's `dan_loss`, forward and backward, on tensors that another process made.

Run by `bench_mmd.py --skada PYTHON`, with the Python of an environment that has skada and torch:
    PYTHON skada_dan_loss.py SOURCE.npy TARGET.npy REPEATS THREADS -> one JSON line
"""

from __future__ import annotations

import json
import sys
import time

import numpy as np
import skada
import torch
from skada.deep.losses import dan_loss


def main() -> None:
    """Time it and print."""
    source, target, repeats, threads = sys.argv[1:]
    torch.set_num_threads(int(threads))
    x_s, x_t = (torch.tensor(np.load(path), requires_grad=True) for path in (source, target))
    spent = []
    for _ in range(int(repeats) + 1):
        start = time.perf_counter()
        dan_loss(x_s, x_t).backward()
        spent.append(1e3 * (time.perf_counter() - start))
        x_s.grad = x_t.grad = None
    print(json.dumps({"skada": skada.__version__, "torch": torch.__version__, "ms": spent[1:]}))


if __name__ == "__main__":
    main()
