"""What a training run is made from: a YAML file or a shipped name, checked, frozen, every choice with its default."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

from msgspec import Meta, Struct

from clser.models import sections
from clser.models.data.corpora import SPEECH

Share = Annotated[float, Meta(ge=0.0, le=1.0)]
Positive = Annotated[float, Meta(gt=0.0)]
NotNegative = Annotated[float, Meta(ge=0.0)]
Count = Annotated[int, Meta(ge=1)]


class Folds(Struct, frozen=True, forbid_unknown_fields=True):
    """Who is tested on, and by whom one chooses."""

    scheme: Literal["speakers", "one_speaker_out", "one_corpus_out", "sentences"] = "speakers"
    count: Annotated[int, Meta(ge=2)] = 5
    """How many; `one_..._out` has one for each speaker or corpus."""
    validation: Share = 0.1
    """Share of the training speakers held back to choose by. 0: none, and the last weights are kept."""


class Takes(Struct, frozen=True, forbid_unknown_fields=True):
    """Each recording again, disturbed as rooms and microphones do. Made once and kept on disk."""

    count: Annotated[int, Meta(ge=0)] = 8
    """0: the recordings as they are."""
    clean: bool = False
    """The undisturbed recordings too."""
    noise: Share = 0.45
    rooms: Share = 0.0
    codecs: Share = 0.0
    stacked: Share = 0.0
    """How often others of its label are put behind a short clip (SDS), as `stacking` says: their sounds are joined, so takes
    are then made anew for each fold. `sampling.stacked` joins frames instead, and computes nothing anew."""
    held_out: Share = 0.25
    """Of the noises and rooms, kept for tests."""


class Sampling(Struct, frozen=True, forbid_unknown_fields=True):
    """What an epoch holds."""

    rows_per_epoch: Count = 7000
    batch: Count = 64
    balance: Share = 0.7
    """0: clips are drawn as they come; 1: every corpus as often as every other."""
    longest_s: Positive = 4.8
    least_s: Positive = 0.48
    """The earliest partial answer that is trained."""
    cut: Share = 0.25
    """How often only a part is heard: an utterance may begin or be cut anywhere."""
    drop_voice: Share = 0.0
    drop_words: Share = 0.0
    """How often a row that has both is left with the other alone."""
    words_only: Share = 0.2
    """Share of rows that are texts alone, where texts are given."""
    stacked: Share = 0.0
    """How often frames of others of its label are put behind those of a short clip (SDS), as `stacking` says; other ones in
    every epoch."""
    generated: Share = 0.2
    """Of the rows with a voice, how many are generated recordings (TUG), where the corpora hold any beside real ones."""
    enrolled: Share = 0.5
    """How often other clips of the speaker were heard before, where the system can use that."""
    enrolled_most: Count = 15


class Stacking(Struct, frozen=True, forbid_unknown_fields=True):
    """How clips are stacked (SDS), where `takes.stacked` or `sampling.stacked` asks for it; only clips to train on are.

    As published: `{most: 8, speakers: any, choice: filling, breath: false}`, and `words` transcribed anew.
    """

    shorter_than_s: Positive = 4.0
    """Of such clips; a stack grows until it is no longer shorter, or has `most` clips behind the first."""
    most: Count = 1
    speakers: Literal["same", "any"] = "same"
    """any: of the same corpus."""
    choice: Literal["random", "filling"] = "random"
    """filling: at random among those that fill it up at once; if there are none, among the ten longest."""
    breath: bool = True
    """Between sounds: a short pause, and the second is brought near the first one's level. Frames are joined as they are."""
    words: str = "joined"
    """What a stack says. joined: the texts one after the other; first: the first clip's; `module:function`: what that hears
    in the joined sound (samples of 16 kHz in -1..1, the language -> text), for `takes.stacked` of corpora in `own_texts`."""


class SoftLabels(Struct, frozen=True, forbid_unknown_fields=True):
    """Labels as a reader of the row's words sees them, now and then in the given one's place (LS-LLM)."""

    source: str = ""
    """llm:NAME: a causal language model by folder or hub name; words: our own text model, or words:FILE.onnx; FILE.csv or
    FILE.jsonl: a table, `text` or `file` and a column for each class; module:function: one of yours (see
    `clser.models.data.soft_labels`). Empty: none."""
    chance: Share = 0.2
    """How often, of the rows that the source knows."""
    mode: Literal["paper", "as_released"] = "paper"
    """as_released: the likeliest class alone, which is what the official code's argmax leaves of a soft label."""
    told: bool = True
    """The language model's prompt gives the label away, as published: what it answers is then no second opinion."""
    temperature: Positive = 1.0
    """Of the language model's and the text model's answers: above 1, softer."""


class Masking(Struct, frozen=True, forbid_unknown_fields=True):
    """What is done to features while training (Park et al. 2019; Jaitly and Hinton 2013)."""

    gain: NotNegative = 0.5
    """Deviation in nats."""
    colour: NotNegative = 0.35
    bands: Annotated[int, Meta(ge=0)] = 2
    band_width: Annotated[int, Meta(ge=2)] = 7
    times: Annotated[int, Meta(ge=0)] = 2
    time_share: Share = 0.125
    warp: Share = 0.0
    """Most that the frequency axis of the log-mel bands is stretched or squeezed (VTLP)."""


class Optimiser(Struct, frozen=True, forbid_unknown_fields=True):
    """How the weights are found."""

    epochs: Count = 24
    learning_rate: Positive = 3e-3
    weight_decay: NotNegative = 0.02
    schedule: Literal["cosine", "plateau"] = "cosine"
    warmup: Share = 0.05
    """Share of all steps."""
    warmup_epochs: NotNegative = 0.0
    """The same in epochs, which then counts in its place. 0: `warmup` says it."""
    pretrained_rate: Positive = 1.0
    """What the learning rate is multiplied with for a pretrained encoder that is trained along."""
    plateau_epochs: Count = 3
    plateau_factor: Share = 0.5
    clip: Positive = 1.0
    averaging: Annotated[float, Meta(ge=0.0, lt=1.0)] = 0.995
    """0: none."""
    patience: Annotated[int, Meta(ge=0)] = 0
    """Epochs without a better validation UAR before it stops. 0: it never does."""
    keep: Literal["best", "last"] = "best"
    """Which weights, where there is validation."""
    precision: Literal["full", "half"] = "full"
    """half: bfloat16 on a CPU, float16 with scaled losses on a GPU."""


class Loss(Struct, frozen=True, forbid_unknown_fields=True):
    """What is made small."""

    kind: Literal["cross_entropy", "focal"] = "cross_entropy"
    gamma: NotNegative = 2.0
    smoothing: Annotated[float, Meta(ge=0.0, lt=1.0)] = 0.05
    weighted: bool = False
    """Classes weighted by one over how often they are."""
    partial: NotNegative = 0.3
    """How much the answer after a random earlier frame counts beside the last one's."""


class Acquaintance(Struct, frozen=True, forbid_unknown_fields=True):
    """How a system learns to go by its speaker's manner, where it does so afterwards (`models/acquaint.py`)."""

    steps: Annotated[int, Meta(ge=0)] = 2400
    batch: Count = 128
    learning_rate: Positive = 1e-3
    weight_decay: NotNegative = 0.1
    known: Share = 0.65
    """How often others of the speaker were heard before."""
    most: Count = 19
    early: Share = 0.25
    """How often it is the answer in mid-utterance that is trained."""


class Plan(Struct, frozen=True, forbid_unknown_fields=True):
    """A run, all of it but the fold and the seed."""

    system: str
    settings: dict[str, Any] = {}
    """The system's own."""
    corpora: tuple[str, ...] = SPEECH
    texts: tuple[str, ...] = ()
    own_texts: tuple[str, ...] = ()
    """Of `corpora`, those whose clips say what they mean: a clip's own text goes with its voice, not one drawn by label."""
    classes: tuple[str, ...] = ()
    """The heads; clips and texts of others are left out. Empty: all that occur."""
    folds: Folds = Folds()
    takes: Takes = Takes()
    sampling: Sampling = Sampling()
    stacking: Stacking = Stacking()
    soft_labels: SoftLabels = SoftLabels()
    masking: Masking = Masking()
    optimiser: Optimiser = Optimiser()
    loss: Loss = Loss()
    acquaintance: Acquaintance = Acquaintance()
    unvoiced: bool = False
    """Sounds without a voice too, for a head that says so."""
    shuffled: bool = False
    """A check: the labels of the training clips are dealt out anew in each corpus, so there is nothing to learn."""
    calibration: Literal["none", "temperature", "offsets"] = "temperature"
    """Fitted to the answers for the validation speakers."""
    onnx: bool = True
    """Write `model.onnx` too, where the system can run live."""
    enrolled_test: tuple[int, ...] = (10,)
    """For a system that can be enrolled: after how many clips of the speaker it is tested too."""


def names() -> list[str]:
    """The shipped plans."""
    return sections.shipped(sections.PREFIX_OF_PLANS)


def load(source: str, changes: Sequence[str] = ()) -> Plan:
    """The plan of that name or in that file, with `section.key=value` changes upon it."""
    values = sections.read(source, "plan", names(), sections.PREFIX_OF_PLANS)
    for change in changes:
        sections.change(values, change, "optimiser.epochs=8")
    return from_values(values, source)


def from_values(values: Mapping[str, Any], source: str) -> Plan:
    """Checked and frozen; GivenError says where it is wrong."""
    return sections.frozen(values, Plan, f"plan {source}", strict=False)


def differences(one: Any, other: Any, path: str = "") -> list[str]:
    """What differs between two plans as plain values, a line each: `path: this, was that`."""
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        keys = [*one, *(key for key in other if key not in one)]
        return [
            line
            for key in keys
            for line in differences(one.get(key), other.get(key), f"{path}.{key}" if path else str(key))
        ]
    return [] if one == other else [f"{path} is {one!r}, was {other!r}"]
