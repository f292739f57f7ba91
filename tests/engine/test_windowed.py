"""A voice model without a state: its answers depend on the utterance's frames alone, and it is asked no oftener than it says."""

import asyncio
import json
import random
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import numpy as np
import pytest
from fakes import CARD, RATE_HZ, VOICE_FRAME, FakePool, Rig, _FakeWorker, run, sound
from listening import LONG, SHORT, SPOKEN, TALK, answers, packets, turns

from clser.engine import jobs
from clser.engine.api import Engine
from clser.engine.backends import Numbers
from clser.engine.backends.card import read_card
from clser.engine.backends.onnx import OnnxVoice
from clser.engine.backends.windowed import MOST_FRAMES, Windowed
from clser.engine.config import from_values
from clser.engine.errors import FailedError, GivenError
from clser.engine.fuse import NOT_YET, FuseConfig, Judge
from clser.engine.jobs import Row, VoiceCard
from clser.engine.pool import Listener
from clser.engine.records import Result, Samples
from clser.models.labels import HEADS

WINDOW = msgspec.structs.replace(CARD, contract=2, streams="window", window_frames=60, hop_frames=25)
END = msgspec.structs.replace(CARD, contract=2, streams="end", window_frames=700, hop_frames=0)
KINDS = [WINDOW, END]
CUT = np.concatenate((LONG, np.zeros(RATE_HZ // 2, np.int16)))


class Model:
    """Says something of every sample it is given, and counts how often it was asked."""

    weights = np.random.default_rng(3).normal(0, 2.0, (len(HEADS), 3))

    def __init__(self) -> None:
        self.calls: list[list[int]] = []

    def __call__(self, rows: list[Row], counts_B: np.ndarray, sounds: list[Numbers]) -> Numbers:
        self.calls.append([len(sound_TS) for sound_TS in sounds])
        assert [len(sound_TS) for sound_TS in sounds] == counts_B.tolist()
        return np.stack([self.say(sound_TS.reshape(-1))[None] for sound_TS in sounds])

    def say(self, sound_S: Numbers) -> Numbers:
        ramp = np.linspace(0.5, 1.5, len(sound_S))
        seen = np.array([np.abs(sound_S).mean() * 10, (ramp * np.abs(sound_S)).mean() * 10, 1.0])
        return (self.weights @ seen).astype(np.float32)

    def about(self, pcm: Samples, card: VoiceCard) -> Numbers:
        """The answer to the last window of that sound."""
        frames = len(pcm) // VOICE_FRAME
        window = pcm[max(0, frames - card.window_frames) * VOICE_FRAME : frames * VOICE_FRAME]
        return self.say(window.astype(np.float32) / 32768)

    @property
    def asked(self) -> int:
        return sum(len(call) for call in self.calls)


@pytest.fixture
def pcm() -> Samples:
    return np.random.default_rng(0).integers(-8000, 8000, 400 * VOICE_FRAME).astype(np.int16)


def expected(pcm: Samples, frames: int, card: VoiceCard) -> Numbers:
    """[frames, heads]: by the hop, and zeros before the first."""
    zeros = np.zeros(len(HEADS), np.float32)
    places = [t - t % card.hop_frames if card.hop_frames else 0 for t in range(1, frames + 1)]
    return np.stack([Model().about(pcm[: at * VOICE_FRAME], card) if at else zeros for at in places])


# --- the backend ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("card", KINDS, ids=["window", "end"])
@pytest.mark.parametrize("seed", range(5))
def test_any_cut_and_any_company_give_the_same_answers(card: VoiceCard, seed: int, pcm: Samples) -> None:
    chance, model = random.Random(seed), Model()
    voice = Windowed(card, model)
    total, at, got = 170, dict.fromkeys((0, 3, 9), 0), {slot: [] for slot in (0, 3, 9)}
    while any(done < total for done in at.values()):
        some = [slot for slot in at if at[slot] < total and chance.random() < 0.7] or [min(at, key=lambda s: at[s])]
        rows = [Row(slot, min(chance.choice([1, 3, 16, 60]), total - at[slot]), at[slot] == 0) for slot in some]
        rows = [row for row in rows if row.frames]
        if not rows:
            continue
        heard = [pcm[(slot := row.slot) * 5000 + at[slot] * VOICE_FRAME :][: row.frames * VOICE_FRAME] for row in rows]
        said, begin = voice.run(rows, np.concatenate(heard)), 0
        for row in rows:
            got[row.slot].append(said[begin : begin + row.frames])
            begin += row.frames
            at[row.slot] += row.frames
    for slot, parts in got.items():
        np.testing.assert_allclose(np.concatenate(parts), expected(pcm[slot * 5000 :], total, card), atol=1e-5)
    assert model.asked == (3 * (total // card.hop_frames) if card.hop_frames else 0), "once a hop, and no more"


def test_an_answer_that_is_asked_for_is_about_all_there_was_and_does_not_stand(pcm: Samples) -> None:
    for card in KINDS:
        voice = Windowed(card, Model())
        voice.run([Row(0, 30, True)], pcm[: 30 * VOICE_FRAME])
        said = voice.run([Row(0, 9, False, anew=True)], pcm[30 * VOICE_FRAME : 39 * VOICE_FRAME])
        np.testing.assert_allclose(said[:-1], expected(pcm, 38, card)[30:], atol=1e-5)
        np.testing.assert_allclose(said[-1], Model().about(pcm[: 39 * VOICE_FRAME], card), atol=1e-5)
        after = voice.run([Row(0, 2, False)], pcm[39 * VOICE_FRAME : 41 * VOICE_FRAME])
        np.testing.assert_allclose(after, expected(pcm, 41, card)[39:], atol=1e-5)


def test_what_is_kept_is_bounded_and_a_fresh_row_forgets_it(pcm: Samples) -> None:
    voice = Windowed(WINDOW, Model())
    for at in range(0, 400, 40):
        voice.run([Row(0, 40, at == 0)], pcm[at * VOICE_FRAME : (at + 40) * VOICE_FRAME])
        kept = voice._kept[0].recent_TS
        assert kept.shape == (min(at + 40, 60), VOICE_FRAME)
        assert kept.base is None, "it holds on to nothing larger"
    again = voice.run([Row(0, 30, True)], pcm[: 30 * VOICE_FRAME])
    np.testing.assert_allclose(again, expected(pcm, 30, WINDOW), atol=1e-5)


def test_rows_that_are_due_together_go_together(pcm: Samples) -> None:
    model = Model()
    voice = Windowed(WINDOW, model)
    voice.run([Row(slot, 25, True) for slot in range(6)], np.concatenate([pcm[: 25 * VOICE_FRAME]] * 6))
    assert model.calls == [[25] * 6]
    many = MOST_FRAMES // WINDOW.window_frames + 10
    voice.run([Row(slot, 25, True) for slot in range(many)], np.concatenate([pcm[: 25 * VOICE_FRAME]] * many))
    assert [len(call) for call in model.calls[1:]] == [many - 10, 10], "as many as fit in memory"


def test_no_frames_no_numbers(pcm: Samples) -> None:
    voice = Windowed(WINDOW, Model())
    assert voice.run([Row(0, 0, True), Row(1, 3, True)], pcm[: 3 * VOICE_FRAME]).shape == (3, len(HEADS))


def test_numbers_that_are_none_are_said_to_be_broken(pcm: Samples) -> None:
    voice = Windowed(WINDOW, lambda rows, *_: np.full((len(rows), 1, len(HEADS)), np.nan, np.float32))
    with pytest.raises(FailedError, match="NaN"):
        voice.run([Row(0, 25, True)], pcm[: 25 * VOICE_FRAME])


# --- the card ---------------------------------------------------------------------------------------------------------


def test_a_card_whose_window_makes_no_sense_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.onnx"
    path.write_bytes(b"x")
    said = {**msgspec.to_builtins(WINDOW), "digest": ""}
    assert read_card(json.dumps(said), path).hop_frames == 25
    for wrong in (
        {"contract": 1},
        {"contract": 3},
        {"hop_frames": 0},
        {"hop_frames": 61},
        {"streams": "end"},
        {"streams": "exactly"},
        {"streams": "end", "window_frames": 0, "hop_frames": 0},
        {"streams": "sometimes"},
    ):
        with pytest.raises(GivenError, match=r"contract|clser"):
            read_card(json.dumps({**said, **wrong}), path)


class WholeSession:
    """An ONNX Runtime session of a model without a state."""

    def __init__(self, inputs: list[str], outputs: list[str]) -> None:
        self._inputs, self._outputs = inputs, outputs

    def get_inputs(self) -> list[SimpleNamespace]:
        return [SimpleNamespace(name=name, shape=["B", 4]) for name in self._inputs]

    def get_outputs(self) -> list[SimpleNamespace]:
        return [SimpleNamespace(name=name) for name in self._outputs]

    def get_modelmeta(self) -> SimpleNamespace:
        return SimpleNamespace(custom_metadata_map={"clser": json.dumps(msgspec.to_builtins(WINDOW))})

    def run(self, wanted: list[str], given: dict[str, np.ndarray]) -> list[np.ndarray]:
        assert wanted == ["logits_B1H"]
        rows = zip(given["pcm_BS"], given["frames_B"].tolist(), strict=True)
        return [np.stack([Model().say(row[: frames * VOICE_FRAME])[None] for row, frames in rows])]


def test_onnx_plays_such_a_file_and_refuses_one_with_a_state(monkeypatch: pytest.MonkeyPatch, pcm: Samples) -> None:
    def opened(inputs: list[str], outputs: list[str]) -> OnnxVoice:
        session = WholeSession(inputs, outputs)
        monkeypatch.setattr("clser.engine.backends.onnx.onnxruntime.InferenceSession", lambda *_, **__: session)
        return OnnxVoice("voice", "cpu")

    voice = opened(["pcm_BS", "frames_B"], ["logits_B1H"])
    rows = [Row(0, 30, True), Row(1, 60, True)]
    said = voice.run(rows, np.concatenate((pcm[: 30 * VOICE_FRAME], pcm[: 60 * VOICE_FRAME])))
    np.testing.assert_allclose(said, np.concatenate([expected(pcm, n, WINDOW) for n in (30, 60)]), atol=1e-4)
    with pytest.raises(GivenError, match="streams by window and has a state"):
        opened(["pcm_BS", "frames_B", "state_a"], ["logits_B1H", "next_a"])
    with pytest.raises(GivenError, match="lacks logits_B1H"):
        opened(["pcm_BS", "frames_B"], ["logits_BTH"])


# --- an engine --------------------------------------------------------------------------------------------------------


class WindowWorker(_FakeWorker):
    def __init__(self, card: VoiceCard) -> None:
        super().__init__()
        self.model = Model()
        self.network = Windowed(card, self.model)

    def run(self, batch: jobs.Batch, pcm: Samples) -> np.ndarray:
        if batch.lane == "vad":
            return super().run(batch, pcm)
        return self.network.run(batch.rows, pcm).ravel()


class WindowPool(FakePool):
    def __init__(self, card: VoiceCard, workers: int, hold: Any) -> None:
        super().__init__(workers, hold)
        self.card = card
        self._workers = [WindowWorker(card) for _ in range(workers)]

    async def start(self, listener: Listener) -> jobs.Ready:
        ready = await super().start(listener)
        return msgspec.structs.replace(ready, voice=self.card)

    def lose(self, worker: int = 0, why: str = "it was killed by signal 9") -> None:
        super().lose(worker, why)
        self._workers[worker].network._kept.clear()

    @property
    def asked(self) -> int:
        return sum(worker.model.asked for worker in self._workers)


class WindowRig(Rig):
    def __init__(self, card: VoiceCard, *, workers: int = 1, hold: Any = (), **sections: Any) -> None:
        super().__init__(**sections)
        self.pool = WindowPool(card, workers, hold)
        values = {**sections, "bus": {"publish": ""}}
        self.engine = Engine(from_values(values, "test"), self.clock, self.pool)


async def hear(card: VoiceCard, pcm: Samples, sizes: list[int], **sections: Any) -> WindowRig:
    rig = WindowRig(card, **sections)
    async with rig:
        stream = rig.engine.open("a")
        for packet in packets(pcm, sizes):
            await stream.feed(packet)
            await rig.settle()
        await stream.close()
    return rig


@pytest.mark.parametrize("card", KINDS, ids=["window", "end"])
@pytest.mark.parametrize("sizes", [[320], [20_000], [777, 4000, 160]])
@pytest.mark.parametrize(("pcm", "sections"), [(SPOKEN, {}), (CUT, SHORT)], ids=["phrases", "cuts"])
def test_a_final_is_about_the_last_window_of_its_utterance(
    card: VoiceCard, sizes: list[int], pcm: Samples, sections: dict[str, Any]
) -> None:
    rig = run(hear(card, pcm, sizes, **sections))
    judge = Judge(FuseConfig(), card)
    finals = rig.finals()
    assert len(finals) >= 2
    for final in finals:
        heard = pcm[final.start_sample : final.end_sample]
        assert final.emotion.reason != NOT_YET
        assert final.voice.probabilities == judge.opinion(Model().about(heard, card)).probabilities
    if pcm is CUT:
        assert "longest" in {final.reason for final in finals}


def test_partials_say_what_stands_and_those_of_an_end_model_say_nothing() -> None:
    rig = run(hear(WINDOW, SPOKEN, [320]))
    partials = [r for r in rig.of(Result) if r.stage == "partial"]
    assert len(partials) >= 4
    judge = Judge(FuseConfig(), WINDOW)
    for partial in partials:
        heard = SPOKEN[partial.start_sample : partial.end_sample]
        frames = len(heard) // VOICE_FRAME
        before = frames - frames % WINDOW.hop_frames
        if before == 0:
            assert (partial.emotion.label, partial.emotion.abstained) == (None, True)
        else:
            said = Model().about(heard[: before * VOICE_FRAME], WINDOW)
            assert partial.voice.probabilities == judge.opinion(said).probabilities

    rig = run(hear(END, sound([(False, 300), (True, 1500), (False, 250), (True, 900), (False, 600)]), [320]))
    stages = [r.stage for r in rig.of(Result)]
    assert stages.count("final") == 1
    assert stages.count("tentative") >= 1
    partials = [r for r in rig.of(Result) if r.stage == "partial"]
    assert len(partials) == 1, "the one that takes back a tentative"
    assert all(r.emotion.label is None and r.emotion.reason == NOT_YET for r in partials)
    tentative = [r for r in rig.of(Result) if r.stage == "tentative"][-1]
    assert tentative.emotion == rig.finals()[0].emotion, "it is computed once for both"


@pytest.mark.parametrize("card", KINDS, ids=["window", "end"])
def test_it_is_asked_once_a_hop_and_once_an_end(card: VoiceCard) -> None:
    rig = run(hear(card, SPOKEN, [320]))
    frames = sum((f.end_sample - f.start_sample) // VOICE_FRAME for f in rig.finals())
    tentatives = sum(r.stage == "tentative" for r in rig.of(Result))
    by_hop = (frames + 40) // card.hop_frames if card.hop_frames else 0  # the withdrawn utterance too
    assert rig.pool.asked <= by_hop + tentatives + len(rig.finals())
    totals = rig.pipeline.totals()
    assert totals["gaps"] == 0
    assert totals["backlog_s"] == 0


@pytest.mark.parametrize("card", KINDS, ids=["window", "end"])
@pytest.mark.parametrize("seed", range(6))
def test_answers_do_not_depend_on_batches_or_on_when_they_are_computed(card: VoiceCard, seed: int) -> None:
    chance, workers = random.Random(seed), seed % 3 + 1
    talks = [sound(TALK, talk) for talk in range(3)]

    async def main() -> None:
        async with WindowRig(card, workers=workers, hold=("vad", "voice")) as rig:
            streams = [rig.engine.open(name) for name in "abc"]
            left = [packets(talk, [chance.randint(100, 5000)]) for talk in talks]
            losses = seed % 2
            while any(left) or rig.pool.under_way:
                await asyncio.sleep(0)
                which = chance.randrange(3)
                if left[which] and chance.random() < 0.5 and streams[which]._state.backlog < 32_000:
                    streams[which].push(left[which].pop(0))
                elif rig.pool.under_way:
                    rig.pool.answer(chance.choice(rig.pool.under_way))
                if losses and not any(left):
                    losses = 0
                    rig.pool.lose(0)
                    await asyncio.sleep(0)
                    rig.pool.come_back(0)
            rig.pool.release()
            for stream in streams:
                await stream.close()
            for name, talk in zip("abc", talks, strict=True):
                alone = await asyncio.to_thread(run, hear(card, talk, [320]))
                assert (answers(rig, name), turns(rig, name)) == (answers(alone, "a"), turns(alone, "a"))

    run(main())


def test_an_utterance_longer_than_the_backlog_is_no_backlog_for_a_model_that_waits_for_its_end() -> None:
    async def main() -> None:
        async with WindowRig(END) as rig:
            stream = rig.engine.open("a")
            for packet in packets(sound([(False, 300), (True, 9000), (False, 600)]), [320]):
                stream.push(packet)
                await rig.settle()
                assert stream._state.backlog <= RATE_HZ // 4
            await stream.close()
            assert len(rig.finals()) == 1

    run(main())
