"""The package beside torch on a grid of sizes, counts, kinds of memory and directions: it should be slower in no cell."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import pinlane
import torch

#: Bytes of a tensor.
SIZES = (4, 256, 4 << 10, 64 << 10, 1 << 20, 16 << 20, 128 << 20)
COUNTS = (1, 10, 100, 1000)
MOST_BYTES = 128 << 20
#: A cell is measured for about so long, in seconds, and at least so often.
CELL_SECONDS = 0.3
FEWEST_ROUNDS = 5


class Cell(NamedTuple):
    """So many tensors of one size."""

    name: str
    to_gpu: bool
    pinned: bool
    count: int
    bytes: int


class Measured(NamedTuple):
    """How a cell went."""

    name: str
    torch_ms: float
    pinlane_ms: float

    @property
    def ratio(self) -> float:
        return self.pinlane_ms / self.torch_ms


def cells(most_bytes: int = MOST_BYTES) -> list[Cell]:
    """The grid, the quick cells first."""
    found = []
    for size in SIZES:
        for count in COUNTS:
            if size * count > most_bytes:
                continue
            for kind in ("h2d-pageable", "h2d-pinned", "d2h"):
                name = f"{kind}-{size}B-x{count}"
                found.append(Cell(name, kind != "d2h", kind == "h2d-pinned", count, size))
    return sorted(found, key=lambda cell: cell.count * (cell.bytes + (16 << 10)))


def measure(device: str, seconds: float, most_bytes: int = MOST_BYTES) -> Iterator[Measured]:
    """Measures cell after cell until the time is up."""
    end = time.perf_counter() + seconds
    for cell in cells(most_bytes):
        if time.perf_counter() > end:
            return
        yield _measure(cell, device)


def _measure(cell: Cell, device: str) -> Measured:
    is_gpu = device.startswith("cuda")
    tensors = [torch.arange(cell.bytes // 4, dtype=torch.int32) + number for number in range(cell.count)]
    if cell.pinned:
        # Each by itself: those that are pinned together could cross as one piece.
        tensors = [tensor.pin_memory() if is_gpu else pinlane.pin(tensor, device) for tensor in tensors]
    there = pinlane.to(tensors, device, slab=False)
    alone = cell.count == 1

    def torch_to_gpu() -> Any:
        if not is_gpu:
            return [tensor.clone() for tensor in tensors]
        return [tensor.to(device, non_blocking=not alone) for tensor in tensors]

    def torch_to_host() -> Any:
        if not is_gpu:
            return [tensor.clone() for tensor in there]
        return [tensor.to("cpu", non_blocking=not alone) for tensor in there]

    source, target = (tensors, device) if cell.to_gpu else (there, "cpu")
    tree = source[0] if alone else source
    ways: tuple[Callable[[], Any], Callable[[], Any]] = (
        torch_to_gpu if cell.to_gpu else torch_to_host,
        lambda: pinlane.to(tree, target),
    )
    for way in ways:
        given = way()
        given = given if isinstance(given, list) else [given]
        if not all(torch.equal(a.cpu(), b) for a, b in zip(given, tensors, strict=True)):
            raise SystemExit(f"{cell.name}: other bytes")
    times: tuple[list[float], list[float]] = ([], [])
    begun = time.perf_counter()
    while len(times[0]) < FEWEST_ROUNDS or time.perf_counter() - begun < CELL_SECONDS:
        for way, taken in zip(ways, times, strict=True):
            _synchronize(device)
            start = time.perf_counter()
            given = way()
            _synchronize(device)
            taken.append(time.perf_counter() - start)
            del given
    torch_ms, pinlane_ms = (statistics.median(taken) * 1e3 for taken in times)
    return Measured(cell.name, torch_ms, pinlane_ms)


def _synchronize(device: str) -> None:
    if device.startswith("cuda"):
        torch.cuda.synchronize(device)
