"""One tensor that is a tree by itself.

Up to about a mebibyte, and out of pinned memory always, nothing moves it faster than one call of the driver's, which is what
torch makes. It may be over in microseconds, so every call on the way shows. For each device there is one way, which the native
half asks before any of Python's code runs: `crates/python/src/alone.rs`.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from . import _native
from ._devices import name_of

if TYPE_CHECKING:
    import torch

#: The longest tensor that torch reads from a GPU, in bytes. The engine has to make memory for the result, wake threads and
#: make a tensor over it, some tenths of a millisecond, in which the driver by itself has copied as much.
_LONGEST_READ = 1 << 20

#: The ways to devices, by the device as callers have written it so far: a text, or torch's device.
_ways: dict[str | torch.device, _native.Way] = {}


def fronted(to: Any) -> Any:
    """The function in C that moves lone tensors, and has `to`, whose documentation it takes, do all else."""
    code = to.__code__
    names = code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]
    defaults = {name: f"={value!r}" for name, value in (to.__kwdefaults__ or {}).items()}
    written = [f"{name}{defaults.get(name, '')}" for name in names]
    written.insert(code.co_argcount, "*")
    return _native.front(to, _ways, f"to({', '.join(written)})\n--\n\n{to.__doc__}")


def is_new(tree: Any, device: Any) -> bool:
    """Whether a lone tensor goes to a device that there was no way to so far; there is one from now on."""
    torch = sys.modules.get("torch")
    if torch is None or type(tree) is not torch.Tensor or type(device) not in (str, torch.device):
        return False
    if device in _ways:
        return False
    _native.know_torch(torch.Tensor, torch.device)
    _ways[device] = _way(torch, device)
    return True


def _way(torch: Any, device: str | torch.device) -> _native.Way:
    name = name_of(device)
    if name == "cpu":
        return _native.Way.read(torch.Tensor.cpu, _LONGEST_READ)
    if name.startswith("sim"):
        return _native.Way.engine()
    # Plain ``cuda`` stays what it is, for torch to say which GPU that is at the moment. They are taken to be alike.
    return _native.Way.send(torch.Tensor.to, torch.device(device), _native.open_device(name))
