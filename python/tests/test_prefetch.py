"""Copies that stay ahead of their consumer."""

from __future__ import annotations

import contextlib
import contextvars
import gc
import itertools
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
import weakref
from collections.abc import Iterator
from typing import Any

import numpy
import pinlane
import pytest
import torch
from pinlane.testing import simulate
from torch.utils.data import DataLoader, Dataset, IterableDataset

from .conftest import DEVICE, shared_memory


def our_threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("pinlane-prefetch")]


@pytest.fixture(autouse=True)
def nothing_left_behind(impatient_loaders: None) -> Iterator[None]:
    shared = shared_memory()
    yield
    gc.collect()
    assert our_threads() == []
    assert shared_memory() <= shared


class Counted:
    """A source that counts what was pulled from it, and lets one wait for a count."""

    def __init__(self, batches: int = 1000, elements: int = 25) -> None:
        self.batches = batches
        self.elements = elements
        self.pulled = 0
        self.changed = threading.Condition()

    def __iter__(self) -> Iterator[torch.Tensor]:
        for number in range(self.batches):
            with self.changed:
                self.pulled += 1
                self.changed.notify_all()
            yield torch.full((self.elements,), float(number))

    def wait_for(self, count: int) -> None:
        with self.changed:
            assert self.changed.wait_for(lambda: self.pulled >= count, timeout=60)


def test_batches_come_in_order_with_what_is_in_them(device: str) -> None:
    source = [{"x": torch.full((100,), number), "name": str(number)} for number in range(20)]
    for number, batch in enumerate(pinlane.prefetch(source, device)):
        assert batch["name"] == str(number)
        assert batch["x"].cpu().tolist() == [number] * 100
        assert batch["x"].data_ptr() != source[number]["x"].data_ptr()  # type: ignore[attr-defined]
    assert number == 19


def test_an_empty_source_gives_nothing(device: str) -> None:
    assert list(pinlane.prefetch([], device)) == []


@pytest.mark.parametrize("depth", [1, 2, 5])
def test_as_many_batches_are_pulled_ahead_as_asked_for_and_no_more(device: str, depth: int) -> None:
    source = Counted()
    iterator = iter(pinlane.prefetch(source, device, depth=depth))
    for given in range(1, 4):
        next(iterator)
        source.wait_for(given + depth)
    iterator.close()
    assert source.pulled == 3 + depth


def test_bytes_on_their_way_are_bounded_and_one_more_batch_waits(device: str) -> None:
    source = Counted(elements=25)
    iterator = iter(pinlane.prefetch(source, device, depth=10, max_bytes=250))
    source.wait_for(3)
    assert next(iterator).cpu()[0] == 0
    source.wait_for(4)
    iterator.close()
    assert source.pulled == 4


def test_a_batch_larger_than_the_bound_goes_alone(device: str) -> None:
    source = Counted(batches=5)
    got = [int(batch[0]) for batch in pinlane.prefetch(source, device, depth=10, max_bytes=1)]
    assert got == [0, 1, 2, 3, 4]


def test_an_error_of_the_source_comes_behind_the_batches_before_it(device: str) -> None:
    def source() -> Iterator[torch.Tensor]:
        yield torch.zeros(3)
        yield torch.ones(3)
        raise LookupError("the third is missing")

    iterator = iter(pinlane.prefetch(source(), device, depth=5))
    assert next(iterator).cpu().tolist() == [0, 0, 0]
    assert next(iterator).cpu().tolist() == [1, 1, 1]
    with pytest.raises(LookupError, match="the third is missing"):
        next(iterator)
    with pytest.raises(StopIteration):
        next(iterator)


def test_an_error_of_moving_a_batch_comes_in_its_place(device: str) -> None:
    source = [numpy.zeros(3), numpy.array([object()]), numpy.zeros(3)]
    iterator = iter(pinlane.prefetch(source, device))
    next(iterator)
    with pytest.raises(pinlane.UnsupportedLeafError, match="Python objects"):
        next(iterator)
    with pytest.raises(StopIteration):
        next(iterator)


def test_a_source_that_can_not_be_iterated_over_says_so_at_once(device: str) -> None:
    with pytest.raises(TypeError, match="not iterable"):
        iter(pinlane.prefetch(3, device))  # type: ignore[arg-type]


def test_bad_bounds_and_devices_are_refused(device: str) -> None:
    with pytest.raises(ValueError, match="depth is at least 1"):
        pinlane.prefetch([], device, depth=0)
    with pytest.raises(ValueError, match="max_bytes.* is at least 1"):
        pinlane.prefetch([], device, max_bytes=0)
    with pytest.raises(pinlane.NoSuchDeviceError):
        pinlane.prefetch([], "nowhere")
    with pytest.raises(pinlane.NoSuchDeviceError):
        iter(pinlane.prefetch([], "sim:77"))


def test_a_loop_that_is_left_ends_the_thread_and_lets_go_of_the_source(device: str) -> None:
    source = Counted()
    prefetched = pinlane.prefetch(source, device)
    for _ in prefetched:
        assert len(our_threads()) == 1
        break
    assert our_threads() == []
    pulled = source.pulled
    assert pulled <= 3
    gone = weakref.ref(source)
    del source, prefetched
    assert gone() is None


def test_an_iterator_that_is_collected_as_part_of_a_cycle_ends_its_thread(device: str) -> None:
    class Loop:
        def __init__(self) -> None:
            self.batches = iter(pinlane.prefetch(Counted(), device))
            self.self = self

    loop = Loop()
    next(loop.batches)
    del loop
    gc.collect()
    assert our_threads() == []


def test_a_keyboard_interrupt_in_the_loop_ends_the_thread(device: str) -> None:
    def train() -> None:
        for number, _ in enumerate(pinlane.prefetch(Counted(), device)):
            if number == 2:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt) as interrupted:
        train()
    del interrupted
    gc.collect()
    assert our_threads() == []


def test_a_keyboard_interrupt_while_waiting_for_a_batch_leaves_the_iterator_usable(device: str) -> None:
    may_go_on = threading.Event()

    def source() -> Iterator[torch.Tensor]:
        yield torch.zeros(1)
        os.kill(os.getpid(), signal.SIGINT)
        may_go_on.wait(60)
        yield torch.ones(1)

    iterator = iter(pinlane.prefetch(source(), device, depth=1))
    with pytest.raises(KeyboardInterrupt):
        # The signal may come before or after the first batch is handed over.
        next(iterator)
        next(iterator)
        time.sleep(60)
    may_go_on.set()
    assert 1.0 in [float(batch) for batch in iterator]


def test_a_keyboard_interrupt_while_a_batch_is_taken_loses_none(
    device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = pinlane.Transfer.result
    calls = 0

    def interrupted(transfer: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls in (2, 3):
            raise KeyboardInterrupt
        return result(transfer)

    monkeypatch.setattr(pinlane.Transfer, "result", interrupted)
    iterator = iter(pinlane.prefetch([torch.full((2,), value) for value in range(5)], device))
    got = [float(next(iterator)[0])]
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            next(iterator)
    assert got + [float(batch[0]) for batch in iterator] == [0, 1, 2, 3, 4]


def test_a_closed_iterator_says_that_it_is_closed(device: str) -> None:
    iterator = iter(pinlane.prefetch(Counted(), device))
    next(iterator)
    iterator.close()
    iterator.close()
    with pytest.raises(ValueError, match="closed"):
        next(iterator)


def test_who_waits_for_a_batch_of_an_iterator_that_is_closed_is_told(device: str) -> None:
    waiting, go_on = threading.Event(), threading.Event()

    def source() -> Iterator[torch.Tensor]:
        waiting.set()
        go_on.wait(60)
        yield torch.ones(1)

    batches = iter(pinlane.prefetch(source(), device))
    given: list[Any] = []

    def ask() -> None:
        try:
            given.append(next(batches, "the end"))
        except ValueError as closed:
            given.append(closed)

    asking = threading.Thread(target=ask)
    closing = threading.Thread(target=batches.close)
    asking.start()
    waiting.wait(60)
    closing.start()
    asking.join(60)
    go_on.set()
    closing.join()
    assert "closed" in str(given[0]) and isinstance(given[0], ValueError)


def test_it_is_true_whether_or_not_its_source_has_a_length(device: str) -> None:
    assert pinlane.prefetch((x for x in [1]), device) and pinlane.prefetch([], device)


def test_leaving_the_context_ends_every_iteration(device: str) -> None:
    with pinlane.prefetch(Counted(), device) as prefetched:
        first, second = iter(prefetched), iter(prefetched)
        assert float(next(first)[0]) == float(next(second)[0]) == 0.0
        assert len(our_threads()) == 2
    assert our_threads() == []
    with pytest.raises(ValueError, match="closed"):
        next(first)
    with pytest.raises(ValueError, match="closed"):
        iter(prefetched)


def test_what_can_be_iterated_over_again_can_be_prefetched_again(device: str) -> None:
    prefetched = pinlane.prefetch([torch.zeros(1), torch.ones(1)], device)
    for _ in range(3):
        assert [float(batch) for batch in prefetched] == [0.0, 1.0]
    once = pinlane.prefetch(iter([torch.zeros(1)]), device)
    assert len(list(once)) == 1
    assert list(once) == []


def test_it_is_as_long_as_its_source(device: str) -> None:
    assert len(pinlane.prefetch([1, 2, 3], device)) == 3
    with pytest.raises(TypeError, match=r"has no len"):
        len(pinlane.prefetch((number for number in range(3)), device))


def test_nothing_of_a_batch_is_held_once_it_was_given(device: str) -> None:
    class Names(list):  # type: ignore[type-arg]
        pass

    gone = []

    def source() -> Iterator[Names]:
        for _ in range(4):
            names = Names([torch.zeros(3)])
            gone.append(weakref.ref(names))
            yield names
            del names

    for batch in pinlane.prefetch(source(), device, depth=1):
        del batch
    gc.collect()
    assert [names() for names in gone] == [None] * 4


def test_options_reach_every_batch(device: str) -> None:
    source = [[torch.ones(3), torch.ones(3)]]
    (batch,) = pinlane.prefetch(source, device, dtype=torch.float64, slab=False)
    assert [leaf.dtype for leaf in batch] == [torch.float64] * 2
    assert batch[0].untyped_storage().data_ptr() != batch[1].untyped_storage().data_ptr()


def test_the_thread_works_with_the_modes_and_context_of_the_consumer(device: str) -> None:
    setting = contextvars.ContextVar("setting", default="other")
    setting.set("mine")
    seen = []

    def source() -> Iterator[torch.Tensor]:
        seen.append((setting.get(), torch.is_grad_enabled(), torch.is_inference_mode_enabled()))
        yield torch.ones(2, requires_grad=True)

    with torch.no_grad():
        (batch,) = pinlane.prefetch(source(), device)
        assert not batch.requires_grad
    with torch.inference_mode():
        list(pinlane.prefetch(source(), device))
    (batch,) = pinlane.prefetch(source(), device)
    assert batch.requires_grad
    assert seen == [("mine", False, False), ("mine", False, True), ("mine", True, False)]


def test_many_iterations_at_once_do_not_mix(device: str) -> None:
    def consume(first: int) -> list[int]:
        source = (torch.tensor([number]) for number in range(first, first + 50))
        return [int(batch) for batch in pinlane.prefetch(source, device)]

    results: dict[int, list[int]] = {}
    threads = [
        threading.Thread(target=lambda first=first: results.update({first: consume(first)}))
        for first in range(0, 400, 100)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == {first: list(range(first, first + 50)) for first in range(0, 400, 100)}


def test_a_process_exits_with_an_iteration_under_way() -> None:
    script = """
        import itertools, numpy, pinlane
        batches = iter(pinlane.prefetch((numpy.zeros(100_000) for _ in itertools.count()), "sim"))
        next(batches)
        print("done")
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True, timeout=120, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "done\n", "")


@pytest.mark.skipif(not DEVICE.startswith("cuda"), reason="PINLANE_TEST_DEVICE names no GPU")
@pytest.mark.parametrize("asks_elsewhere", [False, True])
def test_memory_of_a_batch_is_not_used_again_before_the_stream_that_asked_for_it_is_done(asks_elsewhere: bool) -> None:
    source = (torch.full((3_000_000,), float(number)) for number in range(30))
    batches = iter(pinlane.prefetch(source, DEVICE))
    stream = torch.cuda.Stream() if asks_elsewhere else torch.cuda.current_stream()
    right = []
    with torch.cuda.stream(stream):
        for number, batch in enumerate(batches):
            torch.cuda._sleep(20_000_000)
            right.append(batch.eq(number).all())
            del batch
    torch.cuda.synchronize()
    assert [bool(answer) for answer in right] == [True] * 30


# ---- with DataLoader's worker processes


class Squares(Dataset[torch.Tensor]):
    """Squares, and something that happens at one of them."""

    def __init__(self, size: int, *, fails_at: int | None = None, dies_at: int | None = None) -> None:
        self.size = size
        self.fails_at = fails_at
        self.dies_at = dies_at

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int) -> torch.Tensor:
        if index == self.fails_at:
            raise LookupError(f"no square of {index}")
        if index == self.dies_at:
            os.kill(os.getpid(), signal.SIGKILL)
        return torch.tensor([index**2])


class Endless(IterableDataset[torch.Tensor]):
    def __iter__(self) -> Iterator[torch.Tensor]:
        return (torch.tensor([number]) for number in itertools.count())


def alive(processes: list[int]) -> list[int]:
    return [process for process in processes if os.path.exists(f"/proc/{process}")]


def children() -> list[int]:
    found = []
    for task in os.listdir("/proc/self/task"):
        # A thread may have ended meanwhile.
        with contextlib.suppress(OSError), open(f"/proc/self/task/{task}/children") as file:
            found += [int(child) for child in file.read().split()]
    return found


def test_a_loader_with_workers_is_prefetched_in_order_again_and_again(device: str) -> None:
    loader = DataLoader(Squares(12), batch_size=2, num_workers=2, multiprocessing_context="fork")
    prefetched = pinlane.prefetch(loader, device)
    assert len(prefetched) == 6
    for _ in range(2):
        got = [batch.flatten().tolist() for batch in prefetched]
        assert got == [[index**2, (index + 1) ** 2] for index in range(0, 12, 2)]


def test_a_loader_without_workers_is_prefetched(device: str) -> None:
    got = [int(batch) for batch in pinlane.prefetch(DataLoader(Squares(4)), device)]
    assert got == [0, 1, 4, 9]


def test_an_error_in_a_worker_comes_behind_the_batches_before_it(device: str) -> None:
    loader = DataLoader(Squares(10, fails_at=6), num_workers=2, multiprocessing_context="fork")
    got = []
    with pytest.raises(LookupError, match="no square of 6"):
        for batch in pinlane.prefetch(loader, device, depth=4):
            got.append(int(batch))
    assert got == [index**2 for index in range(6)]


@pytest.mark.usefixtures("deaths_noticed_when_asked")
def test_a_killed_worker_is_an_error_and_leaves_no_process(device: str) -> None:
    loader = DataLoader(Squares(10, dies_at=7), num_workers=2, multiprocessing_context="fork")
    before = set(children())
    # Torch's own error, or one of reading what the worker had sent.
    with pytest.raises((RuntimeError, OSError)):
        for _ in pinlane.prefetch(loader, device):
            pass
    gc.collect()
    assert set(children()) <= before


def test_leaving_the_loop_ends_the_workers(device: str) -> None:
    loader = DataLoader(Endless(), num_workers=2, multiprocessing_context="fork")
    before = set(children())
    for batch in pinlane.prefetch(loader, device):
        workers = set(children()) - before
        assert len(workers) == 2
        if int(batch) == 3:
            break
    assert alive(sorted(workers)) == []
