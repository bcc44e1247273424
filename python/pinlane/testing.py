"""Simulated devices made to order, for tests of code that moves tensors.

A simulated device is a real asynchronous machine in threads: a result that is read too early is garbage, as on hardware. It
shows behaviour, never hardware's speed.

>>> import numpy, pinlane
>>> from pinlane.testing import SimulatedStream, simulate
>>> slow = simulate("sim:slow", bytes_per_second=1e6)
>>> stream = SimulatedStream(slow)
>>> with stream.stall():
...     transfer = pinlane.to(numpy.zeros(50_000, "u1"), slow, non_blocking=True, stream=stream)
...     transfer.done()
False
>>> int(transfer.result().sum())
0

A :class:`SimulatedStream` stands for one of torch's: ``busy(seconds)`` gives it work, ``query()`` says whether it is done, and
``synchronize()`` waits for that. On a device that :func:`simulate` has made, ``stall()`` keeps it from starting anything until the
block is left, or ``end()`` is called on what it gives.
"""

from __future__ import annotations

import math

from . import _native
from ._native import SimulatedStream

__all__ = ["SimulatedStream", "lose", "simulate"]


def simulate(
    name: str,
    *,
    memory_bytes: int | None = None,
    bytes_per_second: float | None = None,
    copy_latency: float = 0.0,
    pinned_budget: int | None = None,
    lanes: int | None = None,
    slot_bytes: int | None = None,
) -> str:
    """Makes a simulated device called ``name``, which begins with ``sim:``; gives the name.

    :param memory_bytes: how much memory it has; 4 GiB unless told.
    :param bytes_per_second: the rate of its link; as fast as memory unless told.
    :param copy_latency: seconds that each copy over the link takes on top.
    :param pinned_budget: the most host memory that may be pinned for it, in bytes.
    :param lanes: how many threads carry large transfers.
    :param slot_bytes: the longest piece that one of them moves at once.
    :raises ValueError: for a name that another device has, or that is not ``sim:`` and a word, and for numbers that are none of
        their kind.
    :raises pinlane.Error: for sizes that no engine can work with; its text says why.
    """
    if not name.startswith("sim:") or not name[4:] or name.split() != [name]:
        raise ValueError(f"a simulated device is called sim:something, not {name!r}")
    whole = {"memory_bytes": memory_bytes, "pinned_budget": pinned_budget, "lanes": lanes, "slot_bytes": slot_bytes}
    for what, number in whole.items():
        if number is not None and not (isinstance(number, int) and number > 0):
            raise ValueError(f"{what} is a whole number above zero, or None, not {number!r}")
    if bytes_per_second is not None and not 0 < bytes_per_second < math.inf:
        raise ValueError(f"bytes_per_second is a number above zero, or None, not {bytes_per_second!r}")
    _native.simulate(
        name,
        {
            "memory_bytes": memory_bytes,
            "bytes_per_second": bytes_per_second,
            "copy_latency": copy_latency,
            "pinned_budget": pinned_budget,
            "lanes": lanes,
            "slot_bytes": slot_bytes,
        },
    )
    return name


def lose(name: str) -> None:
    """Has the device that :func:`simulate` made under ``name`` fail for good, as a GPU does that falls off its bus: what is on its
    way never lands, and every use of the device is a :class:`pinlane.DeviceError` from now on.

    :raises ValueError: for a device that :func:`simulate` has not made.
    """
    _native.lose(name)
