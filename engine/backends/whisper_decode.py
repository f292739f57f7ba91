"""A Whisper checkpoint in CTranslate2's format, run by faster-whisper's parts: windows in, words with times out.

Windows of one length are one batch: the encoder once (in pieces on a CPU), one greedy search, and the word times of a language
at once. Nothing is tried again at another temperature: who listens live has no time for it, and the guards see what went wrong.

Letters: B windows, M mel bands, T feature frames of 10 ms.
"""

import hashlib
import json
import logging
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from clser.engine.backends import Numbers
from clser.engine.backends.devices import is_device_error, one_device
from clser.engine.backends.whisper import Hypothesis, Window
from clser.engine.errors import GivenError, MissingError
from clser.engine.jobs import RecogniserCard, Word
from clser.engine.records import SAMPLE_RATE_HZ, samples

MOST_WINDOWS = {"cpu": 8, "cuda": 32}  # in a call: what is computed at once must fit in memory
CACHED_FRAMES = 3_000  # of features, in a call of the encoder on a CPU
FRAMES_PER_S = 100
SHORT = "hears_short_windows"
"""In a checkpoint's preprocessor_config.json, where it was trained on windows of any length. OpenAI's were trained on 30 s alone."""
SHORT_FRAMES, LEAST_PADDING = (
    2 * FRAMES_PER_S,
    FRAMES_PER_S // 2,
)  # such windows are padded by this, to a multiple of that
MOST_TOKENS = 224  # CTranslate2 writes half of Whisper's 448 places at most
MANY_LANGUAGES = 30  # so many are not listed
LONGEST_WORD_SAMPLES = samples(1200)  # what seems longer began later: the alignment adds the silence before it


class Checkpoint:
    """`Decoder` of engine/backends/whisper.py."""

    def __init__(self, model: Any, tokenizer: Any, card: RecogniserCard, device: str, short: bool) -> None:
        self.card = card
        self.languages: tuple[str, ...] = card.languages
        self._model, self._make_tokenizer, self._device = model, tokenizer, device
        self._tokenizers: dict[str, Any] = {}
        self._short = short
        self._many = bool(model.model.is_multilingual)
        if self._many:
            told = model.hf_tokenizer.token_to_id
            self.languages = tuple(code for code in model.supported_languages if told(f"<|{code}|>") is not None)
        self._frames = int(model.feature_extractor.nb_max_frames)
        self.window_samples = int(model.feature_extractor.n_samples)

    def decode(self, windows: Sequence[Window]) -> list[Hypothesis]:
        """A batch has features of one length, which is told by each window alone: its company changes nothing."""
        out = [Hypothesis()] * len(windows)
        frames = [self._padded(window) for window in windows]
        for length in sorted(set(frames)):
            alike = [n for n, own in enumerate(frames) if own == length]
            for at in range(0, len(alike), MOST_WINDOWS[self._device]):
                some = alike[at : at + MOST_WINDOWS[self._device]]
                for n, said in zip(some, self._batch([windows[n] for n in some], length), strict=True):
                    out[n] = said
        return out

    def _padded(self, window: Window) -> int:
        """Frames of its features: all that the checkpoint hears, unless it says that it was trained on fewer as well."""
        if not self._short:
            return self._frames
        own = -(-len(window.sound_S) * FRAMES_PER_S // SAMPLE_RATE_HZ) + LEAST_PADDING
        return min(self._frames, -(-own // SHORT_FRAMES) * SHORT_FRAMES)

    def _batch(self, windows: Sequence[Window], frames: int) -> list[Hypothesis]:
        encoded = self._encode(np.stack([self._features(window, frames) for window in windows]))
        languages, certainties = self._languages(windows, encoded)
        written = self._write(encoded, languages, max(window.most_tokens for window in windows))
        eot = self._tokenizer(languages[0]).eot
        taken = [each.sequences_ids[0][: w.most_tokens] for each, w in zip(written, windows, strict=True)]
        texts = [[token for token in tokens if token < eot] for tokens in taken]
        words = self._words(windows, encoded, languages, texts)
        out = []
        for n, each in enumerate(written):
            # the score is a mean over the text's tokens; the end that follows them counts as well
            count = len(each.sequences_ids[0])
            mean = each.scores[0] * count / (count + 1)
            tokens = len(taken[n]) if count < MOST_TOKENS else windows[n].most_tokens
            out.append(Hypothesis(words[n], tokens, mean, each.no_speech_prob, languages[n], certainties[n]))
        return out

    def _encode(self, mel_BMT: Numbers) -> Any:
        """The encoder's output. A core's cache holds no two windows of 30 s: on a CPU one after the other is faster."""
        together = len(mel_BMT) if self._device != "cpu" else max(1, CACHED_FRAMES // mel_BMT.shape[2])
        if together >= len(mel_BMT):
            return self._model.encode(mel_BMT)
        parts = [self._model.encode(mel_BMT[at : at + together]) for at in range(0, len(mel_BMT), together)]
        return type(parts[0]).from_array(np.concatenate([np.array(part) for part in parts]))

    def _features(self, window: Window, frames: int) -> Numbers:
        """[M, T]: log-mel of the window's sound alone, and zeros behind it."""
        sound_S = window.sound_S.astype(np.float32) * np.float32(1 / 32768)
        mel_MT = self._model.feature_extractor(sound_S)[:, :frames]
        return np.pad(mel_MT, ((0, 0), (0, frames - mel_MT.shape[1]))).astype(np.float32)

    def _languages(self, windows: Sequence[Window], encoded: Any) -> tuple[list[str], list[float]]:
        languages, certainties = [window.language for window in windows], [1.0] * len(windows)
        if not self._many:
            return [self.languages[0]] * len(windows), certainties
        if not all(languages):
            for n, ranked in enumerate(self._model.model.detect_language(encoded)):
                if not languages[n]:
                    token, certainties[n] = ranked[0]
                    languages[n] = token[2:-2]
        return languages, certainties

    def _write(self, encoded: Any, languages: Sequence[str], most_tokens: int) -> Any:
        first = self._tokenizer(languages[0])
        never = (first.transcribe, first.translate, first.sot, first.sot_prev, first.sot_lm, first.no_speech)
        tokenizers = [self._tokenizer(language) for language in languages]
        return self._model.model.generate(
            encoded,
            [[*each.sot_sequence, each.no_timestamps] for each in tokenizers],
            beam_size=1,
            max_length=2 * min(most_tokens, MOST_TOKENS),  # half of which CTranslate2 lets be written
            return_scores=True,
            return_no_speech_prob=True,
            suppress_tokens=[-1, *(token for token in never if token is not None)],
        )

    def _words(
        self, windows: Sequence[Window], encoded: Any, languages: Sequence[str], texts: Sequence[list[int]]
    ) -> list[tuple[Word, ...]]:
        frames = [-(-len(window.sound_S) * FRAMES_PER_S // SAMPLE_RATE_HZ) for window in windows]
        out: list[tuple[Word, ...]] = [()] * len(windows)
        for language in sorted({code for code, text in zip(languages, texts, strict=True) if text}):
            # one start for all that are aligned at once: rows of other languages are in it with nothing to say
            own = [text if code == language else [] for code, text in zip(languages, texts, strict=True)]
            aligned = self._model.find_alignment(self._tokenizer(language), own, encoded, frames)
            for n, text in enumerate(own):
                if text:
                    out[n] = _joined(aligned[n], len(windows[n].sound_S))
        return out

    def _tokenizer(self, language: str) -> Any:
        if language not in self._tokenizers:
            task = "transcribe" if self._many else None
            self._tokenizers[language] = self._make_tokenizer(self._model.hf_tokenizer, self._many, task, language)
        return self._tokenizers[language]


def _joined(aligned: Sequence[dict[str, Any]], end: int) -> tuple[Word, ...]:
    """The alignment's words in samples. Punctuation goes with the word before it, or at the start with the one behind it."""
    words: list[Word] = []
    opening = ""
    for each in aligned:
        text, probability = each["word"], float(each["probability"])
        if not any(c.isalnum() for c in text):
            if words:
                words[-1] = Word(words[-1].text + text, words[-1].start, words[-1].end, words[-1].confidence)
            else:
                opening += text
            continue
        stop = min(end, round(each["end"] * SAMPLE_RATE_HZ))
        start = max(round(each["start"] * SAMPLE_RATE_HZ), stop - LONGEST_WORD_SAMPLES)
        words.append(Word(opening + text, min(start, stop), stop, min(1.0, max(0.0, probability))))
        opening = ""
    return tuple(words)


def open_decoder(folder: Path, name: str, compute: str, threads: int, step_ms: int) -> Checkpoint:
    """The checkpoint in `folder`, loaded and warmed up."""
    device, _, index = one_device(compute).partition(":")
    runtime = _runtime()
    logging.getLogger("faster_whisper").setLevel(logging.WARNING)
    try:
        model = runtime.WhisperModel(
            str(folder),
            device=device,
            device_index=int(index or 0),
            compute_type="int8" if device == "cpu" else "float16",
            cpu_threads=threads,
            num_workers=1,
            local_files_only=True,
        )
    except Exception as error:  # neither CTranslate2 nor the tokenizers have a class of their own for a broken file
        if is_device_error(error) or (device == "cuda" and isinstance(error, ValueError)):
            raise MissingError(f"asr.compute {compute!r}: CTranslate2 cannot use that device: {error}") from error
        raise GivenError(
            f"asr.recogniser: the Whisper in {folder} cannot be loaded ({type(error).__name__}: {error}); pull or convert it again"
        ) from error
    tokenizer = import_module("faster_whisper.tokenizer").Tokenizer
    languages = () if model.model.is_multilingual else ("en",)
    card = RecogniserCard(name=name, digest=_digest(folder), languages=languages, step_ms=step_ms)
    decoder = Checkpoint(model, tokenizer, card, device, _hears_short(folder))
    if 1 < len(decoder.languages) <= MANY_LANGUAGES:
        decoder.card = RecogniserCard(name, card.digest, decoder.languages, step_ms)
    noise = np.random.default_rng(0).normal(0, 300, samples(1000)).astype(np.int16)
    decoder.decode([Window(noise, "", 4)])
    return decoder


def _runtime() -> Any:
    try:
        return import_module("faster_whisper")
    except ImportError as error:
        raise MissingError(
            f"asr.recogniser 'whisper': faster-whisper cannot be imported ({error}); `pip install 'clser-stream[whisper]'`"
        ) from error


def _hears_short(folder: Path) -> bool:
    about = folder / "preprocessor_config.json"
    return about.is_file() and bool(json.loads(about.read_text(encoding="utf-8")).get(SHORT, False))


def _digest(folder: Path) -> str:
    with (folder / "model.bin").open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]
