"""Templates and synthesisers (TUG): what is said, by whom, the same every time, and a folder that training takes."""

import json

import numpy as np
import pytest
import soundfile

from clser.models.data import synthesis
from clser.models.data.corpora import read_speech
from clser.models.data.synthesis import Espeak, Voice, is_generated, open_synthesiser, plain
from clser.models.data.tug import generate, read_templates
from clser.models.errors import FailedError, GivenError, MissingError
from clser.models.labels import PUBLISHED

ANGER = {
    "language": "en",
    "emotion": "angry",
    "templates": ["{i}! {s} {v}."],
    "slots": {"i": ["no", "(sighs) stop"], "s": ["He"], "v": ["lied", "left"]},
}


def have_espeak():
    try:
        synthesis.found()
    except MissingError:
        return False
    return True


needs_espeak = pytest.mark.skipif(not have_espeak(), reason="needs espeak-ng")


class Humming:
    """Says everything as a tone."""

    name = "humming"

    def __init__(self):
        self.heard = []

    def voices(self, language):
        return [Voice("low", language, "male"), Voice("high", language, "female")] if language == "en" else []

    def say(self, text, emotion, voice, seed):
        self.heard.append(text)
        return np.random.default_rng(seed).uniform(-0.1, 0.1, 1600 + 10 * len(text)).astype(np.float32)


def templates(tmp_path, *entries):
    path = tmp_path / "templates.json"
    path.write_text(json.dumps(entries[0] if len(entries) == 1 else list(entries)))
    return read_templates(path)


def test_ours_say_something_in_every_class_and_language():
    ours = read_templates()
    assert {(t.language, t.emotion) for t in ours} == {
        (a, b) for a in ("en", "de", "it", "ru", "zh") for b in PUBLISHED
    }
    for entry in ours:
        said = entry.several(10, 0)
        assert len(set(said)) == 10
        assert said == entry.several(40, 0)[:10]
        assert said != entry.several(10, 1)
        assert not any("{" in text or "}" in text for text in said)
    texts = [text for entry in ours for text in entry.several(12, 0)]
    assert len(set(texts)) == len(texts)


def test_templates_are_filled_until_they_have_no_more(tmp_path):
    (entry,) = templates(tmp_path, ANGER)
    assert entry.emotion == "anger"
    assert sorted(entry.several(9, 0)) == [
        "(sighs) stop! He left.",
        "(sighs) stop! He lied.",
        "No! He left.",
        "No! He lied.",
    ]


def test_the_published_form_is_read(tmp_path):
    given = {
        "language": "en",
        "emotion": "sad",
        "subjects": ["That day"],
        "verbs": ["still hurts"],
        "interjections": ["(sighs).."],
        "contexts": ["after all"],
        "templates": ["{i}. {s} {v}, {c}."],
    }
    (entry,) = templates(tmp_path, given)
    assert entry.several(1, 0) == ["(sighs). That day still hurts, after all."]


def test_signs_for_sounds_are_not_read_out():
    assert plain("(sighs). That day (groans) , I mean, hurts.") == "That day, I mean, hurts."
    assert plain("（叹气）我不知道。") == "我不知道。"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("{", "it is no JSON"),
        ("[]", "there is nothing in it"),
        ("[1]", "entry 1: an object"),
        ('[{"language": "en"}]', "no emotion, templates"),
        ('{"language": "en", "emotion": "anger", "templates": "x"}', "templates must be a list"),
        ('{"language": "en", "emotion": "anger", "templates": ["{x}"]}', r"nothing fills \{x\}"),
        ('{"language": "en", "emotion": "rage", "templates": ["x"]}', "unknown emotion"),
    ],
)
def test_faults_of_templates_are_told(tmp_path, given, message):
    path = tmp_path / "t.json"
    path.write_text(given)
    with pytest.raises(GivenError, match=message):
        read_templates(path)
    with pytest.raises(MissingError, match="give the path"):
        read_templates(tmp_path / "other.json")


def test_what_comes_of_it_is_a_corpus_of_voices_that_nobody_has(tmp_path):
    humming, out = Humming(), tmp_path / "corpora" / "tug"
    told = []
    generate(templates(tmp_path, ANGER, {**ANGER, "emotion": "fear"}), humming, out, 3, report=told.append)
    clips = read_speech(tmp_path / "corpora", ("tug",))
    assert len(clips) == 6
    assert {clip.corpus for clip in clips} == {"tug"}
    assert {clip.emotion for clip in clips} == {"anger", "fear"}
    assert {clip.speaker for clip in clips} == {"low", "high"}
    assert all(is_generated(clip) and clip.text and "(" not in clip.text for clip in clips)
    assert any("(sighs)" in text for text in humming.heard)  # who can sigh is told to
    assert told == ["en anger: 3 utterances", "en fear: 3 utterances"]
    whole = {path.name: path.read_bytes() for path in (out / "wav").iterdir()}
    generate(templates(tmp_path, ANGER, {**ANGER, "emotion": "fear"}), Humming(), out, 3)
    assert whole == {path.name: path.read_bytes() for path in (out / "wav").iterdir()}
    generate(templates(tmp_path, ANGER, {**ANGER, "emotion": "fear"}), Humming(), out, 3, seed=1)
    assert whole != {path.name: path.read_bytes() for path in (out / "wav").iterdir()}


def test_a_language_that_nobody_speaks_is_refused_before_anything_is_said(tmp_path):
    with pytest.raises(GivenError, match="humming speaks no xx"):
        generate(templates(tmp_path, {**ANGER, "language": "xx"}), Humming(), tmp_path / "tug", 1)


@needs_espeak
def test_espeak_sounds_the_same_every_time_and_like_its_table():
    espeak = Espeak()
    low, *_ = espeak.voices("en")
    assert [espeak.voices(language)[0].name for language in ("de", "zh")] == ["de+m1", "cmn-latn-pinyin+m1"]
    assert espeak.voices("tlh-x") == ()
    text = "How dare you <say> that & leave?"
    angry = espeak.say(text, "anger", low, 0)
    espeak.say("Something else", "fear", espeak.voices("de")[3], 5)
    assert np.array_equal(angry, espeak.say(text, "anger", low, 0))
    assert not np.array_equal(angry, espeak.say(text, "anger", low, 1))
    sad = espeak.say(text, "sadness", low, 0)
    assert len(sad) > 1.3 * len(angry)
    assert np.square(sad).mean() < 0.5 * np.square(angry).mean()
    assert 0.5 < len(angry) / 16_000 < 4.0


@needs_espeak
def test_every_language_and_class_of_ours_can_be_spoken(tmp_path):
    clips = generate(read_templates(), Espeak(), tmp_path / "tug", 1)
    assert len(clips) == 35
    for clip in clips:
        sound, rate_hz = soundfile.read(clip.path)
        assert rate_hz == 16_000
        assert 0.5 < len(sound) / rate_hz < 9.0
        assert np.abs(sound).max() > 0.01


def test_without_espeak_it_is_said_how_to_get_it(monkeypatch):
    monkeypatch.setattr(synthesis.shutil, "which", lambda name: None)
    with pytest.raises(MissingError, match="apt install espeak-ng"):
        open_synthesiser("espeak")


def test_an_espeak_that_fails_is_told(monkeypatch, tmp_path):
    broken = tmp_path / "espeak-ng"
    broken.write_text("#!/bin/sh\nexit 3\n")
    broken.chmod(0o755)
    monkeypatch.setattr(synthesis.shutil, "which", lambda name: str(broken))
    with pytest.raises(FailedError, match="espeak-ng failed"):
        Espeak()


def test_somebody_elses_synthesiser_is_checked(tmp_path, monkeypatch):
    (tmp_path / "my_voices.py").write_text(
        "def nobody():\n    return 1\n\ndef mine():\n    from tug_humming import Humming\n    return Humming()\n"
    )
    (tmp_path / "tug_humming.py").write_text("class Humming:\n    name = 'x'\n    voices = say = print\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert open_synthesiser("my_voices:mine").name == "x"
    with pytest.raises(GivenError, match="has no name, voices, say"):
        open_synthesiser("my_voices:nobody")
