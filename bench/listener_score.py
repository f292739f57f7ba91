"""How well a recogniser hears the grammar: held-out sentences in held-out voices, through faster-whisper itself."""

import random
from collections.abc import Iterator, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from clser.bench import grammar
from clser.bench.espeak import Spoken
from clser.bench.listener_windows import INSIDE, Wave, empty, noise, notes, tones
from clser.engine.records import SAMPLE_RATE_HZ

AROUND_S = 0.3
"""Silence before and after a sentence."""
NOISY_DB = 20.0
EMPTY = 20
"""Windows without speech, of each kind."""
NO_SPEECH_ABOVE = 0.6
NEAR_S = 0.1


class Score(Struct, frozen=True):
    compute: str
    sentences: int
    wer: float
    wer_noisy: float
    """In noise, 20 dB below the speech."""
    wer_cut: float
    """Of sounds that break off anywhere, against the words that are inside."""
    false_words: dict[str, int]
    """Written for so many windows (`empty_each`) of sound without speech."""
    false_words_guarded: int
    """Of these, in windows that were not called speechless."""
    empty_each: int
    speech_called_none: int
    """Sentences whose probability of being no speech is as high as that of an empty window should be."""
    end_error_ms: tuple[float, float, float]
    """Of words that were heard right, how far the end is off: median, 95 in 100, and the part within 100 ms."""
    start_error_ms: tuple[float, float, float]
    """The same of starts, of words that follow another at once."""


class Transcript(NamedTuple):
    words: list[str]
    times_s: list[tuple[float, float]]
    none: float
    """How probably it was no speech."""


def score(folder: Path, seed: int, sentences: int, compute: str) -> Score:
    """Of a checkpoint."""
    opened = import_module("faster_whisper").WhisperModel(
        str(folder), device="cpu", compute_type=compute, cpu_threads=1, local_files_only=True
    )
    return score_model(opened, seed, sentences, compute)


def score_model(model: Any, seed: int, sentences: int, compute: str = "", empties: int = EMPTY) -> Score:
    """Of a faster_whisper.WhisperModel, or of what transcribes like one."""
    said = spoken(seed, sentences)
    draw = np.random.default_rng([seed, 1])
    whole = [(each, transcribe(model, sound(each))) for each in said]
    noisy = [(_texts(each), transcribe(model, _in_noise(sound(each), draw)).words) for each in said]
    cut = [_cut(model, each, draw) for each in said]
    none = {kind: [transcribe(model, wave) for wave in waves] for kind, waves in _empties(draw, empties).items()}
    ends, starts = _time_errors(whole)
    return Score(
        compute=compute,
        sentences=len(said),
        wer=word_error_rate([(_texts(each), heard.words) for each, heard in whole]),
        wer_noisy=word_error_rate(noisy),
        wer_cut=word_error_rate(cut),
        false_words={kind: sum(len(each.words) for each in heard) for kind, heard in none.items()},
        false_words_guarded=sum(len(t.words) for heard in none.values() for t in heard if t.none <= NO_SPEECH_ABOVE),
        empty_each=empties,
        speech_called_none=sum(heard.none > NO_SPEECH_ABOVE for _, heard in whole),
        end_error_ms=_told(ends),
        start_error_ms=_told(starts),
    )


def spoken(seed: int, sentences: int) -> list[Spoken]:
    draw = random.Random(f"score {seed}")
    return [grammar.speak(text, *grammar.someone(draw)) for text in grammar.sentences(seed, sentences)]


def sound(said: Spoken) -> Wave:
    hush = np.zeros(round(AROUND_S * SAMPLE_RATE_HZ), np.float32)
    return np.concatenate((hush, said.pcm.astype(np.float32) / 32768, hush))


def transcribe(model: Any, wave: Wave) -> Transcript:
    """By a faster_whisper.WhisperModel, with nothing that could help it."""
    segments, _ = model.transcribe(
        wave,
        language="en",
        beam_size=1,
        temperature=0.0,
        without_timestamps=True,
        word_timestamps=True,
        condition_on_previous_text=False,
        no_speech_threshold=None,
    )
    told = list(segments)
    words = [word for each in told for word in each.words or ()]
    none = max((each.no_speech_prob for each in told), default=1.0)
    return Transcript([word.word.strip() for word in words], [(word.start, word.end) for word in words], none)


def _texts(said: Spoken) -> list[str]:
    return [word.word for word in said.words]


def _in_noise(wave: Wave, draw: np.random.Generator) -> Wave:
    level = float(np.sqrt(np.mean(wave**2))) * 10 ** (-NOISY_DB / 20)
    return (wave + level * noise(len(wave), draw)).astype(np.float32)


def _cut(model: Any, said: Spoken, draw: np.random.Generator) -> tuple[list[str], list[str]]:
    wave, before = sound(said), round(AROUND_S * SAMPLE_RATE_HZ)
    end = int(draw.integers(SAMPLE_RATE_HZ // 2, len(wave)))
    inside = [w.word for w in said.words if min(w.end + before, end) - (w.start + before) >= INSIDE * (w.end - w.start)]
    return inside, transcribe(model, wave[:end]).words


def _empties(draw: np.random.Generator, many: int) -> dict[str, list[Wave]]:
    def each(make: Any) -> list[Wave]:
        return [
            np.clip(0.1 * make(int(draw.integers(8000, 96000)), draw), -1, 1).astype(np.float32) for _ in range(many)
        ]

    silences = [np.zeros(int(samples), np.float32) for samples in np.linspace(4000, 200_000, many)]
    return {
        "silence": silences,
        "noise": each(noise),
        "tones": each(tones),
        "music": each(notes),
        "mixed": [empty(draw) for _ in range(many)],
    }


def _time_errors(heard: Sequence[tuple[Spoken, Transcript]]) -> tuple[list[float], list[float]]:
    """In ms: of ends; of the starts of words that follow another at once (before a pause there is nothing to be seen)."""
    ends, starts = [], []
    for said, told in heard:
        for here, there in matched(_texts(said), told.words):
            word = said.words[here]
            start, end = told.times_s[there]
            ends.append(1000 * abs(end - AROUND_S - word.end / SAMPLE_RATE_HZ))
            if here and word.start - said.words[here - 1].end < 0.05 * SAMPLE_RATE_HZ:
                starts.append(1000 * abs(start - AROUND_S - word.start / SAMPLE_RATE_HZ))
    return ends, starts


def _told(errors_ms: Sequence[float]) -> tuple[float, float, float]:
    if not errors_ms:
        return (0.0, 0.0, 0.0)
    near = float(np.mean(np.array(errors_ms) <= 1000 * NEAR_S))
    return round(float(np.median(errors_ms)), 1), round(float(np.percentile(errors_ms, 95)), 1), round(near, 4)


def word_error_rate(pairs: Sequence[tuple[Sequence[str], Sequence[str]]]) -> float:
    """Substitutions, deletions and insertions of all pairs (said, heard), by the words that were said."""
    wrong = sum(int(_costs(said, heard)[-1, -1]) for said, heard in pairs)
    return round(wrong / max(1, sum(len(said) for said, _ in pairs)), 4)


def matched(said: Sequence[str], heard: Sequence[str]) -> list[tuple[int, int]]:
    """Places of the words that were heard right, in both."""
    return sorted(_walked(_costs(said, heard), said, heard))


def _walked(costs: NDArray[np.int64], said: Sequence[str], heard: Sequence[str]) -> Iterator[tuple[int, int]]:
    here, there = len(said), len(heard)
    while here and there:
        same = said[here - 1] == heard[there - 1]
        if costs[here, there] == costs[here - 1, there - 1] + (not same):
            here, there = here - 1, there - 1
            if same:
                yield here, there
        elif costs[here, there] == costs[here - 1, there] + 1:
            here -= 1
        else:
            there -= 1


def _costs(said: Sequence[str], heard: Sequence[str]) -> NDArray[np.int64]:
    """[said + 1, heard + 1]: edits from the first words of one to the first words of the other."""
    costs = np.zeros((len(said) + 1, len(heard) + 1), np.int64)
    costs[:, 0], costs[0] = np.arange(len(said) + 1), np.arange(len(heard) + 1)
    for here, word in enumerate(said, 1):
        for there, other in enumerate(heard, 1):
            swap = costs[here - 1, there - 1] + (word != other)
            costs[here, there] = min(swap, costs[here - 1, there] + 1, costs[here, there - 1] + 1)
    return costs
