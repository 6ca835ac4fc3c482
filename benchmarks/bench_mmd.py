"""What adaptation costs: the article's formula, a peer and the machine's floor against ours, in one run.

    python benchmarks/bench_mmd.py [--repeats 15] [--skada PYTHON] [--plots DIR] [--json PATH]

At 512 source and 512 target rows as in the article: the discrepancy alone, value and gradient, on activations
(512, 64); and a whole step of the network 291-256-64-1 as the trainer makes it (rows gathered, cross-entropy, Adam).
Then ten seeds as one program against ten runs of one, and what the discrepancy costs by batch, width and kernels. Sides
take turns, so that a busy machine slows them alike; medians and minima are shown. On a machine with a GPU, bfloat16
and XLA are tried there as well. The last line is the whole step.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # before TensorFlow is imported: the table stays readable

import keras
import matplotlib as mpl
import numpy as np
import tensorflow as tf
from machine_floor import Machine, StepShape, measure_machine

from models.deep import loop
from models.deep.presets import ARTICLE, ARTICLE_KERNELS, DAN
from models.deep.spec import DeepSpec, TrainingSet
from models.kernel_family import KernelFamily
from models.mmd import mk_mmd2

mpl.use("Agg")
import matplotlib.pyplot as plt

ROWS, COLUMNS, UNITS = 512, 291, 64
ENSEMBLE_ROWS, ENSEMBLE_COLUMNS = 256, 60
BLOCK = 20
"""steps a call of a program: as many as between two evaluations by default"""
MEMBERS = 10
BLUE, ORANGE, GREY = "#0072B2", "#D55E00", "#666666"  # told apart by colour-blind readers (Okabe and Ito)

Call = Callable[[], Any]
Times = dict[str, list[float]]


def article_mmd2(x_s: Any, x_t: Any) -> Any:
    """The article's formula as its kind of code writes it: differences (N, N, d), one exponential a kernel."""
    joint = tf.concat([x_s, x_t], axis=0)
    n, rows = x_s.shape[0], joint.shape[0]
    distances = tf.reduce_sum(tf.square(joint[None, :, :] - joint[:, None, :]), axis=2)
    bandwidth = tf.reduce_sum(distances) / (rows**2 - rows) / 4.0
    kernel = tf.add_n([tf.exp(-distances / (bandwidth * 2.0**i)) for i in range(5)])
    XX, YY, XY, YX = kernel[:n, :n], kernel[n:, n:], kernel[:n, n:], kernel[n:, :n]
    return tf.reduce_mean(XX) + tf.reduce_mean(YY) - tf.reduce_mean(XY) - tf.reduce_mean(YX)


def our_mmd2(x_s: Any, x_t: Any) -> Any:
    """`mk_mmd2` as the article's preset calls it."""
    return mk_mmd2(x_s, x_t, ARTICLE_KERNELS, "biased")


def default_mmd2(x_s: Any, x_t: Any) -> Any:
    """`mk_mmd2` as the default preset calls it."""
    return mk_mmd2(x_s, x_t, KernelFamily())


# --- calls that are timed ---


def activations(rows: int, units: int, dtype: Any = tf.float32) -> tuple[Any, Any]:
    """Two batches of hidden features, slightly apart."""
    rng = np.random.default_rng(0)
    shapes = (0.0, 1.0), (0.3, 1.2)
    x_s, x_t = (tf.cast(rng.normal(mean, sd, size=(rows, units)).astype(np.float32), dtype) for mean, sd in shapes)
    return x_s, x_t


def discrepancy_call(mmd2: Callable[[Any, Any], Any], x_s: Any, x_t: Any, *, jit: bool = False) -> Call:
    """A call that computes the discrepancy of two batches of activations and its gradient."""

    @tf.function(jit_compile=jit)
    def value_and_gradient(x_s: Any, x_t: Any) -> Any:
        with tf.GradientTape() as tape:
            tape.watch([x_s, x_t])
            value = mmd2(x_s, x_t)
        return value, *tape.gradient(value, [x_s, x_t])

    return lambda: [tf.cast(part, tf.float32).numpy() for part in value_and_gradient(x_s, x_t)]


def products_call(x_s: Any, x_t: Any) -> Call:
    """A call that makes the matrix products of a discrepancy and of its gradient, and nothing else, compiled."""

    @tf.function(jit_compile=True)
    def products(x_s: Any, x_t: Any) -> Any:
        within_s, within_t, across = (
            tf.matmul(a, b, transpose_b=True) for a, b in ((x_s, x_s), (x_t, x_t), (x_s, x_t))
        )
        slope_s = tf.matmul(within_s, x_s) - tf.matmul(across, x_t)
        return slope_s, tf.matmul(within_t, x_t) - tf.matmul(across, x_s, transpose_a=True)

    return lambda: [part.numpy() for part in products(x_s, x_t)]


def article_step_call() -> Call:
    """A call that makes one step of the article's network with its formula, on two batches of rows."""
    rng = np.random.default_rng(0)
    x_s, x_t = (tf.constant(rng.normal(shift, 1, size=(ROWS, COLUMNS)), tf.float32) for shift in (0.0, 0.1))
    y_s = tf.constant(rng.random(ROWS) < 0.15, tf.float32)
    hidden = [keras.layers.Dense(units, activation="sigmoid") for units in ARTICLE.hidden]
    head = keras.layers.Dense(1)
    network = keras.Sequential([keras.Input((COLUMNS,)), *hidden])
    head.build((None, UNITS))
    optimizer = keras.optimizers.Adam(ARTICLE.learning_rate, epsilon=ARTICLE.epsilon)
    variables = [*network.trainable_variables, *head.trainable_variables]
    optimizer.build(variables)

    @tf.function
    def step(x_s: Any, y_s: Any, x_t: Any) -> Any:
        with tf.GradientTape() as tape:
            active_s, active_t = network(x_s), network(x_t)
            logits = head(active_s)[:, 0]
            cross_entropy = tf.reduce_mean(tf.nn.sigmoid_cross_entropy_with_logits(labels=y_s, logits=logits))
            loss = cross_entropy + 0.5 * article_mmd2(active_s, active_t)
        optimizer.apply(tape.gradient(loss, variables), variables)
        return loss

    return lambda: step(x_s, y_s, x_t).numpy()


def program_call(spec: DeepSpec, columns: int, rows: int, members: int) -> Call:
    """A call that makes BLOCK steps as the trainer makes them."""
    rng = np.random.default_rng(0)
    x_s, x_t, x_stop = (rng.normal(size=(8 * rows, columns)).astype(np.float32) for _ in range(3))
    y_s, y_stop = ((rng.random(8 * rows) < 0.15).astype(np.float32) for _ in range(2))
    rows_of_all = TrainingSet(x_s, y_s, x_t, np.full(8 * rows, np.nan, np.float32), x_stop, y_stop)
    draws = [loop.Draws.spawn(seed) for seed in range(members)]
    program = loop.Program(spec, rows_of_all, draws, None, None)
    batch = tuple(rng.integers(8 * rows, size=(members, rows)).astype(np.int32) for _ in range(2))
    return lambda: program.run([batch] * BLOCK, [0.5] * BLOCK, 0)


# --- measuring ---


def alternate(calls: Mapping[str, tuple[Call, int]], repeats: int, steps: Mapping[str, int] | None = None) -> Times:
    """Milliseconds a step of each side, taken in turns: name -> (call, calls a turn), and the steps in a call."""
    for call, _ in calls.values():
        call()  # trace and warm up
    spent: Times = {name: [] for name in calls}
    for _ in range(repeats):
        for name, (call, times) in calls.items():
            for _ in range(times):
                start = time.perf_counter()
                call()
                spent[name].append(1e3 * (time.perf_counter() - start) / (steps or {}).get(name, 1))
    return spent


def summarise(spent: Times) -> dict[str, float]:
    """Median and least milliseconds of every side."""
    numbers = {f"{side}_median_ms": statistics.median(times) for side, times in spent.items()}
    return numbers | {f"{side}_min_ms": min(times) for side, times in spent.items()}


def measure_discrepancy(repeats: int) -> dict[str, float]:
    """Ours against the article's formula on the same activations, and how much of it is matrix products."""
    x_s, x_t = activations(ROWS, UNITS)
    calls = {
        "ours": (discrepancy_call(our_mmd2, x_s, x_t), 8),
        "article": (discrepancy_call(article_mmd2, x_s, x_t), 1),
        "products": (products_call(x_s, x_t), 8),
    }
    return summarise(alternate(calls, repeats))


def measure_step(repeats: int, machine: Machine) -> dict[str, float]:
    """The trainer's step against the article's and the machine's floor."""
    calls = {"ours": (program_call(ARTICLE, COLUMNS, ROWS, 1), 1), "article": (article_step_call(), 2)}
    found = summarise(alternate(calls, repeats, {"ours": BLOCK}))
    return found | {"floor_ms": StepShape(ROWS, (COLUMNS, *ARTICLE.hidden, 1)).floor_ms(machine)}


def measure_ensemble(repeats: int, machine: Machine) -> dict[str, float]:
    """Ten seeds in one program against one, at the default network's shape; without dropout, as the floor has none."""
    spec = replace(DAN, dropout=0.0, use_target_labels=False, row_weights="equal")
    calls = {
        "one": (program_call(spec, ENSEMBLE_COLUMNS, ENSEMBLE_ROWS, 1), 3),
        "ten": (program_call(spec, ENSEMBLE_COLUMNS, ENSEMBLE_ROWS, MEMBERS), 1),
        "ten_dropout": (program_call(replace(spec, dropout=DAN.dropout), ENSEMBLE_COLUMNS, ENSEMBLE_ROWS, MEMBERS), 1),
    }
    found = summarise(alternate(calls, repeats, dict.fromkeys(calls, BLOCK)))
    shape = StepShape(ENSEMBLE_ROWS, (ENSEMBLE_COLUMNS, *spec.hidden, 1))
    return found | {"floor_ms": shape.floor_ms(machine), "ten_floors_ms": MEMBERS * shape.floor_ms(machine)}


def measure_skada(python: Path, repeats: int) -> dict[str, Any]:
    """Skada's loss in its own environment, and ours on the same tensors right after."""
    x_s, x_t = activations(ROWS, UNITS)
    script = Path(__file__).parent / "peers" / "skada_dan_loss.py"
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder) / name for name in ("source.npy", "target.npy")]
        for path, x in zip(paths, (x_s, x_t), strict=True):
            np.save(path, x.numpy())
        threads = os.cpu_count() or 1
        command = [str(python), str(script), *map(str, paths), str(repeats), str(threads)]
        said = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    ours = summarise(alternate({"ours": (discrepancy_call(our_mmd2, x_s, x_t), 1)}, 4 * repeats))
    return {**ours, "skada_median_ms": statistics.median(said["ms"]), "skada_min_ms": min(said["ms"]),
            "versions": f"skada {said['skada']}, torch {said['torch']}"}  # fmt: skip


def measure_costs(repeats: int) -> dict[str, list[dict[str, float]]]:
    """Our discrepancy and the article's by batch, width and number of kernels, all else as in the article."""
    sweeps: dict[str, list[tuple[int, int, int]]] = {
        "batch": [(n, UNITS, 5) for n in (64, 128, 256, 512, 1024, 2048)],
        "width": [(ROWS, d, 5) for d in (8, 16, 32, 64, 128, 256)],
        "kernels": [(ROWS, UNITS, k) for k in (1, 3, 5, 9, 17, 33)],
    }
    found: dict[str, list[dict[str, float]]] = {}
    for name, points in sweeps.items():
        for rows, units, kernels in points:
            x_s, x_t = activations(rows, units)
            family = KernelFamily(num=kernels)
            calls = {
                estimator: (discrepancy_call(lambda a, b, f=family, e=estimator: mk_mmd2(a, b, f, e), x_s, x_t), 2)
                for estimator in ("biased", "linear")
            }
            if name == "batch" and rows <= ROWS:
                calls["article"] = discrepancy_call(article_mmd2, x_s, x_t), 1
            times = summarise(alternate(calls, max(3, repeats // 3)))
            found.setdefault(name, []).append({"rows": rows, "units": units, "kernels": kernels, **times})
    return found


def measure_memory() -> list[dict[str, float]]:
    """Peak memory that one discrepancy with gradient adds, by batch, each in a process of its own."""
    sizes = (512, 1024, 2048, 4096, 8192)
    return [{"rows": rows, "mb": _peak_mb(rows), "matrix_mb": (2 * rows) ** 2 * 4 / 2**20} for rows in sizes]


def _peak_mb(rows: int) -> float:
    said = subprocess.run(
        [sys.executable, __file__, "--peak", str(rows)], check=True, capture_output=True, text=True
    ).stdout
    return float(said.split()[-1])


def print_peak(rows: int) -> None:
    """The child of `measure_memory`."""
    discrepancy_call(our_mmd2, *activations(64, UNITS))()
    before = _high_water_mb()
    discrepancy_call(our_mmd2, *activations(rows, UNITS))()
    print(_high_water_mb() - before)


def _high_water_mb() -> float:
    """Peak of this program alone (Linux): what getrusage says includes the parent's, which is larger."""
    status = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return float(next(line for line in status if line.startswith("VmHWM")).split()[1]) / 1024


def measure_choices(repeats: int) -> list[dict[str, Any]]:
    """float32 and bfloat16, with and without XLA, on the GPU where there is one, else XLA alone on the CPU."""
    has_gpu = bool(tf.config.list_physical_devices("GPU"))
    found = []
    for dtype in (tf.float32, tf.bfloat16) if has_gpu else (tf.float32,):
        x_s, x_t = activations(ROWS, UNITS, dtype)
        exact = float(default_mmd2(*activations(ROWS, UNITS)))
        for jit in (False, True):
            call = discrepancy_call(default_mmd2, x_s, x_t, jit=jit)
            times = summarise(alternate({"ours": (call, 4)}, repeats))
            error = abs(float(call()[0]) / exact - 1.0)
            found.append(
                {"device": "GPU" if has_gpu else "CPU", "dtype": dtype.name, "xla": jit, "error": error, **times}
            )
    return found


# --- showing ---


def plot_costs(costs: Mapping[str, list[dict[str, float]]], folder: Path) -> Path:
    """Milliseconds by batch, width and kernels, as one picture."""
    figure, panels = plt.subplots(1, 3, figsize=(10.4, 3.4), layout="constrained", sharey=True)
    axis_of = {"batch": "rows", "width": "units", "kernels": "kernels"}
    styles = {"biased": (BLUE, "o", "ours, all pairs"), "linear": (ORANGE, "s", "ours, linear"),
              "article": (GREY, "^", "the article's formula")}  # fmt: skip
    for panel, (name, points) in zip(panels, costs.items(), strict=True):
        for side, (colour, marker, label) in styles.items():
            shown = [p for p in points if f"{side}_median_ms" in p]
            x, y = [p[axis_of[name]] for p in shown], [p[f"{side}_median_ms"] for p in shown]
            if shown:
                panel.loglog(x, y, color=colour, marker=marker, label=label)
        panel.set_xlabel({"batch": "rows of each population", "width": "hidden units", "kernels": "kernels"}[name])
        ticks = [p[axis_of[name]] for p in points]
        panel.set_xticks(ticks, [str(tick) for tick in ticks])
        panel.minorticks_off()
        panel.spines[["top", "right"]].set_visible(False)
    panels[0].set_ylabel("ms, value and gradient")
    panels[0].legend(frameon=False)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "mmd_costs.svg"
    figure.savefig(path)
    plt.close(figure)
    return path


def show(measured: Mapping[str, Any], machine: Machine) -> None:
    """Print all tables."""
    print(f"machine: {machine.flops / 1e9:.0f} Gflop/s in matrix products, {machine.bandwidth / 1e9:.1f} GB/s")
    print(
        f"{'512 + 512 rows, ms':26}{'ours':>8}{'(min)':>8}{'article':>9}{'(min)':>9}{'ratio':>8}{'floor':>8}"
        f"{'of it':>7}"
    )
    for name in ("discrepancy", "step"):
        row = measured[name]
        sides = "".join(f"{row[f'{side}_{key}_ms']:{width}.2f}" for side, width in (("ours", 8), ("article", 9))
                        for key in ("median", "min"))  # fmt: skip
        floor = f"{row['floor_ms']:8.2f}{row['ours_median_ms'] / row['floor_ms']:7.2f}" if "floor_ms" in row else ""
        print(f"{name:26}{sides}{row['article_median_ms'] / row['ours_median_ms']:8.1f}{floor}")
    products, own = measured["discrepancy"]["products_median_ms"], StepShape(ROWS, (UNITS, 1)).pair_flops
    print(
        f"its matrix products alone: {products:.2f} ms, {own / products / 1e6:.0f} Gflop/s; at the machine's best rate "
        f"{1e3 * own / machine.flops:.2f} ms"
    )
    if skada := measured.get("skada"):
        ratio = skada["skada_median_ms"] / skada["ours_median_ms"]
        print(
            f"discrepancy, same tensors: ours {skada['ours_median_ms']:.2f} ms, skada's dan_loss "
            f"{skada['skada_median_ms']:.1f} ms, ratio {ratio:.1f} ({skada['versions']})"
        )
    row = measured["ensemble"]
    print(
        f"ten seeds, 256 + 256 rows, 60-128-32-1, ms a step: ten together {row['ten_median_ms']:.2f} "
        f"({row['ten_dropout_median_ms']:.2f} with dropout), one {row['one_median_ms']:.2f}, ten one after another "
        f"{MEMBERS * row['one_median_ms']:.2f}; ten floors {row['ten_floors_ms']:.2f}, together "
        f"{row['ten_median_ms'] / row['ten_floors_ms']:.2f} of them"
    )
    for name, points in measured.get("costs", {}).items():
        key = {"batch": "rows", "width": "units", "kernels": "kernels"}[name]
        print(f"{key:>10}" + "".join(f"{point[key]:9}" for point in points))
        for side in ("biased", "linear", "article"):
            cells = [point.get(f"{side}_median_ms") for point in points]
            print(f"{side:>10}" + "".join(f"{'' if ms is None else f'{ms:.2f}':>9}" for ms in cells))
    for point in measured.get("memory", []):
        print(f"{point['rows']:5} + {point['rows']:<5} rows: {point['mb']:7.0f} MB beside {point['matrix_mb']:6.0f} MB "
              "of one kernel matrix")  # fmt: skip
    for one in measured.get("choices", []):
        name = f"{one['device']} {one['dtype']:9} {'XLA' if one['xla'] else '   '}"
        print(f"{name} {one['ours_median_ms']:8.2f} ms, off by {one['error']:.1e}")


def main() -> None:
    """Measure, print the tables, draw, and write JSON where asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=15, help="turns of each comparison (default 15)")
    parser.add_argument("--skada", type=Path, help="Python of an environment with skada and torch")
    parser.add_argument("--plots", type=Path, default=Path("work/bench"), help="where the picture goes")
    parser.add_argument("--quick", action="store_true", help="only the step, the discrepancy and the ten seeds")
    parser.add_argument("--json", type=Path, help="also write the numbers there")
    parser.add_argument("--peak", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.peak is not None:
        print_peak(arguments.peak)
        return
    machine = measure_machine()
    measured: dict[str, Any] = {
        "machine": {"flops": machine.flops, "bandwidth": machine.bandwidth},
        "discrepancy": measure_discrepancy(arguments.repeats),
        "step": measure_step(arguments.repeats, machine),
        "ensemble": measure_ensemble(arguments.repeats, machine),
    }
    if arguments.skada:
        measured["skada"] = measure_skada(arguments.skada, arguments.repeats)
    if not arguments.quick:
        measured["costs"] = measure_costs(arguments.repeats)
        measured["memory"] = measure_memory()
        measured["choices"] = measure_choices(arguments.repeats)
    show(measured, machine)
    if "costs" in measured:
        print(f"plot: {plot_costs(measured['costs'], arguments.plots)}")
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(measured, indent=1), encoding="utf-8")
    row = measured["step"]
    print(
        f"ours {row['ours_median_ms']:.2f} ms article {row['article_median_ms']:.2f} ms "
        f"ratio {row['article_median_ms'] / row['ours_median_ms']:.1f} floor {row['floor_ms']:.2f} ms"
    )


if __name__ == "__main__":
    main()
