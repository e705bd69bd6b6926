"""Makes docs/benchmarks.md of what benchmarks have left in target/bench and target/criterion. Parts that are missing are left out,
with a line that says how to get them.

    python benches/python/report.py [--figures target/bench] [--out docs]
"""

import argparse
import json
from pathlib import Path

import matplotlib

matplotlib.use("svg")
import matplotlib.pyplot as plt

ROOT = Path(__file__).parents[2]
TITLES = {
    "small": "Small files: `{x: float32[64, 64], y: int}`, a sample each",
    "rows": "Rows: files of `float32[1000, 16, 16]`, a sample is a row",
    "ragged": "Ragged: `float16[L, 256]`, L from 16 to 512, batches padded",
}
# What cannot be measured beside the rest.
ABSENT = ["mosaicml-streaming: its newest, 0.13, wants numpy < 2.2 and huggingface-hub < 1, which the rest here has outgrown"]
WAYS = ["one by one", "DataLoader, 0 workers", "DataLoader, 2 workers", "Loader"]
CURVES = {
    "open": ("Opening a file", "tensors", "seconds"),
    "build": ("Indexing a folder", "files", "seconds"),
    "open-index": ("Opening and asking an index", "files", "seconds"),
    "threads": ("Gathering, by threads (warm)", "threads", "samples/s"),
    "batch": ("Gathering, by batch size (warm)", "samples a batch", "samples/s"),
    "cold": ("Gathering from a cold disk", "threads (reads in flight)", "samples/s"),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--figures", type=Path, default=ROOT / "target" / "bench")
    parser.add_argument("--out", type=Path, default=ROOT / "docs")
    arguments = parser.parse_args()
    pictures = arguments.out / "benchmarks"
    pictures.mkdir(parents=True, exist_ok=True)
    found = {name: read(arguments.figures / f"rivals-{name}.json") for name in TITLES}
    by = "`make bench`"
    if any(figures and figures.get("is_quick") for figures in found.values()):
        by = "`make bench-quick`, on small data and in few rounds: to see that nothing has become much slower, not to be quoted"
    parts = ["# Benchmarks", f"Made by {by}; not edited by hand. Figures are medians; the lowest and highest are in brackets."]
    for name, figures in found.items():
        parts += rivals(name, figures, pictures) if figures else [missing(TITLES[name], f"benches/python/rivals.py --only {name}")]
    parts += epoch_parts(read(arguments.figures / "parts.json"))
    curves = read(arguments.figures / "curves.json") or {}
    for name, words in CURVES.items():
        known = name in curves
        parts += curve(name, *words, curves[name], pictures) if known else [missing(words[0], f"cargo bench --bench curves {name}")]
    parts += peers(read(arguments.figures / "peers.json")) + criterion(arguments.figures.parent / "criterion")
    (arguments.out / "benchmarks.md").write_text("\n\n".join(parts) + "\n")


def read(path: Path):
    return json.loads(path.read_text()) if path.exists() else None


def missing(title: str, command: str) -> str:
    return f"## {title}\n\nNot measured here: `{command}`."


def table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def spread(figure: dict | None) -> str:
    return f"{figure['rate']:,.0f} ({figure['low']:,.0f} to {figure['high']:,.0f})" if figure else ""


def rivals(name: str, data: dict, pictures: Path) -> list[str]:
    at = {(figure["store"], figure["way"]): figure for figure in data["figures"]}
    names = list(dict.fromkeys(store for store, _ in at))
    machine = ", ".join(f"{key} {value}" for key, value in data["machine"].items())
    groups = "Measured in groups of stores, one call after the other, in at least so many rounds. " if data.get("in_groups") else ""
    size = data["bytes"] / data["samples"] / 1e6
    speed = [
        [
            store,
            *[spread(at.get((store, way))) for way in WAYS],
            f"{max((at[store, way]['rate'] for way in WAYS if (store, way) in at), default=0) * size:,.0f}",
        ]
        for store in names
    ]
    rest = []
    for store in names:
        first, prepared, cold = at.get((store, "first batch")), data["prepared"][store], data["cold"].get(store)
        memory = f"{data['pss'][store] / 1e6:,.0f}" if store in data["pss"] else ""
        rest.append([store, f"{first['seconds'] * 1e3:,.1f}" if first else "", f"{prepared['seconds']:.1f}",
                     f"{prepared['bytes'] / 1e6:,.0f}", spread(cold), memory])  # fmt: skip
    better = []
    for way in WAYS[:3]:
        for mine in (store for store in names if store.startswith("ptview") and (store, way) in at):
            ours = at[mine, way]
            ahead = [s for s in names if not s.startswith("ptview") and (s, way) in at and at[s, way]["low"] > ours["high"]]
            better += [f"- {way}: {store}, {at[store, way]['rate'] / ours['rate']:.2f} times {mine}" for store in ahead]
    draw_rivals(name, names, at, pictures)
    failed = [f"- {store}: {why.strip().splitlines()[0]}" for store, why in data["failed"].items()]
    failed += [f"- {absent}" for absent in ABSENT]
    failed += [f"- not measured in this run: {what}" for what in data.get("left_out", [])]
    stated = (
        f"{data['samples']:,} samples in {data['files']:,} files, {data['bytes'] / 1e6:,.0f} MB; warm unless said; batches of "
        f"{data['batch']}, shuffled; {data['rounds']} rounds in turns, after one that does not count; a pass is cut after "
        f"{data['limit_s']} s. {groups}Machine: {machine}."
    )
    return [
        f"## {TITLES[name]}", stated, "Samples a second, and MB a second in the fastest way:",
        table(["", *WAYS, "MB/s"], speed), f"![](benchmarks/{name}.svg)",
        "Preparation is the conversion, once, when the data were made, which are kept between runs; the first batch counts opening "
        "(ptview without an index on disk), not conversion. Memory is what opening and an epoch without workers add to a process of "
        "its own (Pss). webdataset has no single samples; it and litdata shuffle within shards, as they do it. Workers of Lance are "
        "spawned once and stay, as Lance advises; others fork each epoch.",
        table(["", "first batch, ms", "preparation, s", "prepared, MB on disk", "cold, one by one, samples/s", "memory, MB"], rest),
        "Where a rival is faster, its slowest round faster than our fastest:\n\n" + ("\n".join(better) or "- nowhere in this run"),
        "Left out:\n\n" + "\n".join(failed),
    ]  # fmt: skip


def epoch_parts(found: dict | None) -> list[str]:
    title = "Where the time of an epoch of small files goes"
    if not found:
        return [missing(title, "benches/python/parts.py")]
    rows = [
        [name, f"{median * 1e3:,.1f}", f"{low * 1e3:,.1f} to {high * 1e3:,.1f}", f"{median / found['files'] * 1e6:,.2f}"]
        for name, (median, low, high) in found["seconds"].items()
    ]
    return [
        f"## {title}",
        f"{found['files']:,} files, warm, shuffled, batches of 256, {found['rounds']} rounds in turns (`benches/python/parts.py`); "
        "the calls are made from Python. A file costs ptview openat, statx, preadv and close (`strace -f -c`), the second to see "
        "that it is still the file that was indexed. A gather on one thread that takes about as long as the calls alone has nothing "
        "else to save. What was converted to one flat file needs only the copy, and so do files that stay mapped (`mmap=True`), from "
        "the second epoch on; what lies in 20,000 places is copied more slowly than what lies in one.",
        table(["", "median, ms", "lowest to highest, ms", "a file, µs"], rows),
    ]


def draw_rivals(name: str, names: list[str], at: dict, pictures: Path) -> None:
    figure, axes = plt.subplots(figsize=(8, 0.62 * len(names) + 1.2), layout="constrained")
    for offset, way in enumerate(WAYS):
        here = [(place, at[store, way]["rate"]) for place, store in enumerate(names) if (store, way) in at]
        axes.barh([place + 0.2 * offset - 0.3 for place, _ in here], [rate for _, rate in here], 0.2, label=way)
    axes.set_yticks(range(len(names)), names)
    axes.invert_yaxis()
    axes.set(xlabel="samples/s")
    axes.legend(loc="lower right", fontsize=8)
    save(figure, pictures / f"{name}.svg")


def curve(name: str, title: str, across: str, up: str, points: list[dict], pictures: Path) -> list[str]:
    figure, axes = plt.subplots(figsize=(7, 4), layout="constrained")
    rows = []
    for line in dict.fromkeys(point["line"] for point in points):
        here = [point for point in points if point["line"] == line]

        def value(point: dict, key: str) -> float:
            return point["samples"] / point[key] if up == "samples/s" else point[key]

        middle = [value(point, "median_s") for point in here]
        axes.plot([point["x"] for point in here], middle, marker="o", label=line)
        axes.fill_between([p["x"] for p in here], [value(p, "low_s") for p in here], [value(p, "high_s") for p in here], alpha=0.2)
        for point in here:
            low, median, high = (point[key] * 1e3 for key in ("low_s", "median_s", "high_s"))
            rows.append([line, f"{point['x']:,}", f"{median:,.3f}", f"{low:,.3f} to {high:,.3f}", str(point["rounds"])])
    axes.set(title=title, xlabel=across, ylabel=up, xscale="log")
    if up == "samples/s":
        # On a scale that does not begin at 0, noise would look like a difference.
        axes.set_ylim(bottom=0)
    else:
        axes.set_yscale("log")
    axes.legend(fontsize=8)
    save(figure, pictures / f"{name}.svg")
    return [f"## {title}", f"![](benchmarks/{name}.svg)", table(["", across, "median, ms", "spread, ms", "rounds"], rows)]


def save(figure, path: Path) -> None:
    # The same figures make the same picture, byte for byte.
    plt.rcParams["svg.hashsalt"] = "ptview"
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)


def peers(found: list[dict] | None) -> list[str]:
    if not found:
        return [missing("Other readers in Rust", "benches/peers, which writes target/bench/peers.json")]
    parts = [
        "## Other readers in Rust",
        "Each measurement is a process of its own; readers take turns, and all come to the same answer. Warm.",
    ]
    for case in dict.fromkeys(peer["case"] for peer in found):
        rows = []
        for peer in (peer for peer in found if peer["case"] == case):
            if "error" in peer:
                rows.append([peer["name"], peer["error"].splitlines()[0], "", ""])
                continue
            low, high = (f"{nanoseconds / 1e6:,.2f}" for nanoseconds in peer["spread"])
            rows.append([peer["name"], f"{peer['median_ns'] / 1e6:,.2f}", f"{low} to {high}", f"{peer['peak_rss'] >> 20:,}"])
        parts.append(f"**{case[0].upper()}{case[1:]}**\n\n" + table(["", "median, ms", "lowest to highest", "peak memory, MiB"], rows))
    return parts


def criterion(folder: Path) -> list[str]:
    rows = []
    for path in sorted(folder.glob("**/new/estimates.json")):
        what, median = json.loads((path.parent / "benchmark.json").read_text())["full_id"], json.loads(path.read_text())["median"]
        low, high = (median["confidence_interval"][key] / 1e3 for key in ("lower_bound", "upper_bound"))
        rows.append([what, f"{median['point_estimate'] / 1e3:,.2f}", f"{low:,.2f} to {high:,.2f}"])
    if not rows:
        return [missing("Opening and views, beside their floors", "cargo bench --bench open --bench view")]
    return ["## Opening and views, beside their floors", table(["", "median, µs", "95 % interval, µs"], rows)]


if __name__ == "__main__":
    main()
