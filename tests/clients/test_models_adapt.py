"""`clser-models adapt`: a small file, what it says, and what it refuses."""

import json
from importlib.util import find_spec
from pathlib import Path

import pytest
import tiny

from clser.clients.commands import adapt as command
from clser.clients.commands import models
from clser.models import delta
from clser.models.errors import GivenError, MissingError

pytestmark = [
    pytest.mark.skipif(find_spec("torch") is None, reason="systems are adapted with torch"),
    pytest.mark.torch,
]
KEYS = {
    "out",
    "bytes",
    "base",
    "digest",
    "shots",
    "unlabelled",
    "changed",
    "took_s",
    "tested",
    "speakers_apart",
    "before",
    "after",
}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tiny.corpora(tmp_path_factory.mktemp("adapt"), names=("one",), speakers=3, each=2)


def adapted(place: Path, capsys, *more: str, model: str = "voice") -> dict:
    out = place / "mine.safetensors"
    asked = [
        "adapt",
        "--model",
        model,
        "--manifest",
        str(place / "one" / "manifest.csv"),
        "--out",
        str(out),
        "--json",
        *more,
    ]
    assert command.run(models._parser().parse_args(asked)) == 0
    return json.loads(capsys.readouterr().out)


def refused(place: Path, *asked: str) -> str:
    with pytest.raises((GivenError, MissingError)) as error:
        command.run(models._parser().parse_args(["adapt", "--model", "voice", *asked]))
    return str(error.value)


def test_a_shipped_model_becomes_a_small_file_that_says_what_it_is(place, capsys):
    found = adapted(place, capsys, "--shots", "1")
    assert found.keys() == KEYS
    assert found["shots"] == {"anger": 1, "neutral": 1, "sadness": 1}
    assert (found["tested"], found["speakers_apart"]) == (6, True)
    assert 0.0 <= found["before"] <= 1.0
    assert found["bytes"] < 20_000
    about, kept = delta.read(place / "mine.safetensors")
    assert (about.system, about.name, about.corpora) == ("voice", "mine", ("one",))
    assert sorted(kept) == found["changed"]
    assert all(name.startswith("members.") for name in kept)


def test_unlabelled_speech_alone_changes_what_is_usual(place, capsys):
    manifest = place / "one" / "manifest.csv"
    out = place / "usual.safetensors"
    asked = ["adapt", "--model", "voice", "--unlabelled", str(manifest), "--out", str(out)]
    assert command.run(models._parser().parse_args(asked)) == 0
    told = capsys.readouterr().out
    about, kept = delta.read(out)
    assert sorted(kept) == ["mean_F"]
    assert about.tells_anew
    assert about.unlabelled == 18
    assert "clser-watch ask load" in told


def test_a_share_of_the_speakers_and_every_weight(place, capsys):
    found = adapted(place, capsys, "--speakers", "0.4", "--part", "all", "--classes", "anger,sadness")
    assert sum(found["shots"].values()) == 4
    assert "gru.weight_ih_l0" in found["changed"]


@pytest.mark.parametrize(
    ("asked", "why"),
    [
        (["--out", "x.onnx"], "must end in .safetensors"),
        ([], "give --manifest CSV"),
        (["--manifest", "M"], "how much of it"),
        (["--unlabelled", "M", "--shots", "2"], "labelled recordings: give --manifest"),
        (["--manifest", "M", "--shots", "0"], "give 1 or more"),
        (["--manifest", "M", "--share", "1.5"], "between 0 and 1"),
        (["--manifest", "M", "--shots", "9"], "too few clips of anger (6), neutral (6), sadness (6)"),
        (["--manifest", "M", "--shots", "1", "--classes", "fear"], "no clip has one of these"),
    ],
)
def test_what_cannot_be_is_said_in_a_line(place, asked, why):
    manifest = str(place / "one" / "manifest.csv")
    out = [] if "--out" in asked else ["--out", str(place / "no.safetensors")]
    assert why in refused(place, *[manifest if each == "M" else each for each in asked], *out)
    assert not (place / "no.safetensors").exists()


def test_an_onnx_file_is_not_adapted(place):
    with pytest.raises(GivenError, match="not an ONNX file"):
        command._base(str(Path(delta.__file__).parent / "weights" / "voice.onnx"))


def test_speech_without_labels_needs_no_column_for_them(place, capsys):
    clips = sorted((place / "one").glob("**/*.wav"))[:4]
    for name, lines in (("bare", [str(clip) for clip in clips]), ("odd", [f"{clip},sleepy" for clip in clips])):
        manifest, out = place / f"{name}.csv", place / f"{name}.safetensors"
        manifest.write_text("\n".join(["file" if name == "bare" else "file,emotion", *lines]) + "\n", encoding="utf-8")
        asked = ["adapt", "--model", "voice", "--unlabelled", str(manifest), "--out", str(out), "--json"]
        assert command.run(models._parser().parse_args(asked)) == 0
        assert json.loads(capsys.readouterr().out)["unlabelled"] == 4


def test_nothing_but_a_delta_is_written_over(place):
    weights = place / "weights.safetensors"
    weights.write_bytes(b"years of work")
    manifest = str(place / "one" / "manifest.csv")
    assert "something else than a delta" in refused(place, "--unlabelled", manifest, "--out", str(weights))
    assert weights.read_bytes() == b"years of work"


def test_a_delta_is_no_model_and_is_replaced_by_another(place, capsys):
    adapted(place, capsys, "--shots", "1")
    adapted(place, capsys, "--shots", "2")
    with pytest.raises(GivenError, match="it is a delta"):
        adapted(place, capsys, "--shots", "1", model=str(place / "mine.safetensors"))


def test_where_nothing_can_be_written_is_said(place):
    (place / "file").write_text("")
    said = refused(
        place, "--unlabelled", str(place / "one" / "manifest.csv"), "--out", str(place / "file" / "mine.safetensors")
    )
    assert "cannot be written" in said
