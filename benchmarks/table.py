"""A record as a Markdown table and as a chart."""

import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import Any

HEADER = (
    *("workload", "zoo, ms (p5, p95)", "real / s", "fastest peer, ms", "zoo / peer (p5, p95)", "A/A"),
    *(
        "of the matmul rate",
        "of the bound",
        "memory, zoo / peer",
        "compile, cold / warm",
        "losses apart",
        "counts",
    ),
)


def markdown(record: Mapping[str, Any]) -> str:
    """A row a workload, then where each step's time goes, then what was left out."""
    machine = record["machine"]
    versions = ", ".join(f"{name} {version}" for name, version in record["versions"].items())
    lines = [
        f"`{record['command']}`, {record['date'][:10]}: {machine['processor']}, {machine['cpus']} cores, "
        f"load {machine['load'][0]}; {versions}.",
        "",
        f"| {' | '.join(HEADER)} |",
        f"|{'---|' * len(HEADER)}",
    ]
    measured = [row for row in record["rows"] if "zoo_over" in row.get("sides", {}).get("zoo", {})]
    lines += [f"| {' | '.join(cells(row))} |" for row in measured]
    lines += ["", *(line for row in measured for line in below(row))]
    lines += [f"* {row['workload']}: {text}" for row in record["rows"] for text in row["failed"].values()]
    return "\n".join(lines).rstrip() + "\n"


def cells(row: Mapping[str, Any]) -> list[str]:
    """What the table says of a workload."""
    sides, zoo = row["sides"], row["sides"]["zoo"]
    step, a_a = zoo["step_ms"], row.get("a_a")
    cell = [
        row["about"],
        f"{number(step['p50'])} ({number(step['p5'])}, {number(step['p95'])})",
        f"{zoo['real_per_s']:,.0f} {row['unit']}",
    ]
    peer, over = row.get("fastest_peer"), row.get("over_fastest")
    if peer and over:
        cell += [f"{peer} {number(sides[peer]['step_ms']['p50'])}"]
        cell += [f"**{over['p50']:.2f}** ({over['p5']:.2f}, {over['p95']:.2f})"]
    else:
        cell += ["", ""]
    cell += [f"{a_a['p50']:.3f}" if a_a else "", f"{zoo['percent_of_matmul']:.0f} %"]
    cell += [f"{100 * row['bound']['reached']:.0f} % ({row['bound']['by']})"]
    mine, theirs = zoo.get("process_bytes"), sides.get(peer or "", {}).get("process_bytes")
    cell += [f"{mine / 1e9:.2f} / {theirs / 1e9:.2f} GB" if mine and theirs else ""]
    cold, warm = row["compile_s"]["cold"], row["compile_s"]["warm"]
    cell += [f"{cold:.1f} / {warm:.1f} s" if warm is not None else f"{cold:.1f} s"]
    apart = [s["apart"] for name, s in sides.items() if name not in ("zoo", "again")]
    cell += [
        f"{max(apart):.0e}" if apart else "",
        "yes" if row["counts"] else "no: " + "; ".join(row["why_not"]),
    ]
    return cell


def below(row: Mapping[str, Any]) -> list[str]:
    """Where the step's time goes, and the other peers."""
    step = row["sides"]["zoo"]["step_ms"]["p50"]
    parts = ", ".join(f"{name} {number(part['ms'])}" for name, part in row["parts"].items())
    others = ", ".join(
        f"{name} {mine['zoo_over']['p50']:.2f}"
        for name, mine in row["sides"].items()
        if name not in ("zoo", "again", row.get("fastest_peer"))
    )
    found = f"* {row['workload']}: {number(step)} ms" + (f" = {parts}" if parts else "")
    found += f"; zoo / {others}" if others else ""
    return [f"{found}."]


def number(x: float) -> str:
    """Three digits."""
    return f"{x:,.0f}" if abs(x) >= 100 else f"{x:.3g}"


def chart(record: Mapping[str, Any], path: Path) -> str:
    """Draws how fast zoo is beside each peer; returns what to tell."""
    if importlib.util.find_spec("matplotlib") is None:
        return 'no chart: matplotlib is not installed (pip install -e ".[plot]")'
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    rows = [row for row in record["rows"] if row.get("over_fastest")]
    if not rows:
        return "no chart: no workload has a peer that computes the same"
    names = list(dict.fromkeys(side for row in rows for side in row["sides"] if side not in ("zoo", "again")))
    figure, axes = pyplot.subplots(figsize=(9, 1 + 0.5 * len(rows)))
    for n, name in enumerate(names):
        mine = [
            (place, row["sides"][name]["zoo_over"]) for place, row in enumerate(rows) if name in row["sides"]
        ]
        x = [over["p50"] for _, over in mine]
        axes.barh(
            [place + 0.8 * ((n + 0.5) / len(names) - 0.5) for place, _ in mine],
            x,
            height=0.8 / len(names),
            label=name,
            xerr=[
                [over["p50"] - over["p5"] for _, over in mine],
                [over["p95"] - over["p50"] for _, over in mine],
            ],
            error_kw={"elinewidth": 0.5},
        )
    labels = [row["workload"] + ("" if row["counts"] else " (does not count)") for row in rows]
    axes.set_yticks(range(len(rows)), labels)
    axes.invert_yaxis()
    axes.axvline(1, color="black", linewidth=0.8)
    axes.set_xlabel(
        f"times as fast as the peer (5 to 95 %), {record['date'][:10]}, load {record['machine']['load'][0]}"
    )
    axes.legend()
    figure.tight_layout()
    figure.savefig(path, dpi=120)
    pyplot.close(figure)
    return f"chart    {path}"
