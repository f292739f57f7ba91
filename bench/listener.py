"""Make a recogniser that really listens, where no hub can be reached: `python -m clser.bench.listener --out DIR`.

A small Whisper learns from what espeak-ng speaks (see `clser.bench.grammar`) for so many minutes on one core. DIR/ct2 is then a
folder for faster-whisper, DIR/transformers the same in the format of transformers. Both are written every few minutes, and
`--resume` goes on from there. The last line tells how well it hears held-out sentences in held-out voices.
"""

import argparse
import math
import sys
import time
from pathlib import Path
from typing import Any, NoReturn

import msgspec
import numpy as np
import torch
from msgspec import Struct

from clser.bench.card import Setup, make_card
from clser.bench.listener_net import FRAME, LONGEST_FRAMES, Loss, Mel, examples, network, write
from clser.bench.listener_score import score
from clser.bench.listener_windows import Speech, Window, window
from clser.clients.commands import shell
from clser.engine.errors import GivenError

ROWS = 32
DRAWN = 8 * ROWS
"""Windows that are drawn at once and sorted by length, so that a batch is of one length."""
WHOLE_PART, WHOLE_ROWS = 0.06, 4
"""Of the batches are padded to the 30 s that faster-whisper pads to."""
RATE, WARM_STEPS = 2.5e-3, 150
LOOK, NAMED = 0.3, 1.0
"""How much the two added losses count."""
SAVE_S = 180.0


class Progress(Struct):
    step: int = 0
    spent_s: float = 0.0


def train(out: Path, seed: int, minutes: float, utterances: int, *, resume: bool, steps: int | None = None) -> Progress:
    """Until the minutes (of all runs together) are over, or so many steps are done."""
    speech, mel = Speech.kept(out / "speech.npz", seed, utterances), Mel()
    loss = Loss(network(seed))
    best = torch.optim.AdamW(loss.parameters(), lr=RATE, betas=(0.9, 0.98), weight_decay=0.01)
    done = Progress()
    if resume and (out / "state.pt").exists():
        done = _load(out, loss, best)
    draw = np.random.default_rng([seed, done.step])
    loss.train()
    batches: list[list[Window]] = []
    told: list[tuple[float, ...]] = []
    began, saved = time.monotonic() - done.spent_s, time.monotonic()
    while (part := (time.monotonic() - began) / (60 * minutes)) < 1 and (steps is None or done.step < steps):
        if not batches:
            batches = _drawn(speech, draw)
        for group in best.param_groups:
            group["lr"] = RATE * min(1, (done.step + 1) / WARM_STEPS) * (0.5 + 0.5 * math.cos(math.pi * part)) + 1e-6
        told.append(_step(loss, best, batches.pop(), mel, draw))
        done.step += 1
        done.spent_s = time.monotonic() - began
        if done.step % 50 == 0:
            losses = " ".join(f"{value:.3f}" for value in np.mean(told, axis=0))
            print(
                f"step {done.step}, {done.spent_s:.0f} s: words, places, frames {losses}", file=sys.stderr, flush=True
            )
            told.clear()
        if time.monotonic() - saved > SAVE_S:
            _save(out, loss, best, done)
            saved = time.monotonic()
    _save(out, loss, best, done)
    return done


def _drawn(speech: Speech, draw: np.random.Generator) -> list[list[Window]]:
    windows = sorted((window(speech, draw) for _ in range(DRAWN)), key=lambda one: len(one.sound))
    batches = [windows[first : first + ROWS] for first in range(0, DRAWN, ROWS)]
    return [batches[place] for place in draw.permutation(len(batches))]


def _step(loss: Loss, best: Any, windows: list[Window], mel: Mel, draw: np.random.Generator) -> tuple[float, ...]:
    if draw.random() < WHOLE_PART:
        windows, frames = windows[:WHOLE_ROWS], LONGEST_FRAMES
    else:
        needed = max(len(one.sound) for one in windows) // FRAME + 2
        frames = min(LONGEST_FRAMES, needed + int(draw.integers(0, 40)))
    with torch.autocast("cpu", torch.bfloat16):
        writes, look, named = loss(examples(windows, mel, draw, frames))
    best.zero_grad()
    (writes + LOOK * look + NAMED * named).backward()
    torch.nn.utils.clip_grad_norm_(loss.parameters(), 1.0)
    best.step()
    return writes.item(), look.item(), named.item()


def _save(out: Path, loss: Loss, best: Any, done: Progress) -> None:
    state = {"loss": loss.state_dict(), "best": best.state_dict(), "done": msgspec.structs.asdict(done)}
    torch.save(state, out / "state.new")
    (out / "state.new").replace(out / "state.pt")
    write(loss.whisper, out)


def _load(out: Path, loss: Loss, best: Any) -> Progress:
    state = torch.load(out / "state.pt", weights_only=True)
    loss.load_state_dict(state["loss"])
    best.load_state_dict(state["best"])
    return Progress(**state["done"])


def _done(out: Path) -> Progress:
    """How far the one in the folder was trained. GivenError if none is there."""
    if not (out / "state.pt").exists():
        raise GivenError(f"--out {out}: no listener was trained there; leave out --score-only")
    return Progress(**torch.load(out / "state.pt", weights_only=True)["done"])


def _parser() -> argparse.ArgumentParser:
    parser = shell.parser("python -m clser.bench.listener", (__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--out", type=Path, required=True, help="folder for the checkpoints; what is there is written over"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--minutes", type=float, default=25.0, help="of training, on one core (default %(default)s)")
    parser.add_argument("--utterances", type=int, default=8000, help="to train on (default %(default)s)")
    parser.add_argument("--resume", action="store_true", help="go on from what an earlier run left in the folder")
    parser.add_argument("--score-only", action="store_true", help="only tell how well the one in the folder hears")
    parser.add_argument("--sentences", type=int, default=100, help="held out, to score it with (default %(default)s)")
    return parser


def main() -> NoReturn:
    shell.run(_main)


def _main() -> int:
    given = _parser().parse_args()
    torch.set_num_threads(1)
    card = make_card("listener", Setup(seed=given.seed))
    print("\n".join(card.lines()), flush=True)
    if given.score_only:
        done = _done(given.out)
    else:
        given.out.mkdir(parents=True, exist_ok=True)
        done = train(given.out, given.seed, given.minutes, given.utterances, resume=given.resume)
    scores = [score(given.out / "ct2", given.seed, given.sentences, compute) for compute in ("int8", "float32")]
    line = {**msgspec.to_builtins(card), "steps": done.step, "trained_s": round(done.spent_s), "scores": scores}
    print(msgspec.json.encode(line).decode(), flush=True)
    return 0


if __name__ == "__main__":
    main()
