"""Files for the side by side of checkpoints: making them, getting them out of the page cache, and what the disk does without
anything on top."""

from __future__ import annotations

import json
import math
import mmap
import os
import struct
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy
import torch

#: A tensor's name and shape.
Shapes = dict[str, tuple[int, ...]]

PAGE = 4096
#: What is read at a time to have a file in the page cache.
BLOCK = 8 << 20
#: The bytes by which depths are compared.
SAMPLE = 512 << 20


class Depth(NamedTuple):
    """How the disk is asked without anything on top."""

    threads: int
    block: int

    def told(self) -> str:
        return f"{self.threads} threads, {self.block >> 20} MiB each"


#: What is tried: disks differ in how much has to be under way.
DEPTHS = [Depth(4, 4 << 20), Depth(8, 8 << 20), Depth(16, 1 << 20), Depth(16, 4 << 20), Depth(32, 4 << 20)]


def model(hidden: int, wide: int, layers: int, shards: int) -> list[Shapes]:
    """The layers of a transformer of the kind that has 8 billion parameters at 4096 and 14336, in so many files."""
    narrow = hidden // 4
    files: list[Shapes] = [{} for _ in range(shards)]
    for layer in range(layers):
        name = f"model.layers.{layer}."
        files[layer * shards // layers] |= {
            name + "input_layernorm.weight": (hidden,),
            name + "mlp.down_proj.weight": (hidden, wide),
            name + "mlp.gate_proj.weight": (wide, hidden),
            name + "mlp.up_proj.weight": (wide, hidden),
            name + "post_attention_layernorm.weight": (hidden,),
            name + "self_attn.k_proj.weight": (narrow, hidden),
            name + "self_attn.o_proj.weight": (hidden, hidden),
            name + "self_attn.q_proj.weight": (hidden, hidden),
            name + "self_attn.v_proj.weight": (narrow, hidden),
        }
    return files


def small(tensors: int, bytes: int) -> list[Shapes]:
    """Many small tensors in one file."""
    return [{f"block.{number:05}.weight": (bytes // 2,) for number in range(tensors)}]


class Files:
    """Safetensors files of random bfloat16, the same in every folder, and their tensors."""

    def __init__(self, name: str, files: list[Shapes], folders: list[Path]) -> None:
        for folder in folders:
            folder.mkdir(parents=True, exist_ok=True)
        self.names = [f"{name}-{number + 1:05}-of-{len(files):05}.safetensors" for number in range(len(files))]
        self.tensors: dict[str, torch.Tensor] = {}
        with ThreadPoolExecutor(len(files)) as pool:
            for tensors in pool.map(lambda number: self._write(number, files[number], folders), range(len(files))):
                self.tensors |= tensors
        self.bytes = sum(tensor.nbytes for tensor in self.tensors.values())

    def _write(self, number: int, shapes: Shapes, folders: list[Path]) -> dict[str, torch.Tensor]:
        header, end = {}, 0
        for name, shape in shapes.items():
            start, end = end, end + 2 * math.prod(shape)
            header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [start, end]}
        text = json.dumps(header).encode()
        text += b" " * (-len(text) % 8)
        random = numpy.random.Generator(numpy.random.SFC64(number))
        words = random.integers(0, 1 << 63, -(-end // 8), dtype=numpy.uint64).view(numpy.int16)[: end // 2]
        for folder in folders:
            with open(folder / self.names[number], "wb", buffering=0) as file:
                file.write(struct.pack("<Q", len(text)) + text)
                left = memoryview(words).cast("B")
                while left:
                    left = left[file.write(left) :]
                os.fsync(file)
        whole = torch.from_numpy(words).view(torch.bfloat16)
        parts = whole.split([math.prod(shape) for shape in shapes.values()])
        return {name: part.view(shape) for (name, shape), part in zip(shapes.items(), parts, strict=True)}

    def within(self, folder: Path) -> list[str]:
        """The paths of the files in a folder."""
        return [str(folder / name) for name in self.names]


def is_cached(path: str) -> bool:
    """Whether most of a file is in the page cache, by a few places of it."""
    with open(path, "rb", buffering=0) as file:
        size = os.fstat(file.fileno()).st_size
        places = [size * part // 16 // PAGE * PAGE for part in range(16)]
        return sum(_is_there(file.fileno(), place) for place in places) > 2


def _is_there(file: int, place: int) -> bool:
    try:
        return os.preadv(file, [bytearray(1)], place, os.RWF_NOWAIT) == 1
    except BlockingIOError:
        return False


def warm(paths: list[str]) -> None:
    """Has the files in the page cache."""
    room = bytearray(BLOCK)
    for path in paths:
        with open(path, "rb", buffering=0) as file:
            while file.readinto(room):
                pass


def cool(paths: list[str]) -> None:
    """Has the files out of the page cache.

    :raises OSError: where the system keeps them there.
    """
    for path in paths:
        with open(path, "rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        if is_cached(path):
            raise OSError(f"{path} stays in the page cache whatever is asked")


def best_reads(paths: list[str]) -> Depth:
    """The depth at which the disk reads fastest: each is tried with another part of the files, which are not cached."""
    blocks = [(path, start) for path in paths for start in range(0, os.path.getsize(path), BLOCK)]
    sample = min(SAMPLE, sum(map(os.path.getsize, paths)) // len(DEPTHS)) // BLOCK
    parts = [blocks[number * sample : (number + 1) * sample] for number in range(len(DEPTHS))]
    taken = {}
    for depth, part in zip(DEPTHS, parts, strict=True):
        smaller = [(path, start + at) for path, start in part for at in range(0, BLOCK, depth.block)]
        taken[depth] = _raw(smaller, depth, os.O_RDONLY, _read)
    return min(taken, key=taken.__getitem__)


def read_raw(paths: list[str], depth: Depth) -> float:
    """The seconds that reading the files past the page cache takes, to nowhere: what the disk can do."""
    blocks = [(path, start) for path in paths for start in range(0, os.path.getsize(path), depth.block)]
    return _raw(blocks, depth, os.O_RDONLY, _read)


def best_writes(path: str, bytes: int) -> Depth:
    """The depth at which the disk writes fastest."""
    sample = min(SAMPLE, bytes)
    taken = {depth: write_raw(path, sample, depth) for depth in DEPTHS}
    return min(taken, key=taken.__getitem__)


def write_raw(path: str, bytes: int, depth: Depth) -> float:
    """The seconds that writing a new file past the page cache takes, from its making down to the disk."""
    if os.path.exists(path):
        os.unlink(path)
    start = time.perf_counter()
    with open(path, "wb") as file:
        os.posix_fallocate(file.fileno(), 0, -(-bytes // depth.block) * depth.block)
    _raw([(path, at) for at in range(0, bytes, depth.block)], depth, os.O_WRONLY, _write)
    with open(path, "rb+") as file:
        os.fsync(file)
    return time.perf_counter() - start


def _read(file: int, room: mmap.mmap, start: int) -> None:
    os.preadv(file, [room], start)


def _write(file: int, room: mmap.mmap, start: int) -> None:
    os.pwritev(file, [room], start)


def _raw(
    blocks: list[tuple[str, int]], depth: Depth, mode: int, each: Callable[[int, mmap.mmap, int], None]
) -> float:
    files = {path: os.open(path, mode | os.O_DIRECT) for path in {path for path, _ in blocks}}
    # Pages of their own, which is what direct reads and writes want.
    rooms = [mmap.mmap(-1, depth.block) for _ in range(depth.threads)]
    for room in rooms:
        room.write(os.urandom(PAGE) * (depth.block // PAGE))
    todo = iter(blocks)

    def work(room: mmap.mmap) -> None:
        for path, start in todo:
            each(files[path], room, start)

    start = time.perf_counter()
    with ThreadPoolExecutor(depth.threads) as pool:
        list(pool.map(work, rooms))
    took = time.perf_counter() - start
    for file in files.values():
        os.close(file)
    return took
