"""Speech that nobody spoke: what a synthesiser is, espeak-ng as one, and how clips made by one are told from recordings."""

import io
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol
from xml.sax.saxutils import escape

import numpy as np
import soundfile
import soxr

from clser.models.data.clips import Clip, Sound
from clser.models.errors import FailedError, GivenError, MissingError
from clser.models.features.constants import SAMPLE_RATE_HZ

SYNTHETIC = "synthetic"
"""How the note of a clip begins that was made and not recorded."""


class Voice(NamedTuple):
    """Somebody who can be made to speak."""

    name: str
    language: str
    gender: str = ""


class Synthesiser(Protocol):
    """Says texts. The same text, emotion, voice and seed give the same sound."""

    name: str
    """For the note of what it said."""

    def voices(self, language: str) -> Sequence[Voice]:
        """Those who speak that language; none: it cannot."""

    def say(self, text: str, emotion: str, voice: Voice, seed: int) -> Sound:
        """16 kHz mono in -1..1, in whatever way it can sound like that emotion. Signs like (sighs) in the text are for
        whoever can make such a sound; others leave them out."""


class Manner(NamedTuple):
    """From least to most of each: words a minute, espeak's pitch (0 to 99), its range in per cent of the voice's own, and
    loudness (0 to 200)."""

    words_per_minute: tuple[int, int]
    pitch: tuple[int, int]
    pitch_range: tuple[int, int]
    amplitude: tuple[int, int]


MANNERS: Mapping[str, Manner] = {
    "anger": Manner((180, 225), (55, 80), (130, 190), (130, 190)),
    "disgust": Manner((125, 165), (28, 48), (60, 110), (90, 130)),
    "fear": Manner((185, 235), (70, 95), (70, 130), (70, 120)),
    "happiness": Manner((165, 205), (60, 88), (140, 200), (105, 155)),
    "neutral": Manner((150, 180), (38, 56), (80, 110), (85, 115)),
    "sadness": Manner((105, 140), (25, 45), (25, 60), (45, 85)),
    "surprise": Manner((150, 195), (65, 92), (160, 200), (105, 155)),
}
"""What is said of acted speech in general: anger and joy are fast, high and loud, sadness slow, low and soft. A synthesiser
that is turned these knobs shows no emotion. It shows this table, and a system can learn the table by heart."""
VARIANTS = ("m1", "m3", "m4", "m7", "f1", "f2", "f4", "f5")
"""Of espeak-ng's timbres, those that sound like different people."""
NAMES = {"en": ("en-us", "en"), "zh": ("cmn-latn-pinyin",)}
"""Where espeak-ng's name of a language is not its code. Its `cmn` reads Chinese out as English letters and figures."""
PACE = {"zh": 1.7}
"""To espeak-ng a Chinese syllable is a word."""
LIMIT_S = 30.0


class Espeak:
    """espeak-ng: small, everywhere, in over a hundred languages, and a robot in each.

    Each text is said by a process of its own: within one, what was said before changes what comes next.
    """

    name = "espeak-ng"

    def __init__(self) -> None:
        self._program = found()
        said = self._ran("--voices")
        self._languages = {line.split()[1].decode() for line in said.splitlines()[1:]}

    def voices(self, language: str) -> Sequence[Voice]:
        """A voice for each timbre."""
        name = next((name for name in NAMES.get(language, (language,)) if name in self._languages), None)
        if name is None:
            return ()
        genders = {"m": "male", "f": "female"}
        return tuple(Voice(f"{name}+{variant}", language, genders[variant[0]]) for variant in VARIANTS)

    def say(self, text: str, emotion: str, voice: Voice, seed: int) -> Sound:
        """In the emotion's `Manner`, somewhere between its bounds."""
        random = np.random.default_rng(seed)
        manner = MANNERS.get(emotion, MANNERS["neutral"])
        rate, pitch, wide, loud = (int(random.integers(least, most + 1)) for least, most in manner)
        rate = round(rate * PACE.get(voice.language, 1.0))
        # The pitch range has no option of its own, only markup.
        markup = f'<speak><prosody range="{wide}%">{escape(plain(text))}</prosody></speak>'
        raw = self._ran("-m", "-v", voice.name, "-s", str(rate), "-p", str(pitch), "-a", str(loud), "--stdout", markup)
        try:
            wave, rate_hz = soundfile.read(io.BytesIO(_sized(raw)), dtype="float32")
        except soundfile.LibsndfileError as error:
            raise FailedError(f"espeak-ng said nothing that is sound for {text!r} as {voice.name}: {error}") from error
        # No recording begins with zeros, and how many there are would tell the sentence's first word.
        return np.ascontiguousarray(soxr.resample(np.trim_zeros(wave), rate_hz, SAMPLE_RATE_HZ), np.float32)

    def _ran(self, *arguments: str) -> bytes:
        try:
            done = subprocess.run(
                [self._program, *arguments], check=True, capture_output=True, stdin=subprocess.DEVNULL, timeout=LIMIT_S
            )
        except (subprocess.SubprocessError, OSError) as error:
            raise FailedError(f"espeak-ng failed: {error}") from error
        return done.stdout


def found() -> str:
    """Where the program espeak-ng is."""
    path = shutil.which("espeak-ng")
    if path is None:
        raise MissingError(
            "espeak-ng is not installed: `apt install espeak-ng` (Debian, Ubuntu) or `brew install espeak-ng` (macOS), or "
            "give another synthesiser with --voice module:function"
        )
    return path


def plain(text: str) -> str:
    """Without signs like (sighs), for whoever would read them out."""
    kept, depth = [], 0
    for letter in text:
        depth += letter in "(（"
        if not depth:
            kept.append(letter)
        depth -= letter in ")）" and depth > 0
    said = " ".join("".join(kept).split())
    for sign in ".,!?;:":
        said = said.replace(f" {sign}", sign)
    return said.lstrip(".,;: ")


def generated(clips: Sequence[Clip]) -> tuple[list[Clip], list[Clip]]:
    """Recordings, and what a synthesiser made: that is trained on only, as long as there are recordings."""
    made, real = [clip for clip in clips if is_generated(clip)], recordings(clips)
    return (real, made) if real else (made, [])


def recordings(clips: Sequence[Clip]) -> list[Clip]:
    """Those that somebody spoke."""
    return [clip for clip in clips if not is_generated(clip)]


def is_generated(clip: Clip) -> bool:
    """Whether its note says so."""
    return clip.note.startswith(SYNTHETIC)


def open_synthesiser(name: str) -> Synthesiser:
    """`espeak`, or what `module:function` gives when it is called."""
    if name == "espeak":
        return Espeak()
    from clser.models.hooks import hook  # noqa: PLC0415 - only for those who bring their own

    try:
        made = hook(name, "--voice")()
    except TypeError as error:
        raise GivenError(
            f"--voice {name}: it is called without arguments, and that failed ({error}); name a function that gives a `Synthesiser`"
        ) from error
    lacking = [part for part in ("name", "voices", "say") if not hasattr(made, part)]
    if lacking:
        raise GivenError(f"--voice {name}: what it gives has no {', '.join(lacking)}; see `Synthesiser` in {__name__}")
    chosen: Synthesiser = made
    return chosen


def _sized(wav: bytes) -> bytes:
    """espeak-ng writes the header before it knows the length; here is the header that it would have written."""
    place = wav.find(b"data", 12)
    if place < 0:
        return wav
    size = len(wav) - place - 8
    return (
        wav[:4]
        + (len(wav) - 8).to_bytes(4, "little")
        + wav[8 : place + 4]
        + size.to_bytes(4, "little")
        + wav[place + 8 :]
    )
