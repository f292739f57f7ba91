"""Sounds in which there is no voice to judge, for the head `none`: noises, babble of many, music, machines, weather, telephones.

    cache/unvoiced/<digest>/          finished: a FLAC a clip, 16 kHz mono
    cache/unvoiced/<digest>.making/   the same, growing; thrown away and begun again where its maker was killed

What a clip sounds like hangs on its name, and on the recordings of the corpora folder for those kinds that need them.
Those kept for tests have other names, other instruments, and recordings of noises and voices that no training hears.
"""

import fcntl
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path

import numpy as np
import soundfile

from clser.models.data.augment import at_speed, held_out_files
from clser.models.data.clips import Clip, Sound, read_sound
from clser.models.data.manifests import read_manifest
from clser.models.data.music import music
from clser.models.data.noises import MAKERS, at_level, coloured
from clser.models.data.rooms import in_room
from clser.models.features.constants import SAMPLE_RATE_HZ
from clser.models.labels import NONE

CORPUS = "unvoiced"
VERSION = 1
"""Counts up when the same names would give other sounds."""
COUNTS = {"noise": 180, "babble": 90, "music": 180, "hush": 30, "machines": 60, "weather": 40, "phones": 30}
"""Clips of each kind, to train with or to test with."""
LENGTH_S = (1.0, 4.0)
LEVEL_DBFS = {"hush": (-80.0, -50.0), "noise": (-55.0, -10.0)}
OTHER_LEVEL_DBFS = (-45.0, -10.0)
VOICES = ("tess", "asr_samples")
"""Corpora that babble is made of. Nobody in them is ever tested on."""
BABBLE = (5, 9)
PACE = (0.8, 1.25)
EVEN_DB = 1.5
"""Voices of a babble differ by so much at most: none stands out."""
BETWEEN_S = (0.05, 0.5)


@dataclass(frozen=True, slots=True)
class Sources:
    """The recordings that sounds are made of."""

    noises: Sequence[Sound]
    voices: Sequence[Sound]
    tested: bool = False


def unvoiced(corpora: Path, cache: Path, held_out: float, *, tested: bool = False) -> list[Clip]:
    """The clips, made under `cache` where they are not there yet. Without noises or voices there are fewer kinds.

    `held_out`: the share of the noises kept for tests, as `Takes.held_out`; of the voices as much is kept.
    """
    noises, voices = _noises(corpora, held_out, tested), _voices(corpora, held_out, tested)
    folder = cache / CORPUS / _digest(noises, voices, tested)
    plan = [(kind, f"{kind}_{n:03d}") for kind in kinds(noises, voices) for n in range(COUNTS[kind])]
    if not folder.is_dir():
        folder.parent.mkdir(parents=True, exist_ok=True)
        with _locked(folder.with_suffix(".lock")):
            if not folder.is_dir():  # another program may have made it meanwhile
                _make(folder, plan, sources(corpora, held_out, tested=tested))
    return [
        Clip(
            folder / f"{name}.flac", CORPUS, "", "", NONE, duration_s=_samples(name, tested) / SAMPLE_RATE_HZ, note=kind
        )
        for kind, name in plan
    ]


def kinds(noises: Sequence[object], voices: Sequence[object]) -> tuple[str, ...]:
    """What can be made of these recordings; all but noise and babble needs none."""
    lacking = {"noise": not noises, "babble": not voices}
    return tuple(kind for kind in COUNTS if not lacking.get(kind))


def sources(corpora: Path, held_out: float, *, tested: bool = False) -> Sources:
    """What the corpora folder has to make sounds of: the share held out for tests, or the rest."""
    noises, voices = _noises(corpora, held_out, tested), _voices(corpora, held_out, tested)
    return Sources([*map(read_sound, noises)], [*map(read_sound, voices)], tested)


def _noises(corpora: Path, held_out: float, tested: bool) -> list[Clip]:
    return recordings(corpora / "noise", held_out, tested=tested)


def _voices(corpora: Path, held_out: float, tested: bool) -> list[Clip]:
    return [clip for name in VOICES for clip in recordings(corpora / name, held_out, tested=tested)]


def recordings(folder: Path, held_out: float, *, tested: bool) -> list[Clip]:
    """One side of a folder's recordings, in the order of their names: those held out for tests, or the rest."""
    if not (folder / "manifest.csv").exists():
        return []
    by_name = {clip.path.name: clip for clip in read_manifest(folder, labelled=False, check=False)}
    names = sorted(by_name)
    if held_out > 0.0 and len(names) > 1:
        names = held_out_files(names, held_out)[1 if tested else 0]
    elif tested:
        return []  # all of them are trained with
    return [by_name[name] for name in names]


def _digest(noises: Sequence[Clip], voices: Sequence[Clip], tested: bool) -> str:
    """Changes with any of the recordings, and with how sounds are made of them."""
    whole = blake2b(repr((VERSION, COUNTS, tested)).encode(), digest_size=8)
    for kind in (noises, voices):
        for clip in kind:
            content = clip.path.read_bytes()
            whole.update(f"{clip.path.name} {len(content)} ".encode() + content)
        whole.update(b"|")
    return whole.hexdigest()


def made(kind: str, name: str, samples: int, made_of: Sources) -> Sound:
    """The sound of that name, so many samples of it."""
    random = _random(name, made_of.tested, "sound")
    if kind == "noise":
        sound = _noise(samples, made_of, random)
    elif kind == "babble":
        sound = _babble(samples, made_of, random)
    elif kind == "music":
        sound = music(samples, random, made_of.tested)
    else:
        makers = MAKERS[kind]
        sound = np.asarray(makers[int(random.integers(len(makers)))](samples, random), np.float32)
    if kind in {"music", "babble", "phones"} and random.random() < 0.5:
        sound = in_room(sound, (), random)
    if kind not in {"noise", "hush"} and random.random() < 0.4 and sound.any():
        level = float(np.sqrt(np.square(sound).mean())) * 10.0 ** random.uniform(-2.5, -1.0)
        sound = np.asarray(sound + level * coloured(samples, random.uniform(0.0, 1.5), random), np.float32)
    return at_level(sound, random.uniform(*LEVEL_DBFS.get(kind, OTHER_LEVEL_DBFS)))


def _noise(samples: int, made_of: Sources, random: np.random.Generator) -> Sound:
    """A piece of a recorded noise, or of two at once, at another speed and of another colour: few recordings, many sounds."""
    # Long recordings have more to show, but not in proportion.
    weight = np.sqrt([len(noise) for noise in made_of.noises])
    out = np.zeros(samples, np.float32)
    for which in random.choice(len(weight), size=1 + int(random.random() < 0.35), p=weight / weight.sum()):
        noise, pace = made_of.noises[which], random.uniform(*PACE)
        piece = np.resize(np.roll(noise, -int(random.integers(len(noise)))), round(samples * pace) + 16)
        out += at_level(np.resize(at_speed(piece, pace), samples), random.uniform(-30.0, -20.0))
    tilt = np.maximum(np.fft.rfftfreq(samples, 1.0 / SAMPLE_RATE_HZ), 60.0) ** random.uniform(-0.25, 0.25)
    return np.asarray(np.fft.irfft(np.fft.rfft(out) * tilt, samples), np.float32)


def _babble(samples: int, made_of: Sources, random: np.random.Generator) -> Sound:
    """Many who talk at once and go on talking, each at a pace of their own and none louder than the others."""
    out = np.zeros(samples, np.float32)
    for _ in range(int(random.integers(BABBLE[0], BABBLE[1] + 1))):
        pace, said, long = random.uniform(*PACE), [], 0
        begin = int(random.uniform(0.0, 1.5) * SAMPLE_RATE_HZ)  # somebody is always in mid-word already
        while long < samples + begin:
            voice = made_of.voices[int(random.integers(len(made_of.voices)))]
            still = np.zeros(round(random.uniform(*BETWEEN_S) * SAMPLE_RATE_HZ), np.float32)
            said += [at_level(at_speed(voice, pace), -25.0), still]
            long += len(said[-2]) + len(still)
        spoken = np.concatenate(said)[begin : begin + samples]
        out += at_level(spoken, -25.0 + random.uniform(-EVEN_DB, EVEN_DB))
    return out


def _make(folder: Path, plan: list[tuple[str, str]], made_of: Sources) -> None:
    making = folder.with_suffix(".making")
    shutil.rmtree(making, ignore_errors=True)
    making.mkdir()
    for kind, name in plan:
        sound = made(kind, name, _samples(name, made_of.tested), made_of)
        soundfile.write(making / f"{name}.flac", sound, SAMPLE_RATE_HZ, subtype="PCM_16")
    making.rename(folder)


def _samples(name: str, tested: bool) -> int:
    return round(float(_random(name, tested, "length").uniform(*LENGTH_S)) * SAMPLE_RATE_HZ)


def _random(name: str, tested: bool, what: str) -> np.random.Generator:
    seed = blake2b(f"{VERSION}/{'test' if tested else 'train'}/{name}/{what}".encode(), digest_size=8).digest()
    return np.random.default_rng(int.from_bytes(seed))


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """One maker at a time. The system gives the lock back when its holder dies."""
    with path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
