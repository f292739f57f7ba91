"""A run as one page to look at: curves, figures, confusions, settings. It loads nothing from anywhere."""

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

import msgspec
import yaml

from clser.models.saved import Trained

WIDE, HIGH, EDGE = 640, 220, 44
COLOURS = ("#1f6f8b", "#c4572e", "#5b7f2b", "#7a4f9e", "#a8893a", "#3f5f9e", "#8b2f4f", "#4f8b7a")
STYLE = """
:root { color-scheme: light dark }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem }
h1 { font-size: 1.4rem } h2 { font-size: 1.1rem; margin-top: 2rem }
table { border-collapse: collapse; margin: .5rem 0 1rem }
th, td { padding: .15rem .6rem; text-align: right; border-bottom: 1px solid #8884 }
th:first-child, td:first-child { text-align: left }
svg { max-width: 100%; height: auto } svg text { font: 11px system-ui, sans-serif; fill: currentColor }
pre { overflow-x: auto; background: #8881; padding: .8rem }
.note { opacity: .7 }
"""


def write(path: Path, about: Trained, lines: Sequence[Mapping[str, Any]], found: Mapping[str, Any]) -> None:
    """The page of a finished run."""
    name = f"{about.system}" + (f", fold {about.fold}" if about.fold else "") + f", seed {about.seed}"
    body = [f"<h1>{escape(name)}</h1>", _headline(about, found), *_curves(lines)]
    if found.get("rows"):
        on = "Held out speakers (test)" if found["on"] == "test" else "Validation speakers: one chose by them"
        body += [f"<h2>{on}</h2>", _corpora(found["rows"])]
        body += [part for row in found["rows"] for part in (f"<h3>{escape(row['corpus'])}</h3>", _confusion(row))]
    if found.get("enrolled"):
        body += ["<h2>With clips of the speaker heard first</h2>", _enrolled(found["enrolled"])]
    if found.get("texts"):
        body += ["<h2>Texts alone (validation)</h2>", _texts(found["texts"])]
    settings = yaml.safe_dump(msgspec.to_builtins(about.plan), sort_keys=False, allow_unicode=True)
    body += ["<h2>Settings</h2>", f"<pre>{escape(settings)}</pre>"]
    html = (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{escape(name)}</title>'
        f"<style>{STYLE}</style></head><body>{''.join(body)}</body></html>\n"
    )
    partial = path.with_suffix(".partial")
    partial.write_text(html, encoding="utf-8")
    partial.replace(path)


def _headline(about: Trained, found: Mapping[str, Any]) -> str:
    told = [f"trained on {', '.join((*about.trained_on, *about.texts))}", f"heads {', '.join(about.heads)}"]
    if "mean_uar" in found:
        told.insert(0, f"<b>mean UAR {_percent(found['mean_uar'])}</b>")
    told.append(f"temperature {about.calibration.temperature:.2f}")
    told.append(escape(about.licence))
    return f"<p>{'; '.join(told)}. Weights {escape(str(found.get('digest', '')))}.</p>"


def _curves(lines: Sequence[Mapping[str, Any]]) -> list[str]:
    if not lines:
        return []
    parts = ["<h2>Loss</h2>", curve({"training": [line["loss"] for line in lines]}, "loss")]
    valid = [line for line in lines if "valid_uar" in line]
    if valid:
        series = {"mean": [100 * line["valid_uar"] for line in valid]}
        for corpus in valid[0]["by_corpus"]:
            series[corpus] = [100 * line["by_corpus"][corpus] for line in valid]
        parts += ["<h2>Validation UAR</h2>", curve(series, "%")]
    return parts


def curve(series: Mapping[str, Sequence[float]], unit: str) -> str:
    """Lines over epochs as SVG, the first one bold."""
    every = [value for values in series.values() for value in values]
    low, high = min(every), max(every)
    high = high if high > low else low + 1.0
    most = max(len(values) for values in series.values())

    def at(n: int, value: float) -> str:
        x = EDGE + (WIDE - 2 * EDGE) * (n / max(1, most - 1))
        y = HIGH - EDGE / 2 - (HIGH - EDGE) * (value - low) / (high - low)
        return f"{x:.1f},{y:.1f}"

    parts = [f'<svg viewBox="0 0 {WIDE} {HIGH + 14 * len(series)}" role="img">']
    for value in (low, (low + high) / 2, high):
        x, y = at(0, value).split(",")
        parts.append(f'<line x1="{x}" y1="{y}" x2="{WIDE - EDGE}" y2="{y}" stroke="currentColor" opacity=".15"/>')
        parts.append(f'<text x="{EDGE - 6}" y="{float(y) + 4}" text-anchor="end">{value:.3g}</text>')
    parts.append(f'<text x="{WIDE - EDGE}" y="{HIGH}" text-anchor="end">epoch {most} ({unit})</text>')
    for n, (name, values) in enumerate(series.items()):
        colour, thick = COLOURS[n % len(COLOURS)], 2.4 if n == 0 else 1.1
        points = " ".join(at(k, value) for k, value in enumerate(values))
        parts.append(f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="{thick}"/>')
        parts.append(
            f'<text x="{EDGE}" y="{HIGH + 14 * n + 10}"><tspan fill="{colour}">━ </tspan>{escape(name)}: {values[-1]:.4g}</text>'
        )
    return "".join(parts) + "</svg>"


def _corpora(rows: Sequence[Mapping[str, Any]]) -> str:
    names = ("uar", "war", "macro_f1", "weighted_f1", "ece", "ece_corrected", "nll", "brier", "aurc")
    lines = []
    for row in rows:
        low, high = row["uar_interval"]
        told = [f"{row['corpus']} ({len(row['classes'])})", row["clips"], row["speakers"]]
        figures = [_percent(row[n]) if n in names[:4] else f"{row[n]:.3f}" for n in names]
        lines.append([*told, f"{_percent(low)} to {_percent(high)}", *figures])
    note = ""
    if any(row.get("whole_classes_only") for row in rows):
        note = '<p class="note">Classes some of whose clips were cut at a fixed length are not scored.</p>'
    head = ["corpus (classes)", "clips", "speakers", "UAR, 95 % over speakers", "UAR", "WAR", "macro F1", "weighted F1"]
    return _table([*head, "ECE", "ECE without luck", "NLL", "Brier", "AURC"], lines) + note


def _confusion(row: Mapping[str, Any]) -> str:
    """Row: what it was; column: what was said; then the class's own figures."""
    classes, counts = row["classes"], row["confusion"]
    head = ["", *classes, "recall", "precision", "F1"]
    lines = []
    for name, line in zip(classes, counts, strict=True):
        total = max(1, sum(line))
        cells = [f'<td style="background: rgb(31 111 139 / {count / total:.2f})">{count}</td>' for count in line]
        one = row["per_class"][name]
        cells += [f"<td>{_percent(one[key])}</td>" for key in ("recall", "precision", "f1")]
        lines.append(f"<tr><td>{escape(name)}</td>{''.join(cells)}</tr>")
    return f"<table><tr>{''.join(f'<th>{escape(h)}</th>' for h in head)}</tr>{''.join(lines)}</table>"


def _enrolled(found: Mapping[str, Any]) -> str:
    corpora = [row["corpus"] for row in next(iter(found.values()))["rows"]]
    lines = [[many, _percent(e["mean_uar"]), *(_percent(row["uar"]) for row in e["rows"])] for many, e in found.items()]
    return _table(["clips heard", "mean UAR", *corpora], lines)


def _texts(rows: Sequence[Mapping[str, Any]]) -> str:
    lines = [
        [r["corpus"], r["texts"], *(_percent(r[n]) for n in ("uar", "war", "macro_f1", "weighted_f1"))] for r in rows
    ]
    return _table(["corpus", "texts", "UAR", "WAR", "macro F1", "weighted F1"], lines)


def _table(head: Sequence[str], lines: Sequence[Sequence[Any]]) -> str:
    top = "".join(f"<th>{escape(name)}</th>" for name in head)
    rest = "".join(f"<tr>{''.join(f'<td>{escape(str(cell))}</td>' for cell in line)}</tr>" for line in lines)
    return f"<table><tr>{top}</tr>{rest}</table>"


def _percent(value: float) -> str:
    return f"{100 * value:.1f} %"
