"""How much a text model makes of words, beside TF-IDF with logistic regression on the same test texts.

Each peer knows one collection: it is trained on that one's training texts, and so it is told from which one a text is. The
model is one for all; `words` is told nothing, `words, told` the collection. Scored are test texts with exactly one
label, each collection on the classes that occur in its test texts; the likeliest class counts. All answer the same texts.

Letters: N texts, H heads, D draws.
"""
# ruff: noqa: N815 (shapes stand in the names of arrays)

import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from clser.bench.table import number
from clser.engine.errors import MissingError
from clser.models import evaluate
from clser.models.data.corpora import Text, read_texts
from clser.models.data.text_parts import own_training, parts
from clser.models.labels import PUBLISHED_AS
from clser.models.words_live import Reader

Array = np.ndarray[Any, Any]
COLLECTIONS = ("meld", "goemotions", "brighter", "xed")
ALL = ("meld", "emorynlp", "dailydialog_reccon", "goemotions", "brighter", "xed")
"""What the model may have been trained on: a text to test on is held out from all of these."""
BY_LANGUAGE = "text_brighter"
STRENGTHS = (1.0, 4.0)
"""Of the peers, tried on the texts to choose by."""
DRAWS = 1000
BATCH = 64
TIMED = 300


class Scored(NamedTuple):
    """What was said of some texts."""

    true_N: Array
    probability_NH: Array
    classes: tuple[int, ...]


def measure(corpora: Path, model: Path, most: int, peers: bool, seed: int) -> dict[str, object]:
    """A row a collection and who answered, and how much better the model is with its interval."""
    reader = Reader(model)
    texts = [_published(text) for text in read_texts(corpora, ALL)]
    split = parts(texts)
    held_out = [n for n in split.test if len(texts[n].emotions) == 1]
    choose = [texts[n] for n in split.valid if len(texts[n].emotions) == 1]
    rows, gains = [], []
    for name in COLLECTIONS:
        corpus = f"text_{name}"
        asked = [texts[n] for n in held_out if texts[n].corpus == corpus]
        print(f"{corpus}: {len(asked)} texts", file=sys.stderr, flush=True)
        said = {
            "words": _judge(_read(reader, asked), asked, reader.heads),
            "words, told": _judge(_read(reader, asked, corpus), asked, reader.heads),
        }
        if peers:
            train = _training(texts, corpus, most, seed)
            chosen_by = [text for text in choose if text.corpus == corpus]
            said["tf-idf"] = _judge(_peer(train, chosen_by, asked, reader.heads), asked, reader.heads)
        rows += [{"corpus": corpus, "system": who, **_figures(each, asked)} for who, each in said.items()]
        if peers:
            gains += [
                {"corpus": corpus, "system": who, **_gain(said[who], said["tf-idf"], seed)}
                for who in ("words", "words, told")
            ]
    ms = _milliseconds(reader, [texts[n].text for n in held_out[:: max(1, len(held_out) // TIMED)]])
    size = {"bytes": model.stat().st_size, "ms_per_text": ms}
    return {"rows": rows, "gains": gains, "model": {"name": reader.about["name"], **size}}


def table(line: dict[str, Any]) -> list[str]:
    """For people."""
    heads = ("weighted F1", "interval", "macro F1", "by language", "UAR", "ECE", "texts")
    lines = [f"{'collection':<18}{'system':<13}" + "".join(f"{head:>13}" for head in heads)]
    for row in line["rows"]:
        low, high = row["weighted_f1_interval"]
        cells = (row["weighted_f1"], f"{100 * low:.1f}-{100 * high:.1f}", row["macro_f1"], row["macro_f1_by_language"])
        shown = [cell if isinstance(cell, str) else number(_percent(cell), 1) for cell in (*cells, row["uar"])]
        ends = (number(row["ece"], 3), str(row["texts"]))
        name = f"{row['corpus'].removeprefix('text_'):<18}{row['system']:<13}"
        lines.append(name + "".join(f"{cell:>13}" for cell in (*shown, *ends)))
    for gain in line["gains"]:
        low, high = gain["weighted_f1_interval"]
        name = gain["corpus"].removeprefix("text_")
        lines.append(
            f"{name}, {gain['system']}: weighted F1 {100 * gain['weighted_f1']:+.1f} ({100 * low:+.1f} to {100 * high:+.1f}), "
            f"macro F1 {100 * gain['macro_f1']:+.1f} points over TF-IDF"
        )
    about = line["model"]
    lines.append(f"{about['name']}: {about['bytes'] / 1e6:.1f} MB, {about['ms_per_text']:.2f} ms a text on one core")
    return lines


def _percent(share: float | None) -> float | None:
    return None if share is None else 100 * share


def _published(text: Text) -> Text:
    emotions = tuple(dict.fromkeys(PUBLISHED_AS[emotion] for emotion in text.emotions))
    return Text(text.corpus, text.language, text.split, text.text, emotions)


def _read(reader: Reader, texts: Sequence[Text], kind: str = "") -> Array:
    order = np.argsort([len(text.text) for text in texts], kind="stable")  # rows of like length make little padding
    out = np.zeros((len(texts), len(reader.heads)), np.float32)
    for begin in range(0, len(texts), BATCH):
        rows = order[begin : begin + BATCH]
        out[rows] = reader.read([texts[n].text for n in rows], kind).logits_BH
    return out


def _milliseconds(reader: Reader, texts: Sequence[str]) -> float:
    """One text at a time, its words cut up too; the median."""
    took = []
    for text in texts:
        began = time.perf_counter()
        reader.read([text])
        took.append(1000 * (time.perf_counter() - began))
    return float(np.median(took))


def _training(texts: Sequence[Text], corpus: str, most: int, seed: int) -> list[Text]:
    own = [n for n in own_training(texts, corpus) if len(texts[n].emotions) == 1]
    if len(own) > most:
        own = sorted(np.random.default_rng(seed).choice(own, most, replace=False).tolist())
    return [texts[n] for n in own]


def _peer(train: Sequence[Text], choose: Sequence[Text], asked: Sequence[Text], heads: Sequence[str]) -> Array:
    """Logits of TF-IDF over words, pairs of words and runs of letters, with logistic regression."""
    try:
        from scipy.sparse import hstack  # noqa: PLC0415 - the peer's alone
        from sklearn.feature_extraction.text import TfidfVectorizer  # noqa: PLC0415
        from sklearn.linear_model import LogisticRegression  # noqa: PLC0415
    except ModuleNotFoundError as error:
        raise MissingError(f"{error.name} is not installed: pip install scikit-learn, or leave --peer out") from error
    kinds = (
        TfidfVectorizer(ngram_range=(1, 2), min_df=2, sublinear_tf=True),
        TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 5), min_df=2, sublinear_tf=True),
    )
    x = hstack([kind.fit_transform([text.text for text in train]) for kind in kinds]).tocsr().astype(np.float32)
    tried = []
    for strength in STRENGTHS:
        net = LogisticRegression(C=strength, max_iter=150, tol=1e-3).fit(x, [text.emotions[0] for text in train])

        def answer(some: Sequence[Text], net: Any = net) -> Array:
            given = hstack([kind.transform([text.text for text in some]) for kind in kinds]).tocsr().astype(np.float32)
            out = np.full((len(some), len(heads)), -30.0, np.float32)
            out[:, [heads.index(name) for name in net.classes_]] = net.predict_log_proba(given)
            return out

        counts = _counts(_judge(answer(choose), choose, heads))
        tried.append((evaluate.macro_f1(counts), strength, answer))
        print(f"  C {strength}: {100 * tried[-1][0]:.1f} on the texts to choose by", file=sys.stderr, flush=True)
    return max(tried, key=lambda each: each[0])[2](asked)


def _judge(logits_NH: Array, texts: Sequence[Text], heads: Sequence[str]) -> Scored:
    true_N = np.array([heads.index(text.emotions[0]) for text in texts])
    classes = tuple(sorted({int(c) for c in true_N}))
    return Scored(true_N, evaluate.softmax(evaluate.restrict(logits_NH, classes)), classes)


def _counts(scored: Scored) -> Array:
    return evaluate.confusion(scored.true_N, scored.probability_NH.argmax(1), scored.probability_NH.shape[1])


def _figures(scored: Scored, texts: Sequence[Text]) -> dict[str, Any]:
    counts, heads = _counts(scored), scored.probability_NH.shape[1]
    drawn = _drawn(scored.true_N, scored.probability_NH.argmax(1), heads, 0)
    by_language = None
    if texts[0].corpus == BY_LANGUAGE:
        languages = np.array([text.language for text in texts])
        each = [_of_rows(scored, np.flatnonzero(languages == language)) for language in sorted(set(languages))]
        by_language = float(np.mean(each))
    return {
        "texts": len(texts),
        "classes": len(scored.classes),
        "weighted_f1": evaluate.weighted_f1(counts),
        "weighted_f1_interval": [float(x) for x in np.percentile(drawn, (2.5, 97.5))],
        "macro_f1": evaluate.macro_f1(counts),
        "macro_f1_by_language": by_language,
        "uar": evaluate.uar(counts),
        "ece": evaluate.ece(scored.probability_NH, scored.true_N),
    }


def _of_rows(scored: Scored, rows: Array) -> float:
    """Macro F1 of some texts, over the classes that occur among them."""
    said_N = scored.probability_NH[rows].argmax(1)
    counts = evaluate.confusion(scored.true_N[rows], said_N, scored.probability_NH.shape[1])
    return float(evaluate.macro_f1(counts))


def _drawn(true_N: Array, said_N: Array, heads: int, seed: int) -> Array:
    """[D]: the weighted F1 of texts drawn anew."""
    random = np.random.default_rng(seed)
    pair_N = true_N * heads + said_N
    found = []
    for _ in range(DRAWS):
        drawn = pair_N[random.integers(len(pair_N), size=len(pair_N))]
        found.append(evaluate.weighted_f1(np.bincount(drawn, minlength=heads * heads).reshape(heads, heads)))
    return np.array(found)


def _gain(one: Scored, other: Scored, seed: int) -> dict[str, Any]:
    """The model less the peer; the interval is of differences on the same drawn texts."""
    heads = one.probability_NH.shape[1]
    drawn = _drawn(one.true_N, one.probability_NH.argmax(1), heads, seed)
    drawn -= _drawn(other.true_N, other.probability_NH.argmax(1), heads, seed)
    mine, theirs = _counts(one), _counts(other)
    return {
        "weighted_f1": evaluate.weighted_f1(mine) - evaluate.weighted_f1(theirs),
        "weighted_f1_interval": [float(x) for x in np.percentile(drawn, (2.5, 97.5))],
        "macro_f1": evaluate.macro_f1(mine) - evaluate.macro_f1(theirs),
    }
