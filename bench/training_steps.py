"""Training steps that wait for a DataLoader's batches: torch's way and pinlane's, each with a loader of its own.

A step is 25 products of 4096 x 4096 matrices, in bfloat16, on each batch that has reached the device. The ways:

- `torch`: `pin_memory=True`, and `to(device, non_blocking=True)` of each tensor;
- `pinlane`: `pinlane.collate()` in the workers, and `pinlane.prefetch`.

They take turns, an epoch each; a step's time is an epoch's, after its first steps, divided by its steps. Every byte of the
first batches is compared with what the samples are. What both are up against is measured too: the steps alone on one batch,
and the workers alone, whose batches are dropped.
"""

from __future__ import annotations

import contextlib
import dataclasses
import resource
import statistics
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import pinlane
import torch
from torch.utils.data import DataLoader, Dataset, default_collate

Batch = dict[str, torch.Tensor]

EPOCHS = 3
#: Torch opens as many files as there are tensors in the batches that wait.
FILES = 20_000


@dataclasses.dataclass(frozen=True)
class Work:
    """What the batches are."""

    name: str
    samples: Dataset[Any]
    #: Samples in a batch.
    batch: int
    #: Steps of an epoch that are not counted, and those that are.
    warm_up: int
    steps: int
    workers: int
    products: int
    width: int


class Images(Dataset[Any]):
    """Samples of one image and a number each, 602 kB, that are in memory already: the same for each batch."""

    def __init__(self, count: int, batch: int) -> None:
        self._images = torch.arange(batch * 3 * 224 * 224, dtype=torch.float32).view(batch, 3, 224, 224)
        self._count = count

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int) -> Batch:
        return {"x": self._images[index % len(self._images)], "number": torch.tensor(index)}


class Many(Dataset[Any]):
    """Samples of very many small tensors: ten of them make a batch of as many tensors of 1000 floats."""

    def __init__(self, count: int, tensors: int) -> None:
        self._rows = torch.arange(tensors * 100, dtype=torch.float32).view(tensors, 100)
        self._count = count

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int) -> Batch:
        sample = {f"x{number}": row for number, row in enumerate(self._rows)}
        sample["number"] = torch.tensor(index)
        return sample


def works(quick: bool) -> list[Work]:
    """The two kinds of batches that are measured."""
    load = {"workers": 2, "products": 2, "width": 64} if quick else {"workers": 8, "products": 25, "width": 4096}
    warm_up, steps, few = (2, 3, 3) if quick else (20, 100, 24)
    images = 4 if quick else 64
    return [
        Work("py-step-images", Images((warm_up + steps) * images, images), images, warm_up, steps, **load),
        Work("py-step-many", Many((8 + few) * 10, 500), 10, 8, few, **load),
    ]


def measure(work: Work, device: str) -> dict[str, float]:
    """Milliseconds for each step: of both ways, of the steps alone (`compute`) and of the workers alone (`workers`)."""
    step = Step(work, device)
    ours = _loader(work, collate_fn=pinlane.collate(device=device))
    theirs = _loader(work, pin_memory=device.startswith("cuda"))
    ways: dict[str, Callable[[], Iterable[Batch]]] = {
        "torch": lambda: (_moved(batch, device) for batch in theirs),
        "pinlane": lambda: pinlane.prefetch(ours, device),
    }
    times: dict[str, list[float]] = {"compute": [], "workers": [], "torch": [], "pinlane": []}
    with _many_files():
        for _ in range(EPOCHS):
            times["compute"].append(step.alone())
            times["workers"].append(_epoch(work, ours, None))
            for way, batches in ways.items():
                times[way].append(_epoch(work, batches(), step))
                step.check()
    return {way: statistics.median(taken) * 1e3 for way, taken in times.items()}


class Step:
    """The work on a batch, and whether batches are right."""

    def __init__(self, work: Work, device: str) -> None:
        self._work = work
        self._device = "cpu" if device.startswith("sim") else device
        kind = torch.bfloat16 if self._device != "cpu" else torch.float32
        self._a, self._b = (torch.randn(work.width, work.width, device=self._device, dtype=kind) for _ in range(2))
        self._c = torch.empty_like(self._a)
        self._numbers = torch.zeros((), dtype=torch.int64, device=self._device)
        # All batches are the same but for the numbers of their samples.
        self._expected = default_collate([work.samples[number] for number in range(work.batch)])

    def on(self, batch: Batch) -> None:
        """Enqueues a step."""
        self._numbers += batch["number"].sum()
        for _ in range(self._work.products):
            torch.mm(self._a, self._b, out=self._c)

    def finish(self) -> None:
        """Waits until everything enqueued is done."""
        if self._device != "cpu":
            torch.cuda.synchronize(self._device)

    def compare(self, batch: Batch) -> None:
        """Whether each byte of a batch is right."""
        for name, expected in self._expected.items():
            if name != "number" and not torch.equal(batch[name].cpu(), expected):
                raise SystemExit(f"{self._work.name}: {name} has other bytes than the samples")

    def check(self) -> None:
        """Whether an epoch had all of the samples."""
        count = len(self._work.samples)  # type: ignore[arg-type]
        told, self._numbers = int(self._numbers), torch.zeros_like(self._numbers)
        if told != count * (count - 1) // 2:
            raise SystemExit(f"{self._work.name}: other samples than the workers gave")

    def alone(self) -> float:
        """Seconds for a step on a batch that is there already."""
        batch = {"number": torch.zeros(1, dtype=torch.int64, device=self._device)}
        start = 0.0
        for number in range(-3, self._work.steps):
            if number == 0:
                self.finish()
                start = time.perf_counter()
            self.on(batch)
        self.finish()
        return (time.perf_counter() - start) / self._work.steps


def _loader(work: Work, **options: Any) -> DataLoader[Any]:
    return DataLoader(
        work.samples,
        batch_size=work.batch,
        num_workers=work.workers,
        persistent_workers=True,
        multiprocessing_context="fork",
        **options,
    )


def _moved(batch: Batch, device: str) -> Batch:
    if device.startswith("sim"):
        return batch
    return {name: tensor.to(device, non_blocking=True) for name, tensor in batch.items()}


def _epoch(work: Work, batches: Iterable[Batch], step: Step | None) -> float:
    """Seconds for each batch of an epoch, but for those that warm it up; without a step, batches are dropped."""
    start = 0.0
    for number, batch in enumerate(batches):
        if step is not None and number < work.warm_up // 2:
            step.compare(batch)
        if number == work.warm_up:
            if step is not None:
                step.finish()
            start = time.perf_counter()
        if step is not None:
            step.on(batch)
        del batch
    if step is not None:
        step.finish()
    return (time.perf_counter() - start) / work.steps


@contextlib.contextmanager
def _many_files() -> Iterator[None]:
    """Lets this process open as many files as it may, and torch's loaders do with that."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    strategy = torch.multiprocessing.get_sharing_strategy()
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    if 0 <= hard < FILES:
        torch.multiprocessing.set_sharing_strategy("file_system")
    try:
        yield
    finally:
        torch.multiprocessing.set_sharing_strategy(strategy)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
