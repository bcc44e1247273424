"""A device that fails for good is an error wherever it is used, and nowhere else."""

from __future__ import annotations

import asyncio
import itertools
import threading
from typing import Any

import pinlane
import pytest
import torch
from pinlane.testing import lose, simulate

_numbers = itertools.count()


@pytest.fixture
def slow() -> str:
    """A device that never lands what is moved here before it is lost."""
    return simulate(f"sim:lost-{next(_numbers)}", bytes_per_second=1e3, lanes=1, slot_bytes=1 << 16)


def test_what_is_on_its_way_to_a_device_that_is_lost_fails_and_frees_its_sources(slow: str) -> None:
    x = torch.ones(10_000)
    transfer = pinlane.to({"x": x}, slow, non_blocking=True)
    lose(slow)
    with pytest.raises(pinlane.DeviceError, match="lost"):
        transfer.result()
    assert isinstance(transfer.exception(), RuntimeError) and transfer.done()
    x.fill_(2)
    with pytest.raises(pinlane.DeviceError):
        pinlane.to(x, slow)
    assert pinlane.to(pinlane.to([x], "sim"), "cpu")[0].eq(2).all(), "other devices go on"


def test_who_waits_for_a_device_is_told_that_it_is_lost(slow: str) -> None:
    transfer = pinlane.to([torch.ones(10_000)], slow, non_blocking=True)
    told: list[Any] = []
    waiting = threading.Thread(target=lambda: told.append(transfer.exception()))

    async def given() -> Any:
        asyncio.get_running_loop().call_later(0.05, lose, slow)
        return await transfer

    waiting.start()
    with pytest.raises(pinlane.DeviceError, match="lost"):
        asyncio.run(asyncio.wait_for(given(), 60))
    waiting.join()
    assert isinstance(told[0], pinlane.DeviceError)


def test_what_has_failed_has_failed_for_all_who_ask(slow: str) -> None:
    stream = pinlane.testing.SimulatedStream(slow)
    stream.busy(10)
    there = pinlane.to(torch.ones(100), slow)
    transfer = pinlane.to([there], "cpu", non_blocking=True, stream=stream)
    lose(slow)
    for _ in range(3):
        with pytest.raises(pinlane.DeviceError, match="lost"):
            transfer.wait()
    with pytest.raises(pinlane.DeviceError, match="lost"):
        transfer.result()


def test_batches_for_a_lost_device_are_the_loops_error() -> None:
    name = simulate(f"sim:lost-{next(_numbers)}")
    given = []
    with pytest.raises(pinlane.DeviceError, match="lost"):
        for batch in pinlane.prefetch((torch.ones(3) for _ in itertools.count()), name):
            given.append(batch)
            lose(name)
    assert given and all(batch.eq(1).all() for batch in given)


def test_results_on_a_device_that_is_lost_do_not_come_back() -> None:
    name = simulate(f"sim:lost-{next(_numbers)}")
    there = pinlane.to([torch.ones(3), torch.ones(4)], name)
    lose(name)
    with pytest.raises(pinlane.DeviceError, match="lost"):
        pinlane.to(there, "cpu")
    del there
    pinlane.trim()
    assert name in pinlane.stats().devices


def test_only_devices_made_for_tests_can_be_lost() -> None:
    for name in ("sim:0", "sim:nowhere", "cpu"):
        with pytest.raises(ValueError, match=name):
            lose(name)
