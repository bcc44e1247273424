"""What only torch can do. Imported when torch is imported already, or needed.

Some of what is used of torch is not documented by it: each has a way to go on without.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Sequence
from typing import Any

import torch
from torch.autograd import forward_ad

from ._errors import DeviceError

Tensor = torch.Tensor
Parameter = torch.nn.Parameter
OutOfMemoryError: type[RuntimeError] = getattr(torch, "OutOfMemoryError", torch.cuda.OutOfMemoryError)
is_neg = torch.Tensor.is_neg

#: Equal tensors one after the other: one like them, shape and strides of each, where the first begins in bytes, how many
#: there are, and how far apart they begin.
Run = tuple[Any, tuple[int, ...], tuple[int, ...], int, int, int]

_RAW_STREAM = getattr(torch._C, "_cuda_getCurrentRawStream", None)


@functools.cache
def _initialise() -> None:
    """Has torch start CUDA, which it does at its own first use."""
    try:
        torch.cuda.init()  # type: ignore[no-untyped-call]
    except (AssertionError, RuntimeError) as error:
        raise DeviceError(f"moving tensors to a GPU: torch can't use it: {error}") from error


def current_stream(device: int) -> int:
    """The handle of the stream that torch enqueues work of this thread on."""
    _initialise()
    if _RAW_STREAM is not None:
        return int(_RAW_STREAM(device))
    return int(torch.cuda.current_stream(device).cuda_stream)


def _unwatched() -> contextlib.AbstractContextManager[object]:
    """Tensors made over parts of another's memory are not views of it for autograd: each is a tensor of its own, with its
    own version counter, as the results of ``to`` are. Where torch has no such guard, they are views."""
    guard = getattr(torch._C, "_ExcludeDispatchKeyGuard", None)
    if guard is None or _AUTOGRAD is None:
        return contextlib.nullcontext()
    context: contextlib.AbstractContextManager[object] = guard(_AUTOGRAD)
    return context


def _autograd_keys() -> Any:
    try:
        keys = torch._C.DispatchKeySet(torch._C.DispatchKey.ADInplaceOrView)
        for name in ("AutogradCPU", "AutogradCUDA"):
            keys = keys | torch._C.DispatchKeySet(getattr(torch._C.DispatchKey, name))
        return keys
    except AttributeError:
        return None


_AUTOGRAD = _autograd_keys()


def over(memory: Any) -> Tensor:
    """A tensor of bytes over memory of ours."""
    tensor: Tensor = torch.utils.dlpack.from_dlpack(memory)
    return tensor


def parts(memory: Tensor, runs: Sequence[Run]) -> list[Tensor]:
    """Tensors over ``memory``, a tensor of bytes: those of all runs in their order. Those without elements have memory of their
    own, which they may grow in: what is written to an ``out=`` of such a shape is not to land on its neighbours."""
    made: list[Tensor] = []
    typed: dict[torch.dtype, Tensor] = {}
    empty = torch.empty_strided
    with _unwatched():
        for example, shape, strides, offset, count, step in runs:
            dtype: torch.dtype = example.dtype
            if 0 in shape:
                made += [empty(shape, strides, dtype=dtype, device=memory.device) for _ in range(count)]
                continue
            size = dtype.itemsize
            whole = typed.get(dtype)
            if whole is None:
                # Of a file's bytes as many as make whole elements.
                some = memory if len(memory) % size == 0 else memory[: len(memory) // size * size]
                whole = typed[dtype] = some if dtype is torch.uint8 else some.view(dtype)
            if count == 1:
                made.append(whole.as_strided(shape, strides, offset // size))
            else:
                made += whole.as_strided((count, *shape), (step // size, *strides), offset // size).unbind(0)
    return made


def is_ordinary(leaf: Tensor) -> bool:
    """Whether a tensor is elements in memory of the host or a GPU, and of no type that means more than that."""
    return (
        type(leaf) in (Tensor, Parameter)
        and leaf.layout is torch.strided
        and leaf.device.type in ("cpu", "cuda")
        and not leaf.is_quantized
        and not leaf.is_nested
        and not _is_wrapped(leaf)
        and not (may_have_tangents() and _has_tangent(leaf))
    )


def may_have_tangents() -> bool:
    """Whether tensors that look as all others do may have a tangent of forward-mode AD beside their elements."""
    return _level() >= 0 and _transform() is None


def _has_tangent(leaf: Tensor) -> bool:
    return forward_ad.unpack_dual(leaf).tangent is not None  # type: ignore[no-untyped-call]


def _level() -> int:
    return int(getattr(forward_ad, "_current_level", -1))


def _nothing(*_: object) -> None:
    return None


_functorch: Any = getattr(torch._C, "_functorch", None)
#: The innermost transform of ``torch.func`` that this thread is in. What it works on is wrapped, tangents and all.
_transform: Any = getattr(_functorch, "peek_interpreter_stack", _nothing)
_is_wrapped: Any = getattr(_functorch, "is_functorch_wrapped_tensor", _nothing)


class Moved(torch.autograd.Function):
    """Makes a moved tensor the result of moving, as autograd sees it: the gradient goes back to where the source is. It is in
    a list, since an input that is given back is taken for a view of itself, which can't be written in place."""

    @staticmethod
    def forward(ctx: Any, source: Tensor, moved: list[Tensor]) -> Tensor:
        ctx.origin = (source.device, source.dtype)
        return moved[0]

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        device, dtype = ctx.origin
        return gradients[0].to(device=device, dtype=dtype), None


def with_gradient(source: Tensor, moved: Tensor) -> Tensor:
    """``moved`` as the result of moving ``source``, whether or not gradients are tracked at this moment: they were at the
    start."""
    with torch.enable_grad():
        result: Tensor = Moved.apply(source, [moved])  # type: ignore[no-untyped-call]
    return result
