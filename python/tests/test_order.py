"""The order between a GPU's streams and ours, on a simulated device that is called as a GPU is.

What a GPU adds is torch's allocator, which `test_gpu.py` is about; here are the streams.
"""

from __future__ import annotations

from .test_errors import run

PREAMBLE = """
    import torch, pinlane
    from pinlane import _native, _torch
    _native.simulate("cuda:0", dict(bytes_per_second=5e8, copy_latency=0.0))
    stream = _native.SimulatedStream("cuda:0")
    _torch.current_stream = lambda device: stream.handle

    class Current:
        device = torch.device("cuda:0")

        def __init__(self, stream):
            self.cuda_stream = stream.handle

    torch.cuda.current_stream = lambda device: Current(stream)

    def equal(a, b):
        stream.synchronize()
        return all(torch.equal(x, y) for x, y in zip(a, b, strict=True))

    small = [torch.randn(1000) for _ in range(10)]
    large = [*small, torch.randn(300_000), torch.randn(30, 30)[:, ::2], torch.empty(0)]
"""


def test_results_are_there_for_what_the_stream_does_next() -> None:
    run(PREAMBLE + """
    for tree in (small, large):
        assert equal(tree, pinlane.to(tree, "cuda"))
        stream.busy(0.05)
        assert equal(tree, pinlane.to(tree, "cuda"))
    """)


def test_sources_may_change_when_the_call_returns_before_the_bytes_have_landed() -> None:
    run(PREAMBLE + """
    with stream.stall():
        there = pinlane.to(small, "cuda")
        assert not stream.query(), "the call waited for the stream"
        clones = [tensor.clone() for tensor in small]
        for tensor in small:
            tensor.zero_()
    assert equal(clones, there)
    """)


def test_a_busy_stream_holds_up_no_caller_while_there_are_slots() -> None:
    run(PREAMBLE.replace("bytes_per_second=5e8", "lanes=8") + """
    many = [torch.randn(1000) for _ in range(700)]
    pinlane.to(many, "cuda")
    for non_blocking in (True, False):
        with stream.stall():
            there = pinlane.to(many, "cuda", non_blocking=non_blocking)
            if non_blocking:
                there = there.result()
            assert not stream.query(), "the caller waited for the stream"
            clones = [tensor.clone() for tensor in many]
            for tensor in many:
                tensor.add_(1)
        assert equal(clones, there)
    """)


def test_pinned_sources_may_change_when_the_call_returns() -> None:
    run(PREAMBLE + """
    pinned = pinlane.pin(large, "cuda")
    there = pinlane.to(pinned, "cuda")
    for tensor in pinned:
        tensor.zero_()
    assert equal(large, there)
    """)


def test_short_pinned_memory_that_a_stream_may_still_write_is_read_after_it() -> None:
    run(PREAMBLE + """
    pinned = [pinlane.pin(tensor, "cuda") for tensor in small[:2]]
    stream.busy(0.2)
    transfer = pinlane.to(pinned, "cuda", non_blocking=True)
    assert stream.query(), "the memory was read while the stream may have written it"
    assert equal(small[:2], transfer.result())
    """)


def test_a_transfers_result_is_ordered_on_the_stream_that_is_current_when_it_is_taken() -> None:
    run(PREAMBLE + """
    transfer = pinlane.to(large, "cuda", non_blocking=True)
    stream = _native.SimulatedStream("cuda:0")
    there = transfer.result()
    assert equal(large, there)
    assert transfer.done()
    """)


def test_what_a_stream_still_writes_is_waited_for_on_the_way_back() -> None:
    run(PREAMBLE + """
    there = pinlane.to(large, "cuda")
    stream.synchronize()
    with stream.stall():
        transfer = pinlane.to(there, "cpu", stream=stream, non_blocking=True)
        assert not transfer.done()
    assert equal(large, transfer.result())
    """)


def test_what_torch_does_itself_it_does_on_the_stream_that_was_given() -> None:
    run(PREAMBLE + """
    import contextlib
    from torch.overrides import TorchFunctionMode

    current, seen = [None], {}

    @contextlib.contextmanager
    def on(given):
        current.append(given)
        yield
        current.pop()

    torch.cuda.stream = on

    class Watch(TorchFunctionMode):
        def __torch_function__(self, function, types, args=(), kwargs=None):
            seen.setdefault(getattr(function, "__name__", ""), set()).add(current[-1])
            return function(*args, **(kwargs or {}))

    given = Current(stream)
    x = torch.randn(4, 6, dtype=torch.complex64).conj()[:, ::2]
    tree = [x, torch.randn(3), torch.randn(3, dtype=torch.float64), torch.ones(3, requires_grad=True)]
    with Watch():
        there = pinlane.to(tree, "cuda", dtype=torch.bfloat16, stream=given)
        wider = pinlane.to([torch.randn(3)], "cuda", dtype=torch.float64, non_blocking=True, stream=given).result()
    assert seen["resolve_conj"] == seen["to"] == {given}, seen
    stream.synchronize()
    assert torch.equal(there[0], x.resolve_conj()) and there[3].dtype is torch.bfloat16
    """)


def test_torchs_allocator_is_told_of_a_stream_that_was_not_current_at_the_start() -> None:
    run(PREAMBLE + """
    from pinlane._plan import Plan

    marked = []
    Plan.mark_used = lambda plan, tree, streams: marked.append([given.cuda_stream for given in streams])
    first = stream
    pinlane.to(large, "cuda", non_blocking=True).result()
    assert not marked
    transfer = pinlane.to(large, "cuda", non_blocking=True)
    waiting = _native.SimulatedStream("cuda:0")
    transfer.wait(Current(waiting))
    stream = _native.SimulatedStream("cuda:0")
    assert equal(large, transfer.result())
    assert marked == [[waiting.handle, stream.handle]]
    """)
