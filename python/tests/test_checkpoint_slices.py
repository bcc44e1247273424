"""Parts of tensors in files, and the interface of the package safetensors."""

from __future__ import annotations

from pathlib import Path

import numpy
import pytest

torch = pytest.importorskip("torch")
safetensors = pytest.importorskip("safetensors")

from hypothesis import HealthCheck, given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402
from safetensors.torch import load_file, save_file  # noqa: E402

import pinlane  # noqa: E402

from .checkpoints import DTYPES, assert_same, bits, patterned  # noqa: E402

CUBE = torch.arange(3 * 4 * 5).reshape(3, 4, 5)

INDICES = [
    0,
    -1,
    slice(1, 3),
    slice(None),
    slice(None, None, 2),
    slice(-2, None),
    slice(5, 10),
    slice(2, 1),
    slice(0, 3, 1 << 40),
    ...,
    (),
    None,
    True,
    (0, 1),
    (..., 1),
    (0, 0, 0),
    (2, -1, -1),
    (slice(None), slice(0, 4, 2)),
    (slice(None), slice(None), slice(1, 4, 2)),
    (slice(0, 3, 2), slice(1, 4, 2), slice(2, 3)),
    (0, ..., slice(1, 3)),
    (slice(None), None, 2),
    [0, 2],
    [],
    (slice(1, 3), [0, 1]),
    torch.tensor([2, 0]),
    (0, torch.tensor(2)),
    torch.tensor([True, False, True]),
]


@pytest.fixture
def cube(tmp_path: Path) -> Path:
    path = tmp_path / "cube.safetensors"
    save_file({"before": torch.ones(3), "cube": CUBE, "scalar": torch.tensor(7)}, path, {"key": "text"})
    return path


@pytest.mark.parametrize("index", INDICES, ids=str)
def test_a_slice_is_what_the_reference_gives(device: str, cube: Path, index) -> None:
    with safetensors.safe_open(cube, "pt") as theirs, pinlane.safe_open(cube, "pt", device) as ours:
        wanted, found = theirs.get_slice("cube")[index], ours.get_slice("cube")[index]
        assert found.shape == wanted.shape == CUBE[index].shape
        assert torch.equal(found.cpu(), wanted)
        assert found.untyped_storage().nbytes() <= max(found.nbytes, 1), "it keeps no more than it shows"


@pytest.mark.parametrize(
    ("index", "error"),
    [
        (3, IndexError),
        (-4, IndexError),
        ((0, 0, 0, 0), IndexError),
        (slice(None, None, -1), ValueError),
        (slice(None, None, 0), ValueError),
    ],
)
def test_a_wrong_index_is_the_error_that_torch_raises(cube: Path, index, error: type[Exception]) -> None:
    with pytest.raises(error):
        CUBE[index]
    with pytest.raises(error):
        pinlane.open(cube).slice("cube")[index]


def test_a_scalar_has_itself_as_its_only_part(device: str, cube: Path) -> None:
    part = pinlane.open(cube).slice("scalar", device)
    assert part[...].item() == part[()].item() == 7
    with pytest.raises(IndexError):
        part[0]


def test_every_dtype_has_parts(device: str, tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    tensors = {str(dtype): patterned(dtype, (6, 4)) for dtype in DTYPES}
    save_file(tensors, path)
    checkpoint = pinlane.open(path)
    for name, tensor in tensors.items():
        part = checkpoint.slice(name, device)
        assert bits(part[1:5]) == bits(tensor[1:5]), name
        assert part.get_dtype() == checkpoint[name].dtype


def dimension(size: int) -> st.SearchStrategy[object]:
    number = st.integers(-size, size - 1) if size else st.nothing()
    edge = st.none() | st.integers(-size - 2, size + 2)
    return number | st.builds(slice, edge, edge, st.none() | st.integers(1, 4))


@st.composite
def indexed(draw: st.DrawFn) -> tuple[tuple[int, ...], tuple[object, ...]]:
    shape = tuple(draw(st.lists(st.sampled_from([0, 1, 2, 3, 7, 600]), min_size=1, max_size=3)))
    rank = draw(st.integers(0, len(shape)))
    return shape, tuple(draw(dimension(size)) for size in shape[:rank])


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(indexed())
def test_random_parts_are_those_of_the_whole_tensor(device, tmp_path_factory, case) -> None:
    shape, index = case
    count = torch.Size(shape).numel()
    if count > 1_000_000:
        shape = shape[:-1] + (1,)
        index = index[: len(shape) - 1]
    path = tmp_path_factory.mktemp("parts") / "model.safetensors"
    whole = patterned(torch.int16, shape)
    save_file({"w": whole}, path)
    found = pinlane.open(path).slice("w", device)[index]
    assert found.shape == whole[index].shape
    assert torch.equal(found.cpu(), whole[index])


def test_safe_open_tells_what_the_reference_tells(device: str, cube: Path) -> None:
    with safetensors.safe_open(cube, framework="pt") as theirs, pinlane.safe_open(cube, device=device) as ours:
        assert ours.keys() == theirs.keys()
        assert ours.offset_keys() == theirs.offset_keys()
        assert ours.metadata() == theirs.metadata()
        part, reference = ours.get_slice("cube"), theirs.get_slice("cube")
        assert (part.get_shape(), part.get_dtype()) == (reference.get_shape(), reference.get_dtype())
        assert_same({name: ours.get_tensor(name) for name in ours.keys()}, load_file(cube))  # noqa: SIM118
        assert_same(ours.get_tensors(), load_file(cube))


def test_a_file_without_metadata_has_none(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    save_file({"a": torch.ones(1)}, path)
    with pinlane.safe_open(path, "pt") as file:
        assert file.metadata() is None


def test_a_closed_file_and_another_framework_are_errors(cube: Path) -> None:
    with pinlane.safe_open(cube, "pt") as file:
        pass
    with pytest.raises(pinlane.CheckpointError, match="closed"):
        file.keys()
    with pytest.raises(ValueError, match="flax"):
        pinlane.safe_open(cube, "flax")
    with pytest.raises(FileNotFoundError):
        pinlane.safe_open(cube.with_name("other"), "pt")
    with pinlane.safe_open(cube, "pt") as file, pytest.raises(KeyError):
        file.get_tensor("nothing")


def test_numpys_arrays_are_read_where_they_are_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    save_file({"a": torch.arange(6).view(2, 3), "half": torch.ones(2, dtype=torch.bfloat16)}, path)
    with pinlane.safe_open(path, "np") as file:
        assert isinstance(file.get_tensor("a"), numpy.ndarray)
        numpy.testing.assert_array_equal(file.get_tensor("a"), [[0, 1, 2], [3, 4, 5]])
        numpy.testing.assert_array_equal(file.get_slice("a")[:, 1], [1, 4])
        with pytest.raises(pinlane.UnsupportedLeafError, match=r"'half'.*bfloat16"):
            file.get_tensors()
    with pytest.raises(ValueError, match="on the cpu"):
        pinlane.safe_open(path, "np", device="sim")


def test_the_references_backends_are_taken_and_no_others(cube: Path) -> None:
    for backend in (None, "mmap", "pread"):
        with pinlane.safe_open(cube, "pt", backend=backend) as file:
            assert_same(file.get_tensors(), pinlane.load_file(cube, backend=backend))
    for refused in (lambda: pinlane.safe_open(cube, "pt", backend="fast"), lambda: pinlane.load_file(cube, backend="fast")):
        with pytest.raises(ValueError, match="'fast'"):
            refused()


def test_load_file_and_save_file_take_the_place_of_the_references(device: str, tmp_path: Path) -> None:
    tensors = {"a": torch.arange(4.0), "b": torch.ones(2, 2).half()}
    ours, theirs = tmp_path / "ours.safetensors", tmp_path / "theirs.safetensors"
    pinlane.save_file(tensors, ours, {"format": "pt"})
    save_file(tensors, theirs, {"format": "pt"})
    assert ours.read_bytes() == theirs.read_bytes()
    assert_same(pinlane.load_file(theirs, device), load_file(ours))
    with pytest.raises(TypeError):
        pinlane.save_file([torch.ones(1)], ours)
