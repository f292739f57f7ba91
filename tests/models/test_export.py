"""Export: the file plays as torch does, says what it is, and one that answers otherwise is refused."""
# ruff: noqa: E402 (torch is asked for first: without it this file is skipped)

from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from clser.models import export, int8, onnx_files, saved, systems
from clser.models.errors import FailedError
from clser.models.labels import HEADS
from clser.models.live import card, live
from clser.models.saved import Calibration, Trained

pytestmark = pytest.mark.torch
HERE = [Path(__file__).parent]


def system(name="small_system", **settings):
    torch.manual_seed(3)
    return systems.build(name, settings, HEADS, HERE).eval()


def about(name="small_system", **said):
    return Trained(name, {}, HEADS, **said)


def read(path):
    return onnx_files.said_of(onnx_files.player(path))


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("voice", {"width": 32, "queries": 2, "hidden": 8, "manner": 8}),
        ("small_system", {}),
        ("small_system", {"enrols": True}),
        ("small_system", {"streams": "window"}),
        ("small_system", {"streams": "end"}),
    ],
)
def test_the_file_plays_as_torch_does_and_says_what_it_is(name, settings, tmp_path):
    path, net = tmp_path / "new" / "net.onnx", system(name, **settings)
    said = about(name, abstain_below=0.41239, trained_on=("emodb",), version="7")
    made = export.export(net, path, said)
    assert made.parity < export.PARITY
    assert made.agreement is None
    assert made.size_bytes == path.stat().st_size
    assert read(path) == card(net, said)
    assert [file.name for file in path.parent.iterdir()] == ["net.onnx"]
    inputs = [value.name for value in onnx_files.player(path).get_inputs()]
    outputs = [value.name for value in onnx_files.player(path).get_outputs()]
    states = list(live(net).state_names()) if net.streams == "exactly" else []
    told = card(net, said)["speaker_numbers"] > 0
    assert inputs == ["pcm_BS", "frames_B", *["speaker_BX"] * told, *(f"state_{each}" for each in states)]
    assert outputs[1:] == [*["heard_BX"] * told, *(f"next_{each}" for each in states)]


def test_calibration_is_inside_the_graph(tmp_path):
    path, net = tmp_path / "net.onnx", system(streams="window")
    plain = live(net)
    export.export(net, path, about(calibration=Calibration(2.0, tuple(range(len(HEADS))))))
    pcm = (0.1 * np.random.default_rng(0).standard_normal((1, 6 * 1280))).astype(np.float32)
    (got,) = onnx_files.player(path).run(None, {"pcm_BS": pcm, "frames_B": np.array([6])})
    with torch.no_grad():
        expected = plain(torch.from_numpy(pcm), torch.tensor([6])).numpy() / 2.0 + np.arange(len(HEADS))
    assert np.abs(got - expected).max() < 1e-4


def test_the_systems_mode_is_left_as_it_was(tmp_path):
    net = system().train()
    export.export(net, tmp_path / "net.onnx", about())
    assert net.training


def test_a_graph_that_was_frozen_to_one_length_is_refused_and_the_old_file_stays(tmp_path):
    path = tmp_path / "net.onnx"
    path.write_bytes(b"what was there before")
    net = system(breaks="length")
    with torch.no_grad():
        net.leave.weight *= 30.0
    with pytest.raises(FailedError, match=r"away from torch's.*depends on the length"):
        export.export(net, path, about())
    assert path.read_bytes() == b"what was there before"
    assert [file.name for file in tmp_path.iterdir()] == ["net.onnx"]


def test_a_file_that_answers_nonsense_is_refused(tmp_path):
    net = system()
    with torch.no_grad():
        net.leave.bias.fill_(float("nan"))
    with pytest.raises(FailedError, match="away from torch's"):
        export.export(net, tmp_path / "net.onnx", about())


def test_a_file_that_hears_something_else_of_its_speaker_is_refused(tmp_path, monkeypatch):
    net = system(enrols=True)
    with torch.no_grad():
        net.leave.weight.zero_()  # so that no answer shows it
    hear = net.hear

    def hear_louder(*given):
        e_BKX, after = hear(*given)
        return (e_BKX * 1.5 if torch.jit.is_tracing() else e_BKX), after

    monkeypatch.setattr(net, "hear", hear_louder)
    with pytest.raises(FailedError, match="away from torch's"):
        export.export(net, tmp_path / "net.onnx", about())


def test_what_cannot_be_traced_is_said(tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise RuntimeError("Exporting the operator 'aten::strange' is not supported")

    monkeypatch.setattr(export.torch.onnx, "export", refuse)
    with pytest.raises(FailedError, match=r"aten::strange.*play it with model\.backend=torch"):
        export.export(system(), tmp_path / "net.onnx", about())


def test_the_shipped_model_is_exported_from_its_weights(tmp_path):
    from importlib import resources

    with resources.as_file(resources.files("clser.models.weights") / "voice.safetensors") as path:
        net, said = saved.load(path)
    assert export.export(net, tmp_path / "net.onnx", said).parity < export.PARITY
    again = read(tmp_path / "net.onnx")
    assert again["name"] == "voice"
    assert again["abstain_below"] > 0
    assert again["trained_on"]


# --- 8 bits -----------------------------------------------------------------------------------------------------------


def decided(**settings):
    """Answers that are not nearly even, as those of a trained one are not."""
    net = system(width=64, **settings)
    with torch.no_grad():
        net.leave.bias.copy_(torch.linspace(-4.0, 4.0, len(HEADS)))
    return net


@pytest.mark.parametrize("settings", [{}, {"enrols": True}, {"streams": "window"}])
def test_8_bits_are_smaller_and_say_the_same(settings, tmp_path, monkeypatch):
    monkeypatch.setattr(int8, "SOUND_S", 2.0)
    monkeypatch.setattr(int8, "ROWS", 12)
    net = decided(**settings)
    full = export.export(net, tmp_path / "full.onnx", about())
    made = export.export(net, tmp_path / "net.onnx", about(), int8=True)
    assert made.agreement >= int8.AGREEMENT
    assert made.size_bytes < full.size_bytes - 20_000, (
        "64 x 240 numbers lose three of their four bytes, and more nodes take some"
    )
    said = read(tmp_path / "net.onnx")
    assert said["precision"] == "int8"
    assert said["agreement"] == round(made.agreement, 4)
    assert {file.name for file in tmp_path.iterdir()} == {"full.onnx", "net.onnx"}


def test_8_bits_that_change_the_labels_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(int8, "SOUND_S", 1.0)
    count = iter(range(100))
    monkeypatch.setattr(int8, "labels", lambda *_: np.full(10, next(count)))
    with pytest.raises(FailedError, match=r"only 0.0% of the labels stay the same.*without --int8"):
        export.export(decided(), tmp_path / "net.onnx", about(), int8=True)
    assert not list(tmp_path.iterdir())


def test_the_sounds_it_is_tried_with_are_voices_of_many_kinds(monkeypatch):
    monkeypatch.setattr(int8, "SOUND_S", 1.0)
    sounds = list(int8.spoken())
    assert len(sounds) == int8.ROWS
    assert all(np.isfinite(sound).all() and np.abs(sound).max() < 1.0 for sound in sounds)
    assert len({sound.tobytes() for sound in sounds}) == int8.ROWS
    assert all(np.array_equal(a, b) for a, b in zip(sounds, int8.spoken(), strict=True))


def test_nodes_are_put_behind_those_they_need():
    """Also behind what only the body of a loop or a branch takes."""
    make = int8.onnx.helper
    body = make.make_graph([make.make_node("Identity", ["b"], ["c"])], "body", [], [])
    nodes = [
        make.make_node("If", ["when"], ["d"], then_branch=body, else_branch=body),
        make.make_node("Neg", ["a"], ["b"]),
        make.make_node("Neg", ["x"], ["a"]),
    ]
    inputs = [make.make_tensor_value_info(name, 1, [1]) for name in ("x", "when")]
    graph = make.make_graph(nodes, "graph", inputs, [])
    int8.ordered(graph)
    assert [node.output[0] for node in graph.node] == ["a", "b", "d"]
