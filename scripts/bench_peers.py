"""A wave gradient against deepwave, Devito, SWEEP and Equinox, each in a process of its own.

``python scripts/bench_peers.py`` (needs the extra ``bench``) runs every tool once a round, in turn,
takes the best of the rounds, compares the gradients with ours and prints the tables of
BENCHMARKS.md; ``--figures DIR`` draws them. All run the same shot: speeds, source, receivers,
steps, order, width of the layer on all faces, data type, two threads. With ``--tool NAME`` a
process measures that tool alone and prints its record as a line of JSON.

Seconds are those of a call that has been made before. ``first_call_s`` is the first gradient of the
first round, with all that builds and compiles it. Memory is the most that a process held.
"""

import argparse
import importlib
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from datetime import date
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np
from peers.case import CASES, small
from peers.report import draw, table

# tool: its package, the absorbing layer it has, how it may remember the past
TOOLS = {
    "diffsim": (
        "jax",
        "CPML",
        (
            "Reversible",
            "StoreAll",
            "Revolve(22)",
            "Revolve(22, block=8)",
            "Revolve(8)",
            "Sampled(1)",
            "Sampled(4)",
            "Sampled(10)",
        ),
    ),
    "equinox": ("equinox", "CPML (ours)", ("22 checkpoints",)),
    "devito": ("devito", "damping", ("store all", "every 4th step", "pyrevolve")),
    "deepwave": ("deepwave", "CPML", ("store all", "every 10th step")),
    "sweep": ("sweep-solver", "CPML", ("store all", "boundary saving")),
}
# cases that no other tool runs
OURS = {"E": ("Reversible", "Revolve(22)", "Revolve(100, block=100)")}
OURS["E64"] = OURS["E"]
THREADS = 2


def megabytes():
    """The most memory that this process has held so far."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6


def measure(tool, variant, case):
    """One tool's record, and its gradient."""
    module = importlib.import_module(f"peers.with_{tool}")
    imports = megabytes()
    start = time.perf_counter()
    forward, gradient = module.build(case, variant)
    value = gradient()
    first = time.perf_counter() - start
    gradient_s = least(gradient, case.repeats)
    forward()
    forward_s = least(forward, case.repeats)
    record = {"layer": TOOLS[tool][1], "forward_s": forward_s, "gradient_s": gradient_s}
    record |= {"first_call_s": first}
    record |= {"peak_mb": megabytes(), "imports_mb": imports}
    record |= {"mpt_s": case.points / forward_s / 1e6, "ratio": gradient_s / forward_s}
    return record, value


def least(call, repeats):
    """The least seconds of some calls."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return min(times)


def alone(tool, variant, name, tiny, folder):
    """The record of one tool, from a process of its own; of its failure, if it fails."""
    command = [sys.executable, __file__, "--tool", tool, "--variant", variant, "--case", name]
    command += ["--gradient", str(gradient_file(folder, tool, variant, name))]
    command += ["--small"] * tiny
    # a folder of our own, so that code compiled in an earlier run is not found again
    environment = os.environ | {"TMPDIR": folder, "OMP_NUM_THREADS": str(THREADS)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode == 0:
        return json.loads(done.stdout.splitlines()[-1])
    lines = [line for line in done.stderr.splitlines() if line.strip()]
    error = lines[-1].strip() if done.returncode > 0 and lines else f"signal {-done.returncode}"
    record = {"tool": tool, "variant": variant, "case": name, "layer": TOOLS[tool][1]}
    return record | {"error": error}


def gradient_file(folder, tool, variant, name):
    words = "_".join((tool, variant, name)).replace(" ", "_")
    return Path(folder) / f"{words}.npy"


def compare(names, tools, rounds, tiny):
    """Records of all tools and cases: the best of the rounds, and how alike the gradients are."""
    records = {}
    with tempfile.TemporaryDirectory() as folder:
        for name in names:
            runs = [(tool, variant) for tool in tools for variant in TOOLS[tool][2]]
            if name in OURS:
                runs = [("diffsim", variant) for variant in OURS[name]]
            for n in range(rounds):
                for tool, variant in runs:
                    key = tool, variant, name
                    if n == 0 or "error" not in records[key]:
                        record = alone(*key, tiny, folder)
                        records[key] = record if n == 0 else best(records[key], record)
                    print(f"round {n + 1}: {records[key]}", file=sys.stderr, flush=True)
            exact = gradient_file(folder, *runs[0], name)
            for tool, variant in runs:
                path = gradient_file(folder, tool, variant, name)
                if path.exists() and exact.exists():
                    likeness = cosine(np.load(path), np.load(exact))
                    records[tool, variant, name]["cosine"] = likeness
    return list(records.values())


def best(old, new):
    """The least of two records' times and memory; the first call stays that of the first round."""
    if "error" in new:
        return new
    names = "forward_s", "gradient_s", "peak_mb", "imports_mb"
    least = old | {name: min(old[name], new[name]) for name in names}
    points = old["mpt_s"] * old["forward_s"]
    return least | {
        "mpt_s": points / least["forward_s"],
        "ratio": least["gradient_s"] / least["forward_s"],
    }


def cosine(a, b):
    """Of the angle between two gradients, away from source, receivers and layers."""
    inner = (slice(12, -8), *(slice(8, -8),) * (a.ndim - 1))
    a, b = np.float64(a[inner]).ravel(), np.float64(b[inner]).ravel()
    return float(a @ b / np.sqrt((a @ a) * (b @ b)))


def versions(tools):
    """What was measured, in words."""
    words = []
    for package in dict.fromkeys(["jaxlib", *(TOOLS[tool][0] for tool in tools)]):
        try:
            words.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            words.append(f"{package} not installed")
    return ", ".join(words)


def words():
    parser = argparse.ArgumentParser(description="A wave gradient by several tools.")
    parser.add_argument("--cases", default="A,B,C,D,E,E64", help="some of A,B,C,D,E,E64")
    parser.add_argument("--tools", default=",".join(TOOLS), help="which, separated by commas")
    parser.add_argument("--rounds", type=int, default=3, help="processes of each tool")
    parser.add_argument("--small", action="store_true", help="tiny grids, to try it")
    parser.add_argument("--figures", metavar="DIR", help="draw two figures there")
    parser.add_argument("--out", metavar="FILE", help="the records, a line of JSON each")
    parser.add_argument("--tool", choices=TOOLS, help="measure this one, in this process")
    parser.add_argument("--variant", help="of the tool; its first if absent")
    parser.add_argument("--case", choices=CASES, default="A", help="for --tool")
    parser.add_argument("--gradient", metavar="FILE", help="for --tool: save its gradient there")
    return parser.parse_args()


def main():
    args = words()
    cases = {name: small(case) if args.small else case for name, case in CASES.items()}
    if args.tool:
        if sys.platform == "linux":
            os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:THREADS])
        variant = args.variant or TOOLS[args.tool][2][0]
        record, gradient = measure(args.tool, variant, cases[args.case])
        if args.gradient:
            np.save(args.gradient, gradient)
        print(json.dumps({"tool": args.tool, "variant": variant, "case": args.case} | record))
        return
    names, tools = args.cases.split(","), ["diffsim", *args.tools.split(",")]
    tools = list(dict.fromkeys(tools))  # ours is what the others are compared with
    print(f"{date.today()}, {platform.machine()}, {THREADS} threads, Python "
          f"{platform.python_version()}, {versions(tools)}")  # fmt: skip
    records = compare(names, tools, args.rounds, args.small)
    for name in names:
        table(name, cases[name], records)
    if args.out:
        Path(args.out).write_text("".join(json.dumps(r) + "\n" for r in records))
    if args.figures:
        draw(names, records, args.figures)


if __name__ == "__main__":
    main()
