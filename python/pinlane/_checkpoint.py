"""The catalogue of a checkpoint, and loading from it."""

from __future__ import annotations

import contextlib
import importlib
import os
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Union

from . import _native
from ._arrivals import Group, Place, converted, in_groups
from ._devices import name_of
from ._dtypes import examples, names, torch_dtype
from ._errors import NoSuchTensorError, UnsupportedLeafError
from ._plan import floating
from ._slices import Slice

if TYPE_CHECKING:
    import torch

    from ._devices import DeviceLike

    Source = Union[str, os.PathLike[str], Iterable[Union[str, os.PathLike[str]]], "Checkpoint"]
    Select = Union[str, Iterable[str], Callable[[str], bool]]
    DeviceMap = Union[Mapping[str, DeviceLike], Callable[[str], DeviceLike]]


class Entry(NamedTuple):
    """What a file says of one tensor."""

    name: str
    dtype: str
    """As the format calls it, such as ``BF16``."""
    shape: tuple[int, ...]
    nbytes: int
    file: Path
    start: int
    """Where in the file its data begins."""
    end: int
    """Where it ends."""

    @property
    def torch_dtype(self) -> torch.dtype:
        """The dtype as torch calls it.

        :raises UnsupportedLeafError: where torch, of this version, does not have it.
        """
        return torch_dtype(self.dtype, f"asking for the dtype of tensor {self.name!r} of {self.file}")


class Checkpoint(Mapping[str, Entry]):
    """The tensors of safetensors files, by name, still in their files: what :func:`pinlane.open` gives.

    It is a mapping from names to what the files say, in the order of the data. The files stay open while it is there, so they
    may be renamed or replaced meanwhile.
    """

    __slots__ = ("_native", "_whole")

    def __init__(self, native: _native.Checkpoint, whole: _native.Checkpoint | None = None) -> None:
        self._native = native
        #: What it is a part of.
        self._whole = whole or native

    def __len__(self) -> int:
        return len(self._native)

    def __iter__(self) -> Iterator[str]:
        return iter(self._native.names())

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and name in self._native

    def __getitem__(self, name: str) -> Entry:
        dtype, shape, nbytes, file, start, end = self._native.describe(name)
        return Entry(name, dtype, shape, nbytes, Path(file), start, end)

    def __repr__(self) -> str:
        files = ", ".join(map(str, self.files))
        return f"<pinlane.Checkpoint of {len(self)} tensors, {self.nbytes} bytes: {files}>"

    @property
    def files(self) -> list[Path]:
        """The files that are open."""
        return [Path(file) for file in self._native.files()]

    @property
    def nbytes(self) -> int:
        """The bytes of all tensors."""
        return sum(self._native.sizes())

    @property
    def metadata(self) -> dict[str, str] | None:
        """The texts in the files' headers; ``None`` where there are none. Of files that differ, the first counts."""
        return self._native.metadata()

    def select(self, what: Select) -> Checkpoint:
        """A part of the checkpoint.

        :param what: a pattern for names, in which ``*`` is any text, ``?`` a character and ``[ab]`` one of some; names; or a
            function that is given each name.
        :raises NoSuchTensorError: for a name that is not there, and a pattern that no name matches.
        """
        if isinstance(what, str):
            if not any(sign in what for sign in "*?[") or what in self:
                return Checkpoint(self._native.only([what]), self._whole)
            part = self._native.matching(what)
            if not len(part):
                raise NoSuchTensorError(f"no tensor of {self._files_as_text()} matches {what!r}")
            return Checkpoint(part, self._whole)
        chosen = [name for name in self if what(name)] if callable(what) else list(what)
        return Checkpoint(self._native.only(chosen), self._whole)

    def _files_as_text(self) -> str:
        """What errors call the checkpoint."""
        first, *others = self.files or [Path()]
        return f"{first}{f' and {len(others)} other files' if others else ''}"

    def load(
        self,
        device: DeviceLike = "cpu",
        *,
        device_map: DeviceMap | None = None,
        pin: bool | DeviceLike = False,
        dtype: torch.dtype | None = None,
        mapped: bool = False,
    ) -> dict[str, torch.Tensor]:
        """Loads all tensors: see :func:`pinlane.load`."""
        if mapped:
            if device_map is not None or pin is not False or dtype is not None or name_of(device) != "cpu":
                raise ValueError(
                    "loading: mapped tensors are what the files hold, on the cpu: leave out device, device_map, pin and dtype"
                )
            return self._mapped()
        pinned = None if pin is False else name_of("cuda" if pin is True else pin)
        dtype = None if dtype is None else floating(dtype)
        parts = [(self._native, name_of(device))] if device_map is None else self._divided(device, device_map)
        places = [(part, Place(target, pinned if target == "cpu" else None)) for part, target in parts]
        found: dict[str, torch.Tensor] = {}
        if dtype is None:
            groups = [Group(part, 0, len(part), place) for part, place in places]
            for (part, _), group in zip(places, groups, strict=True):
                found.update(zip(part.names(), group.land(), strict=True))
        else:
            for part, place in places:
                found.update(zip(part.names(), self._converted(part, place, dtype), strict=True))
        return found if len(parts) == 1 else {name: found[name] for name in self}

    def _converted(
        self, part: _native.Checkpoint, place: Place, dtype: torch.dtype
    ) -> Iterator[torch.Tensor]:
        """All tensors of a part, those of floating-point numbers as `dtype`, which has to be possible for each."""
        for name in part.names():
            entry = self[name]
            is_packed = "F4" in (entry.dtype, names().get(dtype))
            if is_packed and entry.torch_dtype.is_floating_point and entry.torch_dtype != dtype:
                raise UnsupportedLeafError(
                    f"loading {name!r} of {entry.file} as {dtype}: torch does not convert {entry.torch_dtype} to it; "
                    "load it without a dtype, or select the others"
                )
        return converted(part, place, dtype)

    def _mapped(self) -> dict[str, torch.Tensor]:
        known, plan = self._native.names(), Place("cpu").plan
        files, others = self._native.map(examples())
        found: dict[str, torch.Tensor] = {}
        for memory, runs, numbers in files:
            found.update(zip((known[number] for number in numbers), plan.tensors(memory, runs), strict=True))
        if not others:
            return found
        found |= Checkpoint(self._native.only([known[number] for number in others])).load()
        return {name: found[name] for name in known}

    def _divided(self, device: DeviceLike, device_map: DeviceMap) -> list[tuple[_native.Checkpoint, str]]:
        parts: dict[str, list[str]] = {}
        if callable(device_map):
            place_of = device_map
        elif not isinstance(device_map, Mapping):
            raise TypeError(
                f"loading {self._files_as_text()}: device_map is a mapping or a function, not {device_map!r}; "
                "where all tensors go is `device`"
            )
        else:
            self._look_for_strangers(device_map, device)
            place_of = _by_prefix(device_map, device)
        for name in self:
            parts.setdefault(name_of(place_of(name)), []).append(name)
        return [(self._native.only(part), target) for target, part in parts.items()]

    def _look_for_strangers(self, device_map: Mapping[str, DeviceLike], device: DeviceLike) -> None:
        """Tells of keys that stand for no tensor: most likely misspelt, though the map may be of a larger model."""
        known = {""}
        for name in self._whole.names():
            while name and name not in known:
                known.add(name)
                name = name.rpartition(".")[0]
        strangers = [key for key in device_map if key not in known]
        if not strangers:
            return
        doing = f"loading {self._files_as_text()}: no tensor is called {strangers[0]!r}, or begins with that and a dot"
        if len(strangers) == len(device_map):
            raise NoSuchTensorError(f"{doing}, and the device_map has no other key that fits")
        others = f" (and {len(strangers) - 1} more keys of the device_map)" if len(strangers) > 1 else ""
        warnings.warn(f"{doing}{others}; what the device_map does not name goes to {device}", stacklevel=5)

    def stream(
        self,
        device: DeviceLike = "cpu",
        *,
        progress: bool | None = None,
        dtype: torch.dtype | None = None,
    ) -> Iterator[tuple[str, torch.Tensor]]:
        """Loads all tensors and gives each, with its name, as soon as it can be used, so that work can start before the end.

        They move in groups that share memory, of 16 MiB at first, then larger ones up to 128 MiB. Three groups are on their
        way while one is handed out; nothing more is read before it is asked for.

        :param progress: whether to show a bar, by tqdm. By default where that is installed and standard error is a terminal.
        :param dtype: what tensors of floating-point numbers are converted to, as in :func:`pinlane.load`.
        """
        dtype = None if dtype is None else floating(dtype)
        place = Place(name_of(device))
        all, sizes = self._native.names(), self._native.sizes()
        if dtype is not None:
            with _bar(sum(sizes), progress) as advance:
                for number, tensor in enumerate(self._converted(self._native, place, dtype)):
                    yield all[number], tensor
                    advance(sizes[number])
            return
        with _bar(sum(sizes), progress) as advance:
            for number, tensors in in_groups(self._native, place):
                tensors.reverse()
                while tensors:
                    yield all[number], tensors.pop()
                    advance(sizes[number])
                    number += 1

    def slice(self, name: str, device: DeviceLike = "cpu") -> Slice:
        """A tensor to be indexed, of which only the part that is asked for is read.

        >>> import pinlane, tempfile, torch
        >>> path = tempfile.mkdtemp() + "/model.safetensors"
        >>> _ = pinlane.save({"weight": torch.arange(12).view(3, 4)}, path)
        >>> pinlane.open(path).slice("weight")[1:, ::2]
        tensor([[ 4,  6],
                [ 8, 10]])
        """
        return Slice(self._native, name, Place(name_of(device)))


def open_checkpoint(source: Source) -> Checkpoint:
    """What is in a checkpoint, known without reading any of it but the files' headers.

    >>> import pinlane, tempfile, torch
    >>> path = tempfile.mkdtemp() + "/model.safetensors"
    >>> _ = pinlane.save({"weight": torch.ones(3, 4), "bias": torch.zeros(4)}, path)
    >>> checkpoint = pinlane.open(path)
    >>> [(entry.name, entry.dtype, entry.shape, entry.nbytes) for entry in checkpoint.values()]
    [('bias', 'F32', (4,), 16), ('weight', 'F32', (3, 4), 48)]

    :param source: a safetensors file; an index (``*.safetensors.index.json``); a folder with one index, or without any and
        with files; or a list of files.
    :raises CheckpointError: for a file that breaks a rule of the format, or an index that contradicts its files. Every rule
        is checked before anything else is done.
    :raises FileNotFoundError: where there is nothing.
    :raises ValueError: for an empty list.
    """
    if isinstance(source, Checkpoint):
        return source
    if isinstance(source, (str, os.PathLike)):
        return Checkpoint(_native.Checkpoint(os.fspath(source), []))
    paths: list[Any] = list(source) if isinstance(source, Iterable) else [source]
    for path in paths:
        if not isinstance(path, (str, os.PathLike)) or path is source:
            raise TypeError(f"opening a checkpoint: it is a path, or a list of paths, not {path!r}")
    if not paths:
        raise ValueError("opening a checkpoint: the list of files is empty; name a file, an index or a folder")
    return Checkpoint(_native.Checkpoint(None, [os.fspath(path) for path in paths]))


def load(
    source: Source,
    device: DeviceLike = "cpu",
    *,
    select: Select | None = None,
    device_map: DeviceMap | None = None,
    pin: bool | DeviceLike = False,
    dtype: torch.dtype | None = None,
    mapped: bool = False,
) -> dict[str, torch.Tensor]:
    """Loads tensors from safetensors files, by name.

    >>> import pinlane, tempfile, torch
    >>> path = tempfile.mkdtemp() + "/model.safetensors"
    >>> _ = pinlane.save({"weight": torch.ones(2, 2), "bias": torch.zeros(2)}, path)
    >>> pinlane.load(path, "sim", select="b*")
    {'bias': tensor([0., 0.])}

    Files are read by several threads straight into pinned memory, and cross the link from there, while torch's tensors are
    made. On a GPU the results lie in torch's own allocator, all in one allocation, and are ordered on torch's current stream:
    use them at once.

    :param source: what :func:`pinlane.open` takes, or what it gives.
    :param device: where to, as for :func:`pinlane.to`.
    :param select: a pattern for names, names, or a function of a name: see :meth:`Checkpoint.select`.
    :param device_map: where to for each name: a function, or a mapping in which a name stands for itself and all names that
        go on with a dot after it, and the longest counts. Names that it has nothing for go to ``device``. Of keys that no
        name in the files begins with there is a warning, and an error where all are such.
    :param pin: results on the host in pinned memory, out of the budget of this device, or with ``True`` of ``"cuda"``.
    :param dtype: what tensors of floating-point numbers are converted to, where they are loaded to; others keep theirs. This is
        done a group at a time, so that little is held twice.
    :param mapped: on the host, tensors over the files as the system maps them to memory: nothing is read before it is looked
        at, and what is written to a tensor stays in this process. **While such tensors are there, nobody may change the files
        in place or make them shorter**: the tensors would change, or the process be killed (``SIGBUS``). Replacing a file as a
        whole, as :func:`pinlane.save` does, is safe. A tensor that begins where its dtype can't is read as usual.
    :raises CheckpointError: see :func:`pinlane.open`.
    :raises NoSuchTensorError: for a name in ``select`` that is not there, a pattern that no name matches, and a
        ``device_map`` none of whose keys stands for a tensor.
    :raises FileError: where a file can't be read; the text says which tensor, and where in the file.
    :raises TypeError: for a ``dtype`` that is none of torch's, or that has no floating-point numbers, and for a ``device_map`` that
        is neither a mapping nor a function.
    :raises UnsupportedLeafError: for a dtype that torch does not have, or does not convert to ``dtype``.
    :raises OutOfMemoryError: where the device has no room.
    """
    checkpoint = open_checkpoint(source)
    if select is not None:
        checkpoint = checkpoint.select(select)
    return checkpoint.load(device, device_map=device_map, pin=pin, dtype=dtype, mapped=mapped)


def _by_prefix(devices: Mapping[str, DeviceLike], otherwise: DeviceLike) -> Callable[[str], DeviceLike]:
    def device_of(name: str) -> DeviceLike:
        known = name
        while known not in devices and known:
            known = known.rpartition(".")[0]
        return devices.get(known, otherwise)

    return device_of


@contextlib.contextmanager
def _bar(bytes: int, progress: bool | None) -> Iterator[Callable[[int], Any]]:
    """Something to tell how many bytes have come, which shows that as a bar where it is wanted."""
    try:
        tqdm = None if progress is False else importlib.import_module("tqdm").tqdm
    except ImportError:
        if progress:
            raise
        tqdm = None
    if tqdm is None:
        yield lambda _: None
        return
    # `disable=None` leaves it to whether there is a terminal.
    with tqdm(total=bytes, unit="B", unit_scale=True, disable=None if progress is None else False) as bar:
        yield bar.update
