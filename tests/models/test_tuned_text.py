"""A pretrained text encoder within a system: what of it learns, how fast, and what is written of it."""

import gzip

import pytest
import tiny

transformers = pytest.importorskip("transformers", reason="needs the train extra")
import torch  # noqa: E402
from trials import Quiet  # noqa: E402

from clser.models import plan, runs, saved  # noqa: E402
from clser.models.encoders.text import tokeniser  # noqa: E402
from clser.models.errors import GivenError  # noqa: E402
from clser.models.live import live  # noqa: E402
from clser.models.optimise import optimiser_of, set_rate  # noqa: E402
from clser.models.systems import WORDS, build  # noqa: E402
from clser.models.tensors import Sequences, leaves  # noqa: E402
from clser.models.train import Running, StoppedError  # noqa: E402
from clser.models.words_now import Texts  # noqa: E402
from clser.models.zoo.mpaf_net import MFCC  # noqa: E402

pytestmark = pytest.mark.torch

HEADS = ("anger", "disgust", "fear", "happiness", "neutral", "sadness", "surprise")
SMALL = {"width": 12, "speech_hidden": 9, "balance_hidden": 8, "hidden": 16, "faces": 0}


@pytest.fixture
def bert(tmp_path):
    """A BERT of four layers that knows a few words."""
    marks = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "oh", "no", "why", "did", "you", "say", "that"]
    tokenizer = transformers.BertTokenizer(vocab={word: n for n, word in enumerate(marks)})
    config = transformers.BertConfig(
        hidden_size=16, num_attention_heads=2, intermediate_size=24, num_hidden_layers=4, vocab_size=len(marks)
    )
    for part in (transformers.BertForMaskedLM(config), tokenizer):
        part.save_pretrained(tmp_path / "bert")
    return tmp_path / "bert"


def test_a_text_encoder_trained_along_learns_in_its_last_layers_at_a_tenth_of_the_rate(bert, tmp_path):
    net = build("mpaf_net", {**SMALL, "words": f"hub:{bert}"}, HEADS).train()
    assert (net.words, net.pretrained) == (f"tuned:{bert}", ("words_encoder",))
    ids_BL, length_B = tokeniser(net.words)(["why did you say that", "oh no", "you " * 200])
    assert length_B.tolist() == [7, 4, 128]
    made = {MFCC: Sequences(torch.randn(3, 10, 40), torch.tensor([10, 6, 4])), WORDS: Sequences(ids_BL, length_B)}
    before = {name: part.clone() for name, part in net.named_parameters()}
    optimiser = optimiser_of(net, plan.Optimiser(learning_rate=1e-3, pretrained_rate=0.1))
    set_rate(optimiser, 1e-3)
    assert sorted({group["lr"] for group in optimiser.param_groups}) == pytest.approx([1e-4, 1e-3])
    logits, _ = net(made, net.start(3), torch.tensor([[4], [2], [1]]))
    torch.nn.functional.cross_entropy(logits[:, 0], torch.tensor([0, 3, 6])).backward()
    optimiser.step()
    moved = {name for name, part in net.named_parameters() if not torch.equal(part, before[name])}
    inside = {name for name in moved if name.startswith("words_encoder")}
    assert inside and all(".layer.2." in name or ".layer.3." in name for name in inside)
    # what learnt is saved, the rest comes from the checkpoint
    about = saved.Trained(system="mpaf_net", settings={**SMALL, "words": f"hub:{bert}"}, heads=HEADS)
    again, _ = saved.load(saved.save(tmp_path / "out", net.eval(), about))
    assert {name for name in net.state_dict() if name.startswith("words_encoder")} <= set(before) - (
        set(before) - inside
    )
    with torch.no_grad():
        assert torch.equal(again(made, again.start(3))[0], net(made, net.start(3))[0])


def test_live_it_takes_texts_and_is_not_written_as_onnx(bert):
    net = build("mpaf_net", {**SMALL, "words": f"hub:{bert}"}, HEADS).eval()
    running = live(net)
    pcm, frames = 0.1 * torch.randn(2, 9 * 640), torch.tensor([9, 6])
    with torch.no_grad():
        silent = running.answer(running.hear(pcm, frames))
        said = running.answer({**running.hear(pcm, frames), WORDS: Texts(net.words)(["oh no", ""])})
        assert torch.allclose(said[1], silent[1], atol=1e-6) and not torch.allclose(said[0], silent[0], atol=1e-4)
    arguments = (pcm, frames, *leaves(running.start(2)))
    with pytest.raises(GivenError, match=r"bert.*torch"), pytest.warns():
        torch.jit.trace(running, arguments)


def test_a_run_with_it_is_stopped_goes_on_and_is_told_what_is_not_exported(bert, tmp_path):
    corpora = tiny.corpora(tmp_path / "corpora", names=("one",), speakers=4, each=2, seconds=0.6)
    (corpora / "text_said").mkdir()
    said = {"anger": "why did you say that", "neutral": "you say", "sadness": "oh no"}
    with gzip.open(corpora / "text_said" / "texts.csv.gz", "wt", encoding="utf-8") as out:
        out.write("corpus,language,split,text,emotion,native_label\n")
        for split in ("train", "dev"):
            out.writelines(f"said,en,{split},{text} {split},{emotion},\n" for emotion, text in said.items())
    values = {
        "system": "mpaf_net", "settings": {**SMALL, "words": f"hub:{bert}"}, "corpora": ["one"], "texts": ["said"],
        "takes": {"count": 0, "clean": True}, "folds": {"validation": 0.3}, "sampling": {"rows_per_epoch": 24, "batch": 8},
        "optimiser": {"epochs": 2, "learning_rate": 1e-2, "pretrained_rate": 0.1},
    }  # fmt: skip
    asked, found = plan.from_values(values, "a test"), {}
    for name, stops in (("whole", ()), ("stopped", (2, 4))):
        out = tmp_path / name
        for stop in (*stops, 99):
            watcher, steps = Quiet(), iter(range(1, 99))
            prepared = runs.prepare(asked, corpora, tmp_path / "cache", watcher)
            running = Running(stop=lambda: next(steps) == stop)  # noqa: B023 (asked before the loop goes on)
            try:
                runs.fit(prepared, out, watcher, resume=True, running=running)
            except StoppedError:
                continue
        found[name] = saved.about_of(out).digest
        assert any("no model.onnx" in line and "backend=torch" in line for line in watcher.lines)
    assert found["whole"] == found["stopped"]
