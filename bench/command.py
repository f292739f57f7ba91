"""`clser-bench`: what the engine does, in figures. A card first, a table, one JSON line last; progress on standard error."""

import argparse
import importlib
import os
import signal
import sys
from pathlib import Path
from typing import Any, NoReturn

import msgspec

from clser.bench import asr, asr_options, bus, capacity, latency, overload, plot, soak, table_page, unvoiced, vad
from clser.bench.amounts import amount, count, count_or_none, counts
from clser.bench.card import QUIETLY, Setup, make_card
from clser.bench.stats import rounded
from clser.clients.commands import shell
from clser.engine.errors import GivenError, MissingError

Line = dict[str, object]
Outcome = tuple[Line, list[str], plot.Values]
"""What the JSON line holds beside the card, the table for people, and values to draw."""
CORPORA = "CLSER_CORPORA"


def main() -> NoReturn:
    shell.run(_main)


def _main() -> int:
    options = _parser().parse_args()
    shell.set_up_log(options)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that the processes started here are ended too
    measure(options)
    return 0


def measure(options: argparse.Namespace) -> None:
    """Card, table, JSON line; the figures as a picture, if asked for."""
    setup = Setup(options.config, (*QUIETLY, *options.set), options.seed, _corpora(options))
    card = make_card(options.bench, setup)
    print("\n".join(card.lines()), flush=True)
    figures, table, values = options.measure(setup, options)
    print("\n".join(["", *table, ""]))
    line = rounded(msgspec.to_builtins({**msgspec.to_builtins(card), **figures}))
    if options.plot:
        print(plot.draw(line, values, options.plot), file=sys.stderr)
    text = msgspec.json.encode(line).decode()
    if options.json:
        _write("--json", options.json, text + "\n")
    if getattr(options, "markdown", None):
        _write("--markdown", options.markdown, table_page.markdown(line))
    print(text, flush=True)


def _write(asked: str, path: Path, text: str) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    except OSError as error:
        raise GivenError(f"{asked} {path}: {error.strerror}; give a file that can be written") from error


def _latency(setup: Setup, options: argparse.Namespace) -> Outcome:
    count = options.utterances or (latency.SHORT if options.short else latency.UTTERANCES)
    line, values = latency.measure(setup, count)
    return line, latency.table(line), values


def _capacity(setup: Setup, options: argparse.Namespace) -> Outcome:
    line = capacity.measure(setup, options.streams, options.duty, options.seconds)
    return line, capacity.table(line), {}


def _overload(setup: Setup, options: argparse.Namespace) -> Outcome:
    line = overload.measure(setup, options.capacity, options.factor, options.seconds)
    return line, overload.table(line), {}


def _soak(setup: Setup, options: argparse.Namespace) -> Outcome:
    if options.streams is None:
        print(f"--streams is not given: {soak.STREAMS}; give 80 % of what capacity finds here", file=sys.stderr)
    line = soak.measure(setup, options.minutes, options.streams or soak.STREAMS, options.duty, options.kills)
    return line, soak.table(line), {}


def _bus(setup: Setup, options: argparse.Namespace) -> Outcome:
    del setup, options
    line = bus.measure()
    return line, bus.table(line), {}


def _vad(setup: Setup, options: argparse.Namespace) -> Outcome:
    line = vad.measure(setup, options.minutes, options.segments, options.audio)
    return line, vad.table(line), {}


def _asr(setup: Setup, options: argparse.Namespace) -> Outcome:
    line = asr.measure(setup, asr_options.asked(options))
    return line, asr.table(line), {}


def _unvoiced(setup: Setup, options: argparse.Namespace) -> Outcome:
    line = unvoiced.measure(setup, options.minutes)
    return line, unvoiced.table(line), {}


def _accuracy(setup: Setup, options: argparse.Namespace) -> Outcome:
    accuracy = _with_torch("accuracy")
    if setup.corpora is None:
        raise GivenError("the clips that were tested on are needed: give --corpora DIR, or set CLSER_CORPORA")
    if options.markdown and not options.table:
        raise GivenError("--markdown writes a table: give --table NAME too")
    if options.table:
        workshop = _with_torch("workshop")
        shop = workshop.Workshop(setup.corpora, options.cache, tuple(range(setup.seed, setup.seed + options.seeds)))
        found = workshop.measure(options.table, shop, options.row)
        return found, workshop.lines(found), {}
    if not options.runs:
        raise GivenError("nothing to measure: give folders of `clser-models train --fold K`, or --table NAME")
    line = accuracy.measure(setup.corpora, options.runs, options.peer, options.cache)
    return line, accuracy.table(line), {}


def _words(setup: Setup, options: argparse.Namespace) -> Outcome:
    from clser.bench import words  # noqa: PLC0415 - the corpora are read by what most benchmarks do without

    if setup.corpora is None:
        raise GivenError("the texts to test on are needed: give --corpora DIR, or set CLSER_CORPORA")
    line = words.measure(setup.corpora, options.model, options.most, options.peer, setup.seed)
    return line, words.table(line), {}


def _both(setup: Setup, options: argparse.Namespace) -> Outcome:
    both = _with_torch("both")
    if setup.corpora is None:
        raise GivenError("the texts to pair with are needed: give --corpora DIR, or set CLSER_CORPORA")
    line = both.measure(options.runs, options.words, setup.corpora, setup.seed, options.choose)
    return line, both.table(line), {}


def _cost(setup: Setup, options: argparse.Namespace) -> Outcome:
    del setup
    cost = _with_torch("cost")
    line = cost.measure(options.models, options.rows, full_size=options.full_size)
    return line, cost.table(line), {}


def _prosody(setup: Setup, options: argparse.Namespace) -> Outcome:
    prosody = _with_torch("prosody")
    line = prosody.measure(setup, options.reference, options.clips, options.tuned)
    return line, prosody.table(line), {}


def _bimodal(setup: Setup, options: argparse.Namespace) -> Outcome:
    bimodal = _with_torch("bimodal")
    line = bimodal.run(setup, options.threads, options.utterances)
    return line, bimodal.table(line), {}


def _scan(setup: Setup, options: argparse.Namespace) -> Outcome:
    del setup
    scan = _with_torch("scan")
    line = scan.measure(options.lengths)
    return line, scan.table(line), {}


def _with_torch(name: str) -> Any:
    """A benchmark of what is trained: the others do without torch."""
    try:
        importlib.import_module("torch")
        return importlib.import_module(f"clser.bench.{name}")
    except ModuleNotFoundError as error:
        raise MissingError(
            f"clser-bench {name}: {error.name} is not installed; pip install 'clser-stream[torch]'"
        ) from error


def _corpora(options: argparse.Namespace) -> Path | None:
    given = options.corpora or os.environ.get(CORPORA)
    if not given:
        return None
    if not Path(given).is_dir():
        raise GivenError(f"--corpora {given}: there is no such folder")
    return Path(given)


def _parser() -> argparse.ArgumentParser:
    assert __doc__ is not None
    parser = shell.parser("clser-bench", __doc__, "BENCH --help tells of each one's own arguments, with units")
    benches = parser.add_subparsers(dest="bench", required=True, metavar="BENCH")
    _latency_options(benches.add_parser("latency", help="how long one speaker waits", allow_abbrev=False))
    _capacity_options(benches.add_parser("capacity", help="how many streams are carried", allow_abbrev=False))
    _overload_options(benches.add_parser("overload", help="what too many streams do to each other", allow_abbrev=False))
    _soak_options(benches.add_parser("soak", help="whether it holds for hours, workers killed", allow_abbrev=False))
    _bus_options(benches.add_parser("bus", help="what the bus alone costs", allow_abbrev=False))
    _vad_options(benches.add_parser("vad", help="how well speech is found", allow_abbrev=False))
    _recognition_options(benches.add_parser("asr", help="how right recognisers are, how soon", allow_abbrev=False))
    _unvoiced_options(
        benches.add_parser("unvoiced", help="how often an emotion is named where nobody speaks", allow_abbrev=False)
    )
    _accuracy_options(
        benches.add_parser("accuracy", help="how right trained systems are, and a peer", allow_abbrev=False)
    )
    _words_options(
        benches.add_parser("words", help="how much a text model makes of words, and a peer", allow_abbrev=False)
    )
    _both_options(
        benches.add_parser("both", help="what a transcript adds to a voice, right or wrong", allow_abbrev=False)
    )
    _cost_options(benches.add_parser("cost", help="what an answer of each system costs", allow_abbrev=False))
    _prosody_options(benches.add_parser("prosody", help="how well the pitch is found", allow_abbrev=False))
    _bimodal_options(benches.add_parser("bimodal", help="what full-size voice and words cost", allow_abbrev=False))
    _scan_options(benches.add_parser("scan", help="what selective scans cost", allow_abbrev=False))
    return parser


def _common(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--config", default="live", metavar="FILE", help="a shipped config's name, or a YAML file (live)"
    )
    parser.add_argument("--set", action="append", default=[], metavar="SECTION.KEY=VALUE", help="upon it; repeatable")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of all that is drawn by chance (0)")
    parser.add_argument("--json", type=Path, metavar="PATH", help="write the JSON line to this file too")
    parser.add_argument("--plot", type=Path, metavar="DIR", help="draw the figures into this folder, as PNG")
    parser.add_argument(
        "--corpora", metavar="DIR", help=f"emotional speech, a folder a corpus (${CORPORA}; else the bundled clip)"
    )


def _latency_options(parser: argparse.ArgumentParser) -> None:
    _common(parser)
    parser.add_argument("--short", action="store_true", help=f"{latency.SHORT} utterances, no p99 (some 2.5 minutes)")
    parser.add_argument(
        "--utterances", type=count, metavar="N", help=f"how many, apart from the cold first one ({latency.UTTERANCES})"
    )
    parser.set_defaults(measure=_latency)


def _capacity_options(parser: argparse.ArgumentParser) -> None:
    _common(parser)
    parser.add_argument(
        "--streams",
        type=counts,
        default=[1, 8, 32, 64, 100, 128],
        metavar="N,N,...",
        help="how many at once, run after run (1,8,32,64,100,128)",
    )
    parser.add_argument("--duty", type=float, default=1.0, metavar="SHARE", help="of the time that is speech (1.0)")
    parser.add_argument("--seconds", type=amount, default=30.0, metavar="S", help="a run, after 3 s of warm-up (30)")
    parser.set_defaults(measure=_capacity)


def _overload_options(parser: argparse.ArgumentParser) -> None:
    _common(parser)
    parser.add_argument(
        "--capacity", type=count, metavar="N", help="streams that are carried (found out, in runs of 10 s)"
    )
    parser.add_argument(
        "--factor",
        type=amount,
        default=overload.FACTOR,
        metavar="F",
        help=f"so many times that come ({overload.FACTOR:g})",
    )
    parser.add_argument(
        "--seconds",
        type=amount,
        default=overload.SECONDS,
        metavar="S",
        help=f"then the load falls to half of the capacity ({overload.SECONDS:g}, and {overload.AFTER_S:g} after it)",
    )
    parser.set_defaults(measure=_overload)


def _soak_options(parser: argparse.ArgumentParser) -> None:
    _common(parser)
    parser.add_argument(
        "--minutes", type=amount, required=True, metavar="M", help=f"after {soak.WARM_UP_S:.0f} s of warm-up"
    )
    parser.add_argument(
        "--streams", type=count, metavar="N", help=f"how many: 80 %% of what capacity finds ({soak.STREAMS})"
    )
    parser.add_argument("--duty", type=float, default=1.0, metavar="SHARE", help="of the time that is speech (1.0)")
    parser.add_argument(
        "--kills", type=count_or_none, default=0, metavar="K", help="workers to kill, evenly over it (0)"
    )
    parser.set_defaults(measure=_soak)


def _bus_options(parser: argparse.ArgumentParser) -> None:
    _common(parser)
    parser.set_defaults(measure=_bus)


def _vad_options(parser: argparse.ArgumentParser) -> None:
    _common(parser)
    parser.add_argument("--minutes", type=amount, default=vad.MINUTES, metavar="M", help="of mixed sound to make (60)")
    parser.add_argument("--segments", type=Path, metavar="CSV", help="labelled turns: file, start_s, end_s")
    parser.add_argument("--audio", type=Path, metavar="DIR", help="the recordings they name (beside the CSV)")
    parser.set_defaults(measure=_vad)


def _recognition_options(parser: argparse.ArgumentParser) -> None:
    _common(parser)
    asr_options.add(parser, amount)
    parser.set_defaults(measure=_asr)


def _unvoiced_options(parser: argparse.ArgumentParser) -> None:
    _common(parser)
    parser.add_argument(
        "--model", dest="set", action="append", type="model.voice={}".format, metavar="NAME|FILE",
        help="a shipped model or an .onnx file, instead of the config's",
    )  # fmt: skip
    parser.add_argument(
        "--minutes", type=amount, default=unvoiced.MINUTES, metavar="M", help=f"of each kind ({unvoiced.MINUTES:g})"
    )
    parser.set_defaults(measure=_unvoiced)


def _accuracy_options(parser: argparse.ArgumentParser) -> None:
    _common(parser)
    parser.add_argument(
        "runs", nargs="*", type=Path, metavar="DIR", help="what `clser-models train --fold K` left, a folder a fold"
    )
    parser.add_argument(
        "--table", metavar="NAME", help="a published system's table, made here; an unknown name lists them"
    )
    parser.add_argument("--row", action="append", default=[], metavar="NAME", help="of the table, this one; repeatable")
    parser.add_argument("--markdown", type=Path, metavar="PATH", help="of the table: write it to this file, for people")
    parser.add_argument("--seeds", type=count, default=3, metavar="N", help="of the table: so many, from --seed on (3)")
    parser.add_argument("--peer", action="store_true", help="openSMILE and a linear machine on the same folds")
    parser.add_argument(
        "--cache",
        type=Path,
        default=Path("runs/cache"),
        metavar="DIR",
        help="for features, and the runs of a table (runs/cache)",
    )
    parser.set_defaults(measure=_accuracy)


def _both_options(parser: argparse.ArgumentParser) -> None:
    _common(parser)
    parser.add_argument(
        "runs", nargs="+", type=Path, metavar="DIR", help="what `clser-models train --fold K` left, a folder a fold"
    )
    parser.add_argument("--words", type=Path, required=True, metavar="PATH", help="the .onnx of a text model")
    parser.add_argument(
        "--choose", action="append", default=[], metavar="KEY=VALUE", help="another choice of its training"
    )
    parser.set_defaults(measure=_both)


def _words_options(parser: argparse.ArgumentParser) -> None:
    _common(parser)
    parser.add_argument("--model", type=Path, required=True, metavar="PATH", help="the .onnx of a text model")
    parser.add_argument("--peer", action="store_true", help="TF-IDF and logistic regression on the same texts")
    parser.add_argument(
        "--most", type=int, default=60_000, metavar="N", help="texts that a peer is trained on, at most (60000)"
    )
    parser.set_defaults(measure=_words)


def _cost_options(parser: argparse.ArgumentParser) -> None:
    _common(parser)
    parser.add_argument(
        "models", nargs="*", metavar="MODEL", help="a name, an .onnx file or a trained folder (every system that hears)"
    )
    parser.add_argument(
        "--rows", type=counts, default=[1, 8, 64], metavar="N,N,...", help="streams in one call (1,8,64)"
    )
    parser.add_argument(
        "--full-size", action="store_true", help="each system behind a random HuBERT of the base size too"
    )
    parser.set_defaults(measure=_cost)


def _prosody_options(parser: argparse.ArgumentParser) -> None:
    _common(parser)
    parser.add_argument(
        "--reference", choices=("praat", "harvest"), default="praat", help="whose pitch is right (praat)"
    )
    parser.add_argument("--clips", type=count, default=60, metavar="N", help="how many in all (60)")
    parser.add_argument("--tuned", action="store_true", help="the clips that the tracker was tuned on")
    parser.set_defaults(measure=_prosody)


def _bimodal_options(parser: argparse.ArgumentParser) -> None:
    _common(parser)
    parser.add_argument("--threads", type=count, default=2, metavar="N", help="of all computing (2)")
    parser.add_argument("--utterances", type=count, default=5, metavar="N", help="of 5 s each (5)")
    parser.set_defaults(measure=_bimodal)


def _scan_options(parser: argparse.ArgumentParser) -> None:
    _common(parser)
    parser.add_argument(
        "--lengths", type=counts, default=[1, 3, 10, 30, 60, 180, 600], metavar="S,S,...",
        help="seconds of sound (1,3,10,30,60,180,600)",
    )  # fmt: skip
    parser.set_defaults(measure=_scan)


if __name__ == "__main__":
    sys.argv[0] = "clser-bench"
    main()
