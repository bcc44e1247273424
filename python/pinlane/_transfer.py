"""The handle of a tree that is on its way."""

from __future__ import annotations

import contextlib
from collections.abc import Generator
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from . import _native
from ._errors import SourceChangedError, TransferError
from ._plan import Plan, name_of_stream

if TYPE_CHECKING:
    import asyncio

    import torch

T = TypeVar("T")


class Transfer(Generic[T]):
    """A tree on its way: what :func:`pinlane.to` gives with ``non_blocking=True``.

    The results can't be had before they are right. Until :meth:`done` says so, or :meth:`result` has returned, the sources
    must not be written in place: a tensor that was is noticed by torch's version counter, and raises
    :class:`SourceChangedError`. (Numpy arrays count no versions.) They may be dropped, and given other memory
    (``tensor.data = ...``, ``module.half()``): what is read is the memory that they had. That memory must not be freed or
    resized itself (``storage.resize_``, ``tensor.resize_`` to more): it is noticed, but only when it has been read already.
    Dropping a transfer is safe at every moment.

    >>> import numpy, pinlane
    >>> transfer = pinlane.to({"x": numpy.arange(4)}, "sim", non_blocking=True)
    >>> transfer.result()
    {'x': array([0, 1, 2, 3])}
    """

    __slots__ = ("__weakref__", "_failure", "_flight", "_is_settled", "_plan", "_users")

    def __init__(self, flight: _native.Flight, plan: Plan) -> None:
        self._flight = flight
        self._plan = plan
        self._is_settled = False
        self._failure: Exception | None = None
        #: By their handles, the streams that the results are used on and their memory is not of.
        self._users: dict[int, Any] = {}

    def done(self) -> bool:
        """Whether all of it has landed, or failed. Never blocks."""
        if not self._flight.done():
            return False
        self._settle()
        return True

    def result(self) -> T:
        """The tree, once.

        Towards the host, blocks until the bytes are there. Towards a device, blocks until the sources are free to change,
        and the results are ordered on the stream that :func:`pinlane.to` was given, or on torch's current stream. Where that
        is another than at the start, torch's allocator is told (``record_stream``), so they may be dropped at any time.

        :raises TransferError: when the result was taken already.
        :raises SourceChangedError: when a source was written while it was read.
        """
        self._settle()
        if self._failure is not None:
            raise self._failure
        self._order()
        given = self._flight.result()
        if given is None:
            raise TransferError("the result of this transfer was taken already: it is given once, so keep it")
        tree: T = given[0]
        if self._users:
            self._plan.mark_used(tree, self._users.values())
        return tree

    def exception(self) -> Exception | None:
        """What went wrong, if anything did. Blocks as :meth:`result` does, and leaves the result for it."""
        self._settle()
        return self._failure

    def wait(self, stream: torch.cuda.Stream | None = None) -> None:
        """Makes work that is enqueued on ``stream`` from now on start only when the results are there.

        Without a stream: torch's current one. Called before :meth:`result`, it tells torch's allocator too that the results are
        used there. Blocks the host while bytes are copied into pinned memory, not while the link
        works. Results on the host have no stream to be ordered on: then it blocks until they are there.

        :raises ValueError: for a stream of another device than the results'.
        """
        target = self._plan.target
        device, handle = (target, self._plan.stream_now()) if stream is None else name_of_stream(stream)
        if handle is None or target == "cpu":
            self._flight.land()
        else:
            self._flight.fence(device, handle)
            self._note_user(handle, stream)

    def __await__(self) -> Generator[Any, None, T]:
        """Waits for the result without blocking the event loop. Of several tasks that wait, one gets it, and the others
        :class:`TransferError`.

        >>> import asyncio, numpy, pinlane
        >>> async def there(array):
        ...     return await pinlane.to(array, "sim", non_blocking=True)
        >>> asyncio.run(there(numpy.ones(2)))
        array([1., 1.])
        """
        # Not before it is needed: it takes longer to import than the rest of the package.
        import asyncio

        loop = asyncio.get_running_loop()
        while True:
            landed = loop.create_future()

            def wake(landed: asyncio.Future[None] = landed) -> None:
                # A loop that was closed meanwhile has nobody left who waits.
                with contextlib.suppress(RuntimeError):
                    loop.call_soon_threadsafe(_set, landed)

            if self._flight.notify(wake):
                return self.result()
            yield from landed

    def __repr__(self) -> str:
        state = "failed" if self._failure else "done" if self._flight.done() else "on its way"
        return f"<pinlane.Transfer to {self._plan.target}: {state}>"

    def _settle(self) -> None:
        """Waits until the sources are free, and finds out what went wrong."""
        if self._is_settled:
            return
        try:
            if self._plan.target.startswith("cuda"):
                self._flight.settle()
            else:
                self._flight.land()
            changed = self._flight.changed_source()
            if changed is not None:
                raise SourceChangedError(
                    f"moving {changed}: it was written in place, or its memory was resized, while it was read; wait for "
                    "`result()` or `done()` before that, or move a clone"
                )
        except Exception as failure:
            self._failure = failure
        self._is_settled = True

    def _order(self) -> None:
        """Orders the results on the caller's stream."""
        if self._plan.target.startswith("cuda"):
            handle = self._plan.stream_now()
            assert handle is not None, "torch has a current stream on every GPU"
            self._flight.fence(self._plan.target, handle)
            self._note_user(handle, None)

    def _note_user(self, handle: int, stream: Any) -> None:
        """Remembers a stream that the results will be used on, torch's current one unless told, where their memory is not of
        it."""
        if self._plan.target.startswith("cuda") and handle != self._plan.results_stream:
            self._users[handle] = self._plan.current_stream() if stream is None else stream


def _set(landed: asyncio.Future[None]) -> None:
    if not landed.done():
        landed.set_result(None)
