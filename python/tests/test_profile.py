"""Profiles of what the engine does."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pinlane
import pytest
import torch


def spans_in(path: Path) -> list[dict[str, Any]]:
    events = json.loads(path.read_text())["traceEvents"]
    named = {(event["pid"], event["tid"]) for event in events if event["name"] == "thread_name"}
    spans = [event for event in events if event["ph"] == "X"]
    assert {(span["pid"], span["tid"]) for span in spans} == named
    return spans


def of_host(spans: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [span for span in spans if span["pid"] == os.getpid()]


def test_a_profile_tells_of_every_byte_that_was_copied(device: str, tmp_path: Path) -> None:
    tree = {"large": torch.ones(3 << 20), "small": torch.ones(5)}
    with pinlane.profile(tmp_path / "trace.json") as taken:
        pinlane.to(tree, device)
        pinlane.to(tree, device, non_blocking=True).result()
    spans = spans_in(tmp_path / "trace.json")
    least = 2 * 4 * (3 << 20)
    for side in (of_host(spans), [span for span in spans if span["pid"] != os.getpid()]):
        assert sum(span["args"]["bytes"] for span in side if span["name"] == "copy") >= least
    assert {"plan", "fill", "copy"} <= {span["name"] for span in of_host(spans)}
    for span in spans:
        assert span["dur"] >= 0 and span["ts"] >= 0
    [told] = taken.devices
    assert told.bytes >= least and told.busy_seconds > 0


def test_a_profile_without_a_file_is_looked_at(device: str) -> None:
    with pinlane.profile() as taken:
        pinlane.to([torch.ones(3), torch.ones(1 << 20)], device)
    operations = {operation.name: operation for operation in taken.operations}
    copy = operations["copy"]
    assert copy.calls > 0 and copy.total_seconds >= copy.self_seconds > 0
    text = str(taken)
    assert "# of Calls" in text and "fill" in text and taken.devices[0].device in text


def test_every_copy_is_counted_in_the_span_that_has_it(device: str, tmp_path: Path) -> None:
    tree = [torch.ones(4 << 20), torch.ones(4 << 20)]
    with pinlane.profile(tmp_path / "trace.json") as taken:
        pinlane.to(tree, device, non_blocking=True).result()
    copies = [span["args"] for span in spans_in(tmp_path / "trace.json") if "copies" in span["args"]]
    [told] = taken.devices
    assert told.copies == sum(span["copies"] for span in copies) >= len(copies) > 0
    assert told.bytes == sum(span["bytes"] for span in copies) == 2 * 4 * (4 << 20)


def test_threads_of_the_program_are_called_as_it_calls_them(device: str, tmp_path: Path) -> None:
    done = threading.Event()

    def work() -> None:
        pinlane.to([torch.ones(3), torch.ones(4)], device)
        done.set()
        stay.wait()

    stay = threading.Event()
    thread = threading.Thread(target=work, name="my worker")
    with pinlane.profile(tmp_path / "trace.json"):
        thread.start()
        assert done.wait(30)
    stay.set()
    thread.join()
    events = json.loads((tmp_path / "trace.json").read_text())["traceEvents"]
    names = [event["args"]["name"] for event in events if event["name"] == "thread_name"]
    assert "caller my worker" in names


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


def test_a_profile_within_another_gets_its_own_part(device: str, tmp_path: Path) -> None:
    with pinlane.profile(tmp_path / "outer.json"):
        pinlane.to([torch.ones(3), torch.ones(4)], device)
        with pinlane.profile() as inner:
            pinlane.to([torch.ones(3), torch.ones(4)], device)
    plans = [span for span in spans_in(tmp_path / "outer.json") if span["name"] == "plan"]
    assert len(plans) == 2
    assert [operation.calls for operation in inner.operations if operation.name == "plan"] == [1]


def test_a_profile_is_looked_at_behind_its_block() -> None:
    taken = pinlane.profile()
    with pytest.raises(RuntimeError, match="not taken"):
        str(taken)
    with taken, pytest.raises(pinlane.Error, match="still being taken"):
        str(taken)
    assert taken.operations == []


def test_a_file_that_can_not_be_written_is_an_error_at_once(tmp_path: Path) -> None:
    nowhere = tmp_path / "nowhere" / "trace.json"
    with pytest.raises(FileNotFoundError, match="making a trace") as caught, pinlane.profile(nowhere):
        pytest.fail("the block ran")
    assert Path(caught.value.filename) == nowhere
    with pinlane.profile(tmp_path / "trace.json"):
        pass


PROGRAM = """
import pinlane, torch
pinlane.to([torch.ones(3), torch.ones(1 << 20)], "sim")
print("went on")
"""


def traced(path: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PINLANE_TRACE": str(path)}
    return subprocess.run(
        [sys.executable, "-c", PROGRAM], env=environment, capture_output=True, text=True, check=True
    )


def test_a_program_is_traced_when_its_environment_asks_for_it(tmp_path: Path) -> None:
    done = traced(tmp_path / "trace.json")
    events = json.loads((tmp_path / "trace.json").read_text())["traceEvents"]
    assert {"plan", "fill", "copy", "busy"} <= {event["name"] for event in events}
    assert "# of Calls" in done.stderr and done.stdout == "went on\n"


def test_a_program_that_is_interrupted_leaves_its_trace(tmp_path: Path) -> None:
    environment = {**os.environ, "PINLANE_TRACE": str(tmp_path / "trace.json")}
    program = PROGRAM + "import os, signal\nos.kill(os.getpid(), signal.SIGINT)\n"
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True)
    assert done.returncode == -signal.SIGINT, done
    assert {"plan", "copy"} <= {span["name"] for span in spans_in(tmp_path / "trace.json")}
    assert done.stderr.count("# of Calls") == 1


def test_a_trace_that_can_not_be_written_is_warned_of_and_the_program_goes_on(tmp_path: Path) -> None:
    done = traced(tmp_path / "nowhere" / "trace.json")
    assert "PINLANE_TRACE" in done.stderr and "nowhere" in done.stderr
    assert done.stdout == "went on\n"


def test_a_forked_child_leaves_the_trace_to_its_parent(tmp_path: Path) -> None:
    program = PROGRAM + "import os, sys\nif os.fork() == 0:\n    sys.exit(0)\nprint(os.wait()[1])\n"
    environment = {**os.environ, "PINLANE_TRACE": str(tmp_path / "trace.json")}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert done.stdout.endswith("0\n"), done
    assert done.stderr.count("# of Calls") == 1
    assert json.loads((tmp_path / "trace.json").read_text())["traceEvents"]
