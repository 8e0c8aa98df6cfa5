"""The records of `bench_peers.py` as tables and figures."""

from pathlib import Path

COLOUR = {"diffsim": "C3", "equinox": "C4", "devito": "C0", "deepwave": "C2", "sweep": "C1"}


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
    records = [r for r in records if "error" not in r]
    for kind, panel in (("time", _times), ("memory", _memory)):
        lines = -(-len(names) // 2)
        size = {"figsize": (13, 4.6 * lines), "layout": "constrained", "squeeze": False}
        figure, axes = plt.subplots(lines, min(2, len(names)), **size)
        for name, ax in zip(names, axes.flat, strict=False):
            panel(ax, [r for r in records if r["case"] == name])
            ax.set_title(f"case {name}")
        figure.savefig(folder / f"peers_{kind}.png", dpi=110)
        plt.close(figure)


def _times(ax, records):
    """A bar a tool: one gradient, and the forward run alone in a darker shade."""
    titles = [f"{r['tool']}, {r['variant']}" for r in records]
    colours = [COLOUR[r["tool"]] for r in records]
    gradients, forwards = ([r[f"{kind}_s"] for r in records] for kind in ("gradient", "forward"))
    bars = ax.barh(titles, gradients, color=colours, alpha=0.45)
    ax.bar_label(bars, [f"{s:.2g}" for s in gradients], padding=3, fontsize=8)
    ax.barh(titles, forwards, color=colours)
    ax.set_xlabel("one gradient; in full colour a forward run (s)")
    ax.margins(x=0.1)
    ax.invert_yaxis()


def _memory(ax, records):
    """A number a tool, on logarithmic axes."""
    for i, r in enumerate(records):
        point = {"marker": f"${i + 1}$", "markersize": 9, "linestyle": "", "markeredgewidth": 0.1}
        title = f"{r['tool']}, {r['variant']}"
        ax.plot(r["gradient_s"], r["peak_mb"], color=COLOUR[r["tool"]], label=title, **point)
    ax.set(xlabel="one gradient (s)", ylabel="most memory of the process (MB)")
    for axis, scale in ((ax.xaxis, ax.set_xscale), (ax.yaxis, ax.set_yscale)):
        scale("log", subs=(2, 5))
        axis.set_major_formatter("{x:g}")
        axis.set_minor_formatter("{x:g}")
    ax.margins(0.1)
    ax.grid(alpha=0.3, which="both", linewidth=0.4)
    ax.legend(fontsize=8, loc="upper left", bbox_to_anchor=(1, 1))
