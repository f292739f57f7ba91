"""Words by collections: numbers of pairs, buckets that are owned, training that goes on, and the same answers without torch."""

import gzip
import json

import msgspec
import numpy as np
import onnx
import pytest

pytest.importorskip("torch")
import torch
from trials import Quiet

from clser.models import plan as plans
from clser.models import runs, saved
from clser.models.data.corpora import Text
from clser.models.data.text_parts import own_training, parts
from clser.models.encoders.text import tokeniser
from clser.models.encoders.words import hashed, ragged
from clser.models.errors import GivenError, MissingError
from clser.models.labels import PUBLISHED
from clser.models.layers.hashed import STIR, TAGGED, Found
from clser.models.train import Running, StoppedError
from clser.models.words_linear import Grams, Layer, Problem, apply
from clser.models.words_live import Reader
from clser.models.zoo import words

pytestmark = pytest.mark.torch

WORDS_OF = {
    "anger": ("hate", "shout", "furious"),
    "fear": ("afraid", "dark", "tremble"),
    "happiness": ("lovely", "laugh", "sunny"),
}
SETTINGS = {
    "collections": {"text_one": 512, "text_two": 300}, "kinds": 256, "width": 8, "hidden": 12, "rounds": 3, "epochs": 6,
    "batch": 32, "learning_rate": 0.02,
}  # fmt: skip


def made_up(folder, count=240):
    """Two collections of sentences whose words tell their label; the second one says them in capitals with a verb of its own."""
    random = np.random.default_rng(0)
    fillers = ("we", "saw", "the", "house", "again", "today", "and", "then")
    for name, extra in (("one", ""), ("two", "verily")):
        lines = ["corpus,language,split,text,emotion"]
        for n in range(count):
            emotion = list(WORDS_OF)[n % 3]
            said = [*random.choice(fillers, 4), random.choice(WORDS_OF[emotion]), extra, str(n)]
            split = ("train", "train", "train", "dev", "test")[n // 3 % 5]
            lines.append(f"text_{name},en,{split},{' '.join(said)},{emotion}")
        part = folder / f"text_{name}"
        part.mkdir()
        (part / "texts.csv.gz").write_bytes(gzip.compress("\n".join(lines).encode()))
    return folder


def prepared(folder):
    plan = plans.from_values(
        {"system": "words", "settings": SETTINGS, "corpora": [], "texts": ["one", "two"]}, "of a test"
    )
    return runs.prepare(plan, folder, folder / "cache", Quiet())


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = made_up(tmp_path_factory.mktemp("corpora"))
    out = tmp_path_factory.mktemp("out")
    found = words.fit(prepared(folder), out, Quiet())
    return folder, out, found


def test_pairs_are_a_words_last_number_and_nothing_else_changes():
    alone, length = hashed(["so very sad"])
    pairs, same = hashed(["so very sad"], pairs=True)
    assert length.tolist() == same.tolist() == [3]
    for word in range(3):
        own = alone[0, word][alone[0, word] > 0].tolist()
        with_pair = pairs[0, word][pairs[0, word] > 0].tolist()
        assert with_pair[: len(own)] == own
        assert len(with_pair) - len(own) == (word > 0)
    other, _ = hashed(["very so sad"], pairs=True)
    assert not set(other[other > 0]) >= set(pairs[pairs > 0])


def test_ragged_has_the_same_numbers():
    texts = ["so very sad", "", "很高兴 to see you!"]
    flat, starts = ragged(texts)
    ids, _ = hashed(texts, pairs=True)
    for n in range(3):
        assert flat[starts[n] : starts[n + 1]].tolist() == ids[n][ids[n] > 0].tolist()
    assert tokeniser("pairs")(texts)[0].tolist() == ids.tolist()


def test_a_bucket_answers_its_owner_alone_and_bytes_are_close():
    layer, buckets = Found(16, 3), 16
    random = np.random.default_rng(0)
    weight = random.standard_normal((buckets, 3)).astype(np.float32) ** 3
    tag = np.full(buckets, -1, np.int16)
    one, other, stranger = 7 * TAGGED + 3, 2 * TAGGED + 5, 8 * TAGGED + 3
    second = other * STIR // TAGGED % buckets
    assert second != 3
    tag[3], tag[second] = 7, 2
    bias = np.array([0.5, 0.0, -0.5], np.float32)
    layer.keep(tag, weight, bias)
    assert np.abs(layer.weights().numpy() - weight).max() < 0.02 * np.abs(weight).max()
    told, known = layer(torch.tensor([[one, 0, 0], [stranger, 0, 0], [one, other, stranger]]))
    assert known.tolist() == [1, 0, 2]
    kept = layer.weights()
    assert torch.allclose(told[0], kept[3] + torch.from_numpy(bias))
    assert torch.allclose(told[1], torch.from_numpy(bias))
    assert torch.allclose(told[2], (kept[3] + kept[second]) / 2**0.5 + torch.from_numpy(bias))


def test_a_layer_learns_and_the_net_answers_as_it_does():
    texts = [f"{said} the house" for group in WORDS_OF.values() for said in group for _ in range(4)]
    target = np.eye(3, dtype=np.float32)[np.repeat(np.arange(3), 12)]
    grams = Grams(*ragged(texts))
    problem = Problem(grams, target, 256, 10.0)
    losses = [problem.round() for _ in range(3)]
    assert losses[0] > losses[-1]
    layer = problem.layer()
    assert (apply(layer, grams).argmax(1) == target.argmax(1)).all()
    net = Found(256, 3)
    net.keep(*layer)
    ids, _ = hashed(texts, pairs=True)
    told, _ = net(torch.from_numpy(ids).flatten(1))
    assert np.allclose(told.numpy(), apply(Layer(layer.tag_K, net.weights().numpy(), layer.bias_C), grams), atol=1e-5)


def test_parts_hold_out_what_others_hold_out():
    def text(corpus, split, said):
        return Text(corpus, "en", split, said, ("anger",))

    texts = [
        text("a", "train", "Hello there you all!"), text("a", "test", "hello there you all!"), text("b", "train", "hello, there you all !"),
        text("b", "dev", "good night my dear"), text("c", "whole", "as it is"), text("a", "train", "Good night my dear."),
        text("b", "train", "oh?"), text("a", "test", "Oh?"),
    ]  # fmt: skip
    found = parts(texts)
    assert 0 in found.train  # its own makers put it there
    assert 2 not in found.train
    assert 5 not in found.train
    assert 6 in found.train  # nobody quotes a word
    assert found.test == [1, 7]
    assert found.valid[0] == 3
    assert own_training(texts, "a") == [0, 5]
    many = [text("c", "whole", f"line {n}") for n in range(800)]
    cut = parts(many)
    assert 0.02 < len(cut.test) / 800 < 0.06
    assert 0.003 < len(cut.valid) / 800 < 0.02
    assert len(cut.train) + len(cut.test) + len(cut.valid) == 800


def test_it_beats_chance_on_texts_it_never_saw(trained):
    _, out, found = trained
    assert {row["corpus"] for row in found["texts"]} == {"text_one", "text_two"}
    assert all(row["uar"] > 0.9 for row in found["texts"])
    assert found["onnx"]["parity"] < 1e-4
    assert json.loads((out / "results.json").read_text())["digest"] == found["digest"]


def test_torch_and_onnx_say_the_same_alone_and_in_company(trained):
    _, out, _ = trained
    system, about = saved.load(out)
    reader = Reader(out / "model.onnx")
    texts = ["the dark house", "", "lovely lovely laugh then", "ihr wart zu laut und es war so dunkel " * 4]
    read = reader.read(texts)
    ids, _ = hashed(texts, pairs=True)
    with torch.no_grad():
        told = system.told(torch.from_numpy(ids))
    assert np.allclose(about.calibration.apply(told.logits_BH.numpy()), read.logits_BH, atol=1e-4)
    assert np.allclose(told.vector_BD.numpy(), read.vector_BD, atol=1e-4)
    assert read.vector_BD.shape == (4, 8)
    for n, text in enumerate(texts):
        alone = reader.read([text])
        assert np.allclose(alone.logits_BH[0], read.logits_BH[n], atol=1e-4)
    assert np.isfinite(reader.read([""]).logits_BH).all()
    told = reader.read(["we saw the house"], "text_two")
    assert not np.allclose(told.logits_BH, reader.read(["we saw the house"]).logits_BH)
    with pytest.raises(GivenError, match="text_two"):
        reader.read(["so"], "text_six")
    assert reader.about["heads"] == list(system.heads)


def test_a_stopped_run_goes_on_to_the_same_weights(trained, tmp_path):
    folder, out, _ = trained
    asked = []

    def stop():
        asked.append(1)
        return len(asked) % 7 == 0

    stops = 0
    while True:
        try:
            words.fit(prepared(folder), tmp_path, Quiet(), resume=bool(stops), running=Running(stop=stop))
            break
        except StoppedError:
            stops += 1
    assert stops > 2
    one, other = saved.load(out)[0].state_dict(), saved.load(tmp_path)[0].state_dict()
    assert all(torch.equal(one[name], other[name]) for name in one)
    with pytest.raises(GivenError, match="--resume"):
        words.fit(prepared(folder), tmp_path, Quiet())


def test_collections_and_texts_must_be_the_same(trained, tmp_path):
    folder = trained[0]
    there = prepared(folder)
    there.system.config = msgspec.structs.replace(there.system.config, collections={"text_one": 512, "text_three": 512})
    with pytest.raises(GivenError, match="text_three"):
        words.fit(there, tmp_path, Quiet())


def test_a_reader_refuses_what_is_no_text_model(tmp_path):
    with pytest.raises(MissingError, match="no such file"):
        Reader(tmp_path / "none.onnx")
    node = onnx.helper.make_node("Identity", ["x"], ["y"])
    x, y = (onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1]) for name in "xy")
    opset = onnx.helper.make_opsetid("", 18)
    model = onnx.helper.make_model(onnx.helper.make_graph([node], "g", [x], [y]), opset_imports=[opset], ir_version=9)
    voice = tmp_path / "voice.onnx"
    onnx.save(model, str(voice))
    with pytest.raises(GivenError, match="no text model"):
        Reader(voice)


def test_the_default_is_small_enough_to_ship():
    net = words.build(words.Config(), PUBLISHED)
    size = sum(part.numel() * part.element_size() for part in net.state_dict().values())
    assert size < 5e6
    assert net.middle.out_features <= 64
    assert net.start(3) == ()
