"""What has been decided and computed -> the records that say so."""

import numpy as np
from numpy.typing import NDArray

from clser.engine.clock import Clock
from clser.engine.fuse import TELLS_NOTHING, FuseConfig, Judge, Opinion, told
from clser.engine.jobs import CLASSES, VoiceCard
from clser.engine.records import (
    Emotion,
    Explain,
    Frame,
    Modality,
    Model,
    Result,
    Speech,
    Stage,
    Timing,
    Weights,
    seconds,
)
from clser.engine.replies import Reply
from clser.engine.segment import Ended, Started
from clser.engine.stream import StreamState
from clser.engine.track import Heard

PARTIAL_TTL_MS = 1_000


class Reporter:
    """Knows the model, and the time."""

    def __init__(self, config: FuseConfig, card: VoiceCard, clock: Clock) -> None:
        self._card = card
        self._judge = Judge(config, card)
        self._model = Model(card.name, card.digest)
        self._clock = clock

    def result(self, stream: StreamState, reply: Reply, stage: Stage) -> Result:
        """That answer, from what is known by now."""
        track, utterance = reply.track, reply.mark.utterance
        voice = self._judge.opinion(reply.voice)
        opinion, words, weights = voice, None, Weights(voice=1.0, words=0.0)
        if reply.both is not None:
            heads = len(self._card.heads)
            joined_H, words_C, counted = np.split(reply.both, (heads, heads + CLASSES))
            opinion, words = self._judge.opinion(joined_H), Modality(told(words_C))
            share = round(float(np.clip(counted[0], 0, 1)), 4)
            weights = Weights(voice=share, words=round(1 - share, 4))
        end = min(utterance.end_sample, stream.total)
        return Result(
            stream=stream.name,
            speaker=track.speaker,
            utterance=utterance.number,
            revision=track.revision,
            stage=stage,
            start_sample=utterance.start_sample,
            end_sample=end,
            start_s=seconds(utterance.start_sample),
            end_s=seconds(end),
            captured_unix_us=stream.times_of(end)[0],
            ttl_ms=None if stage in ("final", "amended") else PARTIAL_TTL_MS,
            reason=utterance.reason,
            emotion=self._emotion(stream, reply, opinion),
            voice=Modality(voice.probabilities),
            words=words,
            weights=weights,
            explain=Explain(),
            arousal=opinion.arousal,
            valence=opinion.valence,
            affect_source=self._card.affect_source,
            text=None if track.transcript is None else track.transcript.record(),
            timing_ms=self._timing(stream, reply),
            model=self._model,
        )

    def hears_speech(self, stream: StreamState, reply: Reply) -> bool:
        """Whether the voice tells of somebody at all, as far as the voice alone can say."""
        return self._emotion(stream, reply, self._judge.opinion(reply.voice)).reason not in TELLS_NOTHING

    def _emotion(self, stream: StreamState, reply: Reply, opinion: Opinion) -> Emotion:
        utterance = reply.mark.utterance
        heard = min(utterance.end_sample, stream.total) - utterance.onset_sample
        return self._judge.emotion(opinion, heard, self._answered(reply.voice))

    def _timing(self, stream: StreamState, reply: Reply) -> Timing:
        """From the capture of the sample that brought the decision to now; what was computed before it took no time."""
        now = self._clock.monotonic_s()
        mark = reply.mark
        captured_us, arrived_s = stream.times_of(min(mark.position, stream.total))
        answered_s = max(mark.decided_s, reply.answered_s)
        sent_s = min(max(mark.decided_s, reply.sent_s), answered_s)
        return Timing(
            capture=_ms((self._clock.unix_us() - captured_us) / 1e6 - (now - arrived_s)),
            vad=_ms(mark.decided_s - arrived_s),
            queue=_ms(sent_s - mark.decided_s),
            infer=_ms(answered_s - sent_s),
            fuse=_ms(now - answered_s),
        )

    def _answered(self, logits: NDArray[np.float32]) -> bool:
        """A model without a state that was not asked yet answers with the prior: zeros."""
        return self._card.streams == "exactly" or bool(logits.any())

    def frames(self, stream: StreamState, heard: Heard) -> list[Frame]:
        """The continuous track's rows: what the model held when these frames were judged."""
        track = stream.tracks[-1] if stream.tracks and stream.segmenter.open is not None else None
        answered = track is not None and track.answers and self._answered(track.answers[-1])
        opinion = self._judge.opinion(track.answers[-1]) if track is not None and answered else None
        return [
            Frame(
                stream=stream.name,
                end_sample=end,
                end_s=seconds(end),
                level_dbfs=level,
                speech=round(probability, 3),
                utterance=None if track is None else track.number,
                probabilities=None if opinion is None else opinion.probabilities,
                arousal=None if opinion is None else opinion.arousal,
                valence=None if opinion is None else opinion.valence,
            )
            for end, level, probability in heard.frames
        ]


def speech(stream: str, event: Started | Ended) -> Speech:
    if isinstance(event, Started):
        return Speech(
            stream=stream,
            utterance=event.number,
            event="started",
            sample=event.onset_sample,
            at_s=seconds(event.onset_sample),
        )
    return Speech(
        stream=stream,
        utterance=event.number,
        event="ended",
        sample=event.offset_sample,
        at_s=seconds(event.offset_sample),
        reason=event.reason,
    )


def _ms(seconds_passed: float) -> float:
    return round(max(0.0, seconds_passed) * 1000, 2)
