"""Ways to load and save checkpoints, each run by a process of its own: pinlane, and the peers that can be imported.

    python checkpoint_ways.py WAY DEVICE [FOLDER ...]

`checkpoint_side_by_side.py` starts one for each way and has them take turns. The folders come first in the module path, so
that two versions of a package can be compared. Commands are lines of JSON on standard input, answers on standard output; the
first answer says what the way is, or why it can't be used.
"""

from __future__ import annotations

import abc
import gc
import importlib
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

Tensors = dict[str, torch.Tensor]


class Way(abc.ABC):
    """One way. What a way does not have, it leaves `None`."""

    #: What is imported.
    module = ""
    #: Whether it loads to CUDA devices alone.
    wants_cuda = False

    def __init__(self, device: str) -> None:
        if self.wants_cuda and not device.startswith("cuda"):
            raise ValueError(f"it loads to CUDA devices only, not to {device}")
        self.device = device
        self.package: Any = importlib.import_module(self.module)

    @abc.abstractmethod
    def load(self, files: list[str]) -> Tensors:
        """All tensors of the files, on the device."""

    #: Tensors as they come.
    stream: Callable[[list[str]], Iterator[tuple[str, torch.Tensor]]] | None = None
    #: Loads into tensors that are there.
    load_into: Callable[[Tensors, list[str]], Any] | None = None
    #: Saves, down to the disk: to files of so many bytes, where that is told and the way can, else to one file.
    save: Callable[[Tensors, str, int | None], Any] | None = None


class Pinlane(Way):
    module = "pinlane"

    def load(self, files: list[str]) -> Tensors:
        return self.package.load(files, self.device)

    def stream(self, files: list[str]) -> Iterator[tuple[str, torch.Tensor]]:
        return self.package.open(files).stream(self.device)

    def load_into(self, tensors: Tensors, files: list[str]) -> None:
        self.package.load_into(tensors, files)

    def save(self, tensors: Tensors, path: str, shard: int | None) -> None:
        self.package.save(tensors, path, max_shard_bytes=shard)


class Safetensors(Way):
    module = "safetensors.torch"

    def __init__(self, device: str) -> None:
        super().__init__(device)
        self.device = "cpu" if device == "sim" else device

    def load(self, files: list[str]) -> Tensors:
        found: Tensors = {}
        for file in files:
            found |= self.package.load_file(file, device=self.device)
        return found

    def load_into(self, tensors: Tensors, files: list[str]) -> None:
        for file in files:
            for name, tensor in self.package.load_file(file, device=self.device).items():
                tensors[name].copy_(tensor)

    def save(self, tensors: Tensors, path: str, shard: int | None) -> None:
        self.package.save_file(tensors, path)
        with open(path, "rb+") as file:
            os.fsync(file)


class SafetensorsPrefetch(Safetensors):
    """The loader that came with 0.9."""

    module = "safetensors"
    wants_cuda = True
    load_into = None
    save = None

    def __init__(self, device: str) -> None:
        super().__init__(device)
        if not hasattr(self.package.safe_open, "prefetch"):
            raise ImportError(f"safetensors {self.package.__version__} has no prefetch")

    def load(self, files: list[str]) -> Tensors:
        return dict(self.stream(files))

    def stream(self, files: list[str]) -> Iterator[tuple[str, torch.Tensor]]:
        opened = [self.package.safe_open(file, framework="pt", device=self.device) for file in files]
        for loader in [file.prefetch() for file in opened]:
            yield from loader


class FastSafetensors(Way):
    module = "fastsafetensors"
    wants_cuda = True

    def load(self, files: list[str]) -> Tensors:
        # GPUDirect Storage wants a driver of its own.
        with self.package.fastsafe_open(files, device=self.device, nogds=True) as opened:
            return {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118


class InstantTensor(Way):
    module = "instanttensor"
    wants_cuda = True
    #: What it chooses by itself reads past the page cache, but for what is in memory only.
    backend: str | None = None

    def load(self, files: list[str]) -> Tensors:
        return dict(self.stream(files))

    def stream(self, files: list[str]) -> Iterator[tuple[str, torch.Tensor]]:
        backend = None if self.backend is None else self.package.BackendPolicy[self.backend]
        with self.package.safe_open(files, framework="pt", device=self.device, backend=backend) as opened:
            yield from opened.tensors()


class InstantTensorBuffered(InstantTensor):
    backend = "BUFFERED"


class Streamer(Way):
    module = "runai_model_streamer"
    wants_cuda = True

    def load(self, files: list[str]) -> Tensors:
        with self.package.SafetensorsStreamer() as streamer:
            streamer.stream_files(files)
            return {name: tensor.to(self.device) for name, tensor in streamer.get_tensors()}


WAYS: dict[str, type[Way]] = {
    "pinlane": Pinlane,
    "safetensors": Safetensors,
    "safetensors_prefetch": SafetensorsPrefetch,
    "fastsafetensors": FastSafetensors,
    "instanttensor": InstantTensor,
    "instanttensor_buffered": InstantTensorBuffered,
    "runai_streamer": Streamer,
}


#: Words that are weighed at a time, so that it takes little memory.
WORDS = 1 << 24


def digest(tensors: Tensors) -> str:
    """What tells tensors from others: of each the sum of its words, each times an odd number of its place, modulo 2**64."""
    told = []
    for name in sorted(tensors):
        sums = [
            (part * (torch.arange(number * WORDS, number * WORDS + len(part), device=part.device) * 2 + 1)).sum()
            for number, part in enumerate(words(tensors[name]).split(WORDS))
        ]
        told.append(torch.stack(sums).sum())
    flat = torch.stack(told).tolist() if told else []
    return f"{len(told)}:{hash(tuple(flat)):x}"


def words(tensor: torch.Tensor) -> torch.Tensor:
    """The bytes of a tensor as the widest whole numbers that they are, which wrap as they are added."""
    width = next(dtype for dtype in (torch.int64, torch.int32, torch.int16, torch.uint8) if tensor.nbytes % dtype.itemsize == 0)
    flat = tensor.reshape(-1)
    if tensor.data_ptr() % width.itemsize or tensor.storage_offset() * tensor.itemsize % width.itemsize:
        flat = flat.clone()
    # Narrower ones become as wide, for the sum.
    return flat.view(width).to(torch.int64)


class Process:
    """What the commands do."""

    def __init__(self, way: Way) -> None:
        self.way = way
        self.held: Tensors = {}

    def _timed(self, work: Callable[[], Any]) -> tuple[float, Any]:
        self.synchronize()
        start = time.perf_counter()
        result = work()
        self.synchronize()
        return time.perf_counter() - start, result

    def synchronize(self) -> None:
        if self.way.device.startswith("cuda"):
            torch.cuda.synchronize()

    def load(self, files: list[str], check: bool) -> dict[str, Any]:
        seconds, tensors = self._timed(lambda: self.way.load(files))
        return {"seconds": seconds, "digest": digest(tensors) if check else None}

    def first(self, files: list[str]) -> dict[str, Any]:
        if self.way.stream is None:
            return {"error": "it gives no tensors as they come"}
        begin = self.way.stream

        def begun() -> tuple[Any, Iterator[Any]]:
            stream = iter(begin(files))
            return next(stream), stream

        seconds, (_, stream) = self._timed(begun)
        for _ in stream:
            pass
        return {"seconds": seconds}

    def hold(self, files: list[str]) -> dict[str, Any]:
        """Keeps tensors for what works on such."""
        self.held = self.way.load(files)
        return {}

    def into(self, files: list[str], check: bool) -> dict[str, Any]:
        if self.way.load_into is None:
            return {"error": "it loads into no tensors that are there"}
        for tensor in self.held.values():
            tensor.zero_()
        seconds, _ = self._timed(lambda: self.way.load_into(self.held, files))  # type: ignore[misc]
        return {"seconds": seconds, "digest": digest(self.held) if check else None}

    def save(self, path: str, shard: int | None) -> dict[str, Any]:
        if self.way.save is None:
            return {"error": "it does not save"}
        seconds, _ = self._timed(lambda: self.way.save(self.held, path, shard))  # type: ignore[misc]
        return {"seconds": seconds}

    def drop(self) -> dict[str, Any]:
        self.held = {}
        return {}

    def memory(self, files: list[str]) -> dict[str, Any]:
        """How much host memory a load takes at most, beyond what there was, in bytes; and what of it is pinned."""
        self.synchronize()
        before = resident("VmRSS")
        # From here on the most that is resident is counted anew.
        Path("/proc/self/clear_refs").write_text("5")
        self.way.load(files)
        self.synchronize()
        told = {"growth": resident("VmHWM") - before}
        if isinstance(self.way, Pinlane):
            name = "sim:0" if self.way.device == "sim" else "cuda:0"
            stats = self.way.package.stats().devices[name]
            told |= {"pinned_peak": stats.pinned_peak, "pinned_budget": stats.pinned_budget}
        return told


def resident(line: str) -> int:
    """A number of bytes in what the system says of this process."""
    for text in Path("/proc/self/status").read_text().splitlines():
        if text.startswith(line + ":"):
            return int(text.split()[1]) << 10
    raise RuntimeError(f"/proc/self/status has no {line}")


def main() -> None:
    # What packages print is none of the answers.
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)

    def answer(told: dict[str, Any]) -> None:
        print(json.dumps(told), file=answers)

    name, device, *folders = sys.argv[1:]
    sys.path[:0] = folders
    try:
        if device.startswith("cuda"):
            torch.zeros(1, device=device)
        process = Process(WAYS[name](device))
    except Exception as error:  # whatever keeps a peer from working
        answer({"error": f"{type(error).__name__}: {error}"})
        return
    answer({"version": getattr(process.way.package, "__version__", "")})
    for line in sys.stdin:
        command = json.loads(line)
        try:
            answer(getattr(process, command.pop("do"))(**command))
        except Exception as error:
            answer({"error": f"{type(error).__name__}: {error}"})
        gc.collect()


if __name__ == "__main__":
    main()
