"""What there is of containers, beside the exact dicts, lists and tuples that the native half knows.

To *open* a container is to say what is in it, how one would write the way to each child, and how to make another of the
same type from other children. A container in which nothing moves is kept as it is, so it does no harm to open one that
holds no tensors.
"""

from __future__ import annotations

import collections
import copy
import dataclasses
import sys
from collections.abc import Callable, Mapping
from typing import Any

Opened = tuple[list[Any], list[str], Callable[[list[Any]], Any]]
Opener = Callable[[Any], "Opened | bool | None"]

_openers: dict[type, Opener] = {}


def open(thing: Any) -> Opened | bool | None:
    """What ``thing`` is: ``None`` for what moving leaves as it is, ``True`` for a leaf, else an opened container."""
    kind = type(thing)
    registered = _registered(kind)
    if registered is not None:
        return registered(thing)
    opener = _openers.get(kind)
    if opener is None:
        opener = _openers[kind] = _opener_for(kind)
    return opener(thing)


def _opener_for(kind: type) -> Opener:
    if issubclass(kind, tuple):
        return _open_named_tuple if hasattr(kind, "_make") else _open_tuple
    if issubclass(kind, list):
        return _open_list
    if issubclass(kind, dict):
        return _open_dict
    if issubclass(kind, collections.UserDict):
        return _open_user_dict
    if issubclass(kind, collections.deque):
        return _open_deque
    if dataclasses.is_dataclass(kind):
        return _open_dataclass
    if issubclass(kind, Mapping):
        return _open_mapping
    if _is_array_type(kind) or hasattr(kind, "__dlpack__"):
        return _is_leaf
    return _is_other


def _is_leaf(thing: Any) -> bool:
    return True


def _is_other(thing: Any) -> None:
    return None


def _is_array_type(kind: type) -> bool:
    numpy = sys.modules.get("numpy")
    return numpy is not None and issubclass(kind, numpy.ndarray)


def _registered(kind: type) -> Opener | None:
    """How to open what was registered with torch's pytree, and what of torch's own is no plain container."""
    torch = sys.modules.get("torch")
    if torch is None:
        return None
    if issubclass(kind, torch.nn.utils.rnn.PackedSequence):
        return _open_packed_sequence
    tensordict = sys.modules.get("tensordict")
    if tensordict is not None and (
        issubclass(kind, tensordict.TensorDictBase) or tensordict.is_tensorclass(kind)
    ):
        return _open_tensordict
    pytree: Any = sys.modules.get("torch.utils._pytree")
    known = None if pytree is None else pytree.SUPPORTED_NODES.get(kind)
    if known is None or kind in _PLAIN:
        return None

    def open_registered(thing: Any) -> Opened:
        children, context = known.flatten_fn(thing)
        steps = [f"[{index}]" for index in range(len(children))]
        with_keys = getattr(known, "flatten_with_keys_fn", None)
        if with_keys is not None:
            keyed, _ = with_keys(thing)
            steps = [str(key) for key, _ in keyed]
        return list(children), steps, lambda others: known.unflatten_fn(others, context)

    return open_registered


# Registered by torch itself, and opened here the same with or without torch.
_PLAIN = {collections.OrderedDict, collections.defaultdict, collections.deque}


def _open_packed_sequence(thing: Any) -> Opened:
    # The batch sizes are for the host, wherever the data is.
    def rebuild(others: list[Any]) -> Any:
        data, *indices = others
        return type(thing)(data, thing.batch_sizes, *indices)

    children = [thing.data, thing.sorted_indices, thing.unsorted_indices]
    return children, [".data", ".sorted_indices", ".unsorted_indices"], rebuild


def _open_tensordict(thing: Any) -> Opened:
    children: list[Any] = []
    steps: list[str] = []

    def collect(name: Any, tensor: Any) -> Any:
        steps.append(f"[{name!r}]")
        children.append(tensor)
        return tensor

    thing.named_apply(collect, nested_keys=True)
    # Locking one locks what is in it.
    is_locked = thing.is_locked
    locked = [] if is_locked else [name for name, part in thing.items(True) if getattr(part, "is_locked", False)]

    def rebuild(others: list[Any]) -> Any:
        places = {other.device for other in others}
        device = places.pop() if len(places) == 1 else None
        following = iter(others)
        another = thing.apply(lambda _: next(following), device=device)
        if is_locked:
            another.lock_()
        for name in locked:
            another.get(name).lock_()
        return another

    return children, steps, rebuild


def _open_named_tuple(thing: Any) -> Opened:
    return list(thing), [f".{name}" for name in thing._fields], type(thing)._make


def _open_tuple(thing: Any) -> Opened:
    kind = type(thing)

    def rebuild(others: list[Any]) -> Any:
        try:
            # Past a `__new__` of its own, which may take other things than the elements.
            another = tuple.__new__(kind, others)
        except TypeError:
            # Those that C defines, such as what `torch.max` gives, have to be made by themselves.
            return kind(others)
        if hasattr(thing, "__dict__"):
            vars(another).update(vars(thing))
        return another

    return list(thing), _numbered(thing), rebuild


def _open_list(thing: Any) -> Opened:
    def rebuild(others: list[Any]) -> Any:
        another = copy.copy(thing)
        another[:] = others
        return another

    return list(thing), _numbered(thing), rebuild


def _open_deque(thing: Any) -> Opened:
    return list(thing), _numbered(thing), lambda others: type(thing)(others, thing.maxlen)


def _open_dict(thing: Any) -> Opened:
    def rebuild(others: list[Any]) -> Any:
        # Copying a dict's subclass makes another with what it has beside its items, such as a default factory.
        another = copy.copy(thing)
        # What has been added since the tree was taken apart is no part of it.
        for key in [key for key in another if key not in children]:
            del another[key]
        for key, other in zip(children, others, strict=True):
            another[key] = other
        return another

    children = {key: thing[key] for key in thing}
    return list(children.values()), _keyed(children), rebuild


def _open_user_dict(thing: Any) -> Opened:
    def rebuild(others: list[Any]) -> Any:
        another = copy.copy(thing)
        another.data = dict(zip(keys, others, strict=True))
        return another

    keys = list(thing.data)
    return list(thing.data.values()), _keyed(keys), rebuild


def _open_mapping(thing: Any) -> Opened:
    def rebuild(others: list[Any]) -> Any:
        return type(thing)(dict(zip(keys, others, strict=True)))

    keys = list(thing)
    return [thing[key] for key in keys], _keyed(keys), rebuild


def _open_dataclass(thing: Any) -> Opened:
    names = [field.name for field in dataclasses.fields(thing) if hasattr(thing, field.name)]

    def rebuild(others: list[Any]) -> Any:
        another = copy.copy(thing)
        for name, other in zip(names, others, strict=True):
            # Past `frozen` and properties: these are the fields of an instance that was made once already.
            object.__setattr__(another, name, other)
        return another

    return [getattr(thing, name) for name in names], [f".{name}" for name in names], rebuild


def _numbered(thing: Any) -> list[str]:
    return [f"[{index}]" for index in range(len(thing))]


def _keyed(thing: Any) -> list[str]:
    return [f"[{key!r}]" for key in thing]
