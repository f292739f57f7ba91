"""The commands as people and scripts run them: as processes."""

import asyncio
import importlib
import json
import os
import re
import select
import signal
import subprocess
import sys
import termios
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import soundfile

from clser.clients.clips import demo_clip
from clser.clients.commands import stream
from clser.clients.commands.shell import Parser, parser
from clser.clients.console import ENTER, LEAVE, Console
from clser.engine.asr import AsrConfig
from clser.engine.config import Config
from clser.engine.records import Result
from clser.engine.wire import decode

COMMANDS = ("stream", "watch", "models")
DEMO = ("--demo", "--pace", "fast", "--bind", "", "--asr", "off")


@pytest.fixture(scope="module")
def runtime(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """An environment whose sockets are nobody else's."""
    folder = tmp_path_factory.mktemp("run")
    yield {**os.environ, "XDG_RUNTIME_DIR": str(folder), "COLUMNS": "100"}


def command(name: str, *arguments: str) -> list[str]:
    return [sys.executable, "-m", f"clser.clients.commands.{name}", *arguments]


def ran(runtime: dict[str, str], name: str, *arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        command(name, *arguments), env=runtime, capture_output=True, text=True, timeout=60, check=False,
        stdin=subprocess.DEVNULL,
    )  # fmt: skip


WRONG = [
    ("stream", ["--nonsense"], 2, "unrecognized arguments: --nonsense"),
    ("stream", ["--workers", "many"], 2, "invalid int value: 'many'"),
    ("stream", ["--duration", "-1"], 2, "invalid seconds value: '-1'"),
    ("stream", ["--demo", "--set", "asr.recogniser=3"], 2, "asr.recogniser"),
    ("stream", ["--demo", "--set", "segment.end=1"], 2, "did you mean segment.end_ms"),
    ("stream", ["--demo", "--config", "nope.yaml"], 2, "give the path of a readable YAML file"),
    ("stream", ["--device", "file:/nowhere/speech.wav"], 2, "/nowhere/speech.wav"),
    ("stream", ["--device", "radio:1"], 2, "radio:1"),
    ("stream", ["--device", "file:" + __file__], 2, "test_commands.py"),
    ("stream", ["--demo", "--model", "nope"], 3, "model 'nope' is unknown"),
    ("watch", ["--kind", "weather"], 2, "invalid choice: 'weather'"),
    ("watch", ["--stream", "a/b"], 2, "1 to 64 of"),
    ("watch", ["--connect", "nonsense"], 2, "give auto"),
    ("watch", ["--connect", "tcp://192.0.2.1:5556", "--replay", "5"], 2, "without one there is no past"),
    ("watch", ["--connect", "tcp://192.0.2.1:5556", "--keys", "/nowhere"], 2, "clser-watch keys new DIR"),
    ("watch", ["keys"], 2, "required: new"),
    ("watch", ["keys", "new", "/proc/nowhere"], 2, "give a folder that can be written"),
    ("watch", ["ask"], 2, "required: OP"),
    ("watch", ["ask", "mute", "stream"], 2, "write KEY=VALUE"),
    ("watch", ["ask", "reload", "set=[a"], 2, "no YAML value"),
    ("watch", ["ask", "live", "--connect", "tcp://192.0.2.1:5556"], 2, "give its endpoint with --control"),
    ("watch", ["ask", "live", "--connect", "ipc:///nowhere/bus"], 3, "no engine answers at ipc:///nowhere/bus.control"),
    ("models", [], 2, "ACTION"),
    ("models", ["show", "nope"], 3, "model 'nope' is unknown"),
    ("models", ["list", "--nonsense"], 2, "unrecognized arguments"),
]


@pytest.mark.parametrize("case", WRONG, ids=[" ".join((name, *given)) for name, given, _, _ in WRONG])
def test_what_is_wrong_is_one_line(
    runtime: dict[str, str],
    case: tuple[str, list[str], int, str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """In this process, since most of a command's life is importing; `test_in_a_process` sees that it is the same there."""
    name, arguments, code, says = case
    module = importlib.import_module(f"clser.clients.commands.{name}")
    monkeypatch.setattr(sys, "argv", [f"clser-{name}", *arguments])
    monkeypatch.setattr(module, "set_up_log", lambda *_: None)
    monkeypatch.setenv("XDG_RUNTIME_DIR", runtime["XDG_RUNTIME_DIR"])
    with pytest.raises(SystemExit) as over:
        module.main()
    assert over.value.code == code
    said = capsys.readouterr()
    assert said.out == ""
    (line,) = said.err.splitlines()
    assert line.startswith(f"clser-{name}: ")
    assert says in line


@pytest.mark.parametrize(
    "case",
    [
        ("stream", ["--help"], 0, r"usage: clser-stream ", r"$"),
        ("watch", ["--version"], 0, r"clser-stream \S.*\n$", r"$"),
        ("models", ["--help"], 0, r"usage: clser-models ", r"$"),
        ("watch", ["--nonsense"], 2, r"$", r"clser-watch: unrecognized arguments: --nonsense.*\n$"),
        ("stream", ["--device", "file:/nowhere"], 2, r"$", r"clser-stream: .*/nowhere.*\n$"),
        ("stream", ["--demo", "--model", "nope"], 3, r"$", r"clser-stream: model 'nope' is unknown.*\n$"),
    ],
)
def test_in_a_process(runtime: dict[str, str], case: tuple[str, list[str], int, str, str]) -> None:
    name, arguments, code, out, err = case
    over = ran(runtime, name, *arguments)
    assert over.returncode == code
    assert re.match(out, over.stdout)
    assert re.match(err, over.stderr)


def test_a_port_in_use(runtime: dict[str, str]) -> None:
    import zmq

    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    with context, context.socket(zmq.PUB) as socket:
        port = socket.bind_to_random_port("tcp://127.0.0.1")
        over = ran(runtime, "stream", "--demo", "--bind", f"tcp://127.0.0.1:{port}")
    assert over.returncode == 3
    assert "--bind" in over.stderr.splitlines()[-1]


def test_json_gives_the_finals_and_nothing_else(runtime: dict[str, str]) -> None:
    over = ran(runtime, "stream", *DEMO, "--json")
    assert (over.returncode, over.stderr) == (0, "")
    results = [json.loads(line) for line in over.stdout.splitlines()]
    assert {result["kind"] for result in results} == {"result"}
    finals = [result for result in results if result["stage"] == "final"]
    assert [result["utterance"] for result in finals] == list(range(1, 9))
    assert ": " not in over.stdout.splitlines()[0], "compact"


def test_json_all_gives_every_kind(runtime: dict[str, str]) -> None:
    over = ran(runtime, "stream", *DEMO, "--json=all")
    assert over.returncode == 0
    messages = [decode(line.encode()) for line in over.stdout.splitlines()]
    assert {type(message).__name__ for message in messages} == {"Result", "Speech", "Frame", "Status"}
    assert getattr(messages[-1], "event", "") in ("stopping", "closed")


def test_plain_lines_where_there_is_no_terminal(runtime: dict[str, str]) -> None:
    over = ran(runtime, "stream", *DEMO)
    assert (over.returncode, over.stderr) == (0, "")
    assert len(over.stdout.splitlines()) == 8
    assert all(line.startswith("demo ") and line.endswith(" ms") for line in over.stdout.splitlines())


def test_the_console_in_a_real_terminal(runtime: dict[str, str]) -> None:
    master, slave = os.openpty()
    termios.tcsetwinsize(slave, (24, 80))
    before = termios.tcgetattr(slave)
    environment = {**runtime, "TERM": "xterm-256color"} | {"COLUMNS": "80", "LINES": "24"}
    process = subprocess.Popen(command("stream", *DEMO), env=environment, stdin=slave, stdout=slave, stderr=slave)
    seen = b""
    while process.poll() is None or select.select([master], [], [], 0)[0]:
        if select.select([master], [], [], 0.05)[0]:
            seen += os.read(master, 65_536)
    after = termios.tcgetattr(slave)
    os.close(master)
    os.close(slave)
    assert process.returncode == 0
    assert after == before
    picture, _, left = seen.decode().partition(LEAVE)
    assert picture.startswith(ENTER)
    assert "demo" in picture
    assert len(left.splitlines()) == 8
    assert "\x1b" not in left


SCRIBE = """
from clser.engine.jobs import RecogniserCard, Word, Words

class Scribe:
    card = RecogniserCard("scribe", step_ms=250)

    def __init__(self):
        self.heard = {}

    def run(self, rows, pcm):
        return [self.write(row) for row in rows]

    def write(self, row):
        heard = self.heard[row.slot] = row.frames + (0 if row.fresh else self.heard[row.slot])
        words = tuple(Word(f" word{n}", n * 8000, n * 8000 + 8000, 0.9) for n in range(heard // 8000))
        return Words(words, len(words) if row.last else 0, "en", 0.9, False, whole=row.anew or row.last)

def open_recogniser(name, compute, config):
    assert config.language == "en"
    return Scribe()
"""


def test_words_of_a_recogniser_of_ones_own(runtime: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "scribe.py").write_text(SCRIBE)
    environment = {**runtime, "PYTHONPATH": str(tmp_path)}
    said = ("--asr", "own.scribe", "--language", "en")
    over = ran(environment, "stream", *DEMO[:-2], *said, "--json", "--log-level", "info")
    assert over.returncode == 0, over.stderr
    results = [decode(line.encode()) for line in over.stdout.splitlines()]
    finals = {result.utterance: result for result in results if isinstance(result, Result) and result.final}
    assert len(finals) == 8
    for final in finals.values():
        assert final.text is not None
        assert final.text.stable.startswith("word0 word1 word2")
        assert final.text.tail == ""
    (told,) = [line for line in over.stderr.splitlines() if "recogniser " in line]
    assert "name=scribe" in told


def test_who_writes_is_asked_for_by_name_and_language() -> None:
    given = stream._parser().parse_args(["--asr", "whisper:base", "--language", "pl"])
    assert stream._overrides(given) == ['asr.recogniser="whisper:base"', 'asr.language="pl"']
    assert stream._overrides(stream._parser().parse_args([])) == []


class _Deaf:
    """Stands for an engine in which nobody writes."""

    def __init__(self, recogniser: str, name: str | None = None) -> None:
        self.config = Config(asr=AsrConfig(recogniser=recogniser))
        self._name = name

    def describe(self) -> dict[str, Any]:
        return {"recogniser": {"name": self._name, "why": "install something"}}


@pytest.mark.parametrize(
    ("engine", "note"),
    [(_Deaf("auto"), "no words: install something"), (_Deaf("off"), ""), (_Deaf("auto", "sphinx"), "")],
)
def test_where_nobody_writes_the_console_says_what_would_help(engine: Any, note: str) -> None:
    console = Console()
    stream._tell_of_words(engine, "console", console)
    assert console._view.note == note
    assert console._view.recogniser == (engine._name or "")


def test_raw_sound_on_standard_input(runtime: dict[str, str]) -> None:
    pcm, rate = soundfile.read(demo_clip(), dtype="float32", frames=5 * 16_000)
    raw = ("--device", "piped=stdin", "--format", "f32", "--rate", str(rate), "--bind", "", "--asr", "off", "--json")
    over = subprocess.run(
        command("stream", *raw),
        env=runtime, input=pcm.tobytes(), capture_output=True, timeout=60, check=False,
    )  # fmt: skip
    assert over.returncode == 0, over.stderr
    finals = [json.loads(line) for line in over.stdout.splitlines() if b'"final"' in line]
    assert [final["stream"] for final in finals] == ["piped", "piped"]
    assert finals[-1]["reason"] == "closed"


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 0)])
def test_signals_drain(runtime: dict[str, str], number: signal.Signals, code: int) -> None:
    """Stopped in mid-speech: what was open gets its final, and it is printed."""
    process = subprocess.Popen(
        command("stream", "--demo", "--json", "--bind", "", "--asr", "off"), env=runtime,
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    first = json.loads(process.stdout.readline())
    assert first["stage"] == "partial"
    process.send_signal(number)
    out, err = process.communicate(timeout=30)
    assert (process.returncode, err) == (code, "")
    last = json.loads(out.splitlines()[-1])
    assert (last["stage"], last["utterance"], last["reason"]) == ("final", 1, "closed")


def test_a_reader_that_has_had_enough(runtime: dict[str, str]) -> None:
    process = subprocess.Popen(
        command("stream", *DEMO, "--json=all"), env=runtime, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout is not None
    process.stdout.readline()
    process.stdout.close()
    assert process.wait(30) == 0
    assert process.stderr is not None
    assert process.stderr.read() == b""
    process.stderr.close()


def test_watch_shows_what_an_engine_publishes(runtime: dict[str, str]) -> None:
    watching = subprocess.Popen(
        command("watch", "--json"), env=runtime, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    over = ran(runtime, "stream", "--demo", "--duration", "1.4", "--asr", "off", "--json")
    assert over.returncode == 0
    assert json.loads(over.stdout.splitlines()[-1])["stage"] == "final", "what was open when the time was over"
    assert watching.stdout is not None
    with_patience = threading.Timer(20, watching.kill)
    with_patience.start()
    last = over.stdout.splitlines()[-1]
    assert any(line.strip() == last for line in watching.stdout), "it ended before it had seen the final"
    with_patience.cancel()
    watching.send_signal(signal.SIGINT)
    watching.communicate(timeout=30)
    assert watching.returncode == 130


@pytest.mark.slow
def test_watch_begins_with_the_past_and_asks_an_engine(runtime: dict[str, str]) -> None:
    speaking = subprocess.Popen(
        command("stream", "--demo", "--asr", "off", "--json"),
        env=runtime,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert speaking.stdout is not None
    first = speaking.stdout.readline()
    watched = ran(runtime, "watch", "--json", "--replay", "60", "--duration", "1")
    asked = ran(runtime, "watch", "ask", "ready")
    refused = ran(runtime, "watch", "ask", "mute", "stream=nobody")
    speaking.send_signal(signal.SIGINT)
    speaking.communicate(timeout=30)
    assert (watched.returncode, watched.stdout.splitlines()[0], watched.stderr) == (0, first.strip(), "")
    assert json.loads(asked.stdout)["ready"] is True
    assert refused.returncode == 2
    assert "the engine refuses mute" in refused.stderr


def test_watch_says_that_nobody_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    from clser.clients.commands import watch

    monkeypatch.setattr(watch, "QUIET_S", 0.05)
    given = watch._parser().parse_args(["--connect", f"ipc://{tmp_path}/nobody", "--duration", "0.3"])
    assert asyncio.run(watch._watch(given, "lines")) == 0
    said = capfd.readouterr()
    assert said.out == ""
    assert said.err.count("no engine at ipc://") == 1


def test_models(runtime: dict[str, str]) -> None:
    listed = ran(runtime, "models", "list", "--json")
    assert listed.returncode == 0
    (voice,) = [model for model in json.loads(listed.stdout)["models"] if model["name"] == "voice"]
    assert "anger" in voice["heads"]
    assert voice["bytes"] > 100_000
    shown = ran(runtime, "models", "show", "voice")
    assert shown.returncode == 0
    assert voice["digest"] in shown.stdout


def test_doctor(runtime: dict[str, str]) -> None:
    over = ran(runtime, "models", "doctor", "--json")
    report = json.loads(over.stdout)
    assert over.returncode == (0 if report["ok"] else 3)
    found = {finding["what"]: finding for finding in report["findings"]}
    assert found["default model"]["ok"]
    assert all(finding["ok"] or finding["hint"] or not finding["needed"] for finding in report["findings"])
    plain = ran(runtime, "models", "doctor")
    assert "the default path works" in plain.stdout


def test_doctor_notices_the_plain_runtime_lying_over_the_one_with_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    from clser.clients.commands import doctor
    from clser.engine.backends import probe

    monkeypatch.setattr(probe, "distribution", lambda name: "1.20" if name.startswith("onnxruntime") else "")
    found = {finding.what: finding for finding in doctor.findings()}
    assert not found["onnxruntime"].ok
    assert 'pip install --force-reinstall --no-deps "onnxruntime-gpu==1.20"' in found["onnxruntime"].hint


def test_no_torch_is_imported_by_any_command() -> None:
    lines = [f"import clser.clients.commands.{name}" for name in COMMANDS]
    code = "; ".join(["import sys", *lines, "sys.exit('torch' in sys.modules or 'onnxruntime' in sys.modules)"])
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=60).returncode == 0


def test_arguments_have_no_abbreviations(capsys: pytest.CaptureFixture[str]) -> None:
    made = parser("clser-stream", "")
    assert isinstance(made, Parser)
    with pytest.raises(SystemExit):
        made.parse_args(["--log-lev", "info"])
    assert capsys.readouterr().err.count("\n") == 1
