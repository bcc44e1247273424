"""Saving checkpoints."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Union

from . import _native
from ._arguments import whole
from ._dtypes import names
from ._plan import torch_side, unsupported

if TYPE_CHECKING:
    Path_ = Union[str, os.PathLike[str]]

#: What torch's users write into a header, and some readers ask for.
_METADATA = {"format": "pt"}


class Saved(NamedTuple):
    """What a save has made."""

    files: list[Path]
    """The files of tensors."""
    index_file: Path | None
    """The index, where there is more than one file, or others lie beside the one."""
    nbytes: int
    """The bytes of all tensors."""


def save(
    tree: Any,
    path: Path_,
    *,
    max_shard_bytes: int | None = None,
    metadata: Mapping[str, str] | None = None,
) -> Saved:
    """Saves a module's state, a state dict, or any nesting of mappings and lists of tensors, as safetensors files.

    >>> import pinlane, tempfile, torch
    >>> path = tempfile.mkdtemp() + "/model.safetensors"
    >>> saved = pinlane.save(torch.nn.Linear(2, 2), path)
    >>> sorted(pinlane.open(path)), saved.nbytes
    (['bias', 'weight'], 24)

    The tensors may be anywhere; they come to the host piece by piece, in bounded memory. What was at ``path`` is replaced as a
    whole, when all of the new files are on the disk: a crash or a full disk leaves it as it was. Files that did not belong to it
    stay. The names of what is nested
    are joined by dots. Tensors that share memory are saved each for itself.

    :param path: a file, or a folder that is there, which gets a ``model.safetensors``.
    :param max_shard_bytes: at most so many bytes of tensors in a file. Where one does not do, there are several, called
        ``name-00001-of-00002.safetensors`` and so on, and an index.
    :param metadata: texts for the header; ``{"format": "pt"}`` unless told.
    :raises TypeError: for a ``max_shard_bytes`` that is no number of bytes.
    :raises ValueError: for one below 1.
    :raises CheckpointError: for what the format can't hold.
    :raises UnsupportedLeafError: for a leaf that is no tensor, or has no strided memory.
    :raises FileError: for what the system refuses.
    """
    if max_shard_bytes is not None:
        max_shard_bytes = whole(max_shard_bytes, "max_shard_bytes", 1)
    flat: dict[str, Any] = {}
    for name, leaf in _named(tree, ""):
        if name in flat:
            raise ValueError(f"saving: the tree has two tensors called {name!r}")
        flat[name] = leaf
    return save_flat(flat, path, max_shard_bytes, _METADATA if metadata is None else metadata)


def save_flat(
    tensors: Mapping[str, Any],
    path: Path_,
    max_shard_bytes: int | None,
    metadata: Mapping[str, str] | None,
    alone: bool = False,
) -> Saved:
    """Saves tensors by their names; ``alone`` to the one file ``path``, whatever lies beside it."""
    torch = torch_side(needed=True)
    assert torch is not None
    for key, text in (metadata or {}).items():
        if not isinstance(key, str) or not isinstance(text, str):
            raise TypeError(f"saving: metadata are texts by their names, not {key!r}: {text!r}")
    known = names()
    described, owners = [], []
    devices = set()
    for name, leaf in tensors.items():
        if not isinstance(name, str):
            raise TypeError(f"saving: tensors have names that are texts, not {name!r}")
        tensor = _dense(torch, name, leaf)
        dtype = known.get(tensor.dtype)
        if dtype is None:
            reason = f"safetensors files have no {tensor.dtype}; save it as another dtype, complex numbers as their parts"
            raise unsupported(leaf, repr(name), reason, doing="saving")
        shape = list(tensor.shape)
        if dtype == "F4":
            if not shape:
                raise unsupported(leaf, repr(name), "a single element of it is two numbers", doing="saving")
            shape[-1] *= 2
        devices.add(tensor.device)
        described.append((name, dtype, shape, tensor.data_ptr(), str(tensor.device)))
        owners.append(tensor)
    for device in devices:
        if device.type == "cuda":
            torch.torch.cuda.current_stream(device).synchronize()
    told = None if metadata is None else list(metadata.items())
    files, index, nbytes = _native.save_checkpoint(described, owners, os.fspath(path), max_shard_bytes, told, alone)
    return Saved([Path(file) for file in files], None if index is None else Path(index), nbytes)


def _named(tree: Any, name: str) -> Iterator[tuple[str, Any]]:
    """The leaves of a tree, each with the way to it, joined by dots."""
    torch = torch_side(needed=True)
    assert torch is not None
    if isinstance(tree, torch.torch.nn.Module):
        tree = tree.state_dict()
    if isinstance(tree, Mapping) or hasattr(tree, "named_apply"):
        children = tree.items()
    elif isinstance(tree, (list, tuple)):
        children = enumerate(tree)
    else:
        yield name, tree
        return
    for key, child in children:
        yield from _named(child, f"{name}.{key}" if name else str(key))


def _dense(torch: Any, name: str, leaf: Any) -> Any:
    """A leaf as a tensor without gaps."""
    if not isinstance(leaf, torch.Tensor):
        try:
            leaf = torch.torch.from_dlpack(leaf)
        except (AttributeError, BufferError, RuntimeError, TypeError) as error:
            raise unsupported(leaf, repr(name), "it is no tensor", doing="saving") from error
    if leaf.layout is not torch.torch.strided or leaf.is_quantized or leaf.device.type not in ("cpu", "cuda"):
        reason = f"it is {leaf.layout} on {leaf.device}, and only ordinary dense tensors can be saved"
        raise unsupported(leaf, repr(name), reason, doing="saving")
    return leaf.detach().resolve_conj().resolve_neg().contiguous()
