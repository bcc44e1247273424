"""Moving a tree."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, Literal, TypeVar, overload

from . import _alone, _native, _trees
from ._devices import name_of
from ._errors import UnsupportedLeafError
from ._plan import Plan
from ._transfer import Transfer

if TYPE_CHECKING:
    from typing import Union

    import torch

    from ._devices import DeviceLike
    from ._native import SimulatedStream

    Stream = Union[torch.cuda.Stream, SimulatedStream]

T = TypeVar("T")


@overload
def to(
    tree: T,
    device: DeviceLike,
    *,
    non_blocking: Literal[False] = False,
    stream: Stream | None = None,
    dtype: torch.dtype | None = None,
    slab: bool = True,
    pin: bool | None = None,
) -> T: ...


@overload
def to(
    tree: T,
    device: DeviceLike,
    *,
    non_blocking: Literal[True],
    stream: Stream | None = None,
    dtype: torch.dtype | None = None,
    slab: bool = True,
    pin: bool | None = None,
) -> Transfer[T]: ...


def to(
    tree: Any,
    device: DeviceLike,
    *,
    non_blocking: bool = False,
    stream: Stream | None = None,
    dtype: torch.dtype | None = None,
    slab: bool = True,
    pin: bool | None = None,
) -> Any:
    """Moves every tensor in ``tree`` to ``device``, and gives a tree of the same types.

    A tree is any nesting of dicts, lists, tuples, named tuples, dataclasses, mappings, TensorDicts, what Hugging Face's
    tokenizers give, packed sequences, and whatever is registered with torch's pytree. Its leaves are torch tensors, numpy
    arrays, and what speaks DLPack; everything else passes through as it is.

    >>> import numpy, pinlane
    >>> batch = {"x": numpy.ones((2, 2)), "names": ["a", "b"]}
    >>> there = pinlane.to(batch, "sim")
    >>> pinlane.to(there, "cpu")
    {'x': array([[1., 1.],
           [1., 1.]]), 'names': ['a', 'b']}

    The results are what torch's ``tensor.to(device)`` gives, leaf by leaf:

    - a tensor that is there already is itself; one that is in the tree twice is moved once, and stays one object;
    - strides are kept where the elements fill their memory, as in channels-last; views of one storage become tensors of
      their own; bits that say "conjugate" or "negative" are resolved;
    - where gradients are tracked, the result of a tensor that requires them is no leaf: its gradient flows back to where the
      tensor was;
    - sparse, quantised and nested tensors, those of types of their own, and those with a tangent of forward-mode AD or within a
      transform of ``torch.func`` are moved by torch, one by one.

    On a GPU they lie in torch's own allocator, all in one allocation, and are ordered on torch's current stream: use them at
    once. From the host, numpy arrays become torch tensors. On a simulated device (``"sim"``), tensors are CPU tensors and
    arrays are arrays, over memory of the device.

    A tensor that is a tree by itself is moved by one blocking call of torch's where nothing is faster: up to about a mebibyte,
    and out of pinned memory always. That call waits for what its stream was given before.

    :param device: ``"cuda"``, ``"cuda:1"``, ``"cpu"``, ``"sim"``, a ``torch.device``, or a GPU's index.
    :param non_blocking: gives a :class:`Transfer` instead of the tree, and goes on while the bytes move. Without it the
        sources are free to change when the call returns.
    :param stream: a stream to order the copies on, in place of torch's current one of its device: they start when what is
        enqueued on it is done.
    :param dtype: what tensors of floating-point numbers are converted to; others keep theirs, complex ones too, which
        ``module.to`` converts.
    :param slab: whether the results share one allocation. It is freed when the last of them is, saving one of them with
        ``torch.save`` saves all, and one that is resized to more elements grows into the others; with ``False`` each has its own.
    :param pin: whether results on the host lie in pinned memory, out of the budget of the device that they come from. Unless
        told, they do while they have room: in half of what the device's slots leave of its budget, if they are of 16 KiB or
        more together, and those of over 8 MiB not the first time. Keep what is pinned while a copy of torch's own
        (``non_blocking=True``) reads it on another stream than the next call's: torch does not, as it does with its own.
    :raises NoSuchDeviceError: for a device that is not there.
    :raises TypeError: for a dtype that is not one of torch's for floating-point numbers, and for flags that are none.
    :raises ValueError: for a stream of a device that nothing comes from or goes to.
    :raises UnsupportedLeafError: for a leaf that can't move; its text says where in the tree it is.
    :raises OutOfMemoryError: where the device has no room; nothing has changed then.
    """
    if not (non_blocking or stream or dtype) and slab is True and pin is None and _alone.is_new(tree, device):
        return to(tree, device)
    target = name_of(device)
    if non_blocking:
        return transfer(tree, target, stream=stream, dtype=dtype, slab=slab, pin=pin)
    _refuse_module(tree)
    plan = Plan(target, stream, dtype, slab=slab, pin=pin, watch=False)
    flight = _native.start(_native.Tree(tree, plan.tensor_type, _trees.open), target, plan)
    if plan.results_stream is None or not target.startswith("cuda"):
        flight.land()
    else:
        flight.settle()
        flight.fence(target, plan.results_stream)
    given = flight.result()
    assert given is not None, "a flight gives its result once, and nobody else has asked"
    return given[0]


def transfer(
    tree: T,
    target: str,
    *,
    stream: Stream | None = None,
    dtype: torch.dtype | None = None,
    slab: bool = True,
    pin: bool | None = None,
    copies: bool = False,
) -> Transfer[T]:
    """The same without waiting, to a device by its full name. With `copies`, what is there already is not itself but a copy."""
    _refuse_module(tree)
    plan = Plan(target, stream, dtype, slab=slab, pin=pin, watch=True, copies=copies)
    return Transfer(_native.start(_native.Tree(tree, plan.tensor_type, _trees.open), target, plan), plan)


if not TYPE_CHECKING:
    # What callers call: it does what lone tensors want by itself.
    to = _alone.fronted(to)


def _refuse_module(tree: Any) -> None:
    """A module would pass through as it is, which nobody wants who moves one."""
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(tree, torch.nn.Module):
        raise UnsupportedLeafError(
            "moving a module: it is no tree of tensors, but changes where it is: use `module.to(device)`, or move its "
            "`state_dict()`"
        )
