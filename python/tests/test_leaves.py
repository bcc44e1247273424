"""Leaf by leaf, the results are what torch's own `to` gives."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import numpy
import pytest
import torch
from hypothesis import given, settings

import pinlane

from .conftest import DEVICE, WITHOUT_TABLE

DTYPES = [
    torch.bool,
    torch.uint8,
    torch.int8,
    torch.int16,
    torch.uint16,
    torch.int32,
    torch.uint32,
    torch.int64,
    torch.uint64,
    torch.float16,
    torch.bfloat16,
    torch.float32,
    torch.float64,
    torch.complex32,
    torch.complex64,
    torch.complex128,
    torch.float8_e4m3fn,
    torch.float8_e5m2,
    torch.float8_e4m3fnuz,
    torch.float8_e5m2fnuz,
    torch.float8_e8m0fnu,
]


def bytes_of(tensor: torch.Tensor) -> bytes:
    """The elements in logical order, bit by bit."""
    tensor = tensor.resolve_conj().resolve_neg()
    packed = torch.empty(tensor.numel(), dtype=tensor.dtype)
    packed.view(tensor.shape).copy_(tensor)
    return packed.view(torch.uint8).numpy().tobytes()


@st.composite
def tensors(draw: st.DrawFn) -> torch.Tensor:
    """Tensors of any dtype, with the strides that slicing, transposing and expanding make, and with what complex numbers
    have beside: elements that are to be conjugated or negated when they are read."""
    dtype = draw(st.sampled_from(DTYPES))
    shape = draw(st.lists(st.integers(0, 5), max_size=4))
    count = int(numpy.prod(shape, dtype=int)) * dtype.itemsize
    seed = draw(st.integers(0, 2**31))
    raw = numpy.random.default_rng(seed).integers(0, 2 if dtype == torch.bool else 256, count, "u1")
    flat = torch.frombuffer(bytearray(raw), dtype=dtype) if count else torch.empty(0, dtype=dtype)
    tensor = flat.reshape(shape)
    for _ in range(draw(st.integers(0, 3))):
        rank = tensor.dim()
        match draw(st.sampled_from(["permute", "slice", "expand", "select", "conj", "imag"])):
            case "permute":
                tensor = tensor.permute(draw(st.permutations(range(rank))))
            case "slice" if rank:
                dim = draw(st.integers(0, rank - 1))
                start, step = draw(st.integers(0, 2)), draw(st.integers(1, 3))
                tensor = tensor[(slice(None),) * dim + (slice(start, None, step),)]
            case "expand":
                tensor = tensor.unsqueeze(-1).expand(*tensor.shape, draw(st.integers(1, 3)))
            case "select" if rank and tensor.shape[0]:
                tensor = tensor.select(0, draw(st.integers(0, tensor.shape[0] - 1)))
            case "conj" if tensor.is_complex():
                tensor = tensor.conj()
            case "imag" if tensor.is_complex():
                tensor = tensor.imag
            case _:
                pass
    return tensor


@settings(deadline=None, max_examples=300)
@given(leaves=st.lists(tensors(), max_size=6), slab=st.booleans())
def test_any_tensor_comes_back_bit_by_bit_with_the_strides_that_torch_gives(
    leaves: list[torch.Tensor], slab: bool
) -> None:
    there = pinlane.to(leaves, DEVICE, slab=slab)
    back = pinlane.to(there, "cpu", slab=slab)
    for leaf, moved, again in zip(leaves, there, back, strict=True):
        expected = leaf.to("cpu", copy=True)
        for result in (moved, again):
            assert (result.dtype, result.shape) == (leaf.dtype, leaf.shape)
            assert result.stride() == expected.stride()
        assert bytes_of(again) == bytes_of(leaf)


@pytest.mark.parametrize("slab", [True, False])
def test_slabs_are_shared_and_others_are_not(slab: bool, device: str) -> None:
    a, b = pinlane.to((torch.randn(5), torch.randn(5)), device, slab=slab)
    same = a.untyped_storage().data_ptr() == b.untyped_storage().data_ptr()
    assert same is slab
    if not slab:
        assert a.untyped_storage().nbytes() == 20


def test_what_grows_in_a_result_without_elements_leaves_its_neighbours_alone(device: str) -> None:
    tree = [torch.empty(0), torch.ones(200), torch.empty(2, 0)]
    there = pinlane.to(tree, device)
    for some in (there, pinlane.to(there, "cpu"), pinlane.pin(tree, device)):
        torch.add(torch.zeros(100, device=some[0].device), 7, out=some[0])
        assert some[1].eq(1).all() and len(some[0]) == 100 and some[2].shape == (2, 0)


def test_channels_last_stays_channels_last(device: str) -> None:
    x = torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last)
    assert pinlane.to(x, device).is_contiguous(memory_format=torch.channels_last)


def test_conjugate_and_negative_bits_are_resolved(device: str) -> None:
    x = torch.randn(4, dtype=torch.complex64)
    conjugate, negative = x.conj(), x.conj().imag
    assert conjugate.is_conj() and negative.is_neg()
    for tensor in (conjugate, negative):
        there = pinlane.to(tensor, device)
        assert not there.is_conj() and not there.is_neg()
        assert torch.equal(pinlane.to(there, "cpu"), tensor)


def test_conjugates_with_gaps_arrive_as_what_they_are_beside_others(device: str) -> None:
    x = torch.randn(4, 6, dtype=torch.complex64)
    tree = [x[:, ::2].conj(), torch.arange(5), x[:, ::3].conj().imag, x[:, ::2], torch.arange(5) + 1]
    for some in ([tree[0]], tree):
        there = pinlane.to(some, device)
        for leaf, moved, back in zip(some, there, pinlane.to(there, "cpu"), strict=True):
            assert moved.dtype == leaf.dtype and not moved.is_conj() and not moved.is_neg()
            assert torch.equal(back, leaf)


def test_gradients_flow_back_through_a_move(device: str) -> None:
    x = torch.randn(3, requires_grad=True)
    there = pinlane.to({"x": x, "y": [x]}, device)
    assert there["x"].requires_grad and not there["x"].is_leaf and there["x"] is there["y"][0]
    (there["x"] * 2).sum().backward()
    assert torch.equal(x.grad, torch.full((3,), 2.0))


def test_a_result_that_has_a_gradient_can_be_written_in_place(device: str) -> None:
    x = torch.ones(3, requires_grad=True)
    there = pinlane.to([x], device)[0]
    assert not there._is_view()
    there.add_(1)
    (there * there).sum().backward()
    assert torch.equal(x.grad, torch.full((3,), 4.0))


@pytest.mark.parametrize("dtype", [None, torch.float64])
def test_the_gradient_is_that_of_the_start_wherever_the_result_is_taken(dtype: Any, device: str) -> None:
    x = torch.ones(3, requires_grad=True)
    transfer = pinlane.to([x], device, non_blocking=True, dtype=dtype)
    with torch.no_grad():
        (there,) = transfer.result()
    there.sum().backward()
    assert torch.equal(x.grad, torch.ones(3))


def test_parameters_move_without_a_graph_where_gradients_are_off(device: str) -> None:
    parameter = torch.nn.Parameter(torch.randn(3))
    with torch.no_grad():
        there = pinlane.to(parameter, device)
    assert type(there) is torch.Tensor and not there.requires_grad and there.is_leaf


def test_results_are_leaves_that_can_be_trained(device: str) -> None:
    first, second = pinlane.to((torch.ones(3), torch.ones(3)), device)
    first.requires_grad_()
    (first * second).sum().backward()
    with torch.no_grad():
        first -= first.grad
    assert pinlane.to(first.detach(), "cpu").eq(0).all()
    second[0] = first.sum()  # in place, with a graph: refused for views made by `unbind`
    assert second.requires_grad


@pytest.mark.parametrize("dtype", [torch.float16, torch.float64])
def test_dtype_converts_floating_point_tensors_only(dtype: torch.dtype, device: str) -> None:
    tree = {"x": torch.randn(5), "n": torch.arange(3), "same": torch.zeros(2, dtype=dtype)}
    there = pinlane.to(tree, device, dtype=dtype)
    assert there["x"].dtype == dtype and there["n"].dtype == torch.int64
    assert torch.equal(pinlane.to(there["x"], "cpu"), tree["x"].to(dtype))
    assert pinlane.to(there, device, dtype=dtype)["x"] is there["x"]


@pytest.mark.parametrize("dtype", ["float16", numpy.float32, float, torch.int8])
def test_what_floating_point_tensors_can_not_be_converted_to_is_a_type_error(dtype: Any, device: str) -> None:
    with pytest.raises(TypeError, match="convert"):
        pinlane.to(torch.ones(3), device, dtype=dtype)


def test_gradients_flow_through_conversions_in_the_sources_dtype(device: str) -> None:
    for dtype in (torch.float16, torch.float64):
        x = torch.randn(3, requires_grad=True)
        pinlane.to(x, device, dtype=dtype).sum().backward()
        assert x.grad.dtype == x.dtype and x.grad.eq(1).all()


def test_tensors_of_inference_mode_move(device: str) -> None:
    with torch.inference_mode():
        x = torch.randn(3)
        back = pinlane.to(pinlane.to(x, device, non_blocking=True).result(), "cpu")
    assert torch.equal(back, x)


def test_empty_trees_and_empty_tensors_move(device: str) -> None:
    assert pinlane.to([], device) == []
    there = pinlane.to(torch.empty(0, 3, dtype=torch.int16), device)
    assert there.shape == (0, 3) and there.dtype == torch.int16


def test_large_and_small_tensors_move_together(device: str) -> None:
    tree = [torch.randn(3_000_000), *(torch.randn(100) for _ in range(300)), torch.randn(700, 701)[:, 1:]]
    back = pinlane.to(pinlane.to(tree, device), "cpu")
    assert all(torch.equal(a, b) for a, b in zip(tree, back, strict=True))


def test_pinned_tensors_move_and_are_free_to_change_afterwards(device: str) -> None:
    tree = [torch.ones(50_000), torch.ones(3)]
    pinned = pinlane.pin(tree, device)
    assert pinlane.is_pinned(pinned, device) and not pinlane.is_pinned(tree, device)
    there = pinlane.to(pinned, device)
    for tensor in pinned:
        tensor.fill_(2)
    assert all(tensor.eq(1).all() for tensor in pinlane.to(there, "cpu"))


@pytest.mark.parametrize("array", [numpy.rec.array([(1, 2.0)], "i4,f8"), numpy.arange(6.0).reshape(2, 3).T])
def test_pinned_arrays_keep_their_kind_and_their_order(array: Any, device: str) -> None:
    pinned = pinlane.pin([array], device)[0]
    assert pinlane.is_pinned(pinned, device) and type(pinned) is type(array)
    assert (pinned.strides, pinned.dtype) == (array.strides, array.dtype) and (pinned == array).all()


def test_results_on_the_host_are_pinned_where_asked(device: str) -> None:
    there = pinlane.to([torch.randn(1000)], device)
    assert pinlane.is_pinned(pinlane.to(there, "cpu", pin=True), device)
    assert not pinlane.is_pinned(pinlane.to(there, "cpu"), device)


def test_results_outlive_what_they_came_from(device: str) -> None:
    back = pinlane.to(pinlane.to([torch.arange(5) for _ in range(3)], device), "cpu")[1]
    assert torch.equal(pickle.loads(pickle.dumps(back)), torch.arange(5))


def test_memory_of_large_results_is_kept_for_the_next_and_can_be_given_back(device: str) -> None:
    pinlane.trim()
    there = pinlane.to(torch.arange(4 << 20, dtype=torch.int32), device)
    first = pinlane.to(there, "cpu", pin=False)
    address = first.data_ptr()
    assert pinlane.stats().kept == 0
    del first
    assert pinlane.stats().kept == 16 << 20
    again = pinlane.to(there[: 15 << 18], "cpu", pin=False)
    assert again.data_ptr() == address and pinlane.stats().kept == 0
    assert torch.equal(again, torch.arange(15 << 18, dtype=torch.int32))
    del again
    assert pinlane.trim() >= 16 << 20 and pinlane.stats().kept == 0


class TestArrays:
    """Numpy arrays, on a simulated device: there they stay arrays."""

    @pytest.mark.parametrize(
        "array",
        [
            numpy.arange(6.0).reshape(2, 3),
            numpy.arange(6)[::-1],
            numpy.arange(12, dtype="i2").reshape(3, 4)[:, ::2],
            numpy.asfortranarray(numpy.ones((2, 3))),
            numpy.arange(3, dtype=">i4"),
            numpy.array(["a", "bc"]),
            numpy.array([(1, 2.0)], dtype="i4,f8"),
            numpy.zeros((0, 2)),
            numpy.broadcast_to(numpy.float32(3), (2, 2)),
            numpy.array("2026-01-01", "M8[D]"),
        ],
    )
    def test_arrays_come_back_equal(self, array: Any) -> None:
        there = pinlane.to(array, "sim")
        back = pinlane.to(there, "cpu")
        assert type(there) is numpy.ndarray and there is not array
        assert there.dtype == array.dtype and back.shape == array.shape
        assert numpy.array_equal(there, array) and numpy.array_equal(back, array)

    def test_arrays_of_objects_are_refused(self) -> None:
        with pytest.raises(pinlane.UnsupportedLeafError, match=r"\['o'\].*Python objects"):
            pinlane.to({"o": numpy.array([object()])}, "sim")

    def test_arrays_with_a_mask_are_refused(self) -> None:
        for target in ("sim", "cpu"):
            with pytest.raises(pinlane.UnsupportedLeafError, match=r"\['m'\].*mask"):
                pinlane.to({"m": numpy.ma.array([1, 2], mask=[0, 1])}, target)
        with pytest.raises(pinlane.UnsupportedLeafError, match=r"\['m'\].*mask"):
            pinlane.pin({"m": numpy.ma.array([1, 2], mask=[0, 1])}, "sim")

    def test_arrays_of_types_of_their_own_arrive_as_such(self) -> None:
        record = numpy.array([(1, 2.0)], dtype=[("a", "i4"), ("b", "f8")]).view(numpy.recarray)
        back = pinlane.to(pinlane.to([record], "sim"), "cpu")[0]
        assert type(back) is numpy.recarray and back.a == 1 and back.b == 2.0

    def test_arrays_of_odd_widths_with_gaps_are_copied_first(self) -> None:
        for array in (numpy.array(["abc", "de", "f", "g"])[::2], numpy.zeros((4, 4), "i4,f4,i2")[:, 1:3]):
            assert numpy.array_equal(pinlane.to(pinlane.to([array], "sim"), "cpu")[0], array)

    def test_any_array_of_the_host_is_itself_there(self) -> None:
        for array in (numpy.arange(5)[::-1], numpy.array(["abc", "de", "f"])[::2], numpy.arange(3, dtype=">i4")):
            assert pinlane.to(array, "cpu") is array

    def test_a_dtype_that_numpy_lacks_is_refused_by_path(self) -> None:
        with pytest.raises(pinlane.UnsupportedLeafError, match=r"\['x'\].*bfloat16"):
            pinlane.to({"x": numpy.ones(3)}, "sim", dtype=torch.bfloat16)

    def test_numbers_of_numpy_pass_through(self) -> None:
        number = numpy.float32(2)
        assert pinlane.to([number], "sim")[0] is number


class Exported:
    """Speaks DLPack, and nothing else."""

    def __init__(self, tensor: torch.Tensor) -> None:
        self.tensor = tensor

    def __dlpack__(self, **options: Any) -> Any:
        return self.tensor.__dlpack__()

    def __dlpack_device__(self) -> Any:
        return self.tensor.__dlpack_device__()


def test_what_speaks_dlpack_becomes_a_tensor(device: str) -> None:
    there = pinlane.to([Exported(torch.arange(4))], device)
    assert torch.equal(pinlane.to(there, "cpu")[0], torch.arange(4))


def test_older_torch_is_asked_by_attributes_and_all_of_this_holds() -> None:
    if WITHOUT_TABLE in os.environ:
        assert not hasattr(torch.Tensor, "__dlpack_c_exchange_api__")
        return
    here = Path(__file__)
    alone = ["-p", "no:cacheprovider", "-p", "no:benchmark"]  # that plugin warns where tests run side by side
    command = [sys.executable, "-m", "pytest", "--quiet", *alone, here, here.with_name("test_trees.py")]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, WITHOUT_TABLE: "1"})
    assert done.returncode == 0, done.stdout
