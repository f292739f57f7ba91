"""The default text network: what each collection of texts has learnt to hear in words, and what they say together.

Letters: B texts, L words, G grams, N = LG, C classes of a collection, E collections, F numbers they say, D numbers of a
text, H heads.

    words -> grams and pairs of words -> a linear layer a collection, over its own grams -> an answer for each, and
                                      -> a linear layer that tells from which one a text may be ^     their shares

A collection's labels are its makers': whoever trains one layer on all of them gets none right. So each has its own, and
the last layers weigh them by what kind of text this is: as far as its words give that away, or as somebody says who
knows it (`kind_BE`).
"""
# ruff: noqa: N815 (shapes stand in the names of tensors)

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import torch
from msgspec import Meta, Struct, field
from torch import Tensor, nn

from clser.models.features.constants import FRAME_SAMPLES
from clser.models.layers.hashed import Found
from clser.models.systems import WORDS, About, Streams
from clser.models.tensors import Sequences

if TYPE_CHECKING:
    from clser.models.runs import Prepared
    from clser.models.train import Running, Watcher

ABOUT = About("The default text network: hashed grams, a layer a collection of texts", "docs/systems.md")
KNOWN = 3.0
"""What a known kind counts beside numbers of deviation 1."""
Buckets = Annotated[int, Meta(ge=16, le=2**20)]
COLLECTIONS = {
    "text_meld": 2**15,
    "text_emorynlp": 2**14,
    "text_dailydialog_reccon": 2**14,
    "text_goemotions": 2**16,
    "text_brighter": 3 * 2**16,
    "text_xed": 2**17,
}


class Config(Struct, frozen=True, forbid_unknown_fields=True):
    """Every choice. The collections are those of the plan's `texts`, in this order."""

    collections: dict[str, Buckets] = field(default_factory=COLLECTIONS.copy)
    """Each with its number of buckets."""
    kinds: Buckets = 2**15
    """Those of the layer that tells collections apart."""
    width: Annotated[int, Meta(ge=1, le=64)] = 48
    """Numbers of a text beside its answer."""
    hidden: Annotated[int, Meta(ge=1)] = 96
    drop: Annotated[float, Meta(ge=0, lt=1)] = 0.1
    strength: Annotated[float, Meta(gt=0)] = 4.0
    """Of the linear layers: one over what a weight's square costs, as in scikit-learn."""
    rounds: Annotated[int, Meta(ge=1)] = 8
    """Of ten L-BFGS steps, for each linear layer."""
    epochs: Annotated[int, Meta(ge=1)] = 6
    """Of the last layers."""
    learning_rate: Annotated[float, Meta(gt=0)] = 4e-3
    batch: Annotated[int, Meta(ge=1)] = 1024
    smoothing: Annotated[float, Meta(ge=0, lt=1)] = 0.02
    told: Annotated[float, Meta(ge=0, le=1)] = 0.5
    """How often the kind of a text is known in training."""
    balance: Annotated[float, Meta(ge=0, le=1)] = 0.6
    """0: texts count alike in the last layers; 1: collections do."""


class Told(NamedTuple):
    """What is known of a text."""

    logits_BH: Tensor
    vector_BD: Tensor


class Words(nn.Module):  # type: ignore[misc]  # torch is not followed: Module is Any
    """The text so far to one answer. It keeps nothing: all words are given every time.

    The linear layers are no parameters: they are found once by `fit`, whatever is trained on top of them.
    """

    streams: Streams = "end"
    fronts: tuple[str, ...] = ()
    words = "pairs"
    frame_samples = FRAME_SAMPLES

    def __init__(self, config: Config, heads: Sequence[str]) -> None:
        super().__init__()
        self.config, self.heads = config, tuple(heads)
        count, classes = len(config.collections), len(self.heads)
        self.kinds = Found(config.kinds, count)
        self.each = nn.ModuleList([Found(size, classes) for size in config.collections.values()])
        self.said = count * (classes + 2) + 2
        self.register_buffer("mean_F", torch.zeros(self.said))
        self.register_buffer("deviation_F", torch.ones(self.said))
        self.drop = nn.Dropout(config.drop)
        self.enter, self.middle = nn.Linear(self.said + count, config.hidden), nn.Linear(config.hidden, config.width)
        self.share, self.share_direct = nn.Linear(config.width, count), nn.Linear(self.said + count, count)
        self.each_answer, self.leave = nn.Linear(self.said, count * classes), nn.Linear(config.width, classes)
        self._begin_with_own()

    def _begin_with_own(self) -> None:
        """At first a collection's answer is what its own layer says."""
        count, size = len(self.each), len(self.each) * len(self.heads)
        with torch.no_grad():
            self.each_answer.weight.zero_()
            self.each_answer.weight[:, count : count + size] = torch.eye(size)
            self.leave.weight.zero_()

    def start(self, rows: int) -> tuple[()]:
        """Nothing is kept."""
        del rows
        return ()

    def forward(
        self, given: Mapping[str, Sequences], state: Any = (), at_BK: Tensor | None = None
    ) -> tuple[Tensor, Any]:
        """[B, 1, H] for the words given."""
        del at_BK
        return self.told(given[WORDS].x_BTD).logits_BH[:, None], state

    def told(self, ids_BLG: Tensor) -> Told:
        """The answer and the numbers of each text; padding is 0, so the lengths are not needed."""
        return self.answer(self.say(ids_BLG.flatten(1)))

    def say(self, ids_BN: Tensor) -> Tensor:
        """[B, F]: what each collection's layer says, which of them it sounds like, and how many grams they know."""
        kind_BE, known_B = self.kinds(ids_BN)
        total_B = (ids_BN > 0).sum(1).float()
        said, known = [kind_BE], [total_B.log1p(), known_B / total_B.clamp_min(1.0)]
        for layer in self.each:
            logits_BC, known_B = layer(ids_BN)
            said.append(logits_BC)
            known.append(known_B / total_B.clamp_min(1.0))
        return torch.cat((*said, torch.stack(known, 1)), 1)

    def answer(self, said_BF: Tensor, kind_BE: Tensor | None = None) -> Told:
        """From what the linear layers say. `kind_BE`: one for the kind a text is known to be of; zeros: it is not."""
        count = len(self.each)
        if kind_BE is None:
            kind_BE = torch.zeros_like(said_BF[:, :count])
        x_BF = self.drop((said_BF - self.mean_F) / self.deviation_F)
        known_BF = torch.cat((x_BF, KNOWN * kind_BE), 1)
        vector_BD = torch.tanh(self.middle(self.drop(torch.relu(self.enter(known_BF)))))
        y_BD = self.drop(vector_BD)
        share_BE = (self.share(y_BD) + self.share_direct(known_BF)).softmax(1)
        each_BEH = self.each_answer(x_BF).reshape(-1, count, len(self.heads))
        logits_BH = (share_BE[..., None] * each_BEH).sum(1) + self.leave(y_BD)
        return Told(logits_BH, vector_BD)


def fit(
    prepared: "Prepared", out: Path, watcher: "Watcher", *, resume: bool = False, running: "Running | None" = None
) -> dict[str, Any]:
    """As `runs.fit`, for this system: its linear layers have one best answer each, which is found rather than drawn near."""
    from clser.models.words_run import fit as fit_  # noqa: PLC0415 - whoever only runs the system does without

    return fit_(prepared, out, watcher, resume=resume, running=running)


def build(config: Config, heads: Sequence[str]) -> Words:
    """The system, untrained."""
    return Words(config, heads)
