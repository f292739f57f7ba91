"""Manifests of every kind into clips and back, and what is said of those that cannot be used."""

import csv
import gzip
import json
import os
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st

from clser.models.data.clips import Clip, read_samples, read_sound
from clser.models.data.corpora import SPEECH, read_sounds, read_speech, read_texts
from clser.models.data.emotions import canonical
from clser.models.data.manifests import read_manifest, write_manifest
from clser.models.errors import GivenError, MissingError
from clser.models.labels import HEADS

CORPORA = os.environ.get("CLSER_CORPORA")
needs_corpora = pytest.mark.skipif(not CORPORA, reason="CLSER_CORPORA is not set: no corpora to read")


def sound(path, seconds=0.5, rate_hz=16_000, channels=1):
    path.parent.mkdir(parents=True, exist_ok=True)
    wave = 0.3 * np.sin(2 * np.pi * 200 * np.arange(round(seconds * rate_hz)) / rate_hz)
    soundfile.write(path, np.repeat(wave[:, None], channels, 1), rate_hz)


def manifest(folder, text, name="manifest.csv"):
    (folder / name).write_text(text, encoding="utf-8")
    return folder / name


def test_a_manifest_of_two_columns_is_enough(tmp_path):
    sound(tmp_path / "a.wav", 0.5)
    sound(tmp_path / "b.wav", 0.25)
    clips = read_manifest(manifest(tmp_path, "file,emotion\na.wav,angry\nb.wav,Happy\n"))
    assert [(clip.emotion, clip.duration_s, clip.speaker) for clip in clips] == [
        ("anger", 0.5, ""),
        ("happiness", 0.25, ""),
    ]
    assert clips[0].corpus == tmp_path.name


def test_the_sound_may_lie_elsewhere_and_the_separator_be_another(tmp_path):
    sound(tmp_path / "audio" / "a.wav")
    (tmp_path / "lists").mkdir()
    path = manifest(tmp_path / "lists", "file;emotion;speaker\na.wav;sad;x\n")
    assert read_manifest(path, tmp_path / "audio")[0].speaker == "x"


def test_a_part_of_a_file_is_the_clip(tmp_path):
    wave = np.linspace(-0.5, 0.5, 16_000)
    soundfile.write(tmp_path / "a.wav", wave, 16_000, subtype="FLOAT")
    text = "file,emotion,start_s,end_s\na.wav,fear,0.25,0.5\na.wav,calm,0.5,\n"
    first, second = read_manifest(manifest(tmp_path, text))
    assert np.allclose(read_sound(first), wave[4_000:8_000])
    assert np.allclose(read_sound(second), wave[8_000:])
    assert (first.duration_s, second.duration_s) == (0.25, 0.5)


@pytest.mark.parametrize("rate_hz", [8_000, 22_050, 48_000])
def test_any_rate_and_any_channels_become_16_khz_mono(tmp_path, rate_hz):
    sound(tmp_path / "a.wav", 0.5, rate_hz, 2)
    heard = read_sound(Clip(tmp_path / "a.wav", "x", "y", "", "anger"))
    assert heard.dtype == np.float32
    assert abs(len(heard) - 8_000) <= 1
    assert np.abs(np.fft.rfft(heard)).argmax() * 16_000 / len(heard) == pytest.approx(200, abs=2)
    assert read_samples(Clip(tmp_path / "a.wav", "x", "y", "", "anger"))[1] == rate_hz


def test_json_lines_hold_the_same(tmp_path):
    sound(tmp_path / "a.wav")
    line = {"file": "a.wav", "emotion": "surprise", "speaker": 7, "text": "x, y", "gender": None}
    path = manifest(tmp_path, json.dumps(line) + "\n\n", "list.jsonl")
    (clip,) = read_manifest(path)
    assert (clip.speaker, clip.text, clip.gender) == ("7", "x, y", "")


names = st.text(st.characters(exclude_categories=["C", "Z"]), max_size=8)


@given(
    st.lists(
        st.builds(
            Clip,
            path=st.integers(0, 99).map(lambda n: Path(f"/sound/{n}.wav")),
            corpus=names.filter(bool),
            speaker=names,
            gender=st.sampled_from(["", "female", "male"]),
            emotion=st.sampled_from(HEADS),
            language=names,
            text=st.text(st.characters(exclude_categories=["C"]), max_size=20).map(str.strip),
            duration_s=st.floats(0.01, 99),
            source_rate_hz=st.sampled_from([0, 16_000]),
            start_s=st.sampled_from([0.0, 0.5]),
            end_s=st.sampled_from([None, 2.25]),
        ),
        min_size=1,
        max_size=5,
        unique_by=lambda clip: (clip.path, clip.start_s, clip.end_s),
    ),
    st.sampled_from(["list.csv", "list.jsonl"]),
)
def test_what_is_written_is_read_back(tmp_path_factory, clips, name):
    path = tmp_path_factory.mktemp("round") / name
    write_manifest(path, clips, Path("/sound"))
    assert read_manifest(path, Path("/sound"), check=False) == clips


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("file,label\na.wav,anger\n", "no column 'emotion'"),
        ("file,emotion\na.wav,grumpy\n", r"manifest.csv:2: unknown emotion 'grumpy'.*anger"),
        ("file,emotion\na.wav,excited\n", "excited=happiness"),
        ("file,emotion\na.wav,\n", "manifest.csv:2: a.wav has no emotion"),
        ("file,emotion\n,anger\n", "manifest.csv:2: no file is named"),
        ("file,emotion\na.wav,anger\na.wav,fear\n", "manifest.csv:3: .*manifest.csv:2 already as anger, here as fear"),
        ("file,emotion\ngone.wav,anger\n", r"manifest.csv:2: no file .*gone\.wav; correct the path"),
        ("file,emotion\nbad.wav,anger\n", r"manifest.csv:2: .*bad\.wav: cannot be read as sound.*convert"),
        ("file,emotion\na.wav,anger;fear\n", "manifest.csv:2: several emotions"),
        ("file,emotion\na.wav,anger,more\n", "manifest.csv:2: more or fewer cells"),
        ("file,emotion,start_s\na.wav,anger,9\n", "manifest.csv:2: .*nothing to hear"),
        ("file,emotion,start_s,end_s\na.wav,anger,2,1\n", "ends .1 s. before it begins"),
        ("file,emotion,duration_s\na.wav,anger,long\n", "duration_s is 'long'"),
        ("file,emotion\n", "names no clips"),
        ('file,emotion\n"a.wav,anger\n', "not a CSV"),
    ],
)
def test_what_cannot_be_used_is_named_with_its_line(tmp_path, text, said):
    sound(tmp_path / "a.wav")
    (tmp_path / "bad.wav").write_bytes(b"no sound")
    with pytest.raises(GivenError, match=said):
        read_manifest(manifest(tmp_path, text))


def test_all_faults_are_told_at_once_but_not_hundreds(tmp_path):
    rows = "".join(f"{n}.wav,anger\n" for n in range(30))
    with pytest.raises(GivenError) as told:
        read_manifest(manifest(tmp_path, "file,emotion\n" + rows))
    assert str(told.value).count("no file") == 8
    assert str(told.value).endswith("... and 22 more")


def test_other_faults_of_files(tmp_path):
    with pytest.raises(MissingError, match="no manifest"):
        read_manifest(tmp_path / "none.csv")
    with pytest.raises(MissingError, match=r"neither a manifest.csv nor a db.yaml"):
        read_manifest(tmp_path)
    (tmp_path / "latin.csv").write_bytes("file,emotion\nä.wav,anger\n".encode("latin-1"))
    with pytest.raises(GivenError, match="UTF-8"):
        read_manifest(tmp_path / "latin.csv")
    with pytest.raises(GivenError, match=r"x\.jsonl:1: not JSON"):
        read_manifest(manifest(tmp_path, "{", "x.jsonl"))
    with pytest.raises(GivenError, match=r"y\.jsonl:1: an object with file and emotion"):
        read_manifest(manifest(tmp_path, '{"file": "a"}', "y.jsonl"))
    with pytest.raises(GivenError, match=r"the file has 0\.500 s"):
        sound(tmp_path / "a.wav")
        read_sound(Clip(tmp_path / "a.wav", "x", "y", "", "anger", start_s=2.0))


def test_whoever_reads_says_what_excited_counts_as(tmp_path):
    sound(tmp_path / "a.wav")
    sound(tmp_path / "b.wav")
    path = manifest(tmp_path, "file,emotion\na.wav,excited\nb.wav,sad\n")
    assert [clip.emotion for clip in read_manifest(path, also={"Excited": "happy"})] == ["happiness", "sadness"]
    assert [clip.emotion for clip in read_manifest(path, also={"excited": ""})] == ["sadness"]
    assert [canonical(name) for name in HEADS] == list(HEADS)


HEADER = """
name: shouts
languages: [deu]
schemes:
  emotion: {dtype: str, labels: [anger, happiness]}
  speaker: {dtype: int, labels: {3: {gender: male}, 8: {gender: female}}}
  transcription: {dtype: str, labels: {a01: Der Lappen, b02: Das Tuch}}
tables:
  emotion:
    type: filewise
    columns: {emotion: {scheme_id: emotion}, confidence: {}}
  files:
    type: filewise
    columns:
      duration: {scheme_id: duration}
      speaker: {scheme_id: speaker}
      transcription: {scheme_id: transcription}
"""


def database(folder, header=HEADER, **tables):
    folder.mkdir(exist_ok=True)
    (folder / "db.yaml").write_text(header, encoding="utf-8")
    for name, text in tables.items():
        (folder / f"db.{name}.csv").write_text(text, encoding="utf-8")
    return folder


FILES = (
    "file,duration,speaker,transcription\nwav/a.wav,0 days 00:00:00.500000,3,a01\nwav/b.wav,0 days 00:00:00.5,8,b02\n"
)


def test_an_audformat_folder_is_read_without_its_package(tmp_path):
    folder = database(
        tmp_path, emotion="file,emotion,confidence\nwav/a.wav,anger,1\nwav/b.wav,happiness,.\n", files=FILES
    )
    sound(tmp_path / "wav" / "a.wav")
    sound(tmp_path / "wav" / "b.wav")
    clips = read_manifest(folder)
    assert [(c.emotion, c.speaker, c.gender, c.text, c.language, c.corpus) for c in clips] == [
        ("anger", "3", "male", "Der Lappen", "deu", "shouts"),
        ("happiness", "8", "female", "Das Tuch", "deu", "shouts"),
    ]
    assert clips[0].duration_s == 0.5


def test_segments_of_an_audformat_table_are_parts_of_files(tmp_path):
    segments = (
        "file,start,end,emotion,confidence\n"
        "wav/a.wav,0 days,0 days 00:00:00.250000,anger,\nwav/a.wav,0 days 00:00:00.25,NaT,happiness,\n"
        "wav/b.wav,0 days 00:00:00,,,\n"
    )
    sound(tmp_path / "wav" / "a.wav")
    one, two = read_manifest(database(tmp_path, emotion=segments, files=FILES))
    assert (one.start_s, one.end_s, one.duration_s, one.speaker) == (0.0, 0.25, 0.25, "3")
    assert (two.start_s, two.end_s, two.duration_s) == (0.25, None, 0.25)


def test_speakers_may_stand_in_a_table_of_their_own(tmp_path):
    header = HEADER.replace("labels: {3: {gender: male}, 8: {gender: female}}", "labels: people")
    header += "misc_tables: {people: {levels: {speaker: int}, columns: {gender: {}}}}\n"
    folder = database(
        tmp_path,
        header,
        emotion="file,emotion,confidence\nwav/a.wav,anger,1\n",
        files=FILES,
        people="speaker,gender\n3,female\n8,male\n",
    )
    assert read_manifest(folder, check=False)[0].gender == "female"


@pytest.mark.parametrize(
    ("tables", "said"),
    [
        ({"emotion": "file,emotion,confidence\na.wav,anger,\n"}, "no table .*db.files.csv"),
        ({"emotion": "file,confidence\na.wav,\n", "files": FILES}, "no column emotion"),
        (
            {"emotion": "file,emotion,confidence\nwav/a.wav,cross,\n", "files": FILES},
            "wav/a.wav: unknown emotion 'cross'",
        ),
        (
            {"emotion": "file,start,end,emotion,confidence\na.wav,soon,,anger,\n", "files": FILES},
            "'soon' is no time",
        ),
    ],
)
def test_an_audformat_folder_that_does_not_hold_together(tmp_path, tables, said):
    with pytest.raises((GivenError, MissingError), match=said):
        read_manifest(database(tmp_path, **tables), check=False)


def test_an_audformat_folder_without_emotions_or_with_two_opinions(tmp_path):
    with pytest.raises(GivenError, match="no table has a column `emotion`"):
        read_manifest(database(tmp_path / "a", "name: x\ntables: {files: {columns: {speaker: {}}}}\n"), check=False)
    two = "name: x\ntables: {one: {columns: {emotion: {}}}, two: {columns: {emotion: {}}}}\n"
    folder = database(tmp_path / "b", two, one="file,emotion\na.wav,anger\n", two="file,emotion\na.wav,fear\n")
    with pytest.raises(GivenError, match=r"a.wav is fear, in another table anger"):
        read_manifest(folder, check=False)
    with pytest.raises(GivenError, match="no tables"):
        read_manifest(database(tmp_path / "c", "name: x\n"))
    with pytest.raises(GivenError, match="not YAML"):
        read_manifest(database(tmp_path / "d", "a: [\n"))


def test_texts_carry_one_emotion_or_more_and_other_is_none(tmp_path):
    (tmp_path / "text_x").mkdir()
    with gzip.open(tmp_path / "text_x" / "texts.csv.gz", "wt", encoding="utf-8", newline="") as out:
        rows = csv.writer(out)
        rows.writerow(["corpus", "language", "split", "text", "emotion", "native_label"])
        rows.writerows([["x", "en", "train", "a", "joy;anger", ""], ["x", "en", "test", "b", "other", ""]])
        rows.writerow(["x", "en", "test", "c", "other;calm", ""])
    read = [(text.text, text.split, text.emotions) for text in read_texts(tmp_path, ["x"])]
    assert read == [("a", "train", ("happiness", "anger")), ("c", "test", ("calm",))]
    with pytest.raises(MissingError, match="no corpus text_y"):
        list(read_texts(tmp_path, ["y"]))


@needs_corpora
@pytest.mark.slow
def test_the_corpora_are_read():
    folder = Path(CORPORA)
    clips = read_speech(folder, SPEECH)
    assert len(clips) > 8_000
    assert {clip.emotion for clip in clips} == set(HEADS)
    assert all(clip.speaker and clip.duration_s > 0 for clip in clips)
    assert not {clip.emotion for clip in read_sounds(folder, "rir")} - {""}
