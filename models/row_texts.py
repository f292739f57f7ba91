"""What goes with a voice as its words where that is not drawn by label, and labels as others see them.

Letters: N clips or texts, H heads.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np

from clser.models.data import soft_labels
from clser.models.data.cache import Report
from clser.models.data.clips import Clip
from clser.models.data.corpora import Text
from clser.models.data.soft_labels import Asked
from clser.models.data.stacks import Stacked
from clser.models.errors import GivenError
from clser.models.examples import Examples, Soft, TakeFeatures
from clser.models.hooks import hook, is_hook
from clser.models.plan import Plan

WORDS_OF_STACKS = ("joined", "first")


def check_rows(plan: Plan, system: Any, clips: Sequence[Clip]) -> None:
    """GivenError where the plan asks for what cannot be."""
    strange = sorted(set(plan.own_texts) - {clip.corpus for clip in clips})
    if strange:
        raise GivenError(f"own_texts: {', '.join(strange)} are not among the corpora; name some of `corpora:`")
    if plan.own_texts and not system.words:
        raise GivenError(f"system {plan.system} reads no words: leave `own_texts:` out, or choose a system that does")
    if plan.takes.stacked and plan.sampling.stacked:
        raise GivenError("takes.stacked and sampling.stacked are two ways to the same: give one of them")
    if plan.takes.stacked and not plan.takes.count:
        raise GivenError("takes.stacked needs takes to stack: give takes.count, or use sampling.stacked")
    words = plan.stacking.words
    if words in WORDS_OF_STACKS:
        return
    if not is_hook(words):
        raise GivenError(f"stacking.words is {words!r}: give joined, first, or module:function")
    if not (plan.takes.stacked and plan.own_texts):
        raise GivenError(
            f"stacking.words {words} listens to stacked sounds: it needs takes.stacked, and corpora in own_texts"
        )


def with_own_texts(examples: Examples, corpora: Sequence[str]) -> Examples:
    """With the texts of these corpora's clips, and of stacks that were listened to, behind the other texts."""
    texts, own = list(examples.texts), {}
    for index in examples.indices:
        clip = examples.clips[index]
        if clip.corpus in corpora and clip.text.strip():
            own[index] = len(texts)
            texts.append(_text_of(clip, clip.text))
    silent = sorted(set(corpora) - {examples.clips[index].corpus for index in own})
    if silent:
        raise GivenError(f"own_texts: no clip of {', '.join(silent)} to train on has a text; fill in the column `text`")
    heard = []
    for take in examples.takes:
        of_take = {}
        for index, said in take.said.items():
            of_take[index] = len(texts)
            texts.append(_text_of(examples.clips[index], said))
        heard.append(of_take)
    return replace(examples, texts=texts, own_texts=own, heard_texts=heard if any(heard) else ())


def listened_to(
    take: TakeFeatures, stacked: Stacked, clips: Sequence[Clip], plan: Plan, *, cache: Path, report: Report
) -> TakeFeatures:
    """The take, which knows now what it is stacked of; and what a listener heard in its stacks, if the plan names one."""
    said: Mapping[int, str] = {}
    if is_hook(plan.stacking.words):
        asked = [n for n in sorted(stacked.behind) if clips[n].corpus in plan.own_texts]
        parts = [[clips[part].path.stat() for part in (n, *stacked.behind[n])] for n in asked]
        told = [[(part.st_size, part.st_mtime_ns) for part in stack] for stack in parts]
        path = cache / "heard" / f"{_digest(plan.stacking.words, stacked.digest, told)}.json"
        if not path.exists():
            report(f"{plan.stacking.words} listens to {len(asked)} stacked clips")
            _keep(path, _heard(stacked, clips, asked, hook(plan.stacking.words, "stacking.words")))
        said = {int(index): text for index, text in json.loads(path.read_text(encoding="utf-8")).items()}
    return replace(take, behind=stacked.behind, said=said)


def with_soft_labels(examples: Examples, plan: Plan, cache: Path, report: Report) -> Examples:
    """With what the plan's source makes of the texts and clips to train on."""
    asked = plan.soft_labels
    if not asked.source or not asked.chance:
        return examples
    source = soft_labels.open_source(asked, cache / "soft_labels", report)
    texts = sorted({*examples.text_indices, *examples.own_texts.values(), *_all(examples.heard_texts)})
    of_texts = [Asked(examples.texts[n].text, "", examples.texts[n].emotions) for n in texts]
    clips = [examples.clips[n] for n in examples.indices]
    of_clips = [Asked("", clip.path.as_posix(), (clip.emotion,)) for clip in clips]
    text_NH = _spread(texts, len(examples.texts), soft_labels.ask(source, of_texts, examples.heads))
    clip_NH = _spread(examples.indices, len(examples.clips), soft_labels.ask(source, of_clips, examples.heads))
    known = [int(np.isfinite(rows).all(1).sum()) for rows in (text_NH, clip_NH)]
    if not any(known):
        raise GivenError(f"soft_labels.source {asked.source}: it knows none of the texts and clips to train on")
    report(
        f"soft labels of {known[0]} of {len(texts)} texts and {known[1]} of {len(clips)} clips; the others keep theirs"
    )
    return replace(examples, soft=Soft(clip_NH, text_NH))


def _text_of(clip: Clip, said: str) -> Text:
    return Text(clip.corpus, clip.language, "train", said, (clip.emotion,))


def _heard(stacked: Stacked, clips: Sequence[Clip], asked: Sequence[int], listen: Callable[..., Any]) -> dict[int, str]:
    """What is heard before anything is disturbed."""
    said = {}
    for index in asked:
        sound = stacked(stacked.sound_of(index), index, np.random.default_rng(index))
        said[index] = str(listen(sound, clips[index].language)).strip()
    return said


def _keep(path: Path, said: Mapping[int, str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(said, ensure_ascii=False), encoding="utf-8")
    partial.replace(path)


def _spread(places: Sequence[int], total: int, rows_NH: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    out_NH = np.full((total, rows_NH.shape[1]), np.nan, np.float32)
    out_NH[np.array(places, np.int64)] = rows_NH
    return out_NH


def _all(mappings: Sequence[Mapping[int, int]]) -> list[int]:
    return [value for mapping in mappings for value in mapping.values()]


def _digest(*parts: object) -> str:
    return blake2b(repr(parts).encode(), digest_size=12).hexdigest()
