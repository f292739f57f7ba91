"""Which of the utterances that were sent got no final, and which got two. Pure.

The engine under load is not asked. What was sent is known from an undisturbed pass over the same sound (`reference`):
for each place of the scene at which a stream begins, the utterances up to the scene's end, and then those of every
further round, which are the same ones since the scene ends in a pause and its frames fall alike in each round.
"""

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from msgspec import Struct

from clser.bench.account import Account, Final
from clser.bench.load import Ledger
from clser.bench.scene import PACKET
from clser.engine.records import samples

LEAST_CLIPPED = samples(1000)
"""The utterance in which a stream was closed must have a final when so much of it was sent; of less, it may."""


class Span(NamedTuple):
    """Where speech begins and ends, in samples."""

    onset: int
    offset: int
    sure: bool = True
    """Whether it must have a final."""


class Reference(Struct, frozen=True):
    packets: int
    """Of the scene."""
    first: dict[int, tuple[Span, ...]]
    """By the packet a stream begins with: its utterances until the scene ends, counted from that packet."""
    round: tuple[Span, ...]
    """Those of each further round, counted from its start."""

    def expected(self, phase: int, packets: int) -> list[Span]:
        """The utterances of a stream that sent so many packets."""
        end = packets * PACKET
        at = (self.packets - phase) * PACKET
        spans = list(self.first[phase])
        while at < end:
            spans += [Span(at + span.onset, at + span.offset) for span in self.round]
            at += self.packets * PACKET
        return [
            span if span.offset <= end else Span(span.onset, end, end - span.onset >= LEAST_CLIPPED)
            for span in spans
            if span.onset < end
        ]


class Losses(Struct, frozen=True):
    expected: int
    finals: int
    lost: int
    doubled: int
    lost_in_gaps: int
    """Of the lost ones, those of whose sound the engine dropped some, and said so."""
    unexpected: int
    """Finals that lie over no utterance of the undisturbed pass."""
    where: tuple[str, ...] = ()
    """The first of them, in words."""


def compare(expected: list[Span], finals: list[Final], name: str, gaps: Sequence[tuple[int, int]] = ()) -> Losses:
    """One stream's. Lost: no final over half of it. Doubled: a final again under its number, or a second over half of it."""
    copies = Counter((final.epoch, final.utterance) for final in finals)
    said = sorted({(final.epoch, final.utterance): final for final in finals}.values(), key=lambda final: final.onset)
    where = [f"{name}: utterance {number} said {count} times" for (_, number), count in copies.items() if count > 1]
    lost, doubled, in_gaps = 0, len(finals) - len(said), 0
    touched: set[int] = set()
    at = 0
    for span in expected:
        while at < len(said) and said[at].offset <= span.onset:
            at += 1  # those behind it are no nearer
        over = []
        for number, final in enumerate(said[at:], at):
            if final.onset >= span.offset:
                break
            shared = min(final.offset, span.offset) - max(final.onset, span.onset)
            over.append(2 * shared / (span.offset - span.onset))
            if shared > 0:
                touched.add(number)
        gone = span.sure and max(over, default=0) < 1
        twice = max(0, sum(share > 1 for share in over) - 1)
        if gone or twice:
            lost += gone
            doubled += twice
            in_gaps += gone and any(begin < span.offset and end > span.onset for begin, end in gaps)
            where.append(f"{name}: {twice + (not gone)} finals for samples {span.onset} to {span.offset}")
    unexpected = len(said) - len(touched)
    return Losses(sum(span.sure for span in expected), len(finals), lost, doubled, in_gaps, unexpected, tuple(where))


MOST_WHERE = 20


def losses(account: Account, reference: Reference, ledger: Ledger, phases: tuple[int, ...]) -> Losses:
    """Over all streams; each counts up to the last packet that was handed over."""
    each = []
    for stream, phase in enumerate(phases):
        packets = int(ledger.sent_us[stream].nonzero()[0].max(initial=-1)) + 1
        spans = reference.expected(phase, packets)
        each.append(compare(spans, account.of(stream).finals, f"stream {stream}", account.of(stream).gaps))
    return Losses(
        expected=sum(one.expected for one in each),
        finals=sum(one.finals for one in each),
        lost=sum(one.lost for one in each),
        doubled=sum(one.doubled for one in each),
        lost_in_gaps=sum(one.lost_in_gaps for one in each),
        unexpected=sum(one.unexpected for one in each),
        where=tuple(line for one in each for line in one.where)[:MOST_WHERE],
    )


def rows_of(line: dict[str, object]) -> list[str]:
    """For people, from the keys of a JSON line that are a `Losses`."""
    return [
        f"{'utterances sent':<28}{line['expected']}",
        f"{'finals':<28}{line['finals']}",
        f"{'lost':<28}{line['lost']}, of these {line['lost_in_gaps']} whose sound was dropped and reported",
        f"{'doubled, unexpected':<28}{line['doubled']}, {line['unexpected']}",
    ]
