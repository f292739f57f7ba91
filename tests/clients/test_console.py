"""The console: what it draws of every message, at any size, and what it leaves of the terminal."""

import io
import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console as Terminal
from samples import COUNTERS, NOW_US, every_kind, frame, probabilities, result, status

from clser.clients.console import LEAVE, Console, usable
from clser.clients.draw import picture
from clser.clients.strokes import bar, gauge
from clser.clients.views import FINALS_KEPT, MOST_STREAMS, EngineView
from clser.engine.records import Message, Speech
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


def test_partials_are_dim_and_finals_bold() -> None:
    from clser.clients.draw import _verdict, framed
    from clser.clients.views import StreamView

    view = StreamView("kitchen")
    for stage, styles in (("partial", "dim"), ("tentative", "dim"), ("final", "bold")):
        view.take(result(stage=stage), NOW_US)  # type: ignore[arg-type]
        line = next(line for line in framed(view, view.bars, 80, 11) if "anger 0.71" in line.plain)
        assert any(styles in str(span.style) for span in line.spans)
    assert _verdict(result(label=None)).plain == "not sure (neutral 0.71)"


def test_latency_is_measured_to_now_until_the_final_says_its_own() -> None:
    assert "42 ms behind" in drawn([result(stage="partial")])
    assert "12 ms behind" in drawn([result()])


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
