"""Parts of tensors in files: only what is needed of a file is read."""

from __future__ import annotations

import math
import operator
from typing import TYPE_CHECKING, Any

from . import _native
from ._dtypes import examples, torch_dtype

if TYPE_CHECKING:
    import torch

    from ._arrivals import Place

#: Of a dimension: the first index, how many there are, and how far apart they are.
Indices = tuple[int, int, int]


class Slice:
    """A tensor in a file. Indexing it, as one would index the tensor, reads that part.

    Integers, slices, ``...`` and ``None`` narrow what is read; of a dimension that is indexed by a list or a tensor all is read,
    and the indices are taken from that.
    """

    __slots__ = ("_checkpoint", "_dtype", "_name", "_place", "_shape")

    def __init__(self, checkpoint: _native.Checkpoint, name: str, place: Place) -> None:
        self._checkpoint = checkpoint
        self._name = name
        self._place = place
        self._dtype, self._shape = checkpoint.describe(name)[:2]

    def get_shape(self) -> list[int]:
        """The shape of the whole tensor, as the file has it."""
        return list(self._shape)

    def get_dtype(self) -> str:
        """The dtype as the format calls it, such as ``BF16``."""
        return self._dtype

    def __getitem__(self, index: Any) -> torch.Tensor:
        torch_dtype(self._dtype, f"reading tensor {self._name!r}")
        shape = self._shape
        if self._dtype == "F4" and shape:
            # Two elements are one of torch's.
            shape = (*shape[:-1], shape[-1] // 2)
        indices, inside = cover(index, shape)
        read = tuple(count for _, count, _ in indices)
        strides = [1] * len(read)
        for dim in range(len(read) - 1, 0, -1):
            strides[dim - 1] = strides[dim] * max(read[dim], 1)
        example = examples()[self._dtype]
        bytes = math.prod(read) * example.dtype.itemsize
        place = self._place
        memory, address = place.room(bytes)
        arrival = self._checkpoint.start_part(self._name, indices, place.target, address, memory, place.stream())
        whole: torch.Tensor
        (whole,) = place.plan.tensors(memory, [(example, read, tuple(strides), 0, 1, 0)])
        arrival.land(place.stream())
        part = whole if all(step is ... for step in inside) else whole[inside]
        # A view would keep what was read beside it.
        return part if part.nbytes == bytes else part.clone()

    def __repr__(self) -> str:
        return f"<pinlane.Slice of {self._name!r}: {self._dtype} {list(self._shape)}>"


def cover(index: Any, shape: tuple[int, ...]) -> tuple[list[Indices], tuple[Any, ...]]:
    """The indices of each dimension that ``tensor[index]`` needs, and what to index a tensor of these by."""
    parts = index if isinstance(index, tuple) else (index,)
    taken = sum(_dimensions(part) for part in parts)
    if taken > len(shape):
        raise IndexError(f"too many indices for tensor of dimension {len(shape)}")
    if not any(part is Ellipsis for part in parts):
        parts = (*parts, Ellipsis)
    indices: list[Indices] = []
    inside: list[Any] = []
    for part in parts:
        dim = len(indices)
        if part is Ellipsis:
            rest = len(shape) - taken
            indices += [(0, size, 1) for size in shape[dim : dim + rest]]
            taken += rest
            inside.append(part)
        elif isinstance(part, slice):
            start, stop, step = part.indices(shape[dim])
            if step < 1:
                raise ValueError("step must be greater than zero")
            count = len(range(start, stop, step))
            indices.append((start, count, step if count > 1 else 1))
            inside.append(slice(None))
        elif _is_integer(part):
            number = operator.index(part)
            if not -shape[dim] <= number < shape[dim]:
                raise IndexError(
                    f"index {number} is out of bounds for dimension {dim} with size {shape[dim]}"
                )
            indices.append((number % shape[dim], 1, 1))
            inside.append(0)
        else:
            indices += [(0, size, 1) for size in shape[dim : dim + _dimensions(part)]]
            inside.append(part)
    return indices, tuple(inside)


def _is_integer(part: Any) -> bool:
    return _dimensions(part) == 1 and getattr(part, "ndim", 0) == 0 and hasattr(part, "__index__")


def _dimensions(part: Any) -> int:
    """How many dimensions a part of an index takes."""
    if part is None or part is Ellipsis or isinstance(part, bool):
        return 0
    if str(getattr(part, "dtype", "")) in ("torch.bool", "bool"):
        return int(part.ndim)
    return 1
