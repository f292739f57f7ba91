"""What a system is, and the folder of systems: every file in `zoo/` (and in folders that are named) is one.

A system file has `ABOUT` (an `About`), `Config` (a frozen msgspec Struct: every choice with its default) and
`build(config, heads) -> System`. Nothing else is registered anywhere.

A system knows no sound and no text: it is given what its fronts made of them, by name. That is what is cached on disk,
and what `clser.models.live` puts before it when it runs.
"""

import importlib
import importlib.util
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, Literal, Protocol

import msgspec
from torch import Tensor

from clser.models.errors import GivenError, MissingError
from clser.models.tensors import Sequences

Streams = Literal["exactly", "window", "end"]
"""exactly: state is carried, and an answer after each frame costs the same. window: computed anew now and then over the
last seconds. end: only once the utterance is over."""

WORDS = "words"
"""The name under which a system is given its text."""


FACES = "faces"
"""The name under which a system is given grey faces, uint8 [B, N, 64, 64], where it has `faces`. An engine hears only: live
there are none."""


class About(msgspec.Struct, frozen=True):
    """What a system says of itself before it is built."""

    title: str
    reference: str
    """The paper, or the page of ours."""


class System(Protocol):
    """An nn.Module with these."""

    streams: Streams
    fronts: tuple[str, ...]
    """What it hears: names of `clser.models.features.fronts`, or `hub:NAME` of a pretrained encoder. Empty: words only."""
    words: str
    """What its text is cut into: a name of `clser.models.encoders.text`, or `hub:NAME`. Empty: voice only."""
    heads: tuple[str, ...]
    frame_samples: int
    """Sound between two answers: a multiple of every front's frame."""

    def __call__(self, given: Mapping[str, Sequences], state: Any, at_BK: Tensor | None = None) -> tuple[Tensor, Any]:
        """Logits and the state afterwards.

        given: each front's frames by its name, and the text by `WORDS`; a length of 0 says that this row has none of it.
        logits: [B, T, H] after each of the T frames where it streams exactly, or [B, K, H] after the frames `at_BK` alone;
        [B, 1, H] where it does not, with `state` passed through.
        """

    def start(self, rows: int) -> Any:
        """The state before the first frame; an empty tuple where nothing is carried."""


class Enrolling(Protocol):
    """A system that answers better for a speaker it has heard before, labels or not. It streams exactly.

    What an utterance tells of its speaker does not depend on who that is; so what is known of a speaker is the sum over
    earlier utterances, of each what it had told after its last frame. Nobody is known by zeros.
    Called as a `System`, it hears, and answers as for nobody.
    """

    speaker_numbers: int
    """X."""

    def tell(self, given: Mapping[str, Sequences], at_BK: Tensor) -> Tensor:
        """[B, K, X]: what whole utterances tell of their speaker after these frames, which no training changes: the first
        X numbers of `hear`, without the rest of its work."""

    def hear(self, given: Mapping[str, Sequences], state: Any, at_BK: Tensor | None = None) -> tuple[Tensor, Any]:
        """e_BKY, what the utterance so far tells after each of the T frames, or after the frames `at_BK` alone; and the
        state afterwards. Its first X numbers tell of the speaker, the first of all is always 1, so that a sum counts
        utterances; there may be more behind them, for `answer` alone."""

    def answer(self, e_BKY: Tensor, speaker_BX: Tensor) -> Tensor:
        """[B, K, H]: logits, where that is known of the speaker."""


class Listening(Protocol):
    """A system whose frames others can stand on, in a pretrained encoder's place."""

    fronts: tuple[str, ...]
    frame_samples: int
    listen_width: int
    listen_depth: int
    """Its layers are numbered from 0, what goes into the first, to this one."""

    def listen(self, given: Mapping[str, Sequences]) -> tuple[Tensor, ...]:
        """Every layer [B, T, D], of rows from their beginnings on."""


def speaker_numbers(system: Any) -> int:
    """How many numbers tell of a speaker; 0 of a system that knows nobody."""
    return int(getattr(system, "speaker_numbers", 0))


def logit_margin(system: Any) -> float:
    """By how much the true class's logit must win while the system is trained, which is AM-Softmax; 0 of most systems."""
    return float(getattr(system, "logit_margin", 0.0))


def faces_seen(system: Any) -> int:
    """How many faces of a clip it looks at, at most; 0 of a system that sees nobody."""
    return int(getattr(system, "faces", 0))


def folders(extra: Sequence[Path] = ()) -> list[Path]:
    """Where systems lie: ours, then those that were named."""
    return [Path(__file__).parent / "zoo", *extra]


def systems(extra: Sequence[Path] = ()) -> dict[str, Path]:
    """The names that `system:` takes, and their files. A later folder's file replaces an earlier one's."""
    found = {path.stem: path for folder in folders(extra) for path in sorted(folder.glob("*.py"))}
    return {name: path for name, path in found.items() if not name.startswith("_")}


def system_file(name: str, extra: Sequence[Path] = ()) -> ModuleType:
    """The module of a system, checked to be one."""
    known = systems(extra)
    if name not in known:
        raise MissingError(
            f"system {name!r} is unknown: there are {', '.join(known)}; a new one is a file in a folder you name"
        )
    module = _load(name, known[name])
    lacking = [part for part in ("ABOUT", "Config", "build") if not hasattr(module, part)]
    if lacking:
        raise GivenError(
            f"{known[name]}: no {', '.join(lacking)} in it; clser.models.systems says what a system file has"
        )
    return module


def _load(name: str, path: Path) -> ModuleType:
    if path.parent == folders()[0]:
        return importlib.import_module(f"clser.models.zoo.{name}")
    full = f"clser_zoo_{abs(hash(path.resolve())):x}_{name}"
    if full in sys.modules:
        return sys.modules[full]
    spec = importlib.util.spec_from_file_location(full, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[full] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[full]  # or the next try would find half of it
        raise
    return module


def build(name: str, settings: Mapping[str, Any], heads: Sequence[str], extra: Sequence[Path] = ()) -> Any:
    """The system with these settings; what they do not name keeps its default."""
    module = system_file(name, extra)
    try:
        config = msgspec.convert(dict(settings), module.Config)
    except msgspec.ValidationError as error:
        fields = ", ".join(module.Config.__struct_fields__)
        raise GivenError(f"system {name}: {error}; its settings are {fields or 'none'}") from error
    return module.build(config, tuple(heads))
