"""Batches that worker processes pack into memory that the reader of the loader has pinned.

A batch that a DataLoader's worker hands over as it is costs a file descriptor, a message and a mapping for each of its
tensors, and lies in pages that are new each time: to be cleared, to be mapped, and not pinned. Here, all of its tensors are
packed into one *slab* of memory that the worker and the reader share all the time, and what crosses is one small message: the
slab's number, where each tensor begins, and the rest of the batch, pickled.

Who owns what is said in ``crates/python/src/slab_file.rs``: a file without a name, which the kernel takes back when its last
process is gone (so nothing is left in ``/dev/shm``, nor counted against its size, which containers keep small), and a word
and a lock for each slab, by which a slab that a dead worker had is found. Nobody waits for a slab: where none is free, or a
tensor finds no room in it, that goes the way that DataLoader's tensors always go.

The tree is not taken apart to be sent: it is pickled, and the pickler is told of each tensor that it meets.
"""

from __future__ import annotations

import io
import itertools
import math
import multiprocessing.context
import pickle
import secrets
import sys
import weakref
from collections.abc import Callable, Sequence
from multiprocessing import reduction
from typing import TYPE_CHECKING, Any, NamedTuple

from . import _native
from ._arguments import whole
from ._devices import name_of

if TYPE_CHECKING:
    import torch

    from ._devices import DeviceLike

# Where each tensor begins in a slab, in bytes.
_ALIGNMENT = 256

#: The slabs of this process, by a key that is the same in all that share them.
_known: weakref.WeakValueDictionary[str, _Pool] = weakref.WeakValueDictionary()


def collate(
    fn: Callable[[Any], Any] | None = None,
    *,
    device: DeviceLike | None = None,
    slab_bytes: int = 256 << 20,
    slabs: int = 64,
) -> Collate:
    """A ``collate_fn`` for torch's ``DataLoader``, whose workers pack each batch into one piece of shared, pinned memory.

    >>> import pinlane, torch
    >>> from torch.utils.data import DataLoader
    >>> samples = [{"x": torch.full((3,), float(number)), "y": number} for number in range(8)]
    >>> loader = DataLoader(
    ...     samples, batch_size=4, num_workers=2, collate_fn=pinlane.collate(), multiprocessing_context="fork"
    ... )
    >>> for batch in pinlane.prefetch(loader, "sim"):
    ...     print(batch["x"].sum(), batch["y"])
    tensor(18.) tensor([0, 1, 2, 3])
    tensor(66.) tensor([4, 5, 6, 7])

    What comes out is what ``fn`` returns, with ordinary tensors that lie next to each other. :func:`pinlane.to` and
    :func:`pinlane.prefetch` take them to the GPU from where they are. A slab is used again when the last tensor over it is
    gone; while all are in use, batches come as they do without this. Without workers it is ``fn``.

    Torch takes pinned slabs for pinned memory, but does not keep them while a copy of its own reads them: after
    ``tensor.to("cuda", non_blocking=True)``, keep the tensor until the copy is done. :func:`pinlane.to` keeps what it reads.

    It has to be what the worker calls last: nothing can be done to its result before the loader gives it out.

    :param fn: makes a batch of samples; torch's ``default_collate`` unless given, whose results are built where they are
        to lie. What another function returns is copied there.
    :param device: the device to pin slabs for, as far as its budget has room (see :func:`pinlane.set_pinned_budget`); torch's
        current GPU where there is one. Slabs that are not pinned work too, at the cost of one more copy.
    :param slab_bytes: the size of a slab. Memory is used for what was written there, and for no more.
    :param slabs: how many there are at most. As many are used as there are batches that were packed and are still in use.
    :raises TypeError: for what is no function, or no whole number.
    :raises ValueError: for slabs without room, no slabs, or more than 512.
    :raises NoSuchDeviceError: for a device that is not there.
    """
    return Collate(fn, device=device, slab_bytes=slab_bytes, slabs=slabs)


class Collate:
    """What :func:`pinlane.collate` gives: makes batches of samples."""

    def __init__(
        self, fn: Callable[[Any], Any] | None, *, device: DeviceLike | None, slab_bytes: int, slabs: int
    ) -> None:
        import torch.utils.data

        if device is not None and (name := name_of(device)) != "cpu":
            # One that is not there is told of here, and not by each batch.
            _native.open_device(name)
        if fn is not None and not callable(fn):
            raise TypeError(f"collating: what makes a batch of samples is a function, not {fn!r}")
        slab_bytes, slabs = whole(slab_bytes, "slab_bytes", 0), whole(slabs, "slabs, their number,", 0)
        self._fn = torch.utils.data.default_collate if fn is None else fn
        self._pool = _Pool(secrets.token_hex(8), _native.Slabs(slabs, slab_bytes), slabs, device)

    def __call__(self, samples: Any) -> Any:
        from torch.utils.data import default_collate, get_worker_info

        if get_worker_info() is None:
            return self._fn(samples)
        slab = self._pool.claim()
        if slab is None:
            return self._fn(samples)
        if self._fn is default_collate:
            return slab.packed(_collated_into(slab, samples))
        return slab.packed(self._fn(samples))


class _Pool:
    """The slabs that the processes of one loader share."""

    def __init__(self, key: str, slabs: _native.Slabs, count: int, device: DeviceLike | None) -> None:
        self.key = key
        self.slabs = slabs
        self._count = count
        self._device = device
        # All of a slab as a tensor of bytes, by its number: for workers.
        self._memory: dict[int, torch.Tensor] = {}
        _known[key] = self

    def __reduce__(self) -> tuple[Any, ...]:
        # The file goes to a process that is being started. Whoever else gets this gets slabs of their own.
        shared = None
        if multiprocessing.context.get_spawning_popen() is not None:
            shared = self.key, reduction.DupFd(self.slabs.fileno())
        return _pool, (shared, self._count, self.slabs.slab_bytes, self._device)

    def claim(self) -> _Slab | None:
        """A slab to fill; ``None`` when none is free."""
        claimed = self.slabs.claim()
        if claimed is None:
            return None
        number, word = claimed
        slab = _Slab(self, number, word)
        if number not in self._memory:
            from . import _torch

            self._memory[number] = _torch.over(self.slabs.memory(number))
        slab.memory = self._memory[number]
        return slab

    def device(self) -> str | None:
        """The device to pin for."""
        if self._device is not None:
            name = name_of(self._device)
            return None if name == "cpu" else name
        torch: Any = sys.modules["torch"]
        return name_of("cuda") if torch.cuda.is_available() else None


def _pool(shared: tuple[str, Any] | None, count: int, slab_bytes: int, device: DeviceLike | None) -> _Pool:
    """A pool in another process."""
    if shared is None:
        return _Pool(secrets.token_hex(8), _native.Slabs(count, slab_bytes), count, device)
    key, file = shared
    known = _known.get(key)
    with open(file.detach(), "rb") as opened:
        if known is not None:
            return known
        return _Pool(key, _native.Slabs(count, slab_bytes, opened.fileno()), count, device)


class _Place(NamedTuple):
    """Where in a slab a tensor lies."""

    dtype: torch.dtype
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    offset: int


class _Slab:
    """A slab that a worker fills. It is given up, if nothing was sent, when this is gone."""

    memory: torch.Tensor

    def __init__(self, pool: _Pool, number: int, word: int) -> None:
        self.pool = pool
        self.number = number
        self.word = word
        self.end = 0
        self._given_up = weakref.finalize(self, pool.slabs.give_up, number, word)
        self._given_up.atexit = False

    def place(self, shape: Sequence[int], strides: Sequence[int], dtype: torch.dtype) -> _Place | None:
        """Room for a tensor whose elements fill their memory; ``None`` when there is none left."""
        place = _Place(dtype, tuple(shape), tuple(strides), self.end)
        end = self.end + math.prod(shape) * dtype.itemsize
        if end > len(self.memory):
            return None
        self.end = -(-end // _ALIGNMENT) * _ALIGNMENT
        return place

    def tensor(self, place: _Place) -> torch.Tensor:
        """The tensor that lies there."""
        from . import _torch

        dtype, shape, strides, offset = place
        like = _Like(dtype)
        (tensor,) = _torch.parts(self.memory, [(like, shape, strides, offset, 1, 0)])
        return tensor

    def packed(self, tree: Any) -> Any:
        """The tree as it is to be sent: with its tensors in the slab, as far as there is room."""
        written = io.BytesIO()
        pickler = _Pickler(written, self)
        pickler.dump(tree)
        if not pickler.places:
            return tree
        return _Packed(self, _runs(pickler.places), written.getvalue())

    def send(self) -> None:
        """From now on the slab is the reader's."""
        self._given_up.detach()


class _Like(NamedTuple):
    """What tensors of a run have in common."""

    dtype: torch.dtype


class _Packed:
    """A batch on its way: pickled by the worker, it is unpickled as the batch."""

    def __init__(self, slab: _Slab, runs: list[tuple[Any, ...]], rest: bytes) -> None:
        self._slab = slab
        self._runs = runs
        self._rest = rest

    def __reduce__(self) -> tuple[Any, ...]:
        slab = self._slab
        slab.send()
        return _unpacked, (slab.pool.key, slab.number, slab.word, slab.end, self._runs, self._rest)


def _unpacked(key: str, number: int, word: int, bytes: int, runs: list[tuple[Any, ...]], rest: bytes) -> Any:
    """The batch that a worker has packed, in the process that reads it."""
    from . import _torch

    pool = _known.get(key)
    if pool is None:
        raise RuntimeError("reading a batch of pinlane.collate: its loader is gone, or is another process's")
    memory = pool.slabs.take(number, word, bytes, pool.device())
    if memory is None:
        raise RuntimeError(
            "reading a batch of pinlane.collate: the worker process that packed it died, and another has its memory now"
        )
    views = [(_Like(dtype), *rest_of_run) for dtype, *rest_of_run in runs]
    tensors = _torch.parts(_torch.over(memory), views)
    return _Unpickler(io.BytesIO(rest), tensors).load()


class _Pickler(reduction.ForkingPickler):
    """Pickles a tree, and copies tensors that it meets into a slab."""

    def __init__(self, file: io.BytesIO, slab: _Slab) -> None:
        super().__init__(file, pickle.HIGHEST_PROTOCOL)
        self.places: list[_Place] = []
        self._slab = slab
        self._first = slab.memory.data_ptr()
        self._torch: Any = sys.modules["torch"]
        # By identity, with the tensor, so that no other gets its identity meanwhile.
        self._seen: dict[int, tuple[int, torch.Tensor]] = {}

    def persistent_id(self, thing: Any) -> int | None:
        """The number of a tensor in the slab; ``None`` for all else."""
        if type(thing) is not self._torch.Tensor:
            return None
        seen = self._seen.get(id(thing))
        if seen is not None:
            return seen[0]
        if not _is_movable(self._torch, thing):
            return None
        place = self._place_of(thing)
        if place is None:
            return None
        number = len(self.places)
        self.places.append(place)
        self._seen[id(thing)] = number, thing
        return number

    def _place_of(self, tensor: torch.Tensor) -> _Place | None:
        slab = self._slab
        shape, dtype = tuple(tensor.shape), tensor.dtype
        offset = tensor.data_ptr() - self._first
        if 0 <= offset < slab.end and tensor.numel() > 0:
            return _Place(dtype, shape, tensor.stride(), offset)
        like = self._torch.empty_like(tensor, device="meta")
        place = slab.place(shape, like.stride(), dtype)
        if place is not None:
            slab.tensor(place).copy_(tensor)
        return place


class _Unpickler(pickle.Unpickler):
    """Unpickles a tree with the tensors of a slab."""

    def __init__(self, file: io.BytesIO, tensors: list[torch.Tensor]) -> None:
        super().__init__(file)
        self._tensors = tensors

    def persistent_load(self, number: int) -> torch.Tensor:
        """The tensor of that number."""
        return self._tensors[number]


def _is_movable(torch: Any, tensor: torch.Tensor) -> bool:
    """Whether a tensor is its elements in memory of the host. (Copying resolves bits that say "conjugate" or "negative".)"""
    return (
        tensor.layout is torch.strided
        and tensor.device.type == "cpu"
        and not tensor.requires_grad
        and not tensor.is_quantized
        and not tensor.is_nested
    )


def _collated_into(slab: _Slab, samples: Any) -> Any:
    """What torch's ``default_collate`` makes of samples, its tensors stacked where they are to lie."""
    import torch
    from torch.utils.data._utils.collate import collate, collate_tensor_fn, default_collate_fn_map

    def stack(tensors: Sequence[torch.Tensor], *, collate_fn_map: Any = None) -> Any:
        first = tensors[0]
        if type(first) is torch.Tensor and _is_movable(torch, first):
            shape = (len(tensors), *first.shape)
            place = slab.place(shape, first.new_empty(shape, device="meta").stride(), first.dtype)
            if place is not None:
                return torch.stack(tuple(tensors), 0, out=slab.tensor(place))
        return collate_tensor_fn(tensors, collate_fn_map=collate_fn_map)

    # Looked at in order: a subclass of tensors that has a way of its own keeps it.
    ways = {kind: way for kind, way in default_collate_fn_map.items() if kind is not torch.Tensor}
    return collate(samples, collate_fn_map={**ways, torch.Tensor: stack})


def _runs(places: list[_Place]) -> list[tuple[Any, ...]]:
    """Places as few runs of equal tensors: dtype, shape, strides, where the first begins, how many, how far apart."""
    runs: list[tuple[Any, ...]] = []
    first = 0
    while first < len(places):
        dtype, shape, strides, offset = places[first]
        count, step = 1, 0
        for other in itertools.islice(places, first + 1, None):
            if other[:3] != (dtype, shape, strides):
                break
            apart = other.offset - (offset + (count - 1) * step)
            if count == 1:
                step = apart
            if apart != step or step <= 0 or step % dtype.itemsize:
                break
            count += 1
        runs.append((dtype, shape, strides, offset, count, step if count > 1 else 0))
        first += count
    return runs
