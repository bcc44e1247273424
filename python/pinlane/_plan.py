"""How the leaves of one tree are to be moved: what the caller asked for, and what the native half leaves to torch and numpy.

The native half reads the attributes, and calls the methods for leaves that need more than their bytes copied.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterable, Sequence
from types import ModuleType
from typing import Any

from . import _native, _trees
from ._arguments import flag
from ._errors import UnsupportedLeafError, out_of_memory

#: Equal leaves one after the other: see `pinlane._torch.Run`.
Run = tuple[Any, tuple[int, ...], tuple[int, ...], int, int, int]

#: The result, what to move instead, whether that is a numpy array, and what to do with what arrives.
Prepared = tuple[Any, Any, bool, "Callable[[Any], Any] | None"]


class Plan:
    """What is to become of one tree."""

    __slots__ = (
        "_stream",
        "convert",
        "copies",
        "dtype",
        "grads",
        "is_neg",
        "parameter_type",
        "pin",
        "results_stream",
        "slab",
        "stream",
        "stream_device",
        "target",
        "tensor_type",
        "torch",
        "watch",
    )

    def __init__(
        self,
        target: str,
        stream: Any,
        dtype: Any,
        *,
        slab: bool,
        pin: bool | None,
        watch: bool,
        copies: bool = False,
    ) -> None:
        if target != "cpu":
            _native.open_device(target)
        self.torch: Any = torch_side(needed=target.startswith("cuda"))
        self.target = target
        self.dtype = None if dtype is None else floating(dtype)
        self.convert = dtype is not None
        self.slab = flag(slab, "slab")
        self.pin = None if pin is None else flag(pin, "pin, unless it is None,")
        self.watch = watch
        self.copies = copies
        self.tensor_type = None
        self.parameter_type = None
        self.is_neg = None
        self.grads = False
        self._stream = stream
        if self.torch is not None:
            self.tensor_type = self.torch.Tensor
            self.parameter_type = self.torch.Parameter
            self.is_neg = self.torch.is_neg
            self.grads = self.torch.torch.is_grad_enabled()
            self.convert = self.convert or self.torch.may_have_tangents()
        self.stream_device: str | None = None
        self.stream: int | None = None
        if stream is not None:
            self.stream_device, self.stream = name_of_stream(stream)
        self.results_stream = self.stream_now()
        if stream is None and self.results_stream is not None:
            self.stream_device, self.stream = target, self.results_stream

    # ---- streams

    def stream_now(self) -> int | None:
        """The stream that results are ordered on: the caller's, if it is the target's, or torch's current one there."""
        if self._stream is not None and self.stream_device == self.target:
            return self.stream
        if self.target.startswith("cuda"):
            return self.stream_of(int(self.target[5:]))
        return None

    def current_stream(self) -> Any:
        """Torch's current stream on the target, a GPU."""
        return self.torch.torch.cuda.current_stream(int(self.target[5:]))

    def stream_of(self, device: int) -> int:
        """The handle of torch's current stream on a GPU."""
        return int(self.torch.current_stream(device))

    def mark_used(self, tree: Any, streams: Iterable[Any]) -> None:
        """Tells torch's allocator that results are used on other streams than the one that their memory is of."""
        for leaf in _native.Tree(tree, self.tensor_type, _trees.open).leaves:
            if isinstance(leaf, self.torch.Tensor) and leaf.is_cuda and leaf.layout is self.torch.torch.strided:
                for stream in streams:
                    leaf.record_stream(stream)

    def _in_order(self) -> contextlib.AbstractContextManager[Any]:
        """Has torch, in what it does itself, work on the caller's stream."""
        if self._stream is None or isinstance(self._stream, _native.SimulatedStream):
            return contextlib.nullcontext()
        context: contextlib.AbstractContextManager[Any] = self.torch.torch.cuda.stream(self._stream)
        return context

    # ---- memory

    def room(self, bytes: int) -> tuple[Any, int]:
        """Memory on the target GPU, out of torch's own allocator, as a tensor of bytes."""
        try:
            memory = self._room(bytes)
        except self.torch.OutOfMemoryError:
            # What was dropped may be kept for copies that are on their way, or were a moment ago.
            _native.drain(self.target)
            try:
                memory = self._room(bytes)
            except self.torch.OutOfMemoryError as full:
                raise out_of_memory()(f"making room for {bytes} bytes of tensors on {self.target}: {full}") from full
        return memory, memory.data_ptr()

    def _room(self, bytes: int) -> Any:
        torch = self.torch.torch
        with self._in_order():
            return torch.empty(bytes, dtype=torch.uint8, device=self.target)

    def tensors(self, memory: Any, runs: Sequence[Run]) -> list[Any]:
        """Tensors over ``memory``, as the runs say."""
        if isinstance(memory, _native.Memory):
            memory = self.torch.over(memory)
        made: list[Any] = self.torch.parts(memory, runs)
        return made

    def arrays(self, memory: Any, runs: Sequence[Run]) -> list[Any]:
        """Numpy arrays over ``memory``, as the runs say."""
        import numpy

        whole = numpy.asarray(memory)
        made = []
        for example, shape, strides, offset, count, step in runs:
            dtype = example.dtype
            steps = tuple(stride * dtype.itemsize for stride in strides)
            for index in range(count):
                made.append(numpy.ndarray(shape, dtype, whole, offset + index * step, steps))
        return made

    # ---- leaves that are more than their bytes

    def packed(self, leaf: Any) -> Any:
        """A tensor on a device that leaves gaps, without them."""
        if self.torch is None or not isinstance(leaf, self.torch.Tensor):
            return leaf.copy(order="K")
        with self._in_order():
            self._mark(leaf)
            return leaf.clone(memory_format=self.torch.torch.preserve_format)

    def copied(self, leaf: Any) -> Any:
        """A copy of what is on the host already, or was moved by torch."""
        if self.torch is not None and isinstance(leaf, self.torch.Tensor):
            return leaf.clone()
        return leaf.copy(order="K")

    def prepare(self, leaf: Any, path: str) -> Prepared:
        """What to do with a leaf that the native half does not move as it is."""
        with self._in_order():
            result, instead, is_array, finish = self._prepare(leaf, path)
            if self.copies and result is not None:
                result = self.copied(result)
        return result, instead, is_array, finish and self._finishing(finish)

    def _finishing(self, finish: Callable[[Any], Any]) -> Callable[[Any], Any]:
        def finished(moved: Any) -> Any:
            with self._in_order():
                return finish(moved)

        return finished

    def _mark(self, leaf: Any) -> None:
        """Tells torch's allocator that the caller's stream reads a leaf, whose memory may be another's: the caller may drop
        it before that stream has come to it."""
        given = self._stream
        if given is not None and leaf.is_cuda and self.stream_device == f"cuda:{leaf.device.index}":
            leaf.record_stream(given)

    def _prepare(self, leaf: Any, path: str) -> Prepared:
        numpy = sys.modules.get("numpy")
        if numpy is not None and isinstance(leaf, numpy.ndarray):
            return self._prepare_array(numpy, leaf, path)
        self.torch = torch_side(needed=True)
        if not isinstance(leaf, self.torch.Tensor):
            try:
                leaf = self.torch.torch.from_dlpack(leaf)
            except MemoryError:
                raise
            except Exception as error:
                raise unsupported(leaf, path, f"it can't be exported by DLPack: {error}") from error
        if not self.torch.is_ordinary(leaf):
            return self._moved_by_torch(leaf, path), None, False, None
        dtype = self._dtype_for(leaf.is_floating_point(), leaf.dtype)
        if dtype is None and self._is_there(leaf) and (self.target == "cpu" or not self.copies):
            return leaf, None, False, None
        self._mark(leaf)
        source = leaf.detach().resolve_conj().resolve_neg()
        finish: Callable[[Any], Any] | None = None
        if dtype is not None:
            # Where there are fewer bytes to move; what torch makes of a simulated device's tensor is the host's.
            if dtype.itemsize <= leaf.dtype.itemsize or self.target.startswith("sim"):
                source = source.to(dtype)
            else:
                finish = _converter(dtype)
        if self.grads and leaf.requires_grad:
            finish = _grower(self.torch.with_gradient, leaf, finish)
        return None, source, False, finish

    def _prepare_array(self, numpy: ModuleType, leaf: Any, path: str) -> Prepared:
        kind = type(leaf)
        if issubclass(kind, numpy.ma.MaskedArray):
            raise unsupported(leaf, path, "its mask would be lost: move its `data` and its `mask`")
        if leaf.dtype.hasobject:
            raise unsupported(leaf, path, "its elements are Python objects")
        if self.target == "cpu" and _native.simulated_device_of(leaf.ctypes.data) is None:
            if self.dtype is None or leaf.dtype.kind != "f":
                return leaf, None, False, None
        size = leaf.dtype.itemsize
        # The engine gathers elements of these widths, and moves any that leave no gaps.
        is_whole = leaf.flags.forc or size in (1, 2, 4, 8, 16)
        movable = is_whole and all(stride >= 0 and size and stride % size == 0 for stride in leaf.strides)
        if self.target.startswith("cuda"):
            # Torch warns of arrays that it could write to and must not.
            is_torchs = movable and leaf.dtype.isnative and leaf.flags.writeable
            source = leaf if is_torchs else numpy.array(leaf, leaf.dtype.newbyteorder("="))
            try:
                tensor = self.torch.torch.from_numpy(source)
            except TypeError as error:
                raise unsupported(leaf, path, str(error)) from error
            return self._prepare(tensor, path)
        if not movable:
            leaf = numpy.array(leaf, order="C")
        dtype = self._dtype_for(leaf.dtype.kind == "f", str(leaf.dtype))
        if dtype is not None:
            try:
                leaf = leaf.astype(_numpy_name(dtype), copy=False)
            except TypeError as error:
                raise unsupported(leaf, path, f"numpy has no {dtype}; convert it to a tensor first") from error
        return None, leaf, True, viewer(numpy, kind)

    def _dtype_for(self, is_floating: bool, dtype: Any) -> Any:
        """The dtype that a leaf is to be converted to; ``None`` where it keeps its own."""
        if self.dtype is None or not is_floating:
            return None
        mine = self.dtype if not isinstance(dtype, str) else _numpy_name(self.dtype)
        return None if mine == dtype else self.dtype

    def _is_there(self, leaf: Any) -> bool:
        device = leaf.device
        if device.type == "cuda":
            return bool(self.target == f"cuda:{device.index}")
        simulated = _native.simulated_device_of(leaf.data_ptr())
        return self.target == (simulated or "cpu")

    def _moved_by_torch(self, leaf: Any, path: str) -> Any:
        """What torch's own ``to`` makes of a sparse, quantised or nested tensor, or of one of a type of its own."""
        if self.target.startswith("sim"):
            reason = "a simulated device holds ordinary dense tensors only, none with a tangent or within torch.func"
            raise unsupported(leaf, path, reason)
        try:
            return leaf.to(self.target, self._dtype_for(leaf.is_floating_point(), leaf.dtype))
        except self.torch.OutOfMemoryError:
            raise
        except (NotImplementedError, RuntimeError, TypeError) as error:
            raise unsupported(leaf, path, f"torch says: {error}") from error


def torch_side(*, needed: bool) -> ModuleType | None:
    """The part of this package that uses torch, where torch is imported or needed."""
    if not needed and sys.modules.get("torch") is None:
        return None
    from . import _torch

    return _torch


def name_of_stream(stream: Any) -> tuple[str, int]:
    """The device and the handle of a stream: torch's, or a simulated device's."""
    if isinstance(stream, _native.SimulatedStream):
        return stream.device, stream.handle
    handle = getattr(stream, "cuda_stream", None)
    if handle is None:
        raise TypeError(f"a stream is a torch.cuda.Stream, not {stream!r}")
    return f"cuda:{stream.device.index}", handle


def unsupported(leaf: Any, path: str, reason: str, doing: str = "moving") -> UnsupportedLeafError:
    """The error for a leaf that can't move."""
    kind = type(leaf)
    return UnsupportedLeafError(f"{doing} {path or 'itself'}: {kind.__module__}.{kind.__qualname__}: {reason}")


def floating(dtype: Any) -> Any:
    """The dtype that tensors of floating-point numbers are to be converted to: torch's."""
    torch = torch_side(needed=True)
    assert torch is not None, "it was needed"
    if not isinstance(dtype, torch.torch.dtype):
        raise TypeError(f"the dtype to convert to is one of torch's, such as torch.float16, not {dtype!r}")
    if not (dtype.is_floating_point or dtype.is_complex):
        raise TypeError(f"converting floating-point tensors to {dtype}: it has to be floating-point or complex")
    return dtype


def _numpy_name(dtype: Any) -> str:
    return str(dtype).removeprefix("torch.")


def _converter(dtype: Any) -> Callable[[Any], Any]:
    return lambda moved: moved.to(dtype)


def viewer(numpy: ModuleType, kind: type) -> Callable[[Any], Any] | None:
    """Makes an array one of a kind of its own; ``None`` where it stays a plain one."""
    # Of a file that is mapped into memory nothing is left.
    if kind is numpy.ndarray or issubclass(kind, numpy.memmap):
        return None
    return lambda moved: moved.view(kind)


def _grower(
    with_gradient: Callable[[Any, Any], Any], leaf: Any, first: Callable[[Any], Any] | None
) -> Callable[[Any], Any]:
    def grow(moved: Any) -> Any:
        return with_gradient(leaf, moved if first is None else first(moved))

    return grow
