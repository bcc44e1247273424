"""Arguments that are numbers: taken as Python takes indices, and refused with their names."""

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
