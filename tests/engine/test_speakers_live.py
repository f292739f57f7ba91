"""Models that know speakers, exported and played: what they are given and tell, by each runtime and through real workers."""
# ruff: noqa: E402 (torch is asked for first: without it this file is skipped)

import asyncio
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.torch

import msgspec
import onnx
from fakes import run

from clser.clients.clips import demo_clip
from clser.engine.api import Engine
from clser.engine.backends import VoiceModel, open_voice
from clser.engine.backends import torch as torch_backend
from clser.engine.backends.card import read_card
from clser.engine.errors import GivenError
from clser.engine.jobs import Batch, Row
from clser.engine.records import Result, Samples
from clser.engine.vad import VadConfig
from clser.engine.worker import Networks, WorkerConfig
from clser.models import systems
from clser.models.export import export
from clser.models.labels import HEADS
from clser.models.live import Live, card
from clser.models.onnx_files import describe, player, said_of
from clser.models.saved import Trained

CLOSE = 1e-4
FRAME = 1280
ABOUT = Trained("small_system", {"enrols": True}, HEADS, abstain_below=0.0)
ANNA = "anna"


@pytest.fixture(scope="module")
def net() -> Live:
    torch.manual_seed(5)
    system = systems.build("small_system", {"enrols": True}, HEADS, [Path(__file__).parent.parent / "models"])
    return Live(system.eval()).eval()


@pytest.fixture(scope="module")
def model(net: Live, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("small") / "small.onnx"
    export(net.system, path, ABOUT)
    return path


@pytest.fixture(params=["onnx", "torch"])
def voice(request: pytest.FixtureRequest, net: Live, model: Path, monkeypatch: pytest.MonkeyPatch) -> VoiceModel:
    if request.param == "onnx":
        return open_voice(str(model), "cpu")
    said = read_card(msgspec.json.encode(card(net.system, ABOUT)).decode(), model)
    monkeypatch.setattr(torch_backend, "_open", lambda _: (net, said, ABOUT))
    return open_voice(str(model.with_suffix("")), "cpu", "torch")


@pytest.fixture(autouse=True)
def weights_beside(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch_backend, "weights_path", Path)


@pytest.fixture(scope="module")
def speech() -> Samples:
    return np.asarray(soundfile.read(demo_clip(), dtype="int16", frames=160_000)[0])


@torch.no_grad()
def whole(net: Live, sound: Samples, sums: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The logits after each frame, and what was told after the last."""
    frames = len(sound) // FRAME
    pcm_BS = torch.from_numpy(sound[: frames * FRAME].astype(np.float32) / 32768)[None]
    state = [torch.zeros(1, *shape) for shape in net.shapes()]
    logits, told, *_ = net(pcm_BS, torch.tensor([frames]), torch.from_numpy(sums)[None], *state)
    return logits[0].numpy(), told[0].numpy()


def known(seed: int, utterances: int) -> np.ndarray:
    random = np.random.default_rng(seed)
    return np.concatenate(([utterances], utterances * random.normal(0, 1, 12))).astype(np.float32)


def test_each_row_is_answered_with_what_is_known_of_its_own_speaker(
    voice: VoiceModel, net: Live, speech: Samples
) -> None:
    """Rows of unlike lengths, over two batches; then somebody else has the slot."""
    sums = {4: known(1, 3), 0: known(2, 1)}
    sounds = {slot: speech[slot * 9000 :][: 12 * FRAME] for slot in (4, 0, 2)}
    voice.know([4, 0], np.stack([sums[4], sums[0]]))
    first = voice.run(
        [Row(4, 9, True, given=True, keep=True), Row(2, 1, True), Row(0, 2, True, given=True)],
        np.concatenate([sounds[4][: 9 * FRAME], sounds[2][:FRAME], sounds[0][: 2 * FRAME]]),
    )
    np.testing.assert_allclose(voice.told([4])[0], whole(net, sounds[4][: 9 * FRAME], sums[4])[1], atol=CLOSE)
    second = voice.run(
        [Row(0, 10, False, keep=True), Row(4, 3, False, keep=True), Row(2, 11, False, keep=True)],
        np.concatenate([sounds[0][2 * FRAME :], sounds[4][9 * FRAME :], sounds[2][FRAME:]]),
    )
    said = {4: [first[:9], second[10:13]], 2: [first[9:10], second[13:]], 0: [first[10:], second[:10]]}
    for slot, parts in said.items():
        logits, told = whole(net, sounds[slot], sums.get(slot, np.zeros(13, np.float32)))
        np.testing.assert_allclose(np.concatenate(parts), logits, atol=CLOSE)
        np.testing.assert_allclose(voice.told([slot])[0], told, atol=CLOSE)
    again = voice.run([Row(4, 12, True)], sounds[4])
    np.testing.assert_allclose(again, whole(net, sounds[4], np.zeros(13, np.float32))[0], atol=CLOSE)
    assert np.abs(again - np.concatenate(said[4])).max() > 0.1


def test_a_worker_takes_and_gives_in_the_order_of_the_rows(net: Live, model: Path, speech: Samples) -> None:
    networks = Networks(WorkerConfig(VadConfig(network="webrtc"), str(model)))
    assert networks.ready.kept("voice") == 13
    sums = known(1, 2)
    rows = (Row(1, 2, True, keep=True), Row(0, 3, True, given=True), Row(2, 4, True, given=True, keep=True))
    states = np.stack([known(7, 5), sums]).tobytes()
    _, numbers = networks.compute(Batch(1, "voice", rows, states), speech[20_000:][: 9 * FRAME])
    assert len(numbers) == 9 * len(HEADS) + 2 * 13
    last = speech[20_000 + 5 * FRAME :][: 4 * FRAME]
    logits, told = whole(net, last, sums)
    np.testing.assert_allclose(numbers[5 * len(HEADS) : 9 * len(HEADS)].reshape(4, -1), logits, atol=CLOSE)
    np.testing.assert_allclose(numbers[-13:], told, atol=CLOSE)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"speaker_numbers": 0}, "speaker_numbers are 0, and it has"),
        ({"speaker_numbers": 12}, "speaker_numbers are 12"),
        ({"speaker_numbers": -1}, "only a model that streams exactly"),
        ({"streams": "end", "contract": 2, "window_frames": 10}, "only a model that streams exactly"),
    ],
)
def test_a_file_that_says_what_is_not_so_is_refused(
    model: Path, tmp_path: Path, changes: dict[str, Any], words: str
) -> None:
    graph = onnx.load(str(model))
    describe(graph, {**said_of(player(model)), **changes})
    onnx.save(graph, str(tmp_path / "wrong.onnx"))
    with pytest.raises(GivenError, match=words):
        open_voice(str(tmp_path / "wrong.onnx"), "cpu")


# --- through real workers ---------------------------------------------------------------------------------------------

Heard = tuple[list[Result], np.ndarray]


async def hear(model: Path, speech: Samples, *overrides: str, kills: int = 0, size: int = 1600) -> Heard:
    """The finals, and what is known of the speaker after them."""
    finals: list[Result] = []
    overrides = (f"model.voice={model}", "vad.network=webrtc", "bus.publish=", "bus.control=", *overrides)
    async with Engine.from_config("live", "asr.recogniser=off", *overrides) as engine:
        stream = engine.open("kitchen", speaker=ANNA)

        async def feed() -> None:
            for at in range(0, len(speech), size):
                track = stream._state.tracks[0] if stream._state.tracks else None
                if kills and len(finals) >= 1 and track is not None and len(track.answers) > 3 * (3 - kills):
                    await kill(engine)
                await stream.feed(speech[at : at + size])
            await stream.close()

        async def kill(engine: Engine) -> None:
            nonlocal kills
            kills -= 1
            assert engine._pool is not None
            os.kill(engine._pool.pids[0], signal.SIGKILL)
            lost = engine._pipeline.counters["workers_lost"]
            while engine._pipeline.counters["workers_lost"] == lost:  # noqa: ASYNC110 - another process's doings send no event
                await asyncio.sleep(0.01)

        async with asyncio.TaskGroup() as group:
            group.create_task(feed())
            async for result in stream.results():
                finals += [result] if result.final else []
        memory = engine._pipeline.speakers
        assert memory is not None
        assert not kills
        voices = list(memory._known)
        return finals, memory._known[voices[0]].sums if voices else np.zeros(13, np.float32)


@pytest.fixture(scope="module")
def undisturbed(model: Path, speech: Samples) -> Iterator[Heard]:
    yield run(hear(model, speech))


def told_by(finals: list[Result]) -> list[tuple[int, int, dict[str, float]]]:
    return [(each.start_sample, each.end_sample, each.emotion.probabilities) for each in finals]


def test_each_utterance_is_given_the_sum_of_those_before(net: Live, speech: Samples, undisturbed: Heard) -> None:
    finals, sums = undisturbed
    assert len(finals) >= 3
    expected = np.zeros(13, np.float32)
    padded = np.concatenate((speech, np.zeros(FRAME, np.int16)))
    for final in finals:
        logits, told = whole(net, padded[final.start_sample : final.end_sample], expected)
        shares = np.exp(logits[-1]) / np.exp(logits[-1]).sum()
        assert final.emotion.probabilities["anger"] == pytest.approx(shares[0], abs=1e-3)
        expected = expected + told
    np.testing.assert_allclose(sums, expected, atol=1e-3)


def test_a_worker_that_is_killed_in_mid_utterance_makes_no_difference(
    model: Path, speech: Samples, undisturbed: Heard
) -> None:
    finals, sums = run(hear(model, speech, kills=2, size=800))
    assert told_by(finals) == told_by(undisturbed[0])
    np.testing.assert_allclose(sums, undisturbed[1], atol=1e-6)


def test_switched_off_every_utterance_is_a_strangers(model: Path, speech: Samples, undisturbed: Heard) -> None:
    finals, sums = run(hear(model, speech, "speaker.enabled=false"))
    assert finals[0].emotion == undisturbed[0][0].emotion
    assert [a.emotion != b.emotion for a, b in zip(finals, undisturbed[0], strict=True)][1:] == [True] * (
        len(finals) - 1
    )
    assert not sums.any()
