"""One tensor that is a tree by itself: torch moves it, behind a function in C that looks like one in Python."""

from __future__ import annotations

import inspect
import pickle
from typing import Any

import pytest
import torch

import pinlane
from pinlane import _alone, _native

#: Stands in for a GPU: torch moves to it, and the engine does not know it.
ELSEWHERE = "meta"


def way_by(monkeypatch: pytest.MonkeyPatch, to: Any, longest: int = 1 << 20) -> None:
    _native.know_torch(torch.Tensor, torch.device)
    way = _native.Way.send(to, torch.device(ELSEWHERE), longest)
    for device in (ELSEWHERE, torch.device(ELSEWHERE)):
        monkeypatch.setitem(_alone._ways, device, way)


def test_a_short_tensor_is_moved_by_one_call_of_torchs(monkeypatch: pytest.MonkeyPatch) -> None:
    way_by(monkeypatch, torch.Tensor.to, longest=400)
    for device in (ELSEWHERE, torch.device(ELSEWHERE)):
        moved = pinlane.to(torch.ones(10, 10).T, device)
        assert moved.device.type == ELSEWHERE and moved.shape == (10, 10)
    x = torch.ones(3, requires_grad=True)
    assert pinlane.to(x, ELSEWHERE).grad_fn is not None


@pytest.mark.parametrize(
    "tree",
    [
        torch.ones(101),
        torch.ones(3).to_sparse(),
        torch.nn.Parameter(torch.ones(3)),
        [torch.ones(3)],
    ],
)
def test_what_torch_is_not_best_at_is_left_to_the_engine(monkeypatch: pytest.MonkeyPatch, tree: Any) -> None:
    def to(*_: Any) -> None:
        raise AssertionError("torch was asked to move it")

    way_by(monkeypatch, to, longest=400)
    # Which does not know the device.
    with pytest.raises(pinlane.NoSuchDeviceError, match=ELSEWHERE):
        pinlane.to(tree, ELSEWHERE)
    with pytest.raises(pinlane.NoSuchDeviceError, match=ELSEWHERE):
        pinlane.to(torch.ones(3), ELSEWHERE, pin=True)


def test_what_torch_raises_of_a_lone_tensor_comes_through(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    way_by(monkeypatch, full)
    with pytest.raises(torch.OutOfMemoryError, match="moving itself: CUDA out of memory") as caught:
        pinlane.to(torch.ones(3), ELSEWHERE)
    assert isinstance(caught.value, pinlane.OutOfMemoryError)

    def broken(*_: Any) -> None:
        raise KeyboardInterrupt

    way_by(monkeypatch, broken)
    with pytest.raises(KeyboardInterrupt):
        pinlane.to(torch.ones(3), ELSEWHERE)


def test_a_tensor_of_the_host_that_is_to_be_there_is_itself() -> None:
    there = pinlane.to(torch.ones(3), "sim")
    back = pinlane.to(there, "cpu")
    assert back is not there and torch.equal(back, there)
    for x in (torch.ones(3), torch.zeros(0), torch.eye(2).to_sparse(), torch.ones(2, dtype=torch.complex64).conj()):
        assert pinlane.to(x, "cpu") is x and pinlane.to(x, torch.device("cpu")) is x


def test_it_looks_like_a_function_in_python() -> None:
    assert list(inspect.signature(pinlane.to).parameters) == [
        "tree",
        "device",
        "non_blocking",
        "stream",
        "dtype",
        "slab",
        "pin",
    ]
    assert inspect.signature(pinlane.to).parameters["slab"].default is True
    assert pinlane.to.__doc__ is not None and pinlane.to.__doc__.startswith("Moves every tensor")
    assert pickle.loads(pickle.dumps(pinlane.to)) is pinlane.to
    assert pinlane.to(device="cpu", tree=[1]) == [1]
    for wrong in ((), (1,), (1, "cpu", True)):
        with pytest.raises(TypeError, match=r"to\(\)"):
            pinlane.to(*wrong)  # type: ignore[call-overload]
    with pytest.raises(TypeError, match="sideways"):
        pinlane.to(1, "cpu", sideways=True)  # type: ignore[call-overload]
