"""Pretrained text encoders on small random checkpoints of the real classes: what the library says of each text alone."""

import json
import sys

import pytest

transformers = pytest.importorskip("transformers", reason="needs the train extra")
import torch  # noqa: E402
from safetensors.torch import save_file  # noqa: E402

from clser.models.encoders.pretrained_text import MOST_TOKENS, open_text  # noqa: E402
from clser.models.encoders.quantise import OnnxEncoder, quantise  # noqa: E402
from clser.models.errors import GivenError  # noqa: E402

pytestmark = pytest.mark.torch

WORDS = ["the", "cat", "sat", "on", "a", "mat", "oh", "no", "why", "did", "you", "say", "that"]
TEXTS = ["the cat sat on a mat", "oh no", "", "why did you say that " * 40]
FAMILIES = ("bert", "xlm-roberta", "jina")
SIZE = {
    "hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 24, "num_hidden_layers": 2,
    "max_position_embeddings": 110,
}  # fmt: skip


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """family -> (folder, the library's model, its tokenizer); saved as language models are, without a pooler."""
    torch.manual_seed(1)
    marks = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    bert = transformers.BertTokenizer(vocab={word: n for n, word in enumerate([*marks, *WORDS])})
    marks = [(mark, 0.0) for mark in ("<s>", "<pad>", "</s>", "<unk>")]
    xlm = transformers.XLMRobertaTokenizer(vocab=[*marks, *((f"▁{word}", -3.0) for word in WORDS), ("<mask>", 0.0)])
    kinds = {
        "bert": (transformers.BertConfig, transformers.BertForMaskedLM, bert),
        "xlm-roberta": (transformers.XLMRobertaConfig, transformers.XLMRobertaForMaskedLM, xlm),
        "jina": (transformers.JinaEmbeddingsV3Config, transformers.JinaEmbeddingsV3ForMaskedLM, xlm),
    }
    done = {}
    for family, (config, kind, tokenizer) in kinds.items():
        model = kind(config(**SIZE, vocab_size=len(tokenizer), pad_token_id=tokenizer.pad_token_id)).eval()
        folder = tmp_path_factory.mktemp(family)
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        done[family] = folder, model.base_model, tokenizer
    return done


@pytest.mark.parametrize("family", FAMILIES)
def test_each_text_of_a_batch_is_what_the_library_says_of_it_alone(made, family):
    folder, model, tokenizer = made[family]
    encoder = open_text(str(folder))
    ids_BL, length_B = encoder.tokenise(TEXTS)
    assert length_B.tolist() == [8, 4, 2, MOST_TOKENS]
    wide_BL = torch.full((4, 100), 7)  # whatever lies in the padding, it is not looked at
    wide_BL[:, :MOST_TOKENS] = torch.where(torch.arange(MOST_TOKENS) < length_B[:, None], ids_BL, 7)
    with torch.no_grad():
        last = encoder(wide_BL, length_B)
        every = open_text(str(folder), layers="all", fusion="concat")(ids_BL, length_B)
        middle = open_text(str(folder), layers=1)(ids_BL, length_B)
        for row, text in enumerate(TEXTS):
            given = tokenizer(text, return_tensors="pt", truncation=True, max_length=MOST_TOKENS)
            told = model(**given, output_hidden_states=True)
            size = int(length_B[row])
            for got, expected in (
                (last, told.last_hidden_state),
                (every, torch.cat(told.hidden_states, -1)),
                (middle, told.hidden_states[1]),
            ):
                torch.testing.assert_close(got.x_BTD[row, :size], expected[0], atol=1e-4, rtol=0)
                assert not got.x_BTD[row, size:].any()


def test_a_row_without_a_token_is_no_error(made):
    for family in FAMILIES:
        with torch.no_grad():
            read = open_text(str(made[family][0]))(torch.tensor([[5, 6], [5, 6]]), torch.tensor([2, 0]))
        assert read.length_B.tolist() == [2, 0]
        assert read.x_BTD[0].isfinite().all()
        assert not read.x_BTD[1].any()


def test_tokens_are_cut_to_what_is_asked_for_and_to_what_the_encoder_can(made):
    folder = str(made["xlm-roberta"][0])
    encoder = open_text(folder, most_tokens=5)
    ids_BL, length_B = encoder.tokenise(TEXTS)
    assert ids_BL.shape == (4, 5)
    assert length_B.tolist() == [5, 4, 2, 5]
    assert encoder.tokenise([])[0].shape == (0, 0)
    with pytest.raises(GivenError, match="3 to 108"):
        open_text(folder, most_tokens=109)
    with pytest.raises(GivenError, match="list of texts"):
        encoder.tokenise("the cat")


def test_weights_learn_and_the_last_layers_if_asked(made):
    folder = str(made["bert"][0])
    encoder = open_text(folder, layers="all", fusion="weights", trainable_layers=1).train()
    assert {".".join(name.split(".")[:4]) for name in encoder.learnt()} == {
        "fusion.weight_K",
        "encoder.encoder.layer.1",
    }
    ids_BL, length_B = encoder.tokenise(TEXTS)
    # Not a sum of squares: that of a layer's norm is the same whatever the layer says.
    encoder.eval()(ids_BL, length_B).x_BTD[..., 0].square().sum().backward()
    assert all(p.grad.abs().sum() > 0 for n, p in encoder.named_parameters() if p.requires_grad and "key.bias" not in n)
    assert encoder.encoder.encoder.layer[0].output.dense.weight.grad is None


def lora(folder, model, task, rank=2, **more):
    """A random adapter as PEFT saves one; what it adds to each weight."""
    (folder / task).mkdir()
    tensors, added = {}, {}
    for name in ("layers.0.self_attn.q_proj", "layers.1.mlp.fc2", "embeddings.word_embeddings"):
        rows, columns = model.get_submodule(name).weight.shape
        embedding = "embedding_" if "word" in name else ""
        if embedding:
            rows, columns = columns, rows
        a, b = torch.randn(rank, columns), torch.randn(rows, rank)
        end = "" if embedding else ".weight"
        tensors[f"base_model.model.{name}.lora_{embedding}A{end}"] = a
        tensors[f"base_model.model.{name}.lora_{embedding}B{end}"] = b
        added[name] = (b @ a).T if embedding else b @ a
    save_file(tensors, folder / task / "adapter_model.safetensors")
    (folder / task / "adapter_config.json").write_text(json.dumps({"r": rank, "lora_alpha": 3, **more}))
    return added


def test_a_task_adds_its_adapter_to_the_weights(made, tmp_path):
    _, model, tokenizer = made["jina"]
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    added = lora(tmp_path, model, "text_matching")
    plain, tuned = open_text(str(tmp_path)), open_text(str(tmp_path), task="text-matching")
    for name, change in added.items():
        difference = tuned.encoder.get_submodule(name).weight - plain.encoder.get_submodule(name).weight
        torch.testing.assert_close(difference, 1.5 * change, atol=1e-5, rtol=0)
    with pytest.raises(GivenError, match=r"'separation'.*text_matching"):
        open_text(str(tmp_path), task="separation")
    lora(tmp_path, model, "separation", use_dora=True)
    with pytest.raises(GivenError, match="use_dora"):
        open_text(str(tmp_path), task="separation")


CODE = """
from transformers import XLMRobertaConfig, XLMRobertaModel
class OwnConfig(XLMRobertaConfig):
    model_type = "own-text"
class OwnModel(XLMRobertaModel):
    config_class = OwnConfig
"""


def test_a_checkpoints_own_python_runs_only_if_the_user_says_so(made, tmp_path, monkeypatch):
    _, model, tokenizer = made["xlm-roberta"]
    own = tmp_path / "own"
    transformers.XLMRobertaModel(model.config).save_pretrained(own)
    tokenizer.save_pretrained(own)
    (own / "own_text.py").write_text(CODE)
    about = json.loads((own / "config.json").read_text())
    about |= {
        "model_type": "own-text",
        "auto_map": {"AutoConfig": "own_text.OwnConfig", "AutoModel": "own_text.OwnModel"},
    }
    (own / "config.json").write_text(json.dumps(about))
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))
    monkeypatch.setattr(sys, "path", list(sys.path))
    before = set(sys.modules)
    with pytest.raises(GivenError, match="trust_remote_code=True"):
        open_text(str(own))
    assert not any("own_text" in name for name in set(sys.modules) - before)
    encoder = open_text(str(own), trust_remote_code=True)
    assert type(encoder.encoder).__name__ == "OwnModel"
    with torch.no_grad():
        assert encoder(*encoder.tokenise(TEXTS)).x_BTD.shape == (4, MOST_TOKENS, 16)


@pytest.mark.parametrize(("family", "int8"), [("bert", True), ("xlm-roberta", True), ("jina", False), ("jina", True)])
def test_the_file_for_a_cpu_has_the_seam_and_stays_near(made, family, int8, tmp_path):
    encoder = open_text(str(made[family][0]), layers=(1, 2))
    quantise(encoder, tmp_path, int8)
    played = OnnxEncoder(tmp_path)
    ids_BL, length_B = played.tokenise(TEXTS)
    assert torch.equal(ids_BL, encoder.tokenise(TEXTS)[0])
    with torch.no_grad():
        expected = encoder(ids_BL, length_B)
    got = played(ids_BL, length_B)
    assert (played.width, played.most_tokens) == (16, MOST_TOKENS)
    assert got.length_B.tolist() == length_B.tolist()
    assert (got.x_BTD - expected.x_BTD).norm() < (0.02 if int8 else 1e-5) * expected.x_BTD.norm()


def test_wrong_wishes_are_refused(made, tmp_path):
    with pytest.raises(GivenError, match="dtype must be one of"):
        open_text(str(made["bert"][0]), dtype="half")
    transformers.HubertConfig().save_pretrained(tmp_path)
    with pytest.raises(GivenError, match=r"'hubert' checkpoint.*bert, jina_embeddings_v3, xlm-roberta"):
        open_text(str(tmp_path))
