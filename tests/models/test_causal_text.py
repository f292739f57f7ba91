"""A causal language model as a source of soft labels: as likely as its own loss says, alone or in company, asked once."""

import json

import numpy as np
import pytest

pytest.importorskip("transformers", reason="needs the train extra")

import torch
import transformers

from clser.models.data.soft_labels import Asked, ask, open_source
from clser.models.encoders import causal_text
from clser.models.errors import GivenError, MissingError
from clser.models.plan import SoftLabels

pytestmark = pytest.mark.torch
HEADS = ("anger", "happiness", "sadness")
ROWS = [Asked("the cat sat", "", ("anger",)), Asked("oh no why did you say that, of all things", "", ("sadness",))]
TALK = "{% for m in messages %}<u>{{ m['content'] }}</u>{% endfor %}{% if add_generation_prompt %}<a>{% endif %}"


@pytest.fixture(scope="module", params=["gpt2", "llama"])
def folder(request, tmp_path_factory):
    """Random weights and a tokenizer of bytes, saved as real ones are."""
    tokenizers = pytest.importorskip("tokenizers", reason="needs the train extra")
    path = tmp_path_factory.mktemp(request.param)
    alphabet = sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {sign: n for n, sign in enumerate(["<end>", *alphabet, "an", "ang", "er", "Ġa"])}
    made = tokenizers.Tokenizer(
        tokenizers.models.BPE(vocab=vocabulary, merges=[("a", "n"), ("an", "g"), ("e", "r"), ("Ġ", "a")])
    )
    made.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = tokenizers.decoders.ByteLevel()
    transformers.PreTrainedTokenizerFast(tokenizer_object=made, eos_token="<end>").save_pretrained(path)
    torch.manual_seed(0)
    if request.param == "gpt2":
        config = transformers.GPT2Config(
            vocab_size=len(vocabulary), n_embd=16, n_layer=2, n_head=2, n_positions=1024, bos_token_id=0, eos_token_id=0
        )
        model = transformers.GPT2LMHeadModel(config)
    else:
        config = transformers.LlamaConfig(
            vocab_size=len(vocabulary),
            hidden_size=16,
            intermediate_size=24,
            num_hidden_layers=2,
            num_attention_heads=2,
            bos_token_id=0,
            eos_token_id=0,
        )
        model = transformers.LlamaForCausalLM(config)
    with torch.no_grad():
        for weight in model.parameters():
            weight.mul_(4.0)  # or all classes would be alike
    model.save_pretrained(path)
    return path


def opened(folder, cache, **how):
    return open_source(SoftLabels(source=f"llm:{folder}", **how), cache, lambda line: None)


def test_a_class_is_as_likely_as_the_models_own_loss_says(folder, tmp_path):
    source = opened(folder, tmp_path)
    prompt = source.prompt(ROWS[0], HEADS)
    assert prompt.endswith("Emotion:")
    log_H = source.log_likelihoods([prompt], HEADS)[0]
    for head, log in zip(HEADS, log_H, strict=True):
        ids = torch.tensor([source.tokenizer(f"{prompt} {head}")["input_ids"]])
        begin = len(source.tokenizer(prompt)["input_ids"])
        labels = ids.clone()
        labels[:, :begin] = -100
        with torch.no_grad():
            loss = source.model(input_ids=ids, labels=labels).loss
        assert log == pytest.approx(-float(loss) * (ids.shape[1] - begin), rel=1e-4)


def test_a_row_is_answered_alike_in_any_company(folder, tmp_path):
    source = opened(folder, tmp_path)
    prompts = [source.prompt(row, HEADS) for row in ROWS]
    both = source.log_likelihoods(prompts, HEADS)
    alone = np.concatenate([source.log_likelihoods([prompt], HEADS) for prompt in prompts])
    assert both == pytest.approx(alone, rel=1e-5)


def test_a_prompt_tells_the_label_or_does_not(folder, tmp_path):
    told, untold = (opened(folder, tmp_path, told=told) for told in (True, False))
    assert "heard anger most of all" in told.prompt(ROWS[0], HEADS)
    assert untold.prompt(ROWS[0], HEADS) == untold.prompt(ROWS[0]._replace(emotions=("sadness",)), HEADS)
    assert told.kept != untold.kept


def test_rows_sum_to_one_and_a_temperature_softens_them(folder, tmp_path):
    asked = [*ROWS, Asked("", "a.wav", ("anger",))]
    said = ask(opened(folder, tmp_path), asked, HEADS)
    assert said[:2].sum(1) == pytest.approx(np.ones(2))
    assert np.isnan(said[2]).all()
    soft = ask(opened(folder, tmp_path, temperature=50.0), asked, HEADS)
    assert (soft[:2].max(1) < said[:2].max(1)).all()


def test_what_was_asked_once_is_kept_even_if_a_run_was_killed(folder, tmp_path, monkeypatch):
    source = opened(folder, tmp_path)
    said = source(ROWS, HEADS)
    source.kept.write_text(source.kept.read_text().strip()[:-9])  # torn in its second line
    calls = []
    whole = causal_text.CausalText.log_likelihoods
    monkeypatch.setattr(
        causal_text.CausalText,
        "log_likelihoods",
        lambda self, prompts, heads: calls.append(len(prompts)) or whole(self, prompts, heads),
    )
    again = opened(folder, tmp_path)
    for _ in range(2):
        assert again(ROWS, HEADS) == pytest.approx(said)
    assert calls == [1]
    good = [line for line in source.kept.read_text().splitlines() if line]
    assert [json.loads(line)["key"] for line in (good[0], good[-1])]


def test_models_that_talk_are_asked_in_their_form(folder, tmp_path):
    source = opened(folder, tmp_path)
    source.tokenizer.chat_template = TALK
    prompt = source.prompt(ROWS[0], HEADS)
    assert prompt.startswith("<u>Somebody says: the cat sat")
    assert prompt.endswith("</u><a>Emotion:")
    assert np.isfinite(source.log_likelihoods([prompt], HEADS)).all()


def test_a_long_text_is_cut_and_still_answered(folder, tmp_path):
    source = opened(folder, tmp_path)
    said = source([Asked("no " * 4000, "", ("anger",))], HEADS)
    assert np.isfinite(said).all()


def test_other_checkpoints_are_refused(folder, tmp_path):
    other = tmp_path / "bert"
    transformers.BertConfig(architectures=["BertModel"]).save_pretrained(other)
    with pytest.raises(GivenError, match="no causal language model"):
        opened(other, tmp_path)
    with pytest.raises(MissingError, match="there is no folder"):
        opened(tmp_path / "nothing", tmp_path)
