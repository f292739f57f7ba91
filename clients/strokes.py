"""The console's strokes: colours, bars, gauges, and lines of an exact width in cells. Pure."""

from rich.style import Style
from rich.text import Text

COLOURS = {
    "anger": "#e5534b",
    "disgust": "#8aa14b",
    "fear": "#a982d8",
    "happiness": "#e8b83c",
    "neutral": "#9aa4ae",
    "sadness": "#5b8fd9",
    "surprise": "#43b9b0",
}
PLAIN = Style()
DIM = Style(color="#7d8590")
FAINT = Style(color="#4a515a")
BOLD = Style(bold=True)
ALERT = Style(color="#e5a34b")
LEVEL = Style(color="#6fb3a2")
STYLES = {name: Style(color=colour) for name, colour in COLOURS.items()}

EIGHTHS = " ▏▎▍▌▋▊▉█"
RISING = " ▁▂▃▄▅▆▇█"


def bar(value: float, width: int, style: Style) -> Text:
    """A bar from the left, to an eighth of a cell."""
    eighths = round(max(0.0, min(1.0, value)) * width * 8)
    whole, part = divmod(eighths, 8)
    filled = "█" * whole + (EIGHTHS[part] if part else "")
    return Text.assemble((filled, style), ("·" * (width - len(filled)), FAINT))


def gauge(value: float, width: int) -> Text:
    """A bar from the middle to either side, for -1..1."""
    half = max(1, (width - 1) // 2)
    reach = round(min(1.0, abs(value)) * half)
    style = STYLES["happiness"] if value > 0 else STYLES["sadness"]
    left, right = (0, reach) if value > 0 else (reach, 0)
    return Text.assemble(
        ("─" * (half - left), FAINT),
        ("━" * left, style),
        ("┼", DIM),
        ("━" * right, style),
        ("─" * (half - right), FAINT),
    )


def short(words: str, most: int) -> str:
    return words if len(words) <= most else words[: max(0, most - 1)] + "…"


def fit(line: Text, width: int) -> Text:
    line = line.copy()
    line.truncate(max(0, width), overflow="ellipsis", pad=True)
    return line


def fit_end(line: Text, width: int) -> Text:
    """As `fit`, but of what is too long the end is kept."""
    cut = 0
    while (over := line[cut:].cell_len - max(0, width - (cut > 0))) > 0:
        cut += max(1, over // 2)  # a letter may be two cells wide
    return fit(Text.assemble(("…", FAINT), line[cut:]) if cut else line, width)
