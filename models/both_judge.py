"""How right `both` is for speakers and texts it never met, beside the voice alone and the words alone.

Each fold's speakers are answered by a network trained on the others', with test texts. All stand side by side on the same
clips and texts. Scored are the published seven, each corpus on those of them it has, every other ruled out; corpora count
alike. The texts are of the clip's label (or of another) and drawn at random: they are not what was said.

Letters: N rows (a clip with one of its texts), S speakers, C published classes, D draws, V ways.
"""
# ruff: noqa: N815 (shapes stand in the names of arrays)

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from clser.models import evaluate
from clser.models.both import Both
from clser.models.both_data import KINDS, Library, Voices, Words, calibration_of, pairs
from clser.models.both_fit import Choices, fit, probabilities, run
from clser.models.data.clips import Clip
from clser.models.labels import PUBLISHED

Array = np.ndarray[Any, Any]
TEXTS = 5
"""Drawn for each clip."""
DRAWS = 1000
VOICE, WORDS = "voice", "words"
WAYS = (VOICE, WORDS, *KINDS)


class Judged(NamedTuple):
    """Answers to the same rows, by who gave them."""

    probability: dict[str, Array]
    """[N, C] of each way."""
    share: dict[str, float]
    """How much words counted, on the mean."""
    true_N: Array
    clips: tuple[Clip, ...]
    text_corpus_N: Array
    """Where the right text is from."""
    texts: int
    """Rows of each clip."""
    temperatures: tuple[float, ...] = ()
    """That the folds' logits were divided by."""


def judge(
    voices: Voices, learn: Words, test: Words, choices: Choices,
    *, seed: int = 0, texts: int = TEXTS, tell: Callable[[str], None] = lambda line: None,
) -> tuple[Judged, Judged | None]:  # fmt: skip
    """Every fold in turn: for strangers, and for speakers of whom the voice has heard ten other clips, where it has."""
    library, asked = Library(learn), Library(test)
    random = np.random.default_rng((seed, 1))
    strangers: list[Judged] = []
    known: list[Judged] = []
    for fold in sorted(set(voices.fold_N.tolist())):
        here, others = (voices.of(np.flatnonzero(its)) for its in (voices.fold_N == fold, voices.fold_N != fold))
        calibration = calibration_of(others, choices.offsets)
        net = fit(others.calibrated(calibration), library, choices, seed)
        here = here.calibrated(calibration)
        strangers.append(_answered(net, here, asked, texts, random)._replace(temperatures=(calibration.temperature,)))
        heard_N = np.flatnonzero(np.isfinite(here.known_NH[:, 0]))
        if len(heard_N):
            here = here._replace(logits_NH=here.known_NH).of(heard_N)
            known.append(_answered(net, here, asked, texts, random)._replace(temperatures=(calibration.temperature,)))
        tell(f"fold {fold}: {len(strangers[-1].clips) // texts} clips")
    return _together(strangers), _together(known) if known else None


def _answered(net: Both, voices: Voices, library: Library, texts: int, random: np.random.Generator) -> Judged:
    """Each clip with so many texts of every kind."""
    rows = voices.of(np.repeat(np.arange(len(voices.clips)), texts))
    true_N = rows.true()
    probability = {VOICE: probabilities(rows.logits_NH, net.heads)}
    share, corpus_N = {}, np.empty(0)
    for number, kind in enumerate(KINDS):
        drawn = pairs(rows.logits_NH, true_N, library, np.full(len(true_N), number), random)
        logits_NH, share_N2 = run(net, drawn.inputs())
        probability[kind] = probabilities(logits_NH, net.heads)
        share[kind] = float(share_N2[:, 1].mean())
        if kind == "right":
            corpus_N = library.words.corpus_N[drawn.text_N]
            probability[WORDS] = probabilities(drawn.words_NC, net.words_heads)
    return Judged(probability, share, true_N, rows.clips, corpus_N, texts)


def _together(parts: Sequence[Judged]) -> Judged:
    many = [len(one.true_N) for one in parts]
    return Judged(
        {way: np.concatenate([one.probability[way] for one in parts]) for way in parts[0].probability},
        {kind: float(np.average([one.share[kind] for one in parts], weights=many)) for kind in KINDS},
        np.concatenate([one.true_N for one in parts]),
        tuple(clip for one in parts for clip in one.clips),
        np.concatenate([one.text_corpus_N for one in parts]),
        parts[0].texts,
        tuple(each for one in parts for each in one.temperatures),
    )


def figures(judged: Judged, seed: int = 0) -> dict[str, Any]:
    """A row a way: mean UAR of the corpora, the gain over the voice alone, ECE; each with what the speakers' luck makes of it."""
    corpora = list(dict.fromkeys(clip.corpus for clip in judged.clips))
    uar_VCD, ece, each = _drawn(judged, corpora, seed)
    rows = []
    for at, way in enumerate(WAYS):
        mean_D = uar_VCD[at].mean(0)
        gain_D = mean_D - uar_VCD[WAYS.index(VOICE)].mean(0)
        rows.append(
            {
                "way": way,
                "uar": round(float(mean_D[0]), 4),
                "uar_interval": _interval(mean_D),
                "over_voice": round(float(gain_D[0]), 4),
                "over_voice_interval": _interval(gain_D),
                "ece": round(float(np.mean(ece[way])), 4),
                "words_counted": round(judged.share[way], 3) if way in judged.share else None,
                "by_corpus": dict(zip(corpora, np.round(uar_VCD[at, :, 0], 4).tolist(), strict=True)),
            }
        )
    exact = bool(np.array_equal(judged.probability["none"], judged.probability[VOICE]))
    return {
        "rows": rows,
        "by_collection": _by_collection(judged, corpora),
        "none_is_voice_exactly": exact,
        "clips": len(judged.true_N) // judged.texts,
        "speakers": len({clip.who for clip in judged.clips}),
        "temperatures": [round(one, 4) for one in judged.temperatures],
        "classes": each,
        "texts_of_each": judged.texts,
        "texts": "of the clip's label, at random: not what was said",
    }


def _drawn(judged: Judged, corpora: Sequence[str], seed: int) -> tuple[Array, dict[str, list[float]], dict[str, int]]:
    """[V, corpora, 1 + D]: the UAR of all speakers first, then of speakers drawn anew, the same for each way."""
    random = np.random.default_rng(seed)
    uar_VCD = np.zeros((len(WAYS), len(corpora), 1 + DRAWS))
    ece: dict[str, list[float]] = {way: [] for way in WAYS}
    many = {}
    for at, corpus in enumerate(corpora):
        rows = np.array([n for n, clip in enumerate(judged.clips) if clip.corpus == corpus])
        true_N = judged.true_N[rows]
        classes = sorted(set(true_N.tolist()))
        many[corpus] = len(classes)
        speakers, who_N = np.unique([judged.clips[n].speaker for n in rows], return_inverse=True)
        picked_DS = random.multinomial(len(speakers), np.full(len(speakers), 1 / len(speakers)), DRAWS)
        picked_DS = np.concatenate((np.ones((1, len(speakers)), int), picked_DS))
        for number, way in enumerate(WAYS):
            probability_NC = _restricted(judged.probability[way][rows], classes)
            said_N = probability_NC.argmax(1)
            ece[way].append(evaluate.ece(probability_NC, true_N))
            counts_SCC = np.zeros((len(speakers), len(PUBLISHED), len(PUBLISHED)), np.int64)
            np.add.at(counts_SCC, (who_N, true_N, said_N), 1)
            summed_DCC = np.tensordot(picked_DS, counts_SCC, 1)
            uar_VCD[number, at] = [evaluate.uar(counts) for counts in summed_DCC]
    return uar_VCD, ece, many


def _by_collection(judged: Judged, corpora: Sequence[str]) -> Mapping[str, dict[str, float]]:
    """Mean UAR of voice, words and both, by where the right text is from."""
    found: dict[str, dict[str, float]] = {}
    for name in sorted(set(judged.text_corpus_N.tolist())):
        own = judged.text_corpus_N == name
        found[name] = {}
        for way in (VOICE, WORDS, "right"):
            each = []
            for corpus in corpora:
                rows = np.flatnonzero(own & np.array([clip.corpus == corpus for clip in judged.clips]))
                true_N = judged.true_N[rows]
                probability_NC = _restricted(judged.probability[way][rows], sorted(set(true_N.tolist())))
                each.append(evaluate.uar(evaluate.confusion(true_N, probability_NC.argmax(1), len(PUBLISHED))))
            found[name][way] = round(float(np.mean(each)), 4)
    return found


def _restricted(probability_NC: Array, classes: Sequence[int]) -> Array:
    """Every other class ruled out."""
    allowed = np.zeros(probability_NC.shape[1])
    allowed[list(classes)] = 1.0
    kept_NC = probability_NC * allowed + 1e-12 * allowed
    return np.asarray(kept_NC / kept_NC.sum(1, keepdims=True))


def _interval(value_D: Array) -> list[float]:
    return [round(float(bound), 4) for bound in np.percentile(value_D[1:], (2.5, 97.5))]
