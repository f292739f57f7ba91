"""A training run from its plan to a finished folder.

out/model.safetensors   the system, calibrated                     out/progress.jsonl   a line an epoch
out/results.json        how well it does for who was held out      out/answers.npz      its answers for them
out/page.html           all of it to look at                       out/checkpoint.pt    what a resumed run needs
    out/model.onnx          the same for any runtime, where it can run live
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from hashlib import blake2b
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import torch

from clser.models import page, results, saved, systems
from clser.models.answers import tokeniser_of
from clser.models.checkpoint import Place
from clser.models.data import splits
from clser.models.data.cache import FeatureCache, Take
from clser.models.data.clips import Clip, Sound
from clser.models.data.copies import contradicted
from clser.models.data.corpora import Text, read_speech, read_texts
from clser.models.data.faces import Look, open_faces
from clser.models.data.front_features import by_front, samples_of
from clser.models.data.splits import Fold
from clser.models.data.stacks import Partners, Stacked, Stacks
from clser.models.data.synthesis import generated
from clser.models.data.takes import clean_take, disturbed_take, surroundings
from clser.models.data.unvoiced import unvoiced
from clser.models.errors import ClserError, GivenError
from clser.models.examples import Examples, TakeFeatures, Tokenise, class_masks
from clser.models.export import export
from clser.models.features.constants import SAMPLE_RATE_HZ
from clser.models.labels import HEADS, NONE
from clser.models.plan import Plan
from clser.models.row_texts import check_rows, listened_to, with_own_texts, with_soft_labels
from clser.models.saved import Trained
from clser.models.train import Running, Watcher, train
from clser.models.validation import Validation

DEV = frozenset({"dev", "valid", "validation"})
TEST = frozenset({"test"})
HELD_OUT_TEXTS = 0.05
"""Of a text corpus whose makers held none out."""
VALIDATION_TEXTS = 2000
"""Of each text corpus, at most."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """All that a run needs, read and computed."""

    plan: Plan
    system: Any
    examples: Examples
    validation: Validation
    fold: Fold
    seed: int


def prepare(
    plan: Plan, corpora: Path, cache: Path, watcher: Watcher, *, fold: str = "", seed: int = 0, zoo: Sequence[Path] = ()
) -> Prepared:
    """Reads clips and texts, holds a fold out, and makes what features are not there yet. `fold` empty: all is trained on."""
    clips = _speech(plan, corpora, cache, watcher)
    texts = list(read_texts(corpora, plan.texts)) if plan.texts else []
    heads = _heads(plan, clips, texts)
    clips = [clip for clip in clips if clip.emotion in heads]
    texts = [text for text in (_known(text, heads) for text in texts) if text.emotions]
    torch.manual_seed(seed)
    system = systems.build(plan.system, plan.settings, heads, zoo)
    _check(plan, system, clips, texts)
    clips, made = generated(clips)
    chosen = _fold(plan, clips, fold)
    if plan.shuffled:
        clips = shuffled(clips, (*chosen.train, *chosen.valid), seed)
        made = shuffled(made, range(len(made)), seed)
    made += unvoiced(corpora, cache, plan.takes.held_out) if plan.unvoiced else []
    chosen = replace(chosen, train=(*chosen.train, *range(len(clips), len(clips) + len(made))))
    clips += made
    to_train, to_validate = split_texts(texts, plan.folds.validation)
    watcher.line(
        f"{len(chosen.train)} clips to train on, {len(chosen.valid)} to choose by, {len(chosen.test)} to test on"
        + (f"; {len(to_train)} texts" if texts else "")
    )
    examples = _examples(plan, system, clips, chosen, corpora=corpora, cache=cache, watcher=watcher)
    words: Tokenise | None = tokeniser_of(system.words) if system.words else None
    examples = replace(
        examples,
        texts=texts,
        text_indices=to_train,
        tokenise=words,
        masks=class_masks(heads, clips, texts),
        look=_look(system, clips, cache, watcher),
    )
    examples = with_soft_labels(with_own_texts(examples, plan.own_texts), plan, cache, watcher.line)
    valid_clips = chosen.valid if examples.clean is not None else ()
    return Prepared(plan, system, examples, Validation(valid_clips, to_validate if words else ()), chosen, seed)


def fit(
    prepared: Prepared, out: Path, watcher: Watcher, *, resume: bool = False, running: Running | None = None
) -> dict[str, Any]:
    """Trains, calibrates, tests, and writes the folder; gives back what `results.json` holds."""
    plan, fold, seed = prepared.plan, prepared.fold, prepared.seed
    running = running or Running()
    system, examples, place = train(
        prepared.system, prepared.examples, prepared.validation, plan, out,
        watcher=watcher, seed=seed, fold=fold.name, resume=resume, running=running,
    )  # fmt: skip
    watcher.line("trained; calibrating, and judging what was held out")
    calibration = results.calibration_of(system, examples, prepared.validation, plan, running.device)
    about = Trained(
        system=plan.system, settings=plan.settings, heads=examples.heads, calibration=calibration,
        trained_on=plan.corpora if examples.clean is not None else (), texts=plan.texts if examples.tokenise else (),
        seed=seed, fold=fold.name, plan=msgspec.to_builtins(plan),
    )  # fmt: skip
    path = saved.save(out, system, about)
    found = {"system": plan.system, "fold": fold.name, "seed": seed}
    found |= results.figures(
        system, examples, fold, prepared.validation, plan, calibration=calibration, out=out, device=running.device
    )
    found |= {"best_epoch": place.best_epoch, "valid_uar": place.best if place.best >= 0 else None}
    found["digest"] = saved.about_of(path).digest
    if plan.onnx and system.fronts:
        try:
            exported = export(system, out / "model.onnx", about)
            found["onnx"] = {"parity": exported.parity, "size_bytes": exported.size_bytes}
        except ClserError as error:
            watcher.line(f"no model.onnx: {error}")
    page.write(out / "page.html", about, place.lines, found)
    (out / "results.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    watcher.line(_told(found, out, place))
    return found


def shuffled(clips: Sequence[Clip], which: Sequence[int], seed: int) -> list[Clip]:
    """The same clips; those of `which` have one another's labels, each corpus for itself."""
    random = np.random.default_rng(seed)
    dealt = list(clips)
    for corpus in dict.fromkeys(clip.corpus for clip in clips):
        own = [index for index in which if clips[index].corpus == corpus]
        for index, other in zip(own, random.permutation(own), strict=True):
            dealt[index] = replace(clips[index], emotion=clips[int(other)].emotion)
    return dealt


def split_texts(texts: Sequence[Text], share: float) -> tuple[list[int], list[int]]:
    """Texts to train on and to choose by. What their makers kept for tests is in neither, nor is a text to train on
    that stands, spelt alike, among those held out."""
    has_dev = {text.corpus for text in texts if text.split in DEV}
    place = {}
    for index, text in enumerate(texts):
        plain = " ".join(text.text.casefold().split())
        number = int.from_bytes(blake2b(plain.encode(), digest_size=8).digest()) / 2.0**64
        part = "test" if text.split in TEST else "valid" if text.split in DEV else "train"
        if part == "train" and text.corpus not in has_dev and number < HELD_OUT_TEXTS:
            part = "valid"
        place[index] = part, plain, number
    held_out = {plain for part, plain, _ in place.values() if part != "train"}
    train_on = [index for index, (part, plain, _) in place.items() if part == "train" and plain not in held_out]
    if share == 0.0:
        return train_on, []
    valid: list[int] = []
    for corpus in sorted({text.corpus for text in texts}):
        own = [index for index, (part, *_) in place.items() if part == "valid" and texts[index].corpus == corpus]
        valid += sorted(own, key=lambda index: place[index][2])[:VALIDATION_TEXTS]
    return train_on, sorted(valid)


def _speech(plan: Plan, corpora: Path, cache: Path, watcher: Watcher) -> list[Clip]:
    """The clips of the plan's corpora, but for those of which a copy has another label."""
    clips = []
    for name in plan.corpora:
        own = read_speech(corpora, (name,), check=False)
        wrong = contradicted(own, cache, watcher.line)
        if wrong:
            watcher.line(f"{name}: {len(wrong)} clips are left out, for each has a copy with another label")
        clips += [clip for index, clip in enumerate(own) if index not in wrong]
    return clips


def _heads(plan: Plan, clips: Sequence[Clip], texts: Sequence[Text]) -> tuple[str, ...]:
    occurring = {clip.emotion for clip in clips} | {emotion for text in texts for emotion in text.emotions}
    asked = set(plan.classes or occurring)
    strange = sorted(asked - occurring)
    if strange or len(asked) < 2:
        raise GivenError(
            f"classes {', '.join(plan.classes) or 'not named'}: the corpora have {', '.join(sorted(occurring)) or 'none'}; "
            "name two or more of these"
        )
    return (*(head for head in HEADS if head in asked), *((NONE,) if plan.unvoiced else ()))


def _known(text: Text, heads: Sequence[str]) -> Text:
    return replace(text, emotions=tuple(emotion for emotion in text.emotions if emotion in heads))


def _check(plan: Plan, system: Any, clips: Sequence[Clip], texts: Sequence[Text]) -> None:
    if system.fronts and not clips:
        raise GivenError(f"system {plan.system} hears {', '.join(system.fronts)}: name corpora of speech in `corpora:`")
    if not system.fronts and not texts:
        raise GivenError(f"system {plan.system} reads words only: name corpora of texts in `texts:`")
    if texts and not system.words:
        raise GivenError(f"system {plan.system} reads no words: leave `texts:` out, or choose a system that does")
    check_rows(plan, system, clips)


def _fold(plan: Plan, clips: Sequence[Clip], asked: str) -> Fold:
    """The fold of that number or name; everything where none is asked for."""
    valid = plan.folds.validation
    if not clips:
        return Fold("", (), (), ())
    if not asked:
        return splits.hold_back(Fold("", tuple(range(len(clips))), (), ()), clips, valid)
    folds = {
        "speakers": lambda: splits.grouped_folds(clips, plan.folds.count, valid),
        "one_speaker_out": lambda: splits.leave_one_speaker_out(clips, valid),
        "one_corpus_out": lambda: splits.leave_one_corpus_out(clips, valid),
        "sentences": lambda: splits.sentence_disjoint(clips, plan.folds.count, valid=valid),
    }[plan.folds.scheme]()
    named = {fold.name: fold for fold in folds} | {str(number): fold for number, fold in enumerate(folds)}
    if asked not in named:
        raise GivenError(
            f"--fold {asked}: there are {', '.join(fold.name for fold in folds)}, or 0 to {len(folds) - 1}"
        )
    return named[asked]


def _examples(
    plan: Plan, system: Any, clips: Sequence[Clip], fold: Fold, *, corpora: Path, cache: Path, watcher: Watcher
) -> Examples:
    samples = {name: samples_of(name) for name in system.fronts}
    uneven = [name for name, size in samples.items() if system.frame_samples % size]
    assert not uneven, f"{plan.system}: its frame of {system.frame_samples} samples is no multiple of {uneven}"
    ratios = {name: system.frame_samples // size for name, size in samples.items()}
    heads = tuple(system.heads)
    if not samples:
        return Examples(heads, clips, None, (), (), {}, system.frame_samples)
    store = FeatureCache(cache)
    decoded = store.sounds(clips, watcher.line)
    place = {clip: index for index, clip in enumerate(clips)}

    def read(clip: Clip) -> Sound:
        return decoded.clip(place[clip])[:, 0].astype(np.float32) / 32768.0

    store = store.reading(read)

    def make(take: Take) -> TakeFeatures:
        return TakeFeatures.of(by_front(system.fronts, clips, take, store, watcher.line), ratios)

    clean = make(clean_take())
    around = surroundings(corpora, plan.takes)
    takes = []
    for number in range(1, plan.takes.count + 1):
        stacked = None
        if plan.takes.stacked:
            partners = Partners(clips, fold.train, plan.stacking.speakers == "same")
            stacks = Stacks(partners, np.diff(decoded.starts) / SAMPLE_RATE_HZ, plan.stacking, plan.takes.stacked)
            stacked = Stacked(stacks.planned(number), lambda index: read(clips[index]), plan.stacking.breath)
        take = make(disturbed_take(number, clips, plan.takes, around, stacked))
        takes.append(
            take if stacked is None else listened_to(take, stacked, clips, plan, cache=cache, report=watcher.line)
        )
    if plan.takes.clean or not takes:
        takes.insert(0, clean)
    return Examples(heads, clips, clean, takes, fold.train, ratios, system.frame_samples)


def _look(system: Any, clips: Sequence[Clip], cache: Path, watcher: Watcher) -> Look | None:
    if not systems.faces_seen(system):
        return None
    if all(clip.face is None for clip in clips):
        watcher.line("no clip names a `face`: what the system could learn of faces stays as it is")
        return None
    watcher.line("faces are seen in training and by `eval`; an engine hears only, and live a face is always missing")
    return open_faces(clips, systems.faces_seen(system), cache / "faces", watcher.line)


def _told(found: dict[str, Any], out: Path, place: Place) -> str:
    if "mean_uar" not in found:
        return f"{out}: done after {len(place.lines)} epochs"
    enrolled = "".join(
        f", {100 * e['mean_uar']:.1f} % with {k} clips heard" for k, e in found.get("enrolled", {}).items()
    )
    return f"{out}: UAR {100 * found['mean_uar']:.1f} % over {len(found['rows'])} corpora ({found['on']}){enrolled}"
