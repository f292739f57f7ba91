"""Faults of a collection and of a split that make a figure better than the model: what leaks, and what tells the label.

Statistics are taken corpus by corpus, for corpora differ in their classes, speakers and files for good reasons.
"""

from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from clser.models.data.clips import Clip
from clser.models.data.copies import joined, repeated
from clser.models.data.forms import Form, look
from clser.models.data.guesses import LEAST_CLIPS, Guess, guess
from clser.models.data.splits import Fold

Severity = Literal["error", "warning"]
Who = tuple[str, str]

SHOWN = 4
"""Example files of a finding."""
FAR, SOME = 0.4, 0.2
"""Skill of a guess that is an error, and one that is a warning. 0 is chance; an honest corpus stays under 0.1."""
DURATION_FAR, DURATION_SOME = 0.5, 0.3
"""The same for length, of which some is the speaker's: sad speech is slow. Honest corpora reach 0.13, and read
word by word 0.26."""
BINS = 8
SPIKE, LEAST_SPIKE = 0.05, 10
"""A length that so large a share of the clips have to the millisecond, and so many at least, was not spoken but cut."""
SURE = 0.02
"""Labels dealt out at random may be guessed as well no more often than this."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One fault."""

    rule: str
    severity: Severity
    what: str
    count: int
    """Clips that it is about."""
    examples: tuple[str, ...]
    to_do: str


def lint(clips: Sequence[Clip], fold: Fold | None = None, tick: Callable[[int], None] | None = None) -> list[Finding]:
    """What is wrong with the clips, and with the split of them; errors first. Every recording is read once.

    `tick` is told how many clips were read.
    """
    forms = look(clips, tick or (lambda _: None))
    groups = repeated(clips, forms)
    findings = [*_silent(clips, forms), *_copies(clips, groups)]
    if fold is not None:
        findings += _across(clips, groups, fold)
    for corpus in sorted({clip.corpus for clip in clips}):
        own = [n for n, clip in enumerate(clips) if clip.corpus == corpus]
        findings += _told(corpus, [clips[n] for n in own], [forms[n] for n in own])
    return sorted(findings, key=lambda finding: finding.severity != "error")


def lines(findings: Iterable[Finding]) -> list[str]:
    """The findings for people, some lines each."""
    out = []
    for finding in findings:
        out.append(f"{finding.severity}: {finding.rule}: {finding.what}")
        if finding.examples:
            more = f" and {finding.count - len(finding.examples)} more" if finding.count > len(finding.examples) else ""
            out.append(f"    such as {', '.join(finding.examples)}{more}")
        out.append(f"    {finding.to_do}")
    return out


def _silent(clips: Sequence[Clip], forms: Sequence[Form]) -> list[Finding]:
    found = [clip for clip, form in zip(clips, forms, strict=True) if not form.digest]
    to_do = "take them off the list: there is nothing to learn from them"
    return [_finding("silent", "error", f"{len(found)} clips hold nothing but zeros", found, to_do)] if found else []


def _copies(clips: Sequence[Clip], groups: Sequence[Sequence[int]]) -> list[Finding]:
    differing = [group for group in groups if len({clips[n].emotion for n in group}) > 1]
    others = [group for group in groups if group not in differing]
    findings = []
    if differing:
        labels = Counter(" and ".join(sorted({clips[n].emotion for n in group})) for group in differing)
        what = f"{len(differing)} recordings stand under several labels ({_counts(labels)})"
        to_do = "listen, keep each under the label that is right, and take the others off the list"
        findings.append(_finding("copies-differ", "error", what, _members(clips, differing), to_do))
    if others:
        what = f"{len(others)} recordings are there more than once"
        to_do = "keep one of each: the others weigh it double, and leak if a split parts them"
        findings.append(_finding("copies", "warning", what, _members(clips, others), to_do))
    return findings


def _across(clips: Sequence[Clip], groups: Sequence[Sequence[int]], fold: Fold) -> list[Finding]:
    """What stands both on the side that is tested and on the side that is trained on or chosen by."""
    tested = frozenset(fold.test)
    seen = frozenset((*fold.train, *fold.valid))
    findings = []
    parted = [group for group in groups if tested & set(group) and seen & set(group)]
    if parted:
        what = f"fold {fold.name}: {len(parted)} recordings are both trained on and tested"
        to_do = "keep one of each, or put all copies on one side"
        findings.append(_finding("copies-across", "error", what, _members(clips, parted), to_do))
    both = {clips[n].who for n in tested} & {clips[n].who for n in seen}
    named = {who for who in both if who[1]}
    if named:
        findings.append(_speakers(clips, fold, named, f"{len(named)} speakers are both trained on and tested"))
    if both - named:
        found = [clips[n] for n in fold.test if not clips[n].speaker]
        to_do = "fill in the column `speaker`: without it nobody can say whether the figure holds for other people"
        findings.append(
            _finding("speaker-unknown", "error", f"{len(found)} tested clips name no speaker", found, to_do)
        )
    findings += _two_names(clips, groups, fold, both)
    untrained = {clips[n].emotion for n in tested} - {clips[n].emotion for n in fold.train}
    if untrained:
        found = [clips[n] for n in fold.test if clips[n].emotion in untrained]
        to_do = "leave the class out, or train on a corpus that has it"
        what = f"fold {fold.name}: {', '.join(sorted(untrained))} is tested and never trained on"
        findings.append(_finding("class-untrained", "warning", what, found, to_do))
    return findings


def _two_names(clips: Sequence[Clip], groups: Sequence[Sequence[int]], fold: Fold, both: set[Who]) -> list[Finding]:
    """Names that share a recording are one person, wherever else they stand."""
    pairs = [(clips[group[0]].who, clips[n].who) for group in groups for n in group[1:]]
    people = joined([(one, other) for one, other in pairs if one != other and one[1] and other[1]])
    test_whos, seen_whos = {clips[n].who for n in fold.test}, {clips[n].who for n in (*fold.train, *fold.valid)}
    findings = []
    for person in people:
        names = set(person) - both
        if names & test_whos and set(person) & seen_whos:
            called = ", ".join("/".join(who) for who in sorted(person))
            what = f"{called} share recordings, so they are one speaker, who is both trained on and tested"
            findings.append(_speakers(clips, fold, names & test_whos, what))
    return findings


def _speakers(clips: Sequence[Clip], fold: Fold, whos: set[Who], what: str) -> Finding:
    found = [clips[n] for n in fold.test if clips[n].who in whos]
    to_do = "split by speaker: a figure over known speakers says little about strangers"
    return _finding("speaker-across", "error", f"fold {fold.name}: {what}", found, to_do)


def _told(corpus: str, clips: Sequence[Clip], forms: Sequence[Form]) -> list[Finding]:
    """What gives the label away."""
    if len(clips) < LEAST_CLIPS:
        return []
    about = f"{corpus}: " if corpus else ""
    findings = [*_by_length(about, clips, forms)]
    by_speaker = _judged([clip.who for clip in clips], clips, FAR, SOME)
    if by_speaker:
        severity, how = by_speaker
        what = f"{about}the speaker alone tells the label {how}"
        to_do = (
            "most speakers have few of the emotions: a model learns who speaks. Split by speaker, "
            "do not normalise by speaker, and read figures of this corpus with care"
        )
        findings.append(_finding("label-from-speaker", severity, what, clips, to_do))
    by_text = _judged([clip.text or n for n, clip in enumerate(clips)], clips, FAR, FAR)
    if by_text:
        what = f"{about}the sentence alone tells the label {by_text[1]}"
        to_do = "a model of words, or one that hears them, learns the script: hold sentences apart"
        findings.append(_finding("label-from-sentence", "warning", what, clips, to_do))
    for kind, values in _kinds(clips, forms).items():
        judged = _judged(values, clips, FAR, SOME)
        if judged:
            severity, how = judged
            shares = _shares(values, [clip.emotion for clip in clips])
            what = f"{about}the {kind} alone tells the label {how}: {shares}"
            to_do = "bring all classes the same way: the same source, the same conversion; or leave the classes out that differ"
            rare = Counter(values).most_common()[-1][0]
            found = [clip for clip, value in zip(clips, values, strict=True) if value == rare]
            findings.append(_finding("label-from-file", severity, what, found, to_do))
    return findings


def _by_length(about: str, clips: Sequence[Clip], forms: Sequence[Form]) -> list[Finding]:
    lengths_ms = [round(1000 * form.duration_s) for form in forms]
    least = max(LEAST_SPIKE, SPIKE * len(clips))
    spikes = {length for length, count in Counter(lengths_ms).items() if count >= least}
    judged = _judged([length if length in spikes else 0 for length in lengths_ms], clips, FAR, SOME)
    findings = []
    if judged:
        severity, how = judged
        found = [clip for clip, length in zip(clips, lengths_ms, strict=True) if length in spikes]
        said = ", as their notes say" if sum(clip.truncated for clip in found) > len(found) / 2 else ""
        lengths = ", ".join(f"{length / 1000:.3f} s" for length in sorted(spikes))
        classes = _counts(Counter(clip.emotion for clip in found))
        what = (
            f"{about}{len(found)} clips are truncated to {lengths}{said}: {classes}; that length tells the label {how}"
        )
        to_do = "leave those classes out, cut every clip to that length, or get the whole recordings"
        findings.append(_finding("label-from-truncation", severity, what, found, to_do))
    duration_s = np.array([form.duration_s for form in forms])
    edges = np.quantile(duration_s, np.linspace(0.0, 1.0, BINS + 1)[1:-1])
    judged = _judged(np.searchsorted(edges, duration_s).tolist(), clips, DURATION_FAR, DURATION_SOME)
    if judged:
        severity, how = judged
        middle = {
            e: np.median([d for d, c in zip(duration_s, clips, strict=True) if c.emotion == e])
            for e in _emotions(clips)
        }
        medians = ", ".join(
            f"{emotion} {length:.2f} s" for emotion, length in sorted(middle.items(), key=lambda m: m[1])
        )
        what = f"{about}the duration alone tells the label {how}; medians: {medians}"
        to_do = "cut or pad the clips alike, or choose clips so that the classes are of like length"
        findings.append(_finding("label-from-duration", severity, what, clips, to_do))
    return findings


def _kinds(clips: Sequence[Clip], forms: Sequence[Form]) -> dict[str, list[Any]]:
    """What a file is, apart from what is heard."""
    zeros_ms = [1000 * form.zeros / form.rate_hz for form in forms]
    return {
        "kind of file": [f"{form.container} {form.codec}" for form in forms],
        "sample rate": [f"{form.rate_hz} Hz" for form in forms],
        "number of channels": [f"{form.channels} channels" for form in forms],
        "rate before conversion": [f"{clip.source_rate_hz} Hz" if clip.source_rate_hz else "unknown" for clip in clips],
        # A decoder leaves a few zeros of its own.
        "silence before the first sample": ["10 ms of zeros or more" if ms >= 10.0 else "none" for ms in zeros_ms],
    }


def _judged(values: Sequence[Hashable], clips: Sequence[Clip], far: float, some: float) -> tuple[Severity, str] | None:
    """How bad it is that `values` tell the label, and how well they do, in words; None: not bad."""
    found: Guess | None = guess(values, [clip.emotion for clip in clips])
    if found is None or found.p > SURE or found.skill < some:
        return None
    how = f"to {found.uar:.0%} (by chance {found.chance:.0%}, at most {found.best:.0%})"
    return ("error" if found.skill >= far else "warning"), how


def _shares(values: Sequence[Hashable], labels: Sequence[str]) -> str:
    """Each value's classes, for a message."""
    by_value: dict[str, Counter[str]] = {}
    for value, label in zip(values, labels, strict=True):
        by_value.setdefault(str(value), Counter())[label] += 1
    return "; ".join(f"{value}: {_counts(counts)}" for value, counts in sorted(by_value.items()))


def _counts(counts: Counter[str]) -> str:
    return ", ".join(f"{name} {count}" for name, count in counts.most_common())


def _emotions(clips: Sequence[Clip]) -> list[str]:
    return sorted({clip.emotion for clip in clips})


def _members(clips: Sequence[Clip], groups: Sequence[Sequence[int]]) -> list[Clip]:
    return [clips[n] for group in groups for n in group]


def _finding(rule: str, severity: Severity, what: str, found: Sequence[Clip], to_do: str) -> Finding:
    return Finding(rule, severity, what, len(found), tuple(clip.name for clip in found[:SHOWN]), to_do)
