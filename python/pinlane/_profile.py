"""What the engine and the devices do, and when: a table to print, a file to look at."""

from __future__ import annotations

import atexit
import os
import threading
from types import TracebackType
from typing import NamedTuple

from . import _native

if os.environ.get("PINLANE_TRACE"):
    # A program that an interrupt ends does so by the signal, and no exit handler of the library's is run then.
    atexit.register(_native.finish_process)


class Operation(NamedTuple):
    """What one kind of step took, in seconds: by itself, with the steps within it, and how often it was called."""

    name: str
    self_seconds: float
    total_seconds: float
    calls: int


class DeviceTime(NamedTuple):
    """For how long a device was busy with pinlane's copies, how many there were, and their bytes."""

    device: str
    simulated: bool
    busy_seconds: float
    copies: int
    bytes: int


class profile:  # noqa: N801 - used as a function is, with `with`
    """Looks at what the engine does meanwhile; with ``path``, writes it there for https://ui.perfetto.dev.

    >>> import pinlane, torch
    >>> with pinlane.profile() as taken:
    ...     there = pinlane.to(torch.ones(1000, 1000), "sim")
    >>> [(device.copies > 0, device.bytes) for device in taken.devices]
    [(True, 4000000)]

    Printed (``print(taken)``), it is a table of operations. The file has a row for each thread, with how long it planned
    (``plan``), made room for results (``allocate``), copied between sources or results and pinned memory (``fill``), handed copies
    to the driver (``copy``) and waited for the device (``wait``), each with its bytes, its route and its lane; and for each
    device one for each of its engines, with when it copied what: by the device's own clock, but for copies that a caller waited for
    alone, which end when it saw them done. Copies which follow each other closely are one span there, with their number (``copies``)
    and their bytes; it has a route and a lane where all of them have the same.

    Profiles may overlap. Without changing a program, ``PINLANE_TRACE=file.json`` in its environment writes the same of all of it.

    :raises OSError: for a file that can't be written; nothing was done then.
    """

    def __init__(self, path: str | os.PathLike[str] | None = None) -> None:
        self._path = None if path is None else os.fsdecode(path)
        self._taken: _native.Profile | None = None

    def __enter__(self) -> profile:
        self._taken = _native.Profile(self._path)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        threads = threading.enumerate()
        names = {thread.native_id: thread.name for thread in threads if thread.native_id is not None}
        self._result.finish(names)

    @property
    def operations(self) -> list[Operation]:
        """The table of operations, the longest self time first."""
        return [Operation(*line) for line in self._result.operations]

    @property
    def devices(self) -> list[DeviceTime]:
        """How busy each device was that copied."""
        return [DeviceTime(*device) for device in self._result.devices]

    def __str__(self) -> str:
        return str(self._result)

    @property
    def _result(self) -> _native.Profile:
        if self._taken is None:
            raise RuntimeError("looking at a profile that was not taken: use it in a `with` statement")
        return self._taken
