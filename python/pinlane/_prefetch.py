"""Copies that stay ahead of their consumer.

A *line* is what one run over the source and its consumer share: the transfers that are on their way, in the source's order.
A thread of its own pulls from the source and starts transfers while fewer than ``depth`` are in the line (and, where bytes
are bounded, while they have room); the consumer takes them out in front. The line has ended when the source has, when
something failed (the failure stands in the line, behind the batches that came before it), or when the consumer wants no
more.

Who holds whom: the thread holds the line, never the iterator that the consumer has. So an iterator that is dropped, by a
``break`` or an exception, is freed at once, and stops its line.

Streams. The thread works as the consumer would have: on the stream that was current where the iterator was made, which
is the stream that the batches are used on, nearly always. So torch's allocator gives memory of that stream: what was freed
there may be handed out again although the GPU still works on it, and the engine starts no copy before what the stream had
been given by then is done. A batch is given out ordered on the stream that is current where ``next()`` is called. Where
that is another one, the transfer marks the batch's memory as used there (``record_stream``), so that it is not handed out
again before that stream is done with it. Memory from a stream of the thread's own would let copies start sooner, by less than a
step; but then all memory would have to be marked, and a consumer that enqueues work far ahead of the GPU would get a new
allocation for every batch, as none could be handed out again before the GPU came to it.

Sources that hand out the same memory again. A generator, or a class made of DataLoader, may fill one buffer again and again: so
the thread pulls the next batch only when the engine has read the last one, and what is on the device already is copied there.
Batches that come out of a DataLoader's worker processes are new memory, each, and there is nothing to wait for.
"""

from __future__ import annotations

import collections
import contextlib
import contextvars
import itertools
import os
import sys
import threading
import weakref
from collections.abc import Callable, Iterable, Iterator
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, TypeVar

from . import _native, _trees
from ._arguments import flag, whole
from ._devices import name_of
from ._move import transfer as move
from ._plan import floating, torch_side
from ._transfer import Transfer

if TYPE_CHECKING:
    import torch

    from ._devices import DeviceLike

T = TypeVar("T")

#: How long dropping an iterator waits for a source that is about to give a batch, in seconds.
_PATIENCE = 5.0

_numbers = itertools.count(1)


def prefetch(
    iterable: Iterable[T],
    device: DeviceLike,
    depth: int = 2,
    max_bytes: int | None = None,
    *,
    dtype: torch.dtype | None = None,
    slab: bool = True,
) -> Prefetch[T]:
    """The batches of ``iterable`` on ``device``, moved there before they are asked for.

    >>> import numpy, pinlane
    >>> source = [{"x": numpy.full(2, number)} for number in range(3)]
    >>> for batch in pinlane.prefetch(source, "sim"):
    ...     print(batch["x"].sum())
    0
    2
    4

    Takes whatever can be iterated over: a torch ``DataLoader``, Ray Data's batches, a list, a generator. A thread pulls from
    it and starts the copies; batches come in its order. What it raises is raised in its place, after the batches before. It
    has a length where ``iterable`` has one, and each ``iter()`` of it starts anew where one of ``iterable`` does.

    Leave the loop whenever you like: the thread ends, and nothing stays on its way. What was pulled ahead is lost. To be
    sure when that happens, use it as a context manager:

    >>> with pinlane.prefetch(source, "sim", depth=1) as batches:
    ...     first = next(iter(batches))
    >>> first["x"]
    array([0, 0])

    On a GPU a batch is ordered on the stream that is current where it is asked for: use it at once.

    :param device: where to; see :func:`pinlane.to`.
    :param depth: how many batches may be pulled ahead of the one that the consumer has.
    :param max_bytes: the most bytes that may be on their way, or there and not yet asked for. A batch that is larger than
        that goes alone.
    :param dtype: what tensors of floating-point numbers are converted to; see :func:`pinlane.to`.
    :param slab: whether the tensors of a batch share one allocation.
    :raises TypeError: for a depth or a bound that is no whole number, a dtype that is not one of torch's for floating-point
        numbers, a `slab` that is neither true nor false.
    :raises ValueError: for one below 1.
    :raises NoSuchDeviceError: for a device that is not there.
    """
    depth = whole(depth, "the depth", 1)
    if max_bytes is not None:
        max_bytes = whole(max_bytes, "max_bytes, the most bytes on their way,", 1)
    if dtype is not None:
        dtype = floating(dtype)
    slab = flag(slab, "slab")
    name_of(device)
    return Prefetch(iterable, device, depth, max_bytes, dtype=dtype, slab=slab)


class Prefetch(Generic[T]):
    """What :func:`pinlane.prefetch` gives: something to iterate over."""

    def __init__(
        self,
        iterable: Iterable[T],
        device: DeviceLike,
        depth: int,
        max_bytes: int | None,
        *,
        dtype: torch.dtype | None,
        slab: bool,
    ) -> None:
        self._iterable = iterable
        self._device = device
        self._bounds = _Bounds(depth, max_bytes)
        self._options: dict[str, Any] = {"dtype": dtype, "slab": slab}
        self._running: weakref.WeakSet[PrefetchIterator[T]] = weakref.WeakSet()
        self._is_closed = False

    def __iter__(self) -> PrefetchIterator[T]:
        if self._is_closed:
            raise ValueError("iterating over something prefetched that was closed: make another with pinlane.prefetch")
        target = name_of(self._device)
        if target != "cpu":
            _native.open_device(target)
        surroundings = _Surroundings(target)
        source = iter(self._iterable)
        is_fresh = _gives_fresh_memory(self._iterable)

        def start(batch: T) -> Transfer[T]:
            transfer = move(batch, target, copies=not is_fresh, **self._options)
            if not is_fresh:
                # Waits until the source may write its memory again. What went wrong is raised to whom the batch goes.
                transfer.exception()
            return transfer

        iterator = PrefetchIterator(source, start, self._bounds, surroundings)
        self._running.add(iterator)
        return iterator

    def __bool__(self) -> bool:
        """True: it is not asked for its length, which not every source has."""
        return True

    def __len__(self) -> int:
        return len(self._iterable)  # type: ignore[arg-type]

    def close(self) -> None:
        """Ends every iteration over it, as :meth:`PrefetchIterator.close` does."""
        self._is_closed = True
        for iterator in list(self._running):
            iterator.close()

    def __enter__(self) -> Prefetch[T]:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class PrefetchIterator(Iterator[T]):
    """One run over the batches. Dropping it, or closing it, ends it."""

    def __init__(
        self,
        source: Iterator[T],
        start: Callable[[T], Transfer[T]],
        bounds: _Bounds,
        surroundings: _Surroundings,
    ) -> None:
        self._line: _Line[T] = _Line(bounds)
        self._is_closed = False
        # The thread holds the source alone, and so is the one that lets go of it.
        held = [source]
        thread = threading.Thread(
            target=contextvars.copy_context().run,
            args=(_fill, self._line, held, start, surroundings),
            name=f"pinlane-prefetch-{next(_numbers)}",
            daemon=True,
        )
        self._thread = thread
        self._finalizer = weakref.finalize(self, _end, self._line, thread, os.getpid())
        thread.start()

    def __next__(self) -> T:
        self._refuse_if_closed()
        taken = self._line.take()
        if taken is None:
            # Closed by another thread while this one waited, it is not at its end.
            self._refuse_if_closed()
            raise StopIteration
        try:
            if isinstance(taken, BaseException):
                raise taken
            batch = taken.result()
        except Exception:
            self._line.stop()
            raise
        except BaseException:
            # An interruption of the consumer says nothing of the batches: this one is the next again.
            if isinstance(taken, Transfer):
                self._line.put_back(taken)
            raise
        finally:
            # An error's traceback holds this frame.
            del taken
        return batch

    def _refuse_if_closed(self) -> None:
        if self._is_closed:
            raise ValueError("asking for the next batch of a prefetching iterator that was closed")

    def close(self) -> None:
        """Ends the run. When it returns, the thread has ended, and nothing is on its way any more.

        Where the source is about to give a batch, that is waited for. Whoever waits for a batch gets ``ValueError``.
        """
        self._is_closed = True
        self._line.stop()
        if self._thread is not threading.current_thread():
            self._thread.join()

    def __enter__(self) -> PrefetchIterator[T]:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class _Bounds(NamedTuple):
    """How far ahead to go."""

    depth: int
    max_bytes: int | None


class _Line(Generic[T]):
    """The batches between the source and the consumer, in order. The thread puts in, the consumer takes out."""

    def __init__(self, bounds: _Bounds) -> None:
        self.bounds = bounds
        # Its lock is one that a thread may take twice: a garbage collection may stop a line wherever it happens.
        self._changed = threading.Condition()
        self._transfers: collections.deque[tuple[Transfer[T], int]] = collections.deque()
        self._bytes = 0
        self._failure: BaseException | None = None
        self._has_ended = False

    # ---- the thread's

    def wait_for_turn(self) -> bool:
        """Waits until another batch may be pulled; false when the consumer wants no more."""
        with self._changed:
            self._changed.wait_for(lambda: self._has_ended or len(self._transfers) < self.bounds.depth)
            return not self._has_ended

    def wait_for_bytes(self, bytes: int) -> bool:
        """Waits until so many bytes may be on their way; false when the consumer wants no more."""
        most = self.bounds.max_bytes

        def has_room() -> bool:
            return self._has_ended or not self._transfers or most is None or self._bytes + bytes <= most

        with self._changed:
            self._changed.wait_for(has_room)
            return not self._has_ended

    def put(self, transfer: Transfer[T], bytes: int) -> None:
        with self._changed:
            if not self._has_ended:
                self._transfers.append((transfer, bytes))
                self._bytes += bytes
                self._changed.notify_all()
                return
        _give_up(transfer)

    def end(self, failure: BaseException | None) -> None:
        """No more batches come: there are none, or something failed."""
        with self._changed:
            if not self._has_ended:
                self._failure = failure
            self._has_ended = True
            self._changed.notify_all()

    # ---- the consumer's

    def take(self) -> Transfer[T] | BaseException | None:
        """Waits for what is next: a batch, a failure, or nothing any more."""
        with self._changed:
            self._changed.wait_for(lambda: self._has_ended or self._transfers)
            if self._transfers:
                transfer, bytes = self._transfers.popleft()
                self._bytes -= bytes
                self._changed.notify_all()
                return transfer
            failure, self._failure = self._failure, None
            return failure

    def put_back(self, transfer: Transfer[T]) -> None:
        """A batch that was asked for, and so counts no bytes any more, is to be taken again."""
        with self._changed:
            self._transfers.appendleft((transfer, 0))
            self._changed.notify_all()

    def stop(self) -> None:
        """The consumer wants no more. What is on its way is given up."""
        with self._changed:
            self._has_ended = True
            self._failure = None
            given_up, self._transfers = self._transfers, collections.deque()
            self._bytes = 0
            self._changed.notify_all()
        for transfer, _ in given_up:
            _give_up(transfer)


def _give_up(transfer: Transfer[Any]) -> None:
    """Waits until what was on its way to nobody reads its source no more."""
    transfer.exception()


def _fill(
    line: _Line[T], held: list[Iterator[T]], start: Callable[[T], Transfer[T]], surroundings: _Surroundings
) -> None:
    """What the thread does: pulls, and starts transfers, until one side has enough."""
    source = held.pop()
    failure: BaseException | None = None
    try:
        with surroundings.entered():
            while line.wait_for_turn():
                try:
                    batch = next(source)
                except StopIteration:
                    break
                bytes = 0 if line.bounds.max_bytes is None else _bytes_of(batch)
                if not line.wait_for_bytes(bytes):
                    break
                transfer = start(batch)
                del batch
                line.put(transfer, bytes)
                del transfer
    except BaseException as raised:
        failure = raised
    finally:
        # A failure's traceback holds this frame, and the source must not live for as long as that.
        del source
    line.end(failure)
    del failure


def _end(line: _Line[Any], thread: threading.Thread, process: int) -> None:
    """Ends a run whose iterator is gone, or whose process is about to be."""
    # A forked child has no such thread, and perhaps a lock that nobody will unlock.
    if os.getpid() != process:
        return
    line.stop()
    if thread is not threading.current_thread():
        thread.join(_PATIENCE)


class _Surroundings:
    """What a thread of the consumer's works in, for another thread to work in too: torch's current stream on the target,
    and whether gradients are tracked."""

    def __init__(self, target: str) -> None:
        self._stream: Any = None
        self._modes: tuple[bool, bool] | None = None
        self._torch: Any = sys.modules.get("torch")
        if target.startswith("cuda"):
            side = torch_side(needed=True)
            assert side is not None, "it was needed"
            self._torch = side.torch
            self._stream = self._torch.cuda.current_stream(int(target[5:]))
        if self._torch is not None:
            self._modes = (self._torch.is_grad_enabled(), self._torch.is_inference_mode_enabled())

    @contextlib.contextmanager
    def entered(self) -> Iterator[None]:
        """Lets this thread work in them."""
        with contextlib.ExitStack() as stack:
            if self._modes is not None:
                grad, inference = self._modes
                stack.enter_context(self._torch.inference_mode(inference))
                stack.enter_context(self._torch.set_grad_enabled(grad))
            if self._stream is not None:
                stack.enter_context(self._torch.cuda.stream(self._stream))
            yield


def _gives_fresh_memory(iterable: object) -> bool:
    """Whether no batch lies in memory of another that came before: so it is behind a DataLoader's worker processes, and where
    torch's own function makes the batches of samples. A class of its own may do anything with them."""
    data: Any = sys.modules.get("torch.utils.data")
    if data is None or not isinstance(iterable, data.DataLoader):
        return False
    loader, plain = type(iterable), data.DataLoader
    if loader.__iter__ is not plain.__iter__ or loader._get_iterator is not plain._get_iterator:
        return False
    return iterable.num_workers > 0 or iterable.collate_fn is data.default_collate


def _bytes_of(batch: object) -> int:
    """The bytes of all tensors and arrays of a batch."""
    torch: Any = sys.modules.get("torch")
    leaves = _native.Tree(batch, None if torch is None else torch.Tensor, _trees.open).leaves
    return sum(_bytes_of_leaf(leaf) for leaf in leaves)


def _bytes_of_leaf(leaf: Any) -> int:
    if hasattr(leaf, "element_size"):
        return int(leaf.numel() * leaf.element_size())
    return int(getattr(leaf, "nbytes", 0))
