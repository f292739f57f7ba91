"""The console's bars: of each emotion, of what voice and words say of it by themselves, and of arousal and valence. Pure."""

from collections.abc import Sequence

from rich.style import Style
from rich.text import Text

from clser.clients.strokes import BOLD, DIM, FAINT, PLAIN, STYLES, bar, fit, gauge
from clser.clients.views import Bars, StreamView
from clser.engine.records import Probabilities
from clser.models.labels import PUBLISHED

NAME = 10
NUMBER = 5
GAP = 3
LEAST_BESIDE = 70
"""Narrower than this, arousal and valence find no room beside the bars of voice and words."""


def together(view: StreamView, bars: Bars, width: int) -> list[Text]:
    """Seven rows: an emotion's bar in each, and arousal and valence beside them."""
    left = width * 11 // 20
    return _beside(_named(view, bars.both, left), affect(view, width - left - GAP), width)


def apart(view: StreamView, bars: Bars, width: int) -> list[Text]:
    """Eight rows: above, how much voice and words count; of each emotion the bar of both, and smaller ones of voice and words."""
    beside = max(18, width // 4) if width >= LEAST_BESIDE else 0
    small = min(16, max(10, width // 9))
    left = width - 2 * small - 3 - (beside + GAP if beside else 0)
    rows = [
        Text.assemble(fit(both, left), "  ", voice, " ", words)
        for both, voice, words in zip(
            _named(view, bars.both, left), _small(view, bars.voice, small), _small(view, bars.words, small), strict=True
        )
    ]
    head = Text.assemble(fit(Text(" " * NAME + "both", FAINT), left), "  ", *_weights(view, small))
    if not beside:
        return [fit(line, width) for line in (head, *rows)]
    return [fit(head, width), *_beside(rows, affect(view, beside), width)]


def abreast(bars: Bars, width: int) -> Text:
    """All seven in one row, each with the first letters of its name."""
    each = width // len(PUBLISHED) - 5
    line = Text()
    for emotion in PUBLISHED:
        value = bars.both.get(emotion, 0.0)
        line.append_text(Text.assemble((f"{emotion[:3]} ", DIM), bar(value, max(2, each), STYLES[emotion]), " "))
    return line


def affect(view: StreamView, width: int) -> list[Text]:
    """Seven rows: arousal and valence, each with a scale from one side to the other."""
    gauges = []
    for name, value, low, high in (
        ("arousal", view.arousal, "calm", "excited"),
        ("valence", view.valence, "negative", "positive"),
    ):
        gauges.append(Text.assemble((f"{name} ", DIM), (f"{value:+.2f}", PLAIN)))
        gauges.append(Text(low + high.rjust(max(0, width - len(low))), FAINT))
        gauges.append(gauge(value, width))
    return [*gauges[:3], Text(), *gauges[3:]]


def _named(view: StreamView, bars: Probabilities, width: int) -> list[Text]:
    best = max(bars, key=bars.__getitem__) if bars else None
    lines = []
    for emotion in PUBLISHED:
        value = bars.get(emotion, 0.0)
        name = Text(f"{emotion:<{NAME}}", BOLD if emotion == best and view.speaking else DIM)
        long = bar(value, max(4, width - NAME - NUMBER - 1), _style(view, emotion))
        lines.append(Text.assemble(name, long, (f" {value:.2f}", DIM)))
    return lines


def _small(view: StreamView, bars: Probabilities, width: int) -> list[Text]:
    return [bar(bars.get(emotion, 0.0), width, _style(view, emotion)) for emotion in PUBLISHED]


def _style(view: StreamView, emotion: str) -> Style:
    return STYLES[emotion] if view.speaking else STYLES[emotion] + Style(dim=True)


def _weights(view: StreamView, width: int) -> list[Text]:
    """Above the small bars: whose they are, and how much each counts. Words that say nothing have no number."""
    last = view.last
    voice, words = ("", "") if last is None else (f" {last.weights.voice:.2f}", f" {last.weights.words:.2f}")
    if last is None or last.words is None:
        words = ""
    return [
        fit(Text.assemble(("voice", FAINT), (voice, DIM)), width), Text(" "),
        fit(Text.assemble(("words", FAINT), (words, DIM)), width),
    ]  # fmt: skip


def _beside(left: Sequence[Text], right: Sequence[Text], width: int) -> list[Text]:
    wide = max(line.cell_len for line in left)
    return [fit(Text.assemble(fit(a, wide), " " * GAP, b), width) for a, b in zip(left, right, strict=True)]
