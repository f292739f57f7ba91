"""Export: the file plays as torch does, says what it is, and one that answers otherwise is refused."""
# ruff: noqa: E402 (torch is asked for first: without it this file is skipped)

import json

import pytest

torch = pytest.importorskip("torch")

import onnxruntime

from clser.models import export
from clser.models.labels import HEADS
from clser.models.zoo.voice_gru import VoiceGru

pytestmark = pytest.mark.torch


@pytest.fixture
def net():
    torch.manual_seed(3)
    return VoiceGru(channels=16, queries=2, hidden=8)


def test_the_file_plays_as_torch_does_and_says_what_it_is(net, tmp_path):
    path = tmp_path / "net.onnx"
    about = export.metadata(0.41239, ["emodb"], version="7")
    assert export.export(net, path, about) < export.PARITY
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    read = json.loads(session.get_modelmeta().custom_metadata_map["clser"])
    assert read == about
    assert (read["contract"], read["version"], read["abstain_below"]) == (1, "7", 0.4124)
    assert read["heads"] == list(HEADS)


def test_the_temperature_is_inside_the_graph(net, tmp_path):
    pcm_BS = 0.1 * torch.randn(1, 5 * 640)
    with torch.no_grad():
        plain, _ = net.eval()(pcm_BS, torch.tensor([5]), net.start(1))
        net.temperature.fill_(2.0)
        cooler, _ = net(pcm_BS, torch.tensor([5]), net.start(1))
    assert torch.allclose(cooler, plain / 2.0)
    assert export.export(net, tmp_path / "net.onnx", export.metadata(0.4, [])) < export.PARITY


def test_a_file_that_answers_otherwise_is_refused(net, tmp_path, monkeypatch):
    monkeypatch.setattr(export, "parity", lambda net, path: 0.01)
    with pytest.raises(ValueError, match="away from torch"):
        export.export(net, tmp_path / "net.onnx", export.metadata(0.4, []))
    assert not (tmp_path / "net.onnx").exists()
