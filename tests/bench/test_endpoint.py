"""The benchmarks' own idea of when an utterance could end, held against the segmenter."""

from hypothesis import given
from hypothesis import strategies as st

from clser.bench.endpoint import deciding_sample
from clser.engine.records import Utterance
from clser.engine.segment import Ended, SegmentConfig, Segmenter

RUNS = st.lists(st.tuples(st.booleans(), st.integers(1, 60)), min_size=1, max_size=30)
CONFIGS = st.builds(
    SegmentConfig,
    end_ms=st.integers(100, 900),
    tentative_ms=st.integers(50, 400),
    longest_ms=st.integers(3000, 6000),
    shrink_from_ms=st.integers(500, 5000),
    least_end_ms=st.integers(50, 300),
)


def check(runs: list[tuple[bool, int]], config: SegmentConfig, frame: int) -> set[str]:
    """Hold every final of these runs of voiced and silent frames against the segmenter; the reasons that were met."""
    segmenter = Segmenter(config, frame)
    met = set()
    for voiced, frames in runs:
        for at in range(frames):
            events = segmenter.push(voiced, -20.0 - at % 7)
            finals = {
                event.number: event for event in events if isinstance(event, Utterance) and event.stage == "final"
            }
            for event in events:
                if isinstance(event, Ended) and event.number in finals:
                    final = finals[event.number]
                    found = deciding_sample(config, frame, final.start_sample, event.offset_sample, final.reason)
                    assert found == segmenter.position
                    met.add(final.reason)
    return met


@given(RUNS, CONFIGS, st.sampled_from([320, 512]))
def test_it_agrees_with_the_segmenter(runs: list[tuple[bool, int]], config: SegmentConfig, frame: int) -> None:
    check(runs, config, frame)


def test_both_ways_to_end_are_met() -> None:
    runs = [(False, 13), (True, 40), (False, 20), (True, 700), (False, 3), (True, 300), (False, 30)]
    assert check(runs, SegmentConfig(), 512) == {"silence", "longest"}


def test_what_the_sound_did_not_end_has_no_such_sample() -> None:
    assert deciding_sample(SegmentConfig(), 512, 0, 5120, "closed") is None
