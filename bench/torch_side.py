#!/usr/bin/env python3
"""What torch gets for the work that pinlane's figures are about: the peers that `pinlane bench --peers` shows.

    python3 torch_side.py --json torch.json [--quick]

Needs torch 2.4 or later with CUDA; tensordict is measured too where it can be imported. Every way is run until warm,
checked once for the right bytes, and timed in rounds: from an idle device until the result can be used. Written are
the medians in seconds:

    {"h2d-pageable-1gib": {"torch_to": 0.117}}

Work whose source is pinned to begin with is not the same work, and has an id of its own that ends in -pinned.

Exit codes: 0, measured; 1, something went wrong; 77, there is no torch, or it has no CUDA device.
"""

import argparse
import json
import statistics
import sys
import threading
import time

try:
    import torch
except ImportError as error:
    print(f"skipped: torch cannot be imported: {error}")
    sys.exit(77)
try:
    from tensordict import TensorDict
except ImportError:
    TensorDict = None

DEVICE = "cuda:0"
GIB = 1 << 30
POOL = 128 << 20


def floats(count, salt=0):
    """Pageable host memory, touched, with values that tell the places apart (exact up to 2**24)."""
    return torch.arange(salt, salt + count, dtype=torch.int64).remainder_(1 << 24).to(torch.float32)


def host_like(tensor, pinned=False):
    """Host memory of the same shape, touched."""
    return torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=pinned).fill_(1)


def waited(result):
    """A result of asynchronous copies, when they are done."""
    torch.cuda.synchronize()
    return result


# Figures: each function gives the tensors that the results must equal (None where they have no bytes yet), and the ways by
# name. A way returns its results as a list; their disposal is not timed, and neither is what a way that is a pair has done
# before each run by its second part.


def to_device(sources):
    return sources, {
        "torch_to": lambda: [source.to(DEVICE) for source in sources],
        "torch_non_blocking": lambda: waited([source.to(DEVICE, non_blocking=True) for source in sources]),
        "torch_pin_memory": lambda: waited([source.pin_memory().to(DEVICE, non_blocking=True) for source in sources]),
    }


def pinned_to_device(sources):
    pinned = [source.pin_memory() for source in sources]
    return sources, {
        "torch_non_blocking": lambda: waited([source.to(DEVICE, non_blocking=True) for source in pinned]),
    }


def tree_to_device(sources):
    """The ways to the device, a TensorDict's among them."""
    expected, ways = to_device(sources)
    if TensorDict is not None:
        tree = TensorDict({str(index): source for index, source in enumerate(sources)}, batch_size=[])
        ways["tensordict_to"] = lambda: list(waited(tree.to(DEVICE)).values())
        ways["tensordict_non_blocking_pin"] = lambda: list(
            waited(tree.to(DEVICE, non_blocking_pin=True, num_threads=8)).values()
        )
    return expected, ways


def many_to_host(sources):
    """Separately allocated device tensors to the host."""
    on_device = [source.to(DEVICE) for source in sources]
    return sources, {
        "torch_cpu": lambda: [tensor.cpu() for tensor in on_device],
        "torch_non_blocking": lambda: waited([tensor.to("cpu", non_blocking=True) for tensor in on_device]),
    }


def into_fresh(source):
    on_device = source.to(DEVICE)
    return [source], {"torch_cpu": lambda: [on_device.cpu()]}


def into_warm(source):
    on_device, target = source.to(DEVICE), host_like(source)
    return [source], {"torch_copy": lambda: [target.copy_(on_device)]}


def into_pinned(source):
    on_device, target = source.to(DEVICE), host_like(source, pinned=True)
    return [source], {"torch_copy": lambda: waited([target.copy_(on_device, non_blocking=True)])}


def both_directions(source):
    """One pageable tensor each way: by turns, and by two threads at once."""
    on_device, target = source.to(DEVICE), host_like(source)
    up, down = torch.cuda.Stream(DEVICE), torch.cuda.Stream(DEVICE)

    def two_threads():
        landed = []

        def send():
            with torch.cuda.stream(up):
                landed.append(source.to(DEVICE))

        def receive():
            with torch.cuda.stream(down):
                target.copy_(on_device)

        threads = [threading.Thread(target=send), threading.Thread(target=receive)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return waited([*landed, target])

    return [source, source], {
        "torch_by_turns": lambda: [source.to(DEVICE), target.copy_(on_device)],
        "torch_two_threads": two_threads,
    }


def both_directions_pinned(source):
    """One pinned tensor each way at once, on two streams."""
    on_device, target = source.to(DEVICE), host_like(source, pinned=True)
    pinned = source.pin_memory()
    up, down = torch.cuda.Stream(DEVICE), torch.cuda.Stream(DEVICE)

    def two_streams():
        with torch.cuda.stream(up):
            sent = pinned.to(DEVICE, non_blocking=True)
        with torch.cuda.stream(down):
            target.copy_(on_device, non_blocking=True)
        return waited([sent, target])

    return [source, source], {"torch_two_streams": two_streams}


def pinned_pool():
    """Pinned memory that the allocator has to ask the driver for. Its bytes are nobody's."""
    # Without it, torch gives the memory of the run before.
    empty_cache = getattr(torch._C, "_host_emptyCache", None)
    if empty_cache is None:
        return None, {}

    def made():
        return [torch.empty(POOL, dtype=torch.uint8, pin_memory=True)]

    return None, {"torch_pin_memory": (made, empty_cache)}


def gibibyte():
    return floats(GIB // 4)


def small():
    return [floats(1000, salt=1000 * index) for index in range(1000)]


def hundred():
    return [floats(1_000_000, salt=index) for index in range(100)]


FIGURES = {
    "h2d-400kb": lambda: to_device([floats(100_000)]),
    "h2d-400kb-pinned": lambda: pinned_to_device([floats(100_000)]),
    "h2d-pageable-16mib": lambda: to_device([floats(4 << 20)]),
    "h2d-pageable-1gib": lambda: to_device([gibibyte()]),
    "h2d-tree-100x1m": lambda: tree_to_device(hundred()),
    "h2d-tree-100x1m-pinned": lambda: pinned_to_device(hundred()),
    "h2d-small-1000": lambda: tree_to_device(small()),
    "h2d-small-1000-pinned": lambda: pinned_to_device(small()),
    "d2h-small-1000": lambda: many_to_host(small()),
    "d2h-pinned-1gib": lambda: into_pinned(gibibyte()),
    "d2h-warm-1gib": lambda: into_warm(gibibyte()),
    "d2h-fresh-1gib": lambda: into_fresh(gibibyte()),
    "bidirectional": lambda: both_directions(gibibyte()),
    "bidirectional-pinned": lambda: both_directions_pinned(gibibyte()),
    "pool-ready": pinned_pool,
}


def check(figure, name, results, expected):
    if expected is None:
        return
    if len(results) != len(expected):
        raise SystemExit(f"{figure}, {name}: {len(results)} results for {len(expected)} tensors")
    for index, (result, source) in enumerate(zip(results, expected)):
        if not torch.equal(result.cpu(), source):
            raise SystemExit(f"{figure}, {name}: tensor {index} landed wrong")


def median(way, before, rounds):
    """The median of the seconds that a way takes."""
    seconds = []
    for _ in range(rounds):
        before()
        torch.cuda.synchronize()
        start = time.perf_counter()
        result = way()
        torch.cuda.synchronize()
        seconds.append(time.perf_counter() - start)
        del result
    return statistics.median(seconds)


def measure(figure, rounds):
    expected, ways = FIGURES[figure]()
    medians = {}
    for name, way in ways.items():
        way, before = way if isinstance(way, tuple) else (way, lambda: None)
        for _ in range(2):
            result = way()
        torch.cuda.synchronize()
        check(figure, name, result, expected)
        del result
        medians[name] = median(way, before, rounds)
        print(f"{figure:<24} {name:<28} {1e3 * medians[name]:>10.3f} ms", flush=True)
    return medians


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", metavar="FILE", help="write the medians to FILE")
    parser.add_argument("--quick", action="store_true", help="few rounds, rough figures")
    arguments = parser.parse_args()
    if not torch.cuda.is_available():
        print("skipped: torch has no CUDA device")
        return 77
    rounds = 5 if arguments.quick else 15
    print(f"torch {torch.__version__} on {torch.cuda.get_device_name(DEVICE)}, medians of {rounds} rounds")
    if TensorDict is None:
        print("tensordict cannot be imported and is left out")
    figures = {figure: measure(figure, rounds) for figure in FIGURES}
    if arguments.json:
        with open(arguments.json, "w", encoding="utf-8") as file:
            json.dump(figures, file, indent=2)
            file.write("\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
