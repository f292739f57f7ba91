"""ACMF-Net's tables: ablations by speakers, few shots in languages it never heard, its gates by language."""

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch

from clser.bench.shots import Target, clips_of, few_shots
from clser.bench.workshop import Claim, Row, Score, Wanted, Workshop, better
from clser.models import plan, saved
from clser.models.answers import sound_of
from clser.models.data.cache import FeatureCache
from clser.models.data.front_features import by_front, samples_of
from clser.models.data.takes import clean_take
from clser.models.examples import TakeFeatures, ordered
from clser.models.plan import Plan
from clser.models.zoo.acmf_net import ABLATIONS

ABOUT = "ACMF-Net (Cen and Gai 2025): ablations, few shots across languages, gates"

SPEECH = "hub:clser/voice_licensed"
UNHEARD = ("emodb", "emovo", "casia")
"""What the encoder was not trained on."""
FOUR = ("anger", "happiness", "neutral", "sadness")
FOLDS = tuple("01234")
SMALL = {"speech": SPEECH, "width": 64, "encoder_width": 64, "layers": 1, "feed_forward": 128, "hidden": 64}
HERE = (
    "frozen frames of our voice_licensed, width 64, 1 layer; 4 classes, 5 folds by speakers, all three corpora at once"
)
SHOTS_HERE = (
    "trained on RAVDESS and TESS (English), last layers refitted to shots of some speakers, tested on the others"
)
ON = "IEMOCAP, test, HuBERT"
SHUFFLED_AS = "neither"
"""The quickest of the rows with all three sources shows what shuffled labels teach."""

TABLE_2: Mapping[str, tuple[str, float | None]] = {
    "full": ("2", 76.92), "no_gate": ("2", 74.18), "no_mfcc_encoder": ("2", 75.65), "no_prosody_encoder": ("2", 75.21),
    "neither": ("2", 73.80), "speech_only": ("1", 74.82), "mfcc_only": ("ours", None), "prosody_only": ("ours", None),
}  # fmt: skip
FEW = {
    "emodb": (70.88, 68.21, "EMODB, 5 to 10 shots"),
    "emovo": (68.30, 65.90, "EMOVO"),
    "casia": (66.71, 64.18, "a Mandarin set"),
}
"""Table 3, of ACMF-Net and of HuBERT alone."""
GATES = {"emodb": (0.87, 0.70, 0.90), "emovo": (0.89, 0.74, 0.86), "casia": (0.90, 0.71, 0.87)}
"""Table 4: of the encoder, the cepstra, the prosody."""


def plan_of(name: str, corpora: Sequence[str] = UNHEARD, **changes: Any) -> Plan:
    """The run behind a row."""
    values = {
        "system": "acmf_net",
        "settings": {**SMALL, **ABLATIONS[SHUFFLED_AS if name == "shuffled" else name]},
        "corpora": list(corpora),
        "classes": list(FOUR),
        "folds": {"validation": 0.0},
        "takes": {"count": 0, "clean": True},
        "sampling": {"rows_per_epoch": 960, "batch": 32, "longest_s": 3.0},
        "optimiser": {"epochs": 6, "learning_rate": 1e-3, "weight_decay": 1e-5, "keep": "last", "averaging": 0.9},
        "loss": {"smoothing": 0.0},
        "calibration": "none",
        "shuffled": name == "shuffled",
        **changes,
    }
    return plan.from_values(values, f"of the row {name}")


def rows(shop: Workshop, wanted: Wanted) -> Iterator[Row]:
    """Tables 1 to 4."""
    for name, (table, published) in {**TABLE_2, "shuffled": ("ours", None)}.items():
        if wanted(name):
            each = [shop.scores(plan_of(name), FOLDS, seed) for seed in shop.seeds]
            for corpus in UNHEARD:
                here = f"as {SHUFFLED_AS}, the clips' labels dealt out anew" if name == "shuffled" else HERE
                told = {"published": published, "published_on": ON if published else "", "here": here}
                yield _row(table, name, corpus, [scores[corpus] for scores in each], **told)
    for name in ("full", "speech_only"):
        for shots in (0, 5, 10):
            if wanted(f"{name}_{shots}_shots"):
                yield from _few(shop, name, shots)
    if wanted("gates"):
        yield from _gates(shop)


def _row(table: str, name: str, corpus: str, scores: Sequence[Score], **told: Any) -> Row:
    values = tuple(score.uar for score in scores)
    return Row(table, name, corpus, "uar", values, scores[0].clips, scores[0].speakers, **told)


def _source(shop: Workshop, name: str, seed: int) -> Path:
    return shop.run(plan_of(name, ("ravdess", "tess")), "", seed)


def _few(shop: Workshop, name: str, shots: int) -> Iterator[Row]:
    for corpus, (ours, hubert, on) in FEW.items():
        target = Target(corpus, FOUR, shots)
        found = [few_shots(shop, _source(shop, name, seed), target, seed) for seed in shop.seeds]
        published = (ours if name == "full" else hubert) if shots else None
        told = {"published": published, "published_on": on if published else "", "here": SHOTS_HERE}
        yield _row("3", f"{name}_{shots}_shots", corpus, found, **told)


def _gates(shop: Workshop) -> Iterator[Row]:
    kinds = ("mfcc", "prosody", "speech")  # as the system orders them
    for corpus, published in GATES.items():
        found = [
            shop.kept(("gates", plan_of("full"), corpus, seed), partial(_gates_of, shop, corpus, seed))
            for seed in shop.seeds
        ]
        paper = dict(zip(("speech", "mfcc", "prosody"), published, strict=True))
        for kind in kinds:
            for part, metric in (("mean", "gate"), ("deviation", "gate's deviation over clips")):
                values = tuple(one[part][kind] for one in found)
                told = paper[kind] if part == "mean" else None
                yield Row(
                    "4", "gates", corpus, f"{kind} {metric}", values, found[0]["clips"], found[0]["speakers"], told,
                    f"{corpus}, HuBERT" if told else "", "trained on RAVDESS and TESS",
                )  # fmt: skip


def _gates_of(shop: Workshop, corpus: str, seed: int) -> dict[str, Any]:
    system, _ = saved.load(_source(shop, "full", seed))
    clips = clips_of(shop, corpus, FOUR)
    ratios = {name: system.frame_samples // samples_of(name) for name in system.fronts}
    cache = FeatureCache(shop.cache / "features")
    take = TakeFeatures.of(by_front(system.fronts, clips, clean_take(), cache, None), ratios)
    with torch.inference_mode():
        each = [system.gates(sound_of(take, ratios, some, take.lengths[some])) for some in ordered(take.lengths, 64)]
    gate_NK = torch.cat(each).numpy()
    names = list(system.front_of)
    return {
        "clips": len(clips), "speakers": len({clip.who for clip in clips}),
        "mean": dict(zip(names, gate_NK.mean(0).tolist(), strict=True)),
        "deviation": dict(zip(names, gate_NK.std(0).tolist(), strict=True)),
    }  # fmt: skip


def claims(found: Sequence[Row]) -> list[Claim]:
    """Read off the rows."""
    full = partial(better, found)
    spread = max(row.mean for row in found if row.name == "gates" and "deviation" in row.metric)
    return [
        full("gates beat concatenation", "full", "no_gate"),
        full("an encoder for the cepstra helps", "full", "no_mfcc_encoder"),
        full("an encoder for the prosody helps", "full", "no_prosody_encoder"),
        full("both encoders help", "full", "neither"),
        full("three sources beat the speech encoder alone", "full", "speech_only"),
        full("each single source is beaten", "full", "speech_only", "mfcc_only", "prosody_only"),
        full("what it knows is from the labels", SHUFFLED_AS, "shuffled"),
        full("five shots help in another language", "full_5_shots", "full_0_shots"),
        full("three sources beat the encoder alone with five shots", "full_5_shots", "speech_only_5_shots"),
        Claim(
            "gates are dynamic", None, f"a gate's deviation over clips is {spread:.2f} at most; the paper tells none"
        ),
    ]
