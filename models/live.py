"""A system with its fronts before it, as an engine runs it: sound in, calibrated logits out.

Letters: B rows, S samples, T frames, F numbers of a front's frame, X numbers that tell of a speaker, H heads.

A system that reads words too is told that there are none, unless whoever runs it hears and answers in two steps and gives
the words to the second (`hear`, `answer`; `clser.models.words_now` makes them of a text).
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from clser.models.encoders.hub_frames import is_hub
from clser.models.errors import GivenError
from clser.models.features.constants import SAMPLE_RATE_HZ
from clser.models.features.fronts import front
from clser.models.saved import Calibration, Trained
from clser.models.systems import WORDS, speaker_numbers
from clser.models.tensors import Sequences, at_end, leaves, like, names

NO_CALIBRATION = Calibration()
LEAST_S = 0.5
WINDOW_S, HOP_S = 8.0, 1.0
LONGEST_S = 16.0
"""An utterance with its lead-in, when it is cut: what a system hears that answers at the end only."""


class LiveState(NamedTuple):
    """Zeros: the start of an utterance."""

    fronts: tuple[Any, ...]
    system: Any


class Pretrained(nn.Module):  # type: ignore[misc]  # torch is not followed: Module is Any
    """A pretrained encoder in a front's place: it hears all of the sound at once, and carries nothing."""

    def __init__(self, name: str) -> None:
        super().__init__()
        from clser.models.encoders.pretrained_speech import open_frames  # noqa: PLC0415 - loads transformers

        self.name = name
        self.encoder = open_frames(name).eval()
        self.samples, self.width = int(self.encoder.samples), int(self.encoder.width)

    def start(self, rows: int) -> tuple[()]:
        """Nothing is carried."""
        return ()

    def forward(self, pcm_BS: Tensor, frames_B: Tensor) -> Sequences:
        """What training reads from its cache, and so many steps as a front of our own would give: zeros behind. The last
        step is often missing, for an encoder's frames overlap."""
        if torch.jit.is_tracing():
            raise GivenError(
                f"this system hears {self.name}, which is not exported with it; run the trained folder with model.backend=torch"
            )
        with torch.autocast(pcm_BS.device.type, enabled=False):  # its weights say how precise it is
            x_BTD, length_B = self.encoder(pcm_BS, frames_B * self.samples)
        steps = pcm_BS.shape[1] // self.samples
        return Sequences(functional.pad(x_BTD, (0, 0, 0, max(0, steps - x_BTD.shape[1])))[:, :steps], length_B)

    def shorten(self, dtype: torch.dtype) -> None:
        """Its weights in half; what leaves it stays float32."""
        self.encoder.shorten(dtype)


class Fronts(nn.Module):  # type: ignore[misc]  # torch is not followed: Module is Any
    """What a system hears: sound and the fronts' states to frames by name."""

    def __init__(self, system: Any) -> None:
        super().__init__()
        if not system.fronts:
            raise GivenError("this system reads words and hears nothing: there is no sound to run it on live")
        self.named: tuple[str, ...] = tuple(system.fronts)
        self.pretrained: tuple[str, ...] = tuple(name for name in self.named if is_hub(name))
        if self.pretrained and system.streams == "exactly":
            raise GivenError(
                f"this system streams exactly and hears {', '.join(self.pretrained)}, which hears its future; "
                "have it stream by window, or train it with the encoder of our own (speech: own)"
            )
        self.each = nn.ModuleList([Pretrained(name) if is_hub(name) else front(name) for name in self.named])
        self.ratios: tuple[int, ...] = tuple(system.frame_samples // each.samples for each in self.each)
        """Frames of each front in one frame of the system."""
        for name, each, ratio in zip(self.named, self.each, self.ratios, strict=True):
            if ratio < 1 or ratio * each.samples != system.frame_samples:
                raise GivenError(
                    f"frame_samples {system.frame_samples} is no multiple of the {each.samples} samples in a frame of {name}"
                )
        self.reads = bool(system.words)
        if self.reads:
            from clser.models.words_now import no_words  # noqa: PLC0415 - most systems have no words

            self.register_buffer("no_words_BLX", no_words(system.words), persistent=False)

    def start(self, rows: int) -> tuple[Any, ...]:
        """The states before the first sample."""
        return tuple(each.start(rows) for each in self.each)

    def forward(self, pcm_BS: Tensor, frames_B: Tensor, state: tuple[Any, ...]) -> tuple[dict[str, Sequences], Any]:
        """What the system is given for that many of its frames, and the fronts' states after them."""
        given, after = {}, []
        for name, each, ratio, before in zip(self.named, self.each, self.ratios, state, strict=True):
            if name in self.pretrained:
                given[name] = each(pcm_BS, frames_B * ratio)
                after.append(before)
                continue
            x_BTF, left = each(pcm_BS, frames_B * ratio, before)
            given[name] = Sequences(x_BTF, frames_B * ratio)
            after.append(left)
        if self.pretrained:
            given = self._whole(given)
        if self.reads:
            no_words_BLX = self.no_words_BLX.expand(pcm_BS.shape[0], *self.no_words_BLX.shape[1:])
            given[WORDS] = Sequences(no_words_BLX, torch.zeros_like(frames_B))
        return given, tuple(after)

    def _whole(self, given: Mapping[str, Sequences]) -> dict[str, Sequences]:
        """As training cuts clips: to as many whole frames of the system as every front has."""
        ratio_of = dict(zip(self.named, self.ratios, strict=True))
        whole = [torch.div(given[name].length_B, ratio_of[name], rounding_mode="floor") for name in self.named]
        least_B = torch.stack(whole).amin(0)
        return {name: Sequences(x_BTF, least_B * ratio_of[name]) for name, (x_BTF, _) in given.items()}

    def silence(self, rows: int, device: torch.device) -> dict[str, Sequences]:
        """What the system is given where there is no sound at all."""
        none_B = torch.zeros(rows, dtype=torch.long, device=device)
        return {
            name: Sequences(torch.zeros(rows, ratio, each.width, device=device), none_B)
            for name, each, ratio in zip(self.named, self.each, self.ratios, strict=True)
        }


class Calibrated(nn.Module):  # type: ignore[misc]  # torch is not followed: Module is Any
    """Logits whose softmax is the probability."""

    def __init__(self, heads: Sequence[str], calibration: Calibration) -> None:
        super().__init__()
        offsets = torch.tensor(calibration.offsets or (0.0,) * len(heads))
        if len(offsets) != len(heads):
            raise GivenError(
                f"the calibration has {len(offsets)} offsets for {len(heads)} heads; calibrate the model again"
            )
        self.temperature = calibration.temperature
        self.register_buffer("offset_H", offsets, persistent=False)

    def take(self, calibration: Calibration) -> None:
        """Another one, for the same heads."""
        self.temperature = calibration.temperature
        self.offset_H.copy_(torch.tensor(calibration.offsets or (0.0,) * len(self.offset_H)))

    def forward(self, logits_BTH: Tensor) -> Tensor:
        return logits_BTH / self.temperature + self.offset_H


class Live(nn.Module):  # type: ignore[misc]  # torch is not followed: Module is Any
    """A system that streams exactly, with its state as plain arguments and results."""

    def __init__(self, system: Any, calibration: Calibration = NO_CALIBRATION) -> None:
        super().__init__()
        assert system.streams == "exactly"
        self.fronts, self.system = Fronts(system), system
        self.calibrated = Calibrated(system.heads, calibration)
        self.speaker_numbers = speaker_numbers(system)
        """X; 0 of a system that knows nobody."""

    def start(self, rows: int) -> LiveState:
        """The state before the first sample."""
        return LiveState(self.fronts.start(rows), self.system.start(rows))

    def state_names(self) -> Iterator[str]:
        """A name for each tensor of the state."""
        state = self.start(1)
        for name, part in zip(self.fronts.named, state.fronts, strict=True):
            yield from names(part, name)
        yield from names(state.system)

    def shapes(self) -> list[tuple[int, ...]]:
        """Of one row's part of each tensor of the state."""
        return [tuple(leaf.shape[1:]) for leaf in leaves(self.start(1))]

    def forward(self, pcm_BS: Tensor, frames_B: Tensor, *known: Tensor) -> tuple[Tensor, ...]:
        """The calibrated logits [B, T, H] after each frame, then the state after each row's own `frames_B` frames.

        known: the state. For a system that knows speakers, before it speaker_BX, the sums of theirs; and before the state
        that comes back heard_BX, what each row's utterance tells of itself after its own frames, zeros where it has none.
        """
        speaker, state = known[: self._told], known[self._told :]
        before = like(self.start(1), iter(state))
        given, fronts = self.fronts(pcm_BS, frames_B, before.fronts)
        if not speaker:
            logits_BTH, system = self.system(given, before.system)
            return (self.calibrated(logits_BTH), *leaves(LiveState(fronts, system)))
        (speaker_BX,) = speaker
        e_BTY, system = self.system.hear(given, before.system)
        logits_BTH = self.calibrated(self.system.answer(e_BTY, speaker_BX))
        heard_BX = at_end(torch.zeros_like(speaker_BX), e_BTY[..., : self.speaker_numbers], frames_B)
        return (logits_BTH, heard_BX, *leaves(LiveState(fronts, system)))

    def hear(self, pcm_BS: Tensor, frames_B: Tensor) -> dict[str, Sequences]:
        """What the system is given for a whole utterance, from its start."""
        return _heard(self.fronts, pcm_BS, frames_B)

    def answer(self, given: Mapping[str, Sequences]) -> Tensor:
        """[B, 1, H]: the calibrated logits after the last frame of all that was given, the speaker unknown."""
        name, ratio = self.fronts.named[0], self.fronts.ratios[0]
        length_B = given[name].length_B
        last_B1 = (torch.div(length_B, ratio, rounding_mode="floor") - 1).clamp_min(0)[:, None]
        logits_B1H, _ = self.system(given, self.system.start(length_B.shape[0]), last_B1)
        return self.calibrated(logits_B1H)

    @property
    def _told(self) -> int:
        return int(self.speaker_numbers > 0)


class Windowed(nn.Module):  # type: ignore[misc]  # torch is not followed: Module is Any
    """A system that hears a whole window, or a whole utterance, at once: no state."""

    def __init__(self, system: Any, calibration: Calibration = NO_CALIBRATION) -> None:
        super().__init__()
        assert system.streams != "exactly"
        self.fronts, self.system = Fronts(system), system
        self.calibrated = Calibrated(system.heads, calibration)

    def forward(self, pcm_BS: Tensor, frames_B: Tensor) -> Tensor:
        """The calibrated logits [B, 1, H] about all of each row's own `frames_B` frames."""
        return self.answer(self.hear(pcm_BS, frames_B))

    def hear(self, pcm_BS: Tensor, frames_B: Tensor) -> dict[str, Sequences]:
        """What the system is given for each row's own `frames_B` frames."""
        return _heard(self.fronts, pcm_BS, frames_B)

    def answer(self, given: Mapping[str, Sequences]) -> Tensor:
        """[B, 1, H]: the calibrated logits about all that was given."""
        rows = given[self.fronts.named[0]].length_B.shape[0]
        logits_B1H, _ = self.system(given, self.system.start(rows))
        return self.calibrated(logits_B1H)


def _heard(fronts: Fronts, pcm_BS: Tensor, frames_B: Tensor) -> dict[str, Sequences]:
    """The fronts' frames from the start."""
    start, rows = fronts.start(1), pcm_BS.shape[0]
    # Zeros are the start by contract; made like this, their number of rows is not fixed when the graph is traced.
    zeros = (pcm_BS.new_zeros((rows, *leaf.shape[1:]), dtype=leaf.dtype) for leaf in leaves(start))
    given: dict[str, Sequences] = fronts(pcm_BS, frames_B, like(start, zeros))[0]
    return given


def live(system: Any, calibration: Calibration = NO_CALIBRATION) -> Live | Windowed:
    """The system as an engine runs it, whichever way it streams."""
    return (Live if system.streams == "exactly" else Windowed)(system, calibration)


def windows(system: Any) -> tuple[int, int]:
    """The window and the hop of a system that does not stream exactly, in its frames; (0, 0) for one that does.

    Its `window_s` and `hop_s` say, where it has them.
    """
    frame_s = system.frame_samples / SAMPLE_RATE_HZ
    if system.streams == "exactly":
        return 0, 0
    if system.streams == "end":
        return round(getattr(system, "window_s", LONGEST_S) / frame_s), 0
    window, hop = getattr(system, "window_s", WINDOW_S), getattr(system, "hop_s", HOP_S)
    window_frames = max(1, round(window / frame_s))
    return window_frames, min(max(1, round(hop / frame_s)), window_frames)


def card(system: Any, about: Trained) -> dict[str, Any]:
    """What an engine reads beside the graph."""
    window, hop = windows(system)
    exactly = system.streams == "exactly"
    return {
        "contract": 1 if exactly else 2,
        "name": about.name or about.system,
        "version": about.version or "1",
        "sample_rate_hz": SAMPLE_RATE_HZ,
        "frame_samples": system.frame_samples,
        "heads": list(system.heads),
        "least_s": LEAST_S,
        "abstain_below": round(about.abstain_below, 4),
        "affect_source": "classes",
        "licence": about.licence,
        "trained_on": list(about.trained_on),
        "streams": system.streams,
        "window_frames": window,
        "hop_frames": hop,
        "speaker_numbers": speaker_numbers(system) if exactly else 0,
    }
