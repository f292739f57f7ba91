"""Which restarts are allowed and on which device, and what a member makes of it, on a seat that dies when told to."""

import asyncio

import numpy as np
import pytest
from fakes import CARD, ManualClock, run, settle
from news import News

from clser.engine import jobs
from clser.engine.backends.devices import devices, is_device_error
from clser.engine.errors import ClserError, FailedError, GivenError, MissingError
from clser.engine.pool import PoolConfig, open_pool
from clser.engine.restarts import Crew, Down, Heard, Member, Restarts, Silence
from clser.engine.vad import VadConfig
from clser.engine.worker import WorkerConfig, broken

DIED = Down("it was killed by signal 9")
BROKE = Down("CUDA error: misaligned address", device=True)
NO_START = Down("no such device", starting=True)


def restarts(device: str = "cuda:1", **config: float) -> Restarts:
    return Restarts(PoolConfig(**config), 3, device)


# --- pure -------------------------------------------------------------------------------------------------------------


def test_five_restarts_in_a_minute_and_no_sixth() -> None:
    some = restarts("cpu")
    for now_s in range(5):
        assert some.allow(DIED, now_s) == ""
    with pytest.raises(FailedError, match=r"worker 3 went down 6 times in 60 s, the last time because it was killed"):
        some.allow(DIED, 59)


def test_restarts_longer_ago_do_not_count() -> None:
    some = restarts("cpu", restarts=1)
    for now_s in (0, 61, 122):
        some.allow(DIED, now_s)
    with pytest.raises(FailedError):
        some.allow(DIED, 130)


def test_a_device_that_breaks_is_tried_once_more_and_then_left() -> None:
    some = restarts()
    assert some.allow(BROKE, 10) == ""
    assert some.device == "cuda:1"
    assert some.allow(BROKE, 69) == "cuda:1 is left for the CPU: CUDA error: misaligned address"
    assert some.device == "cpu"
    assert some.allow(BROKE, 70) == "", "it is said once"


def test_a_device_that_breaks_once_in_a_while_is_kept() -> None:
    some = restarts()
    for now_s in (0, 61, 122, 183):
        assert some.allow(BROKE, now_s) == ""
    assert some.device == "cuda:1"


def test_other_deaths_do_not_speak_against_the_device() -> None:
    some = restarts()
    for now_s, down in enumerate((BROKE, DIED, DIED)):
        assert some.allow(down, now_s) == ""
    assert some.device == "cuda:1"
    assert some.allow(BROKE, 4) != ""


def test_a_device_on_which_the_worker_does_not_come_up_again_is_left_at_once() -> None:
    some = restarts()
    some.allow(DIED, 0)
    assert "cuda:1 is left" in some.allow(NO_START, 1)
    assert some.device == "cpu"


@pytest.mark.parametrize(
    ("compute", "named"),
    [
        ("cpu", ("cpu",)),
        ("cuda", ("cuda:0",)),
        ("cuda:3", ("cuda:3",)),
        ("cuda:0, cuda:1", ("cuda:0", "cuda:1")),
    ],
)
def test_devices_as_they_are_written(compute: str, named: tuple[str, ...]) -> None:
    assert devices(compute) == named


@pytest.mark.parametrize(
    "compute", ["", "gpu", "cuda:", "cuda:x", "cuda:-1", "cpu:0", "cuda:0,", "cuda:0;cuda:1", "CUDA"]
)
def test_devices_that_make_no_sense_are_refused_before_anything_starts(compute: str, tmp_path) -> None:
    worker = WorkerConfig(VadConfig(network="webrtc"), "voice")
    with pytest.raises(GivenError, match=r"give cpu or cuda:N, or several with commas"):
        open_pool(PoolConfig(compute=compute), worker, tmp_path, ManualClock())


def test_there_are_as_many_workers_as_devices_at_least(tmp_path) -> None:
    worker = WorkerConfig(VadConfig(network="webrtc"), "voice")
    for workers, expected in ((1, 3), (4, 4)):
        pool = open_pool(PoolConfig(workers=workers, compute="cuda:0,cuda:1,cuda:2"), worker, tmp_path, ManualClock())
        assert pool.workers == expected
        run(pool.stop())


def _named(name: str, module: str, base: type[Exception] = Exception) -> type[Exception]:
    return type(name, (base,), {"__module__": module})


ORT = "onnxruntime.capi.onnxruntime_pybind11_state"
NODE = "[ONNXRuntimeError] : 1 : FAIL : Non-zero status code returned while running Gemm node."


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("CUDA error: an illegal memory access was encountered"),
        RuntimeError("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED"),
        RuntimeError("cublasLt ran into an error!"),
        _named("OutOfMemoryError", "torch", RuntimeError)("CUDA out of memory. Tried to allocate 2.00 GiB"),
        _named("AcceleratorError", "torch", RuntimeError)("device-side assert triggered"),
        _named("Fail", ORT)(f"{NODE} CUBLAS failure 13: CUBLAS_STATUS_EXECUTION_FAILED ; GPU=0"),
        _named("RuntimeException", ORT)("CUDA failure 2: out of memory ; GPU=0 ; hostname=robot"),
        _named("EPFail", ORT)("11 : EP_FAIL : it is gone"),
    ],
)
def test_errors_of_the_device_are_told(error: Exception) -> None:
    assert is_device_error(error)
    assert broken(error).device


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("mat1 and mat2 shapes cannot be multiplied"),
        ValueError("cuda is a word in somebody's file name"),
        MemoryError("Unable to allocate 2 PiB"),
        MissingError("compute 'cuda:0': this onnxruntime has no CUDA provider"),
        _named("InvalidArgument", ORT)("Got invalid dimensions for input: pcm_BS"),
    ],
)
def test_errors_of_anything_else_are_told_apart(error: Exception) -> None:
    assert not is_device_error(error)
    assert not broken(error).device


def test_last_words_keep_the_exit_code_and_name_a_lack_of_memory() -> None:
    assert broken(MissingError("no device")) == jobs.Broken("no device", 3)
    assert broken(MemoryError("Unable to allocate 2 PiB")) == jobs.Broken("out of memory: Unable to allocate 2 PiB", 1)
    assert broken(RuntimeError("CUDA error")) == jobs.Broken("RuntimeError: CUDA error", 3, device=True)


def test_silence_is_counted_in_looks_and_ends_with_a_word() -> None:
    silence = Silence()
    assert [silence.look(), silence.look()] == [0.5, 1.0]
    silence.heard()
    assert silence.look() == 0.5


# --- a member on a seat that dies when told to -------------------------------------------------------------------------


class Seat:
    def __init__(self) -> None:
        self.devices: list[str] = []
        self.refuse: list[Exception] = []
        self.ends = 0

    async def launch(self, device: str, heard: Heard) -> jobs.Ready:
        self.devices.append(device)
        self.down: asyncio.Future[Down] = asyncio.get_running_loop().create_future()
        if self.refuse:
            raise self.refuse.pop(0)
        return jobs.Ready(512, CARD)

    async def ended(self) -> Down:
        return await self.down

    def submit(self, batch: jobs.Batch, pcm: np.ndarray) -> None:
        raise AssertionError("nobody has work here")

    def disown(self, why: str) -> None:
        self.down.set_result(Down(why))

    async def end(self, patience_s: float = 0.0) -> None:
        self.ends += 1


def member(seat: Seat, device: str = "cuda:0") -> Member:
    return Member(0, seat, Restarts(PoolConfig(), 0, device), ManualClock())


def test_who_falls_back_says_so_before_it_is_back() -> None:
    async def main() -> None:
        seat, news = Seat(), News()
        one = member(seat)
        await one.start(news)
        for _ in range(2):
            seat.down.set_result(BROKE)
            await settle()
        assert seat.devices == ["cuda:0", "cuda:0", "cpu"]
        assert news.events == ["lost", "back", "lost", "fell_back", "back"]
        assert news.words("fell_back") == "cuda:0 is left for the CPU: CUDA error: misaligned address"
        assert seat.ends == 2, "what is left of a life is cleared away before the next"
        await one.stop()

    run(main())


def test_a_device_that_is_gone_is_left_on_the_way_up() -> None:
    async def main() -> None:
        seat, news = Seat(), News()
        one = member(seat)
        await one.start(news)
        seat.refuse = [MissingError("compute 'cuda:0': there is no such device")]
        seat.down.set_result(DIED)
        await settle()
        assert seat.devices == ["cuda:0", "cuda:0", "cpu"]
        assert news.events == ["lost", "fell_back", "back"]
        assert "there is no such device" in news.words("fell_back")
        await one.stop()

    run(main())


@pytest.mark.parametrize("error", [GivenError("the model is gone"), MissingError("no onnxruntime")])
def test_what_cannot_be_mended_by_trying_is_not_tried(error: ClserError) -> None:
    async def main() -> None:
        seat, news = Seat(), News()
        one = member(seat, "cpu")
        await one.start(news)
        seat.refuse = [error]
        seat.down.set_result(DIED)
        await settle()
        assert news.events == ["lost", "failed"]
        assert news.error is error
        await one.stop()

    run(main())


def test_a_mistake_of_ours_in_the_watch_ends_the_engine_instead_of_leaving_it_unwatched() -> None:
    async def main() -> None:
        seat, news = Seat(), News()
        one = member(seat, "cpu")
        await one.start(news)
        seat.refuse = [KeyError("ours")]
        seat.down.set_result(DIED)
        await settle()
        assert news.events == ["lost", "failed"]
        assert "please report it" in str(news.error)
        await one.stop()

    run(main())


def test_when_one_of_a_crew_does_not_start_the_others_are_not_left_behind() -> None:
    class Slow(Seat):
        async def launch(self, device: str, heard: Heard) -> jobs.Ready:
            self.devices.append(device)
            await asyncio.Event().wait()
            raise AssertionError

    async def main() -> None:
        wrong, slow = Seat(), Slow()
        wrong.refuse = [GivenError("no such model")]
        crew = Crew([member(slow), member(wrong)])
        with pytest.raises(GivenError, match="no such model"):
            await crew.start(News())
        assert slow.devices == ["cuda:0"]
        assert slow.ends == wrong.ends == 1
        await crew.stop()

    run(main())


# --- deltas -----------------------------------------------------------------------------------------------------------


class Loading(Seat):
    """It makes ready what it is told to, and notes what it answers with."""

    def __init__(self, why: str = "") -> None:
        super().__init__()
        self.why, self.held = why, False
        self.did: list[str] = []
        self.gate: asyncio.Future[jobs.Loaded | None] | None = None

    async def ended(self) -> Down:
        return await asyncio.shield(self.down)  # a watch that is given up must not end the seat

    async def load(self, load: jobs.Load) -> jobs.Loaded | None:
        self.did.append(f"load {load.number}")
        if self.held:
            self.gate = asyncio.get_running_loop().create_future()
            return await self.gate
        return jobs.Loaded(load.number, None if self.why else CARD, self.why)

    def switch(self, number: int) -> None:
        self.did.append(f"switch {number}")

    async def end(self, patience_s: float = 0.0) -> None:
        await super().end(patience_s)
        if self.gate is not None and not self.gate.done():
            self.gate.set_result(None)


def test_nobody_switches_where_one_cannot() -> None:
    async def main() -> None:
        able, unable = Loading(), Loading("it does not fit")
        crew = Crew([member(able), member(unable)])
        await crew.start(News())
        with pytest.raises(GivenError, match="it does not fit"):
            await crew.load(b"x")
        assert (able.did, unable.did) == (["load 1"], ["load 1"])
        unable.why = ""
        assert await crew.load(b"x") == CARD
        assert able.did[1:] == unable.did[1:] == ["load 2", "switch 2"]
        await crew.stop()

    run(main())


def test_who_comes_back_answers_with_what_the_others_do_before_it_gets_work() -> None:
    async def main() -> None:
        seat, news = Loading(), News()
        crew = Crew([member(seat)])
        await crew.start(news)
        await crew.load(b"x")
        seat.down.set_result(DIED)
        await settle()
        assert seat.did == ["load 1", "switch 1"] * 2
        assert news.events == ["lost", "back"]
        await crew.load(b"")
        seat.down.set_result(DIED)
        await settle()
        assert seat.did[4:] == ["load 2", "switch 2"], "the model as it is needs nothing in the next life"
        await crew.stop()

    run(main())


def test_who_goes_down_while_it_makes_ready_keeps_nobody_waiting() -> None:
    async def main() -> None:
        seat, other, news = Loading(), Loading(), News()
        crew = Crew([member(seat), member(other)])
        await crew.start(news)
        seat.held = True
        loading = asyncio.create_task(crew.load(b"x"))
        await settle()
        seat.held = False
        seat.down.set_result(DIED)
        await loading
        await settle()
        assert news.events == ["lost", "back"]
        assert [each.did[-1] for each in (seat, other)] == ["switch 1"] * 2
        await crew.stop()

    run(main())


def test_who_cannot_take_it_again_is_down_again() -> None:
    async def main() -> None:
        seat, news = Loading(), News()
        crew = Crew([member(seat, "cpu")])
        await crew.start(news)
        await crew.load(b"x")
        seat.why = "no memory"
        seat.down.set_result(DIED)
        await settle(lambda: len(seat.did))
        assert news.events == ["lost", "failed"]
        assert "could not take its delta again: no memory" in str(news.error)
        await crew.stop()

    run(main())
