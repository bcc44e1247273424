"""The figures that are asked of the Python package, from what was measured, as `pinlane bench` writes its own."""

from __future__ import annotations

from typing import Any, NamedTuple

Row = dict[str, Any]

#: What is asked of each figure that one row gives: at most so many milliseconds, at least so many GB/s, or at least this
#: share of what the link carries in a direction.
ASKED: dict[str, tuple[str, float]] = {
    "py-h2d-small-1000": ("ms", 0.8),
    "py-d2h-small-1000": ("ms", 0.8),
    "py-tensordict-100x1m": ("ms", 7.9),
    "py-h2d-1gib": ("h2d", 0.94),
    "py-d2h-1gib-first": ("GB/s", 30),
    "py-d2h-1gib-again": ("GB/s", 48),
    "py-d2h-1gib-pinned": ("d2h", 0.95),
}
#: How many times the longer of computing and making batches a step may take, at most.
STEP = 1.05
#: The most milliseconds of a step on a batch of many tensors.
STEP_MANY = 5.0
#: How many times what torch takes a cell of the grid may take, at most.
SLOWER = 1.05
#: The most milliseconds that the import may take.
IMPORT = 50.0


class Figure(NamedTuple):
    """One figure, as the results hold it."""

    id: str
    value: float
    unit: str
    asked: str
    holds: bool
    limit: float | None = None
    peers: dict[str, float] | None = None
    detail: str = ""


def figures(
    rows: list[Row],
    steps: dict[str, dict[str, float]],
    cells: list[tuple[str, float]],
    cells_left: int,
    import_ms: float,
    link: dict[str, float],
) -> list[Row]:
    """All figures that were measured: `rows` of works, milliseconds for each way of `steps`, the grid's `cells` with how many
    times what torch takes they take, and how many cells were left out. `link` is in GB/s."""
    found = [_of_row(row, link) for row in rows if row["id"] in ASKED]
    found += [_of_steps(name, times) for name, times in steps.items()]
    alone = [
        (row["id"].removeprefix("py-one-tensor-"), row["pinlane"]["ms"] / row["torch"]["ms"])
        for row in rows
        if row["id"].startswith("py-one-tensor-")
    ]
    if alone:
        found.append(_worst("py-one-tensor", alone, 1.0))
    if cells:
        found.append(_worst("py-never-slower", cells, SLOWER, left=cells_left))
    found.append(Figure("py-import", import_ms, "ms", f"at most {IMPORT:g} ms", import_ms <= IMPORT))
    return [{**figure._asdict(), "peers": figure.peers or {}} for figure in found]


def _of_row(row: Row, link: dict[str, float]) -> Figure:
    name = row["id"]
    kind, asked = ASKED[name]
    column = "ms" if kind == "ms" else "gb_per_s"
    peers = {way: told[column] for way, told in row.items() if isinstance(told, dict)}
    value = peers.pop("pinlane")
    if kind == "ms":
        return Figure(name, value, "ms", f"at most {asked:g} ms", value <= asked, peers=peers)
    if kind == "GB/s":
        text = f"at least {asked:g} GB/s"
        return Figure(name, value, "GB/s", text, value >= asked, limit=link["d2h"], peers=peers)
    limit = link[kind]
    text = f"at least {asked:g} of the limit"
    return Figure(name, value, "GB/s", text, value >= asked * limit, limit=limit, peers=peers)


def _of_steps(name: str, times: dict[str, float]) -> Figure:
    value, peers = times["pinlane"], {"torch": times["torch"]}
    limit = max(times["compute"], times["workers"])
    detail = f"{times['compute']:.2f} ms of computing; workers make a batch in {times['workers']:.2f} ms"
    if name == "py-step-many":
        holds, text = value <= STEP_MANY, f"at most {STEP_MANY:g} ms"
    else:
        holds, text = value <= STEP * limit, f"at most {STEP:g} times the limit"
    return Figure(name, value, "ms", text, holds, limit=limit, peers=peers, detail=detail)


def _worst(name: str, ratios: list[tuple[str, float]], most: float, left: int = 0) -> Figure:
    worst, ratio = max(ratios, key=lambda told: told[1])
    hold = sum(other <= most for _, other in ratios)
    median = sorted(other for _, other in ratios)[len(ratios) // 2]
    detail = f"the worst: {worst}; {hold} of {len(ratios)} hold; median {median:.2f}"
    asked = f"at most {most:g} x"
    if left:
        detail += f"; {left} cells were not measured"
        asked += "; every cell measured"
    return Figure(name, ratio, "x", asked, ratio <= most and not left, detail=detail)
