import itertools
from pathlib import Path

import numpy as np
import pytest
import soundfile

from clser.bench.scene import (
    PACKET,
    STEP,
    Scene,
    Take,
    bounds,
    bundled_takes,
    circle,
    find_takes,
    from_s16,
    phases,
    sounding,
    spaced,
    talking,
    to_s16,
)
from clser.bench.vad_scenes import Excerpt, decay_s, in_noise, in_room, meetings, mixed, voiced_of
from clser.engine.errors import ClserError
from clser.engine.records import samples

RATE = 16_000


def tone(seconds: float, level: float = 0.3) -> np.ndarray:
    return (level * np.sin(np.arange(round(seconds * RATE)) * 0.3)).astype(np.float32)


def takes() -> list[Take]:
    return [Take("long", tone(1.0)), Take("short", tone(0.8))]


def level(scene: Scene, start: int, end: int) -> float:
    return float(np.sqrt(np.mean(np.square(from_s16(scene.sound[start:end])))))


@pytest.mark.parametrize("seed", [0, 7])
def test_a_seed_makes_a_scene(seed: int) -> None:
    one, again = (spaced(takes(), 5, (0.6, 1.0), seed, "tones") for _ in range(2))
    assert np.array_equal(one.sound, again.sound)
    assert one.phrases == again.phrases
    assert not np.array_equal(one.sound[:RATE], spaced(takes(), 5, (0.6, 1.0), seed + 1, "tones").sound[:RATE])


def test_labels_say_where_the_sound_is() -> None:
    scene = spaced(takes(), 6, (0.6, 1.0), 3, "tones")
    assert len(scene.sound) % PACKET == 0
    edges = [0, *(edge for phrase in scene.phrases for edge in (phrase.onset, phrase.offset)), len(scene.sound)]
    assert edges == sorted(edges)
    for at, (start, end) in enumerate(itertools.pairwise(edges)):
        assert (level(scene, start, end) > 0.05) == (at % 2 == 1), (start, end)
    gaps = [later.onset - earlier.offset for earlier, later in itertools.pairwise(scene.phrases)]
    assert min(gaps) >= 0.6 * RATE - 1
    assert max(gaps) <= 1.0 * RATE + 1


def test_who_talks_all_the_time_pauses_for_a_quarter_of_a_second_at_most() -> None:
    scene = talking(takes(), 1.0, 20, 0, "tones")
    gaps = [later.onset - earlier.offset for earlier, later in itertools.pairwise(scene.phrases)]
    assert max(gaps) <= 0.25 * RATE + 1
    assert scene.duty > 0.8
    assert len(scene.sound) >= 20 * RATE


def test_duty_is_the_share_of_speech() -> None:
    assert talking(takes(), 0.3, 120, 0, "tones").duty == pytest.approx(0.3, abs=0.04)
    with pytest.raises(ClserError, match="--duty 0"):
        talking(takes(), 0.0, 10, 0, "tones")


def test_a_clip_is_cut_to_what_sounds() -> None:
    hush = np.zeros(RATE, np.float32)
    click = np.zeros(RATE // 2, np.float32)
    click[1000:1050] = 0.9
    found = bounds(np.concatenate((click, hush, tone(0.5), hush)))
    assert found is not None
    assert found[0] == pytest.approx(1.5 * RATE, abs=0.011 * RATE)
    assert found[1] == pytest.approx(2.0 * RATE, abs=0.011 * RATE)
    assert bounds(hush) is None
    assert not sounding(np.zeros(10, np.float32)).size


def test_the_bundled_phrases_sound_from_end_to_end() -> None:
    for take in bundled_takes():
        found = bounds(take.sound)
        assert found is not None
        assert found[0] < 0.06 * RATE
        assert found[1] > len(take.sound) - 0.15 * RATE


def test_phrases_from_a_corpora_folder(tmp_path: Path) -> None:
    (tmp_path / "emodb").mkdir()
    hush = np.zeros(RATE // 2, np.float32)
    rows = []
    for name, note in (("a", ""), ("b", "truncated at 2 s"), ("c", "")):
        sound = np.concatenate((hush, tone(1.0), hush)) if name != "c" else hush
        soundfile.write(tmp_path / "emodb" / f"{name}.wav", sound, RATE)
        rows.append(f"{name}.wav,emodb,s,m,anger,{note}")
    (tmp_path / "emodb" / "manifest.csv").write_text("\n".join(["file,corpus,speaker,gender,emotion,note", *rows]))
    found, where = find_takes(tmp_path, 10, 0)
    assert where == "corpora"
    assert [take.name for take in found] == ["emodb/a"]
    assert len(found[0].sound) == pytest.approx(RATE, abs=0.021 * RATE)
    with pytest.raises(ClserError, match="no folder in it has"):
        find_takes(tmp_path / "emodb", 10, 0)


def test_frames_are_speech_where_half_of_them_is() -> None:
    voiced = np.zeros(20, np.bool_)  # 5 ms each
    voiced[4:12] = True  # samples 320 to 960
    excerpt = Excerpt("clean", np.zeros(1600, np.int16), (), voiced)
    assert excerpt.frame_labels(320).tolist() == [False, True, True, False, False]
    assert excerpt.frame_labels(512).tolist() == [False, True, False]


def test_pauses_inside_a_phrase_are_no_speech() -> None:
    phrase = np.concatenate((tone(0.4), np.zeros(RATE // 2, np.float32), tone(0.4)))
    scene = spaced([Take("halting", phrase)], 1, (0.6, 1.0), 0, "tones")
    assert voiced_of(scene).sum() * 0.005 == pytest.approx(0.8, abs=0.05)


def test_noise_lies_as_far_under_the_speech_as_was_asked() -> None:
    scene = spaced(takes(), 4, (0.6, 1.0), 0, "tones")
    random = np.random.default_rng(0)
    clean = from_s16(scene.sound)
    noise = random.standard_normal(RATE).astype(np.float32)
    mixed_up = Scene(to_s16(in_noise(clean, scene, [noise], 10.0, random)), scene.phrases, "")
    gap = (scene.phrases[0].offset, scene.phrases[1].onset)
    speech = np.concatenate([clean[phrase.onset : phrase.offset] for phrase in scene.phrases])
    ratio_db = 20 * np.log10(np.sqrt(np.mean(np.square(speech))) / level(mixed_up, *gap))
    assert ratio_db == pytest.approx(10, abs=1)


def test_a_room_leaves_the_direct_sound_in_its_place() -> None:
    response = np.zeros(4000, np.float32)
    response[500], response[2500] = 1.0, 0.3
    sound = np.zeros(RATE, np.float32)
    sound[4000] = 1.0
    wet = in_room(sound, response)
    assert int(np.abs(wet).argmax()) == 4000
    assert abs(float(wet[6000] / wet[4000])) == pytest.approx(0.3, abs=0.01)


def test_how_long_a_response_decays() -> None:
    decay = 10 ** (-3 * np.arange(2 * RATE) / RATE)  # 60 dB a second
    assert decay_s(decay.astype(np.float32)) == pytest.approx(1.0, abs=0.02)


def test_the_mix_has_as_much_of_every_condition() -> None:
    excerpts = mixed(bundled_takes(), None, 6.0, 0)
    counts = {condition: sum(each.condition == condition for each in excerpts) for condition in ("clean", "5 dB")}
    assert counts["clean"] == counts["5 dB"] >= 1
    assert all(excerpt.phrases for excerpt in excerpts)


def test_turns_that_touch_are_one(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "talk.wav", tone(4.0), RATE)
    (tmp_path / "turns.csv").write_text(
        "file,start_s,end_s,label\ntalk.wav,0.5,1.0,speech\ntalk.wav,0.9,1.5,speech\ntalk.wav,2,3,noise\n"
    )
    (excerpt,) = meetings(tmp_path / "turns.csv", tmp_path)
    assert [(phrase.onset, phrase.offset) for phrase in excerpt.phrases] == [(8000, 24000)]
    (tmp_path / "turns.csv").write_text("name\nx\n")
    with pytest.raises(ClserError, match="start_s"):
        meetings(tmp_path / "turns.csv", tmp_path)


def test_a_circle_ends_in_a_pause_and_is_cut_alike_in_each_round() -> None:
    scene = talking(bundled_takes(), 1.0, 10.0, 0, "")
    round_scene = circle(scene, 0)
    assert len(round_scene.sound) % (STEP * PACKET) == 0
    assert len(round_scene.sound) - len(scene.sound) >= samples(1000)
    assert np.abs(round_scene.sound[len(scene.sound) :]).max() < 200  # faint, but not digital silence
    assert round_scene.sound[len(scene.sound) :].any()
    for network_frame in (512, 320):
        assert STEP * PACKET % network_frame == 0
    begin = phases(round_scene.packets, 7)
    assert begin[0] == 0
    assert all(packet % STEP == 0 and packet < round_scene.packets for packet in begin)
    assert list(begin) == sorted(set(begin))
