"""What only a GPU shows: torch's allocator, torch's streams, and the order between them and ours.

Runs where ``PINLANE_TEST_DEVICE`` names a GPU, as do the other tests.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy
import pytest
import torch

import pinlane

from .conftest import DEVICE

pytestmark = pytest.mark.skipif(not DEVICE.startswith("cuda"), reason="PINLANE_TEST_DEVICE names no GPU")

#: Clock cycles that keep a stream busy for a good tenth of a second.
LONG = 200_000_000


def batch(value: int = 1) -> dict[str, torch.Tensor]:
    tensors = {f"x{index}": torch.full((1000,), value, dtype=torch.float32) for index in range(100)}
    return {**tensors, "large": torch.full((3_000_000,), value, dtype=torch.float32)}


def all_equal(tree: dict[str, torch.Tensor], value: int) -> bool:
    return all(bool(tensor.eq(value).all()) for tensor in tree.values())


def test_results_lie_in_torchs_allocator_and_go_back_to_it() -> None:
    pinlane.to(batch(), DEVICE)
    torch.cuda.synchronize()
    before = torch.cuda.memory_allocated()
    there = pinlane.to(batch(), DEVICE)
    assert torch.cuda.memory_allocated() >= before + 12_400_000
    assert there["x0"].is_cuda
    del there
    torch.cuda.synchronize()
    assert torch.cuda.memory_allocated() == before


def test_results_are_ordered_on_the_current_stream_without_a_wait() -> None:
    for value in range(1, 30):
        there = pinlane.to(batch(value), DEVICE)
        total = sum(tensor.sum() for tensor in there.values())
        assert int(total) == value * 3_100_000


def test_a_pageable_source_does_not_wait_for_what_the_stream_still_does() -> None:
    pinlane.to(batch(), DEVICE)
    stream = torch.cuda.current_stream()
    torch.cuda._sleep(LONG)
    there = pinlane.to([torch.ones(1000) for _ in range(10)], DEVICE)
    assert not stream.query(), "the call waited for the stream"
    assert all(bool(tensor.eq(1).all()) for tensor in there)


def test_memory_that_the_stream_still_reads_is_not_overwritten() -> None:
    old = torch.ones(3_000_000, device=DEVICE)
    torch.cuda._sleep(LONG)
    copy = old.clone()  # behind the sleep
    del old  # its memory is free again, for work of this stream
    there = pinlane.to(torch.full((3_000_000,), 2.0), DEVICE)
    assert bool(copy.eq(1).all()) and bool(there.eq(2).all())


def test_what_the_stream_still_writes_is_waited_for() -> None:
    source = torch.zeros(3_000_000, device=DEVICE)
    small = [torch.zeros(1000, device=DEVICE) for _ in range(100)]
    torch.cuda._sleep(LONG)
    for tensor in (source, *small):
        tensor.fill_(3)
    back = pinlane.to([source, *small], "cpu")
    assert all(bool(tensor.eq(3).all()) for tensor in back)


def test_a_stream_of_ones_own_is_the_one_to_be_ordered_on() -> None:
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        torch.cuda._sleep(LONG)
    there = pinlane.to(batch(4), DEVICE, stream=stream)
    with torch.cuda.stream(stream):
        assert all_equal(there, 4)


def test_what_torch_does_first_is_behind_what_the_given_stream_has_to_do() -> None:
    stream = torch.cuda.Stream()
    whole = torch.zeros(1000, 2000, device=DEVICE)
    imaginary = torch.zeros(1000, 1000, dtype=torch.complex64, device=DEVICE)
    torch.cuda.synchronize()
    with torch.cuda.stream(stream):
        torch.cuda._sleep(LONG)
        whole.fill_(3)
        imaginary.fill_(3j)
    gaps, negative = pinlane.to([whole[:, ::2], imaginary.conj().imag], "cpu", stream=stream)
    assert bool(gaps.eq(3).all()) and bool(negative.eq(-3).all())
    (half,) = pinlane.to([whole], "cpu", dtype=torch.float16, stream=stream)
    assert half.dtype == torch.float16 and bool(half.eq(3).all())


def test_results_are_widened_behind_their_arrival_on_the_given_stream() -> None:
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        torch.cuda._sleep(LONG)
    (there,) = pinlane.to([torch.full((1_000_000,), 5.0)], DEVICE, dtype=torch.float64, stream=stream)
    with torch.cuda.stream(stream):
        assert there.dtype == torch.float64 and bool(there.eq(5).all())


def test_sparse_tensors_move_in_the_order_of_the_given_stream() -> None:
    stream = torch.cuda.Stream()
    sparse = torch.eye(1000, device=DEVICE).to_sparse()
    torch.cuda.synchronize()
    with torch.cuda.stream(stream):
        torch.cuda._sleep(LONG)
        sparse.values().fill_(3)
    (back,) = pinlane.to([sparse], "cpu", stream=stream)
    assert int(back.to_dense().sum()) == 3000


def test_record_stream_on_a_result_keeps_its_memory() -> None:
    side = torch.cuda.Stream()
    there = pinlane.to([torch.full((500_000,), 5.0) for _ in range(4)], DEVICE)
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        torch.cuda._sleep(LONG)
        total = there[2].sum()  # behind the sleep
    there[2].record_stream(side)
    del there
    # Of the size of the slab, so that the allocator would give out its memory again.
    others = [torch.zeros(2_000_000, device=DEVICE) for _ in range(4)]
    side.synchronize()
    assert int(total) == 2_500_000 and all(bool(other.eq(0).all()) for other in others)


def test_pinned_sources_are_free_to_change_when_the_call_returns() -> None:
    pinned = {name: tensor.pin_memory() for name, tensor in batch(6).items()}
    assert pinlane.is_pinned(pinned, DEVICE)
    there = pinlane.to(pinned, DEVICE)
    for tensor in pinned.values():
        tensor.zero_()
    assert all_equal(there, 6)


def test_small_lone_tensors_are_free_to_change_when_the_call_returns() -> None:
    for make in (torch.Tensor.clone, torch.Tensor.pin_memory):
        for size in (1, 1000, 100_000):
            source = make(torch.full((size,), 7.0))
            torch.cuda._sleep(1_000_000)
            there = pinlane.to(source, DEVICE)
            source.zero_()
            assert bool(there.eq(7).all())


def test_a_lone_tensor_arrives_on_the_host_as_the_stream_leaves_it() -> None:
    for size in (1, 1000, 100_000, 1_000_000):
        source = torch.zeros(size, device=DEVICE)
        torch.cuda._sleep(1_000_000)
        source.fill_(3)
        assert bool(pinlane.to(source, "cpu").eq(3).all())


def test_transfers_are_ordered_where_their_results_are_taken() -> None:
    transfer = pinlane.to(batch(8), DEVICE, non_blocking=True)
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        there = transfer.result()
        assert all_equal(there, 8)
    transfer = pinlane.to(batch(9), DEVICE, non_blocking=True)
    transfer.wait(stream)
    assert all_equal(transfer.result(), 9)


@pytest.mark.parametrize("by_waiting", [False, True])
def test_results_that_another_stream_uses_may_be_dropped_while_it_does(by_waiting: bool) -> None:
    side = torch.cuda.Stream()
    transfer = pinlane.to([torch.full((2_000_000,), 5.0)], DEVICE, non_blocking=True)
    if by_waiting:
        transfer.wait(side)
        there = transfer.result()
    with torch.cuda.stream(side):
        if not by_waiting:
            there = transfer.result()
        torch.cuda._sleep(LONG)
        total = there[0].sum()  # behind the sleep
    del there, transfer
    # Of the size of the result, so that the allocator would give out its memory again.
    others = [torch.zeros(2_000_000, device=DEVICE) for _ in range(4)]
    side.synchronize()
    assert int(total) == 10_000_000 and all(bool(other.eq(0).all()) for other in others)


def test_results_on_the_host_are_pinned_where_asked_as_torch_sees_it() -> None:
    back = pinlane.to(pinlane.to(batch(), DEVICE), "cpu", pin=True)
    assert back["large"].is_pinned() and all_equal(back, 1)


def test_memory_of_a_dropped_result_is_not_written_while_torch_still_reads_it_on_the_current_stream() -> None:
    first, second = (pinlane.to([torch.full((1_500_000,), float(value))], DEVICE) for value in (1, 2))
    pinlane.trim()
    host = pinlane.to(first, "cpu")[0]
    assert host.is_pinned(), "it has room in the budget"
    address = host.data_ptr()
    torch.cuda._sleep(LONG)
    # Torch goes on while the GPU reads, and keeps only what it has pinned itself.
    copy = host.to(DEVICE, non_blocking=True)
    del host
    other = pinlane.to(second, "cpu")[0]
    assert other.data_ptr() == address and bool(other.eq(2).all())
    assert bool(copy.eq(1).all())


def test_results_on_the_host_come_back_right_however_they_lie_on_the_gpu() -> None:
    together = pinlane.to(batch(), DEVICE)
    apart = {name: tensor.clone() for name, tensor in together.items()}
    rows = dict(enumerate(torch.ones(300, 1000, device=DEVICE).unbind()))
    for tree in (together, apart, rows):
        for pin in (None, False, True):
            assert all_equal(pinlane.to(tree, "cpu", pin=pin), 1)


def test_a_full_gpu_is_asked_again_when_what_was_dropped_has_landed() -> None:
    torch.cuda.empty_cache()
    total = torch.cuda.get_device_properties(DEVICE).total_memory
    torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_reserved() + (400 << 20)) / total)
    try:
        large = torch.ones(256 << 20, dtype=torch.uint8)
        for _ in range(5):
            # Its memory is kept until the last of its copies is over.
            pinlane.to([large], DEVICE, non_blocking=True)
            assert bool(pinlane.to([large], DEVICE)[0][-10:].eq(1).all())
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)


def test_strided_tensors_of_the_gpu_arrive_as_torch_lays_them_out() -> None:
    base = torch.arange(60.0, device=DEVICE).reshape(3, 4, 5)
    for tensor in (base.permute(2, 0, 1), base[:, ::2], base[..., 1:4], base[0].expand(2, 4, 5)):
        back = pinlane.to([tensor], "cpu")[0]
        expected = tensor.to("cpu")
        assert torch.equal(back, expected) and back.stride() == expected.stride()


@pytest.mark.parametrize("array", [numpy.arange(5.0), numpy.arange(5)[::-1], numpy.arange(3, dtype=">i4")])
def test_arrays_become_tensors(array: Any) -> None:
    there = pinlane.to({"a": array}, DEVICE)["a"]
    assert isinstance(there, torch.Tensor) and there.is_cuda
    assert numpy.array_equal(there.cpu().numpy(), array)


def test_what_torch_alone_can_move_is_moved_by_torch() -> None:
    sparse = pinlane.to([torch.eye(3).to_sparse()], DEVICE)[0]
    assert sparse.is_cuda and sparse.is_sparse
    with pytest.raises(pinlane.UnsupportedLeafError, match=r"\[0\]"):
        pinlane.to([torch.zeros(3, device="meta")], DEVICE)


def test_gradients_come_back_to_the_host() -> None:
    x = torch.ones(3, requires_grad=True)
    (pinlane.to([x], DEVICE)[0] * 3).sum().backward()
    assert x.grad is not None and x.grad.device.type == "cpu" and x.grad.eq(3).all()


def test_too_much_for_the_gpu_is_torchs_error_and_ours() -> None:
    much = torch.empty(1, dtype=torch.uint8).expand(1 << 44)
    with pytest.raises(torch.OutOfMemoryError) as caught:
        pinlane.to([much], DEVICE)
    assert isinstance(caught.value, pinlane.OutOfMemoryError)
    assert all_equal(pinlane.to(batch(2), DEVICE), 2)


# The capture ends with nothing in it, of which torch warns.
@pytest.mark.filterwarnings("ignore:The CUDA Graph is empty:UserWarning")
def test_a_stream_under_graph_capture_is_refused_and_the_next_transfer_works() -> None:
    pinlane.to(batch(), DEVICE)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph), pytest.raises(pinlane.Error, match="under graph capture"):
        pinlane.to(batch(), DEVICE)
    torch.cuda.synchronize()
    assert all_equal(pinlane.to(batch(3), DEVICE), 3)


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="one GPU")
def test_tensors_move_between_gpus() -> None:
    first = pinlane.to(batch(5), "cuda:0")
    second = pinlane.to(first, "cuda:1")
    assert second["large"].device == torch.device("cuda:1")
    with torch.cuda.device(1):
        assert all_equal(second, 5)


# ---- checkpoints


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    """A checkpoint of the batch of ones."""
    return pinlane.save(batch(), tmp_path / "model.safetensors").files[0]


def allocated() -> int:
    """The bytes that torch's allocator has given away, without those that came back while a stream still used them."""
    torch.cuda.synchronize()
    torch.cuda.empty_cache()
    return torch.cuda.memory_allocated()


def test_loaded_tensors_lie_in_torchs_allocator_and_go_back_to_it(saved: Path) -> None:
    pinlane.load(saved, DEVICE)
    before = allocated()
    there = pinlane.load(saved, DEVICE)
    assert allocated() >= before + 12_400_000
    assert all_equal(there, 1)
    del there
    assert allocated() == before


def test_loaded_tensors_are_ordered_on_the_current_stream_without_a_wait(saved: Path) -> None:
    for stream in (torch.cuda.current_stream(), torch.cuda.Stream()):
        with torch.cuda.stream(stream):
            for _ in range(10):
                there = pinlane.load(saved, DEVICE)
                assert int(sum(tensor.sum() for tensor in there.values())) == 3_100_000


def test_memory_that_the_stream_still_reads_is_not_loaded_over(saved: Path) -> None:
    pinlane.load(saved, DEVICE)
    torch.cuda.synchronize()
    old = torch.full((3_200_000,), 7.0, device=DEVICE)
    total = torch.zeros((), device=DEVICE)
    torch.cuda._sleep(LONG)
    total += old.sum()
    del old  # Torch's allocator may give the memory to the load, on the same stream.
    there = pinlane.load(saved, DEVICE)
    assert total.item() == 7 * 3_200_000
    assert all_equal(there, 1)


def test_tensors_are_loaded_into_after_what_the_stream_still_does_with_them(saved: Path) -> None:
    places = pinlane.to(batch(7), DEVICE)
    side = torch.cuda.Stream()
    for stream in (torch.cuda.current_stream(), side):
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for tensor in places.values():
                tensor.fill_(7)
            torch.cuda._sleep(LONG)
            before = sum(tensor.sum() for tensor in places.values())
            pinlane.load_into(places, saved)
            after = sum(tensor.sum() for tensor in places.values())
            assert (int(before), int(after)) == (7 * 3_100_000, 3_100_000)


def test_what_the_stream_has_not_computed_yet_is_saved_as_it_will_be(tmp_path: Path) -> None:
    tensor = torch.zeros(1_000_000, device=DEVICE)
    torch.cuda._sleep(LONG)
    tensor.add_(3)
    pinlane.save({"tensor": tensor}, tmp_path / "model.safetensors")
    assert bool(pinlane.load(tmp_path)["tensor"].eq(3).all())


def test_a_gpu_without_room_refuses_a_checkpoint_with_torchs_error(tmp_path: Path) -> None:
    pinlane.save({"tensor": torch.zeros(1 << 26)}, tmp_path)
    torch.cuda.empty_cache()
    free, _ = torch.cuda.mem_get_info()
    taken = torch.empty(free - (64 << 20), dtype=torch.uint8, device=DEVICE)
    with pytest.raises(torch.OutOfMemoryError):
        pinlane.load(tmp_path, DEVICE)
    del taken
    torch.cuda.empty_cache()
    assert all_equal(pinlane.load(tmp_path, DEVICE), 0)
