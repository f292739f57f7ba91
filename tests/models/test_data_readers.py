"""Readers of corpora as people download them, each on a small made tree with the real names and tables."""

import csv
import os
import shutil
import zlib
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from made_corpora import EXPECTED, MELD_NAMES, NEMO_NAMES, TIMES, TREES, lay, sound, wavs

from clser.models.data import downloads, listing, soundtracks
from clser.models.data.corpora import read_speech
from clser.models.data.downloads import guess, kinds, reader, walk
from clser.models.data.lint import lint
from clser.models.data.listing import COLUMNS, listed, read_sentences
from clser.models.data.manifests import read_manifest
from clser.models.errors import GivenError, MissingError
from clser.models.labels import HEADS


def of(kind, tmp_path, also=None, **further):
    return listed(kind, lay(tmp_path / "corpus", TREES[kind] | further.pop("files", {})), also=also, **further)


def told(made):
    return {one.what: one.count for one in made.told}


def texts(made):
    return {Path(row["source_path"]).stem: row["text"] for row in made.rows}


def test_every_reader_is_tested():
    assert kinds() == sorted(TREES) == sorted(EXPECTED)
    assert all(set(reader(kind).labels.values()) & set(HEADS) for kind in kinds())


@pytest.mark.parametrize("kind", kinds())
def test_labels_and_speakers(kind, tmp_path):
    made = of(kind, tmp_path)
    assert {(r["emotion"], r["speaker"], r["gender"], r["language"]) for r in made.rows} == EXPECTED[kind]
    assert all(set(row) == set(COLUMNS) for row in made.rows)
    assert all(row["corpus"] == kind and row["source_sr"] == "16000" for row in made.rows)


@pytest.mark.parametrize("kind", kinds())
def test_auto_knows_them_apart(kind, tmp_path):
    assert guess(walk(lay(tmp_path, TREES[kind]))) == kind


@pytest.mark.parametrize("kind", kinds())
@settings(
    max_examples=6,
    deadline=None,  # files are written
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],  # each example has a folder of its own
)
@given(data=st.data())
def test_whatever_is_there_is_listed_or_told_and_the_manifest_is_good(kind, tmp_path, data):
    files = dict(TREES[kind]) | {"stray/hello.wav": sound("stray"), "stray/.hidden.wav": b"", "notes.txt": b"made"}
    gone = data.draw(st.sets(st.sampled_from(sorted(files))))
    folder = tmp_path / str(zlib.crc32(repr(sorted(gone)).encode()))
    shutil.rmtree(folder, ignore_errors=True)
    lay(folder, {name: content for name, content in files.items() if name not in gone} | {"x/y.md": b""})
    try:
        made = listed(kind, folder)
    except (GivenError, MissingError) as error:
        assert str(folder) in str(error)
        return
    seen = sum(1 for path in walk(folder).media())
    assert len(made.rows) + sum(n for what, n in told(made).items() if not what.startswith("missing")) == seen
    listing.write(made, folder / "manifest.csv")
    clips = read_manifest(folder / "manifest.csv")
    assert [clip.emotion for clip in clips] == [row["emotion"] for row in made.rows]
    assert all(clip.path.is_file() and clip.duration_s == pytest.approx(0.1) for clip in clips)
    assert all(clip.speaker.startswith(f"{kind}_") or not clip.speaker for clip in clips)
    genders = {(clip.speaker, clip.gender) for clip in clips if clip.speaker}
    assert len(genders) == len({speaker for speaker, _ in genders})
    assert [finding for finding in lint(clips) if finding.severity == "error"] == []


def test_paths_are_relative_to_the_manifest(tmp_path):
    made = of("emodb", tmp_path)
    for where in (tmp_path / "corpus" / "m.csv", tmp_path / "m.csv", tmp_path / "a" / "b" / "m.csv"):
        listing.write(made, where)
        with where.open(encoding="utf-8", newline="") as lines:
            assert all(not Path(row["file"]).is_absolute() for row in csv.DictReader(lines))
        assert len(read_manifest(where)) == 5


def test_a_manifest_under_its_corpus_s_name_makes_a_folder_of_corpora(tmp_path):
    listing.write(of("emodb", tmp_path), tmp_path / "corpora" / "emodb" / "manifest.csv")
    clips = read_speech(tmp_path / "corpora", ["emodb"])
    assert {clip.who for clip in clips} == {("emodb", f"emodb_{number}") for number in ("03", "08", "09", "11", "16")}


def test_links(tmp_path):
    folder = lay(tmp_path / "corpus", {"x/blob": sound("blob")})
    (folder / "wav").mkdir()
    try:
        (folder / "wav" / "03a01Fa.wav").symlink_to(folder / "x" / "blob")
        (folder / "wav" / "up").symlink_to(folder)
    except OSError:
        pytest.skip("links cannot be made here")
    (row,) = listed("emodb", folder).rows
    assert row["file"] == str(folder.resolve() / "wav" / "03a01Fa.wav")


def test_what_a_label_counts_as(tmp_path):
    assert told(of("iemocap", tmp_path))["left out: excitement"] == 1
    for said in ("exc", "excitement", "EXC"):
        made = of("iemocap", tmp_path, {said: "happiness"})
        assert ("happiness", "iemocap_1M") in {(r["emotion"], r["speaker"]) for r in made.rows}
        assert "left out: excitement" not in told(made)
    assert {row["emotion"] for row in of("iemocap", tmp_path, {"sad": ""}).rows} == {"neutral"}
    assert {row["emotion"] for row in of("emodb", tmp_path / "e", {"boredom": "neutral", "A": ""}).rows} == {
        *("happiness", "anger", "neutral")
    }
    with pytest.raises(GivenError, match=r"no label ecstasy here; it has ang \(anger\)"):
        of("iemocap", tmp_path, {"ecstasy": "happiness"})
    with pytest.raises(GivenError, match="unknown emotion 'bliss'"):
        of("iemocap", tmp_path, {"exc": "bliss"})


def test_iemocap_turns(tmp_path):
    made = of("iemocap", tmp_path)
    first = next(row for row in made.rows if row["emotion"] == "neutral")
    assert first["text"] == "Made words."
    assert first["dialogue"] == "iemocap_Ses01F_impro01"
    assert first["note"] == "improvised; valence 2.5000, activation 3.0000, dominance 3.5000"
    assert told(made) == {
        "left out: without a label in dialog/EmoEvaluation": 1,
        "left out: excitement": 1,
        "left out: no agreement": 1,
        "missing: named by the corpus's tables": 1,
        "not understood: sound files with other names": 1,
    }


def test_meld_splits_and_which_file(tmp_path):
    made = of("meld", tmp_path)
    assert {(row["split"], row["source_path"].rpartition("/")[2]) for row in made.rows} == {
        ("train", "dia0_utt0.wav"),
        ("train", "dia0_utt1.wav"),
        ("dev", "dia0_utt0.wav"),
        ("test", "final_videos_testdia0_utt0.wav"),
    }
    assert "Made, as all." in {row["text"] for row in made.rows}
    assert told(made) == {
        "left out: known to be broken": 1,
        "left out: not named in a table": 1,
        "left out: another file of the same utterance, or of no split": 1,
        "missing: named by the corpus's tables": 1,
    }


def test_labels_that_a_corpus_should_not_have(tmp_path):
    odd = {"data.tsv": (NEMO_NAMES + "SM0_anger_1\tirony\t-\t-\tSM0\tmale\t\n").encode()}
    with pytest.raises(
        GivenError, match=r"none of use: .*left out: labelled 'irony', which is no label of this corpus: 1"
    ):
        of("nemo", tmp_path, files=odd)
    (row,) = of("nemo", tmp_path, {"irony": "anger"}, files=odd).rows
    assert (row["native_label"], row["emotion"], row["note"]) == ("irony", "anger", "")


def test_nemo_without_its_table_goes_by_names(tmp_path):
    (row,) = listed("auto", lay(tmp_path, wavs("samples/SM0_surprised_2.wav"))).rows
    assert (row["speaker"], row["emotion"], row["gender"], row["note"]) == ("nemo_SM0", "surprise", "", "sentence 2")


def test_tables_in_other_encodings(tmp_path):
    files = {
        "a.txt": "it\u2019s".encode("cp1252"),
        "b.txt": "\ufeffé".encode(),
        "c.txt": "生气".encode("gb18030"),
        "d.txt": "生气".encode("utf-16"),
        "e.txt": b"\x81\xff\xff",
    }
    tree = walk(lay(tmp_path, files))
    assert tree.text(Path("a.txt")) == "it\u2019s"
    assert tree.text(Path("b.txt")) == "é"
    assert tree.text(Path("c.txt"), downloads.CHINESE) == tree.text(Path("d.txt")) == "生气"
    with pytest.raises(GivenError, match="save it as UTF-8"):
        tree.text(Path("e.txt"), downloads.CHINESE)


def test_marks_that_were_saved_wrongly(tmp_path):
    table = MELD_NAMES + f"1,It\x92s made\x85,Joey,joy,positive,0,0,{TIMES}"
    made = listed("meld", lay(tmp_path, {"dev_sent_emo.csv": table.encode(), **wavs("dev_splits/dia0_utt0.wav")}))
    assert made.rows[0]["text"] == "It\u2019s made\u2026"


def test_a_file_that_was_cut_wrongly_is_left_out(tmp_path):
    long = {"train/train_splits/dia0_utt0.wav": sound("long", 30.0, 1000)}
    made = of("meld", tmp_path, files=long)
    assert told(made)["left out: far longer than it should be: cut wrongly, or several in one"] == 1


def test_texts(tmp_path):
    assert texts(of("crema_d", tmp_path / "1")) == {
        "1001_DFA_ANG_XX": "A made sentence.",
        "1002_IEO_HAP_LO": "Another one.",
        "1040_ITH_SAD_X": "",
    }
    assert texts(of("esd", tmp_path / "2")) == {
        "0001_000351": "编的话语",
        "0011_000351": "Made words.",
        "0011_001080": "",
        "0011_001500": "",
    }
    assert texts(of("mesd", tmp_path / "3"))["Happiness_F_B_L1_abuso"] == "abuso"
    assert texts(of("nemo", tmp_path / "4"))["SM0_anger_1"] == "Zmyślone."
    assert texts(of("tess", tmp_path / "5"))["OA_bite_neutral"] == "Say the word bite."


def test_sentences_of_codes(tmp_path):
    table = tmp_path / "sentences.csv"
    table.write_text('code,text\na01,"Made, here."\nB02,Also.\n', encoding="utf-8")
    made = of("emodb", tmp_path, sentences=read_sentences(table))
    assert texts(made)["03a01Fa"] == "Made, here."
    assert texts(made)["08b02Wc"] == "Also."
    assert texts(made)["16a05Ab"] == ""
    assert (
        next(row["note"] for row in made.rows if row["source_path"] == "wav/03a01Fa.wav") == "version a; sentence a01"
    )
    with pytest.raises(MissingError, match="no sentences"):
        read_sentences(tmp_path / "none.csv")
    table.write_text("letter,text\n", encoding="utf-8")
    with pytest.raises(GivenError, match="no column code"):
        read_sentences(table)


def test_esd_splits_come_from_folders_or_numbers(tmp_path):
    names = [f"0012/Happy/0012_{number:06d}.wav" for number in (701, 720, 721, 750, 751)]
    made = listed("esd", lay(tmp_path, wavs(*names, "0012/Happy/evaluation/0012_000799.wav")))
    assert [row["split"] for row in made.rows] == ["dev", "dev", "test", "test", "train", "dev"]


def test_resd_packed_in_parquet(tmp_path):
    pyarrow = pytest.importorskip("pyarrow", reason="RESD's parquet files are read with pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    names = ["32_happiness_anger_h_120", "33_fear_sadness_s_7"]
    table = pyarrow.table(
        {
            "name": names,
            "path": [f"x/{name}.wav" for name in names],
            "emotion": ["happiness", "sadness"],
            "speech": [{"bytes": sound(name), "path": None} for name in names],
            "text": ["Выдумано.", None],
        }
    )
    (tmp_path / "data").mkdir()
    parquet.write_table(table, tmp_path / "data" / "train-00000-of-00001.parquet", row_group_size=1)
    with pytest.raises(GivenError, match=r"2 recordings have no sound file yet.*--extract"):
        listed("auto", tmp_path)
    made = listed("auto", tmp_path, extract=tmp_path / "wav")
    assert sorted(path.name for path in (tmp_path / "wav" / "train").iterdir()) == [f"{name}.wav" for name in names]
    assert [(row["speaker"], row["split"], row["text"]) for row in made.rows] == [
        ("resd_32_h", "train", "Выдумано."),
        ("resd_33_s", "train", ""),
    ]
    assert made.rows[0]["source_path"] == "data/train-00000-of-00001.parquet#32_happiness_anger_h_120"
    assert Path(made.rows[1]["file"]).read_bytes() == sound(names[1])


@pytest.fixture
def ffmpeg(tmp_path, monkeypatch):
    """A program that stands in for ffmpeg: it finds sound in every video but those called `mute`."""
    if os.name == "nt":
        pytest.skip("a shell script plays ffmpeg")
    (tmp_path / "bin").mkdir()
    (tmp_path / "a.wav").write_bytes(sound("video"))
    program = tmp_path / "bin" / "ffmpeg"
    program.write_text(
        '#!/bin/sh\nfor last; do :; done\ncase "$*" in *mute*) exit 1;; esac\n'
        f'echo "$last" >> {tmp_path}/calls\nexec /bin/cp {tmp_path}/a.wav "$last"\n'
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    return tmp_path / "calls"


VIDEOS = {
    "subject 1/anger/sentence 1/s1_an_1.avi": b"video",
    "subject 2/anger/sentence 1/mute.avi": b"video",
    "subject 3/anger/sentence 1/s3_an_1.avi": b"video",
    "subject 3/anger/sentence 1/s3_an_1.wav": sound("beside"),
}


def test_sound_is_taken_out_of_videos(tmp_path, ffmpeg):
    folder = lay(tmp_path / "corpus", VIDEOS)
    for _ in range(2):
        made = listed("auto", folder, extract=tmp_path / "wav")
        assert [(row["speaker"], row["source_path"].rpartition(".")[2], row["source_sr"]) for row in made.rows] == [
            ("enterface_3", "wav", "16000"),
            ("enterface_1", "avi", ""),
        ]
        assert told(made)["left out: ffmpeg finds no sound in the video"] == 1
        assert len(ffmpeg.read_text().splitlines()) == 1  # the second time it is there
    assert [path.name for path in (tmp_path / "wav").rglob("*") if path.is_file()] == ["s1_an_1.wav"]


def test_videos_without_ffmpeg_or_a_place_for_their_sound(tmp_path, monkeypatch):
    folder = lay(tmp_path, VIDEOS)
    with pytest.raises(GivenError, match=r"2 recordings have no sound file yet .*is a video.*--extract DIR"):
        listed("enterface", folder)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MissingError, match="ffmpeg"):
        listed("enterface", folder, extract=tmp_path / "wav")
    with pytest.raises(MissingError, match="ffmpeg"):
        soundtracks.soundtrack(folder / "x.avi", tmp_path / "x.wav")


def test_wrong_folders(tmp_path):
    with pytest.raises(MissingError, match="is no folder"):
        listed("emodb", tmp_path / "none")
    (tmp_path / "empty").mkdir()
    with pytest.raises(MissingError, match=r"no recording of EmoDB; looked for wav/03a01Fa.wav; it is empty"):
        listed("emodb", tmp_path / "empty")
    with pytest.raises(MissingError, match="looks like none of casia, "):
        listed("auto", tmp_path / "empty")
    lay(tmp_path / "tess", TREES["tess"])
    with pytest.raises(MissingError, match=r"no recording of EmoDB.*its recordings are .*It looks like tess"):
        listed("emodb", tmp_path / "tess")
    lay(tmp_path / "text", {"a/b.txt": b"x"})
    with pytest.raises(MissingError, match="it has 1 files and no sound"):
        listed("savee", tmp_path / "text")
    with pytest.raises(GivenError, match="no reader 'berlin'; there are casia, "):
        listed("berlin", tmp_path)
    lay(tmp_path / "both" / "a", TREES["tess"])
    lay(tmp_path / "both" / "b", TREES["emodb"])
    with pytest.raises(GivenError, match=r"several corpora: emodb \(5 recordings\), tess \(5 recordings\)"):
        listed("auto", tmp_path / "both")
    assert listed("CREMA-D", lay(tmp_path / "c", TREES["crema_d"])).kind == "crema_d"


def test_a_folder_of_tables_without_sound(tmp_path):
    tables = {name: content for name, content in TREES["meld"].items() if name.endswith(".csv")}
    with pytest.raises(MissingError, match=r"its tables name 6 files that are not there, such as train dia0_utt0"):
        listed("meld", lay(tmp_path, tables))


def test_files_that_are_no_sound(tmp_path):
    broken = {
        "AudioWAV/1003_DFA_ANG_XX.wav": b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n",
        "AudioWAV/1004_DFA_ANG_XX.wav": b"",
        "AudioWAV/1005_DFA_ANG_XX.wav": b"no sound at all",
        "AudioWAV/1006_DFA_ANG_XX.wav": sound("none", 0.0),
    }
    made = of("crema_d", tmp_path, files=broken)
    assert len(made.rows) == 3
    assert {what for what in told(made) if what not in told(of("crema_d", tmp_path / "whole"))} == {
        "left out: only a pointer of git-lfs is there: run `git lfs pull` in the checkout",
        "left out: the file is empty",
        "left out: cannot be read as sound",
        "left out: the file holds no sound",
    }
    with pytest.raises(GivenError, match=r"2 recordings of CREMA-D, none of use: .*git lfs pull"):
        listed("crema_d", lay(tmp_path / "lfs", {f"AudioWAV/100{n}_DFA_ANG_XX.wav": listing.POINTER for n in (1, 2)}))


def test_tables_that_are_not_theirs(tmp_path):
    with pytest.raises(GivenError, match="no column Utterance"):
        listed("meld", lay(tmp_path / "1", {"train_sent_emo.csv": b"a,b\n1,2\n"}))
    with pytest.raises(GivenError, match="Dialogue_ID is 'x'"):
        listed("meld", lay(tmp_path / "2", {"train_sent_emo.csv": (MELD_NAMES + "1,a,b,joy,c,x,0,1,1,,\n").encode()}))
    assert guess(walk(lay(tmp_path / "1", TREES["emodb"]))) == "emodb"


def test_lines_for_people(tmp_path):
    said = "\n".join(listing.lines(of("ravdess", tmp_path)))
    assert "RAVDESS: 2 recordings (1440 when whole and nothing is left out), 2 speakers" in said
    assert "anger 1, calm 1" in said
    assert "left out: song, not speech: 1" in said
    assert "left out: there once already under the same name: 1" in said
    assert "train 2" in "\n".join(listing.lines(of("meld", tmp_path / "m")))
    assert "speakers not told apart" in "\n".join(listing.lines(of("mesd", tmp_path / "s")))


def test_a_mac_s_files_and_hidden_ones_are_passed_over(tmp_path):
    lay(tmp_path, {"__MACOSX/wav/03a01Fa.wav": b"", "wav/._03a01Fa.wav": b"", ".git/03a01Fa.wav": b"", "a.txt": b""})
    assert walk(tmp_path) == downloads.Tree(tmp_path, (Path("a.txt"),))
