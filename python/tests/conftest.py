"""What all tests share: the devices that they run on."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import pytest
import torch

#: The device that the tests use: a simulated one, unless `PINLANE_TEST_DEVICE` names another, such as `cuda`.
DEVICE = os.environ.get("PINLANE_TEST_DEVICE", "sim")


#: Where this is set, torch is as it was before it had a table of C functions that tell what a tensor is.
WITHOUT_TABLE = "PINLANE_TEST_WITHOUT_TABLE"
if WITHOUT_TABLE in os.environ:
    del torch.Tensor.__dlpack_c_exchange_api__


@pytest.fixture
def device() -> str:
    return DEVICE


def shared_memory() -> set[str]:
    """The names of shared memory on this machine, but for the semaphores of whatever else uses multiprocessing on it."""
    return {name for name in os.listdir("/dev/shm") if not name.startswith("sem.")}


@pytest.fixture
def impatient_loaders(monkeypatch: pytest.MonkeyPatch) -> None:
    """Has DataLoaders wait shorter than five seconds at a time for workers that die or end; and long enough for those that end on
    a busy machine."""
    from torch.utils.data import _utils

    monkeypatch.setattr(_utils, "MP_STATUS_CHECK_INTERVAL", 2.0)


@pytest.fixture
def deaths_noticed_when_asked(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Has DataLoaders notice the death of a worker when they wait for it: as it is, a signal handler of torch's raises in the
    main thread, wherever that is, and once more for each further worker that ends."""
    from torch.utils.data import _utils

    monkeypatch.setattr(_utils.signal_handling, "_SIGCHLD_handler_set", True)
    before = signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGCHLD, before)
