"""Looks at the pages of a report in a headless Chromium, as their readers would, and holds their tables against the results.

``check.py CHROMIUM FOLDER`` checks each ``NAME.html`` in the folder against ``NAME.json`` beside it, and leaves pictures of it there.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, Page, sync_playwright

#: How the pages are looked at: a name, the width, and what the reader prefers.
LOOKS = [("light", 1200, "light"), ("dark", 1200, "dark"), ("phone", 390, "light"), ("phone-dark", 390, "dark")]

#: Each picture: what is wrong with it, if anything.
PICTURES = """() => [...document.querySelectorAll("figure")].map((figure) => {
  const svg = figure.querySelector("svg");
  const [outer, inner] = [figure.getBoundingClientRect(), svg.getBoundingClientRect()];
  const outside = [...svg.querySelectorAll("text")].filter((text) => {
    const box = text.getBoundingClientRect();
    return box.left < outer.left - 1 || box.right > outer.right + 1 || box.top < outer.top - 1 || box.bottom > outer.bottom + 1;
  });
  const style = getComputedStyle(svg);
  return {
    id: figure.id,
    empty: inner.width < 100 || inner.height < 10 || !svg.querySelector("rect, polyline, circle"),
    hidden: style.visibility !== "visible" || style.display === "none",
    outside: outside.map((text) => text.textContent),
    words: svg.getAttribute("aria-label") || "",
    role: svg.getAttribute("role"),
    rows: figure.querySelectorAll("details table tbody tr").length,
    badge: figure.querySelector(".badge")?.textContent || "",
    small: [...svg.querySelectorAll("text")].filter((text) => parseFloat(getComputedStyle(text).fontSize) < 11).length,
  };
})"""


class Wrong(Exception):
    """A page is not as it should be."""


def expect(holds: bool, what: str) -> None:
    if not holds:
        raise Wrong(what)


def numbers(value: Any) -> Iterator[float]:
    """All numbers of a JSON document."""
    if isinstance(value, bool) or value is None or isinstance(value, str):
        return
    if isinstance(value, int | float):
        yield float(value)
        return
    for part in value.values() if isinstance(value, dict) else value:
        yield from numbers(part)


def of_guide(document: dict[str, Any]) -> tuple[set[float], set[float]]:
    """What the tables of the guide's page have to show, and what they may beside it."""
    must: set[float] = set()
    derived: set[float] = set()
    for experiment in document["experiments"]:
        must.update(numbers([experiment["timelines"], [curve["points"] for curve in experiment["memory_curves"]]]))
        for way in experiment["ways"]:
            unseen = {"iqr_seconds", "threads"}
            must.update(numbers({field: value for field, value in way.items() if field not in unseen}))
            predicted = way.get("predicted_seconds")
            if predicted is not None:
                derived.add(abs(predicted - way["median_seconds"]) / way["median_seconds"])
        for table in experiment["tables"]:
            must.update(numbers(table))
            derived.update(operation["total_seconds"] / operation["calls"] for operation in table["operations"])
    return must, derived


def of_bench(document: dict[str, Any]) -> tuple[set[float], set[float]]:
    """The same of a benchmark's page."""
    must: set[float] = set()
    derived: set[float] = set()
    for figure in document["figures"]:
        must.update(numbers([figure["value"], figure["limit"], figure["peers"]]))
    drawn: dict[tuple[str, str, int], int] = {}
    cells = document.get("cells", [])
    for cell in cells:
        family = (cell["direction"], cell["memory"], cell["count"])
        drawn[family] = drawn.get(family, 0) + 1
    for cell in cells:
        # Curves of fewer than three sizes say nothing and are left out.
        if drawn[cell["direction"], cell["memory"], cell["count"]] >= 3:
            must.update([cell["bytes"], *(way["seconds"] for way in cell["ways"])])
    for predicted, measured in foreseen(document):
        must.update([predicted, measured])
        derived.add(abs(predicted - measured) / measured)
    return must, derived


def foreseen(document: dict[str, Any]) -> list[tuple[float, float]]:
    """What was predicted of each cell of a benchmark and what it took, repeated by itself; results of old may lack either."""
    cells = document.get("cells", [])
    if not cells:
        return [(kept["predicted"], kept["repeated"]) for kept in document.get("foreseen", [])]
    both = [(cell.get("predicted"), cell.get("repeated")) for cell in cells]
    return [(predicted, repeated["seconds"]) for predicted, repeated in both if predicted is not None and repeated is not None]


def check_tables(page: Page, document: dict[str, Any]) -> int:
    texts = page.evaluate("() => [...document.querySelectorAll('td[data-value]')].map((cell) => cell.dataset.value)")
    shown = {float(text) for text in texts}
    must, derived = of_guide(document) if "experiments" in document else of_bench(document)
    missing = must - shown
    expect(not missing, f"{len(missing)} numbers of the result are in no table, such as {sorted(missing)[:3]}")
    known = must | derived | set(numbers(document))
    invented = {value for value in shown - known if not any(math.isclose(value, other, rel_tol=1e-12) for other in derived)}
    expect(not invented, f"tables show {sorted(invented)[:3]}, which the result does not have")
    inside = json.loads(page.evaluate("() => document.getElementById('document').textContent"))
    expect(inside == document, "the document in the page is not the result's")
    return len(texts)


def check_pictures(page: Page, simulated: bool) -> int:
    pictures = page.evaluate(PICTURES)
    expect(bool(pictures), "there is no picture")
    for picture in pictures:
        name = f"the picture {picture['id']}"
        expect(not picture["empty"] and not picture["hidden"], f"{name} shows nothing")
        expect(not picture["outside"], f"{name} has words outside of it: {picture['outside']}")
        expect(picture["role"] == "img" and len(picture["words"]) > 20, f"{name} says nothing to who does not see it")
        expect(picture["rows"] > 0, f"{name} has no table behind it")
        expect(picture["small"] == 0, f"{name} has letters of less than 11 pixels")
        expect(not simulated or "simulated" in picture["badge"], f"{name} does not say that it is simulated")
    return len(pictures)


def look(browser: Browser, path: Path, document: dict[str, Any], name: str, width: int, prefers: Any) -> str:
    context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=prefers)
    page = context.new_page()
    said: list[str] = []
    asked: list[str] = []
    page.on("console", lambda message: said.append(message.text) if message.type in {"error", "warning"} else None)
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    page.goto(path.as_uri())
    expect(not said, f"the console says {said}")
    left = [url for url in asked if url != path.as_uri() and not url.startswith("data:")]
    expect(not left, f"the page asks for {left}")
    wider = page.evaluate("() => document.documentElement.scrollWidth - window.innerWidth")
    expect(wider <= 0, f"the page is {wider} pixels wider than its window")
    simulated = document.get("simulated", document.get("device", {}).get("simulated"))
    banners = page.locator(".banner:visible").count()
    expect(banners == (1 if simulated else 0), f"{banners} banners of a simulated device")
    if simulated:
        sections = page.evaluate("() => [...document.querySelectorAll('section')].filter((s) => s.querySelector('figure') && !s.querySelector(':scope > .badge')).map((s) => s.id)")
        expect(not sections, f"the sections {sections} do not say that they are simulated")
    page.screenshot(path=path.with_name(f"{path.stem}-{name}.png"), full_page=True)
    pictures = check_pictures(page, bool(simulated))
    cells = check_tables(page, document)
    page.evaluate("() => document.querySelectorAll('details').forEach((details) => { details.open = true; })")
    hidden = page.evaluate("() => [...document.querySelectorAll('details table')].filter((table) => table.getBoundingClientRect().height < 10).length")
    expect(hidden == 0, f"{hidden} tables stay hidden")
    background = "() => getComputedStyle(document.body).backgroundColor"
    before = page.evaluate(background)
    page.locator("#theme").click()
    expect(page.evaluate(background) != before, "the button does not change between light and dark")
    page.emulate_media(media="print")
    expect(page.locator("nav:visible").count() == 0, "the links between parts are printed")
    if name == "light":
        page.pdf(path=path.with_suffix(".pdf"))
    context.close()
    return f"{pictures} pictures, {cells} numbers"


def main(chromium: str, folder: Path) -> int:
    paths = sorted(folder.glob("*.html"))
    expect(bool(paths), f"there is no page in {folder}")
    wrong = 0
    with sync_playwright() as playwright:
        # Chromium's own sandbox wants rights that containers do not give; the pages are our own.
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        for path in paths:
            document = json.loads(path.with_suffix(".json").read_text())
            expect(path.stat().st_size < 2_000_000, f"{path.name} has {path.stat().st_size} bytes")
            for name, width, prefers in LOOKS:
                try:
                    found = look(browser, path, document, name, width, prefers)
                    print(f"{path.name}, {name}: {found}")
                except Wrong as error:
                    wrong += 1
                    print(f"{path.name}, {name}: {error}", file=sys.stderr)
        browser.close()
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], Path(sys.argv[2]).resolve()))
