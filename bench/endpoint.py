"""When an utterance could end at the earliest: the sample at which the silence asked for is complete.

The bus does not carry it, and a benchmark that asked the engine would believe the engine. It follows from what is
published (onset, end of the last voiced frame) and the settings; a test holds it against the segmenter itself.
"""

from clser.engine.records import samples
from clser.engine.segment import SegmentConfig


def deciding_sample(config: SegmentConfig, frame: int, start: int, offset: int, reason: str) -> int | None:
    """End of the voice activity frame that brought the decision; None where something other than sound decided.

    `start` is the result's first sample, `offset` the end of the last voiced frame (the `speech` message's sample).
    """
    longest = samples(config.longest_ms)
    if reason == "longest":
        # frames end at `offset` plus or minus whole frames
        short = (start + longest - offset) % -frame
        return start + longest - short
    if reason != "silence":
        return None
    silence = 0
    while True:
        silence += frame
        if silence >= _asked(config, offset + silence - start, longest):
            return offset + silence


def _asked(config: SegmentConfig, length: int, longest: int) -> int:
    end = samples(config.end_ms)
    least = min(samples(config.least_end_ms), end)
    shrink_from = min(samples(config.shrink_from_ms), longest)
    over = max(0, length - shrink_from) / max(1, longest - shrink_from)
    return round(end - (end - least) * min(1.0, over))
