"""Make the demo clip and its labels with espeak-ng: `python -m clser.clients.clips.make_demo [--out DIR]`.

The feelings are played, not felt: rate, pitch, pitch range, loudness, timbre and pauses follow what is known of acted
speech. The clip shows the engine at work and times it; it says nothing about accuracy.
The same espeak-ng, libsndfile and numpy give the same bytes, so a rebuilt clip shows up in git only when it changed.
"""

import argparse
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple
from xml.sax.saxutils import escape

import msgspec
import numpy as np
import numpy.typing as npt
import soundfile
import soxr

from clser.clients.clips import Labels, Segment

Wave = npt.NDArray[np.float64]  # one channel, full scale is 1.0

SAMPLE_RATE_HZ = 16_000
SEED = 20
PEAK_DBFS = -3.5  # Vorbis adds up to 1 dB
NOISE_DBFS = -70.0  # a floor as in a quiet room: digital silence would flatter every voice activity detector
LEAD_S, TAIL_S = 0.6, 1.2
SOUND_BELOW_PEAK_DB = 40.0
WINDOW_S = 0.005  # the accuracy the labels promise
FADE_S = 0.002
WOBBLE_HZ = 6.5  # about the rate of a trembling voice
VORBIS_LEVEL = 0.3  # 0 is the largest file: from 0.4 up the coder's echo runs more than 5 ms ahead of a hard onset
CLIP, LABELS = "demo.ogg", "demo.json"


class Manner(NamedTuple):
    """How a feeling is played. Pitch is espeak's 0 to 99, the range a percentage of the voice's own, 200 at most."""

    words_per_minute: int
    pitch: int
    pitch_range: int
    level_db: float  # mean loudness, against the loudest feeling
    brightness: float = 0.0  # above 0 lifts the treble as a pressed voice does, below 0 takes it away
    drive: float = 0.0  # saturation: a rough, shouted edge
    wobble: float = 0.0  # depth of the trembling, as a share of the pitch
    rise: float = 0.0  # how much higher the last moment is than the first, as a share of the pitch


MANNERS = {
    "neutral": Manner(165, 45, 100, -8.0),
    "anger": Manner(205, 75, 170, 0.0, brightness=0.6, drive=2.5),
    "sadness": Manner(120, 38, 40, -15.0, brightness=-0.5),
    "happiness": Manner(185, 80, 200, -4.0, brightness=0.3),
    "fear": Manner(210, 92, 120, -6.0, brightness=0.2, wobble=0.06),
    "surprise": Manner(160, 65, 200, -4.0, brightness=0.2, rise=0.3),
    "boredom": Manner(125, 40, 10, -12.0, brightness=-0.3),
}


class Phrase(NamedTuple):
    played: str
    voice: str
    text: str
    pause_s: float  # the silence before the next phrase


# Half of it is English, in sentences and voices that a recogniser for people can follow too: the demo should show words. What it
# writes down of the other half is nothing, or nonsense that it should not trust.
PHRASES = [
    Phrase("neutral", "en-us+f1", "We will meet again on Tuesday in the afternoon.", 0.9),
    Phrase("anger", "en-us+m1", "Stop it right now, this is not your money!", 1.2),
    Phrase("sadness", "de+m1", "Es ist so still im Haus ohne den alten Hund.", 1.3),
    Phrase("happiness", "en-us+f2", "What a wonderful day, I am so happy to see you!", 0.7),
    Phrase("surprise", "fr+f4", "Quoi, tu as fait ce gâteau tout seul ?", 1.1),
    Phrase("boredom", "en-us+f2", "So we read the same story again and again.", 1.2),
    Phrase("fear", "pl+f5", "Cicho, ktoś chodzi nocą po naszym strychu!", 0.8),
    Phrase("anger", "es+m2", "¡Basta ya, baja esa música ahora mismo!", 0.0),
]


def sounding(wave: Wave, rate_hz: int = SAMPLE_RATE_HZ, below_peak_db: float = SOUND_BELOW_PEAK_DB) -> tuple[int, int]:
    """The samples [start, end) between the first and the last moment louder than the loudest less `below_peak_db`."""
    width = max(1, round(WINDOW_S * rate_hz))
    # Silence on both sides lets a window hold a single sample of the sound, so a hard edge is found exactly.
    power = np.pad(np.square(wave), width - 1)
    energy = np.lib.stride_tricks.sliding_window_view(power, width).sum(axis=1)
    if not energy.any():
        raise ValueError("the wave holds no sound to trim to: it is empty or all zeros")
    loud = np.flatnonzero(energy >= energy.max() * 10 ** (-below_peak_db / 10))
    # The onset is the newest sample of the first loud window, the offset the oldest of the last.
    return int(loud[0]), int(loud[-1]) - width + 2


def spoken(phrase: Phrase, espeak: str) -> Wave:
    """The phrase as espeak-ng says it, at 16 kHz, with espeak's own silence around it."""
    manner = MANNERS[phrase.played]
    # The pitch range has no option of its own, only markup.
    markup = f'<speak><prosody range="{manner.pitch_range}%">{escape(phrase.text)}</prosody></speak>'
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "phrase.wav"
        how = ["-m", "-v", phrase.voice, "-s", str(manner.words_per_minute), "-p", str(manner.pitch)]
        subprocess.run([espeak, *how, "-w", str(path), markup], check=True)
        wave, rate_hz = soundfile.read(path, dtype="float64")
    resampled: Wave = soxr.resample(wave, rate_hz, SAMPLE_RATE_HZ, quality="VHQ")
    return resampled


def bent(wave: Wave, wobble: float, rise: float) -> Wave:
    """The wave read at a speed that trembles and climbs: pitch follows, which is all espeak's own contour lacks."""
    at_s = np.arange(len(wave)) / SAMPLE_RATE_HZ
    climb = np.linspace(-0.5, 0.5, len(wave))
    speed = 1.0 + wobble * np.sin(2 * np.pi * WOBBLE_HZ * at_s) + rise * climb
    place = np.cumsum(speed) - speed[0]
    read: Wave = np.interp(place[place <= len(wave) - 1], np.arange(len(wave)), wave)
    return read


def acted(wave: Wave, manner: Manner) -> tuple[Wave, int, int]:
    """The wave as the manner has it, faded just outside its sound, and the samples [start, end) of that sound in it."""
    start, end = sounding(wave)
    wave = wave[start:end]  # before bending, so that the rise spans the words and not the silence around them
    if manner.wobble or manner.rise:
        wave = bent(wave, manner.wobble, manner.rise)
    wave = wave - manner.brightness * np.concatenate(([0.0], wave[:-1]))
    if manner.drive:
        wave = np.tanh(manner.drive * wave / np.abs(wave).max())
    wave = wave * (10 ** (manner.level_db / 20) / np.sqrt(np.mean(np.square(wave))))
    # Filters and saturation move what is loud enough to count, so the sound is measured as it will be heard.
    start, end = sounding(wave)
    fade = round(FADE_S * SAMPLE_RATE_HZ)
    ramp = np.sin(np.linspace(0.0, np.pi / 2, fade)) ** 2
    padded = np.pad(wave, fade)[start : end + 2 * fade].copy()
    padded[:fade] *= ramp
    padded[-fade:] *= ramp[::-1]
    return padded, fade, fade + end - start


def composed(espeak: str) -> tuple[Wave, list[Segment]]:
    """All phrases over the noise floor, and where the sound of each one is."""
    pieces = [np.zeros(round(LEAD_S * SAMPLE_RATE_HZ))]
    segments: list[Segment] = []
    at = len(pieces[0])
    for place, phrase in enumerate(PHRASES):
        wave, start, end = acted(spoken(phrase, espeak), MANNERS[phrase.played])
        start_s, end_s = (round((at + sample) / SAMPLE_RATE_HZ, 4) for sample in (start, end))
        segments.append(Segment(start_s, end_s, phrase.text, phrase.voice, phrase.played))
        quiet_s = TAIL_S if place == len(PHRASES) - 1 else phrase.pause_s
        pieces += [wave, np.zeros(round(quiet_s * SAMPLE_RATE_HZ))]
        at += len(pieces[-2]) + len(pieces[-1])
    whole = np.concatenate(pieces)
    whole *= 10 ** (PEAK_DBFS / 20) / np.abs(whole).max()
    noise = np.random.default_rng(SEED).standard_normal(len(whole)) * 10 ** (NOISE_DBFS / 20)
    return whole + noise, segments


def write_vorbis(path: Path, wave: Wave) -> None:
    with soundfile.SoundFile(
        path, "w", SAMPLE_RATE_HZ, 1, format="OGG", subtype="VORBIS", compression_level=VORBIS_LEVEL
    ) as sink:
        # libsndfile overruns its stack when it is handed many seconds of Vorbis at once.
        for second in range(0, len(wave), SAMPLE_RATE_HZ):
            sink.write(wave[second : second + SAMPLE_RATE_HZ])
    path.write_bytes(with_serial(path.read_bytes(), SEED))


def with_serial(ogg: bytes, serial: int) -> bytes:
    """The Ogg stream under a given serial number: libsndfile draws a new one for each file it writes."""
    pages = bytearray(ogg)
    at = 0
    while at < len(pages):
        lacing = pages[at + 27 : at + 27 + pages[at + 26]]
        end = at + 27 + len(lacing) + sum(lacing)
        pages[at + 14 : at + 18] = serial.to_bytes(4, "little")
        pages[at + 22 : at + 26] = bytes(4)  # the checksum is taken with its own field at zero
        pages[at + 22 : at + 26] = ogg_crc(pages[at:end]).to_bytes(4, "little")
        at = end
    return bytes(pages)


def ogg_crc(page: bytes | bytearray) -> int:
    """RFC 3533's checksum: the polynomial of zlib's CRC-32, but highest bit first and with nothing inverted."""
    crc = 0
    for byte in page:
        crc ^= byte << 24
        for _ in range(8):
            crc = (crc << 1 ^ (0x104C11DB7 if crc & 0x80000000 else 0)) & 0xFFFFFFFF
    return crc


def main() -> None:
    parser = argparse.ArgumentParser(description="Make the demo clip and its labels with espeak-ng.")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent, metavar="DIR", help="where to write them")
    out: Path = parser.parse_args().out
    espeak = shutil.which("espeak-ng")
    if espeak is None:
        sys.exit(
            "espeak-ng is not installed: `apt install espeak-ng` (Debian, Ubuntu) or `brew install espeak-ng` (macOS)"
        )
    # "eSpeak NG text-to-speech: 1.51  Data at: ..."
    version = subprocess.run([espeak, "--version"], check=True, capture_output=True, text=True).stdout.split()[3]
    wave, segments = composed(espeak)
    out.mkdir(parents=True, exist_ok=True)
    write_vorbis(out / CLIP, wave)
    labels = Labels(CLIP, SAMPLE_RATE_HZ, f"espeak-ng {version}", segments)
    (out / LABELS).write_bytes(msgspec.json.format(msgspec.json.encode(labels), indent=2) + b"\n")
    print(f"{out / CLIP}: {len(wave) / SAMPLE_RATE_HZ:.1f} s, {(out / CLIP).stat().st_size // 1000} KB")
    for segment in segments:
        print(f"{segment.start_s:8.3f} {segment.end_s:8.3f}  {segment.played:10} {segment.voice:10} {segment.text}")


if __name__ == "__main__":
    main()
