"""PocketSphinx: English, small, quick, and often wrong. It hears sound as it comes.

What it writes in passing is worse than what it makes of a stretch of sound once all of it can be weighed, and it can weigh a
stretch only by ending it. So it ends one every second (a turn), settles the words that are not too near its end, and begins anew a
few words before the others. Nothing of one utterance reaches the next.
"""
# ruff: noqa: N815 (shapes stand in the names of arrays: S samples)

import hashlib
import math
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np

from clser.engine.asr import AsrConfig
from clser.engine.backends import Recogniser, guards
from clser.engine.errors import GivenError, MissingError
from clser.engine.jobs import RecogniserCard, Row, Word, Words
from clser.engine.records import Samples, samples

NEEDS = "pip install 'clser-stream[sphinx]'"
STEP_MS = 200
TRUST = 0.4
"""It gets more than a third of plain read words wrong, more of emotional ones: what they tell is worth less than half."""
LEAST_SAMPLES = samples(200)  # less sound than this holds no word
KNOWN_SAMPLES = samples(1000)  # so much sound tells how loud the voice is and how the microphone colours it
TURN_SAMPLES = samples(1000)
NEAR_SAMPLES = samples(400)  # a word so near the end of the sound may be half of another
REACH_SAMPLES = samples(2000)  # a stretch begins at most so long before its first open word
CONTEXT = 2  # settled words that are heard again, so that the next ones are not guessed without company
HELD = 4  # decoders that listen on from row to row, of 90 MB each; who finds none free is heard at turns
FORGOTTEN = 200  # batches without a row: whoever held that decoder has gone
FRAME_SAMPLES = 160
CHANCE = (1.24, 0.51, 0.23)
MOST_GUESSES = 5000  # that are followed at a time
LEAST = 1e-300  # the smallest likelihood that has a logarithm here
CHUNK_SAMPLES = 1600  # the decoder's words depend a little on how it is fed, so it is always fed alike
SUSPECT_BELOW = 0.44  # under it lie nine of ten foreign utterances, and one of seven that are plainly read
SPARSE, AROUND_SAMPLES = 0.3, samples(1000)
PASSING = 0.35  # the chance that a word is right which was only heard in passing
VARIANT = re.compile(r"\(\d+\)$")  # of a pronunciation


class Ear(Protocol):
    """A decoder, which hears one stretch of sound after the other."""

    def begin(self, known_S: Samples) -> None:
        """Another stretch; the sound tells what the voice is like in it."""

    def feed(self, sound_S: Samples) -> None: ...

    def passing(self) -> list[Word]:
        """What it would write by now, timed from the stretch's start."""

    def end(self) -> list[Word]:
        """What it writes, all weighed. It has to begin anew after that."""


class Heard(NamedTuple):
    """What is kept of an utterance. All places are in samples since it began."""

    sound_S: Samples = np.zeros(0, np.int16)
    """From `begin` on."""
    begin: int = 0
    """Where the stretch begins that is heard now,"""
    fed: int = -1
    """up to where an ear has it (-1: none listens),"""
    weighed: int = 0
    """and up to where the words were last weighed."""
    settled: tuple[Word, ...] = ()
    open: tuple[Word, ...] = ()

    @property
    def end(self) -> int:
        return self.begin + len(self.sound_S)

    @property
    def words(self) -> tuple[Word, ...]:
        return (*self.settled, *self.open)


class Sphinx:
    """`Recogniser` over any ears."""

    def __init__(self, card: RecogniserCard, make: Callable[[], Ear], config: AsrConfig) -> None:
        self.card = card
        self._make, self._config = make, config
        self._free = [make()]
        self._held: dict[int, Ear] = {}
        self._spare: Ear | None = None
        self._seen: dict[int, int] = {}
        self._batches = 0
        self._kept: dict[int, Heard] = {}

    def run(self, rows: Sequence[Row], pcm: Samples) -> list[Words]:
        self._batches += 1
        sounds = np.split(pcm, np.cumsum([row.frames for row in rows])[:-1])
        return [self._row(row, sound_S) for row, sound_S in zip(rows, sounds, strict=True)]

    def _row(self, row: Row, new_S: Samples) -> Words:
        if row.fresh:
            self._let_go(row.slot)
            self._kept.pop(row.slot, None)
        self._seen[row.slot] = self._batches
        heard = self._kept.get(row.slot, Heard())
        heard = heard._replace(sound_S=np.concatenate((heard.sound_S, new_S)))
        if heard.end > heard.weighed and heard.end >= LEAST_SAMPLES:
            due = row.anew or row.last or heard.end >= max(KNOWN_SAMPLES, heard.weighed + TURN_SAMPLES)
            heard = self._weigh(row.slot, heard) if due else self._listen(row.slot, heard)
        if row.last:
            self._let_go(row.slot)
            heard = heard._replace(settled=heard.words, open=(), fed=-1)
        self._kept[row.slot] = heard
        return self._say(row, heard)

    def _listen(self, slot: int, heard: Heard) -> Heard:
        """A row between two turns: nothing is settled by it."""
        ear = self._own(slot) if heard.end >= KNOWN_SAMPLES else None
        if ear is None:
            return heard
        catch_up(ear, heard)
        return heard._replace(fed=heard.end, open=not_yet(ear.passing(), heard))

    def _weigh(self, slot: int, heard: Heard) -> Heard:
        ear = self._own(slot)
        if ear is None:
            self._spare = ear = self._spare or self._make()
        catch_up(ear, heard)
        return turned(heard, ear.end())

    def _own(self, slot: int) -> Ear | None:
        """The ear that listens to this slot alone, if there is one left for it."""
        if slot in self._held:
            return self._held[slot]
        for other in [other for other in self._held if self._batches - self._seen[other] > FORGOTTEN]:
            self._let_go(other)
        if len(self._held) >= HELD:
            return None
        self._held[slot] = self._free.pop() if self._free else self._make()
        return self._held[slot]

    def _let_go(self, slot: int) -> None:
        if slot in self._held:
            self._free.append(self._held.pop(slot))
            if slot in self._kept:
                self._kept[slot] = self._kept[slot]._replace(fed=-1)

    def _say(self, row: Row, heard: Heard) -> Words:
        words = heard.words
        confidence = float(np.mean([word.confidence for word in words])) if words else 0.0
        foreign = bool(row.language) and not english(row.language)
        doubt = foreign or confidence < SUSPECT_BELOW or sparse(words, heard.end)
        doubt = doubt or bool(guards.doubt(words, heard.end, self._config))
        return Words(
            words=words,
            stable=len(heard.settled),
            language="en" if words and not doubt else "",
            confidence=confidence,
            suspect=bool(words) and doubt,
            whole=heard.weighed == heard.end or heard.end < LEAST_SAMPLES,
        )


def catch_up(ear: Ear, heard: Heard) -> None:
    """Gives the ear all of the stretch that it has not heard."""
    fed = heard.fed
    if fed < 0:
        # What was there at the last turn, and no more: so it is the same whenever an ear begins.
        ear.begin(heard.sound_S[: max(heard.weighed - heard.begin, KNOWN_SAMPLES)])
        fed = heard.begin
    ear.feed(heard.sound_S[fed - heard.begin :])


def not_yet(words: Iterable[Word], heard: Heard) -> tuple[Word, ...]:
    """The words of a stretch, timed in the utterance, without those that lie in what is settled."""
    behind = heard.settled[-1].end if heard.settled else 0
    placed = (Word(w.text, w.start + heard.begin, w.end + heard.begin, w.confidence) for w in words)
    return tuple(
        Word(word.text, max(word.start, behind), word.end, word.confidence)
        for word in placed
        if (word.start + word.end) / 2 > behind
    )


def turned(heard: Heard, weighed: Sequence[Word]) -> Heard:
    """After a turn: what is behind the end of the sound is settled, and the next stretch begins before the rest."""
    words = not_yet(weighed, heard)
    # To wait until two turns agree was tried: it took half a second longer and was right no more often.
    count = sum(word.end <= heard.end - NEAR_SAMPLES for word in words)
    settled = (*heard.settled, *words[:count])
    first_open = words[count].start if count < len(words) else heard.end
    context = settled[-CONTEXT].start if len(settled) >= CONTEXT else 0
    begin = max(heard.begin, context, min(first_open, heard.end) - REACH_SAMPLES)
    rest_S = heard.sound_S[begin - heard.begin :].copy()
    return Heard(rest_S, begin, -1, heard.end, settled, words[count:])


def sparse(words: Iterable[Word], size: int) -> bool:
    """Whether words fill little of a sound: who speaks does not leave most of it out. What leads in and out is not counted."""
    return sum(word.end - word.start for word in words) < SPARSE * (size - AROUND_SAMPLES)


def english(language: str) -> bool:
    return language.partition("-")[0].casefold() == "en"


class PocketEar:
    """PocketSphinx's decoder with the models that it brings."""

    def __init__(self, kit: Any, mean: Callable[[Samples], str]) -> None:
        # Its second pass, `fwdflat`, gained nothing here and made an ending four times as long. In noise it follows ten times as
        # many guesses as in speech, for nothing.
        self._decoder = kit.Decoder(loglevel="FATAL", fwdflat=False, maxhmmpf=MOST_GUESSES)
        self._mean = mean
        self._rest_S = np.zeros(0, np.int16)
        self._listens = False
        noise_S = np.random.default_rng(1).normal(0, 1000, KNOWN_SAMPLES).astype(np.int16)
        self.begin(noise_S)  # what it hears first of all it hears a little otherwise than what comes later
        self.feed(noise_S)
        self.end()

    def begin(self, known_S: Samples) -> None:
        if self._listens:
            self._decoder.end_utt()
        # Left alone, it would go by the mean and the noise of what it heard before, which was somebody else.
        self._decoder.reinit_feat()
        self._decoder.set_cmn(self._mean(known_S))
        self._decoder.start_utt()
        self._listens = True
        self._rest_S = np.zeros(0, np.int16)

    def feed(self, sound_S: Samples) -> None:
        sound_S = np.concatenate((self._rest_S, sound_S))
        whole = len(sound_S) - len(sound_S) % CHUNK_SAMPLES
        for at in range(0, whole, CHUNK_SAMPLES):
            self._decoder.process_raw(sound_S[at : at + CHUNK_SAMPLES].tobytes(), False, False)
        self._rest_S = sound_S[whole:]

    def passing(self) -> list[Word]:
        return [Word(*placed, PASSING) for placed, _ in self._written()]

    def end(self) -> list[Word]:
        if self._rest_S.size:
            self._decoder.process_raw(self._rest_S.tobytes(), False, False)
        self._decoder.end_utt()
        self._listens = False
        return [Word(*placed, chance(*thought)) for placed, thought in self._written()]

    def _written(self) -> Iterator[tuple[tuple[str, int, int], tuple[float, float]]]:
        """Words with their places; how probable each is next to its rivals, and how well a frame of it sounds like it."""
        for one in self._decoder.seg() or ():
            if one.word[0] in "<[+":  # silence, breath, noise
                continue
            start, end = one.start_frame * FRAME_SAMPLES, (one.end_frame + 1) * FRAME_SAMPLES
            sounds = math.log(max(one.ascore, LEAST)) / (one.end_frame + 1 - one.start_frame)
            yield (" " + VARIANT.sub("", one.word), start, end), (one.prob, sounds)


def chance(posterior: float, sounds: float) -> float:
    """That a word is right, by its posterior and its acoustic log-likelihood a frame, next to the best of all sounds.

    Fitted to 520 words that 35 people read or acted, of which two in five were right. On words of Italian, Polish and Chinese
    it says a third: it is the sound that tells, since among wrong words one always wins.
    """
    at_one, of_posterior, of_sound = CHANCE
    return 1 / (1 + math.exp(-(at_one + of_posterior * math.log(max(posterior, 1e-4)) + of_sound * sounds)))


def meter(kit: Any) -> Callable[[Samples], str]:
    """Tells the mean of a sound's features, as the decoder wants it told. Nothing is searched for, so it is quick and small."""
    decoder = kit.Decoder(loglevel="FATAL", lm=None, keyphrase="the")

    def mean(sound_S: Samples) -> str:
        decoder.reinit_feat()
        decoder.start_utt()
        decoder.process_raw(sound_S.tobytes(), True, True)
        said: str = decoder.get_cmn(False)
        decoder.end_utt()
        return said

    return mean


def open_recogniser(name: str, compute: str, config: AsrConfig) -> Recogniser:
    """Sphinx as the package brings it; it goes by no other `name`."""
    if name:
        raise GivenError(f"asr.recogniser 'sphinx:{name}': Sphinx comes with one model; give sphinx")
    if config.language and not english(config.language):
        raise GivenError(
            f"asr.language {config.language!r}: Sphinx knows English only; give en, or asr.recogniser=whisper"
        )
    if compute != "cpu":
        raise GivenError(f"asr.compute {compute!r}: Sphinx computes on the CPU; give cpu, or asr.recogniser=whisper")
    try:
        kit = import_module("pocketsphinx")
    except ImportError as error:
        raise MissingError(f"asr.recogniser 'sphinx': pocketsphinx is not here ({error}): {NEEDS}") from error
    mean = meter(kit)
    digest = hashlib.sha256(Path(kit.get_model_path("en-us/en-us.lm.bin")).read_bytes()).hexdigest()[:16]
    card = RecogniserCard("sphinx", digest, ("en",), STEP_MS, TRUST)
    return Sphinx(card, lambda: PocketEar(kit, mean), config)
