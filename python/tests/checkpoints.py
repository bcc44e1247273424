"""What the tests of checkpoints share: tensors of every dtype, and comparing them bit by bit."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import torch

#: Torch's dtypes that safetensors files can hold.
DTYPES = [
    torch.bool,
    torch.uint8,
    torch.int8,
    torch.int16,
    torch.uint16,
    torch.int32,
    torch.uint32,
    torch.int64,
    torch.uint64,
    torch.float16,
    torch.bfloat16,
    torch.float32,
    torch.float64,
    torch.complex64,
    torch.float8_e4m3fn,
    torch.float8_e5m2,
    torch.float8_e8m0fnu,
    torch.float8_e4m3fnuz,
    torch.float8_e5m2fnuz,
    torch.float4_e2m1fn_x2,
]


def patterned(dtype: torch.dtype, shape: tuple[int, ...], seed: int = 0) -> torch.Tensor:
    """A tensor whose bits are random, or random truths."""
    generator = torch.Generator().manual_seed(seed)
    if dtype == torch.bool:
        return torch.randint(0, 2, shape, generator=generator).bool()
    count = torch.Size(shape).numel() * dtype.itemsize
    flat = torch.randint(0, 256, (count,), dtype=torch.uint8, generator=generator)
    return flat.view(dtype).reshape(shape)


def bits(tensor: torch.Tensor) -> list[int]:
    """The bytes of a tensor's elements in their order."""
    return tensor.cpu().contiguous().reshape(-1).view(torch.uint8).tolist()


def assert_same(found: dict[str, torch.Tensor], wanted: dict[str, torch.Tensor]) -> None:
    """The same names, and under each the same dtype, shape and bits."""
    assert found.keys() == wanted.keys()
    for name, tensor in wanted.items():
        other = found[name]
        assert (other.dtype, other.shape) == (tensor.dtype, tensor.shape), name
        assert bits(other) == bits(tensor), name


def written(path: Path, header: object, data: bytes = b"") -> Path:
    """A file with this header, which is written as JSON unless it is bytes."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)
    return path


def info(dtype: str, shape: list[int], start: int, end: int) -> dict[str, object]:
    """What a header says of a tensor."""
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}
