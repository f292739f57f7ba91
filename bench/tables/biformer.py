"""The bimodal family's tables: encoders, fusions, weighing, augmentation, the released code beside the paper, mean ranks.

No corpus here has both a voice that feels and words that do. Each clip stands beside a text of its label, drawn from the
test split of a collection of texts: what is measured is how a system takes a voice and words that agree.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

import msgspec

from clser.bench.ranks import friedman
from clser.bench.workshop import Claim, Row, Score, Silent, Wanted, Workshop, better, together, value
from clser.models import plan, results, runs, saved
from clser.models.data.synthesis import Espeak
from clser.models.data.tug import generate, read_templates
from clser.models.plan import Plan

ABOUT = "BiFormer and its sisters (BDCC 9(11):285): encoders, fusions, weighing, SDS, LS-LLM, TUG, ranks"

UNHEARD = ("emodb", "emovo", "casia")
"""What the speech encoder was not trained on."""
TEXTS = ("meld",)
FOUR = ("anger", "happiness", "neutral", "sadness")
FOLDS = ("0", "1")
SMALL: Mapping[str, Any] = MappingProxyType({
    "speech": "hub:clser/voice_licensed", "speech_pooled": 8, "width": 64, "words_width": 64, "words_inner": 64,
    "voice_hidden": 64, "words_hidden": 64, "encoder_layers": 1, "layers": 2, "attention_heads": 4, "graph_heads": 4,
    "gate_width": 64, "joined_width": 64, "joined_layers": 2, "steps": 16, "hidden": 64, "buckets": 4096, "numbers": 32,
})  # fmt: skip
GENERATED = "generated"
"""The corpus that TUG makes."""
PER_CLASS = 6
"""Utterances of each language and emotion in it."""
PAIRED = 0
"""The seed by which clips are given their texts, the same for every row."""
HERE = (
    "4 classes, 2 folds by speakers; frozen frames of our voice_licensed (means of 160 ms), widths of 64, 1 layer an "
    "encoder, 2 across, 16 steps, 5 epochs of 768 rows"
)
BESIDE = "hashed words; each clip beside a text of its label from MELD's test split: how both agree, not what was said"
ON = "RESD, test, wav2vec2 and Jina-v3"
METRICS = ("uar", "weighted_f1")
RANK = "mean rank"


@dataclass(frozen=True, slots=True)
class Made:
    """How a row is made."""

    table: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Of the system, upon the small ones."""
    system: str = "biformer"
    given: str = "both"
    """voice, words or both: what it is tested on."""
    changes: Mapping[str, Any] = field(default_factory=dict)
    """Of the plan."""
    published: tuple[float, float] | None = None
    """UAR and weighted F1 on RESD."""
    rank: float | None = None
    """Of table 10, among its 16 methods."""
    here: str = ""


def _encoder(part: str, kind: str, published: tuple[float, float], rank: float | None = None) -> Made:
    settings = {"part": part, f"{part}_encoder": kind}
    return Made("6" if part == "voice" else "8", settings, given=part, published=published, rank=rank)


WPF = {"part": "wpf"}
SDS = {
    "sampling.stacked": 0.4,
    "stacking": {"most": 8, "speakers": "any", "choice": "filling", "breath": False},
}
SOFT = {"soft_labels": {"source": "words", "chance": 0.2}}
SDS_HERE = "frames are joined instead of sounds, texts instead of a new transcript"
SOFT_HERE = "our own text model in the language model's place; it was trained on MELD's training texts too"
RELEASED = {"mode": "as_released"}

ROWS: Mapping[str, Made] = MappingProxyType({
    "voice": _encoder("voice", "mamba", (60.79, 62.15), 14.50),
    "voice_lstm": _encoder("voice", "lstm", (34.04, 34.34)),
    "voice_xlstm": _encoder("voice", "xlstm", (39.53, 40.03)),
    "voice_transformer": _encoder("voice", "transformer", (42.22, 41.68)),
    "words": _encoder("words", "mamba", (37.20, 37.36), 14.88),
    "words_lstm": _encoder("words", "lstm", (34.09, 34.81)),
    "words_xlstm": _encoder("words", "xlstm", (35.07, 35.64)),
    "words_transformer": _encoder("words", "transformer", (33.80, 33.73)),
    "wpf": Made("10", {**WPF, "wpf_of": ["voice", "words"]}, published=(56.79, 56.54), rank=11.50),
    "biformer": Made("10", published=(67.89, 68.41), rank=5.88),
    "bigraphformer": Made("10", system="bigraphformer", published=(68.51, 68.70), rank=6.75),
    "bigatedgraphformer": Made("10", system="bigatedgraphformer", published=(68.24, 68.50), rank=7.50),
    "bimamba": Made("10", system="bimamba", published=(66.30, 66.54), rank=10.38),
    "biformer_wpf": Made("10", WPF, published=(62.73, 63.03), rank=7.88),
    "bimamba_wpf": Made("10", WPF, "bimamba", published=(59.66, 59.99), rank=11.00),
    "biformer_sds": Made("10", changes=SDS, published=(66.71, 67.28), rank=5.00, here=SDS_HERE),
    "biformer_ls_llm": Made("10", changes=SOFT, published=(68.05, 68.51), rank=4.00, here=SOFT_HERE),
    "biformer_sds_ls_llm": Made(
        "10", changes={**SDS, **SOFT}, published=(68.90, 69.38), rank=2.63, here=f"{SDS_HERE}; {SOFT_HERE}"
    ),
    "biformer_tug": Made(
        "ours", changes={"corpora": [*UNHEARD, GENERATED], "own_texts": [GENERATED]},
        here="espeak-ng in Dia's place; the paper tells no figure of TUG alone",
    ),
    "biformer_no_words": Made("ours", given="voice", here="BiFormer trained on both, given the voice alone"),
    "shuffled": Made("ours", changes={"shuffled": True}, given="voice", here="the clips' labels dealt out anew, the voice alone"),
    "voice_released": Made("ours", {"part": "voice", **RELEASED}, given="voice"),
    "words_released": Made("ours", {"part": "words", **RELEASED}, given="words"),
    "biformer_released": Made("ours", RELEASED),
    "bigraphformer_released": Made("ours", RELEASED, "bigraphformer"),
})  # fmt: skip


def plan_of(name: str) -> Plan:
    """The run behind a row."""
    made = ROWS[name]
    changes = dict(made.changes)
    sampling = {
        "rows_per_epoch": 768, "batch": 64, "longest_s": 3.0, "drop_voice": 0.1, "drop_words": 0.1,
        "stacked": changes.pop("sampling.stacked", 0.0),
    }  # fmt: skip
    values = {
        "system": made.system,
        "settings": {**SMALL, **made.settings},
        "corpora": list(UNHEARD),
        "texts": [] if made.settings.get("part") == "voice" else list(TEXTS),
        "classes": list(FOUR),
        "folds": {"count": len(FOLDS), "validation": 0.0},
        "takes": {"count": 0, "clean": True},
        "sampling": sampling,
        "optimiser": {"epochs": 5, "learning_rate": 3e-3, "weight_decay": 1e-4, "keep": "last", "averaging": 0.9},
        "loss": {"smoothing": 0.0},
        "calibration": "none",
        "onnx": False,
        **changes,
    }
    return plan.from_values(values, f"of the row {name}")


def rows(shop: Workshop, wanted: Wanted) -> Iterator[Row]:
    """Tables 6, 8 and 10, and ours."""
    for name, made in ROWS.items():
        if not wanted(name):
            continue
        each = [scores_of(shop, name, seed) for seed in shop.seeds]
        told = "; ".join(
            part for part in (HERE, "" if made.settings.get("part") == "voice" else BESIDE, made.here) if part
        )
        for corpus in UNHEARD:
            for metric, published in zip(METRICS, made.published or (None, None), strict=True):
                scores = [scores[corpus] for scores in each]
                values = tuple(getattr(score, metric) for score in scores)
                yield Row(
                    made.table, name, corpus, metric, values, scores[0].clips, scores[0].speakers, published,
                    ON if published is not None else "", told,
                )  # fmt: skip
    if wanted("ranks"):
        yield from _ranks(shop)


def scores_of(shop: Workshop, name: str, seed: int) -> dict[str, Score]:
    """By corpus, over all folds."""
    made, asked = ROWS[name], plan_of(name)
    if not asked.texts:
        return shop.scores(asked, FOLDS, seed)
    if GENERATED in asked.corpora:
        shop = with_generated(shop, seed)
    counted: dict[str, list[Mapping[str, Any]]] = {}
    for fold in FOLDS:
        key = ("beside test texts", PAIRED, msgspec.to_builtins(asked), fold, seed)
        for row in shop.kept(key, partial(_beside, shop, asked, fold, seed))[made.given]["rows"]:
            counted.setdefault(row["corpus"], []).append(row)
    return {corpus: together(found) for corpus, found in counted.items()}


def _beside(shop: Workshop, asked: Plan, fold: str, seed: int) -> dict[str, Any]:
    """What that run makes of the fold's clips beside texts that nobody trained on or chose by."""
    system, _ = saved.load(shop.run(asked, fold, seed))
    plain = msgspec.structs.replace(asked, soft_labels=plan.SoftLabels())  # they are of training alone
    prepared = runs.prepare(plain, shop.corpora, shop.cache / "features", Silent(), fold=fold, seed=seed)
    examples = prepared.examples
    texts = [n for n, text in enumerate(examples.texts) if text.split in runs.TEST]
    return results.paired(system, examples, prepared.fold.test, texts, limited={}, device="cpu", seed=PAIRED)


def with_generated(shop: Workshop, seed: int) -> Workshop:
    """The same workshop, whose corpora have one more, made by templates and a synthesiser."""
    root = shop.cache / f"corpora_and_generated_{seed}"
    root.mkdir(parents=True, exist_ok=True)
    for folder in sorted(shop.corpora.iterdir()):
        if folder.is_dir() and not (root / folder.name).exists():
            (root / folder.name).symlink_to(folder.resolve(), target_is_directory=True)
    out = root / GENERATED
    if not (out / "manifest.csv").exists():  # what is written last
        chosen = [entry for entry in read_templates() if entry.emotion in FOUR]
        generate(chosen, Espeak(), out, PER_CLASS, seed=seed, report=shop.watcher.line)
    return replace(shop, corpora=Path(root))


def _ranks(shop: Workshop) -> Iterator[Row]:
    """Over corpora and seeds, of what table 10 ranks too."""
    names = [name for name, made in ROWS.items() if made.rank is not None]
    scores = {name: [scores_of(shop, name, seed) for seed in shop.seeds] for name in names}
    blocks = [[scores[name][n][corpus].uar for name in names] for n in range(len(shop.seeds)) for corpus in UNHEARD]
    found = friedman(blocks)
    first = scores[names[0]][0].values()
    clips, speakers = sum(score.clips for score in first), sum(score.speakers for score in first)
    here = f"of the UAR, {len(names)} methods over {len(blocks)} blocks (a corpus with a seed)"
    for name, rank in zip(names, found.ranks_K, strict=True):
        on = "16 methods over 8 measures of MELD and RESD"
        # a column a method, as other rows have one a corpus
        yield Row("10", "ranks", name, RANK, (float(rank),), clips, speakers, ROWS[name].rank, on, here)
    yield Row("10", "ranks", "all", "p of Friedman's test", (found.p,), clips, speakers, here=here)


def claims(found: Sequence[Row]) -> list[Claim]:
    """Read off the rows: UAR, the mean of the three corpora."""

    over = partial(better, found)

    fusions = ("bigraphformer", "bigatedgraphformer", "bimamba")
    p = value(found, "ranks", metric="p of Friedman's test")
    return [
        over("Mamba is the best of the voice's encoders", "voice", "voice_lstm", "voice_xlstm", "voice_transformer"),
        over("Mamba is the best of the words' encoders", "words", "words_lstm", "words_xlstm", "words_transformer"),
        over("a fusion beats voice and words alone", "biformer", "voice", "words"),
        over("a fusion beats weighing the encoders", "biformer", "wpf"),
        over("BiFormer is the best of the fusions by rank", "biformer", *fusions),
        over("weighing on top of BiFormer does not help", "biformer", "biformer_wpf"),
        over("SDS helps", "biformer_sds", "biformer"),
        over("LS-LLM helps", "biformer_ls_llm", "biformer"),
        over("both together help most", "biformer_sds_ls_llm", "biformer_sds", "biformer_ls_llm", "biformer"),
        over("what the code runs is as good as what the paper says", "biformer_released", "biformer"),
        over("what it hears in a voice is from the labels", "biformer_no_words", "shuffled"),
        Claim("the methods differ", p < 0.05, f"Friedman's test, p = {p:.3g}"),
    ]
