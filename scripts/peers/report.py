"""The records of `bench_peers.py` as tables and figures."""

from pathlib import Path

STYLE = {"diffsim": "C3*", "equinox": "C4^", "devito": "C0o", "deepwave": "C2s", "sweep": "C1D"}


def table(name, case, records):
    """One case in Markdown."""
    size = " × ".join(map(str, case.shape))
    print(f"\nCase {name}: {size} nodes, order {case.order}, layers of {case.width} cells, "
          f"{case.steps} steps, {case.receivers} receivers, {case.dtype}\n")  # fmt: skip
    print("| tool | layer | forward, s | Mpt/s | gradient, s | gradient/forward | × Reversible | "
          "peak, MB | of them imports | first call, s | cosine |")  # fmt: skip
    print("|" + "---|" * 11)
    records = [r for r in records if r["case"] == name]
    ours = {r["variant"]: r.get("gradient_s") for r in records if r["tool"] == "diffsim"}
    for r in records:
        title = f"{r['tool']}, {r['variant']} | {r['layer']}"
        if "error" in r:
            print(f"| {title} | failed: {r['error'].replace('|', '/')[:120]}", "|" * 9)
            continue
        reversible = ours.get("Reversible")
        cells = [f"{r['forward_s']:.3f}", f"{r['mpt_s']:.0f}", f"{r['gradient_s']:.3f}"]
        cells += [f"{r['ratio']:.1f}", f"{r['gradient_s'] / reversible:.2f}" if reversible else ""]
        cells += [f"{r['peak_mb']:.0f}", f"{r['imports_mb']:.0f}", f"{r['first_call_s']:.1f}"]
        cells += [f"{r['cosine']:.5f}" if "cosine" in r else ""]
        print(f"| {title} |", " | ".join(cells), "|")
    unlike = [r for r in records if "error" not in r and not r.get("cosine", 0) > 0.99]
    for r in unlike:
        print(f"\n**The gradient of {r['tool']}, {r['variant']} is not ours.**")


def draw(names, records, folder):
    """Two figures: the times, and memory against time; a panel a case."""
    # only now: a process that is started counts this one's memory as its own at first
    import matplotlib.pyplot as plt

    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    size = {"figsize": (5 * len(names), 4.5), "layout": "constrained", "squeeze": False}
    (times, bars), (memory, points) = (plt.subplots(1, len(names), **size) for _ in range(2))
    for name, bar, point in zip(names, bars[0], points[0], strict=True):
        rows = [r for r in records if r["case"] == name and "error" not in r]
        titles = [f"{r['tool']}, {r['variant']}" for r in rows]
        bar.barh(titles, [r["gradient_s"] for r in rows], color="C0", label="gradient")
        bar.barh(titles, [r["forward_s"] for r in rows], color="C1", label="forward run")
        bar.set(xlabel="time (s)", title=f"case {name}", xscale="log")
        bar.invert_yaxis()
        for r, title in zip(rows, titles, strict=True):
            point.plot(r["gradient_s"], r["peak_mb"], STYLE[r["tool"]])
            point.annotate(title, (r["gradient_s"], r["peak_mb"]), fontsize=7)
        point.set(xscale="log", yscale="log", xlabel="one gradient (s)", title=f"case {name}")
        point.grid(alpha=0.3, which="both", linewidth=0.4)
    bars[0, 0].legend(fontsize=8)
    points[0, 0].set_ylabel("most memory of the process (MB)")
    times.savefig(folder / "peers_time.png", dpi=140)
    memory.savefig(folder / "peers_memory.png", dpi=140)
