"""What calls give, as type checkers see it: mypy reads this, and nothing runs it."""

from __future__ import annotations

from pathlib import Path

import numpy
import pinlane
import torch
from pinlane.testing import SimulatedStream, simulate
from typing_extensions import assert_type


class Batch(dict[str, torch.Tensor]):
    pass


def to(batch: Batch, tensor: torch.Tensor, array: numpy.ndarray[tuple[int], numpy.dtype[numpy.float32]]) -> None:
    assert_type(pinlane.to(batch, "cuda"), Batch)
    assert_type(pinlane.to(tensor, torch.device("cuda"), dtype=torch.float16, slab=False), torch.Tensor)
    assert_type(pinlane.to([tensor], 0, pin=True, stream=torch.cuda.current_stream()), list[torch.Tensor])
    assert_type(pinlane.to((tensor, 1), "sim", non_blocking=False), tuple[torch.Tensor, int])
    assert_type(pinlane.to(array, "sim"), numpy.ndarray[tuple[int], numpy.dtype[numpy.float32]])
    assert_type(pinlane.to(batch, "cuda", non_blocking=True), pinlane.Transfer[Batch])


async def transfer(moved: pinlane.Transfer[Batch]) -> None:
    assert_type(moved.result(), Batch)
    assert_type(await moved, Batch)
    assert_type(moved.done(), bool)
    assert_type(moved.exception(), Exception | None)
    moved.wait(torch.cuda.current_stream())


def pin(batch: Batch) -> None:
    assert_type(pinlane.pin(batch), Batch)
    assert_type(pinlane.is_pinned(batch, "cuda:1"), bool)


def loaders(loader: torch.utils.data.DataLoader[Batch], batches: list[Batch]) -> None:
    for batch in pinlane.prefetch(batches, "cuda", 3, max_bytes=1 << 30, dtype=torch.bfloat16):
        assert_type(batch, Batch)
    with pinlane.prefetch(batches, "cuda") as prefetched:
        assert_type(next(iter(prefetched)), Batch)


def checkpoints(path: Path, model: torch.nn.Module) -> None:
    assert_type(pinlane.load(path, "cuda"), dict[str, torch.Tensor])
    for name, tensor in pinlane.open(path).stream("cuda"):
        assert_type(name, str)
        assert_type(tensor, torch.Tensor)


def devices() -> None:
    assert_type(pinlane.stats().devices["cuda:0"].pinned, int)
    assert_type(simulate("sim:mine", memory_bytes=1), str)
    assert_type(SimulatedStream("sim:mine").query(), bool)
