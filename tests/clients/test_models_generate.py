"""`clser-models generate`: a corpus out of templates, and training with it, which tests on people alone."""

import json

import pytest
import tiny

from clser.clients.commands import generate, models
from clser.models.data.manifests import read_manifest
from clser.models.errors import GivenError

ENTRY = {"language": "en", "emotion": "anger", "templates": ["No {v}!"], "slots": {"v": ["one", "way", "more", "less"]}}
HUMMING = """
import numpy as np
from clser.models.data.synthesis import Voice

class Humming:
    name = "humming"

    def voices(self, language):
        return [Voice("low", language), Voice("high", language)]

    def say(self, text, emotion, voice, seed):
        random = np.random.default_rng(seed)
        return (0.2 * np.sin(np.arange(12000) * random.uniform(0.05, 0.1))).astype(np.float32)
"""


@pytest.fixture
def place(tmp_path, monkeypatch):
    entries = [{**ENTRY, "emotion": emotion} for emotion in tiny.EMOTIONS]
    (tmp_path / "templates.json").write_text(json.dumps(entries))
    (tmp_path / "humming_voices.py").write_text(HUMMING)
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


def run(place, *more):
    asked = ["generate", "--templates", str(place / "templates.json"), "--voice", "humming_voices:Humming", *more]
    return generate.run(models._parser().parse_args(asked))


def test_a_folder_is_made_and_told_of(place, capsys):
    assert run(place, "--out", str(place / "made"), "--per-class", "3", "--classes", "angry,sad", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["emotions"] == {"anger": 3, "sadness": 3}
    assert found["clips"] == len(read_manifest(place / "made")) == 6
    assert found["voices"] == 2
    assert run(place, "--out", str(place / "made"), "--per-class", "4") == 0  # again, over what was made before
    assert len(read_manifest(place / "made")) == 12


def test_what_cannot_be_is_refused(place):
    (place / "people").mkdir()
    (place / "people" / "manifest.csv").write_text("file,emotion\na.wav,anger\n")
    for message, more in (
        ("recordings in it", ("--out", str(place / "people"))),
        (r"^--language de: the templates have en and", ("--out", str(place / "made"), "--language", "de")),
        ("called without arguments", ("--out", str(place / "made"), "--voice", "json:dumps")),
        ("give 1 or more", ("--out", str(place / "made"), "--per-class", "0")),
    ):
        with pytest.raises(GivenError, match=message):
            run(place, *more)


@pytest.mark.torch
def test_training_takes_it_and_tests_on_people(place):
    pytest.importorskip("torch", reason="needs the torch extra")
    from clser.clients.commands import train
    from clser.models import plan, runs

    tiny.zoo(place / "zoo")
    tiny.corpora(place / "corpora")
    elsewhere = place / "elsewhere" / "made"  # a corpus may lie anywhere, named by its whole path
    assert run(place, "--out", str(elsewhere), "--per-class", "4") == 0
    asked = plan.from_values(
        {
            "system": "tiny", "corpora": ["one", "two", str(elsewhere)], "own_texts": ["made"], "settings": {"reads": True},
            "folds": {"count": 2, "validation": 0.3}, "takes": {"count": 1, "noise": 0.0, "stacked": 1.0},
            "stacking": {"shorter_than_s": 1.5}, "sampling": {"rows_per_epoch": 64, "batch": 8, "generated": 0.5},
            "soft_labels": {"source": "words", "chance": 0.5}, "optimiser": {"epochs": 1}, "onnx": False,
        }, "a test",
    )  # fmt: skip
    prepared = runs.prepare(asked, place / "corpora", place / "cache", train.Lines(), fold="0", zoo=[place / "zoo"])
    examples, fold = prepared.examples, prepared.fold
    made = {n for n, clip in enumerate(examples.clips) if clip.corpus == "made"}
    assert made <= set(fold.train)
    assert not made & {*fold.test, *fold.valid}
    assert set(examples.own_texts) == made
    for index, behind in examples.takes[0].behind.items():
        assert {index, *behind} <= set(fold.train)
        assert {examples.clips[other].who for other in behind} == {examples.clips[index].who}
    assert examples.takes[0].behind
    found = runs.fit(prepared, place / "out", train.Lines())
    assert {row["corpus"] for row in found["rows"]} == {"one", "two"}
