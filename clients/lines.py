"""Plain lines, for where no terminal is: what was heard, and what went wrong."""

from clser.clients.views import UNREMARKABLE, latency_ms
from clser.engine.records import ENGINE, SAMPLE_RATE_HZ, Gap, Message, Result, Status


def line(message: Message) -> str | None:
    """The message's line, if it deserves one: finals, gaps, and statuses other than the usual ones."""
    if isinstance(message, Result):
        return _result(message) if message.final else None
    if isinstance(message, Gap):
        at_s, lost_s = message.from_sample / SAMPLE_RATE_HZ, message.count / SAMPLE_RATE_HZ
        return f"{message.stream:<9} {at_s:.2f} s: {lost_s:.2f} s of sound lost ({message.reason})"
    if isinstance(message, Status) and message.event not in UNREMARKABLE:
        who = "engine" if message.stream == ENGINE else message.stream
        return f"{who:<9} {message.event.replace('_', ' ')}" + (f": {message.detail}" if message.detail else "")
    return None


def said(result: Result) -> str:
    """Label and confidence in words; what stands behind an abstention too. A dash where no speech was heard."""
    emotion = result.emotion
    if emotion.label is not None:
        return f"{emotion.label} {emotion.confidence:.2f}"
    if emotion.too_short or not emotion.probabilities:
        return "not sure (too short)"
    if emotion.reason == "not_speech":
        return "-"
    best = max(emotion.probabilities, key=emotion.probabilities.__getitem__)
    return f"not sure ({best} {emotion.confidence:.2f})"


def words_of(result: Result) -> str:
    """What was said, if anything was written down."""
    return "" if result.text is None else (result.text.stable + result.text.tail).strip()


def _result(result: Result) -> str:
    span = f"{result.start_s:.2f}-{result.end_s:.2f} s"
    amended = "  (amended)" if result.stage == "amended" else ""
    return (
        f"{result.stream:<9} {span:<13}  {said(result):<14}  "
        f"(arousal {result.arousal:+.1f}, valence {result.valence:+.1f})  {latency_ms(result, 0):.0f} ms{amended}"
        f"{_quoted(result)}"
    )


def _quoted(result: Result) -> str:
    """The words, with a ~ where they are hardly to be trusted; and how much they counted."""
    words = words_of(result)
    if not words:
        return ""
    assert result.text is not None
    share = f" (words {result.weights.words:.2f})" if result.weights.words else ""
    return f'  "{"~ " if result.text.suspect else ""}{words}"{share}'
