"""Opening and loading checkpoints, beside the reference implementation."""

from __future__ import annotations

import contextlib
import gc
import json
import re
import struct
import warnings
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("safetensors")

from hypothesis import HealthCheck, given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402
from safetensors.torch import load_file, save_file  # noqa: E402

import pinlane  # noqa: E402

from .checkpoints import DTYPES, assert_same, bits, info, patterned, written  # noqa: E402


@pytest.fixture
def everything(tmp_path: Path) -> tuple[Path, dict[str, torch.Tensor]]:
    """A file with a tensor of every dtype, and empty and scalar ones."""
    tensors = {f"layers.{number}": patterned(dtype, (3, 2, 5), number) for number, dtype in enumerate(DTYPES)}
    tensors["empty"] = torch.zeros(0, 7)
    tensors["scalar"] = torch.tensor(2.5)
    path = tmp_path / "model.safetensors"
    save_file(tensors, path, {"format": "pt", "written by": "the reference"})
    return path, tensors


def test_what_the_reference_wrote_is_loaded_bit_by_bit(device: str, everything) -> None:
    path, tensors = everything
    for place in ("cpu", device):
        loaded = pinlane.load(path, place)
        assert_same(loaded, tensors)
        assert_same(loaded, load_file(path))


def test_results_lie_where_they_were_asked_for(device: str, everything) -> None:
    path, _ = everything
    loaded = pinlane.load(path, device)
    kinds = {tensor.device.type for tensor in loaded.values()}
    assert kinds == ({"cpu"} if device == "sim" else {"cuda"})
    if device == "sim":
        place = pinlane.to(loaded["layers.0"], "sim")
        assert place is loaded["layers.0"], "it is there already"


def test_tensors_are_aligned_however_the_file_has_them(device: str, tmp_path: Path) -> None:
    path = tmp_path / "odd.safetensors"
    save_file({f"{number}": patterned(torch.uint8, (number,)) for number in range(1, 9)}, path)
    assert all(tensor.data_ptr() % 256 == 0 for tensor in pinlane.load(path, device).values())


def test_a_checkpoint_is_a_mapping_of_what_the_files_say(everything) -> None:
    path, tensors = everything
    checkpoint = pinlane.open(path)
    assert len(checkpoint) == len(tensors)
    assert set(checkpoint) == tensors.keys()
    assert "scalar" in checkpoint
    assert "other" not in checkpoint
    assert 3 not in checkpoint
    entry = checkpoint["layers.10"]
    assert (entry.dtype, entry.torch_dtype, entry.shape) == ("BF16", torch.bfloat16, (3, 2, 5))
    assert (entry.nbytes, entry.file, entry.end - entry.start) == (60, path, 60)
    raw = path.read_bytes()[entry.start : entry.end]
    assert list(raw) == bits(tensors["layers.10"])
    assert checkpoint.metadata == {"format": "pt", "written by": "the reference"}
    assert checkpoint.files == [path]
    assert checkpoint.nbytes == sum(tensor.nbytes for tensor in tensors.values())
    assert str(path) in repr(checkpoint)


def test_an_open_checkpoint_outlives_its_file(device: str, everything) -> None:
    path, tensors = everything
    checkpoint = pinlane.open(path)
    path.unlink()
    assert_same(checkpoint.load(device), tensors)


@pytest.mark.parametrize(
    ("select", "wanted"),
    [
        ("layers.1?", {f"layers.{number}" for number in range(10, 20)}),
        ("scalar", {"scalar"}),
        (["empty", "layers.3"], {"empty", "layers.3"}),
        (lambda name: name.startswith("s"), {"scalar"}),
        ([], set()),
    ],
)
def test_a_part_is_loaded_by_pattern_names_or_predicate(device: str, everything, select, wanted) -> None:
    path, tensors = everything
    assert_same(pinlane.load(path, device, select=select), {name: tensors[name] for name in wanted})


def test_a_name_that_is_not_there_is_a_key_error_that_names_it(everything) -> None:
    path, _ = everything
    for wrong in (
        lambda: pinlane.load(path, select=["scalar", "other"]),
        lambda: pinlane.load(path, select="other"),
        lambda: pinlane.load(path, select="other*"),
        lambda: pinlane.open(path)["other"],
        lambda: pinlane.open(path).slice("other"),
    ):
        with pytest.raises(KeyError, match="other") as caught:
            wrong()
        assert isinstance(caught.value, pinlane.NoSuchTensorError)


def test_a_pattern_that_no_name_matches_is_refused_with_the_words_of_the_command(everything) -> None:
    path, _ = everything
    with pytest.raises(pinlane.NoSuchTensorError, match=re.escape(f"no tensor of {path} matches 'layer.*'")):
        pinlane.open(path).select("layer.*")


@pytest.mark.parametrize("source", [3, None, 1.5, [3], ["x", None]])
def test_what_is_no_path_is_a_type_error(source: Any) -> None:
    with pytest.raises(TypeError, match="it is a path, or a list of paths, not (3|None|1.5)"):
        pinlane.load(source)


def test_an_index_a_folder_and_a_list_are_one_checkpoint(device: str, tmp_path: Path) -> None:
    first, second = {"a": torch.arange(5), "b": torch.ones(3)}, {"c": torch.zeros(2, 2)}
    files = [tmp_path / "model-00001-of-00002.safetensors", tmp_path / "model-00002-of-00002.safetensors"]
    save_file(first, files[0])
    save_file(second, files[1])
    assert_same(pinlane.load(tmp_path, device), first | second)
    assert_same(pinlane.load(files, device), first | second)
    index = tmp_path / "model.safetensors.index.json"
    where = dict.fromkeys(first, files[0].name) | dict.fromkeys(second, files[1].name)
    index.write_text(json.dumps({"metadata": {}, "weight_map": where}))
    assert_same(pinlane.load(index, device), first | second)
    assert_same(pinlane.load(tmp_path, device), first | second)
    assert pinlane.open(index)["c"].file == files[1]


def test_an_index_can_not_lead_out_of_its_folder(tmp_path: Path) -> None:
    save_file({"a": torch.ones(1)}, tmp_path / "secret.safetensors")
    (tmp_path / "model").mkdir()
    index = tmp_path / "model" / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"a": "../secret.safetensors"}}))
    with pytest.raises(pinlane.CheckpointError, match="secret"):
        pinlane.open(index)


def test_each_device_gets_what_the_map_says(device: str, everything) -> None:
    path, tensors = everything
    by_prefix = pinlane.load(path, "cpu", device_map={"layers": device, "layers.2": "cpu", "": "cpu"})
    by_function = pinlane.load(path, device_map=lambda name: device if name == "scalar" else "cpu")
    for loaded in (by_prefix, by_function):
        assert_same(loaded, tensors)
        assert list(loaded) == list(pinlane.open(path))

    def is_there(tensor: torch.Tensor) -> bool:
        return tensor.is_cuda if device != "sim" else pinlane.to([tensor], "sim")[0] is tensor

    assert is_there(by_prefix["layers.3"])
    assert not is_there(by_prefix["layers.2"])
    assert not is_there(by_prefix["scalar"])
    assert is_there(by_function["scalar"])


def test_floating_point_numbers_are_converted_where_asked_and_others_kept(device: str, tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    tensors = {"f": torch.randn(50, 3), "h": torch.randn(7).half(), "i": torch.arange(4), "b": torch.ones(2).bool()}
    save_file(tensors, path)
    loaded = pinlane.load(path, device, dtype=torch.bfloat16)
    wanted = {name: t.bfloat16() if t.is_floating_point() else t for name, t in tensors.items()}
    assert_same(loaded, wanted)


@pytest.mark.parametrize("dtype", [torch.int8, torch.bool, "bfloat16"])
def test_what_would_lose_the_weights_is_no_dtype_to_load_as(device: str, tmp_path: Path, dtype: object) -> None:
    path = tmp_path / "model.safetensors"
    save_file({"weight": torch.randn(4)}, path)
    with pytest.raises(TypeError, match="convert"):
        pinlane.load(path, device, dtype=dtype)  # type: ignore[arg-type]


def test_pinned_results_are_pinned(device: str, everything) -> None:
    path, tensors = everything
    loaded = pinlane.load(path, pin=device)
    assert pinlane.is_pinned(loaded, device)
    assert_same(loaded, tensors)


def test_tensors_come_one_by_one_in_the_order_of_the_file(device: str, everything) -> None:
    path, tensors = everything
    checkpoint = pinlane.open(path)
    streamed = list(checkpoint.stream(device, progress=False))
    assert [name for name, _ in streamed] == list(checkpoint)
    assert_same(dict(streamed), tensors)


def test_a_stream_has_groups_and_reads_no_further_than_its_consumer_needs(device: str, tmp_path: Path) -> None:
    count = 40
    tensors = {f"{number:02}": patterned(torch.int32, (1 << 20,), number) for number in range(count)}
    path = tmp_path / "model.safetensors"
    save_file(tensors, path)
    stream = pinlane.open(path).stream(device)
    name, tensor = next(stream)
    assert name == "00"
    assert bits(tensor) == bits(tensors["00"])
    assert tensor.untyped_storage().nbytes() <= 16 << 20
    del stream
    assert_same(dict(pinlane.open(path).stream(device)), tensors)


def test_a_progress_bar_is_shown_when_asked_for(everything, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("tqdm")
    path, _ = everything
    list(pinlane.open(path).stream())
    assert capsys.readouterr().err == ""
    list(pinlane.open(path).stream(progress=True))
    assert "100%" in capsys.readouterr().err


def test_loaded_tensors_are_torchs_own_in_every_way(device: str, tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    save_file({"a": torch.ones(3), "b": torch.ones(3)}, path)
    loaded = pinlane.load(path, device)
    loaded["a"].add_(1)
    assert loaded["a"]._version == 1
    assert loaded["b"]._version == 0
    assert not loaded["a"]._is_view()
    weight = loaded["b"].requires_grad_()
    (weight * 2).sum().backward()
    assert weight.grad.tolist() == [2, 2, 2]


def test_what_torch_does_not_have_is_an_error_that_names_it(tmp_path: Path) -> None:
    path = written(tmp_path / "six.safetensors", {"w": info("F6_E2M3", [4], 0, 3)}, b"abc")
    assert pinlane.open(path)["w"].dtype == "F6_E2M3"
    for wrong in (
        lambda: pinlane.load(path),
        lambda: pinlane.open(path)["w"].torch_dtype,
        lambda: pinlane.open(path).slice("w")[:],
    ):
        with pytest.raises(pinlane.UnsupportedLeafError, match="F6_E2M3") as caught:
            wrong()
        assert "w" in str(caught.value)
    assert str(path) in str(pytest.raises(TypeError, pinlane.load, path).value)


MALFORMED = {
    "no length": b"abc",
    "a length beyond the file": b"\xff\0\0\0\0\0\0\0{}",
    "an unknown dtype": {"w": info("F7", [1], 0, 1)},
    "a hole": {"w": info("U8", [1], 1, 2)},
    "an overlap": {"v": info("U8", [2], 0, 2), "w": info("U8", [1], 1, 2)},
    "another size": {"w": info("U16", [1], 0, 1)},
    "cut off": {"w": info("U8", [9], 0, 9)},
    "twice": b'{"w":{"dtype":"U8","shape":[0],"data_offsets":[0,0]},"w":{"dtype":"U8","shape":[2],"data_offsets":[0,2]}}',
    "more than memory can hold": {"w": info("F32", [0, 1 << 63, 4], 0, 0)},
    "a size below zero": {"w": info("U8", [-1], 0, 2)},
    "no JSON": b"{ oh",
}


@pytest.mark.parametrize("what", MALFORMED)
def test_a_file_that_breaks_a_rule_is_an_error_that_names_it(tmp_path: Path, what: str) -> None:
    path = tmp_path / "bad.safetensors"
    header = MALFORMED[what]
    if what in ("no length", "a length beyond the file"):
        path.write_bytes(header)
    else:
        written(path, header, b"ab")
    with pytest.raises(pinlane.CheckpointError) as caught:
        pinlane.load(path)
    assert isinstance(caught.value, ValueError)
    assert str(path) in str(caught.value)


def test_what_the_system_refuses_is_what_python_raises_too(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"gone\.safetensors") as caught:
        pinlane.load(tmp_path / "gone.safetensors")
    assert isinstance(caught.value, pinlane.FileError)
    assert caught.value.filename == tmp_path / "gone.safetensors"
    assert caught.value.errno == 2
    with pytest.raises(FileNotFoundError, match="no .*safetensors file") as caught:
        pinlane.load(tmp_path)
    assert isinstance(caught.value, pinlane.CheckpointNotFoundError)


def test_a_file_that_shrinks_after_it_was_opened_is_an_error_and_the_next_load_works(
    device: str, tmp_path: Path
) -> None:
    path, other = tmp_path / "model.safetensors", tmp_path / "other.safetensors"
    tensors = {"weight": torch.arange(1 << 18)}
    save_file(tensors, path)
    save_file(tensors, other)
    for place in ("cpu", device):
        checkpoint = pinlane.open(path)
        whole = path.read_bytes()
        path.write_bytes(whole[: 1 << 19])
        with pytest.raises(pinlane.FileError, match="weight") as caught:
            checkpoint.load(place)
        assert str(path) in str(caught.value)
        assert_same(pinlane.load(other, place), tensors)
        path.write_bytes(whole)


def test_twenty_thousand_small_tensors_share_one_allocation(device: str, tmp_path: Path) -> None:
    tensors = {f"{number}": torch.full((64,), number, dtype=torch.int32) for number in range(20_000)}
    path = tmp_path / "model.safetensors"
    save_file(tensors, path)
    loaded = pinlane.load(path, device)
    assert len({tensor.untyped_storage().data_ptr() for tensor in loaded.values()}) == 1
    together = torch.stack([loaded[name] for name in tensors]).cpu()
    assert torch.equal(together, torch.stack(list(tensors.values())))


def test_nothing_stays_leased_after_loading(device: str, everything) -> None:
    path, _ = everything
    name = "sim:0" if device == "sim" else "cuda:0"
    pinlane.load(path, device)
    before = pinlane.stats().devices[name]
    for _ in range(3):
        loaded = pinlane.load(path, device)
        stream = pinlane.open(path).stream(device)
        next(stream)
        del loaded, stream
    gc.collect()
    after = pinlane.stats().devices[name]
    assert (after.leased, after.leaked) == (before.leased, 0)


shapes = st.lists(st.integers(0, 5), max_size=4).map(tuple)
names = st.text(st.characters(exclude_categories=["Cs"]), max_size=12).filter(lambda name: name != "__metadata__")


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    described=st.dictionaries(names, st.tuples(st.sampled_from(DTYPES), shapes), max_size=8),
    limit=st.none() | st.integers(1, 600),
)
def test_random_checkpoints_survive_both_implementations(device, tmp_path_factory, described, limit) -> None:
    folder = tmp_path_factory.mktemp("random")
    tensors = {
        name: patterned(dtype, shape or ((1,) if dtype.itemsize == 1 else ()), number)
        for number, (name, (dtype, shape)) in enumerate(described.items())
    }
    theirs, ours = folder / "theirs.safetensors", folder / "ours"
    ours.mkdir()
    save_file(tensors, theirs)
    loaded = pinlane.load(theirs, device)
    assert_same(loaded, tensors)
    saved = pinlane.save(loaded, ours, max_shard_bytes=limit)
    assert_same(pinlane.load(ours, device), tensors)
    again: dict[str, torch.Tensor] = {}
    for file in saved.files:
        again |= load_file(file)
    assert_same(again, tensors)


def test_mapped_tensors_are_the_files_own_and_outlive_their_replacement(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    tensors = {"f": torch.arange(6.0).view(2, 3), "h": torch.arange(5).half(), "b": torch.arange(7, dtype=torch.uint8)}
    tensors |= {"none": torch.empty(0, 3), "one": torch.tensor(True)}
    pinlane.save(tensors, path)
    before = path.read_bytes()
    mapped = pinlane.load(path, mapped=True)
    assert list(mapped) == list(pinlane.open(path))
    assert_same(mapped, tensors)
    mapped["f"].add_(1)
    assert torch.equal(mapped["f"], tensors["f"] + 1)
    assert path.read_bytes() == before, "what is written stays in this process"
    pinlane.save({}, path)
    assert torch.equal(mapped["h"], tensors["h"])


def test_a_mapped_tensor_that_begins_between_elements_is_read(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    header = b'{"a":{"dtype":"U8","shape":[3],"data_offsets":[0,3]},"w":{"dtype":"F32","shape":[2],"data_offsets":[3,11]}}'
    header += b" " * (-len(header) % 8)
    path.write_bytes(struct.pack("<Q", len(header)) + header + b"abc" + struct.pack("<2f", 1.5, -2))
    mapped = pinlane.load(path, mapped=True)
    assert list(mapped) == ["a", "w"]
    assert bytes(mapped["a"].tolist()) == b"abc"
    assert mapped["w"].tolist() == [1.5, -2]


@pytest.mark.parametrize(
    "elsewhere", [{"device": "sim"}, {"pin": "sim"}, {"dtype": torch.float16}, {"device_map": {"a": "sim"}}]
)
def test_mapped_tensors_are_nowhere_else(tmp_path: Path, elsewhere: dict[str, Any]) -> None:
    pinlane.save({"a": torch.ones(1)}, tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match="mapped"):
        pinlane.load(tmp_path, mapped=True, **elsewhere)


def test_a_device_map_that_fits_no_tensor_is_refused(everything) -> None:
    path, _ = everything
    with pytest.raises(pinlane.NoSuchTensorError, match="no tensor is called 'layer'"):
        pinlane.load(path, device_map={"layer": "sim"})


def test_a_key_of_a_device_map_that_fits_no_tensor_is_warned_of(everything) -> None:
    path, tensors = everything
    with pytest.warns(UserWarning, match="no tensor is called 'layer'.*goes to cpu"):
        assert_same(pinlane.load(path, device_map={"layer": "sim", "scalar": "sim"}), tensors)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        # Of the whole checkpoint, not of the part.
        pinlane.load(path, select="scalar", device_map={"layers": "sim"})
        pinlane.load(path, device_map={"": "sim"})
        pinlane.load(path, device_map={})


def test_a_device_map_that_is_a_text_is_refused(everything) -> None:
    path, _ = everything
    with pytest.raises(TypeError, match="device_map is a mapping or a function, not 'auto'"):
        pinlane.load(path, device_map="auto")


def test_an_empty_list_of_files_is_refused() -> None:
    with pytest.raises(ValueError, match="the list of files is empty"):
        pinlane.load([])


@pytest.mark.parametrize("how", ["load", "stream"])
def test_what_torch_does_not_convert_is_an_error_that_names_it(tmp_path: Path, how: str) -> None:
    path = tmp_path / "model.safetensors"
    save_file({"packed": torch.zeros(2, 2, dtype=torch.uint8).view(torch.float4_e2m1fn_x2)}, path)
    for dtype in (torch.bfloat16, torch.float4_e2m1fn_x2):
        with contextlib.nullcontext() if dtype == torch.float4_e2m1fn_x2 else pytest.raises(
            pinlane.UnsupportedLeafError, match=f"'packed' of {path} as torch.bfloat16.*select the others"
        ):
            dict(getattr(pinlane.open(path), how)(dtype=dtype))
