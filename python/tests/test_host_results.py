"""Where results on the host lie: pinned while they have room in the device's budget, else in memory that is kept."""

from __future__ import annotations

import gc
import itertools
from typing import Any

import numpy
import pytest
import torch

import pinlane
from pinlane.testing import simulate

_numbers = itertools.count()
MIB = 1 << 20


@pytest.fixture
def small() -> str:
    """A device with a budget of 16 MiB."""
    return simulate(f"sim:results-{next(_numbers)}", pinned_budget=16 * MIB, memory_bytes=64 * MIB, slot_bytes=256 << 10)


def usage(device: str) -> pinlane.DeviceStats:
    return pinlane.stats().devices[device]


def there(device: str, bytes: int, value: int = 1) -> list[torch.Tensor]:
    return pinlane.to([torch.full((bytes,), value, dtype=torch.uint8)], device)


def test_results_are_pinned_while_they_have_room_and_pageable_after(small: str) -> None:
    source = there(small, MIB)
    held = [pinlane.to(source, "cpu") for _ in range(20)]
    assert all(tensor.eq(1).all() for (tensor,) in held)
    pinned = [pinlane.is_pinned(tensor, small) for tensor in held]
    assert pinned[0] and not pinned[-1]
    now = usage(small)
    share = (now.pinned_budget - now.slots) // 2
    assert now.results == sum(pinned) * MIB and share - MIB < now.results <= share
    # Slots and tensors that are to be pinned still have theirs.
    assert pinlane.to(pinlane.to([torch.ones(4 * MIB)], small), "cpu")[0].eq(1).all()
    assert pinlane.is_pinned(pinlane.pin(torch.ones(share // 8), small), small)
    assert usage(small).pinned_peak <= now.pinned_budget
    held.clear()
    assert usage(small).results == 0


def test_whether_they_are_pinned_can_be_said(small: str) -> None:
    source = there(small, MIB)
    assert pinlane.is_pinned(pinlane.to(source, "cpu", pin=True), small)
    assert not pinlane.is_pinned(pinlane.to(source, "cpu", pin=False), small)
    assert usage(small).results == 0, "what was asked for is no part of the share"
    # Short ones are not worth it.
    assert not pinlane.is_pinned(pinlane.to(there(small, 1000), "cpu"), small)


def test_pinned_memory_of_a_dropped_result_is_used_again_and_given_back_by_trim(small: str) -> None:
    source = there(small, MIB)
    first = pinlane.to(source, "cpu")[0]
    place = first.data_ptr()
    kept_view = first[10:20]
    del first
    assert pinlane.to(source, "cpu")[0].data_ptr() != place, "a view of it is still there"
    del kept_view
    assert pinlane.to(source, "cpu")[0].data_ptr() == place
    assert usage(small).results == 0 and usage(small).pinned >= MIB
    before = usage(small).pinned
    pinlane.trim()
    assert usage(small).pinned <= before - MIB


def test_what_came_to_a_device_together_comes_back_right(small: str) -> None:
    tree: dict[str, Any] = {
        f"x{number}": torch.arange(number * 7, dtype=torch.int16).view(7, number) for number in range(1, 200)
    }
    tree["empty"] = torch.zeros(0)
    tree["array"] = numpy.arange(5)
    on_device = pinlane.to(tree, small)
    for again in (on_device, dict(reversed(on_device.items())), {"one": on_device["x7"], "two": on_device["x3"]}):
        back = pinlane.to(again, "cpu")
        for name, tensor in again.items():
            assert numpy.array_equal(numpy.asarray(back[name]), numpy.asarray(tensor)), name
    # Neighbours in memory of which some are overwritten on their way, and rows with gaps between them.
    parts = list(torch.arange(4096, dtype=torch.int32).view(16, 256).unbind())
    rows = [row[:200] for row in pinlane.to(torch.stack(parts), small).unbind()]
    for row, part in zip(pinlane.to(rows, "cpu", dtype=torch.float64), parts, strict=True):
        assert torch.equal(row, part[:200])


def test_neighbours_with_storages_of_their_own_come_back_right(small: str) -> None:
    (whole,) = pinlane.to([torch.arange(64 * 300, dtype=torch.int32)], small)
    array = whole.numpy()
    apart = [torch.from_numpy(array[start : start + 60]) for start in range(0, array.size, 64)]
    together = [whole[start : start + 60] for start in range(0, array.size, 64)]
    for tree in (apart, together, together[:20] + apart[20:], apart[:3] + together[3:200] + apart[200:]):
        for back, part in zip(pinlane.to(tree, "cpu"), together, strict=True):
            assert torch.equal(back, part)


def test_views_of_one_storage_arrive_right_however_they_lie_in_it(small: str) -> None:
    whole = torch.arange(64 * 300, dtype=torch.int32)
    rows = list(whole.view(300, 64).unbind())
    short = [row[:60] for row in rows]
    alone = [row.clone() for row in rows]
    for tree in (rows, short, short[::-1], rows[:5] + rows[:50], alone, rows[:20] + alone[20:40] + short[40:]):
        for moved, part in zip(pinlane.to(tree, small), tree, strict=True):
            assert torch.equal(moved, part) and moved.data_ptr() != part.data_ptr()


def test_a_dropped_transfer_makes_room_before_a_device_is_said_to_be_full() -> None:
    device = simulate(f"sim:full-{next(_numbers)}", memory_bytes=3 * MIB, bytes_per_second=2e7)
    source = torch.ones(2 * MIB, dtype=torch.uint8)
    for _ in range(3):
        # Its result is written until the copy is over.
        pinlane.to([source], device, non_blocking=True)
        assert pinlane.to([source], device)[0].eq(1).all()


def test_a_dropped_transfer_makes_room_before_a_budget_is_said_to_be_used_up() -> None:
    device = simulate(
        f"sim:full-{next(_numbers)}",
        pinned_budget=4 * MIB,
        bytes_per_second=1e7,
        slot_bytes=256 << 10,
        lanes=1,
    )
    gc.collect()
    bytes = (usage_after_first_use(device).pinned_budget - usage(device).slots) * 3 // 4
    pinned = pinlane.pin(torch.ones(bytes, dtype=torch.uint8), device)
    pinlane.to([pinned], device, non_blocking=True)
    del pinned
    assert pinlane.is_pinned(pinlane.pin(torch.ones(bytes, dtype=torch.uint8), device), device)


def usage_after_first_use(device: str) -> pinlane.DeviceStats:
    pinlane.to(torch.ones(1), device)
    return usage(device)


def test_what_is_too_large_for_the_budget_is_not_told_to_drop_something(small: str) -> None:
    source = there(small, 20 * MIB)
    with pytest.raises(pinlane.PinnedBudgetError, match="at least") as caught:
        pinlane.to(source, "cpu", pin=True)
    assert "drop" not in str(caught.value)
    assert pinlane.to(source, "cpu")[0].eq(1).all()
