"""An example as it is written in a notebook: cell after cell in one namespace, in an event loop that runs already."""

from __future__ import annotations

import ast
import asyncio
import inspect
from typing import Any

import torch

#: What somebody types who tries the package for the first time.
CELLS = [
    """
    import torch
    import pinlane

    [device.name for device in pinlane.devices() if device.simulated][:1]
    """,
    """
    batch = {"image": torch.arange(12.0).view(3, 4), "label": [torch.tensor(7), "cat"]}
    there = pinlane.to(batch, "sim")
    """,
    """
    there["image"].sum().item()
    """,
    """
    transfer = pinlane.to(batch, "sim", non_blocking=True)
    """,
    # At the top level, as notebooks allow.
    """
    landed = await transfer
    landed["label"][1]
    """,
    """
    try:
        transfer.result()
    except pinlane.TransferError as error:
        told = str(error)
    told
    """,
    """
    from torch.utils.data import DataLoader

    samples = [(torch.full((3,), float(number)), number) for number in range(6)]
    loader = DataLoader(
        samples, batch_size=2, num_workers=2, collate_fn=pinlane.collate(), multiprocessing_context="fork"
    )
    """,
    # A cell that is run twice.
    *[
        """
    sums = []
    for images, labels in pinlane.prefetch(loader, "sim"):
        sums.append((images.sum().item(), labels.tolist()))
    sums
    """
    ]
    * 2,
    """
    for images, labels in pinlane.prefetch(loader, "sim"):
        break
    pinlane.to(there, "cpu")["image"]
    """,
    """
    results = [await pinlane.to(torch.full((1000,), number), "sim", non_blocking=True) for number in range(3)]
    [result[0].item() for result in results]
    """,
]


async def run(cells: list[str]) -> list[Any]:
    """What each cell shows: the value of its last line, if that is an expression."""
    namespace: dict[str, Any] = {"__name__": "__main__"}
    shown = []
    for number, cell in enumerate(cells):
        tree = ast.parse(inspect.cleandoc(cell))
        last = tree.body[-1]
        if isinstance(last, ast.Expr):
            tree.body[-1] = ast.copy_location(ast.Assign([ast.Name("_", ast.Store())], last.value), last)
        code = compile(
            ast.fix_missing_locations(tree), f"cell {number}", "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True
        )
        namespace.pop("_", None)
        running = eval(code, namespace)
        if inspect.isawaitable(running):
            await running
        shown.append(namespace.get("_"))
    return shown


def test_a_notebook_runs_from_its_first_cell_to_its_last() -> None:
    shown = asyncio.run(run(CELLS))
    sums = [(3.0, [0, 1]), (15.0, [2, 3]), (27.0, [4, 5])]
    assert shown[0] == ["sim:0"] and shown[2] == 66.0 and shown[4] == "cat"
    assert "taken already" in shown[5]
    assert shown[7] == sums and shown[8] == sums
    assert torch.equal(shown[9], torch.arange(12.0).view(3, 4))
    assert shown[10] == [0, 1, 2]
