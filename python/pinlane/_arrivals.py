"""Tensors of a checkpoint on their way into new memory."""

from __future__ import annotations

import collections
import contextlib
import gc
import itertools
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from . import _native
from ._dtypes import examples
from ._plan import Plan, torch_side

if TYPE_CHECKING:
    import torch


class Place:
    """Where tensors are to be loaded: a device, or the host, and there perhaps pinned memory of a device's budget."""

    __slots__ = ("pinned", "plan", "target")

    def __init__(self, target: str, pinned: str | None = None) -> None:
        torch_side(needed=True)
        self.target = target
        self.pinned = pinned
        self.plan = Plan(target, None, None, slab=True, pin=False, watch=False)

    def room(self, bytes: int) -> tuple[Any, int]:
        """Memory for results, and its address."""
        if self.target.startswith("cuda"):
            return self.plan.room(bytes)
        return _native.make_memory(self.target, bytes, self.pinned)

    def stream(self) -> int | None:
        """The caller's stream, where results are ordered on one."""
        return self.plan.stream_now()


@contextlib.contextmanager
def _collecting_later() -> Iterator[None]:
    """Keeps Python from looking for cycles meanwhile: it would look at all of a program's objects again for every few hundred
    tensors that are made, which takes longer than making them."""
    was_collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_collecting:
            gc.enable()


class Group:
    """Some of a checkpoint's tensors, from one number to another, on their way into one piece of memory."""

    __slots__ = ("_arrival", "_place", "_tensors", "end", "first")

    def __init__(self, checkpoint: _native.Checkpoint, first: int, end: int, place: Place) -> None:
        runs, bytes = checkpoint.slab(first, end, examples())
        memory, address = place.room(bytes)
        self.first, self.end = first, end
        self._place = place
        self._arrival = checkpoint.start(first, end, place.target, address, memory, place.stream())
        # While the bytes move.
        with _collecting_later():
            self._tensors = place.plan.tensors(memory, runs)

    def land(self) -> list[torch.Tensor]:
        """The tensors, when they can be used: on the host at once, on a GPU by what the caller's stream does next."""
        self._arrival.land(self._place.stream())
        tensors, self._tensors = self._tensors, []
        return tensors


#: The bytes of the first group. It is small, so that the first tensors are there soon.
_FIRST_GROUP = 16 << 20
#: The bytes of a later group, each twice as many as of the one before up to this: enough for all lanes.
_LATER_GROUP = 128 << 20
#: How many groups are on their way while one is handed out.
_AHEAD = 3


def in_groups(checkpoint: _native.Checkpoint, place: Place) -> Iterator[tuple[int, list[torch.Tensor]]]:
    """Groups of tensors as they land, each with the number of its first."""
    bounds = divided(checkpoint.sizes())
    flying = collections.deque(
        Group(checkpoint, *range, place) for range in itertools.islice(bounds, _AHEAD)
    )
    while flying:
        group = flying.popleft()
        tensors = group.land()
        flying.extend(Group(checkpoint, *range, place) for range in itertools.islice(bounds, 1))
        yield group.first, tensors


def divided(sizes: list[int]) -> Iterator[tuple[int, int]]:
    """Tensors of these sizes as groups, from one number to another."""
    first, bytes, limit = 0, 0, _FIRST_GROUP
    for number, size in enumerate(sizes):
        if bytes and bytes + size > limit:
            yield first, number
            first, bytes, limit = number, 0, min(limit * 2, _LATER_GROUP)
        bytes += size
    if first < len(sizes):
        yield first, len(sizes)


def converted(
    checkpoint: _native.Checkpoint, place: Place, dtype: torch.dtype
) -> Iterator[torch.Tensor]:
    """All tensors in order, those of floating-point numbers as `dtype`; a group at a time, so that little is held twice."""
    for _, tensors in in_groups(checkpoint, place):
        for tensor in tensors:
            wanted = dtype if tensor.is_floating_point() else tensor.dtype
            # What keeps its dtype is copied too: else it alone would keep all of the group's memory.
            yield tensor.to(wanted, copy=True)
