"""What all tests share: the devices that they run on."""

from __future__ import annotations

import os

import pytest

#: The device that the tests use: a simulated one, unless `PINLANE_TEST_DEVICE` names another, such as `cuda`.
DEVICE = os.environ.get("PINLANE_TEST_DEVICE", "sim")


@pytest.fixture
def device() -> str:
    return DEVICE
