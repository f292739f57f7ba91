"""What recognisers are given to hear: clips with their texts, sentences of the small grammar, and sound in which nobody speaks."""

import random
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from clser.bench import espeak, grammar
from clser.bench.asr_words import normalised
from clser.bench.scene import Phrase, Scene, Sound, Take, from_s16, spaced, to_s16
from clser.engine.errors import GivenError, MissingError
from clser.engine.records import SAMPLE_RATE_HZ, Samples, samples
from clser.models.data.clips import read_sound
from clser.models.data.manifests import read_manifest
from clser.models.data.unvoiced import Sources, kinds, made

GAP_S = (0.8, 1.1)
"""Between clips: enough to end an utterance, whatever silence is asked for by default."""
AROUND = samples(300)
"""Of the scene before and after a clip goes with it where it is decoded by itself; the engine hears as much."""
ROUND_S = 25.0
PLAYED = {"clips": (4, 2), "sentences": (2, 2)}
"""So many rounds are played with recognition, and so many of them without it as well; in short, one."""
PIECE_S = (2.0, 15.0)
SILENCE = "silence"
SAID = "babble"
"""The kind that is left out: its words are words."""


class Said(NamedTuple):
    """A clip or a sentence."""

    name: str
    text: str
    sound: Sound
    words: tuple[tuple[str, int], ...] = ()
    """Where the end of each word is known: the word, and that sample of the sound."""


class Spoken(NamedTuple):
    """A phrase where it lies in its scene."""

    said: Said
    phrase: Phrase
    alone: Samples
    """It and a little around it, as the scene has it."""


class Round(NamedTuple):
    scene: Scene
    spoken: tuple[Spoken, ...]


class Material(NamedTuple):
    """All that the same recognisers are measured on."""

    name: str
    language: str
    """Empty: of several, or not known."""
    rounds: tuple[Round, ...]
    played: int
    """So many of the rounds go through an engine at the pace of speech;"""
    paired: int
    """so many of these without recognition, too."""

    @property
    def spoken(self) -> list[Spoken]:
        return [spoken for each in self.rounds for spoken in each.spoken]


class Piece(NamedTuple):
    """Sound without speech."""

    kind: str
    sound: Samples


def material(name: str, language: str, said: Sequence[Said], seed: int, short: bool) -> Material:
    """Laid out in rounds of about half a minute."""
    order = [said[at] for at in np.random.default_rng(seed).permutation(len(said))]
    rounds = [_round(name, part, seed + at) for at, part in enumerate(_parts(order))]
    played, paired = (1, 1) if short else PLAYED[name]
    return Material(name, language, tuple(rounds), min(played, len(rounds)), min(paired, len(rounds)))


def _parts(order: Sequence[Said]) -> list[list[Said]]:
    """As few as there can be, of about the same length."""
    lengths = [len(each.sound) / SAMPLE_RATE_HZ + GAP_S[1] for each in order]
    count = max(1, round(sum(lengths) / ROUND_S))
    ends = np.cumsum(lengths)
    parts: list[list[Said]] = [[] for _ in range(count)]
    for each, length_s, end_s in zip(order, lengths, ends, strict=True):
        parts[min(count - 1, int((end_s - length_s / 2) / ends[-1] * count))].append(each)
    return [part for part in parts if part]


def _round(source: str, part: Sequence[Said], seed: int) -> Round:
    named = {str(at): each for at, each in enumerate(part)}
    scene = spaced([Take(name, each.sound) for name, each in named.items()], len(part), GAP_S, seed, source)
    spoken = []
    for phrase in scene.phrases:
        alone = scene.sound[max(0, phrase.onset - AROUND) : phrase.offset + AROUND]
        spoken.append(Spoken(named[phrase.name], phrase, alone))
    return Round(scene, tuple(spoken))


def clips(manifest: Path, audio: Path | None, most: int, seed: int) -> tuple[list[Said], str]:
    """Those of the manifest that have a text, `most` of them drawn where there are more; and their language, if it is one."""
    there = [clip for clip in read_manifest(manifest, audio, labelled=False, check=False) if normalised(clip.text)]
    if not there:
        raise GivenError(f"--manifest {manifest}: no clip has a text; give one whose column `text` says what is spoken")
    if len(there) > most:
        there = [there[at] for at in sorted(np.random.default_rng(seed).permutation(len(there))[:most])]
    languages = {clip.language for clip in there}
    said = [Said(clip.path.stem, clip.text, read_sound(clip)) for clip in there]
    return said, languages.pop() if len(languages) == 1 else ""


def sentences(count: int, seed: int) -> list[Said]:
    """Held-out sentences of the grammar in held-out voices. MissingError without espeak-ng."""
    if not espeak.present():
        raise MissingError("espeak-ng is not installed, which speaks the sentences; `apt install espeak-ng`")
    draw = random.Random(f"asr {seed}")
    said = []
    for number, text in enumerate(grammar.sentences(seed, count)):
        spoken = grammar.speak(text, *grammar.someone(draw))
        words = tuple((word.word, word.end) for word in spoken.words)
        said.append(Said(f"sentence {number}", " ".join(grammar.plain(text)), from_s16(spoken.pcm), words))
    return said


def speechless(minutes: float, noises: Path | None, seed: int) -> list[Piece]:
    """So many minutes in all, of each kind as much: recorded noises where there are some, music and what else is made, silence."""
    made_of = Sources(_recordings(noises), (), tested=True)
    each = [kind for kind in kinds(made_of.noises, ()) if kind != SAID]
    total = minutes * 60 / (len(each) + 1)
    return [
        Piece(kind, sound)
        for kind in (*each, SILENCE)
        for sound in _pieces(kind, total, made_of, np.random.default_rng([seed, len(kind)]), seed)
    ]


def _pieces(kind: str, seconds: float, made_of: Sources, draw: np.random.Generator, seed: int) -> Iterator[Samples]:
    left, number = round(seconds * SAMPLE_RATE_HZ), 0
    while left > 0:
        many = round(draw.uniform(*PIECE_S) * SAMPLE_RATE_HZ)
        many = left if left - many < PIECE_S[0] * SAMPLE_RATE_HZ else many
        many = min(many, round(PIECE_S[1] * SAMPLE_RATE_HZ), left)
        if kind == SILENCE:
            yield np.zeros(many, np.int16)
        else:
            yield to_s16(made(kind, f"asr {seed} {kind} {number}", many, made_of))
        left, number = left - many, number + 1


def _recordings(folder: Path | None) -> list[Sound]:
    if folder is None:
        print("no recorded noises: give --noise DIR; what is made stands alone", file=sys.stderr)
        return []
    return [read_sound(clip) for clip in read_manifest(folder, labelled=False, check=False)]
