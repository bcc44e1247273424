"""Moves tensors between host memory and accelerators at the speed of the link.

>>> import numpy, pinlane
>>> batch = {"x": numpy.arange(3.0)}
>>> there = pinlane.to(batch, "sim")  # "cuda" where there is a GPU
>>> pinlane.to(there, "cpu")
{'x': array([0., 1., 2.])}
"""

from __future__ import annotations

from ._collate import Collate, collate
from ._devices import (
    DeviceInfo,
    DeviceStats,
    Stats,
    devices,
    set_kept_limit,
    set_pinned_budget,
    stats,
    trim,
)
from ._errors import (
    DeviceError,
    Error,
    ForkError,
    HostMemoryError,
    NoSuchDeviceError,
    OutOfMemoryError,
    PinnedBudgetError,
    SourceChangedError,
    TransferError,
    UnsupportedLeafError,
)
from ._move import to
from ._pinning import is_pinned, pin
from ._prefetch import Prefetch, PrefetchIterator, prefetch
from ._profile import profile
from ._transfer import Transfer

__all__ = [
    "Collate",
    "DeviceError",
    "DeviceInfo",
    "DeviceStats",
    "Error",
    "ForkError",
    "HostMemoryError",
    "NoSuchDeviceError",
    "OutOfMemoryError",
    "PinnedBudgetError",
    "Prefetch",
    "PrefetchIterator",
    "SourceChangedError",
    "Stats",
    "Transfer",
    "TransferError",
    "UnsupportedLeafError",
    "collate",
    "devices",
    "is_pinned",
    "pin",
    "prefetch",
    "profile",
    "set_kept_limit",
    "set_pinned_budget",
    "stats",
    "to",
    "trim",
]
