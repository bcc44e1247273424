"""Torch's dtypes and those of the safetensors format."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any, NamedTuple

from ._errors import UnsupportedLeafError

if TYPE_CHECKING:
    import torch

#: What torch calls the dtypes of the format. Older versions of torch lack some. Of elements of four bits torch has two in one.
_NAMES = {
    "BOOL": "bool",
    "U8": "uint8",
    "I8": "int8",
    "I16": "int16",
    "U16": "uint16",
    "I32": "int32",
    "U32": "uint32",
    "I64": "int64",
    "U64": "uint64",
    "F16": "float16",
    "BF16": "bfloat16",
    "F32": "float32",
    "F64": "float64",
    "C64": "complex64",
    "F8_E4M3": "float8_e4m3fn",
    "F8_E5M2": "float8_e5m2",
    "F8_E8M0": "float8_e8m0fnu",
    "F8_E4M3FNUZ": "float8_e4m3fnuz",
    "F8_E5M2FNUZ": "float8_e5m2fnuz",
    "F4": "float4_e2m1fn_x2",
}


class Example(NamedTuple):
    """What tensors of one dtype have in common: see `pinlane._torch.Run`."""

    dtype: torch.dtype


@functools.cache
def examples() -> dict[str, Example]:
    """The dtypes that both have, by the format's name."""
    import torch

    found = {name: getattr(torch, theirs, None) for name, theirs in _NAMES.items()}
    return {name: Example(dtype) for name, dtype in found.items() if dtype is not None}


@functools.cache
def names() -> dict[Any, str]:
    """The format's names by torch's dtypes."""
    return {example.dtype: name for name, example in examples().items()}


def torch_dtype(name: str, doing: str) -> torch.dtype:
    """Torch's dtype for the format's; `doing` is what it is wanted for."""
    example = examples().get(name)
    if example is None:
        raise UnsupportedLeafError(f"{doing}: torch, of this version, has no tensors of dtype {name}")
    return example.dtype
