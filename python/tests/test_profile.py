"""Profiles of what the engine does."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pinlane
import pytest
import torch


def spans_in(path: Path) -> list[dict[str, Any]]:
    events = json.loads(path.read_text())["traceEvents"]
    named = {event["tid"] for event in events if event["ph"] == "M"}
    spans = [event for event in events if event["ph"] == "X"]
    assert {span["tid"] for span in spans} == named
    return spans


def test_a_profile_tells_of_every_byte_that_was_copied(device: str, tmp_path: Path) -> None:
    tree = {"large": torch.ones(3 << 20), "small": torch.ones(5)}
    with pinlane.profile(tmp_path / "trace.json"):
        pinlane.to(tree, device)
        pinlane.to(tree, device, non_blocking=True).result()
    spans = spans_in(tmp_path / "trace.json")
    copied = sum(span["args"]["bytes"] for span in spans if span["name"] == "copy")
    assert copied >= 2 * 4 * (3 << 20)
    assert {"plan", "fill", "copy"} <= {span["name"] for span in spans}
    for span in spans:
        assert span["dur"] >= 0 and span["ts"] >= 0


def test_what_happens_outside_of_a_profile_is_not_in_it(device: str, tmp_path: Path) -> None:
    pinlane.to([torch.ones(3), torch.ones(4)], device)
    with pinlane.profile(tmp_path / "first.json"):
        pass
    pinlane.to([torch.ones(3), torch.ones(4)], device)
    with pinlane.profile(tmp_path / "second.json"):
        pass
    assert spans_in(tmp_path / "first.json") == spans_in(tmp_path / "second.json") == []


def test_a_profile_is_written_although_the_block_fails(device: str, tmp_path: Path) -> None:
    with pytest.raises(LookupError), pinlane.profile(tmp_path / "trace.json"):
        pinlane.to([torch.ones(3), torch.ones(1 << 20)], device)
        raise LookupError
    assert spans_in(tmp_path / "trace.json")


def test_there_is_one_profile_at_a_time(tmp_path: Path) -> None:
    with pinlane.profile(tmp_path / "outer.json"):
        with pytest.raises(pinlane.Error, match="being taken already"), pinlane.profile(tmp_path / "inner.json"):
            pass
    with pinlane.profile(tmp_path / "again.json"):
        pass


def test_a_file_that_can_not_be_written_is_an_error_at_once(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), pinlane.profile(tmp_path / "nowhere" / "trace.json"):
        pytest.fail("the block ran")
    with pinlane.profile(tmp_path / "trace.json"):
        pass
