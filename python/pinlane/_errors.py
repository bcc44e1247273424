"""The exceptions of pinlane. What the engine reports is raised as one of them by :func:`error`."""

from __future__ import annotations

import functools
import sys
from typing import Any


class Error(Exception):
    """Anything that pinlane itself refuses or fails at. Its text says what was being done, to what, and what to do."""


class DeviceError(Error, RuntimeError):
    """A device failed, or refused a call."""


class NoSuchDeviceError(DeviceError):
    """There is no device of that name. Torch raises ``RuntimeError`` for it, and this is one."""


class OutOfMemoryError(DeviceError, MemoryError):
    """A device has no room for the results; the sources are as they were. Where torch is imported, it is a
    ``torch.OutOfMemoryError`` too."""


class HostMemoryError(Error, MemoryError):
    """The host has no room for the results; the sources are as they were."""


class PinnedBudgetError(Error, MemoryError):
    """The pinned budget, or the system's limit for pinned memory, has no room."""


class UnsupportedLeafError(Error, NotImplementedError, TypeError):
    """A leaf of the tree can't be moved. Torch raises ``NotImplementedError`` or ``TypeError`` for such tensors, and this is
    both; the text says where the leaf is in the tree."""


class SourceChangedError(Error, RuntimeError):
    """A tensor was written in place, or its memory resized, while a transfer still read it. The result is thrown away."""


class TransferError(Error, RuntimeError):
    """A transfer was asked for its result a second time."""


class ForkError(Error, RuntimeError):
    """Devices were used in a process forked from one that had used them."""


class FileError(Error, OSError):
    """The system refuses to open, read or write a file. What is raised is also what Python raises in the same case, such as
    ``FileNotFoundError``; ``filename`` and, where the system gave one, ``errno`` are set."""

    def __str__(self) -> str:
        return str(self.args[0])


class CheckpointError(Error, ValueError):
    """A file breaks a rule of the safetensors format, an index contradicts its files, or what is to be saved can't be held by
    the format. The text names the file, and the tensor."""


class CheckpointNotFoundError(CheckpointError, FileNotFoundError):
    """There is no checkpoint where one was looked for: a folder without safetensors files, or with some missing."""

    def __str__(self) -> str:
        return str(self.args[0])


class NoSuchTensorError(CheckpointError, KeyError):
    """A checkpoint has no tensor of that name."""

    def __str__(self) -> str:
        return str(self.args[0])


class CheckpointMismatchError(CheckpointError, RuntimeError):
    """A checkpoint and the tensors that it should be loaded into do not fit. Torch raises ``RuntimeError`` for it, and this is
    one. Nothing was loaded."""


# Users know them by the package's name: so do tracebacks, and what is pickled.
for _known in list(globals().values()):
    if isinstance(_known, type) and issubclass(_known, Error):
        _known.__module__ = "pinlane"



def error(name: str) -> type[Error]:
    """The class to raise for the exception called ``name``."""
    if name == "OutOfMemoryError":
        return out_of_memory()
    found: type[Error] = globals()[name]
    return found


def file_error(message: str, like: type[OSError], errno: int | None, filename: object) -> FileError:
    """What to raise for what the system says of a file: one that is ``like`` too."""
    kind: Any = like
    raised = _file_error_like(kind)(message)
    raised.errno, raised.filename = errno, filename
    return raised


@functools.cache
def _file_error_like(like: type[OSError]) -> type[FileError]:
    if like is OSError:
        return FileError
    names = {"__module__": "pinlane", "__doc__": FileError.__doc__}
    return type("FileError", (FileError, like), names)


def of_leaf(error: BaseException, path: str) -> BaseException:
    """What to raise for what torch raised when it did something to a leaf: that a device has no room is ours too."""
    torch = sys.modules.get("torch")
    theirs = getattr(torch, "OutOfMemoryError", None)
    if theirs is None or not isinstance(error, theirs) or isinstance(error, Error):
        return error
    return _named(error, path, out_of_memory())


def of_room(error: BaseException, path: str, doing: str = "moving") -> BaseException:
    """What to raise where there is no room for the result of a leaf, or of several."""
    return _named(error, path, type(error), doing) if isinstance(error, Error) else error


def _named(error: BaseException, path: str, kind: type[BaseException], doing: str = "moving") -> BaseException:
    raised = kind(f"{doing} {path or 'itself'}: {error}")
    raised.__cause__ = error
    return raised


def out_of_memory() -> type[OutOfMemoryError]:
    """The class to raise where a device has no room: one that ``except torch.OutOfMemoryError`` catches too."""
    torch = sys.modules.get("torch")
    theirs = getattr(torch, "OutOfMemoryError", None)
    return OutOfMemoryError if theirs is None else _out_of_memory_like(theirs)


@functools.cache
def _out_of_memory_like(theirs: type[RuntimeError]) -> type[OutOfMemoryError]:
    names = {"__module__": "pinlane", "__doc__": OutOfMemoryError.__doc__}
    return type("OutOfMemoryError", (OutOfMemoryError, theirs), names)
