"""One tensor that is a tree by itself.

Up to about a mebibyte, and out of pinned memory always, nothing moves it faster than one call of the driver's, which is what
torch makes. It may be over in microseconds, so every call made here on the way shows. For each device there is one function,
which is asked first.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from . import _native
from ._devices import name_of
from ._errors import of_leaf

if TYPE_CHECKING:
    import torch

    from ._devices import DeviceLike

    #: Gives the moved tensor; ``None`` for what the engine has to look at.
    Way = Callable[[Any], Any]

#: The longest tensor that torch reads from a GPU, in bytes. The engine has to make memory for the result, wake threads and
#: make a tensor over it, some tenths of a millisecond, in which the driver by itself has copied as much.
_LONGEST_READ = 1 << 20

#: What moves a tensor to a device, by the device as callers have written it so far.
_ways: dict[DeviceLike, Way] = {}


def moved(tree: Any, device: DeviceLike) -> Any:
    """The tensor on the device, where ``tree`` is one that is better moved without the engine; else ``None``."""
    if type(device) is not str:
        return _find_way(device)(tree)
    return (_ways.get(device) or _find_way(device))(tree)


def _find_way(device: DeviceLike) -> Way:
    torch = sys.modules.get("torch")
    if torch is None:
        return _by_the_engine
    if type(device) is not str and type(device) is not torch.device:
        device = name_of(device)
    known = _ways.get(device)
    if known is not None:
        return known
    name = name_of(device)
    if name == "cpu":
        way = _reader(torch)
    elif name.startswith("sim"):
        way = _by_the_engine
    else:
        # Plain ``cuda`` stays what it is, for torch to say which GPU that is at the moment. They are taken to be alike.
        way = _sender(torch, torch.device(device), _native.open_device(name))
    _ways[device] = way
    return way


def _by_the_engine(tree: Any) -> None:
    """Nothing, for devices that torch does not know."""


def _reader(torch: Any) -> Way:
    tensor_type, strided = torch.Tensor, torch.strided

    def read(tree: Any) -> Any:
        if (
            type(tree) is tensor_type
            and tree.is_cuda
            and tree.layout is strided
            and tree.nbytes <= _LONGEST_READ
        ):
            return tree.cpu()
        return None

    return read


def _sender(torch: Any, device: torch.device, longest: int) -> Way:
    tensor_type, strided = torch.Tensor, torch.strided
    full = torch.cuda.OutOfMemoryError

    def send(tree: Any) -> Any:
        if type(tree) is tensor_type and tree.is_cpu and tree.layout is strided:
            # Pinned memory is one copy, however long.
            if tree.nbytes <= longest or tree.is_pinned():
                try:
                    return tree.to(device)
                except full as error:
                    raise of_leaf(error, "") from error
        return None

    return send
