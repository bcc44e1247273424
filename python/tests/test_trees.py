"""Every kind of container comes back as what it was, with the tensors in it moved."""

from __future__ import annotations

import collections
import dataclasses
import sys
import types
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import pytest
import torch

import pinlane


class Point(NamedTuple):
    x: torch.Tensor
    name: str


@dataclasses.dataclass(frozen=True)
class Frozen:
    x: torch.Tensor
    size: int = 3
    derived: torch.Tensor = dataclasses.field(init=False, default_factory=lambda: torch.zeros(1))


@dataclasses.dataclass(slots=True)
class Slotted:
    x: torch.Tensor


class Bag(dict[str, Any]):
    label = "a dict of its own kind"


class Row(list[Any]):
    pass


class Spread(tuple[Any, ...]):
    """Made of arguments, as a named tuple is, and not of one iterable."""

    def __new__(cls, *elements: Any) -> Spread:
        return super().__new__(cls, elements)


class Registered:
    def __init__(self, x: torch.Tensor) -> None:
        self.x = x


torch.utils._pytree.register_pytree_node(
    Registered, lambda thing: ([thing.x], None), lambda children, _: Registered(*children)
)


def back_and_forth(tree: Any, device: str) -> Any:
    there = pinlane.to(tree, device)
    return pinlane.to(there, "cpu")


def same(a: torch.Tensor, b: torch.Tensor) -> bool:
    return a is not b and torch.equal(a, b)


def test_dicts_lists_and_tuples_come_back_as_such(device: str) -> None:
    x, y = torch.randn(3, 4), torch.arange(5)
    tree = {"a": x, 7: [y, (x.t(), "text", 2.5, None)], "empty": [{}, (), []]}
    back = back_and_forth(tree, device)
    assert list(back) == ["a", 7, "empty"]
    assert same(back["a"], x) and same(back[7][0], y) and same(back[7][1][0], x.t())
    assert back[7][1][1:] == ("text", 2.5, None)
    assert back["empty"] == [{}, (), []]


@pytest.mark.parametrize(
    "make",
    [
        lambda x: collections.OrderedDict(b=x, a=1),
        lambda x: collections.defaultdict(list, b=x),
        lambda x: Bag(b=x),
        lambda x: collections.UserDict(b=x),
        lambda x: types.MappingProxyType({"b": x}),
    ],
)
def test_mappings_keep_their_type_and_their_source_is_left_alone(make: Any, device: str) -> None:
    x = torch.randn(3)
    tree = make(x)
    back = back_and_forth(tree, device)
    assert type(back) is type(tree) and back is not tree
    assert same(back["b"], x) and tree["b"] is x
    if isinstance(tree, collections.defaultdict):
        assert back["new"] == []


def test_sequences_keep_their_type(device: str) -> None:
    x = torch.randn(3)
    point, row, queue = back_and_forth((Point(x, "p"), Row([x]), collections.deque([x], maxlen=4)), device)
    assert type(point) is Point and point.name == "p" and same(point.x, x)
    assert type(row) is Row and same(row[0], x)
    assert queue.maxlen == 4 and same(queue[0], x)


def test_tuples_of_ones_own_are_made_of_their_elements_whatever_their_class_takes(device: str) -> None:
    spread = Spread(torch.ones(2), torch.zeros(3))
    spread.name = "kept"
    largest = torch.max(torch.arange(6.0).view(2, 3), 0)
    back, again = back_and_forth((spread, largest), device)
    assert type(back) is Spread and len(back) == 2 and back.name == "kept"
    assert all(same(a, b) for a, b in zip(back, spread, strict=True))
    assert type(again) is type(largest) and same(again.values, largest.values)


def test_dataclasses_keep_their_type_and_every_field(device: str) -> None:
    tree = Frozen(torch.randn(3), 5), Slotted(torch.randn(2))
    frozen, slotted = back_and_forth(tree, device)
    assert type(frozen) is Frozen and frozen.size == 5
    assert same(frozen.x, tree[0].x) and same(frozen.derived, tree[0].derived)
    assert type(slotted) is Slotted and same(slotted.x, tree[1].x)


def test_what_is_registered_with_torchs_pytree_moves(device: str) -> None:
    tree = Registered(torch.randn(3))
    back = back_and_forth(tree, device)
    assert type(back) is Registered and same(back.x, tree.x)


def test_packed_sequences_keep_their_batch_sizes_on_the_host(device: str) -> None:
    sequences = [torch.randn(length, 2) for length in (2, 5, 3)]
    packed = torch.nn.utils.rnn.pack_sequence(sequences, enforce_sorted=False)
    there = pinlane.to(packed, device)
    assert type(there) is type(packed) and there.batch_sizes is packed.batch_sizes
    back = pinlane.to(there, "cpu")
    assert torch.equal(back.data, packed.data)
    assert torch.equal(back.sorted_indices, packed.sorted_indices)
    for sequence, again in zip(sequences, torch.nn.utils.rnn.unpack_sequence(back), strict=True):
        assert torch.equal(sequence, again)


def test_tensordicts_keep_names_nesting_and_batch_size(device: str) -> None:
    tensordict = pytest.importorskip("tensordict")
    tree = tensordict.TensorDict(
        {"a": torch.randn(4, 2), "inner": {"b": torch.arange(4)}}, batch_size=[4]
    )
    back = back_and_forth(tree, device)
    assert type(back) is type(tree) and back.batch_size == tree.batch_size
    assert same(back["a"], tree["a"]) and same(back["inner", "b"], tree["inner", "b"])


def test_tensordicts_stay_locked_where_they_are(device: str) -> None:
    tensordict = pytest.importorskip("tensordict")

    def tree() -> Any:
        inner = {"b": torch.arange(4), "deeper": {"c": torch.ones(4)}}
        return tensordict.TensorDict({"a": torch.randn(4), "inner": inner}, batch_size=[4])

    whole, part, free = tree().lock_(), tree(), tree()
    part["inner"].lock_()
    whole, part, free = back_and_forth([whole, part, free], device)
    for td, locked in ((whole, (True, True, True)), (part, (False, True, True)), (free, (False, False, False))):
        assert (td.is_locked, td["inner"].is_locked, td["inner", "deeper"].is_locked) == locked
    with pytest.raises(RuntimeError, match="lock"):
        whole["new"] = torch.zeros(4)
    part["new"] = torch.zeros(4)


def test_what_tokenizers_give_keeps_its_type(device: str) -> None:
    transformers = pytest.importorskip("transformers")
    tree = transformers.BatchEncoding({"input_ids": torch.arange(6).view(2, 3), "text": "words"})
    back = back_and_forth(tree, device)
    assert type(back) is type(tree) and same(back["input_ids"], tree["input_ids"]) and back["text"] == "words"


def test_what_holds_no_tensor_passes_through_as_it_is(device: str) -> None:
    config = Bag(depth=3)
    things = [config, torch.Size([2, 3]), "text", {1, 2}, print, torch.float32]
    there = pinlane.to([torch.zeros(1), *things], device)
    assert all(a is b for a, b in zip(there[1:], things, strict=True))


def test_the_same_tensor_twice_stays_one_object(device: str) -> None:
    x = torch.randn(3)
    there = pinlane.to({"a": x, "b": [x]}, device)
    assert there["a"] is there["b"][0]


def test_views_of_one_storage_become_tensors_of_their_own(device: str) -> None:
    x = torch.zeros(6)
    first, second = pinlane.to((x[:4], x[2:]), device)
    first.fill_(1)
    assert pinlane.to(second, "cpu").eq(0).all()
    assert not first._is_view() and first._version == 1 and second._version == 0


def test_a_tensor_that_is_there_already_is_itself(device: str) -> None:
    x = torch.randn(3)
    there = pinlane.to(x, device)
    assert pinlane.to(there, device) is there
    assert pinlane.to(x, "cpu") is x


def test_a_tree_that_holds_itself_is_refused(device: str) -> None:
    tree: list[Any] = [torch.zeros(1)]
    tree.append(tree)
    with pytest.raises(RecursionError):
        pinlane.to(tree, device)


def test_trees_as_deep_as_python_goes_move(device: str) -> None:
    tree: Any = torch.ones(2)
    for _ in range(300):
        tree = [tree]
    back = back_and_forth(tree, device)
    for _ in range(300):
        (back,) = back
    assert same(back, torch.ones(2))


@pytest.mark.parametrize("depth", [999, 1001, 5000, 100_000])
def test_a_tree_of_more_levels_than_the_stack_has_room_for_is_refused(depth: int, device: str) -> None:
    tree: Any = torch.ones(2)
    for _ in range(depth):
        tree = [tree]
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(1_000_000)
    try:
        if depth < 1000:
            assert isinstance(back_and_forth(tree, device), list)
        else:
            with pytest.raises(RecursionError, match="deeper than 1000"):
                pinlane.to(tree, device)
    finally:
        sys.setrecursionlimit(limit)
        while isinstance(tree, list):  # freeing it as a whole would go as deep
            (tree,) = tree


class Meddling(Mapping[str, Any]):
    """Does something when what is in it is asked for."""

    def __init__(self, x: Any, meddle: Callable[[], object] = lambda: None) -> None:
        self.x, self.meddle = x["x"] if isinstance(x, dict) else x, meddle

    def __getitem__(self, key: str) -> torch.Tensor:
        self.meddle()
        return self.x

    def __iter__(self) -> Iterator[str]:
        return iter("x")

    def __len__(self) -> int:
        return 1


def test_a_container_may_grow_while_it_is_taken_apart(device: str) -> None:
    x = torch.ones(2)
    grown: dict[Any, Any] = {}
    grown |= {"m": Meddling(x, lambda: grown.update({len(grown): 1})), "x": x, "y": torch.zeros(1)}
    emptied: list[Any] = []
    emptied += [Meddling(x, emptied.clear), x]
    assert list(pinlane.to(grown, device)) == ["m", "x", "y"] and len(grown) > 3
    assert len(pinlane.to(emptied, device)) == 1


def failing() -> None:
    raise KeyError("not there")


class Unregistered(collections.UserList):  # type: ignore[type-arg]
    pass


def test_a_container_whose_own_code_fails_is_named(device: str) -> None:
    def flatten(_: Any) -> Any:
        failing()

    torch.utils._pytree.register_pytree_node(Unregistered, flatten, lambda children, _: Unregistered(children))
    for culprit in (Meddling(torch.ones(1), failing), Unregistered([torch.ones(1)])):
        with pytest.raises(pinlane.UnsupportedLeafError, match=r"looking into \['q'\]\[0\].*not there") as caught:
            pinlane.to({"q": [culprit]}, device)
        assert isinstance(caught.value.__cause__, KeyError)

    def interrupted() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pinlane.to([Meddling(torch.ones(1), interrupted)], device)


class Picky(collections.UserList):  # type: ignore[type-arg]
    """A container whose making fails as often as it is told."""

    failures = 1


def test_a_container_that_can_not_be_made_again_is_named_and_the_results_are_kept(device: str) -> None:
    def unflatten(children: Any, context: Any) -> Picky:
        if Picky.failures:
            Picky.failures -= 1
            raise ValueError("not today")
        return Picky(children)

    from torch.utils import _pytree

    _pytree.register_pytree_node(Picky, lambda picky: (list(picky), None), unflatten)
    tree = {"a": [Picky([torch.ones(3)])]}
    transfer = pinlane.to(tree, device, non_blocking=True)
    with pytest.raises(pinlane.UnsupportedLeafError, match=r"\['a'\]\[0\].*not today") as caught:
        transfer.result()
    assert isinstance(caught.value.__cause__, ValueError)
    assert torch.equal(pinlane.to(transfer.result()["a"][0][0], "cpu"), torch.ones(3))


def test_what_is_done_to_a_container_while_it_is_on_its_way_is_no_part_of_the_result(device: str) -> None:
    tree = [
        collections.OrderedDict(a=torch.zeros(2), b=torch.ones(2)),
        collections.UserDict(a=torch.zeros(2), b=torch.ones(2)),
    ]
    transfer = pinlane.to(tree, device, non_blocking=True)
    for container in tree:
        del container["a"]
        container["c"] = torch.zeros(9)
    for there in transfer.result():
        assert set(there) == {"a", "b"} and torch.equal(pinlane.to(there["b"], "cpu"), torch.ones(2))
