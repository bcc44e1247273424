"""What the engine does, thread by thread, as a file to look at."""

from __future__ import annotations

import contextlib
import json
import os
import threading
from collections.abc import Iterator
from typing import Any

from . import _native


@contextlib.contextmanager
def profile(path: str | os.PathLike[str]) -> Iterator[None]:
    """Writes what the engine does meanwhile to ``path``, for https://ui.perfetto.dev or ``chrome://tracing``.

    >>> import pinlane, tempfile, torch
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with pinlane.profile(f"{folder}/trace.json"):
    ...         there = pinlane.to(torch.ones(1000, 1000), "sim")

    There is a row for each thread, with how long it planned (``plan``), made room for results (``allocate``), copied between
    sources or results and pinned memory (``fill``), handed copies to the driver (``copy``) and waited for the device
    (``wait``), each with its bytes, its route and its lane. When the device itself was busy is for its own tools to say.

    :raises Error: while another profile is being taken.
    :raises TypeError: for what is no path.
    :raises OSError: for a file that can't be written; nothing was done then.
    """
    with open(os.fspath(path), "w", encoding="utf-8") as file:
        _native.start_profile()
        try:
            yield
        finally:
            spans = _native.stop_profile()
            json.dump({"traceEvents": _events(spans), "displayTimeUnit": "ms"}, file)


def _events(spans: list[_native.Span]) -> list[dict[str, Any]]:
    """Spans as events of the Trace Event Format."""
    process = os.getpid()
    python = {thread.native_id: thread.name for thread in threading.enumerate()}
    names: dict[int, str] = {}
    events: list[dict[str, Any]] = []
    for name, thread, thread_name, start, duration, fields in spans:
        names[thread] = thread_name or python.get(thread) or f"thread {thread}"
        said = {field: int(value) if value.isdecimal() else value for field, value in fields.items()}
        times = {"ts": start, "dur": duration}
        events.append({"name": name, "ph": "X", "pid": process, "tid": thread, **times, "args": said})
    for thread, thread_name in names.items():
        called = {"args": {"name": thread_name}}
        events.append({"name": "thread_name", "ph": "M", "pid": process, "tid": thread, **called})
    return events
