"""Saving checkpoints, and loading them into what is there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("safetensors")

from safetensors.torch import load_file, save_file  # noqa: E402
from torch import nn  # noqa: E402

import pinlane  # noqa: E402

from .checkpoints import DTYPES, assert_same, patterned  # noqa: E402


def model(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(5, 7), nn.BatchNorm1d(7), nn.Linear(7, 2, bias=False))


def there(module: nn.Module, device: str) -> dict[str, torch.Tensor]:
    """The module's tensors on a device: torch does not know simulated ones."""
    return pinlane.to({name: tensor.clone() for name, tensor in module.state_dict().items()}, device)


# ---- saving


def test_the_file_is_the_references_byte_for_byte(device: str, tmp_path: Path) -> None:
    tensors = {f"{number}.w": patterned(dtype, (3, 4), number) for number, dtype in enumerate(DTYPES)}
    tensors |= {"empty": torch.zeros(2, 0), "scalar": torch.tensor(1.5)}
    theirs, ours = tmp_path / "theirs.safetensors", tmp_path / "ours.safetensors"
    save_file(tensors, theirs, {"format": "pt"})
    for place in ("cpu", device):
        saved = pinlane.save(pinlane.load(theirs, place), ours)
        assert ours.read_bytes() == theirs.read_bytes()
        assert (saved.files, saved.index_file) == ([ours], None)


def test_a_module_and_nested_tensors_are_saved_by_their_names(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    module = model(1)
    pinlane.save(module, path)
    assert_same(load_file(path), dict(module.state_dict()))
    pinlane.save({"model": module, "steps": [torch.tensor(3), {"lr": torch.tensor(0.1)}]}, path)
    wanted = {f"model.{name}": tensor for name, tensor in module.state_dict().items()}
    wanted |= {"steps.0": torch.tensor(3), "steps.1.lr": torch.tensor(0.1)}
    assert_same(load_file(path), wanted)


def test_what_has_gaps_or_shares_memory_is_saved_as_it_is_seen(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    whole = torch.arange(24.0).reshape(4, 6)
    tensors = {"t": whole.t(), "part": whole[:, ::2], "same": whole, "again": whole, "conj": (whole + 1j * whole).conj()}
    pinlane.save(tensors, path)
    assert_same(load_file(path), {name: tensor.resolve_conj().contiguous() for name, tensor in tensors.items()})


def test_shards_have_an_index_that_the_reference_could_follow(device: str, tmp_path: Path) -> None:
    tensors = {f"{number}": torch.full((100,), float(number)) for number in range(10)}
    saved = pinlane.save(tensors, tmp_path / "model.safetensors", max_shard_bytes=1000, metadata={"a": "b"})
    assert len(saved.files) == 5
    assert saved.index_file == tmp_path / "model.safetensors.index.json"
    assert saved.nbytes == 4000
    together: dict[str, torch.Tensor] = {}
    for file in saved.files:
        together |= load_file(file)
    assert_same(together, tensors)
    assert_same(pinlane.load(saved.index_file, device), tensors)
    assert pinlane.open(tmp_path).metadata == {"a": "b"}


def test_saving_again_replaces_the_old_checkpoint_as_a_whole(tmp_path: Path) -> None:
    many = {f"{number}": torch.ones(100) for number in range(4)}
    pinlane.save(many, tmp_path, max_shard_bytes=500)
    pinlane.save({"x": torch.zeros(3)}, tmp_path)
    assert_same(pinlane.load(tmp_path), {"x": torch.zeros(3)})
    assert [path.name for path in tmp_path.iterdir()] == ["model.safetensors"]


def test_files_of_another_checkpoint_are_left_alone(tmp_path: Path) -> None:
    many = {f"{number}": torch.ones(100) for number in range(4)}
    sharded = pinlane.save(many, tmp_path / "model.safetensors", max_shard_bytes=500)
    path = tmp_path / "model.safetensors"
    pinlane.save_file({"x": torch.zeros(3)}, path)
    assert_same(pinlane.load(path), {"x": torch.zeros(3)})
    assert_same(pinlane.load(sharded.index_file), many)
    other = tmp_path / "other"
    other.mkdir()
    pinlane.save({"y": torch.ones(2)}, other / "adapter.safetensors")
    saved = pinlane.save({"x": torch.zeros(3)}, other)
    assert saved.index_file is not None
    assert_same(pinlane.load(other), {"x": torch.zeros(3)})
    assert_same(pinlane.load(other / "adapter.safetensors"), {"y": torch.ones(2)})


def test_what_can_not_be_saved_is_an_error_that_names_it_and_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    pinlane.save({"old": torch.ones(2)}, path)
    before = path.read_bytes()
    for wrong, error in [
        ({"w": torch.ones(2, dtype=torch.complex128)}, pinlane.UnsupportedLeafError),
        ({"w": "no tensor"}, pinlane.UnsupportedLeafError),
        ({"w": torch.ones(2, 2).to_sparse()}, pinlane.UnsupportedLeafError),
        ({"w": torch.ones(2, device="meta")}, pinlane.UnsupportedLeafError),
        ({"w": {"v": torch.ones(1)}, "w.v": torch.ones(1)}, ValueError),
    ]:
        with pytest.raises(error, match="w"):
            pinlane.save(wrong, path)
    with pytest.raises(pinlane.CheckpointError, match="__metadata__"):
        pinlane.save({"__metadata__": torch.ones(1)}, path)
    with pytest.raises(TypeError, match="metadata"):
        pinlane.save({"w": torch.ones(1)}, path, metadata={"a": 1})
    with pytest.raises(FileNotFoundError):
        pinlane.save({"w": torch.ones(1)}, tmp_path / "gone" / "model.safetensors")
    assert path.read_bytes() == before
    assert [other.name for other in tmp_path.iterdir()] == [path.name]


# ---- loading into what is there


def test_a_module_gets_what_load_state_dict_gives_it(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    save_file(model(1).state_dict(), path)
    ours, theirs = model(2), model(2)
    told = pinlane.load_into(ours, path)
    assert told == theirs.load_state_dict(load_file(path))
    assert repr(told) == "<All keys matched successfully>"
    assert_same(dict(ours.state_dict()), dict(theirs.state_dict()))


def test_tensors_are_written_in_place(device: str, tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    wanted = dict(model(1).state_dict())
    save_file(wanted, path)
    places = there(model(2), device)
    addresses = {name: tensor.data_ptr() for name, tensor in places.items()}
    versions = {name: tensor._version for name, tensor in places.items()}
    pinlane.load_into(places, path)
    assert_same(places, wanted)
    assert {name: tensor.data_ptr() for name, tensor in places.items()} == addresses
    assert all(tensor._version > versions[name] for name, tensor in places.items())


@pytest.mark.parametrize("strict", [True, False])
def test_names_are_compared_as_torch_compares_them(tmp_path: Path, strict: bool) -> None:
    path = tmp_path / "model.safetensors"
    state = dict(model(1).state_dict())
    del state["0.bias"]
    state |= {"extra": torch.ones(2), "more": torch.ones(1)}
    save_file(state, path)
    ours, theirs = model(2), model(2)
    if strict:
        with pytest.raises(RuntimeError, match=r"Missing.*0\.bias"):
            theirs.load_state_dict(load_file(path))
        before = {name: tensor.clone() for name, tensor in ours.state_dict().items()}
        with pytest.raises(RuntimeError, match=r"lacks '0\.bias'.*no place for '(extra|more)'") as caught:
            pinlane.load_into(ours, path)
        assert isinstance(caught.value, pinlane.CheckpointMismatchError)
        assert str(path) in str(caught.value)
        assert_same(dict(ours.state_dict()), before)
    else:
        told, reference = pinlane.load_into(ours, path, strict=False), theirs.load_state_dict(load_file(path), False)
        assert type(told) is type(reference)
        assert told.missing_keys == reference.missing_keys == ["0.bias"]
        assert sorted(told.unexpected_keys) == sorted(reference.unexpected_keys)
        assert_same(dict(ours.state_dict()), dict(theirs.state_dict()))


def test_another_shape_or_dtype_is_an_error_that_names_the_tensor_and_nothing_is_loaded(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    for wrong in ({"b": torch.ones(4)}, {"b": torch.ones(3).half()}, {"b": torch.ones(3, 1)}):
        save_file({"a": torch.ones(2)} | wrong, path)
        places = {"a": torch.zeros(2), "b": torch.zeros(3)}
        for strict in (True, False):
            with pytest.raises(pinlane.CheckpointMismatchError, match=r"'b' is .*\[3\] here"):
                pinlane.load_into(places, path, strict)
        assert places["a"].tolist() == [0, 0]


def test_every_kind_of_place_is_written(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    wanted = {f"{number}": torch.randn(4, 6) for number in range(6)} | {"c": torch.randn(4, 6, dtype=torch.complex64)}
    save_file(wanted, path)
    shared = torch.zeros(8, 6)
    with torch.inference_mode():
        unwatched = torch.zeros(4, 6)
    places = {
        "0": torch.zeros(6, 4).t(),
        "1": torch.zeros(4, 12)[:, ::2],
        "2": shared[:4],
        "3": shared[4:],
        "4": nn.Parameter(torch.zeros(4, 6)),
        "5": unwatched,
        "c": torch.zeros(4, 6, dtype=torch.complex64).conj(),
    }
    with torch.inference_mode():
        pinlane.load_into(places, path)
    assert_same({name: tensor.detach().resolve_conj() for name, tensor in places.items()}, wanted)


def test_tied_weights_are_loaded_once_and_not_missing(tmp_path: Path) -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embedding = nn.Embedding(4, 3)
            self.head = nn.Linear(3, 4, bias=False)
            self.head.weight = self.embedding.weight

    path = tmp_path / "model.safetensors"
    weight = torch.randn(4, 3)
    save_file({"embedding.weight": weight}, path)
    module = Tied()
    assert pinlane.load_into(module, path).missing_keys == []
    assert torch.equal(module.head.weight, weight)
    save_file({"embedding.weight": weight, "head.weight": weight.clone()}, path)
    module = Tied()
    pinlane.load_into(module, path)
    assert torch.equal(module.head.weight, weight)


def tied() -> nn.Module:
    module = nn.ModuleDict({name: nn.Linear(4, 3, bias=False) for name in ("b", "c", "a")})
    module["c"].weight = module["a"].weight = module["b"].weight  # type: ignore[assignment]
    return module


def test_of_tied_weights_that_differ_the_last_name_counts(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    # In the file they are sorted.
    save_file({f"{name}.weight": torch.full((3, 4), float(number)) for number, name in enumerate("abc")}, path)
    ours, theirs = tied(), tied()
    pinlane.load_into(ours, path)
    theirs.load_state_dict(load_file(path))
    assert_same(dict(ours.state_dict()), dict(theirs.state_dict()))


def test_of_overlapping_tensors_the_last_name_counts(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    save_file({name: torch.full((4,), float(number)) for number, name in enumerate("abc")}, path)
    whole = torch.zeros(8)
    pinlane.load_into({"c": whole[:4], "a": whole[2:6], "b": whole[::2]}, path)
    assert whole.tolist() == [1, 2, 1, 0, 1, 0, 1, 0]


class Counting(nn.Module):
    """A module whose state is not what its tensors are."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(3))
        self.count = torch.zeros(2)

    def get_extra_state(self) -> torch.Tensor:
        return self.count.clone()

    def set_extra_state(self, state: torch.Tensor) -> None:
        self.count = state


def test_extra_state_is_set(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    save_file({"in.weight": torch.ones(3), "in._extra_state": torch.tensor([3.0, 4.0])}, path)
    inner = Counting()
    assert repr(pinlane.load_into(nn.ModuleDict({"in": inner}), path)) == "<All keys matched successfully>"
    assert (inner.count.tolist(), inner.weight.tolist()) == ([3, 4], [1, 1, 1])


def test_hooks_that_copy_the_state_do_not_keep_it_from_being_loaded(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    save_file({"weight": torch.ones(3)}, path)
    module = nn.Module()
    module.weight = nn.Parameter(torch.zeros(3))

    def copying(module: nn.Module, state: dict[str, Any], prefix: str, local: Any) -> None:
        state.update({name: tensor.detach().clone() for name, tensor in state.items()})

    module._register_state_dict_hook(copying)
    pinlane.load_into(module, path)
    assert module.weight.tolist() == [1, 1, 1]


def test_what_state_dict_makes_anew_is_an_error_not_a_success(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    save_file({"other": torch.ones(3)}, path)
    module = nn.Module()
    module.weight = nn.Parameter(torch.zeros(3))
    module._register_state_dict_hook(lambda module, state, *_: state.update(other=state.pop("weight").detach() + 1))
    with pytest.raises(pinlane.UnsupportedLeafError, match="'other'.*use load_state_dict"):
        pinlane.load_into(module, path)


def test_old_files_fit_as_load_state_dict_takes_them(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"

    def module() -> nn.Module:
        made = nn.Sequential(nn.BatchNorm1d(3))
        made.scale = nn.Parameter(torch.tensor(0.0))
        return made

    state = dict(module().state_dict()) | {"scale": torch.tensor([2.5])}
    del state["0.num_batches_tracked"]
    save_file(state, path)
    ours, theirs = module(), module()
    assert pinlane.load_into(ours, path) == theirs.load_state_dict(load_file(path))
    assert_same(dict(ours.state_dict()), dict(theirs.state_dict()))
    assert ours.scale.item() == 2.5


def test_tensors_of_another_dtype_are_loaded_into_when_it_is_asked_for(device: str, tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    wanted = dict(model(1).state_dict())
    save_file(wanted, path)
    places = there(model(2).half(), device)
    with pytest.raises(pinlane.CheckpointMismatchError):
        pinlane.load_into(places, path)
    pinlane.load_into(places, path, dtype=torch.float16)
    halved = {name: tensor.half() if tensor.is_floating_point() else tensor for name, tensor in wanted.items()}
    assert_same(places, halved)
    assert_same(dict(pinlane.open(path).stream(device, progress=False, dtype=torch.float16)), halved)


def test_a_target_that_holds_no_tensors_by_name_is_a_type_error(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="into a list: it takes a module"):
        pinlane.load_into([torch.ones(3)], tmp_path)  # type: ignore[arg-type]


def test_a_place_without_memory_is_an_error_that_says_what_to_do(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    save_file({"weight": torch.ones(2, 2)}, path)
    with pytest.raises(pinlane.UnsupportedLeafError, match="to_empty"):
        pinlane.load_into(nn.Linear(2, 2, bias=False, device="meta"), path)


def test_a_sharded_checkpoint_comes_back_into_its_module(device: str, tmp_path: Path) -> None:
    pinlane.save(model(1), tmp_path, max_shard_bytes=100)
    assert len(pinlane.open(tmp_path).files) > 1
    places = there(model(2), device)
    pinlane.load_into(places, tmp_path)
    assert_same(places, dict(model(1).state_dict()))


@pytest.mark.parametrize("limit", ["5GB", 1e9, True])
def test_a_limit_that_is_no_number_of_bytes_is_a_type_error(tmp_path: Path, limit: Any) -> None:
    with pytest.raises(TypeError, match="max_shard_bytes is a whole number"):
        pinlane.save({"a": torch.ones(3)}, tmp_path, max_shard_bytes=limit)
    with pytest.raises(ValueError, match="at least 1"):
        pinlane.save({"a": torch.ones(3)}, tmp_path, max_shard_bytes=0)
    assert not any(tmp_path.iterdir())
