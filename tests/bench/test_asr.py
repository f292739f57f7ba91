"""What recognition is worth: words that are wrong, when they are settled, what is false, and what the voice loses by it."""

import asyncio
import csv
import wave
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import made
import msgspec
import numpy as np
import pytest
from fakes import FakePool, ManualClock, sound
from scribes import FakeScribes

from clser.bench import asr, asr_live, asr_options, command, plot
from clser.bench.asr_decode import Batched, Done, Task, Written, decode, run_all
from clser.bench.asr_false import false_words, through_vad
from clser.bench.asr_live import OFF, Run, learn, on_off
from clser.bench.asr_options import Asked
from clser.bench.asr_sound import Piece, Said, clips, material, sentences, speechless
from clser.bench.asr_words import Counted, changed, edits, normalised, off_by_samples, rate, ratio, settled
from clser.bench.card import Setup
from clser.bench.espeak import present
from clser.bench.heard import Told
from clser.engine.api import Engine
from clser.engine.backends.recognisers import Choice
from clser.engine.config import Config
from clser.engine.errors import GivenError, MissingError
from clser.engine.jobs import RecogniserCard, Row, Word, Words
from clser.engine.records import Modality, Result, Samples, Text, Timing

RATE = 16_000
ALONE = Setup()


# --- words ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("And so, my fellow AMERICANS:", ["and", "so", "my", "fellow", "americans"]),
        ("Don’t — 'tis cold-hearted!", ["don't", "tis", "cold", "hearted"]),
        ("Straße ﬁn 3.5", ["strasse", "fin", "3", "5"]),
        ("我很 高兴。", ["我", "很", "高", "兴"]),
        (" ... ", []),
    ],
)
def test_words_without_case_and_punctuation(text: str, words: list[str]) -> None:
    assert normalised(text) == words


def test_the_fewest_edits() -> None:
    assert edits(["a", "b", "c"], ["a", "b", "c"]) == 0
    assert edits(["a", "b", "c"], ["a", "x", "c", "d"]) == 2
    assert edits([], ["a", "b"]) == edits(["a", "b"], []) == 2
    assert edits(["k", "i", "t", "t", "e", "n"], ["s", "i", "t", "t", "i", "n", "g"]) == 3


def test_a_rate_with_the_bounds_of_drawn_clips() -> None:
    some = [Counted(errors, 10) for errors in (0, 1, 2, 3, 4)]
    found = rate(some, 0)
    assert found == rate(some, 0)
    assert (found.value, found.errors, found.words) == (pytest.approx(0.2), 10, 50)
    assert found.low is not None and found.high is not None
    assert 0.05 < found.low < 0.2 < found.high < 0.35
    assert rate([], 0).value is None


def test_a_ratio_is_of_the_same_clips() -> None:
    some = [Counted(errors, 10) for errors in (1, 2, 3, 4)]
    twice = [Counted(2 * each.errors, 10) for each in some]
    found = ratio(twice, some, 0)
    assert (found.value, found.low, found.high) == (pytest.approx(2), pytest.approx(2), pytest.approx(2))
    assert ratio(some, [Counted(0, 10)] * 4, 0).value is None


# --- what was published -----------------------------------------------------------------------------------------------


def text(stable: str, tail: str = "", *ends_s: float, suspect: bool = False) -> Text:
    return Text(stable, tail, "en", 0.9, suspect, tuple((end - 0.2, end) for end in ends_s))


def told(*answers: tuple[float, Any, Text | None], start: int = RATE, end: int = 3 * RATE, **fields: Any) -> Told:
    """(ms after the beginning, stage, text) of each answer of utterance 1."""
    results: list[tuple[float, Result]] = [
        (made.START_US + at_ms * 1000, made.result(1, stage, start, end, seq, text=each, **fields))
        for seq, (at_ms, stage, each) in enumerate(answers, 1)
    ]
    return Told(1, results, start, end)


def test_a_word_is_settled_when_it_is_stable_for_the_first_time() -> None:
    each = told(
        (1500, "partial", text("", "oh", 1.4)),
        (1800, "partial", text("oh", " no", 1.4, 1.7)),
        (2600, "final", text("oh no", "", 1.4, 1.75)),
    )
    found = settled(each)
    assert [(word.word, word.end) for word in found] == [("oh", 22_400), ("no", 28_000)]
    assert [word.at_us - made.START_US for word in found] == [1_800_000, 2_600_000]
    assert changed(each) == 0


def test_what_was_stable_and_changed_is_counted() -> None:
    each = told(
        (1000, "partial", text("a b", "", 1.1, 1.2)),
        (1100, "partial", text("a c d", "", 1.1, 1.2, 1.3)),
        (1200, "final", text("a", "", 1.1)),
        (1300, "amended", None),
    )
    assert changed(each) == 1 + 2 + 1


def test_words_that_were_heard_right_have_a_true_end() -> None:
    found = settled(told((2000, "final", text("The, kat lamp.", "", 1.1, 1.2, 1.3))))
    pairs = off_by_samples(found, [("the", 100), ("cat", 200), ("lamp", 300)])
    assert [(word.word, end) for word, end in pairs] == [("The,", 100), ("lamp.", 300)]


# --- sound ------------------------------------------------------------------------------------------------------------


def tone(seconds: float, hz: float = 300.0) -> Any:
    return (0.3 * np.sin(np.arange(round(seconds * RATE)) * hz * 6.283 / RATE)).astype(np.float32)


def said(count: int, seconds: float = 2.0) -> list[Said]:
    return [Said(f"clip {n}", f"word{n} again", tone(seconds), (("again", 20_000),)) for n in range(count)]


def test_clips_are_laid_out_in_rounds_and_none_is_lost() -> None:
    made_of = material("clips", "en", said(40), 0, False)
    assert [len(each.spoken) for each in made_of.rounds] == [8, 8, 8, 8, 8]
    assert (made_of.played, made_of.paired) == (4, 2)
    assert sorted(spoken.said.name for spoken in made_of.spoken) == sorted(each.name for each in said(40))
    for spoken in made_of.spoken:
        assert spoken.phrase.offset - spoken.phrase.onset == 2 * RATE
        assert len(spoken.alone) == 2 * RATE + 2 * 4_800
        quiet = np.abs(spoken.alone[:4_000]).max(), np.abs(spoken.alone[-4_000:]).max()
        assert max(quiet) < 200 < np.abs(spoken.alone).max()
    short = material("clips", "en", said(3), 0, True)
    assert (len(short.rounds), short.played, short.paired) == (1, 1, 1)


def test_minutes_without_speech_are_shared_among_the_kinds() -> None:
    pieces = speechless(0.6, None, 0)
    kinds = list(dict.fromkeys(piece.kind for piece in pieces))
    assert kinds == ["music", "hush", "machines", "weather", "phones", "silence"]
    assert sum(len(piece.sound) for piece in pieces) == pytest.approx(36 * RATE, rel=0.01)
    assert all(len(piece.sound) <= 15 * RATE for piece in pieces)
    assert not any(piece.sound.any() for piece in pieces if piece.kind == "silence")


def write_clips(folder: Path, texts: Sequence[str]) -> Path:
    with (folder / "manifest.csv").open("w", newline="") as lines:
        writer = csv.writer(lines)
        writer.writerow(["file", "emotion", "text", "language"])
        for number, each in enumerate(texts):
            with wave.open(str(folder / f"{number}.wav"), "wb") as out:
                out.setparams((1, 2, RATE, 0, "NONE", ""))
                out.writeframes((tone(1.0) * 32767).astype(np.int16).tobytes())
            writer.writerow([f"{number}.wav", "", each, "en"])
    return folder / "manifest.csv"


def test_clips_without_a_text_are_passed_over(tmp_path: Path) -> None:
    found, language = clips(write_clips(tmp_path, ["oh no", "", "well then"]), None, 10, 0)
    assert [each.text for each in found] == ["oh no", "well then"]
    assert language == "en"
    with pytest.raises(GivenError, match="no clip has a text"):
        clips(write_clips(tmp_path, ["", "..."]), None, 10, 0)


def test_sentences_tell_when_each_word_ends() -> None:
    if not present():
        pytest.skip("espeak-ng is not installed")
    for each in sentences(2, 0):
        assert [word for word, _ in each.words] == each.text.split()
        assert 0 < each.words[0][1] <= each.words[-1][1] <= len(each.sound)


# --- a recogniser by itself -------------------------------------------------------------------------------------------


class Counting:
    """Writes a word for each second of an utterance, and notes the rows."""

    card = RecogniserCard("counting", step_ms=400)

    def __init__(self) -> None:
        self.rows: list[list[tuple[int, int, bool, bool]]] = []
        self._heard: dict[int, int] = {}

    def run(self, rows: Sequence[Row], pcm: Samples) -> list[Words]:
        assert sum(row.frames for row in rows) == len(pcm)
        self.rows.append([(row.slot, row.frames, row.fresh, row.last) for row in rows])
        for row in rows:
            self._heard[row.slot] = row.frames + (0 if row.fresh else self._heard[row.slot])
        return [
            Words(tuple(Word(f" s{n}", n * RATE, (n + 1) * RATE, 1.0) for n in range(self._heard[row.slot] // RATE)))
            for row in rows
        ]


def test_whole_in_one_row_and_stepped_in_many_are_the_same_utterance() -> None:
    counting = Counting()
    sounds = [np.zeros(2 * RATE + 100, np.int16), np.zeros(RATE, np.int16)]
    whole = decode(counting, sounds, "whole", 0)
    assert [each.text for each in whole.written] == ["s0 s1", "s0"]
    assert counting.rows == [[(0, 2 * RATE + 100, True, True)], [(0, RATE, True, True)]]
    counting.rows.clear()
    stepped = decode(counting, sounds, "stepped", 0)
    assert (stepped.written, stepped.step_ms) == (whole.written, 400)
    first = [row for (row,) in counting.rows[:6]]
    assert first == [(0, 6400, n == 0, False) for n in range(5)] + [(0, 100, False, True)]


def test_together_they_go_in_one_batch() -> None:
    counting = Counting()
    done = decode(counting, [np.zeros(n, np.int16) for n in (100, 200, 300)], "batch", 0)
    assert done.batched is not None and done.batched.windows == 3
    assert [len(rows) for rows in counting.rows] == 3 * [1, 1, 1, 3]


def test_a_recogniser_that_is_not_there_says_so_and_the_others_go_on(tmp_path: Path) -> None:
    def task(name: str) -> Task:
        return Task(
            msgspec.structs.replace(ALONE, overrides=(f"asr.recogniser={name}",)), [np.zeros(1, np.int16)], "whole"
        )

    off, none = run_all([task("off"), task(f"whisper:{tmp_path / 'none'}")], 2)
    assert isinstance(off, MissingError) and "asr.recogniser is off" in str(off)
    assert isinstance(none, MissingError) and "none" in str(none)


# --- through an engine ------------------------------------------------------------------------------------------------

ONE = material("clips", "en", said(1), 0, False).rounds[0]
AT = ONE.spoken[0].phrase.onset


def learnt() -> Run:
    end_s = (AT + 20_000) / RATE
    each = told(
        (1400, "partial", None),
        (1500, "partial", text("word0", " agn", 1.3, end_s)),
        (2600, "final", text("word0", " agn", 1.3, end_s)),
        (2900, "amended", text("word0 again", "", 1.3, end_s, suspect=True)),
        start=AT - 4_800,
        end=AT + 24_000,
        start_s=1.0,
        end_s=3.5,
        timing_ms=Timing(1, 2, 3, 4, 5),
    )
    at_us, first = each.results[1]
    each.results[1] = at_us, msgspec.structs.replace(first, words=Modality({}))
    return learn(ONE, [each], made.ledger(), ALONE.config)


def test_what_is_learnt_of_a_round() -> None:
    run = learnt()
    assert asr_live.counts(run) == [Counted(0, 2)]
    assert (run.shown, run.changed, run.amended, run.suspect, run.utterances) == (2, 0, 1, 1, 1)
    assert run.spoken_s == 2.5
    end_ms = (AT + 20_000) / 16
    assert run.settled_ms == pytest.approx([1500 - 1300, 2900 - end_ms])
    assert run.settled_true_ms == pytest.approx([2900 - end_ms])
    assert run.waits["answer_ms"] == [7]  # what words made of the same answer later is none
    assert run.waits["answer_without_words_ms"] == [7]
    assert run.waits["first_emotion_ms"] == pytest.approx([1400 - AT / 16])
    assert run.waits["lag_ms"] == pytest.approx([1400 - (AT + 24_000) / 16])


def test_only_some_rounds_are_played_without_recognition(monkeypatch: pytest.MonkeyPatch) -> None:
    heard = material("clips", "en", said(40), 0, False)
    order: list[tuple[str, int]] = []

    def play(setup: Setup, played: Any) -> Run:
        order.append((setup.overrides[-1], next(n for n, each in enumerate(heard.rounds) if each is played)))
        run = asr_live.empty()
        run.busy_s = 1.0
        run.waits["lag_ms"] = [2.0]
        return run

    monkeypatch.setattr(asr_live, "play", play)
    on = msgspec.structs.replace(ALONE, overrides=("asr.recogniser=sphinx",))
    runs = asr_live.measure({OFF: ALONE, "sphinx": on}, heard)
    assert [name.partition("=")[2] for name, _ in order] == ["off", "sphinx", "off", "sphinx", "sphinx", "sphinx"]
    assert [number for _, number in order] == [0, 0, 1, 1, 2, 3]
    whole = asr_live.merged(runs["sphinx"])
    assert (whole.busy_s, whole.waits["lag_ms"]) == (4.0, [2.0] * 4)


def test_the_voice_with_recognition_over_the_voice_without() -> None:
    on, off = asr_live.empty(), asr_live.empty()
    on.waits["answer_ms"], off.waits["answer_ms"] = [12.0] * 20, [10.0] * 20
    found: Any = on_off(on, off)
    assert found["p95_ratio"]["answer_ms"] == pytest.approx(1.2)
    assert found["p95_ratio"]["lag_ms"] is None


def test_words_where_nobody_speaks(monkeypatch: pytest.MonkeyPatch) -> None:
    def start(config: Config) -> Engine:
        assert config.bus.publish == ""
        return Engine(config, ManualClock(), FakePool(), FakeScribes())

    loud = sound([(False, 400), (True, 1000), (False, 800)])
    pieces = [Piece("noise", loud), Piece("silence", np.zeros(RATE, np.int16)), Piece("noise", loud[::-1].copy())]
    found = asyncio.run(through_vad(ALONE, pieces, start))
    assert len(found["noise"]) == 2
    assert found["silence"] == []
    counted = false_words(found)
    assert counted.texts == 2
    assert counted.words == counted.trusted == counted.by_kind["noise"] >= 8


def test_false_words_that_are_suspect_are_not_trusted() -> None:
    found = false_words({"music": [Written("la la", True), Written("", False)], "hush": [Written("Oh!", False)]})
    assert (found.words, found.trusted, found.texts, found.of) == (3, 1, 2, 3)
    assert found.by_kind == {"music": 2, "hush": 1}


# --- all of it --------------------------------------------------------------------------------------------------------


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """No processes: `whisper` is not there, `sphinx` writes all it should, and hears nothing where nobody speaks."""

    def decoded(tasks: Sequence[Task], at_once: int) -> list[Any]:
        del at_once
        return [_decoded(task) for task in tasks]

    def _decoded(task: Task) -> Any:
        if "asr.recogniser=whisper" in task.setup.overrides:
            return MissingError("no Whisper is on this machine")
        if task.way == "batch":
            return Done(Counting.card, 400, batched=Batched(8, 2.0, 1.0))
        return Done(Counting.card, 400, tuple(Written("oh no", False) for _ in task.sounds))

    def play(setup: Setup, played: Any) -> Run:
        into = asr_live.empty()
        for spoken in played.spoken:
            into.texts.append((spoken, "oh dear no" if setup.config.asr.recogniser != "off" else ""))
        into.waits["answer_ms"] += [1.0, 2.0]
        into.busy_s, into.spoken_s, into.sound_s = 1.0, 4.0, 8.0
        return into

    async def hear(setup: Setup, pieces: Sequence[Piece]) -> dict[str, list[Written]]:
        return {piece.kind: [] for piece in pieces}

    monkeypatch.setattr(asr, "run_all", decoded)
    monkeypatch.setattr(asr, "through_vad", hear)
    monkeypatch.setattr(asr, "choose", lambda config: asr_choice(config.recogniser))
    monkeypatch.setattr(asr_live, "play", play)


def asr_choice(name: str) -> Choice:
    return Choice(name, why="") if name != "off" else Choice(why="off")


def test_the_line_and_the_table(tmp_path: Path, quick: None) -> None:
    manifest = write_clips(tmp_path, ["oh no", "oh no"])
    line = asr.measure(ALONE, Asked(manifest, recognisers=("sphinx", "whisper"), minutes=0.2))
    rows: Any = msgspec.to_builtins(line["recognisers"])
    assert rows["whisper"] == {"reason": "no Whisper is on this machine"}
    found = rows["sphinx"]
    assert {"wer", "commit_delay_ms", "rtf", "changed_committed"} <= set(found)
    assert (found["wer"]["whole"]["errors"], found["wer"]["streamed"]["errors"]) == (0, 2)
    assert found["rtf"] == 0.25
    assert found["false_words"]["forced"]["words"] == 2 * len(speechless(0.2, None, 0))
    assert found["false_words"]["through_vad"]["words"] == 0
    assert set(found["voice_on_off"]["p95_ratio"]) == set(asr_live.VOICES)
    shown = "\n".join(asr.table(line))
    assert "whisper: not measured: no Whisper is on this machine" in shown
    assert "words wrong, streamed" in shown
    drawn = {"bench": "asr", "machine": {"processor": "a processor", "cores": 2}, **line, "recognisers": rows}
    assert plot.draw(drawn, {}, tmp_path) == f"drawn: {tmp_path / 'asr.png'}"


def test_a_path_of_this_machine_stays_here(tmp_path: Path, quick: None) -> None:
    manifest = write_clips(tmp_path, ["oh no"])
    line = asr.measure(ALONE, Asked(manifest, recognisers=(f"whisper:{tmp_path / 'mine'}",), minutes=0.2))
    assert list(line["recognisers"]) == ["whisper:mine"]  # type: ignore[call-overload]
    assert str(tmp_path) not in msgspec.json.encode(line).decode()


def test_without_clips_there_is_nothing_to_recognise() -> None:
    with pytest.raises(GivenError, match="--manifest"):
        asr.measure(ALONE, Asked())


def test_the_command_takes_several_recognisers() -> None:
    arguments = ["asr", "--manifest", "a.csv", "--recogniser", "sphinx", "--recogniser", "whisper:tiny", "--short"]
    options = command._parser().parse_args(arguments)
    assert asr_options.asked(options) == Asked(Path("a.csv"), recognisers=("sphinx", "whisper:tiny"), short=True)
