"""Transfers: nothing can be read too early, and what goes wrong is told."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import threading
import time
import weakref
from collections.abc import Iterator
from typing import Any

import numpy
import pytest
import torch

import pinlane
from pinlane.testing import SimulatedStream, simulate

_numbers = itertools.count()


@pytest.fixture
def slow() -> str:
    """A device whose link takes a tenth of a second for 100 kB."""
    return simulate(f"sim:slow-{next(_numbers)}", bytes_per_second=1e6)


BYTES = 100_000


@contextlib.contextmanager
def stalled_for_a_minute(stream: SimulatedStream) -> Iterator[Any]:
    """Keeps a stream from starting anything until it is told, the block is left, or a minute is over."""
    with stream.stall() as stall:
        timer = threading.Timer(60, stall.end)
        timer.start()
        try:
            yield stall
        finally:
            timer.cancel()


def test_a_result_is_given_once(device: str) -> None:
    transfer = pinlane.to(torch.arange(4), device, non_blocking=True)
    assert torch.equal(pinlane.to(transfer.result(), "cpu"), torch.arange(4))
    with pytest.raises(pinlane.TransferError, match="taken already"):
        transfer.result()


def test_a_transfer_is_done_when_it_has_landed_and_not_before(slow: str) -> None:
    stream = SimulatedStream(slow)
    with stalled_for_a_minute(stream):
        transfer = pinlane.to(torch.ones(BYTES, dtype=torch.uint8), slow, non_blocking=True, stream=stream)
        assert not transfer.done() and "on its way" in repr(transfer)
    there = transfer.result()
    assert transfer.done() and "done" in repr(transfer)
    assert there.eq(1).all()


def test_a_result_is_never_garbage(slow: str) -> None:
    for value in range(1, 101):
        tree = [torch.full((2000,), value, dtype=torch.uint8) for _ in range(3)]
        there = pinlane.to(tree, slow, non_blocking=True).result()
        back = pinlane.to(there, "cpu", non_blocking=True).result()
        assert all(tensor.eq(value).all() for tensor in back)


def test_the_copies_start_when_the_callers_stream_is_done(device: str) -> None:
    name = simulate(f"sim:ordered-{next(_numbers)}")
    stream = SimulatedStream(name)
    with stalled_for_a_minute(stream):
        transfer = pinlane.to(torch.ones(1000), name, non_blocking=True, stream=stream)
        assert not transfer.done()
    there = transfer.result()
    assert there.eq(1).all()
    there.fill_(2)
    with stalled_for_a_minute(stream):
        back = pinlane.to(there, "cpu", non_blocking=True, stream=stream)
        assert not back.done()
    assert back.result().eq(2).all()


def test_a_stream_waits_for_a_transfer(slow: str) -> None:
    stream = SimulatedStream(slow)
    transfer = pinlane.to(torch.ones(BYTES, dtype=torch.uint8), slow, non_blocking=True)
    transfer.wait(stream)
    stream.synchronize()
    assert transfer.done()


def test_a_source_that_is_written_in_flight_is_noticed(slow: str) -> None:
    tree = {"x": [torch.ones(10), torch.ones(BYTES, dtype=torch.uint8)]}
    transfer = pinlane.to(tree, slow, non_blocking=True)
    tree["x"][1].fill_(2)
    with pytest.raises(pinlane.SourceChangedError, match=r"\['x'\]\[1\]"):
        transfer.result()
    assert isinstance(transfer.exception(), pinlane.SourceChangedError)


@pytest.fixture
def narrow() -> str:
    """A slow device with slots for a small part of a large tensor: the rest is read from the source while it is on its way."""
    return simulate(
        f"sim:narrow-{next(_numbers)}", bytes_per_second=4e7, slot_bytes=1 << 18, lanes=1, pinned_budget=2 << 20
    )


LARGE = 2_000_000


def _to_half_precision(x: torch.nn.Parameter) -> None:
    module = torch.nn.Module()
    module.x = x
    module.half()


@pytest.mark.parametrize(
    "replace", [lambda x: setattr(x, "data", torch.zeros(3)), _to_half_precision, lambda x: x.set_(torch.zeros(3))]
)
def test_a_source_that_is_given_other_memory_in_flight_was_read_from_the_memory_that_it_had(
    replace: Any, narrow: str
) -> None:
    x = torch.nn.Parameter(torch.ones(LARGE), requires_grad=False)
    transfer = pinlane.to([x], narrow, non_blocking=True)
    replace(x)
    try:
        assert transfer.result()[0].eq(1).all()
    except pinlane.SourceChangedError:
        assert x._version > 0, "torch counts it as a write"


def test_memory_of_a_source_that_was_given_other_is_let_go_with_the_transfer(narrow: str) -> None:
    x = torch.ones(LARGE)
    transfer = pinlane.to([x], narrow, non_blocking=True)
    gone = weakref.ref(x.untyped_storage())
    x.data = torch.zeros(3)
    assert gone() is not None
    transfer.result()
    del transfer
    assert gone() is None


def test_inference_tensors_are_read_from_the_memory_that_they_had(narrow: str) -> None:
    with torch.inference_mode():
        x = torch.ones(LARGE)
        transfer = pinlane.to([x], narrow, non_blocking=True)
        x.set_(torch.zeros(3))
        assert transfer.result()[0].eq(1).all()


@pytest.mark.parametrize("resize", [lambda x: x.untyped_storage().resize_(0), lambda x: x.resize_(4 * BYTES)])
def test_a_source_whose_memory_was_resized_is_noticed(resize: Any, slow: str) -> None:
    x = torch.ones(BYTES, dtype=torch.uint8)
    transfer = pinlane.to({"x": x, "empty": x[:0]}, slow, non_blocking=True)
    stream = SimulatedStream(slow)
    transfer.wait(stream)
    stream.synchronize()  # nothing reads it any more
    resize(x)
    with pytest.raises(pinlane.SourceChangedError, match=r"\['x'\]"):
        transfer.result()


def test_a_source_may_be_written_once_the_transfer_is_done(device: str) -> None:
    x = torch.ones(10)
    transfer = pinlane.to(x, device, non_blocking=True)
    assert transfer.exception() is None
    x.fill_(2)
    assert pinlane.to(transfer.result(), "cpu").eq(1).all()


def test_awaiting_gives_the_result_and_leaves_the_loop_free(slow: str) -> None:
    stream = SimulatedStream(slow)

    async def both() -> tuple[torch.Tensor, int]:
        ticks = 0
        with stalled_for_a_minute(stream) as stall:
            transfer = asyncio.ensure_future(there(torch.ones(BYTES, dtype=torch.uint8)))
            while not transfer.done():
                await asyncio.sleep(0.001)
                ticks += 1
                if ticks > 3:
                    stall.end()
        return transfer.result(), ticks

    async def there(x: torch.Tensor) -> torch.Tensor:
        return await pinlane.to(x, slow, non_blocking=True, stream=stream)

    result, ticks = asyncio.run(both())
    assert result.eq(1).all() and ticks > 3


def test_many_transfers_are_awaited_together(device: str) -> None:
    async def all_of_them() -> list[torch.Tensor]:
        async def one(value: int) -> torch.Tensor:
            return await pinlane.to(torch.full((50,), value), device, non_blocking=True)

        return await asyncio.gather(*(one(value) for value in range(50)))

    for value, result in enumerate(asyncio.run(all_of_them())):
        assert pinlane.to(result, "cpu").eq(value).all()


def test_an_awaited_transfer_can_be_given_up(slow: str) -> None:
    stream = SimulatedStream(slow)

    async def give_up() -> None:
        async def there() -> Any:
            return await pinlane.to(torch.ones(BYTES), slow, non_blocking=True, stream=stream)

        with stalled_for_a_minute(stream), pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(there(), 0.02)

    asyncio.run(give_up())
    assert pinlane.to(torch.ones(3), slow).eq(1).all()


async def _given(transfer: Any) -> Any:
    return await transfer


def test_one_of_the_tasks_that_await_a_transfer_gets_it_and_the_others_are_told(slow: str) -> None:
    async def three() -> list[Any]:
        transfer = pinlane.to(torch.ones(BYTES, dtype=torch.uint8), slow, non_blocking=True)
        tasks = (_given(transfer) for _ in range(3))
        return await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), 60)

    given = asyncio.run(three())
    assert [type(one) for one in given].count(pinlane.TransferError) == 2
    (there,) = [one for one in given if isinstance(one, torch.Tensor)]
    assert there.eq(1).all()


def test_event_loops_of_several_threads_may_await_one_transfer(slow: str) -> None:
    transfer = pinlane.to(torch.ones(BYTES, dtype=torch.uint8), slow, non_blocking=True)
    given: list[Any] = []

    def run() -> None:
        try:
            given.append(asyncio.run(asyncio.wait_for(_given(transfer), 60)))
        except pinlane.TransferError as refused:
            given.append(refused)

    threads = [threading.Thread(target=run) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(isinstance(one, torch.Tensor) for one in given) == 1 and len(given) == 3


def test_an_event_loop_goes_on_while_another_thread_waits_for_the_same_transfer() -> None:
    name = simulate(f"sim:held-{next(_numbers)}")
    stream = SimulatedStream(name)
    with stalled_for_a_minute(stream) as stall:
        transfer = pinlane.to([torch.ones(1000)], name, non_blocking=True, stream=stream)
        waiting = threading.Thread(target=transfer.exception)

        async def turns() -> tuple[int, Any]:
            task = asyncio.ensure_future(_given(transfer))
            count = 0
            while not task.done():
                await asyncio.sleep(0.001)
                count += 1
                if count > 3:
                    stall.end()
            return count, task.result()

        waiting.start()
        time.sleep(0.05)  # it waits by now, or the event loop would be first: then there is nothing to see
        count, there = asyncio.run(turns())
        waiting.join()
    assert count > 3 and there[0].eq(1).all()


def test_a_dropped_transfer_lets_its_sources_go(slow: str) -> None:
    x = torch.ones(BYTES, dtype=torch.uint8)
    gone = weakref.ref(x)
    transfer = pinlane.to([x], slow, non_blocking=True)
    del x, transfer
    for _ in range(1000):
        if gone() is None:
            break
        time.sleep(0.01)  # without a call of pinlane's
    assert gone() is None


def test_sources_are_let_go_when_a_blocking_call_has_landed(device: str) -> None:
    x = torch.ones(1000)
    gone = weakref.ref(x)
    there = pinlane.to([x], device)
    del x
    # On a GPU the copy may still be on its way out of a slot, a moment longer.
    deadline = time.monotonic() + 10
    while gone() is not None and time.monotonic() < deadline:
        time.sleep(0.001)
    assert gone() is None
    assert pinlane.to(there[0], "cpu").eq(1).all()


def test_memory_of_a_device_is_given_back_with_the_last_tensor_over_it() -> None:
    name = simulate(f"sim:small-{next(_numbers)}", memory_bytes=1 << 20)
    large = [torch.ones(200_000, dtype=torch.uint8) for _ in range(4)]
    for _ in range(10):
        kept = pinlane.to(large, name)[0]
        with pytest.raises(pinlane.OutOfMemoryError):
            pinlane.to(large, name)
        del kept


def test_a_device_without_room_says_so_and_goes_on_working() -> None:
    name = simulate(f"sim:tiny-{next(_numbers)}", memory_bytes=1 << 20)
    x = torch.ones(2 << 20, dtype=torch.uint8)
    with pytest.raises(torch.OutOfMemoryError) as caught:
        pinlane.to(x, name)
    assert isinstance(caught.value, pinlane.OutOfMemoryError)
    assert pinlane.to(x[:1000].clone(), name).eq(1).all()


def test_threads_move_at_the_same_time(device: str) -> None:
    failures: list[BaseException] = []

    def work(seed: int) -> None:
        try:
            generator = torch.Generator().manual_seed(seed)
            for size in (10, 1000, 200_000):
                tree = [torch.randn(size, generator=generator) for _ in range(20)]
                back = pinlane.to(pinlane.to(tree, device), "cpu")
                assert all(torch.equal(a, b) for a, b in zip(tree, back, strict=True))
        except BaseException as failure:
            failures.append(failure)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures


def test_other_threads_run_while_bytes_move(slow: str) -> None:
    moving = threading.Event()
    ticks = 0

    def tick() -> None:
        nonlocal ticks
        moving.wait()
        while moving.is_set():
            ticks += 1

    thread = threading.Thread(target=tick)
    thread.start()
    moving.set()
    pinlane.to(torch.ones(BYTES, dtype=torch.uint8), slow)
    moving.clear()
    thread.join()
    assert ticks > 1000


def test_several_threads_may_ask_one_transfer(slow: str) -> None:
    transfer = pinlane.to(numpy.ones(BYTES, "u1"), slow, non_blocking=True)
    given: list[Any] = []

    def ask() -> None:
        try:
            given.append(transfer.result())
        except pinlane.TransferError as refused:
            given.append(refused)

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    while not transfer.done():
        pass
    for thread in threads:
        thread.join()
    results = [one for one in given if isinstance(one, numpy.ndarray)]
    assert len(given) == 4 and len(results) == 1 and (results[0] == 1).all()


def test_tensors_move_between_devices() -> None:
    x = [torch.randn(100), torch.randn(4, 5).t(), torch.randn(6, 6)[:, ::2]]
    first = pinlane.to(x, "sim:0")
    second = pinlane.to(first, "sim:1")
    assert pinlane.to(second, "sim:1")[0] is second[0] and second[0] is not first[0]
    for a, b in zip(x, pinlane.to(second, "cpu"), strict=True):
        assert torch.equal(a, b)


def test_a_tree_from_several_places_comes_together() -> None:
    host = torch.arange(4)
    one, two = pinlane.to(host, "sim:0"), pinlane.to(host + 1, "sim:1")
    assert [t.tolist() for t in pinlane.to([one, host, two], "cpu")] == [[0, 1, 2, 3], [0, 1, 2, 3], [1, 2, 3, 4]]
    there = pinlane.to([one, host, two], "sim:1")
    assert there[2] is two and [t.tolist() for t in there[:2]] == [[0, 1, 2, 3]] * 2


def test_neighbours_in_pinned_memory_arrive_whole_whatever_lies_between(device: str) -> None:
    # Padding of every kind, a gap as wide as a tensor, the order turned round, and the same memory twice.
    whole = pinlane.pin(torch.arange(100_000, dtype=torch.int32), device)
    tree = [whole[64 * part : 64 * part + 50 + part % 14] for part in range(500)]
    tree += [whole[part * 128 : part * 128 + 64] for part in range(300)]
    tree += [whole[part * 64 : part * 64 + 64] for part in reversed(range(300))]
    tree += [whole[:64], whole[:64], whole[:0], whole[64:128]]
    for slab in (True, False):
        back = pinlane.to(pinlane.to(tree, device, slab=slab), "cpu")
        assert all(torch.equal(a, b) for a, b in zip(tree, back, strict=True))
