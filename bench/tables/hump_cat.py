"""HuMP-CAT's tables: features two by two, what the paths add, and transfer to languages it never heard."""

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import msgspec

from clser.bench.transfer import VERSION, Asked, Draw, machine, transferred
from clser.bench.workshop import Claim, Row, Score, Wanted, Workshop, better, value
from clser.models import plan
from clser.models.plan import Plan
from clser.models.zoo.hump_cat import PAIRS

ABOUT = "HuMP-CAT (Zhao et al. 2025): pairs of features, what the paths add, transfer with some speakers' clips"

SPEECH = "hub:clser/voice_licensed@1,2"
UNHEARD = ("emodb", "emovo", "casia")
"""What the encoder was not trained on."""
SOURCE = ("ravdess", "nemo", "tess")
FOUR = ("anger", "happiness", "neutral", "sadness")
FOLDS = tuple("012")
CLIP_S = 2.5
HERE = (
    f"frozen frames of our voice_licensed (two layers of 128), clips repeated to {CLIP_S:g} s; 4 classes, 3 folds by "
    "speakers, all three corpora at once"
)
QUIET = {"gain": 0.0, "colour": 0.0, "bands": 0, "times": 0}

WITHIN: Mapping[str, tuple[str, dict[str, Any], Mapping[str, float]]] = {
    **{name: ("IV", {"speech": "none", "hand": pair}, {"": found}) for (name, pair), found in zip(
        PAIRS.items(), (74.58, 72.45, 70.12, 65.39, 62.24, 60.09), strict=True)},
    "speech_only": ("III", {"hand": ()}, {"": 78.26}),
    "speech_mfcc": ("VII", {"hand": ("mfcc",)}, {"emodb": 82.54, "emovo": 70.23}),
    "speech_prosody": ("VII", {"hand": ("prosody",)}, {"emodb": 83.36, "emovo": 68.94}),
    "full": ("VII", {}, {"emodb": 88.69, "emovo": 75.48}),
    "full_layers_mean": ("ours", {"layer_attention": False}, {}),
    "full_cross_entropy": ("ours", {"loss": "cross_entropy"}, {}),
    "full_manner": ("ours", {"hand": ("manner", "mfcc")}, {}),
    "shuffled": ("ours", {}, {}),
}  # fmt: skip
"""Row, which of the paper's tables, settings, and what is published: of a corpus, or of IEMOCAP's test."""

MANNER = {
    "speech": "none", "hand": ("manner",), "usual": True, "functionals_hidden": 128, "functionals_drop": 0.5, "source_drop": 0.0,
}  # fmt: skip
BOTH = {**MANNER, "speech": SPEECH, "source_drop": 0.1}
"""Sizes were chosen on CASIA, with one of its four speakers to train on."""


class Moved(NamedTuple):
    """A row of transfer."""

    members: tuple[dict[str, Any], ...]
    """The settings of the systems whose answers are averaged."""
    asked: Asked
    inits: int
    """So many of each."""
    here: str


def _moved() -> dict[str, Moved]:
    tuned, live = Asked(), Asked(heard=True)
    speaker = "against a running mean of the speaker's earlier clips, in an order by seed"
    return {
        "transfer_source_only": Moved(({},), Asked(target=False), 1, "trained on RAVDESS, nEMO, TESS alone"),
        "transfer_target_only": Moved(({},), Asked(source=False), 1, "trained on the few target speakers alone"),
        "transfer": Moved(({},), tuned, 1, "as published, then fine-tuned with a quarter of rows from the target"),
        "transfer_adapted": Moved(({},), Asked(adapted=True), 1, "as published, then all weights adapted to the target's clips"),
        "manner": Moved((MANNER,), tuned, 1, "our functionals alone, speakers unknown"),
        "manner_live": Moved((MANNER,), live, 1, f"our functionals alone, {speaker}"),
        "both_live": Moved((BOTH,), live, 1, f"speech frames and our functionals, these {speaker}"),
        "ensemble_live": Moved((MANNER,), live, 5, f"five inits of our functionals alone averaged, {speaker}"),
    }  # fmt: skip


MOVED = _moved()
TRANSFER = {"emodb": (2, 88.69, "EMODB, 20 % of speakers"), "emovo": (2, 79.48, "EMOVO, a third of speakers")}
"""How many speakers are trained on, and table VI."""
MACHINES = {
    "svm_opensmile": Asked(), "svm_opensmile_live": Asked(heard=True), "svm_manner": Asked(),
    "svm_manner_live": Asked(heard=True),
}  # fmt: skip


def plan_of(settings: Mapping[str, Any], corpora: Sequence[str], **changes: Any) -> Plan:
    """The run behind a row."""
    values = {
        "system": "hump_cat",
        "settings": {"speech": SPEECH, "clip_s": CLIP_S, **settings},
        "corpora": list(corpora),
        "classes": list(FOUR),
        "folds": {"validation": 0.0, "count": len(FOLDS)},
        "takes": {"count": 0, "clean": True},
        "sampling": {
            "rows_per_epoch": 640, "batch": 32, "longest_s": 4.0, "cut": 0.0, "balance": 1.0,
            "enrolled": 0.95, "enrolled_most": 60,
        },
        "masking": QUIET,
        "optimiser": {"epochs": 8, "learning_rate": 3e-3, "weight_decay": 1e-4, "keep": "last", "averaging": 0.9},
        "loss": {"smoothing": 0.0},
        "calibration": "none",
        **changes,
    }  # fmt: skip
    return plan.from_values(values, "of a row of hump_cat")


def rows(shop: Workshop, wanted: Wanted) -> Iterator[Row]:
    """Tables III, IV, VI and VII."""
    for name, (table, settings, told) in WITHIN.items():
        if wanted(name):
            made = plan_of(settings, UNHEARD, shuffled=name == "shuffled")
            each = [shop.scores(made, FOLDS, seed) for seed in shop.seeds]
            for corpus in UNHEARD:
                published = told.get(corpus, told.get(""))
                on = "IEMOCAP test, HuBERT" if "" in told else f"{corpus.upper()}, HuBERT, fine-tuned"
                yield _row((table, name, corpus), [scores[corpus] for scores in each], published, on, here=HERE)
    for name, moved in MOVED.items():
        if wanted(name):
            for corpus, (speakers, published, on) in TRANSFER.items():
                found = [_transferred(shop, moved, Draw(corpus, speakers, seed)) for seed in shop.seeds]
                here = f"{moved.here}; {speakers} speakers drawn by seed, all others tested; 4 classes"
                goal = published if moved.asked.source and moved.asked.target else None
                yield _row(("VI", name, corpus), found, goal, on, here=here)
    for name, asked in MACHINES.items():
        if wanted(name):
            for corpus, (speakers, _, _) in TRANSFER.items():
                found = [_machine(shop, name, Draw(corpus, speakers, seed), asked) for seed in shop.seeds]
                kind = "openSMILE ComParE" if "opensmile" in name else "our functionals"
                here = f"{kind}, a linear machine on source and target speakers"
                yield _row(("ours", name, corpus), found, None, "", here=here)


def _transferred(shop: Workshop, moved: Moved, draw: Draw) -> Score:
    optimiser = {"epochs": 12, "learning_rate": 3e-3, "weight_decay": 0.1, "keep": "last", "averaging": 0.9}
    plans = [plan_of(settings, SOURCE, optimiser=optimiser) for settings in moved.members]
    return transferred(shop, plans, draw, moved.asked, moved.inits)


def _machine(shop: Workshop, name: str, draw: Draw, asked: Asked) -> Score:
    key = ("machine", VERSION, name, SOURCE, draw)
    make = partial(machine, shop, draw, asked, opensmile="opensmile" in name, source=SOURCE, classes=FOUR)
    return msgspec.convert(shop.kept(key, make), Score)


def _row(which: tuple[str, str, str], scores: Sequence[Score], published: float | None, on: str, *, here: str) -> Row:
    values, first = tuple(score.uar for score in scores), scores[0]
    on = on if published is not None else ""
    return Row(*which, "uar", values, first.clips, first.speakers, published, on, here)


def claims(found: Sequence[Row]) -> list[Claim]:
    """Read off the rows."""
    of = partial(value, found)
    first, *others = PAIRS
    out = [better(found, "prosody and MFCC are the best pair of hand-crafted features", first, *others)]
    for said, one, other in (
        ("three paths beat the encoder alone", "full", "speech_only"),
        ("prosody adds to encoder and MFCC", "full", "speech_mfcc"),
        ("MFCC add to encoder and prosody", "full", "speech_prosody"),
        ("attention over the layers beats their mean", "full", "full_layers_mean"),
        ("AM-Softmax beats cross-entropy", "full", "full_cross_entropy"),
        ("what it knows is from the labels", "full", "shuffled"),
        ("fine-tuning beats the source alone", "transfer", "transfer_source_only"),
        ("fine-tuning beats the target speakers alone", "transfer", "transfer_target_only"),
    ):
        out.append(better(found, said, one, other))
    for corpus, (_, goal, _) in TRANSFER.items():
        name = max((n for n in MOVED if MOVED[n].asked.target), key=lambda n: of(n, corpus))
        came = of(name, corpus)
        out.append(Claim(f"{corpus.upper()} {goal} after fine-tuning", came >= goal, f"{came:.1f} by {name}"))
    return out
