"""The console: what it draws of every message, at any size, and what it leaves of the terminal."""

import io
import itertools
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console as Terminal
from rich.text import Text as Line
from samples import (
    COUNTERS,
    DOUBTFUL,
    NOTHING,
    NOW_US,
    TEXT,
    every_kind,
    frame,
    probabilities,
    result,
    status,
    worded,
)

from clser.clients.console import LEAVE, Console, usable
from clser.clients.draw import FULL_ROWS, WRITTEN_ROWS, framed, picture
from clser.clients.strokes import bar, fit_end, gauge
from clser.clients.views import FINALS_KEPT, MOST_STREAMS, EngineView, StreamView
from clser.engine.records import Message, Model, Speech, Text
from clser.models.labels import PUBLISHED


def terminal(width: int = 80, height: int = 24, **settings: object) -> Terminal:
    return Terminal(
        file=io.StringIO(), width=width, height=height, record=True, legacy_windows=False, _environ={}, **settings
    )  # type: ignore[arg-type]


def settled(console: Console) -> None:
    """Let the bars arrive where they are moving to."""
    while console._changed:
        console._changed = console._ease()


def drawn(messages: list[Message], width: int = 80, height: int = 24) -> str:
    screen = terminal(width, height)
    console = Console(terminal=screen, unix_us=lambda: NOW_US)
    for message in messages:
        console.show(message)
    settled(console)
    screen.print(console)
    return screen.export_text()


@pytest.mark.parametrize("size", [(80, 24), (120, 40), (60, 12), (40, 10), (20, 3), (300, 90)])
@pytest.mark.parametrize("streams", [0, 1, 2, 3, 5, 12, 60])
def test_every_line_is_as_wide_as_the_terminal(size: tuple[int, int], streams: int) -> None:
    engine = EngineView("clser-stream", "ipc:///run/user/1000/clser/results", "voice 01234567")
    for number in range(streams):
        for message in every_kind(f"stream{number}"):
            engine.take(message, NOW_US)
    for note in ("", "worker 0 is back"):
        lines = picture(engine, {}, *size, note)
        assert [line.cell_len for line in lines] == [size[0]] * size[1]


@pytest.mark.parametrize("size", [(80, 24), (120, 40)])
def test_one_stream_shows_all_there_is(size: tuple[int, int]) -> None:
    messages = [message for message in every_kind("kitchen") if getattr(message, "event", "") != "closed"]
    text = drawn([*messages, frame(seq=3, probabilities=probabilities("fear", 0.62))], *size)
    for part in ("kitchen", "level", "-20 dB", "speech", "happiness 0.55", "amended", "How dare you say 你好"):
        assert part in text
    for part in (
        "arousal +0.60",
        "valence -0.50",
        "RTF 0.040",
        "lag 1.2 ms",
        "mem 240 MB",
        "replaced 3",
        "gaps 2 (1.0 s)",
    ):
        assert part in text
    for name in PUBLISHED:
        assert name in text
    fear = next(line for line in text.splitlines() if "fear " in line)
    assert fear.count("█") > 10
    assert "0.62" in fear


def seen(*messages: Message) -> StreamView:
    view = StreamView("kitchen")
    for message in messages:
        view.take(message, NOW_US)
    return view


def rows(view: StreamView, width: int = 100, height: int = 24) -> list[str]:
    lines = framed(view, view.bars, width, height)
    assert [line.cell_len for line in lines] == [width] * height
    return [line.plain for line in lines]


@pytest.mark.parametrize("width", [60, 76, 80, 100, 120, 240])
def test_where_words_count_there_are_three_bars_of_each_emotion(width: int) -> None:
    lines = rows(seen(worded(label="anger", confidence=0.7, best="fear")), width)
    head = next(line for line in lines if "both" in line)
    assert "voice 0.62 " in head
    assert "words 0.38 " in head
    at_voice, at_words = head.index("voice"), head.index("words")
    for name, said_by in (("anger", at_voice), ("fear", at_words)):
        line = next(line for line in lines if line.startswith(f"│ {name:<10}") and "partial" not in line)
        small = {at: line[at : at + 10].count("█") for at in (at_voice, at_words)}
        assert small[said_by] > 5 > small[at_voice + at_words - said_by], line
    assert any("arousal" in line for line in lines) == (width >= 74)
    assert any("a +0.6" in line for line in lines) == (width < 74)


def test_the_bars_of_words_are_empty_until_the_words_of_the_next_utterance_come() -> None:
    lines = rows(seen(worded("final"), result(stage="partial", seq=3, utterance=2)))
    head = next(line for line in lines if "both" in line)
    assert "voice 1.00" in head
    assert "words   " in head
    fear = next(line for line in lines if line.startswith("│ fear"))
    assert set(fear[head.index("words") :][:10]) == {"·"}


def test_without_words_nothing_is_kept_free_for_them() -> None:
    assert not any("voice 1.00" in line for line in rows(seen(result(), result(utterance=2, seq=2))))


@pytest.mark.parametrize("height", [5, 6, FULL_ROWS, WRITTEN_ROWS - 1, WRITTEN_ROWS])
def test_where_it_is_low_the_words_go_before_the_emotions_do(height: int) -> None:
    lines = rows(seen(worded()), 80, height)
    assert any("both" in line for line in lines) == (height == WRITTEN_ROWS)
    assert any("How dare you" in line for line in lines) == (height not in (5, FULL_ROWS))
    assert any("dis" in line for line in lines)


def test_what_may_still_change_is_dim_and_so_is_what_is_not_to_be_trusted() -> None:
    def line(text: Text) -> Line:
        view = seen(worded(text=text))
        return next(each for each in framed(view, view.bars, 120, 20) if "“" in each.plain)

    trusted = line(TEXT)
    assert trusted.plain.strip("│ ") == "“How dare you say 你好” en"
    assert "#7d8590" not in styles(trusted, "How dare")
    assert "#7d8590" in styles(trusted, "say")
    doubtful = line(DOUBTFUL)
    assert doubtful.plain.strip("│ ") == "? “wreck a nice beach”  not sure of these words"
    assert "#7d8590" in styles(doubtful, "wreck")


def styles(line: Line, part: str) -> str:
    at = line.plain.index(part)
    return " ".join(str(span.style) for span in line.spans if span.start <= at < span.end)


def test_of_a_long_text_the_newest_words_are_seen() -> None:
    text = Text(stable="never mind " * 30, tail="the very end", language="en", confidence=0.9, suspect=False)
    (line,) = [line for line in rows(seen(worded(text=text)), 80) if "“" in line or "”" in line]
    assert line.startswith("│ …")
    assert "mind the very end” en" in line


def test_where_no_word_was_heard_it_says_so_at_the_end_only() -> None:
    assert not any("no words" in line for line in rows(seen(result(stage="partial", text=NOTHING))))
    assert any("no words" in line for line in rows(seen(result(text=NOTHING))))


def test_finals_of_the_past_have_their_words() -> None:
    view = seen(
        result(utterance=1, text=NOTHING),
        result(utterance=2, seq=2, text=NOTHING),
        worded("amended", 3, utterance=2),
        worded("final", 4, utterance=3, text=DOUBTFUL),
    )
    past = [line for line in rows(view, 80, 20) if "0.34-3.68  " in line and "final" not in line]
    assert "? “wreck a nice beach”" in past[0]
    assert "amended “How dare you say 你好”" in past[1]
    assert len(past) == 3, "what was amended took the place of what it amends"


def test_what_amends_an_older_utterance_does_not_hide_the_one_being_heard() -> None:
    growing = result(stage="partial", seq=2, utterance=2, label="fear")
    view = seen(result(utterance=1), growing, worded("amended", 3, utterance=1))
    assert view.last == growing
    assert view.bars.words == {}
    assert [final.stage for final in view.finals] == ["amended"]


def test_the_continuous_track_moves_the_voice_and_leaves_what_words_said() -> None:
    said = worded(utterance=1)
    view = seen(said, frame(seq=2, utterance=1, probabilities=probabilities("sadness"), arousal=0.1))
    assert view.bars.both == said.emotion.probabilities
    assert view.bars.voice == probabilities("sadness")
    assert said.words is not None
    assert view.bars.words == said.words.probabilities
    assert view.arousal == said.arousal
    view.take(frame(seq=3, utterance=2, probabilities=probabilities("sadness"), arousal=0.1), NOW_US)
    assert view.bars == (probabilities("sadness"), probabilities("sadness"), {})
    assert view.arousal == 0.1


def test_bars_of_words_sink_to_nothing() -> None:
    console = Console(terminal=terminal(), unix_us=lambda: NOW_US)
    console.show(worded())
    settled(console)
    console.show(result(stage="partial", seq=3, utterance=2))
    console._ease()
    assert 0 < console._eased["kitchen"].words["fear"] < 0.9
    settled(console)
    assert set(console._eased["kitchen"].words.values()) == {0.0}


def test_who_writes_is_told_above() -> None:
    screen = terminal(100)
    console = Console(terminal=screen)
    console.show(status("ready", detail="voice 0123456789abcdef"))
    console.writes("sphinx")
    screen.print(console)
    assert "voice 0123456789abcdef + sphinx" in screen.export_text()


def test_partials_are_dim_and_finals_bold() -> None:
    from clser.clients.draw import _verdict

    view = StreamView("kitchen")
    for stage, styles in (("partial", "dim"), ("tentative", "dim"), ("final", "bold")):
        view.take(result(stage=stage), NOW_US)  # type: ignore[arg-type]
        line = next(line for line in framed(view, view.bars, 80, 11) if "anger 0.71" in line.plain)
        assert any(styles in str(span.style) for span in line.spans)
    assert _verdict(result(label=None)).plain == "not sure (neutral 0.71)"


def test_latency_is_measured_to_now_until_the_final_says_its_own() -> None:
    assert "42 ms behind" in drawn([result(stage="partial")])
    assert "12 ms behind" in drawn([result()])
    late = result(stage="partial", captured_unix_us=NOW_US - 12_340_000)
    assert re.search(r" 0\.00 +12\.3 s │", drawn([late])), "more words would touch what stands before them"


def test_several_streams_share_the_screen() -> None:
    for count, size in itertools.product((2, 3, 8, 21, 200), ((80, 24), (120, 40))):
        messages = [message for number in range(count) for message in every_kind(f"s{number}")[:-1]]
        text = drawn(messages, *size)
        assert text.count("happiness") >= 1
        if count <= 21:
            assert all(f"s{number} " in text for number in range(count)), (count, size)
        else:
            assert "more, quiet for longer" in text
            assert f"s{count - 1} " in text


def test_a_stream_that_ended_says_so_and_makes_room() -> None:
    text = drawn(every_kind("kitchen"))
    assert "ended" in text
    busy = [message for number in range(21) for message in every_kind(f"live{number}")[:-1]]
    assert "kitchen" not in drawn([*every_kind("kitchen"), *busy])


def test_a_note_is_shown_for_a_while() -> None:
    assert "engine" not in drawn([status()])
    assert "worker lost: worker 0: it was killed" in drawn([status("worker_lost", detail="worker 0: it was killed")])


def test_another_engine_clears_the_picture() -> None:
    view = EngineView("clser-watch")
    for message in every_kind("kitchen"):
        view.take(message, NOW_US)
    view.take(status(epoch=2), NOW_US)
    assert view.streams == ()
    assert view.counters == {}


def test_views_are_bounded() -> None:
    view = EngineView("clser-watch")
    for number in range(MOST_STREAMS + 10):
        view.take(frame(f"s{number}"), NOW_US)
    assert len(view.streams) == MOST_STREAMS
    for number in range(FINALS_KEPT + 10):
        view.take(result("talker", number + 1), NOW_US)
    assert len(view.streams[-1].finals) == FINALS_KEPT


def test_speech_marks() -> None:
    started = Speech(stream="kitchen", epoch=1, seq=1, utterance=1, event="started", sample=0, at_s=0.0)
    assert "speaking ●" in drawn([started])
    assert "silent ○" in drawn([started, every_kind("kitchen")[7]])


@given(st.floats(-2, 2), st.integers(1, 200))
def test_strokes_have_the_width_they_should(value: float, width: int) -> None:
    assert bar(value, width, "red").cell_len == width  # type: ignore[arg-type]
    assert gauge(value, width).cell_len == max(3, width - 1 + width % 2)


@given(st.text(st.sampled_from("ab 你好é"), max_size=40), st.integers(1, 30))
def test_the_end_of_a_line_fits(words: str, width: int) -> None:
    line = fit_end(Line(words), width)
    assert line.cell_len == width
    kept = line.plain.removeprefix("…").rstrip()
    assert words.rstrip().endswith(kept)


def test_only_what_changed_is_written() -> None:
    screen = terminal(force_terminal=True, color_system="truecolor")
    console = Console(terminal=screen, unix_us=lambda: NOW_US)
    console.show(status())
    console.show(result())
    while console._changed:
        console.paint()
    out = screen.file
    assert isinstance(out, io.StringIO)
    out.truncate(0)
    console.paint()
    assert out.getvalue() == "", "nothing new, nothing written"
    console.show(status(counters=COUNTERS))
    console.paint()
    assert 0 < out.getvalue().count("\x1b[24;1H") == out.getvalue().count(";1H"), "the footer alone"


def test_the_terminal_is_as_before_and_the_finals_stay() -> None:
    screen = terminal(force_terminal=True, color_system="truecolor")
    with pytest.raises(RuntimeError), Console(terminal=screen) as console:
        console.show(result())
        console.show(result(seq=2, stage="partial"))
        raise RuntimeError
    out = screen.file
    assert isinstance(out, io.StringIO)
    after = out.getvalue().split(LEAVE)[1]
    assert after.startswith("kitchen   0.34-3.68 s")
    assert after.count("\n") == 1


def test_of_what_was_amended_the_amended_is_left() -> None:
    screen = terminal(force_terminal=True, color_system="truecolor")
    with Console(terminal=screen) as console:
        console.show(result(utterance=1))
        console.show(result(utterance=2, seq=2))
        console.show(worded("amended", 3, utterance=1))
    out = screen.file
    assert isinstance(out, io.StringIO)
    left = out.getvalue().split(LEAVE)[1].splitlines()
    assert ["(amended)" in line for line in left] == [True, False]


def test_no_colour_where_none_is_wanted() -> None:
    screen = terminal(force_terminal=True, color_system="truecolor", no_color=True)
    console = Console(terminal=screen)
    console.show(result())
    console.paint()
    out = screen.file
    assert isinstance(out, io.StringIO)
    assert "38;2" not in out.getvalue()


def test_where_the_console_can_be_drawn() -> None:
    assert not usable(terminal())
    assert usable(Terminal(file=_Utf8(), force_terminal=True, _environ={"TERM": "xterm"}))
    assert not usable(Terminal(file=_Utf8(), force_terminal=True, _environ={"TERM": "dumb"}))


class _Utf8(io.StringIO):
    encoding = "utf-8"


def test_what_answers_is_told_with_its_delta() -> None:
    view = EngineView("clser-stream")
    adapted = Model("voice", "0123456789abcdef+fedcba987654")
    for model, shown in ((result().model, "voice 01234567"), (adapted, "voice 01234567+fedcba98")):
        view.take(result(model=model), NOW_US)
        assert view.model == shown
