"""The figures that are asked of checkpoints, from what was measured, as `pinlane bench` writes its own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from python_figures import Figure

Row = dict[str, Any]

#: At least so many GB/s.
RATES = {"load-warm-7gb": 52.0, "load-tmpfs-7gb": 52.0, "save-tmpfs-7gb": 20.0}
#: At least this share of what the disk does without anything on top.
OF_RAW = {"load-cold-7gb": 0.98, "save-disk-7gb": 0.95}
#: From so many times the bare disk's rate on, that was no limit.
MORE = 1.05
#: At most so many milliseconds.
TIMES = {"load-small-20k": 20.0, "load-first-tensor": 10.0}
#: At least this share of the rate into new memory.
INTO = 0.9
#: The most MiB of the host's memory beyond the pinned budget.
GROWTH = 64.0
#: What these figures are called.
IDS = {*RATES, *OF_RAW, *TIMES, "load-into-7gb", "load-pinned-peak", "load-host-growth"}


def add(path: Path, rows: list[Row], notes: dict[str, str]) -> None:
    """Puts the figures, and why others are missing, into the results at `path`."""
    document = json.loads(path.read_text())
    mine = figures(rows, document["link"])
    measured = {figure["id"] for figure in mine}
    failures = [{"id": name, "error": text} for name, text in notes.items() if name in IDS - measured]
    for key, new in (("figures", mine), ("failures", failures)):
        document[key] = [entry for entry in document.get(key, []) if entry["id"] not in IDS] + new
    if not document["failures"]:
        del document["failures"]
    path.write_text(json.dumps(document, indent=2, ensure_ascii=False) + "\n")


def figures(rows: list[Row], link: dict[str, float]) -> list[Row]:
    """All figures that were measured; `link` is in GB/s."""
    by_id = {row["id"]: row for row in rows}
    found = []
    for name, row in by_id.items():
        if name == "memory":
            found += _of_memory(row)
        elif "pinlane" in row and name in IDS:
            found += _of_row(name, row, by_id, link)
    return [{**figure._asdict(), "peers": figure.peers or {}} for figure in found]


def _of_row(name: str, row: Row, by_id: dict[str, Row], link: dict[str, float]) -> list[Figure]:
    column = "ms" if name in TIMES else "gb_per_s"
    values = {way: told[column] for way, told in row.items() if isinstance(told, dict)}
    value, raw, peers = values.pop("pinlane"), values.pop("raw", None), values
    if name in TIMES:
        text = f"at most {TIMES[name]:g} ms"
        return [Figure(name, value, "ms", text, value <= TIMES[name], peers=peers)]
    if name in OF_RAW and raw is not None:
        text = f"at least {OF_RAW[name]:g} of the limit"
        detail = "the limit is the bare disk's"
        if value > raw * MORE:
            detail += ", which was slower in this run: no limit then"
        return [Figure(name, value, "GB/s", text, value >= OF_RAW[name] * raw, raw, peers, detail)]
    if name == "load-into-7gb":
        if "pinlane" not in by_id.get("load-warm-7gb", {}):
            # There is nothing to hold it against.
            return []
        beside = by_id["load-warm-7gb"]["pinlane"]["gb_per_s"]
        text = f"at least {INTO:g} of load-warm-7gb"
        return [Figure(name, value, "GB/s", text, value >= INTO * beside, link["h2d"], peers)]
    limit = link["d2h" if name.startswith("save") else "h2d"]
    text = f"at least {RATES[name]:g} GB/s"
    one_file = by_id.get(f"{name} in one file")
    detail = ""
    if one_file is not None and "pinlane" in one_file:
        alike = one_file["pinlane"]["gb_per_s"]
        ratios = ", ".join(f"{alike / rate:.1f} times {peer}" for peer, rate in peers.items())
        detail = f"in files of 0.6 GB; in one file, as peers save, {alike:.1f} GB/s" + (f": {ratios}" if ratios else "")
    return [Figure(name, value, "GB/s", text, value >= RATES[name], limit, peers, detail)]


def _of_memory(row: Row) -> list[Figure]:
    growth, pinned, budget = (row[name] / (1 << 20) for name in ("growth", "pinned_peak", "pinned_budget"))
    beyond = max(growth - pinned, 0.0)
    detail = f"{growth:.0f} MiB in all, of which {pinned:.0f} MiB are pinned"
    return [
        Figure("load-pinned-peak", pinned, "MiB", "at most the budget", pinned <= budget, budget),
        Figure("load-host-growth", beyond, "MiB", f"at most {GROWTH:g} MiB", beyond <= GROWTH, detail=detail),
    ]
