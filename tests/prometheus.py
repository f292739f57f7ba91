"""What a scraper reads: a strict parser of Prometheus's text, and the names that dashboards are built on."""

import re
from dataclasses import dataclass, field

NAMES = {
    "clser_abstained_total": "counter",
    "clser_after_decision_seconds": "histogram",
    "clser_backlog_seconds": "gauge",
    "clser_busy_seconds_total": "counter",
    "clser_final_delay_seconds": "histogram",
    "clser_finals_total": "counter",
    "clser_first_emotion_seconds": "histogram",
    "clser_frames_entered_total": "counter",
    "clser_frames_needed_total": "counter",
    "clser_gaps_total": "counter",
    "clser_ingest_late_total": "counter",
    "clser_ingest_packets_total": "counter",
    "clser_ingest_streams": "gauge",
    "clser_loop_lag_p99_seconds": "gauge",
    "clser_lost_samples_total": "counter",
    "clser_memory_bytes": "gauge",
    "clser_loads_total": "counter",
    "clser_model_info": "gauge",
    "clser_not_kept_total": "counter",
    "clser_overload_step": "gauge",
    "clser_overload_steps_total": "counter",
    "clser_partials_total": "counter",
    "clser_ready": "gauge",
    "clser_refused_total": "counter",
    "clser_replaced_total": "counter",
    "clser_replay_cut_short_total": "counter",
    "clser_sent_total": "counter",
    "clser_sound_seconds_total": "counter",
    "clser_streams": "gauge",
    "clser_streams_refused_total": "counter",
    "clser_tentatives_total": "counter",
    "clser_turned_away_total": "counter",
    "clser_unread_total": "counter",
    "clser_amended_total": "counter",
    "clser_words_written_total": "counter",
    "clser_words_given_up_total": "counter",
    "clser_recognisers_lost_total": "counter",
    "clser_recogniser_busy_seconds_total": "counter",
    "clser_withdrawn_total": "counter",
    "clser_worker_fallbacks_total": "counter",
    "clser_worker_restarts_total": "counter",
    "clser_workers_lost_total": "counter",
}
"""Dashboards are built on these. More may be added; none is renamed, and none changes its kind."""


@dataclass
class Family:
    kind: str
    help: str
    samples: dict[tuple[str, tuple[tuple[str, str], ...]], float] = field(default_factory=dict)


HELP = re.compile(r"# HELP ([a-z][a-z0-9_]*) (\S[^\n]*)")
TYPE = re.compile(r"# TYPE ([a-z][a-z0-9_]*) (counter|gauge|histogram)")
SAMPLE = re.compile(r'([a-z][a-z0-9_]*)(?:\{([a-z]+)="([^"\\\n]*)"\})? (\d+(?:\.\d+)?(?:e-?\d+)?)')


def parse(text: str) -> dict[str, Family]:
    """Stricter than Prometheus: HELP, then TYPE, then the samples of that family and no other."""
    assert text.endswith("\n")
    families: dict[str, Family] = {}
    lines = iter(text.removesuffix("\n").split("\n"))
    family, name = None, ""
    for line in lines:
        if head := HELP.fullmatch(line):
            name, kind = head[1], TYPE.fullmatch(next(lines))
            assert kind is not None
            assert kind[1] == name
            assert name not in families
            family = families[name] = Family(kind[2], head[2])
            continue
        sample = SAMPLE.fullmatch(line)
        assert sample is not None, line
        assert family is not None
        suffix = sample[1].removeprefix(name)
        assert suffix in (("_bucket", "_sum", "_count") if family.kind == "histogram" else ("",))
        key = (suffix, ((sample[2], sample[3]),) if sample[2] else ())
        assert key not in family.samples, "a sample twice"
        family.samples[key] = float(sample[4])
    for family in families.values():
        assert family.samples
        if family.kind == "histogram":
            check_histogram(family)
    return families


def check_histogram(family: Family) -> None:
    buckets = [(float(labels[0][1]), n) for (suffix, labels), n in family.samples.items() if suffix == "_bucket"]
    assert buckets == sorted(buckets)
    assert [count for _, count in buckets] == sorted(count for _, count in buckets), "buckets hold those below them"
    assert buckets[-1] == (float("inf"), family.samples["_count", ()])
    assert ("_sum", ()) in family.samples


def value(text: str, name: str, suffix: str = "", **label: str) -> float:
    return parse(text)[name].samples[suffix, tuple(label.items())]
