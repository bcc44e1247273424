"""Any tree moves as if torch had moved each leaf of it."""

from __future__ import annotations

import collections
import dataclasses
from typing import Any

import numpy
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import pinlane

from .conftest import DEVICE

Pair = collections.namedtuple("Pair", ["first", "second"])


@dataclasses.dataclass
class Plain:
    x: Any
    more: Any


DTYPES = [torch.float32, torch.bfloat16, torch.int64, torch.bool, torch.complex64]

LAYOUTS: list[Any] = [
    lambda x: x,
    lambda x: x.t(),
    lambda x: x[::2],
    lambda x: x[:, 1:],
    lambda x: x[0],
    lambda x: x[0, 0],
    lambda x: x[0].expand(3, -1),
    lambda x: x.conj() if x.is_complex() else x,
    lambda x: x[:0],
]


@st.composite
def leaves(draw: st.DrawFn) -> Any:
    kind = draw(st.sampled_from(["tensor", "array", "other"]))
    if kind == "other":
        return draw(st.sampled_from([None, 1, 2.5, "text", b"bytes", torch.float32, slice(1)]))
    if kind == "array":
        return numpy.arange(draw(st.integers(0, 9)), dtype=draw(st.sampled_from(["f4", "i8", "u1"])))
    numbers = torch.arange(draw(st.integers(0, 5)), draw(st.integers(6, 20)))
    tensor = numbers.repeat(4, 1).to(draw(st.sampled_from(DTYPES)))
    return draw(st.sampled_from(LAYOUTS))(tensor)


any_tree = st.recursive(
    leaves(),
    lambda children: st.one_of(
        st.lists(children, max_size=4),
        st.lists(children, max_size=3).map(tuple),
        st.dictionaries(st.one_of(st.text(max_size=3), st.integers()), children, max_size=4),
        st.tuples(children, children).map(lambda both: Pair(*both)),
        children.map(lambda child: Plain(child, [child, "kept"])),
        st.lists(children, max_size=3).map(collections.deque),
        children.map(lambda child: collections.OrderedDict(one=child, two=child)),
    ),
    max_leaves=12,
)


def assert_moved(moved: Any, tree: Any, seen: dict[int, Any]) -> None:
    """The same as if torch had moved each leaf, and one object where there was one."""
    if isinstance(tree, (torch.Tensor, numpy.ndarray)):
        assert seen.setdefault(id(tree), moved) is moved
        if isinstance(tree, numpy.ndarray):
            # From a GPU an array comes back as a tensor.
            array = numpy.asarray(moved)
            assert array.dtype == tree.dtype and numpy.array_equal(array, tree)
            return
        wanted = tree.to("cpu", copy=True)
        assert (moved.dtype, moved.stride()) == (wanted.dtype, wanted.stride())
        assert torch.equal(moved, wanted) and moved.data_ptr() != tree.data_ptr() or not tree.numel()
        return
    assert type(moved) is type(tree)
    if isinstance(tree, dict):
        assert list(moved) == list(tree)
        moved, tree = list(moved.values()), list(tree.values())
    elif dataclasses.is_dataclass(tree):
        fields = [field.name for field in dataclasses.fields(tree)]
        moved, tree = ([getattr(one, name) for name in fields] for one in (moved, tree))
    if isinstance(tree, (list, tuple, collections.deque)):
        assert len(moved) == len(tree)
        for one, other in zip(moved, tree, strict=True):
            assert_moved(one, other, seen)
    else:
        assert moved is tree


@settings(deadline=None, max_examples=200)
@given(tree=any_tree, slab=st.booleans(), non_blocking=st.booleans())
def test_any_tree_moves_as_if_torch_had_moved_its_leaves(tree: Any, slab: bool, non_blocking: bool) -> None:
    there = pinlane.to(tree, DEVICE, slab=slab, non_blocking=non_blocking)
    back = pinlane.to(there.result() if non_blocking else there, "cpu", slab=slab)
    assert_moved(back, tree, {})
