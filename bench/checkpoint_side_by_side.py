"""Loading and saving checkpoints by pinlane and its peers: the same files for all, taking turns, every way's tensors compared,
medians as JSON.

    python bench/checkpoint_side_by_side.py --device cuda --folder /data --out results.json [--figures h200.json] [--only save]

Each way has a process of its own (`checkpoint_ways.py`); peers that can't be imported are left out with a note. With --peers, the
folder of that name below the given one comes first for a peer, such as one made by `pip install --target peers/fastsafetensors
fastsafetensors`. --folder is to be on the disk that is measured. With --figures, what is asked goes into the results of `pinlane
bench --figures-json`. Every way gets one turn for each figure, and more while its seconds last; --seconds gives it so many times
as many. On a disk of 1.5 GB/s all takes about two minutes and a half. What was measured is written after each piece of work,
so a run that is cut short tells what it did. --only takes parts of the figures' names.

On a simulated device (`--device sim --quick`) it only shows that it works: nothing measured there says anything of hardware.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import checkpoint_figures
import checkpoint_files
from checkpoint_files import Files
from checkpoint_ways import WAYS, digest

SHM = Path("/dev/shm")

#: The seconds that each way may take for a figure: it gets one turn, and more while that lasts.
SECONDS = {
    "load-small-20k": 1.0,
    "load-warm-7gb": 2.0,
    "load-first-tensor": 0.5,
    "load-into-7gb": 2.0,
    "save-disk-7gb": 7.0,
    "load-cold-7gb": 7.0,
    "load-tmpfs-7gb": 2.0,
    "save-tmpfs-7gb": 4.0,
    "save-tmpfs-7gb in one file": 4.0,
}

#: What is saved, and the bytes of a file where there are several: about twelve files for the model.
SAVED = "saved.safetensors"
SHARD = 600_000_000

#: What a way is asked, or a function that does the work itself and gives the seconds.
Ask = dict[str, Any]


class Process:
    """A way in a process of its own."""

    def __init__(self, way: str, device: str, peers: Path | None) -> None:
        folder = None if peers is None else peers / way.removesuffix("_buffered")
        folders = [str(folder)] if folder is not None and folder.exists() else []
        script = Path(__file__).with_name("checkpoint_ways.py")
        self.process = subprocess.Popen(
            [sys.executable, str(script), way, device, *folders],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._hello: Ask | None = None

    def hello(self) -> Ask:
        """What it says of itself, once it is ready."""
        if self._hello is None:
            self._hello = self._answer()
        return self._hello

    def ask(self, **command: Any) -> Ask:
        assert self.process.stdin is not None
        try:
            print(json.dumps(command), file=self.process.stdin, flush=True)
        except BrokenPipeError:
            return {"error": "its process has ended"}
        return self._answer()

    def _answer(self) -> Ask:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        return json.loads(line) if line else {"error": f"its process ended with {self.process.wait()}"}

    def end(self) -> None:
        assert self.process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()


class Bench:
    """Measures ways of doing the same work, in turns."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.rows: list[dict[str, Any]] = []
        self.notes: dict[str, str] = {}
        self.versions: dict[str, str] = {}
        self.ways: dict[str, Process] = {}
        self.started = {way: Process(way, options.device, options.peers) for way in WAYS}

    def wait(self) -> None:
        """Until all ways are ready; what can't be used is left out."""
        for way, process in self.started.items():
            told = process.hello()
            if "error" in told:
                self.note(way, told["error"])
                process.end()
            else:
                self.versions[way] = told["version"]
                self.ways[way] = process
        if "pinlane" not in self.ways:
            sys.exit(f"pinlane can't be measured: {self.notes['pinlane']}")

    def note(self, what: str, text: str) -> None:
        self.notes[what] = text
        print(f"{what:28} {text}", flush=True)

    def compare(
        self,
        name: str,
        command: Ask,
        ways: list[str],
        *,
        bytes: int,
        digest: str | None = None,
        before: Callable[[], Any] = lambda: None,
        after: Callable[[str], Any] = lambda _: None,
        beside: dict[str, Callable[[], float]] | None = None,
        rounds: int = 5,
        warm_up: bool = True,
    ) -> None:
        """Has each way do the work in turns, there and back, so that none is always the one that comes after another; what is
        done before each turn, and after a way's first, is not timed. What they load has to have the digest. Where there is a
        `warm_up`, the first turn counts only if it stays the only one."""
        if not self.wants(name):
            return
        beside = beside or {}
        order = [way for way in ways if way in self.ways] + list(beside)
        times: dict[str, list[float]] = {way: [] for way in order}
        budget = SECONDS[name] * self.options.seconds
        for turn in range(rounds + warm_up):
            for way in order if turn % 2 == 0 else order[::-1]:
                if way not in times or (turn and sum(times[way]) * (1 + 1 / turn) > budget):
                    continue
                before()
                if way in beside:
                    told = {"seconds": beside[way]()}
                else:
                    told = self.ways[way].ask(**command, **({} if digest is None else {"check": turn == 0}))
                if "error" in told:
                    self.note(name if way == "pinlane" else f"{name}, {way}", told["error"])
                    del times[way]
                    continue
                if told.get("digest") not in (None, digest):
                    sys.exit(f"{name}: {way} gave other bytes")
                times[way].append(told["seconds"])
                if turn == 0 and way not in beside:
                    after(way)
        row: dict[str, Any] = {"id": name, "bytes": bytes}
        for way, taken in times.items():
            counted = taken[1:] if warm_up and len(taken) > 1 else taken
            # What a way does is its median; a limit is the best that was seen.
            typical = min(counted) if way in beside else statistics.median(counted)
            row[way] = {
                "ms": typical * 1e3,
                "min_ms": min(counted) * 1e3,
                "gb_per_s": bytes / typical / 1e9,
                "rounds": len(counted),
            }
        self.add(row)
        told = "  ".join(f"{way} {row[way]['ms']:.1f} ms ({row[way]['gb_per_s']:.1f} GB/s)" for way in times)
        print(f"{name:20} {told}", flush=True)

    def wants(self, *names: str) -> bool:
        """Whether one of these figures is to be measured."""
        only = self.options.only
        return not only or any(part in name for part in only for name in names)

    def add(self, row: dict[str, Any]) -> None:
        """Takes what was measured, and writes all of it down."""
        self.rows.append(row)
        document = {"device": self.options.device, "versions": self.versions, "results": self.rows, "notes": self.notes}
        if self.options.out:
            self.options.out.write_text(json.dumps(document, indent=2) + "\n")
        if self.options.figures:
            checkpoint_figures.add(self.options.figures, self.rows, self.notes)

    # ---- the work

    def warm_loads(self, files: Files, disk: Path) -> None:
        """What comes from the page cache; everything here needs that the files are in it."""
        paths = files.within(disk)
        checkpoint_files.warm(paths)
        buffered = [way for way in WAYS if way != "instanttensor"]
        self.compare("load-warm-7gb", {"do": "load", "files": paths}, buffered, bytes=files.bytes, digest=self.digest)
        self.compare("load-first-tensor", {"do": "first", "files": paths}, buffered, bytes=0)
        self.memory(paths)
        both = ["pinlane", "safetensors"]
        if self.wants("load-into-7gb", "save-disk-7gb", "save-tmpfs-7gb"):
            for way in both:
                if way in self.ways:
                    self.ways[way].ask(do="hold", files=paths)
        self.compare("load-into-7gb", {"do": "into", "files": paths}, both, bytes=files.bytes, digest=self.digest)

    def small_loads(self, disk: Path) -> None:
        if not self.wants("load-small-20k"):
            return
        quick = self.options.quick
        files = Files("small", checkpoint_files.small(200 if quick else 20_000, 8192), [disk])
        ways = [way for way in WAYS if way != "instanttensor"]
        command = {"do": "load", "files": files.within(disk)}
        self.compare("load-small-20k", command, ways, bytes=files.bytes, digest=digest(files.tensors))

    def memory_loads(self, files: Files, shm: Path) -> None:
        ways = [way for way in WAYS if way != "instanttensor_buffered"]
        command = {"do": "load", "files": files.within(shm)}
        self.compare("load-tmpfs-7gb", command, ways, bytes=files.bytes, digest=self.digest)

    def cold_loads(self, files: Files, disk: Path) -> None:
        if not self.wants("load-cold-7gb"):
            return
        paths = files.within(disk)
        try:
            checkpoint_files.cool(paths)
        except OSError as error:
            self.note("load-cold-7gb", str(error))
            return
        depth = checkpoint_files.best_reads(paths)
        self.note("raw reads", depth.told())
        self.compare(
            "load-cold-7gb",
            {"do": "load", "files": paths},
            ["pinlane", "instanttensor"],
            bytes=files.bytes,
            digest=self.digest,
            before=lambda: checkpoint_files.cool(paths),
            beside={"raw": lambda: checkpoint_files.read_raw(paths, depth)},
            warm_up=False,
        )

    def save_to_disk(self, folder: Path, bytes: int) -> None:
        if not self.wants("save-disk-7gb"):
            return
        path = folder / SAVED
        depth = checkpoint_files.best_writes(str(path), bytes)
        self.note("raw writes", depth.told())
        raw = {"raw": lambda: checkpoint_files.write_raw(str(path), bytes, depth)}
        self.saves("save-disk-7gb", path, ["pinlane", "safetensors"], bytes, beside=raw, warm_up=False)

    def save_to_memory(self, folder: Path, bytes: int) -> None:
        """In several files, as large models are saved: those who write to one file in memory wait for each other in the kernel,
        however they do it. And in one, for what that costs."""
        if not self.wants("save-tmpfs-7gb"):
            return
        path = folder / SAVED
        self.saves("save-tmpfs-7gb", path, ["pinlane", "safetensors"], bytes, shard=SHARD)
        self.saves("save-tmpfs-7gb in one file", path, ["pinlane"], bytes)

    def saves(self, name: str, path: Path, ways: list[str], bytes: int, *, shard: int | None = None, **options: Any) -> None:
        """What saving the tensors that are held takes. What each way saves first is read back."""
        ask = {"do": "save", "path": str(path), "shard": shard}

        def check(way: str) -> None:
            files = [str(file) for file in saved(path) if file.suffix == ".safetensors"]
            loaded = self.ways["pinlane"].ask(do="load", files=files, check=True)
            if loaded.get("digest") != self.digest:
                sys.exit(f"{name}: {way} saved other bytes to {path}, or none: {loaded}")

        self.compare(name, ask, ways, bytes=bytes, before=lambda: remove_saved(path), after=check, **options)
        remove_saved(path)

    def memory(self, paths: list[str]) -> None:
        if not self.wants("load-host-growth", "load-pinned-peak"):
            return
        process = Process("pinlane", self.options.device, self.options.peers)
        process.hello()
        told = process.ask(do="memory", files=paths)
        process.end()
        if "error" in told:
            self.note("load-host-growth", told["error"])
            return
        self.add({"id": "memory", **told})
        print("memory               " + "  ".join(f"{what} {bytes >> 20} MiB" for what, bytes in told.items()), flush=True)

    def run(self, disk: Path, shm: Path | None) -> None:
        quick = self.options.quick
        shapes = checkpoint_files.model(64, 224, 8, 4) if quick else checkpoint_files.model(4096, 14336, 16, 4)
        in_memory = shm is not None and self.wants("load-tmpfs-7gb")
        # While the ways get ready.
        files = Files("model", shapes, [disk, shm] if shm is not None and in_memory else [disk])
        self.digest = digest(files.tensors)
        self.wait()
        self.small_loads(disk)
        self.warm_loads(files, disk)
        self.save_to_disk(disk, files.bytes)
        self.cold_loads(files, disk)
        if shm is not None:
            if in_memory:
                self.memory_loads(files, shm)
                for path in files.within(shm):
                    os.unlink(path)
            self.save_to_memory(shm, files.bytes)


def saved(path: Path) -> list[Path]:
    """What saving to `path` has left: a file, or several and an index."""
    return list(path.parent.glob(f"{path.stem}*"))


def remove_saved(path: Path) -> None:
    for file in saved(path):
        file.unlink()


@contextlib.contextmanager
def folder_in(parent: Path) -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="checkpoints-", dir=parent))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda:0")
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()), help="on the disk to be measured")
    parser.add_argument("--peers", type=Path, help="a folder for each peer, with what is to be imported")
    parser.add_argument("--quick", action="store_true", help="small sizes: only to see that it works")
    parser.add_argument("--seconds", type=float, default=1.0, metavar="TIMES", help="how many times as long to measure")
    parser.add_argument("--only", action="append", metavar="PART", help="measure figures with this in their names")
    parser.add_argument("--out", type=Path, help="where the results go as JSON")
    parser.add_argument("--figures", type=Path, help="results of pinlane bench, to which the figures are added")
    options = parser.parse_args()
    if options.figures and (options.quick or not options.device.startswith("cuda")):
        parser.error("--figures wants a GPU and full sizes: others are no figures of hardware")
    # So that no files stay behind.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended by a signal"))
    bench = Bench(options)
    # The files, on the disk and what is saved beside them, with a reserve.
    needed = (1 if options.quick else 9) << 30
    if shutil.disk_usage(options.folder).free < 2 * needed:
        sys.exit(f"{options.folder} has no room for {2 * needed >> 30} GiB; name another with --folder")
    with contextlib.ExitStack() as stack:
        disk = stack.enter_context(folder_in(options.folder))
        shm = None
        if SHM.is_dir() and shutil.disk_usage(SHM).free > needed:
            shm = stack.enter_context(folder_in(SHM))
        else:
            bench.note("load-tmpfs-7gb", f"{SHM} has no room for {needed >> 30} GiB")
            bench.note("save-tmpfs-7gb", bench.notes["load-tmpfs-7gb"])
        bench.run(disk, shm)
        for process in bench.ways.values():
            process.end()


if __name__ == "__main__":
    main()
