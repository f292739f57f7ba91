"""ExHuBERT (Amiriparian et al. 2024): a large HuBERT whose every layer stands twice, the copy behind linear layers.

The copies were put in so that at first they changed nothing: linear layers begun at zero, beside straight ways. Its
checkpoint comes with Python of its own, which is never run here. The library's HuBERT takes the 48 layers as they are
numbered in the file; what they hold beside HuBERT's own tensors are the linear layers:

    two in a layer   behind its attention and behind its feed-forward part, in the file's order
    one in a layer   behind the whole layer, whose result is then added to what went in; still all zeros: never used

The published file has room for 48 of them, with biases (2,673,871,413 bytes against HuBERT-large's 1,262,951,477: 24 more
layers, 50.4 million numbers). Both ways fill it; which one it is, its own tensors say.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from clser.models.encoders.found import load, settings
from clser.models.errors import GivenError

NAME = "ExHuBERT"
OWN = re.compile(r"(?:hubert\.)?encoder\.layers\.(\d+)\.(.+)")


class Behind(nn.Module):  # type: ignore[misc]  # torch is not followed: Module is Any
    """What an attention says, through one more linear layer."""

    def __init__(self, attention: nn.Module, added: nn.Linear) -> None:
        super().__init__()
        self.attention, self.added = attention, added

    def forward(self, *given: Any, **named: Any) -> tuple[Any, ...]:
        heard_BTD, *rest = self.attention(*given, **named)
        return (self.added(heard_BTD), *rest)


def is_extended(folder: Path) -> bool:
    """Whether a HuBERT's checkpoint says that it is one of these."""
    return NAME in settings(folder).get("architectures", ())


def open_extended(library: Any, folder: Path, dtype: torch.dtype) -> Any:
    """The library's HuBERT with the added linear layers in place."""
    model = load(library.HubertModel, folder, dtype=dtype)
    known = {name for name, _ in model.encoder.layers[0].named_parameters()}
    added: dict[int, dict[str, Tensor]] = {}
    for name, tensor in _tensors(folder):
        own = OWN.fullmatch(name)
        if own is not None and own[2] not in known:
            added.setdefault(int(own[1]), {})[own[2]] = tensor.to(dtype)
    if not added:
        raise GivenError(f"{folder} says that it is an {NAME}, but its layers hold nothing beside HuBERT's own tensors")
    for number, tensors in added.items():
        linears = list(_linears(tensors, model.config.hidden_size, f"{folder}, layer {number}"))
        _extend(model.encoder.layers[number], linears, f"{folder}, layer {number}")
    return model.eval()


def _linears(tensors: dict[str, Tensor], width: int, where: str) -> Iterator[nn.Linear]:
    """In the order of their weights in the file."""
    weights = [name for name in tensors if name.endswith(".weight")]
    biases = {f"{name.removesuffix('.weight')}.bias" for name in weights}
    strange = sorted(set(tensors) - {*weights, *biases})
    strange += [name for name in weights if tensors[name].shape != (width, width)]
    if strange:
        raise GivenError(f"{where}: {strange[0]} is no linear layer of {width} channels; this is another {NAME}")
    for name in weights:
        bias = tensors.get(f"{name.removesuffix('.weight')}.bias")
        linear = nn.Linear(width, width, bias is not None, dtype=tensors[name].dtype)
        linear.weight.data.copy_(tensors[name])
        if bias is not None:
            linear.bias.data.copy_(bias)
        yield linear


def _extend(layer: Any, linears: list[nn.Linear], where: str) -> None:
    if len(linears) == 2:
        layer.attention = Behind(layer.attention, linears[0])
        layer.feed_forward = nn.Sequential(layer.feed_forward, linears[1])
    elif len(linears) == 1:
        if any(parameter.any() for parameter in linears[0].parameters()):
            layer.added = linears[0]
            # The library tells hidden states by the class of what gives them, so it must stay a kind of that class.
            layer.__class__ = _beside(type(layer))
    else:
        raise GivenError(f"{where}: {len(linears)} linear layers were added; one or two can be told apart")


def _beside(kind: type) -> type:
    """That kind of layer, what it makes behind `added` and beside a straight way."""

    def forward(self: Any, hidden_states: Tensor, *given: Any, **named: Any) -> Tensor:
        made: Tensor = self.added(kind.forward(self, hidden_states, *given, **named))  # type: ignore[attr-defined]
        return hidden_states + made

    return type(f"Added{kind.__name__}", (kind,), {"forward": forward})


def _tensors(folder: Path) -> Iterator[tuple[str, Tensor]]:
    """All of a checkpoint's, by name, as its files have them."""
    for index in ("model.safetensors.index.json", "pytorch_model.bin.index.json"):
        if told := settings(folder, index):
            files = list(dict.fromkeys(told["weight_map"].values()))
            break
    else:
        files = [name for name in ("model.safetensors", "pytorch_model.bin") if (folder / name).is_file()][:1]
    for name in files:
        path = folder / name
        if path.suffix == ".safetensors":
            yield from load_file(path).items()
        else:
            yield from torch.load(path, weights_only=True, mmap=True, map_location="cpu").items()
