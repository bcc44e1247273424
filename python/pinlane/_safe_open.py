"""What the package ``safetensors`` offers, by the same names."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Union

from ._arrivals import Place
from ._checkpoint import Checkpoint, load, open_checkpoint
from ._devices import name_of
from ._errors import CheckpointError, UnsupportedLeafError
from ._save import save_flat
from ._slices import Slice

if TYPE_CHECKING:
    from types import TracebackType

    import torch

    from ._devices import DeviceLike

    Path = Union[str, os.PathLike[str]]

#: What the reference calls torch and numpy.
_TORCH = ("pt", "torch", "pytorch")
_NUMPY = ("np", "numpy")


class safe_open:
    """A safetensors file whose tensors are read one by one: in the place of ``safetensors.safe_open``.

    >>> import pinlane, tempfile, torch
    >>> path = tempfile.mkdtemp() + "/model.safetensors"
    >>> pinlane.save_file({"weight": torch.arange(6).view(2, 3)}, path)
    >>> with pinlane.safe_open(path, framework="pt", device="sim") as file:
    ...     file.get_tensor("weight"), file.get_slice("weight")[:, 1]
    (tensor([[0, 1, 2],
            [3, 4, 5]]), tensor([1, 4]))

    Who wants all tensors is better served by :func:`pinlane.load_file`, or by :meth:`get_tensors`.

    :param framework: ``pt``, or ``np`` for numpy's arrays, which are on the host.
    :param backend: how the reference reads, ``mmap`` or ``pread``; here files are read as :func:`pinlane.load` does.
    """

    def __init__(
        self, filename: Path, framework: str = "pt", device: DeviceLike = "cpu", *, backend: str | None = None
    ) -> None:
        doing = f"opening {os.fspath(filename)}"
        if framework not in _TORCH + _NUMPY:
            raise ValueError(f"{doing}: the framework is pt or np, not {framework!r}")
        check_backend(doing, backend)
        self._place = Place(name_of(device))
        self._is_numpy = framework in _NUMPY
        if self._is_numpy and self._place.target != "cpu":
            raise ValueError(f"{doing}: numpy's arrays are on the cpu, not on {device!r}")
        self._checkpoint: Checkpoint | None = open_checkpoint([filename])
        self._filename = filename

    def __enter__(self) -> safe_open:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._checkpoint = None

    def keys(self) -> list[str]:
        """The names of the tensors, sorted."""
        return sorted(self._opened())

    def offset_keys(self) -> list[str]:
        """The names of the tensors in the order of their data."""
        return list(self._opened())

    def metadata(self) -> dict[str, str] | None:
        """The texts in the header; ``None`` where there are none."""
        return self._opened().metadata

    def get_tensor(self, name: str) -> Any:
        """A whole tensor."""
        return self.get_slice(name)[...]

    def get_tensors(self) -> dict[str, Any]:
        """All tensors, in the order of their data."""
        tensors = self._opened().load(self._place.target)
        if not self._is_numpy:
            return dict(tensors)
        return {name: _as_array(tensor, name) for name, tensor in tensors.items()}

    def get_slice(self, name: str) -> Slice:
        """A tensor of which parts are read by indexing."""
        return (_ArraySlice if self._is_numpy else Slice)(self._opened()._native, name, self._place)

    def _opened(self) -> Checkpoint:
        if self._checkpoint is None:
            raise CheckpointError(f"reading {os.fspath(self._filename)}: it is closed")
        return self._checkpoint


class _ArraySlice(Slice):
    """A tensor in a file whose parts are numpy's arrays."""

    __slots__ = ()

    def __getitem__(self, index: Any) -> Any:
        return _as_array(super().__getitem__(index), self._name)


def _as_array(tensor: torch.Tensor, name: str) -> Any:
    try:
        return tensor.numpy()
    except TypeError as error:
        reason = f"numpy has no {tensor.dtype}; open the file with framework='pt'"
        raise UnsupportedLeafError(f"reading tensor {name!r}: {reason}") from error


def check_backend(doing: str, backend: str | None) -> None:
    """Refuses what is no backend of the reference's."""
    if backend not in (None, "mmap", "pread"):
        raise ValueError(f"{doing}: the backend is mmap or pread, not {backend!r}")


def load_file(filename: Path, device: DeviceLike = "cpu", *, backend: str | None = None) -> dict[str, torch.Tensor]:
    """All tensors of one file: in the place of ``safetensors.torch.load_file``. ``backend`` is as for :class:`safe_open`."""
    check_backend(f"loading {os.fspath(filename)}", backend)
    return load([filename], device)


def save_file(tensors: dict[str, torch.Tensor], filename: Path, metadata: dict[str, str] | None = None) -> None:
    """Saves tensors to one file: in the place of ``safetensors.torch.save_file``.

    Tensors with gaps, and such as share memory, are saved too, each for itself; see :func:`pinlane.save`.
    No other file is touched.
    """
    if not isinstance(tensors, dict):
        raise TypeError(f"saving {os.fspath(filename)}: a dict of tensors is wanted, not a {type(tensors).__name__}")
    save_flat(tensors, filename, None, metadata, alone=True)
