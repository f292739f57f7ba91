"""Where checkpoints are looked for, what is said when there is none, and the one place that downloads."""

import inspect
import json
import os
import socket
import subprocess
import sys
from dataclasses import dataclass

import pytest

huggingface_hub = pytest.importorskip("huggingface_hub", reason="needs the train extra")
transformers = pytest.importorskip("transformers", reason="needs the train extra")

import torch  # noqa: E402

from clser.models.encoders import found  # noqa: E402
from clser.models.encoders.pretrained_speech import open_speech  # noqa: E402
from clser.models.encoders.pretrained_text import open_text  # noqa: E402
from clser.models.encoders.pull import needed, pull  # noqa: E402
from clser.models.errors import FailedError, GivenError, MissingError  # noqa: E402

pytestmark = pytest.mark.torch


@pytest.fixture(autouse=True)
def _no_network(monkeypatch, tmp_path):
    def refuse(*_, **__):
        raise AssertionError("the network was asked")

    monkeypatch.setattr(socket, "socket", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))


@pytest.mark.parametrize("opened", [open_speech, open_text])
def test_a_name_that_is_not_here_says_how_to_get_it(opened):
    with pytest.raises(
        MissingError, match=r"facebook/hubert-base-ls960.*`clser-models pull facebook/hubert-base-ls960`"
    ):
        opened("facebook/hubert-base-ls960")


@pytest.mark.parametrize("name", ["./nothing", "/nothing/here", "a/b/c"])
def test_a_folder_that_is_not_there(name):
    with pytest.raises(MissingError, match="there is no folder"):
        open_speech(name)


def test_a_folder_without_a_checkpoint_and_names_that_are_none(tmp_path):
    with pytest.raises(GivenError, match=r"no config\.json"):
        open_speech(str(tmp_path))
    with pytest.raises(GivenError, match="neither a folder nor a name"):
        open_speech("what is this")
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(GivenError, match="is no JSON"):
        open_speech(str(tmp_path))
    (tmp_path / "config.json").write_text("[]")
    with pytest.raises(GivenError, match="holds no settings"):
        open_speech(str(tmp_path))


def test_settings_without_weights(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "hubert"}))
    with pytest.raises(MissingError, match="has no weights"):
        open_speech(str(tmp_path))


def test_tensor_names_of_every_format(tmp_path):
    torch.save({"a": torch.zeros(2)}, tmp_path / "pytorch_model.bin")
    assert found.tensor_names(tmp_path) == {"a"}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"b": "1", "c": "2"}}))
    assert found.tensor_names(tmp_path) == {"b", "c"}


def test_a_name_in_the_cache_opens_without_the_network(tmp_path):
    snapshot = tmp_path / "hub" / "models--some--thing" / "snapshots" / "0123"
    snapshot.mkdir(parents=True)
    size = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1, "intermediate_size": 8, "vocab_size": 5}
    transformers.BertModel(transformers.BertConfig(**size)).save_pretrained(snapshot)
    words = {word: n for n, word in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"])}
    transformers.BertTokenizer(vocab=words).save_pretrained(snapshot)
    refs = tmp_path / "hub" / "models--some--thing" / "refs"
    refs.mkdir()
    (refs / "main").write_text("0123")
    assert found.checkpoint("some/thing") == snapshot
    assert open_text("some/thing").tokenise(["what"])[1].tolist() == [3]


def test_without_the_package_it_says_what_to_install(tmp_path, monkeypatch):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "hubert"}))
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(MissingError, match=r"transformers.*pip install 'clser-stream\[train\]'"):
        open_speech(str(tmp_path))


HUBERT = ["config.json", "preprocessor_config.json", "README.md", ".gitattributes", "pytorch_model.bin", "tf_model.h5"]


@pytest.mark.parametrize(
    ("files", "wanted"),
    [
        (HUBERT, ["README.md", "config.json", "preprocessor_config.json", "pytorch_model.bin"]),
        (
            ["config.json", "model.safetensors", "model.fp32-00001-of-00002.safetensors", "pytorch_model.bin", "vocab.txt"],
            ["config.json", "model.safetensors", "vocab.txt"],
        ),
        (
            ["config.json", "model-00001-of-00002.safetensors", "model.safetensors.index.json", "pytorch_model.bin.index.json"],
            ["config.json", "model-00001-of-00002.safetensors", "model.safetensors.index.json"],
        ),
        (
            ["config.json", "onnx/model.onnx", "separation/adapter_model.safetensors", "separation/adapter_config.json",
             "model.safetensors", "sentencepiece.bpe.model", "1_Pooling/config.json"],
            ["config.json", "model.safetensors", "sentencepiece.bpe.model", "separation/adapter_config.json",
             "separation/adapter_model.safetensors"],
        ),
    ],
)  # fmt: skip
def test_only_what_an_encoder_opens_is_fetched(files, wanted):
    assert needed(files) == wanted


def test_python_is_fetched_only_if_asked_for():
    files = ["config.json", "model.safetensors", "modeling.py", "deep/er.py"]
    assert needed(files) == ["config.json", "model.safetensors"]
    assert needed(files, with_code=True) == ["config.json", "model.safetensors", "modeling.py"]


@dataclass
class Listed:
    filename: str
    file_size: int
    will_download: bool = True


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """A hub of one repository; what it was asked for."""
    asked = []
    real = inspect.signature(huggingface_hub.snapshot_download)

    def snapshot_download(*args, **options):
        asked.append(real.bind(*args, **options).arguments)  # fails as the real one would on an unknown argument
        if options.get("dry_run"):
            return [Listed(name, 1_500_000) for name in HUBERT]
        return str(options.get("local_dir") or tmp_path)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    return asked


def test_pull_fetches_what_is_needed_and_tells_of_it(hub, tmp_path):
    told = []
    assert pull("facebook/hubert-base-ls960", report=told.append) == tmp_path
    assert hub[0]["dry_run"]
    assert hub[1]["repo_id"] == "facebook/hubert-base-ls960"
    assert hub[1]["allow_patterns"] == needed(HUBERT)
    assert told[0] == "facebook/hubert-base-ls960: 4 of 4 files to fetch, 6.0 MB"
    assert pull("facebook/hubert-base-ls960", tmp_path / "mine", revision="abc") == tmp_path / "mine"
    assert hub[3]["revision"] == "abc"


def test_what_a_dry_run_lists_has_the_fields_that_are_read():
    fields = huggingface_hub.DryRunFileInfo.__dataclass_fields__
    assert {"filename", "file_size", "will_download"} <= set(fields)


def test_a_repository_without_weights_is_refused_before_anything_is_fetched(hub, monkeypatch):
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda *_, **__: [Listed("README.md", 3)])
    with pytest.raises(GivenError, match="no checkpoint"):
        pull("some/notes")


@pytest.mark.parametrize(
    ("raised", "expected"),
    [
        ("LocalEntryNotFoundError", FailedError),
        ("HFValidationError", GivenError),
        ("OfflineModeIsEnabled", FailedError),
    ],
)
def test_a_pull_that_fails_says_why(monkeypatch, raised, expected):
    def fail(*_, **__):
        raise getattr(huggingface_hub.errors, raised)("because")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fail)
    with pytest.raises(expected):
        pull("some/thing")


def test_without_a_connection_it_says_so_in_a_process_that_knows_no_hub_yet(tmp_path):
    said = "from clser.models.encoders.pull import pull\ntry: pull('some/thing')\nexcept Exception as e: print(type(e).__name__, e)"
    known = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path)}
    ran = subprocess.run([sys.executable, "-c", said], capture_output=True, text=True, check=True, env=known)
    assert ran.stdout.startswith("FailedError some/thing could not be fetched"), ran.stdout
