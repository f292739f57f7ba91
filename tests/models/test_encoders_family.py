"""The bimodal family's other pretrained encoders, on small random checkpoints saved as the real ones are: ExHuBERT, CANINE."""

import copy
import json

import pytest

transformers = pytest.importorskip("transformers", reason="needs the train extra")
import torch  # noqa: E402
from safetensors.torch import save_file  # noqa: E402
from torch import nn  # noqa: E402

from clser.models.encoders.hub_frames import hub_width  # noqa: E402
from clser.models.encoders.layers_of import Choice  # noqa: E402
from clser.models.encoders.pretrained_speech import open_speech  # noqa: E402
from clser.models.encoders.pretrained_text import MOST_CHARACTERS, CharacterText, open_text  # noqa: E402
from clser.models.encoders.quantise import quantise  # noqa: E402
from clser.models.errors import GivenError  # noqa: E402

pytestmark = [
    pytest.mark.torch,
    # The library reads an attribute of torch that has moved.
    pytest.mark.filterwarnings("ignore:.*torch.*deprecated.*:FutureWarning:transformers"),
]

WIDTH = 16
SIZE = {"hidden_size": WIDTH, "num_attention_heads": 2, "intermediate_size": 24}
SAMPLES = (6_000, 4_333, 150)
TEXTS = ["so glad", "", "那太好了!", "oh no, I did not want to go there, not at all, and you know it", "a" * 700]


def hubert(layers=4):
    """The large size's kind: norms before each part, and in the convolutions."""
    return transformers.HubertModel(transformers.HubertConfig(
        **SIZE, num_hidden_layers=layers, conv_dim=(8,) * 7, num_conv_pos_embeddings=16, num_conv_pos_embedding_groups=2,
        feat_extract_norm="layer", do_stable_layer_norm=True, conv_bias=True,
    )).eval()  # fmt: skip


def extended(folder, added, **changed):
    """A checkpoint of four layers with linear layers of those names: layer -> names; as the hub has it."""
    model = hubert()
    tensors = {f"hubert.{name}": tensor for name, tensor in model.state_dict().items()}
    linears = {}
    for layer, names in added.items():
        for name in names:
            linears[layer, name] = linear = nn.Linear(WIDTH, WIDTH)
            tensors |= {
                f"hubert.encoder.layers.{layer}.{name}.{part}": getattr(linear, part).data
                for part in ("weight", "bias")
            }
    tensors |= {"classifier.weight": torch.randn(6, 8), "projector.weight": torch.randn(8, WIDTH)} | changed
    folder.mkdir()
    torch.save(tensors, folder / "pytorch_model.bin")
    config = {**model.config.to_dict(), "architectures": ["ExHuBERT"]}
    config["auto_map"] = {"AutoModelForAudioClassification": "ExHuBERT_model.ExHuBERT"}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "ExHuBERT_model.py").write_text("raise RuntimeError('nothing of this is run')\n")
    return model, linears


def sound():
    """What lies behind each row's end is loud."""
    return torch.randn(len(SAMPLES), max(SAMPLES)) * 0.1 + 0.05, torch.tensor(SAMPLES)


def heard(model, linears, pcm_S):
    """The copies' answer, written out: the library's layers, and what was added to them."""
    level = (pcm_S - pcm_S.mean()) / torch.sqrt(pcm_S.var(correction=0) + 1e-7)
    x = model.feature_projection(model.feature_extractor(level[None]).transpose(1, 2))
    x = x + model.encoder.pos_conv_embed(x)
    every = [x]
    for number, layer in enumerate(model.encoder.layers):
        own = [linear for (where, _), linear in linears.items() if where == number]
        if len(own) == 2:
            x = x + own[0](layer.attention(layer.layer_norm(x))[0])
            x = x + own[1](layer.feed_forward(layer.final_layer_norm(x)))
        else:
            y = layer(x)
            x = x + own[0](y) if own and own[0].weight.any() else y
        every.append(x)
    return model.encoder.layer_norm(x)[0], every[1][0]


@pytest.mark.parametrize(
    "added",
    [
        {1: ("after_attention", "after_feed"), 3: ("after_attention", "after_feed")},
        {0: ("skip",), 1: ("skip",), 2: ("skip",), 3: ("skip",)},
    ],
    ids=["two", "one"],
)
def test_exhubert_is_its_layers_and_what_was_added(tmp_path, added):
    model, linears = extended(tmp_path / "made", added)
    if (0, "skip") in linears:  # the first of each pair never used its own
        state = torch.load(tmp_path / "made" / "pytorch_model.bin", weights_only=True)
        for number in (0, 2):
            for part in ("weight", "bias"):
                getattr(linears[number, "skip"], part).data.zero_()
                state[f"hubert.encoder.layers.{number}.skip.{part}"].zero_()
        torch.save(state, tmp_path / "made" / "pytorch_model.bin")
    pcm_BS, samples_B = sound()
    with torch.no_grad():
        last = open_speech(str(tmp_path / "made"))(pcm_BS, samples_B)
        first = open_speech(str(tmp_path / "made"), layers=1)(pcm_BS, samples_B)
        assert last.length_B.tolist() == [18, 13, 0]
        for row in range(2):
            expected_last, expected_first = heard(model, linears, pcm_BS[row, : SAMPLES[row]])
            size = int(last.length_B[row])
            torch.testing.assert_close(last.x_BTD[row, :size], expected_last, atol=1e-4, rtol=0)
            torch.testing.assert_close(first.x_BTD[row, :size], expected_first, atol=1e-4, rtol=0)
            assert not last.x_BTD[row, size:].any()
    assert hub_width(f"hub:{tmp_path / 'made'}") == WIDTH


def test_exhubert_begins_as_the_hubert_it_is_made_of(tmp_path):
    model, _ = extended(tmp_path / "made", {1: ("one", "two"), 3: ("one", "two")})
    path = tmp_path / "made" / "pytorch_model.bin"
    state = torch.load(path, weights_only=True)
    for name, tensor in state.items():
        if ".one." in name or ".two." in name:
            tensor.zero_()
    torch.save(state, path)
    half = copy.deepcopy(model)
    half.encoder.layers = nn.ModuleList([half.encoder.layers[0], half.encoder.layers[2]])
    pcm_BS, samples_B = sound()
    with torch.no_grad():
        got = open_speech(str(tmp_path / "made"))(pcm_BS[:1], samples_B[:1])
        expected, _ = heard(half, {}, pcm_BS[0])
    torch.testing.assert_close(got.x_BTD[0], expected, atol=1e-4, rtol=0)


def test_exhubert_in_other_files_and_its_layers_learn(tmp_path):
    extended(tmp_path / "made", {1: ("one", "two"), 3: ("one", "two")})
    state = torch.load(tmp_path / "made" / "pytorch_model.bin", weights_only=True)
    (tmp_path / "made" / "pytorch_model.bin").rename(tmp_path / "made" / "pytorch_model-00001.bin")
    index = {"weight_map": dict.fromkeys(state, "pytorch_model-00001.bin"), "metadata": {}}
    (tmp_path / "made" / "pytorch_model.bin.index.json").write_text(json.dumps(index))
    pcm_BS, samples_B = sound()
    encoder = open_speech(str(tmp_path / "made"), trainable_layers=1).train()
    said = encoder.eval()(pcm_BS, samples_B)
    said.x_BTD[..., 0].square().sum().backward()
    learnt = encoder.learnt()
    assert any("added" in name for name in learnt) and any("feed_forward.1" in name for name in learnt)
    assert all(p.grad is not None for p in encoder.parameters() if p.requires_grad)
    (tmp_path / "made" / "pytorch_model.bin.index.json").unlink()
    save_file(state, tmp_path / "made" / "model.safetensors", metadata={"format": "pt"})
    again = open_speech(str(tmp_path / "made"))(pcm_BS, samples_B)
    torch.testing.assert_close(again.x_BTD, said.x_BTD.detach(), atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("added", "changed", "told"),
    [
        ({}, {}, "nothing beside"),
        ({1: ("a", "b", "c")}, {}, "3 linear layers"),
        ({}, {"hubert.encoder.layers.1.gate.weight": torch.zeros(4, WIDTH)}, "gate.weight is no linear layer"),
        ({}, {"hubert.encoder.layers.1.scale": torch.zeros(WIDTH)}, "scale is no linear layer"),
    ],
)
def test_another_exhubert_is_refused(tmp_path, added, changed, told):
    extended(tmp_path / "made", added, **changed)
    with pytest.raises(GivenError, match=told):
        open_speech(str(tmp_path / "made"))


@pytest.fixture(scope="module")
def canine(tmp_path_factory):
    """(folder, the library's model, ours), saved as a classifier's part. To open one takes seconds: its tokenizer is long."""
    torch.manual_seed(1)
    config = transformers.CanineConfig(
        **SIZE, num_hidden_layers=2, max_position_embeddings=400, num_hash_buckets=512, num_hash_functions=4,
        local_transformer_stride=32,
    )  # fmt: skip
    model = transformers.CanineForSequenceClassification(config).eval()
    folder = tmp_path_factory.mktemp("canine")
    model.save_pretrained(folder)
    transformers.CanineTokenizer().save_pretrained(folder)
    return folder, model.canine, open_text(str(folder))


def test_each_text_of_a_batch_is_what_canine_says_of_it_alone(canine):
    folder, model, encoder = canine
    ids_BL, length_B = encoder.tokenise(TEXTS)
    assert length_B.tolist() == [9, 2, 7, 64, MOST_CHARACTERS]
    wide_BL = torch.where(torch.arange(ids_BL.shape[1]) < length_B[:, None], ids_BL, 7)
    with torch.no_grad():
        read = encoder(wide_BL, length_B)
        for row, text in enumerate(TEXTS):
            size = int(length_B[row])
            given = encoder.tokenizer(text, return_tensors="pt", truncation=True, max_length=MOST_CHARACTERS)
            if size < 4:  # the library itself cannot: its pools take four
                assert read.x_BTD[row, :size].isfinite().all()
                alone = encoder(*encoder.tokenise([text]))
                torch.testing.assert_close(read.x_BTD[row, :size], alone.x_BTD[0], atol=1e-5, rtol=0)
            else:
                told = model(**given).last_hidden_state[0]
                torch.testing.assert_close(read.x_BTD[row, :size], told, atol=1e-4, rtol=0)
            assert not read.x_BTD[row, size:].any()
    assert hub_width(f"hub:{folder}") == WIDTH


def test_canine_reads_no_rows_and_learns(canine):
    _, model, opened = canine
    encoder = CharacterText(copy.deepcopy(model), opened.tokenizer, Choice(trainable_layers=1), 20)
    assert encoder.tokenise(TEXTS)[1].tolist() == [9, 2, 7, 20, 20]
    read = encoder(torch.tensor([[5, 6, 7], [5, 6, 7]]), torch.tensor([3, 0]))
    assert read.length_B.tolist() == [3, 0] and not read.x_BTD[1].any()
    read = encoder(*encoder.tokenise(TEXTS))
    read.x_BTD[..., 0].square().sum().backward()
    assert all(p.grad is not None for p in encoder.parameters() if p.requires_grad)


def test_what_canine_cannot_is_refused(canine, tmp_path):
    _, model, opened = canine
    with pytest.raises(GivenError, match="'last' alone"):
        CharacterText(model, opened.tokenizer, Choice(layers=1))
    with pytest.raises(GivenError, match="graph"):
        quantise(opened, tmp_path / "out")
