"""A result for people: table, Markdown, plots."""

from __future__ import annotations

from pathlib import Path
from typing import Any

PLOT_CONNECTIONS = {"1": 1, "16": 16, "64": 64, "256": 256, "1,000": 1000, "10,000": 10000}


def table(result: dict[str, Any]) -> str:
    """For the terminal."""
    lines = [
        f"{'row':66}{'Linux':>12}{'TAS':>12}  {'unit':12}{'ratio':>7}  {'middle half':>13}  ahead   "
        "spread of Linux, TAS"
    ]
    for name, r in result["rows"].items():
        spread = ", ".join("{:.4g}-{:.4g}".format(*r[f"{s}_spread"]) for s in ("linux", "tas"))
        lines.append(
            f"{name:66}{r['linux_median']:>12.1f}{r['tas_median']:>12.1f}  {r['unit']:12}{ratio(r):>7}"
            f"  {half(r):>13}  {ahead(r):>5}   {spread}"
        )
    lines += ["", verdict(result)]
    return "\n".join(lines)


def ratio(row: dict[str, Any]) -> str:
    return "-" if row["ratio"] is None else f"{row['ratio']:.2f}"


def half(row: dict[str, Any]) -> str:
    """Between which ratios the middle half of the pairs lies."""
    return "-" if row["ratio"] is None else "{:.2f}–{:.2f}".format(*row["ratio_spread"])


def ahead(row: dict[str, Any]) -> str:
    """In how many pairs TAS was not behind."""
    return "-" if row["ratio"] is None else "{}/{}".format(*row["pairs"])


def figure(n: float) -> str:
    return f"{n:,.0f}" if abs(n) >= 100 else f"{n:.3g}"


def verdict(result: dict[str, Any]) -> str:
    """Under which conditions, and whether anything follows."""

    def span(key: str) -> tuple[float, float]:
        values = [note[key] for note in result["beside"]]
        return min(values), max(values)

    text = (
        f"{result['reps']} repetitions; cache line round trip {{:.0f}}-{{:.0f}} ns; ".format(*span("cacheline_ns"))
        + "competing load {}-{} CPUs; ".format(*span("competing_cpus"))
        + "{:.1%}-{:.1%} of the CPUs kept by the host; ".format(*span("stolen"))
        + "Linux at {:.0%}-{:.0%} of its usual speed".format(*span("linux_speed"))
    )
    if result["failed"]:
        text += "\nFailed (runs): " + ", ".join(f"{name} ({n})" for name, n in result["failed"].items())
    if result["noise"]:
        text += "\nToo noisy to conclude from the figures of " + "; ".join(result["noise"]) + "."
    return text


def markdown(result: dict[str, Any]) -> str:
    """For a page of the documentation."""
    lines = [
        "| row | Linux | TAS | unit | ratio | middle half | ahead | spread of Linux | of TAS |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for name, r in result["rows"].items():
        medians = [figure(r[f"{s}_median"]) for s in ("linux", "tas")]
        spreads = ["–".join(map(figure, r[f"{s}_spread"])) for s in ("linux", "tas")]
        lines.append(f"| {' | '.join([name, *medians, r['unit'], ratio(r), half(r), ahead(r), *spreads])} |")
    conditions = f"{result['cpus']} CPUs, Linux {result['kernel']}. {verdict(result)}"
    return "\n".join([conditions, "", *lines, ""])


def plots(result: dict[str, Any], folder: Path) -> list[Path]:
    """SVG files: distribution of latency, throughput over connections, CPU per request."""
    import matplotlib

    matplotlib.use("svg")
    from matplotlib import pyplot

    made = []

    def save(name: str) -> None:
        pyplot.grid(alpha=0.3)
        pyplot.legend(fontsize="small")
        pyplot.tight_layout()
        pyplot.savefig(folder / name)
        pyplot.close()
        made.append(folder / name)

    rows = result["rows"]
    for topology in ("local", "link"):
        blocking = rows.get(f"{topology}: 1 connection, blocking, 64 B: p50")
        if blocking:
            for name in ("linux", "tas"):
                runs = sorted(blocking[name], key=lambda run: float(run["value"]))
                share, us = zip(*((s, t) for s, t in runs[len(runs) // 2]["cdf"]), strict=True)
                pyplot.plot(us, share, label=name)
            pyplot.xscale("log")
            pyplot.xlabel("latency, us")
            pyplot.ylabel("share of requests")
            pyplot.title(f"{topology}: 64 B, one connection, blocking")
            save(f"latency-{topology}.svg")
        found = {
            n: rows.get(f"{topology}: {text} connection{'s' * (n > 1)}, epoll, 64 B")
            for text, n in PLOT_CONNECTIONS.items()
        }
        counts = {n: row for n, row in found.items() if row}
        if len(counts) > 2:
            for name in ("linux", "tas"):
                pyplot.plot(list(counts), [row[f"{name}_median"] for row in counts.values()], marker="o", label=name)
            pyplot.xscale("log")
            pyplot.xlabel("connections")
            pyplot.ylabel("requests/s")
            pyplot.title(f"{topology}: 64 B, one outstanding each")
            save(f"connections-{topology}.svg")
        threads = {n: rows.get(f"{topology}: 64 connections, server of {n} threads") for n in (2, 4)}
        scaling = {1: rows.get(f"{topology}: 64 connections, epoll, 64 B"), **threads}
        if all(scaling.values()):
            for name in ("linux", "tas"):
                heights = [row[f"{name}_median"] for row in scaling.values() if row]
                pyplot.plot(list(scaling), heights, marker="o", label=name)
            pyplot.xlabel("threads of the server")
            pyplot.ylabel("requests/s")
            pyplot.title(f"{topology}: 64 connections, 64 B, 2 CPUs")
            save(f"scaling-{topology}.svg")
        cpu = rows.get(f"{topology}: 64 connections, CPU of everybody")
        if cpu:
            bottom = [0.0, 0.0]
            for part in ("client", "server", "service"):
                heights = [sum(run[part] for run in cpu[name]) / len(cpu[name]) for name in ("linux", "tas")]
                pyplot.bar(["linux", "tas"], heights, bottom=bottom, label=part)
                bottom = [b + h for b, h in zip(bottom, heights, strict=True)]
            pyplot.ylabel("us of CPU per request")
            pyplot.title(f"{topology}: 64 connections, 64 B")
            save(f"cpu-{topology}.svg")
    names = [f"{text} connections, epoll, 64 B" for text in ("64", "1,000")]
    both = [n for n in names if f"link: {n}" in rows and f"cores: {n}" in rows]
    for n in both:
        for name, style in (("linux", "--"), ("tas", "-")):
            heights = [rows[f"{topology}: {n}"][f"{name}_median"] for topology in ("link", "cores")]
            pyplot.plot(
                ["1", "up to 2, by load"],
                heights,
                style,
                marker="o",
                label=f"{name}, {n.removesuffix(', epoll, 64 B')}",
            )
    if both:
        pyplot.xlabel("threads of the service")
        pyplot.ylabel("requests/s")
        pyplot.title("link: 64 B, 2 CPUs")
        save("scaling-service.svg")
    return made
