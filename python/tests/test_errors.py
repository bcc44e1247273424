"""What can't be done is refused, with the leaf's place in the tree and a fitting exception."""

from __future__ import annotations

import importlib.metadata
import os
import pickle
import re
import subprocess
import sys
import textwrap
from typing import Any

import numpy
import pytest
import torch

import pinlane
from pinlane import _plan
from pinlane.testing import SimulatedStream
from torch.autograd import forward_ad


@pytest.mark.parametrize("name", ["gpu", "cudas", "meta", "cuda:x", "cuda:-1", "", "cpu:1", "mps"])
def test_an_unknown_device_is_refused_as_torch_refuses_it(name: str) -> None:
    with pytest.raises(RuntimeError, match=re.escape(repr(name))) as caught:
        pinlane.to(torch.zeros(1), name)
    assert isinstance(caught.value, pinlane.NoSuchDeviceError)


@pytest.mark.parametrize("name", ["sim:2", "sim:nowhere", "cuda:99", torch.device("cuda:99"), 99])
def test_an_index_out_of_range_is_refused(name: Any) -> None:
    with pytest.raises(pinlane.NoSuchDeviceError):
        pinlane.to(torch.zeros(1), name)


@pytest.mark.parametrize("device", [None, 1.5, True, ["cuda"]])
def test_what_is_no_device_is_a_type_error(device: Any) -> None:
    with pytest.raises(TypeError, match="a device is"):
        pinlane.to(torch.zeros(1), device)


def test_devices_may_be_named_as_torch_names_them() -> None:
    x = torch.zeros(1)
    assert pinlane.to(x, torch.device("cpu")) is x


def _quantized() -> torch.Tensor:
    return torch._empty_affine_quantized([3], scale=1.0, zero_point=0, dtype=torch.quint8)


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
@pytest.mark.parametrize(
    "make",
    [
        lambda: torch.zeros(3, device="meta"),
        lambda: torch.eye(3).to_sparse(),
        _quantized,
        lambda: torch.nested.nested_tensor([torch.ones(2), torch.ones(3)]),
        lambda: torch.zeros(3).as_subclass(type("Mine", (torch.Tensor,), {})),
    ],
)
def test_tensors_that_a_device_does_not_hold_are_refused_by_path(make: Any) -> None:
    tree = {"batch": [torch.zeros(2), {"odd": make()}]}
    with pytest.raises(pinlane.UnsupportedLeafError, match=re.escape("['batch'][1]['odd']")):
        pinlane.to(tree, "sim")


#: What torch warns of when it first makes a tangent.
_BY_TORCH = "ignore:`torch.jit.script` is deprecated:DeprecationWarning"


@pytest.mark.filterwarnings(_BY_TORCH)
@pytest.mark.parametrize("requires_grad", [False, True])
def test_a_tangent_is_not_lost(requires_grad: bool) -> None:
    with forward_ad.dual_level():
        x = forward_ad.make_dual(torch.ones(3, requires_grad=requires_grad), torch.full((3,), 5.0))
        plain = torch.ones(3)
        with pytest.raises(pinlane.UnsupportedLeafError, match=r"\['x'\]\[0\].*tangent"):
            pinlane.to({"x": [x]}, "sim")
        with pytest.raises(pinlane.UnsupportedLeafError, match=r"pinning \['x'\]"):
            pinlane.pin({"x": x}, "sim")
        assert pinlane.to([x], "cpu")[0] is x
        assert pinlane.to([plain], "sim")[0].eq(1).all()


@pytest.mark.filterwarnings(_BY_TORCH)
@pytest.mark.parametrize(
    "transform",
    [
        lambda f: torch.func.grad(f)(torch.ones(3)),
        lambda f: torch.func.vmap(f)(torch.ones(2, 3)),
        lambda f: torch.func.jvp(f, (torch.ones(3),), (torch.ones(3),)),
    ],
)
def test_what_a_transform_works_on_is_refused_by_path_and_other_tensors_move(transform: Any) -> None:
    outside = torch.ones(2)

    def work(x: torch.Tensor) -> torch.Tensor:
        assert pinlane.to([outside], "sim")[0].shape == (2,)
        with pytest.raises(pinlane.UnsupportedLeafError, match=r"\['x'\]\[0\].*torch.func"):
            pinlane.to({"x": [x]}, "sim")
        return pinlane.to([x], "cpu")[0].sum()

    transform(work)


def test_a_tensor_whose_storage_was_freed_is_refused_by_path() -> None:
    x = torch.ones(3)
    x.untyped_storage().resize_(0)
    for tree in ([x], [x, torch.ones(2)]):
        with pytest.raises(pinlane.UnsupportedLeafError, match=r"\['x'\]\[0\].*no memory"):
            pinlane.to({"x": tree}, "sim")


@pytest.mark.parametrize("kind", [ValueError, KeyError, BufferError])
def test_what_can_not_be_exported_is_refused_by_path(kind: type[Exception]) -> None:
    class Refusing:
        def __dlpack__(self, **_: Any) -> Any:
            raise kind("not now")

        def __dlpack_device__(self) -> tuple[int, int]:
            return 1, 0

    with pytest.raises(pinlane.UnsupportedLeafError, match=r"\['x'\].*not now"):
        pinlane.to({"x": Refusing()}, "sim")


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
@pytest.mark.parametrize(
    "make",
    [
        lambda: torch.eye(3).to_sparse(),
        lambda: torch.nested.nested_tensor([torch.ones(2)]),
        lambda: numpy.array([None]),
        lambda: numpy.ma.array([1], mask=[0]),
    ],
)
def test_what_can_not_be_pinned_is_refused_by_path(make: Any) -> None:
    leaf = make()
    with pytest.raises(pinlane.UnsupportedLeafError, match=r"pinning \['x'\]\[0\]"):
        pinlane.pin({"x": [leaf]}, "sim")
    assert isinstance(leaf, numpy.ndarray) or not pinlane.is_pinned(leaf, "sim")


def test_sparse_tensors_and_subclasses_of_the_host_stay_there() -> None:
    tree = [torch.eye(3).to_sparse(), torch.zeros(3).as_subclass(type("Mine", (torch.Tensor,), {})), _quantized()]
    assert all(a is b for a, b in zip(pinlane.to(tree, "cpu"), tree, strict=True))


def test_a_meta_tensor_is_refused_as_torch_refuses_it() -> None:
    with pytest.raises(NotImplementedError, match="itself.*meta"):
        pinlane.to(torch.zeros(3, device="meta"), "cpu")


def test_a_module_is_refused_with_what_to_do_instead() -> None:
    with pytest.raises(pinlane.UnsupportedLeafError, match="state_dict"):
        pinlane.to(torch.nn.Linear(2, 2), "sim")


def test_what_is_no_stream_is_a_type_error() -> None:
    with pytest.raises(TypeError, match="a stream is"):
        pinlane.to(torch.zeros(1), "sim", stream=7)  # type: ignore[arg-type]


def test_a_stream_of_a_device_that_has_no_part_in_it_is_refused() -> None:
    stream = SimulatedStream("sim:1")
    with pytest.raises(ValueError, match="sim:1"):
        pinlane.to(torch.zeros(1), "sim:0", stream=stream)
    there = pinlane.to(torch.ones(3), "sim:1")
    assert pinlane.to(there, "sim:0", stream=stream).eq(1).all(), "it is the source's"
    transfer = pinlane.to(torch.ones(3), "sim:0", non_blocking=True)
    with pytest.raises(ValueError, match="sim:1"):
        transfer.wait(stream)
    assert transfer.result().eq(1).all()


def test_torch_without_room_for_what_it_does_to_a_leaf_is_ours_too(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any, **__: Any) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(_plan.Plan, "_mark", full)
    monkeypatch.setattr(_plan.Plan, "_moved_by_torch", full)
    for leaf, dtype in ((torch.randn(3), torch.float16), (torch.eye(3).to_sparse(), None)):
        with pytest.raises(torch.OutOfMemoryError, match=r"\['x'\]\[0\]") as caught:
            pinlane.to({"x": [leaf]}, "sim", dtype=dtype)
        assert isinstance(caught.value, pinlane.OutOfMemoryError)


def test_a_budget_that_is_too_small_says_what_to_do() -> None:
    with pytest.raises(pinlane.PinnedBudgetError, match="budget"):
        pinlane.pin(torch.empty(1 << 30, dtype=torch.uint8), "sim:1")
    with pytest.raises(pinlane.Error, match="slots"):
        pinlane.set_pinned_budget(1, "sim:1")
    pinlane.set_pinned_budget(2 << 30, "sim:1")
    assert pinlane.stats().devices["sim:1"].pinned_budget == 2 << 30
    pinned = pinlane.pin(torch.empty(300 << 20, dtype=torch.uint8), "sim:1")
    assert pinlane.is_pinned(pinned, "sim:1")
    del pinned
    pinlane.set_pinned_budget(256 << 20, "sim:1")
    assert pinlane.stats().devices["sim:1"].pinned <= 256 << 20


def test_who_finds_no_room_is_told_of_which_leaf() -> None:
    tiny = pinlane.testing.simulate("sim:tiny", memory_bytes=1 << 20)
    tree = {"a": [torch.zeros(1)], "b": {"large": torch.zeros(1 << 20)}}
    some = "2 tensors, the largest of them ['b']['large']"
    for slab, told in ((True, some), (False, "['b']['large']")):
        with pytest.raises(pinlane.OutOfMemoryError, match=re.escape(f"moving {told}: ")):
            pinlane.to(tree, tiny, slab=slab)
    assert tree["b"]["large"].eq(0).all(), "the caller's tensors stay as they were"
    with pytest.raises(pinlane.PinnedBudgetError, match=re.escape(f"moving {some}: ")):
        pinlane.to(pinlane.to({"a": torch.zeros(1), "b": {"large": torch.zeros(80 << 20)}}, "sim"), "cpu", pin=True)
    with pytest.raises(pinlane.PinnedBudgetError, match=re.escape("pinning ['b']['large']: ")):
        pinlane.pin({"b": {"large": torch.empty(80 << 20)}}, "sim")


@pytest.mark.parametrize("wrong", ["1GB", 1.5, None, True])
def test_what_is_no_whole_number_is_a_type_error_that_says_which(wrong: Any) -> None:
    for call, name in (
        (lambda: pinlane.set_pinned_budget(wrong, "sim"), "the budget"),
        (lambda: pinlane.set_kept_limit(wrong), "the limit"),
        (lambda: pinlane.prefetch([], "sim", depth=wrong), "the depth"),
        (lambda: pinlane.prefetch([], "sim", max_bytes=wrong or "x"), "max_bytes"),
        (lambda: pinlane.collate(slab_bytes=wrong), "slab_bytes"),
        (lambda: pinlane.collate(slabs=wrong), "slabs"),
    ):
        with pytest.raises(TypeError, match=f"{name}.* is a whole number, not"):
            call()


@pytest.mark.parametrize("wrong", ["no", 1, 0, [True]])
def test_what_is_neither_true_nor_false_is_a_type_error_that_says_which(wrong: Any) -> None:
    x = torch.ones(1)
    for tree in (x, [x]):
        for name in ("slab", "pin"):
            with pytest.raises(TypeError, match=f"{name}.* is True or False, not {re.escape(repr(wrong))}"):
                pinlane.to(tree, "sim", **{name: wrong})
    with pytest.raises(TypeError, match="slab is True or False, not None"):
        pinlane.to([x], "sim", slab=None)  # type: ignore[call-overload]
    with pytest.raises(TypeError, match="slab is True or False"):
        pinlane.prefetch([x], "sim", slab=wrong)


@pytest.mark.parametrize("wrong", ["float16", torch.int64])
def test_prefetch_refuses_a_dtype_before_the_first_batch(wrong: Any) -> None:
    with pytest.raises(TypeError, match="dtype|floating-point"):
        pinlane.prefetch([torch.ones(1)], "sim", dtype=wrong)


def test_collate_refuses_a_device_that_is_not_there_before_the_first_batch() -> None:
    for name in ("sim:nowhere", "cuda:99"):
        with pytest.raises(pinlane.NoSuchDeviceError):
            pinlane.collate(device=name)


def test_other_arguments_of_wrong_types_are_type_errors() -> None:
    with pytest.raises(TypeError, match="is a function, not 3"):
        pinlane.collate(3)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="PathLike"), pinlane.profile(1):  # type: ignore[arg-type]
        pass
    with pytest.raises(ValueError, match="the budget is at least 0, not -1"):
        pinlane.set_pinned_budget(-1, "sim")
    assert len(pinlane.prefetch([1], "sim", depth=numpy.int64(2))) == 1


def run(script: str, *flags: str) -> str:
    """Runs a script in a Python of its own."""
    environment = {**os.environ, "PYTHONWARNINGS": "ignore"}
    done = subprocess.run(
        [sys.executable, *flags, "-c", textwrap.dedent(script)],
        capture_output=True,
        text=True,
        timeout=120,
        env=environment,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_forked_child_gets_an_error_and_exits_in_peace() -> None:
    script = """
        import os, sys
        import numpy, pinlane
        there = pinlane.to(numpy.ones(1000), "sim")
        flying = pinlane.to(numpy.ones(1000), "sim", non_blocking=True)
        child = os.fork()
        if child == 0:
            for ask in (lambda: pinlane.to(there, "cpu"), flying.result, lambda: pinlane.to(numpy.ones(1), "sim")):
                try:
                    ask()
                except pinlane.ForkError as error:
                    assert "spawn" in str(error)
                else:
                    os._exit(3)
            assert pinlane.to(numpy.ones(1), "cpu") == 1
            del there, flying
            sys.exit(0)
        assert os.waitpid(child, 0)[1] == 0
        assert flying.result().sum() == 1000
    """
    run(script)


def test_a_process_exits_while_transfers_are_under_way() -> None:
    script = """
        import numpy, pinlane
        from pinlane.testing import simulate
        simulate("sim:slow", bytes_per_second=1e6)
        kept = [pinlane.to(numpy.ones(100_000), "sim:slow", non_blocking=True) for _ in range(5)]
    """
    run(script)


def test_numpy_alone_is_enough() -> None:
    script = """
        import sys
        sys.modules["torch"] = None  # as where it is not installed
        import numpy, pinlane
        tree = {"x": numpy.arange(6.0).reshape(2, 3).T, "y": [numpy.zeros(0), "text"]}
        back = pinlane.to(pinlane.to(tree, "sim"), "cpu")
        assert (back["x"] == tree["x"]).all() and back["x"].strides == tree["x"].strides
    """
    run(script)


def test_importing_it_imports_neither_torch_nor_numpy() -> None:
    loaded = run("import sys, pinlane; print(*(name for name in ('torch', 'numpy') if name in sys.modules))")
    assert loaded.split() == []


def test_what_is_for_tests_is_there_when_it_is_asked_for() -> None:
    script = """
        import sys, pinlane
        assert "pinlane.testing" not in sys.modules and "testing" in dir(pinlane)
        assert pinlane.testing.simulate("sim:asked") == "sim:asked"
        try:
            pinlane.nothing
        except AttributeError as error:
            print(error)
    """
    assert run(script).strip() == "module 'pinlane' has no attribute 'nothing'"


@pytest.mark.parametrize(
    ("name", "wishes", "told"),
    [
        ("sim:", {}, "sim:something"),
        ("gpu:x", {}, "sim:something"),
        ("sim:a b", {}, "sim:something"),
        ("sim:wish", {"bytes_per_second": 0}, "bytes_per_second"),
        ("sim:wish", {"bytes_per_second": -1.0}, "bytes_per_second"),
        ("sim:wish", {"bytes_per_second": float("nan")}, "bytes_per_second"),
        ("sim:wish", {"bytes_per_second": float("inf")}, "bytes_per_second"),
        ("sim:wish", {"memory_bytes": -1}, "memory_bytes"),
        ("sim:wish", {"memory_bytes": 1.5}, "memory_bytes"),
        ("sim:wish", {"pinned_budget": 0}, "pinned_budget"),
        ("sim:wish", {"lanes": 0}, "lanes"),
        ("sim:wish", {"slot_bytes": -4096}, "slot_bytes"),
        ("sim:wish", {"copy_latency": -1.0}, "seconds"),
    ],
)
def test_a_simulated_device_that_can_not_be_is_refused_and_its_name_stays_free(
    name: str, wishes: dict[str, Any], told: str
) -> None:
    with pytest.raises(ValueError, match=told):
        pinlane.testing.simulate(name, **wishes)
    assert name not in {device.name for device in pinlane.devices()}


def test_errors_are_called_as_users_know_them() -> None:
    errors = {name: getattr(pinlane, name) for name in pinlane.__all__ if name.endswith("Error")}
    assert len(errors) > 10
    assert {error.__module__ for error in errors.values()} == {"pinlane"}
    assert all(pickle.loads(pickle.dumps(error)) is error for error in errors.values())


def test_the_package_tells_its_version() -> None:
    assert pinlane.__version__ == importlib.metadata.version("pinlane")
    assert "__version__" in dir(pinlane)
