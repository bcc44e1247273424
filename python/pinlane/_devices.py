"""The devices: their names, what there is, what they hold."""

from __future__ import annotations

import functools
import sys
from typing import TYPE_CHECKING, NamedTuple, Union

from . import _native
from ._arguments import whole
from ._errors import NoSuchDeviceError

if TYPE_CHECKING:
    import torch

    DeviceLike = Union[str, int, torch.device]


class DeviceInfo(NamedTuple):
    """What a device is."""

    name: str
    """What to call it, such as ``cuda:0``."""
    product: str
    """What it is sold as."""
    memory_bytes: int
    """How much memory it has."""
    link: str
    """What connects it to the host."""
    simulated: bool
    """Whether it only simulates: true figures of hardware never come from it."""


class DeviceStats(NamedTuple):
    """What the engine of one device holds, in bytes."""

    pinned_budget: int
    """The most host memory that may be pinned."""
    pinned: int
    """Pinned now, in use or kept for the next use."""
    leased: int
    """Pinned and in use: by pinned tensors and results, and by the slots that transfers go through."""
    slots: int
    """What of the budget is for those slots, pinned already or not."""
    results: int
    """What of ``leased`` is results on the host that nobody has asked to be pinned: they may have half of what the slots
    leave of the budget, and lie in ordinary memory when that is used up."""
    pinned_peak: int
    """The most that was pinned at any time."""
    idle: int
    """Memory of the device that nothing uses and that is kept for what pinlane allocates there next."""
    leaked: int
    """Given up on because a lost device may still use it."""


class Stats(NamedTuple):
    """What pinlane holds in this process."""

    devices: dict[str, DeviceStats]
    """What the engine of each device that was used holds, by the device's name."""
    kept: int
    """Bytes of ordinary host memory that are kept for later results: see :func:`set_kept_limit`."""


def devices() -> list[DeviceInfo]:
    """The devices of this process. The simulated ones are always there.

    >>> import pinlane
    >>> "sim:0" in [device.name for device in pinlane.devices() if device.simulated]
    True
    """
    return [DeviceInfo(*told) for told in _native.device_names()]


def stats() -> Stats:
    """What pinlane holds at this moment.

    >>> import numpy, pinlane
    >>> there = pinlane.to(numpy.ones(3), "sim")
    >>> pinlane.stats().devices["sim:0"].leaked
    0
    """
    engines = {name: DeviceStats(*told) for name, told in _native.device_stats().items()}
    return Stats(engines, _native.kept_bytes())


def trim() -> int:
    """Gives memory that is kept for later use back to the system; returns the bytes given back.

    That is host memory, pinned or not, and memory of devices that pinlane allocated itself. Torch keeps its own: see
    ``torch.cuda.empty_cache()``.
    """
    return _native.trim()


def set_kept_limit(bytes: int) -> None:
    """Changes how much ordinary host memory is kept for later results; 2 GiB unless told, or a sixteenth of what the system
    has where that is less.

    Memory of large results on the host is kept when they are dropped: the next that lies in it arrives twice as fast. Beside
    that, up to 64 MiB are kept for what transfers note about their tensors.
    """
    _native.set_kept_limit(whole(bytes, "the limit", 0))


def set_pinned_budget(bytes: int, device: DeviceLike = "cuda") -> None:
    """Changes how much host memory may be pinned for a device; 256 MiB unless told.

    What is pinned beyond it and not in use goes back to the system at once; what is in use stays until it is dropped.

    :param device: torch's current GPU unless told.
    :raises Error: for a budget below what every transfer of the device goes through.
    """
    _native.set_pinned_budget(name_of(device), whole(bytes, "the budget", 0))


def name_of(device: DeviceLike) -> str:
    """The full name of a device, as it may be written for torch, or ``sim``."""
    if isinstance(device, str):
        return _current() if device == "cuda" else _name_of_text(device)
    if type(device) is int:
        return _name_of_text(f"cuda:{device}")
    kind = getattr(device, "type", None)
    if not isinstance(kind, str):
        raise TypeError(f"a device is a string, a torch.device or a GPU's index, not {device!r}")
    index: int | None = getattr(device, "index", None)
    if kind == "cuda" and index is None:
        return _current()
    return _name_of_text(kind if index is None else f"{kind}:{index}")


@functools.lru_cache(maxsize=256)
def _name_of_text(text: str) -> str:
    family, _, index = text.partition(":")
    if family == "cpu" and index in ("", "0"):
        return "cpu"
    if family in ("cuda", "sim"):
        if not index:
            return f"{family}:0"
        # Devices made for tests have names of their own.
        if family == "sim" or index.isdecimal():
            return f"{family}:{index}"
    raise NoSuchDeviceError(
        f"there is no device {text!r}: there are cpu, GPUs such as cuda:0, and simulated devices such as sim:0"
    )


def _current() -> str:
    """The GPU that torch calls just ``cuda`` at this moment."""
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_initialized():
        return "cuda:0"
    return f"cuda:{torch.cuda.current_device()}"
