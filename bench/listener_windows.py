"""What the listener is trained on: windows of sound, cut and disturbed as a streaming recogniser meets them, and the words in them.

A window is an utterance or a few, with silence around, often cut off in the middle of a word, in noise or in none; or it is
sound without speech. Pure but for `Speech.spoken`, which calls espeak-ng.
"""

import random
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from clser.bench import grammar
from clser.engine.records import SAMPLE_RATE_HZ, Samples

Wave = NDArray[np.float32]
LONGEST_S = 16.0
INSIDE = 0.8
"""Of a word: with so much of it in the window it belongs to the transcript."""
EMPTY_PART = 0.12
"""Of the windows have no speech."""


class Heard(NamedTuple):
    """A word (its place in the vocabulary) and its samples."""

    word: int
    start: int
    end: int


class Window(NamedTuple):
    sound: Wave
    inside: list[Heard]
    """The words of the transcript,"""
    touched: list[Heard]
    """and all of which anything can be heard, for the frames."""
    speech: bool


class Speech(NamedTuple):
    """Utterances, one after the other."""

    pcm: Samples
    ends: NDArray[np.int64]
    """Where each utterance ends,"""
    words: NDArray[np.int64]
    """[words, 4]: utterance, word, start, end; in samples of the utterance."""

    @classmethod
    def spoken(cls, seed: int, count: int) -> "Speech":
        """So many training sentences in training voices; a sentence comes again in another voice once all were said."""
        draw = random.Random(f"speech {seed}")
        texts = grammar.sentences(seed, count, tested=False)
        said = [grammar.speak(text, *grammar.someone(draw, tested=False)) for text in texts]
        place = {word: number for number, word in enumerate(grammar.VOCABULARY)}
        words = [(n, place[w.word], w.start, w.end) for n, each in enumerate(said) for w in each.words]
        ends = np.cumsum([len(each.pcm) for each in said])
        return cls(np.concatenate([each.pcm for each in said]), ends, np.array(words, np.int64))

    @classmethod
    def kept(cls, path: Path, seed: int, count: int) -> "Speech":
        """From a file that an earlier run left, or made and left there."""
        if path.exists():
            with np.load(path) as file:
                if file["made"].tolist() == [seed, count]:
                    return cls(file["pcm"], file["ends"], file["words"])
        speech = cls.spoken(seed, count)
        path.parent.mkdir(parents=True, exist_ok=True)
        np.savez(path, made=np.array([seed, count]), **speech._asdict())
        return speech

    def utterance(self, number: int) -> tuple[Wave, list[Heard]]:
        begin = int(self.ends[number - 1]) if number else 0
        first, behind = np.searchsorted(self.words[:, 0], (number, number + 1))
        wave = self.pcm[begin : self.ends[number]] / np.float32(32768)
        return _wave(wave), [Heard(*row) for row in self.words[first:behind, 1:].tolist()]


def window(speech: Speech, draw: np.random.Generator) -> Window:
    if draw.random() < EMPTY_PART:
        return Window(empty(draw), [], [], speech=False)
    sound, words = _joined(speech, draw)
    begin, end = _cut(len(sound), words, draw)
    sound = _disturbed(sound[begin:end], draw)
    inside = [w for w in words if min(w.end, end) - max(w.start, begin) >= INSIDE * (w.end - w.start)]
    return Window(sound, _moved(inside, begin, end), _moved(words, begin, end), speech=True)


def _joined(speech: Speech, draw: np.random.Generator) -> tuple[Wave, list[Heard]]:
    """One to three utterances with pauses between, and silence around."""
    many = int(draw.choice([1, 2, 3], p=[0.82, 0.13, 0.05]))
    silence = draw.exponential(0.25) if draw.random() < 0.9 else draw.uniform(0.5, 2.5)
    waves, words, at = [np.zeros(_samples(silence), np.float32)], [], _samples(silence)
    for _ in range(many):
        wave, own = speech.utterance(int(draw.integers(len(speech.ends))))
        words += [Heard(w.word, w.start + at, w.end + at) for w in own]
        pause = np.zeros(_samples(draw.uniform(0.05, 1.0)), np.float32)
        waves += [wave * 10 ** draw.uniform(-0.2, 0.0), pause]
        at += len(wave) + len(pause)
    return np.concatenate(waves)[: _samples(LONGEST_S - 0.1)], words


def _cut(samples: int, words: list[Heard], draw: np.random.Generator) -> tuple[int, int]:
    """A growing window ends anywhere; one that was moved on begins near a word's edge."""
    begin, end = 0, samples
    if draw.random() < 0.3 and len(words) > 2:
        edge = words[int(draw.integers(len(words) - 1))].end
        begin = min(max(0, edge + _samples(draw.normal(0, 0.05))), samples - _samples(0.3))
    if draw.random() < 0.6:
        end = int(draw.integers(begin + _samples(0.2), samples + 1)) if samples - begin > _samples(0.2) else samples
    return max(0, begin), end


def _moved(words: Iterable[Heard], begin: int, end: int) -> list[Heard]:
    """As the window counts."""
    clipped = (Heard(w.word, max(w.start, begin) - begin, min(w.end, end) - begin) for w in words)
    return [each for each in clipped if each.end > each.start]


def _disturbed(sound: Wave, draw: np.random.Generator) -> Wave:
    """Louder or softer, and mostly in noise."""
    peak = float(np.abs(sound).max(initial=1e-4))
    sound = sound * np.float32(_gain(draw.uniform(-32, -1)) / max(peak, 1e-4))
    if draw.random() < 0.35:
        return sound
    power = float(np.sqrt(np.mean(sound**2))) + 1e-6
    return _wave(np.clip(sound + power * _gain(-draw.uniform(12, 45)) * noise(len(sound), draw), -1, 1))


def noise(samples: int, draw: np.random.Generator) -> Wave:
    """Of some colour between brown and a little blue, loudness 1; sometimes with a hum."""
    whole = -(-samples // 4096) * 4096  # a length that the transform is quick at
    spectrum = np.fft.rfft(draw.standard_normal(whole, np.float32))
    hz = np.maximum(np.fft.rfftfreq(whole, 1 / SAMPLE_RATE_HZ), 30.0).astype(np.float32)
    wave = np.fft.irfft(spectrum * hz ** np.float32(draw.uniform(-1.0, 0.2)), whole)[:samples]
    if draw.random() < 0.2:
        at = np.arange(samples) / SAMPLE_RATE_HZ
        base = draw.choice([50.0, 60.0, 100.0])
        hum = sum(np.sin(2 * np.pi * base * k * at + draw.uniform(0, 6)) / k for k in range(1, 5))
        wave = wave / (wave.std() + 1e-9) + draw.uniform(0.2, 1.5) * hum
    return _wave(wave / (wave.std() + 1e-9))


def empty(draw: np.random.Generator) -> Wave:
    """Silence, noise, tones, or notes with overtones, of any loudness."""
    samples = _samples(min(12.0, 0.2 + draw.exponential(2.5)))
    kind = draw.choice(4, p=[0.2, 0.35, 0.15, 0.3])
    loud = np.float32(_gain(draw.uniform(-75, -10)))
    if kind == 0:
        return np.zeros(samples, np.float32)
    if kind == 1:
        return _wave(np.clip(loud * noise(samples, draw) * _swelling(samples, draw), -1, 1))
    wave = tones(samples, draw) if kind == 2 else notes(samples, draw)
    wave = loud * wave + _gain(draw.uniform(-90, -35)) * noise(samples, draw)
    return _wave(np.clip(wave, -1, 1))


def _swelling(samples: int, draw: np.random.Generator) -> Wave:
    """Mostly even; else up and down a few times a second, as speech does."""
    if draw.random() < 0.5:
        return np.ones(samples, np.float32)
    at = np.arange(samples) / SAMPLE_RATE_HZ
    return _wave(np.maximum(0, np.sin(2 * np.pi * draw.uniform(0.3, 6) * at + draw.uniform(0, 6))) ** 2)


def tones(samples: int, draw: np.random.Generator) -> Wave:
    """A few that last, or slide."""
    wave = np.zeros(samples)
    for _ in range(int(draw.integers(1, 4))):
        begin, end = draw.uniform(80, 4000, 2).tolist()
        hz = np.geomspace(begin, end if draw.random() < 0.4 else begin, samples)
        wave += np.sin(2 * np.pi * np.cumsum(hz) / SAMPLE_RATE_HZ)
    return _wave(_swelling(samples, draw) * wave / (np.abs(wave).max() + 1e-9))


def notes(samples: int, draw: np.random.Generator) -> Wave:
    """Chords that are struck and die away."""
    wave = np.zeros(samples)
    at = 0
    while at < samples:
        many = min(samples - at, _samples(draw.uniform(0.12, 0.9)))
        t = np.arange(many) / SAMPLE_RATE_HZ
        envelope = np.exp(-t * draw.uniform(0.5, 8)) * np.minimum(1, t / draw.uniform(0.003, 0.08))
        for _ in range(int(draw.integers(1, 4))):
            hz = 55 * 2 ** (draw.integers(0, 48) / 12)
            overtones = draw.uniform(0.3, 1.0) ** np.arange(8)
            for k, strength in enumerate(overtones, 1):
                if k * hz < SAMPLE_RATE_HZ / 2:
                    wave[at : at + many] += strength * envelope * np.sin(2 * np.pi * k * hz * t)
        at += many
    return _wave(wave / (np.abs(wave).max() + 1e-9))


def _wave(numbers: Any) -> Wave:
    return np.asarray(numbers, np.float32)


def _samples(seconds: float) -> int:
    return round(seconds * SAMPLE_RATE_HZ)


def _gain(decibels: float) -> float:
    return float(10 ** (decibels / 20))
