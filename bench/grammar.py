"""A small language for recognisers that are made here: a hundred words, sentences of two to twelve, and voices to speak them.

Which sentences and which voices are held out is told by their text and name alone, so whoever trains on the others and
whoever tests on these agree without a list between them.
"""

import hashlib
import random
from collections.abc import Iterator, Sequence

from clser.bench.espeak import Spoken, WordTime, say

__all__ = ["VOCABULARY", "WordTime", "held_out", "held_out_voices", "plain", "sentences", "speak", "voices"]

DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
COLOURS = ("red", "green", "blue", "yellow", "black", "white", "orange", "purple")
NAMES = ("anna", "peter", "maria", "david", "laura", "thomas", "helen", "martin")
THINGS = ("door", "window", "lamp", "table", "chair", "book", "cup", "box", "letter", "bottle")
ROOMS = ("kitchen", "garden", "bedroom", "office")
DOINGS = ("open", "close", "take", "bring", "find", "show")
PLACES = ("on", "under", "behind")
FEELINGS = ("happy", "sad", "angry", "afraid", "tired", "lonely", "surprised", "proud")
WHEN = ("now", "today", "again", "tomorrow")
OUTCRIES = (
    "this is wonderful",
    "this is terrible",
    "i hate this",
    "i love this",
    "i love you",
    "i hate you",
    "leave me alone",
    "please help me",
    "thank you",
    "go away",
    "stop this now",
    "oh no",
    "yes please",
    "what a surprise",
    "why are you here",
)
LEAST_WORDS, MOST_WORDS = 2, 12
HELD_OUT_PART = 8
"""One sentence of so many is held out."""

ACCENTS = ("en", "en-us", "en-gb-scotland", "en-gb-x-rp", "en-gb-x-gbclan", "en-gb-x-gbcwmd", "en-us-nyc", "en-029")
_OTHERS = ("klatt2", "Annie", "Andy", "edward", "rob", "grandpa", "aunty", "michael")
TIMBRES = ("m1", "m2", "m3", "m5", "m6", "m8", "f1", "f2", "f4", "f5", *_OTHERS)
HELD_OUT_TIMBRES = ("m4", "m7", "f3", "steph")
RATE_WPM = (120, 220)
PITCH = (20, 80)


def _command(draw: random.Random) -> str:
    thing = f"the {draw.choice(COLOURS)} {draw.choice(THINGS)}" if draw.random() < 0.6 else f"the {draw.choice(THINGS)}"
    if draw.random() < 0.4:
        return f"put {thing} {draw.choice(PLACES)} the {draw.choice(THINGS)}"
    where = draw.choice(("", "", f" in the {draw.choice(ROOMS)}", f" to {draw.choice(NAMES)}", f" {draw.choice(WHEN)}"))
    return f"{draw.choice(DOINGS)} {thing}{where}"


def _telling(draw: random.Random) -> str:
    name, other = draw.sample(NAMES, 2)
    return draw.choice(
        (
            f"{name} is in the {draw.choice(ROOMS)}",
            f"{name} and {other} are in the {draw.choice(ROOMS)}",
            f"{name} wants the {draw.choice(COLOURS)} {draw.choice(THINGS)}",
            f"{name} has {draw.choice(DIGITS)} {draw.choice(COLOURS)} things",
            f"call {name} {draw.choice(WHEN)}",
            f"{name} is {draw.choice(('so', 'very', 'not'))} {draw.choice(FEELINGS)}",
        )
    )


def _numbers(draw: random.Random) -> str:
    digits = " ".join(draw.choice(DIGITS) for _ in range(draw.randint(2, 7)))
    return f"call {digits}" if draw.random() < 0.3 else digits


def _feeling(draw: random.Random) -> str:
    who = draw.choice(("i am", "i am", "we are", "you are", "why are you", "i feel"))
    how = draw.choice(("", "so ", "very ", "not "))
    return f"{who} {how}{draw.choice(FEELINGS)}{draw.choice(('', '', f' {draw.choice(WHEN)}'))}"


def _outcry(draw: random.Random) -> str:
    return draw.choice(OUTCRIES)


_KINDS = (_command, _command, _command, _telling, _telling, _numbers, _feeling, _feeling, _outcry)


def _sentence(draw: random.Random) -> str:
    """A comma is where the speaker pauses."""
    text = draw.choice(_KINDS)(draw)
    if draw.random() < 0.35:
        text = f"{text}{draw.choice((', ', ', ', ' and '))}{draw.choice(_KINDS)(draw)}"
    return text


def plain(text: str) -> list[str]:
    """The words of a sentence, as a transcript has them."""
    return text.replace(",", "").split()


VOCABULARY = tuple(
    sorted(
        {*DIGITS, *COLOURS, *NAMES, *THINGS, *ROOMS, *DOINGS, *PLACES, *FEELINGS, *WHEN}
        | {word for outcry in OUTCRIES for word in outcry.split()}
        | {"the", "put", "in", "to", "is", "and", "are", "wants", "has", "things", "call"}
        | {"so", "very", "not", "i", "am", "we", "you", "why", "feel"}
    )
)


def held_out(text: str) -> bool:
    """Whether nothing may be trained on it: what counts is the words, not where the pauses are."""
    return hashlib.sha256(" ".join(plain(text)).encode()).digest()[0] % HELD_OUT_PART == 0


def sentences(seed: int, count: int, *, tested: bool = True) -> list[str]:
    """So many different ones, the same for the same seed: of those that are held out, or of the others."""
    return [text for text, _ in zip(_endless(seed, tested), range(count), strict=False)]


def _endless(seed: int, tested: bool) -> Iterator[str]:
    draw = random.Random(f"grammar {seed}")
    said: set[str] = set()
    while True:
        text = _sentence(draw)
        if held_out(text) is tested and text not in said and LEAST_WORDS <= len(plain(text)) <= MOST_WORDS:
            said.add(text)
            yield text


def voices() -> list[str]:
    """To train on."""
    return _voices(TIMBRES)


def held_out_voices() -> list[str]:
    return _voices(HELD_OUT_TIMBRES)


def _voices(timbres: Sequence[str]) -> list[str]:
    return [f"{accent}+{timbre}" for accent in ACCENTS for timbre in timbres]


def speak(text: str, voice: str, rate_wpm: int = 160, pitch: int = 50) -> Spoken:
    """One sentence: samples of 16 kHz, and when each of its words is said. MissingError without espeak-ng."""
    return say(text, voice, rate_wpm, pitch, plain(text))


def someone(draw: random.Random, *, tested: bool = True) -> tuple[str, int, int]:
    """A voice, how fast it speaks and how high, as `speak` takes them."""
    voice = draw.choice(held_out_voices() if tested else voices())
    return voice, draw.randint(*RATE_WPM), draw.randint(*PITCH)
