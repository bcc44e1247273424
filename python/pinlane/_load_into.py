"""Loading into tensors that exist already."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from . import _native
from ._arrivals import Place
from ._checkpoint import Checkpoint, open_checkpoint
from ._devices import name_of
from ._errors import CheckpointMismatchError, UnsupportedLeafError
from ._plan import floating, torch_side, unsupported

if TYPE_CHECKING:
    import torch
    from torch.nn.modules.module import _IncompatibleKeys

    from ._checkpoint import Source

#: How many names an error lists of each kind.
_LISTED = 10


def load_into(
    target: torch.nn.Module | Mapping[str, torch.Tensor],
    source: Source,
    strict: bool = True,
    *,
    dtype: torch.dtype | None = None,
) -> _IncompatibleKeys:
    """Loads a checkpoint into the tensors of a module, or into those of a mapping, by their names.

    >>> import pinlane, tempfile, torch
    >>> path = tempfile.mkdtemp() + "/model.safetensors"
    >>> _ = pinlane.save(torch.nn.Linear(2, 2), path)
    >>> pinlane.load_into(torch.nn.Linear(2, 2), path)
    <All keys matched successfully>

    It is what torch's ``load_state_dict`` does, without a second copy of the model in memory: bytes go from the files into the
    tensors. These may be on several devices. Two things differ: dtypes have to be the same, as nothing is converted without
    ``dtype``, and hooks of modules for loading are not called. As there, of several names whose tensors share memory, as tied
    weights do, the last counts; a name is not missing where another of the same memory is there; a tensor of shape ``[1]`` fits a
    scalar; a batch norm's ``num_batches_tracked`` may be missing; and ``set_extra_state`` gets extra state. What ``state_dict()``
    makes anew otherwise, as its hooks do, has no place that files could be loaded into, and is an error.

    On a GPU the tensors are ordered on torch's current stream: use them at once.

    :param source: what :func:`pinlane.load` takes.
    :param strict: whether the names have to be the same.
    :param dtype: what tensors of floating-point numbers are converted to, as in :func:`pinlane.load`: that of the target's.
    :returns: the names that the checkpoint lacks, and those that only it has, as ``load_state_dict`` does.
    :raises TypeError: for a target that is neither a module nor a mapping, and for a ``dtype`` that has no floating-point numbers.
    :raises UnsupportedLeafError: for a name under which there is nothing to load into.
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
    dtype = None if dtype is None else floating(dtype)
    places: Mapping[str, Any] = target  # type: ignore[assignment]
    extra: dict[str, Any] = {}
    dispensable: set[str] = set()
    if is_module:
        places, extra, dispensable = _of_module(torch, target, checkpoint)
    missing, unexpected = _compare(torch, places, checkpoint, strict, dtype, extra, dispensable)
    names = [name for name in places if name in checkpoint and name not in extra]
    direct, copied, in_turn = _sorted_out(torch, names, places)
    if dtype is not None:
        changing = {name for name in direct if checkpoint[name].torch_dtype != places[name].dtype}
        direct = [name for name in direct if name not in changing]
        copied += changing
    _fill(torch, checkpoint, direct, places)
    # A bit at a time, as these take memory twice.
    for part in [copied, *([name] for name in in_turn)]:
        for name, loaded in Checkpoint(checkpoint._native.only(part)).stream(progress=False, dtype=dtype):
            with torch.torch.no_grad():
                places[name].copy_(loaded.reshape(places[name].shape))
    for name, module in extra.items():
        if name in checkpoint:
            module.set_extra_state(checkpoint.select([name]).load()[name])
    from torch.nn.modules.module import _IncompatibleKeys

    return _IncompatibleKeys(missing, unexpected)


def _of_module(
    torch: Any, module: Any, checkpoint: Checkpoint
) -> tuple[dict[str, Any], dict[str, Any], set[str]]:
    """What a module is loaded into by its names: its own tensors, and modules for their extra state; and the names that may be
    missing, as torch leaves them what they are."""
    own: dict[str, Any] = {}
    extra, dispensable = {}, set()
    for path, part in module.named_modules(remove_duplicate=False):
        prefix = f"{path}." if path else ""
        for name, tensor in [*part._parameters.items(), *part._buffers.items()]:
            if tensor is not None and name not in part._non_persistent_buffers_set:
                own[prefix + name] = tensor
        if type(part).get_extra_state is not torch.torch.nn.Module.get_extra_state:
            extra[f"{prefix}_extra_state"] = part
        if isinstance(part, torch.torch.nn.modules.batchnorm._NormBase):
            dispensable.add(f"{prefix}num_batches_tracked")
    memories = {_memory(tensor) for tensor in own.values()}
    places = {}
    for name, tensor in module.state_dict(keep_vars=True).items():
        if name in own:
            tensor = own[name]
        elif name not in extra and name in checkpoint and _memory(tensor) not in memories:
            reason = "the module's state_dict() makes it anew, so nothing that is loaded would stay; use load_state_dict"
            raise unsupported(tensor, repr(name), reason, doing="loading into")
        places[name] = tensor
    return places, {name: part for name, part in extra.items() if name in places}, dispensable


def _compare(
    torch: Any,
    places: Mapping[str, Any],
    checkpoint: Checkpoint,
    strict: bool,
    to: torch.dtype | None,
    extra: Mapping[str, Any],
    dispensable: set[str],
) -> tuple[list[str], list[str]]:
    """The names that the checkpoint lacks, and those that only it has."""
    differ = []
    loaded = set()
    missing = []
    for name, tensor in places.items():
        if name not in checkpoint:
            missing.append(name)
            continue
        if name in extra:
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
        if to is not None and dtype.is_floating_point:
            dtype = to
        if shape == [1] and not tensor.dim():
            shape = []
        if dtype != tensor.dtype or shape != list(tensor.shape):
            found, wanted = f"{dtype} {shape}", f"{tensor.dtype} {list(tensor.shape)}"
            differ.append(f"{name!r} is {found} in {entry.file} and {wanted} here")
        loaded.add(_memory(tensor))
    missing = [name for name in missing if name not in dispensable and _memory(places[name]) not in loaded]
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
    return str(tensor.device), data_ptr(), tensor.dtype, tensor.shape, tensor.stride()


def _sorted_out(torch: Any, names: list[str], places: Mapping[str, Any]) -> tuple[list[str], list[str], list[str]]:
    """The names whose tensors files can be read into; those that torch has to copy to; and those that torch has to copy to one
    after the other, as they share memory and the last counts. Of tensors that are the same memory only the last name is there."""
    last = {_memory(places[name]): name for name in names}
    kept = set(last.values())
    names = [name for name in names if name in kept]
    in_turn = _sharing(names, places)
    direct: list[str] = []
    copied: list[str] = []
    for name in names:
        if name not in in_turn:
            is_direct = torch.is_ordinary(places[name]) and _is_plain(places[name])
            (direct if is_direct else copied).append(name)
    return direct, copied, [name for name in names if name in in_turn]


def _sharing(names: list[str], places: Mapping[str, Any]) -> set[str]:
    """The names whose tensors lie in memory that reaches into another's."""
    extents = []
    for name in names:
        tensor = places[name]
        if getattr(tensor, "data_ptr", None) is not None and tensor.nbytes:
            steps = sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True))
            start = int(tensor.data_ptr())
            extents.append((str(tensor.device), start, start + (steps + 1) * tensor.element_size(), name))
    sharing: set[str] = set()
    furthest: tuple[str, int, str] = ("", 0, "")
    for device, start, end, name in sorted(extents):
        if device == furthest[0] and start < furthest[1]:
            sharing |= {name, furthest[2]}
        if device != furthest[0] or end > furthest[1]:
            furthest = (device, end, name)
    return sharing


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
