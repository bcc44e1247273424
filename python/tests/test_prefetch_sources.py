"""What one may prefetch from: sources that fill one buffer again and again, and those that are shaped as Ray Data's."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Any

import numpy
import pinlane
import pytest
import torch
from pinlane import _plan
from pinlane.testing import simulate
from torch.utils.data import DataLoader

_numbers = itertools.count()
BATCHES = 6


@pytest.fixture
def slow() -> str:
    """A device whose link takes some milliseconds for a batch."""
    return simulate(f"sim:sources-{next(_numbers)}", bytes_per_second=5e7)


class Reusing(DataLoader):  # type: ignore[type-arg]
    """A loader that gives out the same tensor each time."""

    def __iter__(self) -> Iterator[Any]:
        buffer = None
        for batch in super().__iter__():
            buffer = batch.clone() if buffer is None else buffer.copy_(batch)
            yield buffer


def loaded(kind: type[DataLoader[Any]], workers: int) -> Callable[[str], Iterator[Any]]:
    samples = [torch.full((20_000,), float(number)) for number in range(2 * BATCHES)]
    context = "fork" if workers else None
    return lambda _: iter(kind(samples, batch_size=2, num_workers=workers, multiprocessing_context=context))


def one_array(_: str) -> Iterator[numpy.ndarray]:
    buffer = numpy.zeros((2, 20_000))
    for number in range(BATCHES):
        buffer[:] = (numpy.arange(2) + 2 * number)[:, None]
        yield buffer


def one_tensor_of_the_device(device: str) -> Iterator[torch.Tensor]:
    (buffer,) = pinlane.to([torch.zeros(2, 20_000, requires_grad=False)], device)
    for number in range(BATCHES):
        buffer.copy_((torch.arange(2) + 2 * number)[:, None])
        yield buffer


@pytest.mark.parametrize(
    "source", [loaded(Reusing, 0), loaded(Reusing, 2), one_array, one_tensor_of_the_device], ids=lambda source: None
)
@pytest.mark.parametrize("target", ["slow", "cpu"])
def test_a_source_may_fill_one_buffer_again_and_again(source: Any, target: str, slow: str) -> None:
    device = slow if target == "slow" else "cpu"
    wanted = torch.arange(2 * BATCHES, dtype=torch.float64).view(BATCHES, 2)
    given = list(pinlane.prefetch(source(device), device, depth=3))
    assert len(given) == BATCHES
    for batch, numbers in zip(given, wanted, strict=True):
        assert torch.as_tensor(batch).double().eq(numbers[:, None]).all()
        if device == slow:
            assert pinlane.to([batch], slow)[0] is batch, "it is on the device"


def test_a_class_of_ones_own_is_not_taken_for_a_plain_loader() -> None:
    samples = [torch.full((20_000,), float(number)) for number in range(2 * BATCHES)]
    loader = Reusing(samples, batch_size=2, num_workers=2, multiprocessing_context="fork")
    for number, batch in enumerate(pinlane.prefetch(loader, "cpu", depth=3)):
        assert batch[:, 0].tolist() == [2.0 * number, 2.0 * number + 1]


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_of_a_plain_loader_are_not_copied_where_they_are(monkeypatch: pytest.MonkeyPatch, workers: int) -> None:
    def copied(*_: Any) -> None:
        raise AssertionError("it was copied")

    monkeypatch.setattr(_plan.Plan, "copied", copied)
    context = "fork" if workers else None
    loader = DataLoader(list(range(8)), batch_size=2, num_workers=workers, multiprocessing_context=context)
    assert torch.cat(list(pinlane.prefetch(loader, "cpu"))).tolist() == list(range(8))


def test_without_workers_a_function_of_ones_own_may_give_the_same_memory_again() -> None:
    buffer = torch.zeros(2)

    def collate(samples: list[int]) -> torch.Tensor:
        return buffer.copy_(torch.tensor(samples))

    loader = DataLoader(list(range(8)), batch_size=2, collate_fn=collate)
    given = list(pinlane.prefetch(loader, "cpu", depth=3))
    assert torch.cat(given).tolist() == list(range(8))


class RayBatches:
    """As `ray.data.Dataset.iter_batches` gives: anew for each iteration, without a length, of arrays that can't be written."""

    def __init__(self, make: Callable[[Any], Any]) -> None:
        self.make = make

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for number in range(BATCHES):
            image = numpy.full((4, 3, 5), number, dtype=numpy.float32)
            image.flags.writeable = False
            yield {"image": self.make(image), "label": self.make(numpy.arange(4) + number)}


@pytest.mark.parametrize("make", [lambda array: array, lambda array: torch.tensor(array)], ids=["arrays", "tensors"])
def test_batches_shaped_as_ray_datas_are_prefetched(make: Any, device: str) -> None:
    batches = pinlane.prefetch(RayBatches(make), device)
    with pytest.raises(TypeError):
        len(batches)
    for _ in range(2):
        given = [pinlane.to(batch, "cpu") for batch in batches]
        assert len(given) == BATCHES
        for number, batch in enumerate(given):
            assert list(batch) == ["image", "label"] and batch["image"].shape == (4, 3, 5)
            assert (batch["image"] == number).all()
            assert batch["label"].tolist() == [number, number + 1, number + 2, number + 3]


def test_a_column_of_texts_is_refused_by_its_name(device: str) -> None:
    source = [{"text": numpy.array(["a", "b"], dtype=object)}]
    with pytest.raises(pinlane.UnsupportedLeafError, match=r"\['text'\].*Python objects"):
        list(pinlane.prefetch(source, device))
