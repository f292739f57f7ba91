"""Utterances out of templates, said by a synthesiser (TUG: template-based utterance generation): a corpus that nobody spoke.

A file of templates is JSON, a list of entries (or one entry alone). Each says for one language and one emotion what can
be said and what fills it in:

    {"language": "en", "emotion": "anger", "templates": ["{i}! {s} {v}!"], "slots": {"i": ["No"], "s": ["He"], "v": ["lied"]}}

`subjects`, `verbs`, `interjections` and `contexts`, where the published templates have them, are the slots s, v, i and c.

What comes of it is a folder like any other corpus, `wav/*.wav` and `manifest.csv`, whose notes begin with `synthetic` and
whose speakers are the synthesiser's voices. In training it is trained on only: nothing is tested on speech nobody spoke.
"""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import blake2b
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from clser.models.data.clips import Clip, Sound
from clser.models.data.emotions import canonical
from clser.models.data.manifests import write_manifest
from clser.models.data.synthesis import SYNTHETIC, Synthesiser, plain
from clser.models.errors import GivenError, MissingError
from clser.models.features.constants import SAMPLE_RATE_HZ

SHIPPED = "templates.json"
PUBLISHED_SLOTS = {"subjects": "s", "verbs": "v", "interjections": "i", "contexts": "c"}
SLOT = re.compile(r"\{(\w+)\}")
TRIES = 50
"""For an utterance that was not said yet; then the templates are taken to have no more."""


@dataclass(frozen=True, slots=True)
class Templates:
    """What can be said in one language with one emotion."""

    language: str
    emotion: str
    templates: tuple[str, ...]
    slots: Mapping[str, tuple[str, ...]]

    def draw(self, random: np.random.Generator) -> str:
        """One utterance. It begins with a capital letter, where its script has them."""
        template = self.templates[int(random.integers(len(self.templates)))]

        def fill(slot: re.Match[str]) -> str:
            choices = self.slots[slot[1]]
            return choices[int(random.integers(len(choices)))]

        said = re.sub(r"\.\.+", ".", SLOT.sub(fill, template)).replace(" ,", ",").strip()
        return said[:1].upper() + said[1:]

    def several(self, count: int, seed: int) -> list[str]:
        """So many different utterances, or as many as there are; the same for the same seed, and the first of more."""
        random = np.random.default_rng((seed, _number(self.language, self.emotion)))
        said: dict[str, None] = {}
        while len(said) < count:
            before = len(said)
            for _ in range(TRIES):
                said[self.draw(random)] = None
                if len(said) > before:
                    break
            else:
                break
        return list(said)


def read_templates(path: Path | None = None) -> list[Templates]:
    """Of that file; None: those that ship."""
    where = str(path or SHIPPED)
    try:
        text = (path or files("clser.models.data") / SHIPPED).read_text(encoding="utf-8")
        given = json.loads(text)
    except OSError as error:
        raise MissingError(f"templates {where}: {error.strerror}; give the path of a JSON file") from error
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise GivenError(f"templates {where}: it is no JSON ({error})") from error
    entries = given if isinstance(given, list) else [given]
    found = [_entry(entry, f"templates {where}, entry {number}") for number, entry in enumerate(entries, 1)]
    if not found:
        raise GivenError(f"templates {where}: there is nothing in it; see the top of `clser.models.data.tug`")
    return found


def generate(
    templates: Sequence[Templates], synthesiser: Synthesiser, out: Path, per_class: int, *, seed: int = 0,
    report: Callable[[str], None] = lambda line: None,
) -> list[Clip]:  # fmt: skip
    """Says `per_class` utterances of each entry, voices in turn, and writes the folder. The same seed gives the same sounds;
    what lies there already under the same name is said again."""
    (out / "wav").mkdir(parents=True, exist_ok=True)
    mute = sorted({t.language for t in templates if not synthesiser.voices(t.language)})
    if mute:
        raise GivenError(f"{synthesiser.name} speaks no {', '.join(mute)}; leave it out with --language")
    clips: list[Clip] = []
    for entry in templates:
        said = entry.several(per_class, seed)
        if len(said) < per_class:
            report(f"{entry.language} {entry.emotion}: its templates give {len(said)} utterances, not {per_class}")
        for number, text in enumerate(said):
            clip, sound = _said(entry, text, number, synthesiser, seed)
            clip = replace(clip, path=out / "wav" / clip.path, corpus=out.resolve().name)
            soundfile.write(clip.path, np.clip(sound, -1.0, 1.0), SAMPLE_RATE_HZ, subtype="PCM_16")
            clips.append(clip)
        report(f"{entry.language} {entry.emotion}: {len(said)} utterances")
    write_manifest(out / "manifest.csv", clips)
    return clips


def _said(
    entry: Templates, text: str, number: int, synthesiser: Synthesiser, seed: int
) -> tuple[Clip, Sound]:  # fmt: skip
    """The clip, which lies nowhere yet, and how it sounds."""
    voices = synthesiser.voices(entry.language)
    # Another class begins with another voice: else the first utterances of all would be one voice's.
    voice = voices[(number + _number(entry.emotion)) % len(voices)]
    sound = synthesiser.say(
        text, entry.emotion, voice, _number(seed, entry.language, entry.emotion, text, voice.name) % 2**32
    )
    return Clip(
        path=Path(f"{entry.language}_{entry.emotion}_{number:04d}.wav"), corpus="", speaker=voice.name,
        gender=voice.gender, emotion=entry.emotion, language=entry.language, text=plain(text),
        duration_s=round(len(sound) / SAMPLE_RATE_HZ, 4), note=f"{SYNTHETIC}: templates said by {synthesiser.name}",
        source_rate_hz=SAMPLE_RATE_HZ,
    ), sound  # fmt: skip


def _entry(given: Any, where: str) -> Templates:
    if not isinstance(given, dict):
        raise GivenError(f"{where}: an object is needed, got {type(given).__name__}")
    lacking = [name for name in ("language", "emotion", "templates") if not given.get(name)]
    if lacking:
        raise GivenError(f"{where}: no {', '.join(lacking)}; see the top of `clser.models.data.tug`")
    slots = {
        **given.get("slots", {}),
        **{PUBLISHED_SLOTS[name]: given[name] for name in PUBLISHED_SLOTS if name in given},
    }
    lists = {"templates": given["templates"], **slots}
    for name, choices in lists.items():
        if not (isinstance(choices, list) and choices and all(isinstance(choice, str) for choice in choices)):
            raise GivenError(f"{where}: {name} must be a list of texts, and not empty")
    unknown = sorted({slot for template in given["templates"] for slot in SLOT.findall(template)} - slots.keys())
    if unknown:
        raise GivenError(f"{where}: nothing fills {{{unknown[0]}}}; add it to its slots")
    return Templates(
        str(given["language"]),
        canonical(str(given["emotion"])),
        tuple(given["templates"]),
        {name: tuple(choices) for name, choices in slots.items()},
    )


def _number(*parts: object) -> int:
    return int.from_bytes(blake2b(repr(parts).encode(), digest_size=8).digest())
