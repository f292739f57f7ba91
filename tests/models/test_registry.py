"""A new system is one new file: listed, built, run, saved, exported, and played by an engine, with no other change."""
# ruff: noqa: E402 (torch is asked for first: without it this file is skipped)

import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile

torch = pytest.importorskip("torch")

import msgspec
from fakes import run

from clser.clients.clips import demo_clip
from clser.engine.api import Engine
from clser.engine.backends import open_voice
from clser.engine.jobs import Row
from clser.engine.records import Result
from clser.models import export, saved, systems
from clser.models.errors import GivenError, MissingError
from clser.models.labels import HEADS
from clser.models.tensors import Sequences

pytestmark = pytest.mark.torch
KINDS = ["exactly", "window", "end"]


@pytest.fixture
def zoo(tmp_path):
    """A folder of somebody's, with one new file."""
    folder = tmp_path / "zoo"
    folder.mkdir()
    shutil.copy(Path(__file__).parent / "small_system.py", folder / "running_mean.py")
    (folder / "_draft.py").write_text("this is not python\n")
    return [folder]


@pytest.fixture
def onnx(zoo, tmp_path):
    """An exported file of each kind."""

    def made(streams):
        settings = {"streams": streams}
        torch.manual_seed(1)
        net = systems.build("running_mean", settings, HEADS, zoo)
        with torch.no_grad():
            net.leave.bias[0] = 3.0
        about = saved.Trained("running_mean", settings, HEADS, abstain_below=0.2)
        export.export(net, tmp_path / f"{streams}.onnx", about)
        return tmp_path / f"{streams}.onnx"

    return made


def speech(seconds):
    return np.asarray(soundfile.read(demo_clip(), dtype="int16", frames=round(seconds * 16_000))[0])


def test_it_is_listed_beside_ours_and_its_drafts_are_not(zoo):
    names = list(systems.systems(zoo))
    assert "running_mean" in names
    assert "voice" in names
    assert "_draft" not in names
    with pytest.raises(MissingError, match=r"system 'nothing' is unknown: there are .*running_mean"):
        systems.system_file("nothing", zoo)


def test_it_is_built_with_its_settings_and_others_are_refused(zoo):
    net = systems.build("running_mean", {"width": 5}, HEADS, zoo)
    assert net.leave.in_features == 5
    with pytest.raises(GivenError, match="its settings are streams, width"):
        systems.build("running_mean", {"with": 5}, HEADS, zoo)


def test_a_file_that_is_no_system_says_what_it_lacks(zoo):
    (zoo[0] / "empty.py").write_text("ABOUT = 1\n")
    with pytest.raises(GivenError, match="no Config, build in it"):
        systems.system_file("empty", zoo)


@torch.no_grad()
def test_it_runs_on_batches(zoo):
    net = systems.build("running_mean", {}, HEADS, zoo).eval()
    given = {"logmel": Sequences(torch.randn(3, 8, 240), torch.tensor([8, 4, 0]))}
    logits, state = net(given, net.start(3))
    assert logits.shape == (3, 4, len(HEADS))
    assert state.frames_B1[:, 0].tolist() == [8.0, 4.0, 0.0]
    asked, _ = net(given, net.start(3), torch.tensor([[3], [1], [0]]))
    assert torch.equal(asked[0, 0], logits[0, 3])


@pytest.mark.parametrize("streams", KINDS)
def test_onnx_and_torch_play_it_alike(streams, zoo, onnx, tmp_path, monkeypatch):
    """What was trained in a folder of somebody's is played from its export; torch needs the file among ours."""
    path = onnx(streams)
    torch.manual_seed(1)
    net = systems.build("running_mean", {"streams": streams}, HEADS, zoo)
    with torch.no_grad():
        net.leave.bias[0] = 3.0
    about = saved.Trained("running_mean", {"streams": streams}, HEADS, abstain_below=0.2)
    folder = tmp_path / "trained"
    saved.save(folder, net, about)
    with pytest.raises(MissingError, match="system 'running_mean' is unknown"):
        open_voice(str(folder), "cpu", "torch")
    folders = systems.folders
    monkeypatch.setattr(systems, "folders", lambda extra=(): [*folders(), *zoo])
    theirs, ours = open_voice(str(path), "cpu"), open_voice(str(folder), "cpu", "torch")
    same = msgspec.structs.replace(ours.card, digest=theirs.card.digest, version=theirs.card.version)
    assert same == theirs.card
    pcm = speech(4.0)
    for begin, rows in (
        (0, [Row(0, 7, True), Row(1, 3, True)]),
        (9000, [Row(0, 14, False), Row(1, 2, False, anew=True)]),
    ):
        heard = pcm[begin : begin + sum(row.frames for row in rows) * 1280]
        np.testing.assert_allclose(ours.run(rows, heard), theirs.run(rows, heard), atol=1e-4)


@pytest.mark.parametrize("streams", KINDS)
def test_an_engine_plays_it(streams, onnx):
    async def hear():
        async with Engine.from_config(
            "live", "asr.recogniser=off", "bus.publish=", f"model.voice={onnx(streams)}"
        ) as engine:
            stream, said = engine.open("a"), []
            results, heard = stream.results(), speech(6.0)
            await stream.feed(heard[:32_000])  # into the middle of the first phrase
            if streams != "end":
                said.append(await anext(results))
            await stream.feed(heard[32_000:])
            await stream.close()
            return [*said, *[result async for result in results]]

    said: list[Result] = run(hear())
    finals = [result for result in said if result.final]
    assert finals
    assert {final.emotion.label for final in finals if not final.emotion.too_short} == {"anger"}
    assert {result.model.name for result in said} == {"running_mean"}
    partials = [result for result in said if result.stage == "partial"]
    if streams == "end":
        assert all(result.emotion.reason == "not_yet" for result in partials)
    else:
        assert any(result.emotion.probabilities["anger"] > 0.5 for result in partials)
