"""Torch and pinlane side by side: one process, the two taking turns, every result checked, medians as JSON.

    python bench/torch_side_by_side.py --device cuda --out results.json [--figures h200.json]

With --figures, what is asked of the package goes into the results of `pinlane bench --figures-json`, in place of what an
earlier run put there. The link's limit comes from these results, since the same machine has measured it just before.

On a simulated device (`--device sim --quick`) it only shows that it works: nothing measured there says anything of hardware.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import json
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pinlane
import python_grid
import torch
import training_steps
from python_figures import figures

Work = Callable[[], Any]


class Bench:
    """Measures ways of doing the same work, in turns."""

    def __init__(self, device: str, rounds: int, quick: bool) -> None:
        self.device = device
        self.is_gpu = device.startswith("cuda")
        self.rounds = rounds
        self.quick = quick
        self.results: list[dict[str, Any]] = []
        self.steps: dict[str, dict[str, float]] = {}
        self.cells: list[python_grid.Measured] = []
        self.cells_left = 0
        self.failures: dict[str, str] = {}

    def compare(
        self, name: str, ways: dict[str, Work], check: Callable[[Any], bool], *, bytes: int, rounds: int | None = None
    ) -> None:
        """Times each way, the device idle before and done after; `check` judges what each gives, outside the time."""
        rounds = rounds or self.rounds
        times: dict[str, list[float]] = {way: [] for way in ways}
        for turn in range(rounds + 2):
            for way, work in ways.items():
                self.synchronize()
                start = time.perf_counter()
                result = work()
                self.synchronize()
                took = time.perf_counter() - start
                if turn in (0, rounds + 1) and not check(result):
                    sys.exit(f"{name}: {way} gave other bytes")
                del result
                if turn >= 2:  # the first turns warm up
                    times[way].append(took)
        row: dict[str, Any] = {"id": name, "bytes": bytes}
        for way, taken in times.items():
            median = statistics.median(taken)
            row[way] = {"ms": median * 1e3, "min_ms": min(taken) * 1e3, "gb_per_s": bytes / median / 1e9}
        self.results.append(row)
        told = "  ".join(f"{way} {row[way]['ms']:.3f} ms ({row[way]['gb_per_s']:.1f} GB/s)" for way in ways)
        print(f"{name:28} {told}", flush=True)
        gc.collect()

    def synchronize(self) -> None:
        if self.is_gpu:
            torch.cuda.synchronize(self.device)

    def torch_to(self, tensor: torch.Tensor, non_blocking: bool = False) -> torch.Tensor:
        return tensor.to(self.device, non_blocking=non_blocking) if self.is_gpu else tensor.clone()

    # ---- the work

    def torch_to_host(self, tensor: torch.Tensor) -> torch.Tensor:
        """Enqueued only: torch makes the result in pinned memory, and who wants to read it waits."""
        return tensor.to("cpu", non_blocking=True) if self.is_gpu else tensor.clone()

    def many_small(self) -> None:
        tensors = [torch.randn(1000) for _ in range(1000)]
        # Each in an allocation of its own: those that came together could go back as one piece.
        there = pinlane.to(tensors, self.device, slab=False)
        up: dict[str, Work] = {
            "torch": lambda: [self.torch_to(tensor, True) for tensor in tensors],
            "pinlane": lambda: pinlane.to(tensors, self.device),
        }
        with contextlib.suppress(ImportError):
            up["tensordict_consolidated"] = self.consolidated(tensors)
        down: dict[str, Work] = {
            "torch": lambda: [tensor.cpu() for tensor in there],
            "torch_non_blocking": lambda: [self.torch_to_host(tensor) for tensor in there],
            "pinlane": lambda: pinlane.to(there, "cpu"),
        }
        size = 4_000_000
        self.compare("py-h2d-small-1000", up, self.equal_to(tensors), bytes=size)
        self.compare("py-d2h-small-1000", down, self.equal_to(tensors), bytes=size)

    def consolidated(self, tensors: list[torch.Tensor]) -> Work:
        """Tensordict's own way with many small tensors: put into one piece of memory beforehand, outside the time."""
        from tensordict import TensorDict

        tree = TensorDict({f"x{number}": tensor for number, tensor in enumerate(tensors)}, batch_size=[]).consolidate()
        if not self.is_gpu:
            return lambda: list(tree.clone().values())
        return lambda: list(tree.to(self.device, non_blocking=True).values())

    def large(self) -> None:
        count = (1 << 20 if self.quick else 1 << 30) // 4
        tensor = torch.arange(count, dtype=torch.int32)
        there = pinlane.to(tensor, self.device)
        up: dict[str, Work] = {
            "torch": lambda: [self.torch_to(tensor)],
            "pinlane": lambda: [pinlane.to(tensor, self.device)],
        }
        check = self.equal_to([tensor])
        # Torch takes most of a second for each to the host, whatever the package keeps: so it is measured once.
        few = -(-self.rounds // 3)
        self.compare("py-h2d-1gib", up, check, bytes=count * 4, rounds=few)

        def fresh() -> Any:
            pinlane.trim()
            return [pinlane.to(there, "cpu")]

        first: dict[str, Work] = {"torch": lambda: [there.cpu()], "pinlane": fresh}
        self.compare("py-d2h-1gib-first", first, check, bytes=count * 4, rounds=few)
        theirs = self.results[-1]["torch"]
        again: dict[str, Work] = {"pinlane": lambda: [pinlane.to(there, "cpu")]}
        self.compare("py-d2h-1gib-again", again, check, bytes=count * 4)
        # Torch's `.cpu()` takes fresh memory every time.
        self.results[-1]["torch_cpu_fresh"] = {**theirs, "measured_in": "py-d2h-1gib-first"}
        pinlane.trim()
        kept = torch.empty(count, dtype=torch.int32, pin_memory=self.is_gpu)
        pinned: dict[str, Work] = {
            "torch_copy": lambda: [kept.copy_(there)],
            "pinlane": lambda: [pinlane.to(there, "cpu", pin=True)],
        }
        self.compare("py-d2h-1gib-pinned", pinned, check, bytes=count * 4)
        del kept
        pinlane.trim()

    def one_tensor(self) -> None:
        for size in (4, 4096, 400_000):
            for kind in ("pageable", "pinned"):
                tensor = torch.arange(size // 4, dtype=torch.int32)
                if kind == "pinned":
                    tensor = pinlane.pin(tensor, self.device)
                there = pinlane.to([tensor], self.device)[0]
                up: dict[str, Work] = {
                    "torch": lambda t=tensor: [self.torch_to(t)],  # type: ignore[misc]
                    "pinlane": lambda t=tensor: [pinlane.to(t, self.device)],  # type: ignore[misc]
                }
                self.compare(f"py-one-tensor-h2d-{size}-{kind}", up, self.equal_to([tensor]), bytes=size)
            down: dict[str, Work] = {
                "torch": lambda t=there: [t.cpu()],  # type: ignore[misc]
                "pinlane": lambda t=there: [pinlane.to(t, "cpu")],  # type: ignore[misc]
            }
            self.compare(f"py-one-tensor-d2h-{size}", down, self.equal_to([tensor]), bytes=size)

    def tensordict(self) -> None:
        try:
            from tensordict import TensorDict
        except ImportError:
            self.failures["py-tensordict-100x1m"] = "tensordict is not installed"
            return
        count = 1000 if self.quick else 1_000_000
        tree = TensorDict({f"x{index}": torch.randn(count) for index in range(100)}, batch_size=[])
        ways: dict[str, Work] = {
            "torch": lambda: tree.to(self.device) if self.is_gpu else tree.clone(),
            "pinlane": lambda: pinlane.to(tree, self.device),
        }
        if self.is_gpu:
            ways["tensordict_best"] = lambda: tree.to(self.device, non_blocking_pin=True, num_threads=8)
        wanted = list(tree.values())
        check = self.equal_to(wanted)
        self.compare("py-tensordict-100x1m", ways, lambda td: check(list(td.values())), bytes=400 * count)

    def training(self) -> None:
        for work in training_steps.works(self.quick):
            try:
                self.steps[work.name] = times = training_steps.measure(work, self.device)
            except (OSError, RuntimeError) as error:
                self.failures[work.name] = f"{type(error).__name__}: {error}"
                continue
            told = "  ".join(f"{way} {taken:.2f} ms" for way, taken in times.items())
            print(f"{work.name:28} {told}", flush=True)

    def grid(self, seconds: float) -> None:
        most = 1 << 20 if self.quick else python_grid.MOST_BYTES
        self.cells = list(python_grid.measure(self.device, seconds, most))
        self.cells_left = len(python_grid.cells(most)) - len(self.cells)
        worst = sorted(self.cells, key=lambda cell: cell.ratio, reverse=True)
        for cell in worst[:10]:
            told = f"torch {cell.torch_ms:.4f} ms  pinlane {cell.pinlane_ms:.4f} ms  {cell.ratio:.3f} x"
            print(f"py-never-slower {cell.name:24} {told}", flush=True)

    def equal_to(self, wanted: list[torch.Tensor]) -> Callable[[list[torch.Tensor]], bool]:
        return lambda given: all(torch.equal(a, b.cpu()) for a, b in zip(wanted, given, strict=True))


def import_ms() -> float:
    """Milliseconds that `import pinlane` takes where torch is imported already; the median of a few fresh processes."""
    code = "import time, torch; start = time.perf_counter(); import pinlane; print(time.perf_counter() - start)"
    run = [sys.executable, "-c", code]
    return statistics.median(float(subprocess.check_output(run)) for _ in range(3)) * 1e3


def add_figures(path: Path, bench: Bench) -> None:
    """Puts the figures, and why others are missing, into the results at `path`."""
    document = json.loads(path.read_text())
    ratios = [(cell.name, cell.ratio) for cell in bench.cells]
    mine = figures(bench.results, bench.steps, ratios, bench.cells_left, import_ms(), document["link"])
    for key, new in (("figures", mine), ("failures", [{"id": i, "error": e} for i, e in bench.failures.items()])):
        others = [entry for entry in document.get(key, []) if not entry["id"].startswith("py-")]
        if others or new:
            document[key] = others + new
        else:
            document.pop(key, None)
    path.write_text(json.dumps(document, indent=2, ensure_ascii=False) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--quick", action="store_true", help="small sizes: only to see that it works")
    parser.add_argument("--grid", type=float, default=25, help="seconds for the grid of py-never-slower; 25 unless told")
    parser.add_argument("--out", help="where the results go as JSON")
    parser.add_argument("--figures", type=Path, help="results of pinlane bench, to which the figures are added")
    options = parser.parse_args()
    if options.figures and (options.quick or not options.device.startswith("cuda")):
        parser.error("--figures wants a GPU and full sizes: others are no figures of hardware")
    bench = Bench(options.device, options.rounds, options.quick)
    product = torch.cuda.get_device_name(options.device) if bench.is_gpu else "simulated: no figure of hardware"
    print(f"{product}; torch {torch.__version__}; Python {platform.python_version()}; medians of {options.rounds}")
    if bench.is_gpu:
        # For pinned results and for what loaders keep ready; it is the caller's to say.
        pinlane.set_pinned_budget(3 << 30, bench.device)
    bench.many_small()
    bench.one_tensor()
    bench.tensordict()
    bench.training()
    bench.large()
    bench.grid(options.grid)
    for name, reason in bench.failures.items():
        print(f"{name:28} {reason}")
    if options.out:
        document = {
            "machine": product,
            "torch": torch.__version__,
            "python": platform.python_version(),
            "rounds": options.rounds,
            "results": bench.results,
            "steps": bench.steps,
            "cells": [cell._asdict() for cell in bench.cells],
            "cells_left": bench.cells_left,
            "failures": bench.failures,
        }
        with open(options.out, "w") as file:
            json.dump(document, file, indent=2)
    if options.figures:
        add_figures(options.figures, bench)


if __name__ == "__main__":
    main()
