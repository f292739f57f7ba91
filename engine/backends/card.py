"""The card of a voice model: what its file says of itself, checked."""

import json
from pathlib import Path

import msgspec

from clser.engine.errors import GivenError
from clser.engine.jobs import VoiceCard
from clser.engine.records import SAMPLE_RATE_HZ
from clser.engine.shipped import digest
from clser.models.labels import NONE, PUBLISHED_AS

CONTRACTS = (1, 2)


def read_card(text: str | None, path: Path) -> VoiceCard:
    """The `clser` property of the file at `path`, with the file's digest."""
    if text is None:
        raise GivenError(f"model {path}: it does not describe itself (no `clser` property); see docs/models.md")
    try:
        card = msgspec.convert(json.loads(text), VoiceCard)
    except (msgspec.ValidationError, json.JSONDecodeError) as error:
        raise GivenError(f"model {path}: its `clser` property is wrong: {error}") from error
    strangers = [head for head in card.heads if head not in (*PUBLISHED_AS, NONE)]
    if card.contract not in CONTRACTS or card.sample_rate_hz != SAMPLE_RATE_HZ or strangers:
        raise GivenError(
            f"model {path}: contract {card.contract}, {card.sample_rate_hz} Hz, unknown heads {strangers}; "
            f"this engine runs contracts {' and '.join(map(str, CONTRACTS))} at {SAMPLE_RATE_HZ} Hz"
        )
    if not _can_stream(card):
        raise GivenError(
            f"model {path}: contract {card.contract}, streams {card.streams}, window_frames {card.window_frames}, "
            f"hop_frames {card.hop_frames} do not go together; see contract 2 in docs/models.md"
        )
    if card.speaker_numbers < 0 or (card.speaker_numbers and card.streams != "exactly"):
        raise GivenError(
            f"model {path}: speaker_numbers {card.speaker_numbers}, streams {card.streams}: only a model that streams exactly "
            "knows speakers; see docs/models.md"
        )
    return msgspec.structs.replace(card, digest=digest(path))


def _can_stream(card: VoiceCard) -> bool:
    """Whether what it says of its window and hop makes sense."""
    if card.streams == "exactly":
        return card.window_frames == card.hop_frames == 0
    if card.contract < 2 or card.window_frames < 1:
        return False
    return card.hop_frames == 0 if card.streams == "end" else 1 <= card.hop_frames <= card.window_frames
