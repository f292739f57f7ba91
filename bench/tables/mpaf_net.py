"""MPAF-Net's table: the network, its four rivals, and what its loss and its schedule are worth, by speakers."""

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import msgspec
import numpy as np
import torch

from clser.bench.workshop import Claim, Row, Score, Silent, Wanted, Workshop, better
from clser.models import plan, runs, saved
from clser.models.answers import BATCH, sound_of, words_of
from clser.models.examples import ordered
from clser.models.plan import Plan
from clser.models.systems import WORDS
from clser.models.zoo.mpaf_net import RIVALS

ABOUT = "MPAF-Net (Li et al.): pairs of voice and words against four rivals, with and without focal loss and cosine"

SPEECH = "hub:clser/voice_licensed"
UNHEARD = ("emodb", "emovo", "casia")
FOUR = ("anger", "happiness", "neutral", "sadness")
FOLDS = tuple("01234")
SMALL = {
    "faces": 0, "pooling": "mean", "speech_hidden": 64, "words_width": 64, "words_hidden": 64, "width": 64,
    "balance_hidden": 64, "hidden": 64, "narrow": 8, "early_steps": 25, "buckets": 8192, "numbers": 32,
}  # fmt: skip
HERE = (
    "voice (40 cepstra) beside a held-out MELD text of its label, no faces: no corpus has two of the three; hashed words, "
    "LSTM 64 and its mean, widths 64; drawn evenly by class, so alpha is 1; 4 classes, 5 folds by speakers, all corpora at once"
)
DIFFERS: Mapping[str, str] = {
    "cross_entropy": "as mpaf, without the focal factor",
    "constant_rate": "as mpaf, a constant rate after the warm-up",
    "small_encoder": "as mpaf, frozen frames of our voice_licensed in the cepstra's place",
    "voice_alone": "the mpaf runs, given the voice alone",
    "words_alone": "the mpaf runs, given the text alone",
    "shuffled": "as voice_alone, the clips' labels dealt out anew in each corpus",
}
ON = "IEMOCAP, 8 classes, one test part, BERT, voice and face"

SETTINGS: Mapping[str, Mapping[str, Any]] = {
    "mpaf": {}, **{rival: {"fusion": rival} for rival in RIVALS}, "cross_entropy": {}, "constant_rate": {},
    "small_encoder": {"speech": SPEECH}, "shuffled": {},
}  # fmt: skip
TABLE_5: Mapping[str, tuple[float, float]] = {
    "baseline": (38.48, 40.13), "ef_lstm": (35.12, 29.29), "lf_lstm": (40.58, 36.66), "tfn": (44.30, 44.93),
    "mpaf": (50.13, 47.42),
}  # fmt: skip
"""Accuracy and macro F1."""
SHARES = "shares"
METRICS = ("war", "macro_f1", "uar")


def plan_of(name: str) -> Plan:
    """The run behind a row."""
    loss = {"kind": "cross_entropy"} if name == "cross_entropy" else {"kind": "focal", "gamma": 2.0}
    # a plateau that is never waited for: the rate stays
    schedule = {"schedule": "plateau", "plateau_epochs": 99} if name == "constant_rate" else {"schedule": "cosine"}
    values = {
        "system": "mpaf_net",
        "settings": {**SMALL, **SETTINGS[name]},
        "corpora": list(UNHEARD),
        "texts": ["meld"],
        "classes": list(FOUR),
        "folds": {"validation": 0.1},
        "takes": {"count": 0, "clean": True},
        "sampling": {"rows_per_epoch": 1440, "batch": 32, "longest_s": 3.0},
        "optimiser": {
            "epochs": 5, "learning_rate": 5e-3, "weight_decay": 1e-4, "warmup_epochs": 0.5, "keep": "last",
            "averaging": 0.9, **schedule,
        },
        "loss": {"smoothing": 0.0, "partial": 0.0, **loss},
        "calibration": "none",
        "shuffled": name == "shuffled",
    }  # fmt: skip
    return plan.from_values(values, f"of the row {name}")


def rows(shop: Workshop, wanted: Wanted) -> Iterator[Row]:
    """Table 5, and what is ours beside it."""
    of = {
        **{name: (name, "both") for name in SETTINGS},
        "shuffled": ("shuffled", "voice"),  # a text drawn by a wrong label is a right text of that label
        "voice_alone": ("mpaf", "voice"),
        "words_alone": ("mpaf", "words"),
    }
    each = {
        name: [shop.scores(plan_of(run), FOLDS, seed, given) for seed in shop.seeds]
        for name, (run, given) in of.items()
        if wanted(name)
    }
    for published in (True, False):
        for metric in METRICS:
            for name, scores in each.items():
                if (name in TABLE_5) == published:
                    yield from _rows(name, metric, scores)
    if wanted(SHARES):
        yield from _share_rows(shop)


def _rows(name: str, metric: str, each: Sequence[Mapping[str, Score]]) -> Iterator[Row]:
    told = dict(zip(METRICS, TABLE_5.get(name, ()), strict=False)).get(metric)
    here = HERE if name == "mpaf" else DIFFERS.get(name, "as mpaf")
    for corpus in UNHEARD:
        values = tuple(float(getattr(scores[corpus], metric)) for scores in each)
        first = each[0][corpus]
        yield Row(
            "5" if name in TABLE_5 else "ours", name, corpus, metric, values, first.clips, first.speakers, told,
            ON if told else "", here,
        )  # fmt: skip


def _share_rows(shop: Workshop) -> Iterator[Row]:
    """How much of the pair is the words (alpha), and whether that hangs on the clip."""
    asked = plan_of("mpaf")
    found = [
        shop.kept((SHARES, msgspec.to_builtins(asked), seed), partial(_shares_of, shop, asked, seed))
        for seed in shop.seeds
    ]
    for metric in ("words' share of the pair", "its deviation over clips"):
        for corpus in UNHEARD:
            each = [one[corpus] for one in found]
            yield Row(
                "ours", SHARES, corpus, metric, tuple(100 * one[metric] for one in each), each[0]["clips"],
                each[0]["speakers"], here="alpha of the mpaf runs, test clips beside texts of their label",
            )  # fmt: skip


def _shares_of(shop: Workshop, asked: Plan, seed: int) -> dict[str, Any]:
    shares: dict[str, list[float]] = {}
    whos: dict[str, set[str]] = {}
    for fold in FOLDS:
        system, _ = saved.load(shop.run(asked, fold, seed))
        prepared = runs.prepare(asked, shop.corpora, shop.cache / "features", Silent(), fold=fold, seed=seed)
        examples, random = prepared.examples, np.random.default_rng(seed)
        assert examples.clean is not None
        of_label = examples.texts_of_labels(prepared.validation.texts)
        clips = np.array(prepared.fold.test)
        texts = np.array([random.choice(of_label[examples.clips[n].emotion]) for n in clips])
        for some in ordered(examples.clean.lengths[clips], BATCH):
            given = sound_of(examples.clean, examples.ratios, clips[some], examples.clean.lengths[clips[some]])
            with torch.inference_mode():
                share_BP = system.shares({**given, WORDS: words_of(examples, texts[some])})
            for n, share in zip(clips[some], share_BP[:, 0].tolist(), strict=True):
                shares.setdefault(examples.clips[n].corpus, []).append(share)
                whos.setdefault(examples.clips[n].corpus, set()).add(examples.clips[n].speaker)
    return {
        corpus: {
            "words' share of the pair": float(np.mean(each)), "its deviation over clips": float(np.std(each)),
            "clips": len(each), "speakers": len(whos[corpus]),
        }
        for corpus, each in shares.items()
    }  # fmt: skip


def claims(found: Sequence[Row]) -> list[Claim]:
    """Read off the rows."""
    others = {
        "cross_entropy": "focal loss helps", "constant_rate": "a cosine beats a constant rate",
        "voice_alone": "words beside the voice help", "words_alone": "a voice beside the words helps",
    }  # fmt: skip
    rivals = [(rival, f"pairs beat {rival}") for rival in RIVALS]
    told = [*rivals, *others.items()]
    out = [better(found, said, "mpaf", other, metric="war") for other, said in told]
    return [*out, better(found, "what it hears in a voice is from the labels", "voice_alone", "shuffled", metric="war")]
