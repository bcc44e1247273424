"""Pinned host memory: making it, and asking for it."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, TypeVar

from . import _native, _trees
from ._devices import name_of
from ._errors import Error, of_room
from ._plan import torch_side, unsupported, viewer

if TYPE_CHECKING:
    from ._devices import DeviceLike

T = TypeVar("T")

# Where each tensor begins in memory that they share, in bytes.
_ALIGNMENT = 256


def pin(tree: T, device: DeviceLike = "cuda") -> T:
    """The tree with its host tensors and arrays in pinned memory, which ``device`` reads by itself, out of its budget.

    Worth it for what is moved again and again. What is moved once goes faster as it is: pinning costs more than a copy.

    The copies share one allocation: one that is resized to more elements grows into the others.

    Torch takes the memory for pinned too, but does not keep it while a copy of its own reads it: after
    ``tensor.to("cuda", non_blocking=True)``, keep the tensor until the copy is done. :func:`pinlane.to` keeps what it reads.

    >>> import numpy, pinlane
    >>> batch = pinlane.pin({"x": numpy.arange(3)}, "sim")
    >>> batch, pinlane.is_pinned(batch, "sim")
    ({'x': array([0, 1, 2])}, True)

    :param device: the device that is to reach it; torch's current GPU unless told.
    :raises NoSuchDeviceError: where there is no such device, or none is named and there is no GPU.
    :raises PinnedBudgetError: where the budget has no room; :func:`set_pinned_budget` makes some.
    :raises UnsupportedLeafError: for a leaf that is not ordinary memory of the host.
    """
    name = name_of(device)
    torch = torch_side(needed=False)
    opened = _native.Tree(tree, None if torch is None else torch.Tensor, _trees.open)
    leaves = opened.leaves
    loose = [number for number, leaf in enumerate(leaves) if not _is_pinned(leaf, name)]
    places: list[int] = []
    end = 0
    for number in loose:
        places.append(end)
        end += -(-_bytes(leaves[number], opened.path(number)) // _ALIGNMENT) * _ALIGNMENT
    if loose:
        try:
            memory = _native.pinned_memory(name, end)
        except Error as error:
            largest = max(loose, key=lambda number: _bytes(leaves[number], ""))
            path = opened.path(largest)
            many = f"{len(loose)} tensors, the largest of them {path}"
            raise of_room(error, path if len(loose) == 1 else many, "pinning") from error
        for number, place in zip(loose, places, strict=True):
            leaves[number] = _copy(leaves[number], memory, place)
    pinned: T = opened.rebuild(leaves)
    return pinned


def is_pinned(tree: Any, device: DeviceLike = "cuda") -> bool:
    """Whether every tensor and array in ``tree`` lies in host memory that ``device`` reads by itself: torch's current GPU unless
    told."""
    name = name_of(device)
    torch = torch_side(needed=False)
    opened = _native.Tree(tree, None if torch is None else torch.Tensor, _trees.open)
    return all(_is_pinned(leaf, name) for leaf in opened.leaves)


def _is_tensor(leaf: Any) -> bool:
    torch = torch_side(needed=False)
    return torch is not None and isinstance(leaf, torch.Tensor)


def _is_pinned(leaf: Any, device: str) -> bool:
    if _is_tensor(leaf):
        torch = torch_side(needed=True)
        assert torch is not None
        if not torch.is_ordinary(leaf) or leaf.device.type != "cpu":
            return False
        address, size = leaf.data_ptr(), leaf.numel() * leaf.element_size()
    elif hasattr(leaf, "__array_interface__"):
        address, size = leaf.__array_interface__["data"][0], leaf.nbytes
    else:
        return False
    return size == 0 or _native.is_pinned(device, address, size)


def _bytes(leaf: Any, path: str) -> int:
    if _is_tensor(leaf):
        torch = torch_side(needed=True)
        assert torch is not None
        if not torch.is_ordinary(leaf) or leaf.device.type != "cpu":
            raise unsupported(leaf, path, "only ordinary tensors of the host can be pinned", "pinning")
        return int(leaf.numel() * leaf.element_size())
    if not hasattr(leaf, "__array_interface__") or leaf.dtype.hasobject:
        raise unsupported(leaf, path, "only ordinary tensors and arrays of the host can be pinned", "pinning")
    numpy = sys.modules.get("numpy")
    if numpy is not None and isinstance(leaf, numpy.ma.MaskedArray):
        raise unsupported(leaf, path, "its mask would be lost: pin its `data` and its `mask`", "pinning")
    return int(leaf.nbytes)


def _copy(leaf: Any, memory: _native.Memory, place: int) -> Any:
    if _is_tensor(leaf):
        torch = torch_side(needed=True)
        assert torch is not None
        like = torch.torch.empty_like(leaf, device="meta")
        run = (leaf, tuple(like.shape), like.stride(), place, 1, 0)
        (copy,) = torch.parts(torch.over(memory), [run])
        return copy.copy_(leaf.detach())
    import numpy

    strides = numpy.empty_like(leaf, subok=False).strides
    copy = numpy.ndarray(leaf.shape, leaf.dtype, numpy.asarray(memory), place, strides)
    copy[...] = leaf
    view = viewer(numpy, type(leaf))
    return copy if view is None else view(copy)
