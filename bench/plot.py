"""Figures as PNG. Needs matplotlib, which comes with the `dev` extra; without it nothing is drawn and a line says so."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from clser.engine.errors import GivenError

Line = dict[str, Any]
"""The JSON line, as it is printed."""
Values = dict[str, list[float]]
"""What the line only sums up."""

OF_OTHERS = ("accuracy", "asr", "scan", "trust")
"""Benchmarks of something else than the engine's model."""


def draw(line: Line, values: Values, folder: Path) -> str:
    """A sentence on what became of it."""
    try:
        import matplotlib as mpl  # noqa: PLC0415 - only --plot needs it
    except ImportError:
        return "nothing is drawn: matplotlib is not installed (`pip install matplotlib`)"
    mpl.use("Agg")
    from matplotlib import pyplot  # noqa: PLC0415 - after the choice of what draws

    drawers: dict[str, Callable[[Any, Line, Values], None]] = {
        "latency": _latency,
        "capacity": _capacity,
        "overload": _overload,
        "soak": _soak,
        "bus": _bus,
        "vad": _vad,
        "asr": _asr,
        "accuracy": _accuracy,
        "scan": _scan,
        "trust": _trust,
        "unvoiced": _unvoiced,
    }
    if line["bench"] not in drawers:
        return f"nothing is drawn: {line['bench']} has no picture"
    figure = pyplot.figure(figsize=(9, 4), layout="constrained")
    try:
        drawers[line["bench"]](figure, line, values)
        machine = line["machine"]
        model = "" if line["bench"] in OF_OTHERS else f", model {line['model']['digest']}"
        figure.suptitle(f"{line['bench']}, {machine['processor']}, {machine['cores']} cores{model}", fontsize=8)
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{line.get('table') or line['bench']}.png"
        figure.savefig(path, dpi=150)
    except OSError as error:
        raise GivenError(f"--plot {folder}: {error.strerror}; give a folder that can be written") from error
    finally:
        pyplot.close(figure)
    return f"drawn: {path}"


def _latency(figure: Any, line: Line, values: Values) -> None:
    names = [name for name in ("first_emotion_ms", "final_ms", "after_endpoint_ms") if values.get(name)]
    for at, name in enumerate(names):
        axes = figure.add_subplot(1, len(names), at + 1)
        data = np.sort(values[name])
        axes.step(data, np.arange(1, len(data) + 1) / len(data), where="post")
        axes.axvline(line[name]["p50"], linestyle=":", color="grey")
        axes.set(xlabel=f"{name.removesuffix('_ms').replace('_', ' ')}, ms", ylabel="share of utterances", ylim=(0, 1))


def _capacity(figure: Any, line: Line, values: Values) -> None:
    del values
    lag, wait = figure.subplots(1, 2)
    for row in line["rows"]:
        if row["lag_by_second"]:
            seconds, medians = zip(*row["lag_by_second"], strict=True)
            lag.plot(seconds, medians, label=f"{row['streams']}")
    lag.set(xlabel="second of the run", ylabel="lag of partials, ms", yscale="log")
    lag.legend(title="streams", fontsize=7)
    for name in ("p50", "p95", "p99"):
        points = [(row["streams"], row["after_endpoint_ms"][name]) for row in line["rows"]]
        points = [point for point in points if point[1] is not None]
        if points:
            wait.plot(*zip(*points, strict=True), marker="o", label=name)
    wait.axhline(500, linestyle=":", color="grey")
    wait.set(xlabel="streams", ylabel="after endpoint, ms", yscale="log")
    wait.legend(fontsize=7)


def _overload(figure: Any, line: Line, values: Values) -> None:
    del values
    lag, streams = figure.subplots(2, 1, sharex=True)
    lag.plot(*_points(line["lag_over_time"]))
    lag.set(ylabel="lag of what arrives, ms", yscale="log")
    seconds, counts = _points(line["streams_over_time"])
    streams.plot(seconds, counts)
    streams.set(xlabel="second of the run", ylabel="streams")
    ladder = [(0.0, 0), *((at_s, step) for at_s, step, _ in line["ladder"])]
    until = (max(seconds, default=line["fall_s"]), ladder[-1][1])
    steps = streams.twinx()
    steps.step(*_points([*ladder, until]), where="post", color="tab:red")
    steps.set(ylabel="step of the ladder", ylim=(-0.1, 3.1), yticks=range(4))
    for axes in (lag, streams):
        axes.axvline(line["fall_s"], linestyle=":", color="grey")


def _soak(figure: Any, line: Line, values: Values) -> None:
    del values
    lag, memory = figure.subplots(2, 1, sharex=True)
    for axes, name, label in ((lag, "lag_over_time", "lag of partials, ms"), (memory, "rss_over_time", "memory, MB")):
        seconds, each = _points(line[name])
        axes.plot(seconds / 60, each)
        axes.set(ylabel=label)
        for killed_s in line["killed_s"]:
            axes.axvline(killed_s / 60, linestyle=":", color="grey", linewidth=0.5)
    memory.set(xlabel="minute of the run", ylim=(0, None))


def _points(pairs: Sequence[Any]) -> tuple[Any, Any]:
    """Pairs as two columns."""
    at, values = np.array(pairs, np.float64).reshape(-1, 2).T
    return at, values


def _bus(figure: Any, line: Line, values: Values) -> None:
    del values
    names = ("publish_to_receive_idle_ms", "publish_to_receive_ms", "late_join_ms")
    axes = figure.add_subplot()
    for shift, percentile in enumerate(("p50", "p95", "p99")):
        heights = [line[name][percentile] or 0 for name in names]
        axes.bar(np.arange(len(names)) + shift * 0.25, heights, 0.25, label=percentile)
    axes.set_xticks(np.arange(len(names)) + 0.25, [name.removesuffix("_ms").replace("_", " ") for name in names])
    axes.set(ylabel="ms")
    axes.legend()


def _vad(figure: Any, line: Line, values: Values) -> None:
    del values
    auc, onset = figure.subplots(1, 2)
    for name in ("silero", "webrtc"):
        conditions = line[name]["by_condition"]
        auc.plot(list(conditions), [each["auc"] for each in conditions.values()], marker="o", label=name)
        missed = [each["missed"] / max(1, each["phrases"]) for each in conditions.values()]
        onset.plot(list(conditions), missed, marker="o", label=name)
    auc.set(ylabel="ROC-AUC of frames", ylim=(0.5, 1))
    onset.set(ylabel="share of phrases missed", ylim=(0, None))
    for axes in (auc, onset):
        axes.tick_params(axis="x", rotation=45)
        axes.legend()


def _asr(figure: Any, line: Line, values: Values) -> None:
    del values
    wrong, wait = figure.subplots(1, 2)
    there = {name: row for name, row in line["recognisers"].items() if not row["reason"]}
    for place, way in enumerate(("whole", "stepped", "streamed")):
        rates = [(at, row["wer"][way]) for at, row in enumerate(there.values()) if row["wer"][way]["value"] is not None]
        heights = np.array([100 * each["value"] for _, each in rates])
        reach = np.abs(100 * np.array([(each["low"], each["high"]) for _, each in rates]).reshape(-1, 2).T - heights)
        wrong.bar([at + 0.25 * place for at, _ in rates], heights, 0.25, yerr=reach, capsize=2, label=way)
    spreads = [row["commit_delay_ms"] for row in there.values()]
    for place, part in enumerate(("p50", "p95")):
        wait.bar(np.arange(len(there)) + 0.25 * place, [each[part] or 0 for each in spreads], 0.25, label=part)
    wrong.set(ylabel="words wrong, per cent", ylim=(0, None))
    wait.set(ylabel="from the end of a word until it is settled, ms")
    for axes in (wrong, wait):
        axes.set_xticks(np.arange(len(there)) + 0.25, list(there))
        axes.legend(fontsize=7)


def _accuracy(figure: Any, line: Line, values: Values) -> None:
    del values
    axes = figure.add_subplot()
    rows = line["rows"]
    if "table" in line:
        _table(axes, rows)
        return
    corpora = list(dict.fromkeys(row["corpus"] for row in rows))
    kinds = list(dict.fromkeys((row["system"], row["enrol"]) for row in rows))
    for place, kind in enumerate(kinds):
        own = {row["corpus"]: row for row in rows if (row["system"], row["enrol"]) == kind}
        at = [n + 0.8 * place / len(kinds) for n, corpus in enumerate(corpora) if corpus in own]
        mine = [own[corpus] for corpus in corpora if corpus in own]
        heights = np.array([100 * row["uar"] for row in mine])
        reach = np.abs(100 * np.array([row["uar_interval"] for row in mine]).T - heights)
        axes.bar(at, heights, 0.8 / len(kinds), yerr=reach, capsize=2, label=f"{kind[0]}, {kind[1]} heard")
    axes.set_xticks(np.arange(len(corpora)) + 0.4, corpora)
    axes.set(ylabel="UAR of speakers held out, per cent", ylim=(0, 100))
    axes.legend(fontsize=7)


def _table(axes: Any, rows: Sequence[Any]) -> None:
    """Of the measure that most rows have: a bar a corpus in each row, and what was published as a mark."""
    metrics = [row["metric"] for row in rows]
    most = max(dict.fromkeys(metrics), key=metrics.count)
    rows = [row for row in rows if row["metric"] == most]
    corpora, names = (list(dict.fromkeys(row[key] for row in rows)) for key in ("corpus", "name"))
    for place, corpus in enumerate(corpora):
        own = [(names.index(row["name"]), row) for row in rows if row["corpus"] == corpus]
        at = [n + 0.8 * place / len(corpora) for n, _ in own]
        axes.bar(
            at, [row["mean"] for _, row in own], 0.8 / len(corpora), yerr=[row["spread"] for _, row in own],
            capsize=2, label=corpus,
        )  # fmt: skip
    told = [(names.index(row["name"]) + 0.3, row["published"]) for row in rows if row["published"] is not None]
    if told:
        axes.plot(*zip(*told, strict=True), "k_", markersize=12, label="published, elsewhere")
    axes.set_xticks(np.arange(len(names)) + 0.3, names, rotation=60, ha="right", fontsize=7)
    axes.set(ylabel=most)
    axes.legend(fontsize=7)


def _scan(figure: Any, line: Line, values: Values) -> None:
    del values
    taken, memory = figure.subplots(1, 2)
    for axes, name, label in ((taken, "both_ms", "forward and back, ms"), (memory, "added_mb", "memory added, MB")):
        for way in dict.fromkeys(row["way"] for row in line["rows"]):
            points = [(row["seconds"], max(1.0, row[name])) for row in line["rows"] if row["way"] == way]
            axes.plot(*_points(points), marker="o", label=way)
        axes.set(xlabel="seconds of sound", ylabel=label, xscale="log", yscale="log")
        axes.legend(fontsize=7)


def _trust(figure: Any, line: Line, values: Values) -> None:
    """Rows of `clser.models.trust.worth`, each with the `system` that it is about."""
    del values
    said, error = figure.subplots(1, 2)
    said.plot((0, 1), (0, 1), linestyle=":", color="grey")
    most = max((one["answers"] for row in line["rows"] for one in row["bins"]), default=1)
    for row in line["rows"]:
        bins = [one for one in row["bins"] if one["answers"]]
        (drawn,) = said.plot(*_points([(one["confidence"], one["right"]) for one in bins]), linewidth=0.8)
        sizes = [4 + 60 * one["answers"] / max(1, most) for one in bins]
        label = f"{row['system']}, {row['rms_gap']:.3f} off"
        said.scatter(*drawn.get_data(), sizes, color=drawn.get_color(), label=label)
        error.plot(*_points(row["curve"]), label=f"{row['system']}, area {row['aurc']:.3f}")
    said.set(xlabel="confidence", ylabel="share that is right", xlim=(0, 1), ylim=(0, 1))
    error.set(
        xlabel="share of answers given, the surest first", ylabel="share that is wrong", xlim=(0, 1), ylim=(0, None)
    )
    if line["rows"]:
        for axes in (said, error):
            axes.legend(fontsize=7)


def _unvoiced(figure: Any, line: Line, values: Values) -> None:
    del values
    axes = figure.add_subplot()
    kinds = list(dict.fromkeys(row["kind"] for row in line["rows"]))
    ways = list(dict.fromkeys(row["vad"] for row in line["rows"]))
    for place, way in enumerate(ways):
        own = [row for row in line["rows"] if row["vad"] == way]
        at = [kinds.index(row["kind"]) + 0.4 * place for row in own]
        axes.bar(at, [row["false_per_minute"] for row in own], 0.4, label=f"voice activity {way}")
    axes.set_xticks(np.arange(len(kinds)) + 0.2, kinds)
    axes.set(ylabel="emotions named a minute, nobody speaking")
    axes.legend(fontsize=7)
