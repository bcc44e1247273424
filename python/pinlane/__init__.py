"""Moves tensors between host memory and accelerators at the speed of the link.

>>> import numpy, pinlane
>>> batch = {"x": numpy.arange(3.0)}
>>> there = pinlane.to(batch, "sim")  # "cuda" where there is a GPU
>>> pinlane.to(there, "cpu")
{'x': array([0., 1., 2.])}
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ._checkpoint import Checkpoint, Entry, load
from ._checkpoint import open_checkpoint as open
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
    CheckpointError,
    CheckpointMismatchError,
    CheckpointNotFoundError,
    DeviceError,
    Error,
    FileError,
    ForkError,
    HostMemoryError,
    NoSuchDeviceError,
    NoSuchTensorError,
    OutOfMemoryError,
    PinnedBudgetError,
    SourceChangedError,
    TransferError,
    UnsupportedLeafError,
)
from ._load_into import load_into
from ._move import to
from ._pinning import is_pinned, pin
from ._prefetch import Prefetch, PrefetchIterator, prefetch
from ._profile import profile
from ._safe_open import load_file, safe_open, save_file
from ._save import Saved, save
from ._slices import Slice
from ._transfer import Transfer

__all__ = [
    "Checkpoint",
    "CheckpointError",
    "CheckpointMismatchError",
    "CheckpointNotFoundError",
    "Collate",
    "DeviceError",
    "DeviceInfo",
    "DeviceStats",
    "Entry",
    "Error",
    "FileError",
    "ForkError",
    "HostMemoryError",
    "NoSuchDeviceError",
    "NoSuchTensorError",
    "OutOfMemoryError",
    "PinnedBudgetError",
    "Prefetch",
    "PrefetchIterator",
    "Saved",
    "Slice",
    "SourceChangedError",
    "Stats",
    "Transfer",
    "TransferError",
    "UnsupportedLeafError",
    "collate",
    "devices",
    "is_pinned",
    "load",
    "load_file",
    "load_into",
    "open",
    "pin",
    "prefetch",
    "profile",
    "safe_open",
    "save",
    "save_file",
    "set_kept_limit",
    "set_pinned_budget",
    "stats",
    "testing",
    "to",
    "trim",
]

if TYPE_CHECKING:
    from . import testing as testing


def __getattr__(name: str) -> Any:
    """What is for tests, and the version, are looked for when they are asked for."""
    if name == "testing":
        from importlib import import_module

        return import_module(f"{__name__}.testing")
    if name == "__version__":
        from importlib.metadata import version

        return version(__name__)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), "__version__", "testing"})
