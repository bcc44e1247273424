"""Batches that worker processes pack into shared, pinned memory."""

from __future__ import annotations

import collections
import dataclasses
import gc
import json
import os
import pickle
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy
import pinlane
import pytest
import torch
from pinlane import _native
from pinlane.testing import simulate
from torch.utils.data import DataLoader, Dataset

from .conftest import shared_memory

SAMPLES = [
    {"x": torch.full((2, 3), float(number)), "y": number, "name": f"{number}", "a": numpy.arange(number, number + 4)}
    for number in range(12)
]


def shared_by_us() -> list[str]:
    """What of our shared memory this process has open or mapped."""
    found = []
    for number in os.listdir("/proc/self/fd"):
        try:
            found.append(os.readlink(f"/proc/self/fd/{number}"))
        except FileNotFoundError:
            continue
    with open("/proc/self/maps") as maps:
        found += maps.read().splitlines()
    return [name for name in found if "memfd:pinlane" in name]


@pytest.fixture(autouse=True)
def nothing_left_behind(impatient_loaders: None) -> Iterator[None]:
    gc.collect()
    shared, open_before = shared_memory(), len(shared_by_us())
    yield
    gc.collect()
    assert shared_memory() <= shared
    assert len(shared_by_us()) <= open_before
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("pinlane")]


def loader_of(samples: Any, collate_fn: Any, workers: int = 2, **options: Any) -> DataLoader[Any]:
    options = {"batch_size": 4, "multiprocessing_context": "fork", **options}
    return DataLoader(samples, num_workers=workers, collate_fn=collate_fn, **options)


def assert_same(got: Any, expected: Any) -> None:
    assert type(got) is type(expected)
    if isinstance(expected, torch.Tensor):
        assert got.dtype == expected.dtype
        assert torch.equal(got, expected)
    elif isinstance(expected, dict):
        assert list(got) == list(expected)
        for key, value in expected.items():
            assert_same(got[key], value)
    elif isinstance(expected, (list, tuple)):
        assert len(got) == len(expected)
        for mine, theirs in zip(got, expected, strict=True):
            assert_same(mine, theirs)
    else:
        assert got == expected


def memory_of(*tensors: torch.Tensor) -> set[int]:
    return {tensor.untyped_storage().data_ptr() for tensor in tensors}


@pytest.mark.parametrize("start", ["fork", "forkserver", "spawn"])
def test_batches_are_what_default_collate_makes_and_lie_in_one_pinned_slab(start: str) -> None:
    collate = pinlane.collate(device="sim")
    batches = list(loader_of(SAMPLES, collate, multiprocessing_context=start))
    expected = list(loader_of(SAMPLES, None, 0, multiprocessing_context=None))
    assert_same(batches, expected)
    for batch in batches:
        assert len(memory_of(batch["x"], batch["y"], batch["a"])) == 1
        assert pinlane.is_pinned(batch, "sim")


def test_without_workers_it_is_the_function() -> None:
    loader = loader_of(SAMPLES, pinlane.collate(), 0, multiprocessing_context=None)
    assert_same(list(loader), list(DataLoader(SAMPLES, batch_size=4)))
    assert pinlane.collate(len)([1, 2, 3]) == 3


def test_batches_reach_a_device_through_prefetch(device: str) -> None:
    loader = loader_of(SAMPLES, pinlane.collate(device=device))
    for _ in range(2):
        got = list(pinlane.prefetch(loader, device))
        assert_same(pinlane.to(got, "cpu"), list(DataLoader(SAMPLES, batch_size=4)))


def test_a_batch_in_a_pinned_slab_crosses_the_link_in_one_copy(device: str, tmp_path: Path) -> None:
    samples = [{f"x{part}": torch.full((300,), float(number + part)) for part in range(40)} for number in range(8)]
    (batch,) = loader_of(samples, pinlane.collate(device=device), 1, batch_size=8)
    assert pinlane.is_pinned(batch, device)
    with pinlane.profile(tmp_path / "trace.json"):
        there = pinlane.to(batch, device)
    events = json.loads((tmp_path / "trace.json").read_text())["traceEvents"]
    copies = [event for event in events if (event["name"], event.get("cat")) == ("copy", "device")]
    assert len(copies) == 1
    assert copies[0]["args"]["route"] == "direct"
    assert_same(pinlane.to(there, "cpu"), batch)


def test_slabs_are_used_again() -> None:
    samples = [torch.full((1000,), float(number)) for number in range(200)]
    seen = set()
    for number, batch in enumerate(loader_of(samples, pinlane.collate(device="sim"), 1, batch_size=2)):
        assert batch[:, 0].tolist() == [2 * number, 2 * number + 1]
        seen |= memory_of(batch)
    # Two in the worker, one here, and one more while the loop's variable still holds the last.
    assert len(seen) <= 5


def test_a_batch_stays_as_it_is_while_any_of_its_tensors_is_held() -> None:
    samples = [{"x": torch.full((100,), number), "y": torch.tensor(number)} for number in range(60)]
    held = [batch["y"] for batch in loader_of(samples, pinlane.collate(device="sim", slabs=4), batch_size=1)]
    assert [int(y) for y in held] == list(range(60))


@pytest.mark.parametrize("slabs", [1, 2])
def test_where_no_slab_is_free_batches_come_as_ever(slabs: int) -> None:
    collate = pinlane.collate(device="sim", slabs=slabs)
    batches = list(loader_of(SAMPLES, collate, batch_size=1))
    assert_same(batches, list(DataLoader(SAMPLES, batch_size=1)))
    packed = [pinlane.is_pinned(batch, "sim") for batch in batches]
    assert 1 <= packed.count(True) <= slabs


def test_a_tensor_that_finds_no_room_comes_as_ever() -> None:
    samples = [{"small": torch.arange(5), "large": torch.full((400_000,), float(number))} for number in range(6)]
    collate = pinlane.collate(device="sim", slab_bytes=1 << 20)
    batches = list(loader_of(samples, collate, batch_size=2))
    assert_same(batches, list(DataLoader(samples, batch_size=2)))
    assert [pinlane.is_pinned(batch["small"], "sim") for batch in batches] == [True] * 3
    assert [pinlane.is_pinned(batch["large"], "sim") for batch in batches] == [False] * 3


def test_what_the_budget_has_no_room_for_comes_unpinned() -> None:
    small = simulate("sim:collate-budget", pinned_budget=8 << 20, lanes=1, slot_bytes=1 << 20)
    samples = [torch.full((1 << 20,), float(number)) for number in range(6)]
    batches = list(loader_of(samples, pinlane.collate(device=small), batch_size=1))
    assert [int(batch[0, 0]) for batch in batches] == list(range(6))
    pinned = [pinlane.is_pinned(batch, small) for batch in batches]
    assert True in pinned and False in pinned
    assert pinlane.stats().devices[small].pinned <= 8 << 20


Point = collections.namedtuple("Point", ["x", "y"])


@dataclasses.dataclass
class Everything:
    odd: list[Any]
    point: Any


def test_any_tree_that_can_be_pickled_comes_back_as_it_was() -> None:
    shared = torch.arange(6.0).view(2, 3)
    odd = [
        torch.tensor([True, False]),
        torch.tensor([1.5], dtype=torch.bfloat16),
        torch.tensor([1 + 2j, 3 - 1j]).conj(),
        torch.arange(12).view(3, 4).t(),
        torch.arange(12).view(3, 4)[:, ::2],
        torch.ones(1, 3, 4, 5).contiguous(memory_format=torch.channels_last),
        torch.ones(1).expand(7),
        torch.empty(0, 3),
        torch.tensor(7),
        "between",
        torch.nn.Parameter(torch.ones(2)),
        numpy.arange(3.0),
        "text",
        None,
    ]
    made = Everything(odd, Point(shared, {"again": shared}))
    (batch,) = loader_of([0], pinlane.collate(lambda _: made, device="sim"), 1)
    assert pinlane.is_pinned([*batch.odd[:8], batch.point], "sim")
    assert type(batch) is Everything
    assert type(batch.point) is Point
    assert batch.point.y["again"] is batch.point.x
    for got, expected in zip(batch.odd, odd, strict=True):
        if isinstance(expected, torch.Tensor) and expected.layout is torch.strided:
            assert (got.dtype, got.shape, type(got)) == (expected.dtype, expected.shape, type(expected))
            assert torch.equal(got, expected)
    assert batch.odd[5].stride() == odd[5].stride()
    assert batch.odd[3].stride() == odd[3].stride()
    assert batch.odd[11].tolist() == [0.0, 1.0, 2.0]
    assert batch.odd[12:] == ["text", None] and batch.odd[9] == "between"


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
def test_nested_tensors_come_as_they_do_without_it() -> None:
    def make(_: Any) -> Any:
        return {"nested": torch.nested.nested_tensor([torch.ones(2), torch.ones(3)]), "x": torch.ones(4)}

    (batch,) = loader_of([0], pinlane.collate(make, device="sim"), 1)
    assert [len(part) for part in batch["nested"].unbind()] == [2, 3] and batch["x"].eq(1).all()
    with pytest.raises(RuntimeError, match="nested tensors are not currently supported by the default collate_fn"):
        list(loader_of([make(0)["nested"]], pinlane.collate(device="sim"), 1))


def test_a_tensordict_comes_back_as_one() -> None:
    tensordict = pytest.importorskip("tensordict")
    made = tensordict.TensorDict({"x": torch.arange(6.0).view(2, 3), "deep": {"y": torch.ones(2)}}, [2])
    (batch,) = loader_of([0], pinlane.collate(lambda _: made.clone(), device="sim"), 1)
    assert type(batch) is type(made)
    assert (batch == made).all()
    assert pinlane.is_pinned(batch, "sim")


def test_pinned_memory_is_given_back_with_the_loader() -> None:
    pinlane.to(torch.ones(3), "sim")
    before = pinlane.stats().devices["sim:0"].leased
    collate = pinlane.collate(device="sim")
    batches = list(loader_of(SAMPLES, collate))
    assert pinlane.stats().devices["sim:0"].leased > before
    del collate
    assert_same(batches, list(DataLoader(SAMPLES, batch_size=4)))
    del batches
    gc.collect()
    assert pinlane.stats().devices["sim:0"].leased == before


# ---- what goes wrong


class Troubled(Dataset[torch.Tensor]):
    """Numbers, and something that happens at one of them."""

    def __init__(self, size: int, happens: str | None = None, at: int = -1) -> None:
        self.size = size
        self.happens = happens
        self.at = at

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int) -> torch.Tensor:
        if index == self.at and self.happens == "death":
            os.kill(os.getpid(), signal.SIGKILL)
        return torch.full((10,), index)


def assert_all_slabs_serve(collate: pinlane.Collate, slabs: int) -> None:
    """With one worker and no batch kept, every batch finds a slab, whatever happened to them before."""
    batches = list(loader_of(Troubled(slabs), collate, 1, batch_size=1))
    assert [int(batch[0, 0]) for batch in batches] == list(range(slabs))
    assert pinlane.is_pinned(batches, "sim")


@pytest.mark.usefixtures("deaths_noticed_when_asked")
def test_what_a_killed_worker_had_is_used_again() -> None:
    collate = pinlane.collate(device="sim", slabs=4)
    for at in (3, 4):
        # Torch's own error, or one of reading what it had sent by its own ways.
        with pytest.raises((RuntimeError, OSError)):
            list(loader_of(Troubled(40, "death", at), collate, batch_size=1))
        gc.collect()
    assert_all_slabs_serve(collate, 4)


def test_what_was_packed_ahead_when_a_loop_was_left_is_used_again() -> None:
    collate = pinlane.collate(device="sim", slabs=4)
    for _ in range(5):
        for batch in pinlane.prefetch(loader_of(Troubled(40), collate, batch_size=1), "sim"):
            del batch
            break
        for batch in loader_of(Troubled(40), collate, batch_size=1):
            del batch
            break
    gc.collect()
    assert_all_slabs_serve(collate, 4)


def test_workers_that_stay_serve_the_next_epoch_after_a_loop_that_was_left() -> None:
    loader = loader_of(Troubled(12), pinlane.collate(device="sim", slabs=8), batch_size=1, persistent_workers=True)
    for batch in loader:
        del batch
        break
    for _ in range(3):
        pinned = []
        for number, batch in enumerate(loader):
            assert int(batch[0, 0]) == number
            pinned.append(pinlane.is_pinned(batch, "sim"))
            del batch
        assert all(pinned)
    del loader


class Refused(Exception):
    pass


def refuse_threes(samples: list[torch.Tensor]) -> torch.Tensor:
    if any(int(sample[0]) == 3 for sample in samples):
        raise Refused("no threes")
    return torch.stack(samples)


def test_an_error_of_the_function_comes_out_of_the_loader_and_costs_no_slab() -> None:
    collate = pinlane.collate(refuse_threes, device="sim", slabs=2)
    for _ in range(4):
        got = []
        with pytest.raises(Refused, match="no threes"):
            for batch in loader_of(Troubled(8), collate, 1, batch_size=1):
                got.append(int(batch[0, 0]))
                del batch
        assert got == [0, 1, 2]
        gc.collect()
    assert_all_slabs_serve(pinlane.collate(device="sim", slabs=2), 2)


def test_a_batch_that_can_not_be_pickled_is_the_loaders_error() -> None:
    loader = loader_of([torch.zeros(1)], pinlane.collate(lambda _: [torch.zeros(1), lambda: 0], device="sim"), 1)
    with pytest.raises((AttributeError, pickle.PicklingError), match="(?i)pickle"):
        list(loader)


def test_samples_that_do_not_fit_together_are_the_error_that_torch_gives() -> None:
    loader = loader_of([torch.zeros(1), torch.zeros(2)], pinlane.collate(device="sim"), 1)
    with pytest.raises(RuntimeError, match="stack expects each tensor to be equal size"):
        list(loader)


def test_bad_sizes_are_refused() -> None:
    for slabs in (0, 513):
        with pytest.raises(ValueError, match="between 1 and 512"):
            pinlane.collate(slabs=slabs)
    with pytest.raises(ValueError, match="no size"):
        pinlane.collate(slab_bytes=0)
    with pytest.raises(pinlane.NoSuchDeviceError):
        pinlane.collate(device="nowhere")


def test_a_copy_has_slabs_of_its_own() -> None:
    collate = pinlane.collate(device="sim", slabs=2)
    copy = pickle.loads(pickle.dumps(collate))
    del collate
    assert_all_slabs_serve(copy, 2)


def in_child(work: Any) -> Any:
    """What ``work`` gives in a forked process that is gone when this returns."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(writing, pickle.dumps(work()))
        os._exit(0)
    os.close(writing)
    with open(reading, "rb") as told:
        answer = pickle.load(told)
    os.waitpid(child, 0)
    return answer


def test_a_slab_of_a_dead_worker_is_read_or_claimed_again_but_never_both() -> None:
    slabs = _native.Slabs(1, 1 << 21)
    first = in_child(slabs.claim)
    assert slabs.take(*first, 100, None) is not None
    first = in_child(slabs.claim)
    second = in_child(slabs.claim)
    assert first[0] == second[0] == 0
    assert slabs.take(*first, 100, None) is None
    memory = slabs.take(*second, 100, None)
    assert memory is not None
    assert in_child(slabs.claim) is None
    assert slabs.take(*second, 100, None) is None
    del memory
    assert in_child(slabs.claim) is not None


def test_a_live_workers_slab_is_nobody_elses_and_is_given_up_as_it_says() -> None:
    slabs = _native.Slabs(1, 1 << 21)
    claimed = slabs.claim()
    assert claimed is not None
    assert in_child(slabs.claim) is None
    slabs.give_up(*claimed)
    assert slabs.take(*claimed, 100, None) is None
    again = slabs.claim()
    assert again is not None and again != claimed


def test_a_forked_child_gives_back_nothing_of_its_parents() -> None:
    slabs = _native.Slabs(1, 1 << 21)
    memory = slabs.take(*in_child(slabs.claim), 100, None)
    held = [memory]
    del memory
    in_child(held.clear)
    assert in_child(slabs.claim) is None
