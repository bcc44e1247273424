"""Arguments that are numbers, taken as Python takes indices, or flags: refused with their names."""

from __future__ import annotations

import operator
from typing import Any


def whole(value: Any, name: str, least: int) -> int:
    """A whole number that is not below `least`; `name` is what the caller calls it.

    :raises TypeError: for anything else than a whole number, such as the texts that others take for sizes.
    :raises ValueError: for a lower one.
    """
    try:
        number = None if isinstance(value, bool) else operator.index(value)
    except TypeError:
        number = None
    if number is None:
        raise TypeError(f"{name} is a whole number, not {value!r}")
    if number < least:
        raise ValueError(f"{name} is at least {least}, not {number}")
    return number


def flag(value: Any, name: str) -> bool:
    """True or false; `name` is what the caller calls it.

    :raises TypeError: for anything else, such as a text, which would be true whatever it says.
    """
    if value is True or value is False:
        return bool(value)
    raise TypeError(f"{name} is True or False, not {value!r}")
