"""What tells that a recogniser wrote what nobody said. Pure: it sees words, times and numbers, and gives back what is wrong."""

import zlib
from collections.abc import Sequence

from clser.engine.asr import AsrConfig
from clser.engine.jobs import Word
from clser.engine.records import SAMPLE_RATE_HZ

SPOKEN_AT_ONCE = 2  # words that a sound may hold whatever its length: "I do" takes a quarter of a second
NO_TIME = 3  # words in a row of no length: an alignment that found no place for them
BEYOND_SAMPLES = SAMPLE_RATE_HZ // 2  # an alignment may be half a second out at the end of the sound, not more
TOKENS_AT_ONCE = 6


def most_tokens(samples: int, config: AsrConfig) -> int:
    """So many tokens may be written for that much sound."""
    return int(config.tokens_per_s * samples / SAMPLE_RATE_HZ) + TOKENS_AT_ONCE


def compression(text: str) -> float:
    """How often the text says the same, as zlib sees it. Short texts are never below 1 by much, nor above it."""
    raw = text.encode()
    return len(raw) / len(zlib.compress(raw)) if raw else 0.0


def too_many(words: Sequence[Word], samples: int, config: AsrConfig) -> bool:
    """More words than that much sound holds. Where a script has no spaces a word is about a syllable, and counts half."""
    count = sum(1.0 if word.text[:1].isspace() else 0.5 for word in words)
    return count - SPOKEN_AT_ONCE > config.words_per_s_above * samples / SAMPLE_RATE_HZ


def misplaced(words: Sequence[Word], samples: int) -> bool:
    """Words that have no place in the sound: several in a row without a length, or behind its end."""
    timeless = 0
    for word in words:
        timeless = timeless + 1 if word.end <= word.start else 0
        if timeless >= NO_TIME or word.start > samples or word.end > samples + BEYOND_SAMPLES:
            return True
    return False


def doubt(words: Sequence[Word], samples: int, config: AsrConfig) -> str:
    """Why words, timed from the start of a sound of so many samples, are not to be trusted; empty where nothing speaks against it."""
    if compression("".join(word.text for word in words)) > config.compression_above:
        return "the text repeats itself"
    if too_many(words, samples, config):
        return "more words than the sound holds"
    return "words without a place in the sound" if misplaced(words, samples) else ""


def unsure(log_probability: float, tokens: int, most: int, config: AsrConfig) -> str:
    """The same of a text of so many tokens, `most` of which were allowed, by its mean log-probability."""
    if tokens >= most:
        return "it did not come to an end"
    return "an improbable text" if tokens and log_probability < config.log_probability_below else ""
