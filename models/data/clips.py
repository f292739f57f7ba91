"""One recording and its label, and how its sound is read: whatever rate and channels, 16 kHz mono comes out."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import soxr

from clser.models.errors import GivenError
from clser.models.features.constants import SAMPLE_RATE_HZ

Sound = np.ndarray[Any, np.dtype[np.float32]]


@dataclass(frozen=True, slots=True)
class Clip:
    """One recording, or a part of one, of one speaker. Empty or 0: not known."""

    path: Path
    corpus: str
    speaker: str
    gender: str
    emotion: str
    truncated: bool = False
    """Cut at a fixed length, which only some classes of a corpus may be: its length would give the class away."""
    language: str = ""
    text: str = ""
    duration_s: float = 0.0
    note: str = ""
    source_rate_hz: int = 0
    """What the recording was sampled at before it was brought to the rate it has now."""
    start_s: float = 0.0
    end_s: float | None = None
    """None: to the end of the file."""
    face: Path | None = None
    """A video of who speaks, or the faces cut out of it (see `faces`)."""

    @property
    def who(self) -> tuple[str, str]:
        """The speaker, told apart from one of the same name in another corpus."""
        return self.corpus, self.speaker

    @property
    def name(self) -> str:
        """What to call it in a message."""
        if self.start_s == 0.0 and self.end_s is None:
            return str(self.path)
        end = "end" if self.end_s is None else f"{self.end_s:g}"
        return f"{self.path} [{self.start_s:g}..{end} s]"


def read_sound(clip: Clip) -> Sound:
    """The clip's samples in -1..1, 16 kHz mono. Channels are averaged."""
    samples, rate_hz = read_samples(clip)
    mono = samples.mean(1) if samples.shape[1] > 1 else samples[:, 0]
    if rate_hz != SAMPLE_RATE_HZ:
        mono = soxr.resample(mono, rate_hz, SAMPLE_RATE_HZ)
    return np.ascontiguousarray(mono, np.float32)


def read_samples(clip: Clip) -> tuple[Sound, int]:
    """[samples, channels] as the file has them, and their rate."""
    try:
        with soundfile.SoundFile(clip.path) as sound:
            rate_hz = int(sound.samplerate)
            first = round(clip.start_s * rate_hz)
            last = sound.frames if clip.end_s is None else min(sound.frames, round(clip.end_s * rate_hz))
            if first >= last:
                raise GivenError(
                    f"{clip.name}: the part is empty; the file has {sound.frames / rate_hz:.3f} s of sound"
                )
            sound.seek(first)
            return sound.read(last - first, dtype="float32", always_2d=True), rate_hz
    except (soundfile.LibsndfileError, OSError) as error:
        raise GivenError(f"{clip.path}: {unreadable(error)}") from error


def unreadable(error: Exception) -> str:
    """Why a file gave no sound, and what to do about it."""
    return f"cannot be read as sound ({error}); convert it to WAV, FLAC, Ogg or MP3, or take it off the list"
