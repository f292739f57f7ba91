"""Pretrained text encoders: XLM-R, BERT, Jina v3 and CANINE, from a folder or the hub's local cache.

Letters: B rows, L tokens, D width, R rank of an adapter.

A row's answer never depends on its company in the batch, and equals what `transformers` gives for that text alone.
"""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from clser.models.encoders.found import adapter_tensors, checkpoint, load, package, settings
from clser.models.encoders.layers_of import Choice, Layers, Reader
from clser.models.encoders.pretrained_speech import DTYPES
from clser.models.errors import GivenError
from clser.models.tensors import Sequences, real

CHARACTERS = "canine"
NATIVE = ("bert", "jina_embeddings_v3", "xlm-roberta", CHARACTERS)
MOST_TOKENS = 95  # what the bimodal systems read of an utterance, its two marks included
MOST_CHARACTERS = 329  # the same of an encoder whose tokens are characters
LORA = re.compile(r"(?:base_model\.model\.)?(.+)\.lora_(A|B|embedding_A|embedding_B)(?:\.weight)?")


class PretrainedText(Reader):
    """ids_BL and length_B -> `Sequences`: one vector for each token, marks at both ends included."""

    def __init__(self, model: Any, tokenizer: Any, choice: Choice, most_tokens: int = MOST_TOKENS) -> None:
        super().__init__(model, _stack(model), model.config.hidden_size, choice)
        positions = model.config.max_position_embeddings - (2 if model.config.model_type == "xlm-roberta" else 0)
        if not 3 <= most_tokens <= positions:
            raise GivenError(f"most_tokens must be 3 to {positions} for this encoder, not {most_tokens}")
        self.tokenizer, self.most_tokens = tokenizer, most_tokens
        # XLM-R counts positions by which tokens are no padding, so the padding must be its own.
        self.padding_id = int(model.config.pad_token_id or 0)

    def forward(self, ids_BL: Tensor, length_B: Tensor) -> Sequences:
        real_BL = real(length_B, ids_BL.shape[1])
        ids_BL = torch.where(real_BL, ids_BL, self.padding_id)
        seen_BL = real(length_B.clamp_min(1), ids_BL.shape[1]).long()  # attention needs something to look at
        hidden = self.numbers is not None
        told = self.encoder(input_ids=ids_BL, attention_mask=seen_BL, output_hidden_states=hidden)
        return self.fused(told.last_hidden_state, told.hidden_states if hidden else (), length_B)

    def tokenise(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """ids [B, L] and their lengths [B], each text cut to `most_tokens`. An empty text still has its two marks."""
        return tokenise(self.tokenizer, texts, self.most_tokens, self.padding_id)


class CharacterText(PretrainedText):
    """CANINE: each character is a token. It pools them by fours, and what is left over depends on how long a row is."""

    def __init__(self, model: Any, tokenizer: Any, choice: Choice, most_tokens: int = MOST_CHARACTERS) -> None:
        if choice.layers != "last":
            raise GivenError(
                f"layers {choice.layers!r}: CANINE's lie at unlike places of a text; there is 'last' alone"
            )
        super().__init__(model, tokenizer, choice, most_tokens)
        self.least = int(model.config.downsampling_rate)

    def forward(self, ids_BL: Tensor, length_B: Tensor) -> Sequences:
        """Rows of one length together: in longer company a row would end otherwise."""
        if torch.jit.is_tracing():
            raise GivenError("CANINE cannot be written as a graph: it is run length by length. Open it with torch")
        x_BLD = torch.zeros(*ids_BL.shape, self.width, device=ids_BL.device)
        for length in sorted({int(n) for n in length_B} - {0}):
            these_B = length_B == length
            missing = max(0, self.least - length)  # fewer than one pool takes
            alone_BL = functional.pad(ids_BL[these_B, :length], (0, missing))
            x_BLD[these_B, :length] = super().forward(alone_BL, length_B[these_B]).x_BTD[:, :length]
        return Sequences(x_BLD, length_B)


def tokenise(tokenizer: Any, texts: Sequence[str], most_tokens: int, padding_id: int) -> tuple[Tensor, Tensor]:
    """As `PretrainedText.tokenise`, for whoever holds a tokenizer of the library."""
    if isinstance(texts, str):
        raise GivenError("tokenise takes a list of texts, not one text: put it into a list")
    rows = [tokenizer(text, truncation=True, max_length=most_tokens)["input_ids"] for text in texts]
    ids_BL = torch.full((len(rows), max(map(len, rows), default=0)), padding_id, dtype=torch.int64)
    for row, ids in enumerate(rows):
        ids_BL[row, : len(ids)] = torch.tensor(ids)
    return ids_BL, torch.tensor([len(ids) for ids in rows], dtype=torch.int64)


def open_text(
    name: str,
    *,
    layers: Layers = "last",
    fusion: str = "mean",
    trainable_layers: int = 0,
    dtype: str = "float32",
    most_tokens: int | None = None,
    task: str | None = None,
    trust_remote_code: bool = False,
) -> PretrainedText:
    """A pretrained text encoder by folder or hub name, frozen but for its last `trainable_layers`. Downloads nothing.

    `layers`, `fusion`, `trainable_layers`: see `Choice`. `most_tokens`: 95 unless given, 329 of an encoder of characters.
    `task`: the LoRA adapter of that name within the checkpoint (Jina v3), added to the weights. `trust_remote_code` runs
    Python that lies in the checkpoint's folder: say so only of a folder whose code you have read.
    """
    if dtype not in DTYPES:
        raise GivenError(f"dtype must be one of {', '.join(DTYPES)}, not {dtype!r}")
    folder = checkpoint(name)
    options = _how_loaded(name, settings(folder), trust_remote_code)
    model = load(package("transformers").AutoModel, folder, dtype=DTYPES[dtype], **options)
    if task is not None:
        add_adapter(model, folder / task.replace(".", "_").replace("-", "_"), task)
    tokenizer = open_tokenizer(folder, options.get("trust_remote_code", False))
    choice = Choice(layers, fusion, trainable_layers)
    if settings(folder).get("model_type") == CHARACTERS:
        return CharacterText(model, tokenizer, choice, most_tokens or MOST_CHARACTERS)
    return PretrainedText(model, tokenizer, choice, most_tokens or MOST_TOKENS)


def _how_loaded(name: str, about: dict[str, Any], trust_remote_code: bool) -> dict[str, Any]:
    """What the library is told beside the folder."""
    family = about.get("model_type")
    if "AutoModel" in about.get("auto_map", {}):
        if not trust_remote_code:
            raise GivenError(
                f"{name} brings Python of its own, which is not run unless you say trust_remote_code=True. "
                "For Jina v3 there is jinaai/jina-embeddings-v3-hf, which needs none"
            )
        return {"trust_remote_code": True}
    if family not in NATIVE:
        raise GivenError(f"{name} is a {family!r} checkpoint; the text encoders known here are {', '.join(NATIVE)}")
    return {"add_pooling_layer": False}  # unused here, and missing from checkpoints of language models


def open_tokenizer(folder: Path, trust_remote_code: bool = False) -> Any:
    """The tokenizer that lies beside a checkpoint."""
    library = package("transformers")
    try:
        return library.AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=trust_remote_code)
    except (OSError, ValueError) as error:
        raise GivenError(f"the tokenizer in {folder} cannot be loaded: {error}. Pull the checkpoint again") from error


def add_adapter(model: nn.Module, folder: Path, task: str) -> None:
    """W + scale * B A for each weight that a LoRA adapter knows (Hu et al. 2021, eq. 3): no cost while running."""
    if not folder.is_dir():
        known = sorted(path.parent.name for path in folder.parent.glob("*/adapter_config.json"))
        raise GivenError(
            f"there is no adapter {task!r} in {folder.parent}; those there are: {', '.join(known) or 'none'}"
        )
    about, tensors = adapter_tensors(folder)
    for unknown in ("use_dora", "rank_pattern", "alpha_pattern"):
        if about.get(unknown):
            raise GivenError(
                f"the adapter in {folder} uses {unknown}, which is not supported: merge it with peft first"
            )
    scale = about["lora_alpha"] / (about["r"] ** 0.5 if about.get("use_rslora") else about["r"])
    parts: dict[str, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        match = LORA.fullmatch(name)
        if match is None:
            raise GivenError(f"the adapter in {folder} holds {name}, which is no LoRA: merge it with peft first")
        parts.setdefault(match[1], {})[match[2]] = tensor.float()
    with torch.no_grad():
        for name, pair in parts.items():
            try:
                weight = model.get_submodule(name).weight
            except AttributeError as error:
                raise GivenError(
                    f"the adapter in {folder} is for another model: there is no {name} in this one"
                ) from error
            # An embedding's table lies the other way round.
            change = pair["B"] @ pair["A"] if "A" in pair else (pair["embedding_B"] @ pair["embedding_A"]).T
            weight.add_((scale * change).to(weight.dtype))


def _stack(model: Any) -> nn.ModuleList:
    """The encoder's layers, wherever its family keeps them."""
    for path in ("encoder.layer", "layers", "encoder.layers", "roberta.encoder.layers", "roberta.encoder.layer"):
        try:
            found = model.get_submodule(path)
        except AttributeError:
            continue
        if isinstance(found, nn.ModuleList):
            return found
    raise GivenError(f"the layers of a {type(model).__name__} cannot be told: give a checkpoint of {', '.join(NATIVE)}")
