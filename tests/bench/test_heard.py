import numpy as np
import pytest
from made import PACKET_US, START_US, heard, heartbeat, ledger, result, speech

from clser.bench.heard import after_endpoint_ms, timing_sum_ms, vad_frame
from clser.bench.latency import match, ratio
from clser.bench.scene import Phrase, Scene
from clser.bench.stats import distribution
from clser.engine.config import load

CONFIG = load()
FRAME = 512
OFFSET = 40 * FRAME  # the end of the last voiced frame
DECIDED = OFFSET + 10 * FRAME  # 300 ms are 9.4 frames
PACKET_OF_IT = (DECIDED - 1) // 320
SENT_MS = (PACKET_OF_IT + 1) * PACKET_US / 1000


def one_utterance(final_ms: float, **fields: object):
    return heard(
        (500.0, speech(1, "started", 6 * FRAME, 1)),
        (900.0, result(1, "partial", 3000, 14_000, 1)),
        (final_ms, result(1, "final", 3000, OFFSET + 5 * FRAME, 2, **fields)),
        (final_ms, speech(1, "ended", OFFSET, 2)),
    )


def test_the_wait_is_counted_from_the_packet_that_completed_the_silence() -> None:
    (told,) = one_utterance(SENT_MS + 3.5).told(0)
    assert after_endpoint_ms(told, 0, ledger(), CONFIG, FRAME) == pytest.approx(3.5, abs=0.01)
    late = ledger(late_us=2000)  # the generator was late: that is not the engine's doing
    assert after_endpoint_ms(told, 0, late, CONFIG, FRAME) == pytest.approx(1.5, abs=0.01)


@pytest.mark.parametrize("reason", ["closed", "gap", "idle"])
def test_nothing_was_waited_for_where_the_sound_broke_off(reason: str) -> None:
    (told,) = one_utterance(SENT_MS, reason=reason).told(0)
    assert after_endpoint_ms(told, 0, ledger(), CONFIG, FRAME) is None


def test_the_engines_own_account_leaves_the_capture_out() -> None:
    assert timing_sum_ms(result(1, "final", 0, 1, 1)) == pytest.approx(1.5 + 2.75 + 0.25)


def test_holes_are_counted_and_repetitions_are_not() -> None:
    found = heard(
        (1.0, result(1, "partial", 0, 100, 1)),
        (2.0, result(1, "partial", 0, 200, 4)),
        (3.0, result(1, "partial", 0, 100, 1)),  # sent again for a late joiner
        (3.0, heartbeat(7, finals=3.0)),
        (4.0, heartbeat(8, finals=5.0)),
    )
    assert found.missed == 2
    assert len(found.told(0)[0].results) == 2
    assert found.counters == {"finals": 5.0}


def test_phrases_meet_the_utterances_that_overlap_them() -> None:
    found = heard(
        (0.0, speech(1, "started", 16_000, 1)),
        (1600.0, result(1, "partial", 12_000, 24_000, 1)),
        (2000.0, result(1, "final", 12_000, 26_000, 2)),
        (2000.0, speech(1, "ended", 24_000, 2)),
        (0.0, speech(2, "started", 27_000, 3)),  # the same phrase went on
        (2600.0, result(2, "final", 26_000, 36_000, 3)),
        (2600.0, speech(2, "ended", 32_000, 4)),
    )
    phrases = (Phrase(15_000, 32_500, "one"), Phrase(48_000, 60_000, "two"))
    scene = Scene(np.zeros(64_000, np.int16), phrases, "")
    one, two = match(scene, found.told(0), ledger(), lambda _: 1.25)
    assert one.first_emotion_ms == pytest.approx(1600 - 15_000 / 16)
    assert one.final_ms == pytest.approx(2600 - 32_500 / 16)
    assert (one.finals, one.after_endpoint_ms) == (2, 1.25)
    assert (two.finals, two.final_ms) == (0, None)


def test_each_network_has_its_frame() -> None:
    assert vad_frame(CONFIG) == FRAME
    assert vad_frame(load("live", ["vad.network=webrtc"])) == 320


def test_nothing_needed_is_no_ratio() -> None:
    assert ratio(0, 0) is None
    assert ratio(30, 20) == 1.5


def test_a_ledger_knows_when_a_sample_existed_and_how_late_a_packet_was() -> None:
    book = ledger(late_us=1500)
    assert book.captured_us(0, 8000) == START_US + 500_000
    assert distribution(book.late_ms()).p50 == pytest.approx(1.5, abs=0.01)
