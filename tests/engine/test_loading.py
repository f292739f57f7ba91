"""Deltas in a running engine: what answers changes between two batches, nothing is lost, and what is refused changes nothing."""

import asyncio
import os
import signal
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from deltas import HEADS_OF_VOICE, says
from fakes import CARD, KNOWING, Rig, run, sound
from listening import SPOKEN

from clser.clients.clips import demo_clip
from clser.clients.control import Control
from clser.engine import jobs, making
from clser.engine.api import Engine
from clser.engine.backends import VoiceModel, initialisers, open_voice
from clser.engine.errors import FailedError, GivenError
from clser.engine.jobs import Row
from clser.engine.making import Making
from clser.engine.records import Result, Samples, Status
from clser.engine.shipped import folder
from clser.models import delta

FEAR = HEADS_OF_VOICE.index("fear")
RUNTIMES = ["onnx", pytest.param("torch", marks=pytest.mark.skipif(find_spec("torch") is None, reason="no torch here"))]


@pytest.fixture(scope="module")
def speech() -> Samples:
    return np.asarray(soundfile.read(demo_clip(), dtype="int16", frames=80_000)[0])


@pytest.fixture
def fearful(tmp_path: Path) -> Path:
    return says(tmp_path / "fearful.safetensors")


@pytest.fixture
def own_runtime_folder(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path_factory.mktemp("run")))
    yield


def put(voice: VoiceModel, data: bytes) -> jobs.VoiceCard:
    card, place = voice.adapting(data)
    place()
    assert voice.card == card
    return card


def parts(voice: VoiceModel, speech: Samples, first: int, last: int, fresh: bool = False) -> np.ndarray:
    size = voice.card.frame_samples
    return voice.run([Row(3, last - first, fresh)], speech[first * size : last * size])


# --- backends ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_an_utterance_goes_on_as_if_the_delta_had_always_been_there(
    runtime: str, speech: Samples, fearful: Path
) -> None:
    plain, other = open_voice("voice", "cpu", runtime), open_voice("voice", "cpu", runtime)
    whole = parts(open_voice("voice", "cpu", runtime), speech, 0, 30, fresh=True)
    put(other, fearful.read_bytes())
    adapted = parts(other, speech, 0, 30, fresh=True)
    assert (adapted.argmax(1) == FEAR).all()
    assert np.allclose(parts(plain, speech, 0, 10, fresh=True), whole[:10], atol=1e-4)
    card = put(plain, fearful.read_bytes())
    assert np.allclose(parts(plain, speech, 10, 20), adapted[10:20], atol=1e-4)
    assert "+" in card.digest
    assert put(plain, b"").digest == card.digest.partition("+")[0]
    assert np.allclose(parts(plain, speech, 20, 30), whole[20:], atol=1e-4)


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_one_delta_replaces_another_and_calibrates_as_it_says(runtime: str, speech: Samples, tmp_path: Path) -> None:
    voice = open_voice("voice", "cpu", runtime)
    base = np.array((0.0,) * 10)
    put(voice, says(tmp_path / "a.safetensors", "anger").read_bytes())
    told = {"temperature": 2.0, "base_temperature": 1.0, "abstain_below": 0.125}
    if runtime == "torch":  # it holds the calibration itself, and takes the delta's as a whole
        about = import_saved().about_of(folder() / "voice.safetensors").calibration
        told |= {"base_temperature": about.temperature, "base_offsets": about.offsets, "offsets": about.offsets}
        base = np.array(about.offsets)
    plain = parts(open_voice("voice", "cpu", runtime), speech, 0, 20, fresh=True)
    card = put(voice, says(tmp_path / "b.safetensors", "fear", **told).read_bytes())
    assert card.abstain_below == 0.125
    said = parts(voice, speech, 0, 20, fresh=True)
    stretch = told["base_temperature"] / 2.0  # type: ignore[operator]
    others = [n for n in range(10) if n != FEAR]
    assert np.allclose(said[:, others], ((plain - base) * stretch + base)[:, others], atol=1e-4)
    assert (said.argmax(1) == FEAR).all()


def import_saved() -> Any:
    from clser.models import saved

    return saved


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_what_is_for_another_base_is_refused_and_nothing_changes(
    runtime: str, speech: Samples, tmp_path: Path, fearful: Path
) -> None:
    voice = open_voice("voice_licensed", "cpu", runtime)
    before = parts(voice, speech, 0, 8, fresh=True)
    for data in (fearful.read_bytes(), b"nonsense", says(tmp_path / "x.safetensors", base="0" * 16).read_bytes()):
        with pytest.raises(GivenError, match="delta"):
            voice.adapting(data)
    assert np.array_equal(parts(voice, speech, 0, 8, fresh=True), before)
    assert "+" not in voice.card.digest


def test_who_was_known_is_forgotten_where_it_is_told_otherwise(speech: Samples, tmp_path: Path) -> None:
    voice = open_voice("voice", "cpu")
    sums = np.full((1, voice.card.speaker_numbers), 3.0, np.float32)
    for tells_anew in (False, True):
        voice.know([3], sums)
        put(voice, says(tmp_path / "d.safetensors", tells_anew=tells_anew).read_bytes())
        known = voice._speakers.of([Row(3, 1, False)])  # type: ignore[attr-defined]
        assert bool(known.any()) is not tells_anew


def test_weights_that_cannot_be_told_apart_are_left_alone() -> None:
    data = (folder() / "voice.onnx").read_bytes()
    weights, uses = initialisers.read(data)
    assert {"system.mean_F_half", "system.body.8.bias"} <= {weight.name for weight in weights}
    assert uses["system.body.8.bias"] == 1
    bias = next(weight for weight in weights if weight.name == "system.body.8.bias").numbers(data)
    kept = {"elsewhere.bias": np.ones(10, np.float16)}
    for alike in (False, True):
        changed = {"elsewhere.bias": delta.Changed(delta.digest_of(bias), alike)}
        about = delta.Delta("0" * 16, "voice", HEADS_OF_VOICE, changed=changed)
        if alike:
            with pytest.raises(GivenError, match="cannot be told from other weights"):
                initialisers.patched(data, about, kept)
        else:
            assert len(initialisers.patched(data, about, kept)) == len(data)
    with pytest.raises(GivenError, match=r"damaged|cut short"):
        initialisers.read(data[: len(data) // 2])


# --- a worker ---------------------------------------------------------------------------------------------------------


def ended(made: Making) -> jobs.Loaded:
    """How it went, once its thread is over."""
    for thread in threading.enumerate():
        if thread.name == "loading":
            thread.join(10)
    loaded = made.look()
    assert loaded is not None
    return loaded


def test_what_takes_long_to_make_says_so_once_and_is_put_where_it_is_asked_for() -> None:
    done, put_into_place = threading.Event(), []

    def make(load: jobs.Load) -> making.Made:
        assert done.wait(10)
        return CARD, lambda: put_into_place.append(load.number)

    made = Making(jobs.Load(7, b"x"), make)
    assert (made.look(), made.told) == (None, False)
    done.set()
    assert ended(made) == jobs.Loaded(7, CARD)
    assert made.told
    assert put_into_place == []
    made.put()
    assert put_into_place == [7]


@pytest.mark.parametrize(("error", "code"), [(GivenError("no"), 2), (MemoryError(), 1), (ValueError("no"), 1)])
def test_what_cannot_be_made_costs_nothing_but_an_answer(error: Exception, code: int) -> None:
    def make(load: jobs.Load) -> making.Made:
        raise error

    loaded = ended(Making(jobs.Load(1, b""), make))
    assert (loaded.card, loaded.exit_code) == (None, code)
    assert loaded.why


# --- an engine on fakes -----------------------------------------------------------------------------------------------


@asynccontextmanager
async def asking(tmp_path: Path) -> AsyncIterator[tuple[Rig, Callable[..., Awaitable[Any]]]]:
    """What the engine says to a question, or why it refuses."""
    publish = f"ipc://{tmp_path / 'bus'}"
    async with Rig(bus={"publish": publish}) as rig:

        async def ask(op: str, **fields: object) -> Any:
            with Control(publish=publish) as control:
                try:
                    return await control.aask(op, **fields)
                except GivenError as error:
                    return str(error)

        yield rig, ask


def test_results_carry_what_answers_and_refusals_change_nothing(tmp_path: Path, fearful: Path) -> None:
    data = fearful.read_bytes()

    async def main() -> None:
        async with asking(tmp_path) as (rig, ask):
            reply = await ask("load", delta=str(fearful))
            digest = reply["model"]["digest"]
            assert reply["delta"]["name"] == "fearful"
            assert digest.startswith(f"{CARD.digest}+")
            assert rig.pool.loaded == [data]
            rig.pool.refuse = GivenError("it is for another model")
            assert "it is for another model" in await ask("load", delta=str(fearful))
            assert "ends in .safetensors" in await ask("load", delta="/etc/passwd")
            assert "no such file" in await ask("load", delta=str(tmp_path / "none.safetensors"))
            assert "no delta" in await ask("load", delta=str(folder() / "voice.safetensors"))
            for wrong in ({"delta": 5}, {"delta": ""}, {"delta": "x" * 5000}, {"deltas": None}, {}):
                assert "not a request" in await ask("load", **wrong)
            stream = rig.engine.open("a")
            await stream.feed(SPOKEN)
            await stream.close()
            assert {result.model.digest for result in rig.finals("a")} == {digest}
            facts = await ask("describe")
            assert (facts["model"]["digest"], facts["delta"]["name"]) == (digest, "fearful")
            assert f'clser_model_info{{model="{digest}"}} 1' in rig.engine._metrics.text()
            assert "clser_loads_total 1" in rig.engine._metrics.text()
            rig.pool.refuse = None
            assert (await ask("load", delta=None))["model"]["digest"] == CARD.digest
            assert [status.event for status in rig.of(Status)].count("loaded") == 2

    run(main())


def test_while_a_delta_is_loaded_others_are_answered_and_another_one_is_refused(tmp_path: Path) -> None:
    async def main() -> None:
        async with asking(tmp_path) as (rig, ask):
            gate = asyncio.Event()

            async def load(data: bytes) -> jobs.VoiceCard:
                await gate.wait()
                return CARD

            rig.pool.load = load  # type: ignore[method-assign]
            first = asyncio.create_task(ask("load", delta=None))
            assert (await ask("ready"))["ready"] is True
            while not rig.engine._loader._busy:  # type: ignore[union-attr]  # noqa: ASYNC110 - it tells nobody
                await asyncio.sleep(0)
            assert "already" in await ask("load", delta=None)
            gate.set()
            assert (await first)["ok"] is True

    run(main())


def test_a_mistake_of_ours_is_answered_too(tmp_path: Path) -> None:
    async def main() -> None:
        async with asking(tmp_path) as (rig, ask):

            async def load(data: bytes) -> jobs.VoiceCard:
                raise KeyError("ours")

            rig.pool.load = load  # type: ignore[method-assign]
            assert "please report it" in await ask("load", delta=None)
            assert (await ask("ready"))["ready"] is True

    run(main())


def test_speakers_are_forgotten_where_utterances_tell_otherwise(tmp_path: Path) -> None:
    async def main() -> None:
        async with Rig(card=KNOWING) as rig:
            stream = rig.engine.open("a", speaker="anna")
            await stream.feed(sound([(True, 1500), (False, 600)]))
            await rig.settle()
            assert len(rig.pipeline.speakers) == 1
            await rig.engine.load(str(says(tmp_path / "a.safetensors")))
            assert len(rig.pipeline.speakers) == 1
            await rig.engine.load(str(says(tmp_path / "b.safetensors", tells_anew=True)))
            assert len(rig.pipeline.speakers) == 0
            await stream.close()

    run(main())


# --- an engine with workers -------------------------------------------------------------------------------------------


async def heard(engine: Engine, name: str, speech: Samples, at: int = -1, then: Any = None) -> list[Result]:
    """All results for the sound. When so many samples were fed, `then()` begins beside the feeding; it is waited for before the
    last third."""
    stream = engine.open(name)
    beside: list[asyncio.Task[Any]] = []

    async def feed() -> None:
        for begin in range(0, len(speech), 1600):
            if begin <= len(speech) * 2 // 3 < begin + 1600:
                await asyncio.gather(*beside)
            await stream.feed(speech[begin : begin + 1600])
            if begin <= at < begin + 1600:
                beside.append(asyncio.create_task(then()))
            await asyncio.sleep(0.005)
        await stream.close()

    feeding = asyncio.create_task(feed())
    found = [result async for result in stream.results()]
    await feeding
    await asyncio.gather(*beside)
    return found


def started(*more: str) -> Engine:
    return Engine.from_config("live", "asr.recogniser=off", "vad.network=webrtc", *more)


@pytest.mark.usefixtures("own_runtime_folder")
def test_a_stream_that_plays_loses_nothing_and_workers_that_come_back_have_it(speech: Samples, fearful: Path) -> None:
    talk = np.concatenate([speech[:56_000], np.zeros(8000, np.int16)] * 3)

    async def main() -> None:
        async with started("pool.workers=2") as engine:
            plain = [result for result in await heard(engine, "plain", talk) if result.final]
            assert not any(result.emotion.label == "fear" and result.emotion.confidence > 0.9 for result in plain)

            async def load() -> None:
                with Control(publish=engine.endpoint or "") as control:
                    assert (await control.aload(fearful))["delta"]["name"] == "fearful"

            found = [r for r in await heard(engine, "live", talk, 66_000, load) if r.final]
            assert [(r.utterance, r.start_sample, r.end_sample) for r in found] == [
                (r.utterance, r.start_sample, r.end_sample) for r in plain
            ]
            assert [r.seq for r in found] == sorted(r.seq for r in found)
            assert found[0].emotion == plain[0].emotion
            assert found[-1].emotion.label == "fear"
            assert "+" in found[-1].model.digest
            assert "+" not in found[0].model.digest
            assert engine.describe()["counters"]["lost_samples"] == 0
            for pid in engine._pool.pids:  # type: ignore[union-attr]
                os.kill(pid, signal.SIGKILL)
            again = [result for result in await heard(engine, "again", talk) if result.final]
            assert {result.emotion.label for result in again} == {"fear"}
            assert len(again) == len(plain)
            await engine.load(None)
            back = [result for result in await heard(engine, "back", talk) if result.final]
            assert [result.emotion for result in back] == [result.emotion for result in plain]

    run(main(), 60)


@pytest.mark.usefixtures("own_runtime_folder")
def test_an_engine_starts_with_a_delta_or_says_why_not(speech: Samples, fearful: Path, tmp_path: Path) -> None:
    async def main() -> None:
        async with started("bus.publish=", f"model.delta={fearful}") as engine:
            found = await heard(engine, "a", np.concatenate([speech, np.zeros(8000, np.int16)]))
            assert {result.emotion.label for result in found if result.final} == {"fear"}
        other = says(tmp_path / "other.safetensors")
        with pytest.raises(GivenError, match="this delta is for"):
            await started("bus.publish=", f"model.delta={other}", "model.voice=voice_licensed").__aenter__()
        with pytest.raises(GivenError, match="it is no delta"):
            await started("bus.publish=", f"model.delta={folder() / 'voice.safetensors'}").__aenter__()

    run(main(), 60)


def test_no_worker_up_is_told() -> None:
    from clser.engine.restarts import Crew

    with pytest.raises(FailedError, match="no worker is up"):
        run(Crew([]).load(b""))
