"""Loading into tensors that exist already."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from . import _native
from ._arrivals import Place
from ._checkpoint import Checkpoint, open_checkpoint
from ._devices import name_of
from ._errors import CheckpointMismatchError, UnsupportedLeafError
from ._plan import torch_side, unsupported

if TYPE_CHECKING:
    import torch
    from torch.nn.modules.module import _IncompatibleKeys

    from ._checkpoint import Source

#: How many names an error lists of each kind.
_LISTED = 10


def load_into(
    target: torch.nn.Module | Mapping[str, torch.Tensor], source: Source, strict: bool = True
) -> _IncompatibleKeys:
    """Loads a checkpoint into the tensors of a module, or into those of a mapping, by their names.

    >>> import pinlane, tempfile, torch
    >>> path = tempfile.mkdtemp() + "/model.safetensors"
    >>> _ = pinlane.save(torch.nn.Linear(2, 2), path)
    >>> pinlane.load_into(torch.nn.Linear(2, 2), path)
    <All keys matched successfully>

    It is what torch's ``load_state_dict`` does, without a second copy of the model in memory: bytes go from the files into the
    tensors. These may be on several devices. Two things differ: dtypes have to be the same, as nothing is converted, and hooks
    of modules for loading are not called. A name whose tensor is another name's too, as tied weights are, is not missing where
    the other is there.

    On a GPU the tensors are ordered on torch's current stream: use them at once.

    :param source: what :func:`pinlane.load` takes.
    :param strict: whether the names have to be the same.
    :returns: the names that the checkpoint lacks, and those that only it has, as ``load_state_dict`` does.
    :raises TypeError: for a target that is neither a module nor a mapping.
    :raises CheckpointMismatchError: where shapes, dtypes or, with ``strict``, names differ. Nothing was loaded.
    :raises FileError: where a file can't be read. Some tensors hold neither what they held nor what the files hold, then.
    """
    torch = torch_side(needed=True)
    assert torch is not None
    is_module = isinstance(target, torch.torch.nn.Module)
    if not is_module and not isinstance(target, Mapping):
        kind = type(target).__name__
        raise TypeError(f"loading a checkpoint into a {kind}: it takes a module, or a mapping from names to tensors")
    checkpoint = open_checkpoint(source)
    places: Mapping[str, Any] = target.state_dict(keep_vars=True) if is_module else target  # type: ignore[union-attr,assignment]
    missing, unexpected = _compare(torch, places, checkpoint, strict)
    names = [name for name in places if name in checkpoint]
    direct, others = _sorted_out(torch, names, places)
    _fill(torch, checkpoint, direct, places)
    with torch.torch.no_grad():
        # A bit at a time, as these take memory twice.
        for name, loaded in Checkpoint(checkpoint._native.only(others)).stream():
            places[name].copy_(loaded)
    from torch.nn.modules.module import _IncompatibleKeys

    return _IncompatibleKeys(missing, unexpected)


def _compare(
    torch: Any, places: Mapping[str, Any], checkpoint: Checkpoint, strict: bool
) -> tuple[list[str], list[str]]:
    """The names that the checkpoint lacks, and those that only it has."""
    differ = []
    loaded = set()
    missing = []
    for name, tensor in places.items():
        if name not in checkpoint:
            missing.append(name)
            continue
        if not isinstance(tensor, torch.Tensor):
            raise unsupported(tensor, repr(name), "only tensors can be loaded into", doing="loading into")
        if tensor.is_meta:
            raise UnsupportedLeafError(
                f"loading into {name!r}: it is on the device meta and has no memory; make some with `to_empty(device=...)`"
            )
        entry = checkpoint[name]
        dtype, shape = entry.torch_dtype, list(entry.shape)
        if entry.dtype == "F4" and shape:
            shape[-1] //= 2
        if dtype != tensor.dtype or shape != list(tensor.shape):
            found, wanted = f"{dtype} {shape}", f"{tensor.dtype} {list(tensor.shape)}"
            differ.append(f"{name!r} is {found} in {entry.file} and {wanted} here")
        loaded.add(_memory(tensor))
    missing = [name for name in missing if _memory(places[name]) not in loaded]
    unexpected = [name for name in checkpoint if name not in places]
    told = []
    if differ:
        told.append(f"dtype or shape differ: {_listed(differ)}")
    if strict and missing:
        told.append(f"the checkpoint lacks {_listed(list(map(repr, missing)))}")
    if strict and unexpected:
        told.append(f"there is no place for {_listed(list(map(repr, unexpected)))}")
    if told:
        files = ", ".join(map(str, checkpoint.files[:1])) + (" and others" if len(checkpoint.files) > 1 else "")
        raise CheckpointMismatchError(f"loading {files} into existing tensors: " + "; ".join(told))
    return missing, unexpected


def _listed(all: list[str]) -> str:
    more = f" and {len(all) - _LISTED} more" if len(all) > _LISTED else ""
    return ", ".join(all[:_LISTED]) + more


def _memory(tensor: Any) -> Any:
    """What tells whether two tensors are the same memory; for others than tensors, nothing that is equal to anything."""
    data_ptr = getattr(tensor, "data_ptr", None)
    if data_ptr is None or not tensor.nbytes:
        return object()
    return str(tensor.device), data_ptr(), tensor.shape, tensor.stride()


def _sorted_out(torch: Any, names: list[str], places: Mapping[str, Any]) -> tuple[list[str], list[str]]:
    """The names whose tensors files can be read into, and those that torch has to copy to, in the order of the names."""
    ordinary = {name for name in names if torch.is_ordinary(places[name]) and _is_plain(places[name])}
    # What lies in the same memory must not be written at the same time.
    reached: dict[str, int] = {}
    for name in sorted(ordinary, key=lambda name: int(places[name].data_ptr())):
        tensor = places[name]
        start, device = tensor.data_ptr(), str(tensor.device)
        if tensor.nbytes and start < reached.get(device, 0):
            ordinary.discard(name)
        reached[device] = max(reached.get(device, 0), start + tensor.nbytes)
    return [name for name in names if name in ordinary], [name for name in names if name not in ordinary]


def _is_plain(tensor: Any) -> bool:
    return bool(tensor.is_contiguous() and not tensor.is_conj() and not tensor.is_neg())


def _fill(torch: Any, checkpoint: Checkpoint, names: list[str], places: Mapping[str, Any]) -> None:
    """Reads the files into tensors, all devices at once."""
    by_device: dict[str, list[str]] = {}
    for name in names:
        by_device.setdefault(_device_of(places[name]), []).append(name)
    arrivals: list[tuple[_native.Arrival, Place]] = []
    try:
        for device, part in by_device.items():
            place = Place(device)
            tensors = [places[name] for name in part]
            addresses = [tensor.data_ptr() for tensor in tensors]
            arrival = checkpoint._native.start_into(part, device, addresses, tensors, place.stream())
            arrivals.append((arrival, place))
    finally:
        _land(arrivals)
    for tensor in _watched(places[name] for name in names):
        torch.torch.autograd.graph.increment_version(tensor)


def _land(arrivals: list[tuple[_native.Arrival, Place]]) -> None:
    """Waits for all, whatever becomes of some: nothing is written to tensors any more when their user has them back."""
    if arrivals:
        (arrival, place), *others = arrivals
        try:
            arrival.land(place.stream())
        finally:
            _land(others)


def _device_of(tensor: Any) -> str:
    if tensor.is_cpu:
        return _native.simulated_device_of(tensor.data_ptr()) or "cpu"
    return name_of(tensor.device)


def _watched(tensors: Iterator[Any]) -> Iterator[Any]:
    """The tensors that count how often they are written."""
    return (tensor for tensor in tensors if not tensor.is_inference())
