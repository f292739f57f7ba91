"""The console's picture as lines of text, made from views. Pure: no terminal, no clock.

Widths are in cells. Every line is exactly as wide as asked for, so that a painter can compare and replace them one by one.
"""

from collections.abc import Mapping

from rich.cells import cell_len
from rich.style import Style
from rich.text import Text

from clser.clients.bars import LEAST_BESIDE, abreast, apart, together
from clser.clients.lines import said, words_of
from clser.clients.strokes import ALERT, BOLD, DIM, FAINT, LEVEL, PLAIN, RISING, STYLES, bar, fit, fit_end, short
from clser.clients.views import Bars, EngineView, StreamView, latency_ms
from clser.engine.records import Result
from clser.models.labels import PUBLISHED

FULL_ROWS = 11
"""Rows of a stream drawn in full, without its recent finals: two of frame, level, label, seven bars."""
WRITTEN_ROWS = FULL_ROWS + 2
"""The same where its words are written down: they have a line, and what they count has one."""
MIDDLE_ROWS = 5
"""Rows of a stream with all its bars side by side: two of frame, level, label, bars."""
LEAST_WIDTH = 60
WIDE = 110
"""From this width on a line of the past has room for its words and for numbers."""
FLOOR_DBFS = -60.0


def picture(engine: EngineView, eased: Mapping[str, Bars], width: int, height: int, note: str = "") -> list[Text]:
    """Exactly `height` lines. `eased` has each stream's bars where they move towards what the views say."""
    width, height = max(width, 20), max(height, 3)
    foot = [fit(Text(f" {note}", ALERT), width)] if note else []
    foot.append(footer(engine, width))
    room = height - 1 - len(foot)
    lines = [header(engine, width), *_streams(engine, eased, width, room)]
    lines += [fit(Text(), width)] * (height - len(lines) - len(foot))
    return [*lines[: height - len(foot)], *foot]


def _streams(engine: EngineView, eased: Mapping[str, Bars], width: int, room: int) -> list[Text]:
    views = engine.streams
    if not views:
        waiting = Text("  waiting for sound ...", DIM)
        return [fit(Text(), width), fit(waiting, width)][: max(0, room)]
    shown = [view for view in views if not view.closed] or views
    if len(views) * MIDDLE_ROWS <= room:
        shown = views
    if len(shown) * MIDDLE_ROWS <= room and width >= LEAST_WIDTH:
        rows, over = divmod(room, len(shown))
        return [
            line
            for at, view in enumerate(shown)
            for line in framed(view, eased.get(view.name, view.bars), width, rows + (at < over))
        ]
    rows = 2 if len(shown) * 2 <= room and width >= LEAST_WIDTH else 1
    fitting = room // rows
    if len(shown) > fitting:
        busiest = {view.name for view in sorted(shown, key=lambda view: -view.active)[: max(0, fitting - 1)]}
        rest = len(shown) - len(busiest)
        shown = [view for view in shown if view.name in busiest]
        more = [fit(Text(f"  and {rest} more, quiet for longer", DIM), width)]
    else:
        more = []
    return [line for view in shown for line in compact(view, eased.get(view.name, view.bars), width)[:rows]] + more


# --- a stream -----------------------------------------------------------------------------------------------------


def framed(view: StreamView, bars: Bars, width: int, rows: int) -> list[Text]:
    """A stream with everything, in a frame of at least MIDDLE_ROWS rows; more of its past where there are more."""
    inner = width - 4
    body = [_meters(view, inner), _headline(view, inner)]
    if rows < FULL_ROWS:
        body[1] = _with_affect(body[1], view, inner)
        body.append(abreast(bars, inner))
    elif view.written and rows >= WRITTEN_ROWS:
        body += apart(view, bars, inner)
        if inner < LEAST_BESIDE:
            body[1] = _with_affect(body[1], view, inner)
    else:
        body += together(view, bars, inner)
    spare = rows - 2 - len(body)
    if spare > 0 and view.written:
        body.append(_words(view, inner))
        spare -= 1
    if spare > 2:
        body.insert(1, Text())
        spare -= 1
    if spare > 1 and view.finals:
        body.append(Text())
        spare -= 1
    body += [_past(final, inner) for final in list(reversed(view.finals))[: max(0, spare)]]
    body += [Text()] * (rows - 2 - len(body))
    return [
        _top(view, width),
        *(_framed(line, inner) for line in body),
        fit(Text(f"╰{'─' * (width - 2)}╯", FAINT), width),
    ]


def compact(view: StreamView, bars: Bars, width: int) -> list[Text]:
    """A stream in two rows, of which the first alone will do."""
    name = fit(Text(view.name, DIM if view.closed else BOLD), min(16, max(6, width // 6)))
    first = Text.assemble(" ", _mark(view), " ", name, " ", bar(_loudness(view), 8, LEVEL), "  ")
    for emotion in PUBLISHED:
        first.append(RISING[round(8 * min(1.0, bars.both.get(emotion, 0.0)))], STYLES[emotion])
    first.append("  ")
    first.append_text(fit(_label(view), 25))
    if view.last is not None:
        first.append(f"  a {view.arousal:+.1f}  v {view.valence:+.1f}", DIM)
    second = Text("     ")
    for final in list(reversed(view.finals))[:4]:
        second.append_text(Text.assemble((f"{final.start_s:.1f}-{final.end_s:.1f} ", FAINT), _verdict(final), "   "))
    return [fit(first, width), fit(second, width)]


def _top(view: StreamView, width: int) -> Text:
    state = "ended" if view.closed else "speaking" if view.speaking else "silent"
    left, right = f" {short(view.name, width // 2)} ", f" {view.position_s:.1f} s  {state} "
    line = width - 2 - 2 - cell_len(left) - cell_len(right) - 2
    return fit(
        Text.assemble(
            ("╭─", FAINT), (left, BOLD), ("─" * max(0, line), FAINT), (right, DIM), _mark(view), (" ─╮", FAINT)
        ),
        width,
    )


def _framed(line: Text, inner: int) -> Text:
    return Text.assemble(("│ ", FAINT), fit(line, inner), (" │", FAINT))


def _mark(view: StreamView) -> Text:
    return Text("●", LEVEL) if view.speaking else Text("○", FAINT if view.closed else DIM)


def _meters(view: StreamView, width: int) -> Text:
    room = max(4, (width - 42) // 2)
    line = Text.assemble(
        ("level ", DIM), bar(_loudness(view), room, LEVEL), (f" {view.level_dbfs:4.0f} dB   ", DIM),
        ("speech ", DIM), bar(view.speech, room, LEVEL), (f" {view.speech:.2f}", DIM),
    )  # fmt: skip
    free = max(0, width - line.cell_len)
    line.append(_delay(view, free).rjust(free), DIM)
    return line


def _delay(view: StreamView, free: int) -> str:
    if view.latency_ms is None:
        return ""
    said = f"{view.latency_ms:.0f} ms" if view.latency_ms < 1000 else f"{view.latency_ms / 1000:.1f} s"
    return said + (" behind" if len(said) + len("  behind") <= free else "")


def _headline(view: StreamView, width: int) -> Text:
    last = view.last
    if last is None:
        return Text("listening ..." if not view.closed else "nothing was heard", DIM)
    line = _label(view)
    line.append(f"   {last.stage}  {last.start_s:.2f}-{last.end_s:.2f} s", DIM)
    return fit(line, width)


def _label(view: StreamView) -> Text:
    """The last answer: bold once it is final, dim as long as it may change."""
    if view.last is None:
        return Text("-", FAINT)
    return _verdict(view.last, Style(bold=True) if view.last.final else Style(dim=True))


def _verdict(result: Result, weight: Style = PLAIN) -> Text:
    emotion = result.emotion
    if emotion.label is None:
        return Text(said(result), DIM + weight)
    return Text(said(result), STYLES.get(emotion.label, PLAIN) + weight)


def _with_affect(line: Text, view: StreamView, width: int) -> Text:
    words = f"  a {view.arousal:+.1f}  v {view.valence:+.1f}"
    return Text.assemble(fit(line, max(0, width - len(words))), (words, DIM))


def _words(view: StreamView, width: int) -> Text:
    """What is being said, its end if it is long: what may still change is dim, and all that is not to be trusted."""
    last = view.last
    if last is None or last.text is None:
        return Text()
    text = last.text
    if not words_of(last):
        return Text("no words" if last.final else "", FAINT)
    language = f" {text.language}" if text.language else ""
    doubt = "  not sure of these words" if text.suspect else ""
    before = Text("? " if text.suspect else "", ALERT)
    after = Text.assemble((doubt, FAINT), (language, FAINT))
    quoted = Text.assemble("“", (text.stable, DIM if text.suspect else PLAIN), (text.tail, DIM), "”")
    room = width - before.cell_len - after.cell_len
    return Text.assemble(before, quoted if quoted.cell_len <= room else fit_end(quoted, room), after)


def _past(final: Result, width: int) -> Text:
    span = f"{final.start_s:7.2f}-{final.end_s:<7.2f} "
    line = Text.assemble((span, FAINT), fit(_verdict(final), 26))
    words = words_of(final)
    if not words or width >= WIDE:
        line.append(f"a {final.arousal:+.1f}  v {final.valence:+.1f}  ", DIM)
    if not words:
        line.append(f"{latency_ms(final, 0):4.0f} ms  ", DIM)
    if final.stage == "amended":
        line.append("amended ", FAINT)
    if words:
        assert final.text is not None
        line.append_text(Text.assemble(("? ", ALERT) if final.text.suspect else "", (f"“{words}”", DIM)))
    return fit(line, width)


# --- above and below ----------------------------------------------------------------------------------------------


def header(engine: EngineView, width: int) -> Text:
    left = Text.assemble((f" {engine.title}", BOLD), ("  " + engine.state, LEVEL if engine.state == "ready" else ALERT))
    left.append(f"  {engine.model}" + (f" + {engine.recogniser}" if engine.recogniser else ""), DIM)
    room = width - left.cell_len - 2
    left.append(short(engine.endpoint, room).rjust(room + 1) if room > 8 else "", FAINT)
    return fit(left, width)


def footer(engine: EngineView, width: int) -> Text:
    counters = engine.counters
    sound_s = counters.get("sound_s", 0.0)
    rtf = f"{counters.get('busy_s', 0.0) / sound_s:.3f}" if sound_s else "-"
    lost_s = counters.get("lost_samples", 0) / 16_000
    parts = [
        ("RTF", rtf),
        ("lag", f"{counters.get('loop_lag_ms_p99', 0.0):.1f} ms"),
        ("mem", f"{counters.get('rss_mb', 0.0):.0f} MB"),
        ("streams", f"{counters.get('streams', 0):.0f}"),
        ("replaced", f"{counters.get('replaced', 0):.0f}"),
        ("gaps", f"{counters.get('gaps', 0):.0f}" + (f" ({lost_s:.1f} s)" if lost_s else "")),
    ]
    line = Text(" ")
    for name, value in parts:
        bad = (name == "gaps" and counters.get("gaps", 0) > 0) or (name == "RTF" and rtf != "-" and float(rtf) > 0.8)
        line.append_text(Text.assemble((f"{name} ", FAINT), (value, ALERT if bad else DIM), "  "))
    return fit(line, width)


def _loudness(view: StreamView) -> float:
    return 1 - view.level_dbfs / FLOOR_DBFS
