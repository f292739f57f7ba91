"""What the full-size bimodal system costs: a pretrained encoder of each kind, a recogniser, and the system that reads both.

Its weights are random and made on the spot: what a layer costs does not hang on what it learnt. A random recogniser would write
as much as it liked, so it is held to 3.5 tokens a second; as random, it says nothing, so a fixed sentence of as many words
stands for what it wrote.

    sound -> Whisper base, int8 -> 17 tokens      -> XLM-R base   \\
          -> wav2vec2 large, its first 12 layers  ->               BiFormer
"""

import json
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers

from clser.bench.card import Setup
from clser.bench.stats import distribution
from clser.bench.table import number
from clser.engine.backends import Numbers, VoiceModel, open_voice
from clser.engine.backends.join import Joiner, open_joiner
from clser.engine.jobs import CLASSES, Row
from clser.engine.records import SAMPLE_RATE_HZ, Samples
from clser.models.labels import HEADS
from clser.models.saved import Trained, save
from clser.models.systems import build

SECONDS = 5.0
TOKENS_PER_S = 3.5
STEP_S, HOP_S = 0.5, 1.0
"""While somebody speaks: from one decode to the next, and from one answer of the voice, with words, to the next."""
UTTERANCES = 5
STREAMED = 2
"""Utterances that are streamed: each is some ten times the work."""
GOAL_RTF = 0.35
TEXT = "well I never thought that you would say such a thing to me after all these years"
transformers: Any = import_module("transformers")
ctranslate2: Any = import_module("ctranslate2")
transformers.utils.logging.disable_progress_bar()  # a bar for each checkpoint that is made

PARTS = ("recogniser", "speech_encoder", "text_encoder", "fusion")
Precision = Literal["full", "half"]
WHISPER_PROMPT = ("startoftranscript", "en", "transcribe", "notimestamps")
WHISPER_VOCABULARY, XLM_R_VOCABULARY = 51_865, 250_002


class System(NamedTuple):
    """Loaded, as a worker has it."""

    voice: VoiceModel
    joiner: Joiner
    recogniser: "Recogniser"


def run(setup: Setup, threads: int = 2, utterances: int = UTTERANCES) -> dict[str, object]:
    """Real-time factors (seconds of computing for a second of sound) by part, in full and in half precision."""
    line: dict[str, object] = {
        "threads": threads, "seconds": SECONDS, "tokens": _tokens(SECONDS), "utterances": utterances, "goal_rtf": GOAL_RTF
    }  # fmt: skip
    with TemporaryDirectory(prefix="clser-bench-") as made:
        folder = Path(made)
        torch.manual_seed(setup.seed)
        recogniser = Recogniser(_whisper(folder / "whisper"), threads)
        _trained(folder)
        precisions: tuple[Precision, ...] = ("full", "half")
        for precision in precisions:
            voice = open_voice(str(folder), "cpu", "torch", precision)
            joiner = open_joiner(voice)
            assert joiner is not None
            torch.set_num_threads(threads)  # a worker has one; a machine for one stream has all
            system, clock = System(voice, joiner, recogniser), Clock()
            clock.watch(voice, joiner)
            line[precision] = {
                "once": _played(system, clock, _once, utterances, setup.seed),
                "streaming": _played(system, clock, _streaming, min(utterances, STREAMED), setup.seed),
            }
    best = min((_rtf(line, precision), precision) for precision in precisions)
    return {**line, "best_precision": best[1], "rtf": best[0], "met": best[0] <= GOAL_RTF}


def table(line: dict[str, Any]) -> list[str]:
    """The figures for people."""
    rows = [f"{'seconds a second of sound':<28}" + "".join(f"{part:>16}" for part in (*PARTS, "all", "processor"))]
    for precision, name in (("full", "float32"), ("half", "bfloat16")):
        for way in ("once", "streaming"):
            each = line[precision][way]
            cells = "".join(f"{number(each[part], 3):>16}" for part in (*PARTS, "rtf", "cpu_rtf"))
            rows.append(f"{name + ', ' + way:<28}{cells}")
    goal = "met" if line["met"] else "missed"
    return [
        *rows,
        f"goal, decoded once: {line['goal_rtf']}, {goal}: {number(line['rtf'], 3)} ({line['threads']} threads)",
    ]


class Clock:
    """Seconds spent in each part; whatever is asked within another part counts for the inner one alone."""

    def __init__(self) -> None:
        self.spent: dict[str, float] = defaultdict(float)
        self._open: list[str] = []
        self._since = 0.0

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        self._turn()
        self._open.append(name)
        try:
            yield
        finally:
            self._turn()
            self._open.pop()

    def _turn(self) -> None:
        now = time.perf_counter()
        if self._open:
            self.spent[self._open[-1]] += now - self._since
        self._since = now

    def watch(self, voice: Any, joiner: Any) -> None:
        """The encoders within; what is left of the voice's and the joiner's time is the fusion's."""
        for part, module in (("speech_encoder", voice._net.fronts), ("text_encoder", joiner._texts)):
            module.forward = self._timed(part, module.forward)

    def _timed(self, part: str, inner: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*given: Any) -> Any:
            with self.part(part):
                return inner(*given)

        return timed


class Recogniser:
    """Whisper at its real cost: windows of 30 s, whatever there is to hear, and as many tokens as it is told to write."""

    def __init__(self, folder: Path, threads: int) -> None:
        self._model = ctranslate2.models.Whisper(str(folder), compute_type="int8", intra_threads=threads)
        self._features = import_module("faster_whisper.feature_extractor").FeatureExtractor()
        self._pad = import_module("faster_whisper.audio").pad_or_trim
        tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self._prompt = [tokenizer.token_to_id(f"<|{name}|>") for name in WHISPER_PROMPT]
        self._end = tokenizer.token_to_id("<|endoftext|>")

    def decode(self, pcm: Samples, tokens: int) -> int:
        """How many tokens it wrote."""
        mel_MJ = self._pad(self._features(pcm.astype(np.float32) / 32768))
        heard = self._model.encode(ctranslate2.StorageView.from_array(np.ascontiguousarray(mel_MJ[None])))
        (said,) = self._model.generate(
            heard, [self._prompt], beam_size=1, suppress_tokens=[self._end], suppress_blank=False,
            max_length=max(2 * tokens, tokens + len(self._prompt) - 1),  # the library leaves half to what went before
        )  # fmt: skip
        return len(said.sequences_ids[0])


def _played(
    system: System, clock: Clock, way: Callable[[System, Clock, Samples], None], utterances: int, seed: int
) -> dict[str, object]:
    size = (utterances + 1, round(SECONDS * SAMPLE_RATE_HZ))
    sounds = np.random.default_rng(seed).normal(0, 2000, size).astype(np.int16)
    _once(system, clock, sounds[0])  # the first calls are the slowest
    clock.spent.clear()
    took_s, cpu_s = [], time.process_time()
    for pcm in sounds[1:]:
        before = sum(clock.spent.values())
        way(system, clock, pcm)
        took_s.append(sum(clock.spent.values()) - before)
    heard_s = utterances * SECONDS
    by_part = {part: clock.spent[part] / heard_s for part in PARTS}
    # of all threads: unlike the time it took, it hardly hangs on what else this machine does
    cpu_rtf = (time.process_time() - cpu_s) / heard_s
    rtf = sum(by_part.values())
    return {**by_part, "rtf": rtf, "cpu_rtf": cpu_rtf, "utterance_ms": distribution([1000 * s for s in took_s])}


def _once(system: System, clock: Clock, pcm: Samples) -> None:
    """All is asked when the utterance is over."""
    with clock.part("recogniser"):
        system.recogniser.decode(pcm, _tokens(SECONDS))
    _answered(system, clock, pcm, pcm)


def _streaming(system: System, clock: Clock, pcm: Samples) -> None:
    """The growing window is decoded every `STEP_S`, and voice and words are asked every `HOP_S`."""
    step, asked = round(STEP_S * SAMPLE_RATE_HZ), 0
    for end in range(step, len(pcm) + 1, step):
        with clock.part("recogniser"):
            system.recogniser.decode(pcm[:end], _tokens(end / SAMPLE_RATE_HZ))
        if end % round(HOP_S * SAMPLE_RATE_HZ) == 0:
            _answered(system, clock, pcm[asked:end], pcm[:end])
            asked = end


def _answered(system: System, clock: Clock, new: Samples, whole: Samples) -> None:
    """The voice's answer, then the joined one with as many words as there are tokens."""
    frame = system.voice.card.frame_samples
    with clock.part("fusion"):
        said = system.voice.run([Row(0, len(new) // frame, len(new) == len(whole), anew=True)], new)
        told: Numbers = np.concatenate((said[-1:], np.zeros((1, CLASSES), np.float32)), 1)
        text = " ".join(TEXT.split()[: _tokens(len(whole) / SAMPLE_RATE_HZ)])
        system.joiner.run([Row(0, len(whole) // frame, False)], whole, told, [text])


def _tokens(seconds: float) -> int:
    return int(seconds * TOKENS_PER_S)


def _rtf(line: dict[str, Any], precision: Precision) -> float:
    return float(line[precision]["once"]["rtf"])


def _trained(folder: Path) -> None:
    """The system over its encoders, as `clser-models train` would write it after no step at all."""
    settings = {
        "speech": f"hub:{_wav2vec2(folder / 'speech')}", "words": f"hub:{_xlm_r(folder / 'words')}",
        "window_s": 8.0, "hop_s": 8.0,
    }  # fmt: skip
    save(folder, build("biformer", settings, HEADS), Trained("biformer", settings, HEADS))


def _wav2vec2(folder: Path) -> Path:
    """The large size, of which the first 12 layers are kept."""
    config = transformers.Wav2Vec2Config(
        hidden_size=1024, num_hidden_layers=12, num_attention_heads=16, intermediate_size=4096, feat_extract_norm="layer",
        do_stable_layer_norm=True, conv_bias=True,
    )  # fmt: skip
    return _kept(folder, transformers.Wav2Vec2Model(config), transformers.Wav2Vec2FeatureExtractor(do_normalize=True))


def _xlm_r(folder: Path) -> Path:
    """The base size, with a tokenizer that knows the words of our sentence."""
    marks = [(mark, 0.0) for mark in ("<s>", "<pad>", "</s>", "<unk>")]
    words = [(f"▁{word}", -3.0) for word in dict.fromkeys(TEXT.split())]
    tokenizer = transformers.XLMRobertaTokenizer(vocab=[*marks, *words, ("<mask>", 0.0)])
    config = transformers.XLMRobertaConfig(
        vocab_size=XLM_R_VOCABULARY, max_position_embeddings=514, type_vocab_size=1, pad_token_id=tokenizer.pad_token_id
    )
    return _kept(folder, transformers.XLMRobertaModel(config, add_pooling_layer=False), tokenizer)


def _kept(folder: Path, model: Any, beside: Any) -> Path:
    model.to(torch.bfloat16).save_pretrained(folder)  # half the room on disk; it is loaded in full
    beside.save_pretrained(folder)
    return folder


def _whisper(folder: Path) -> Path:
    """The base size in CTranslate2's format, weights of 8 bits."""
    names = [*WHISPER_PROMPT, "endoftext", "translate", "startoflm", "startofprev", "nospeech"]
    signs = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={sign: n for n, sign in enumerate(signs)}, merges=[]))
    tokenizer.add_special_tokens([AddedToken(f"<|{name}|>", special=True) for name in names])
    end, start = tokenizer.token_to_id("<|endoftext|>"), tokenizer.token_to_id("<|startoftranscript|>")
    config = transformers.WhisperConfig(
        vocab_size=WHISPER_VOCABULARY, d_model=512, encoder_layers=6, decoder_layers=6, encoder_attention_heads=8,
        decoder_attention_heads=8, encoder_ffn_dim=2048, decoder_ffn_dim=2048, bos_token_id=end, eos_token_id=end,
        pad_token_id=end, decoder_start_token_id=start, suppress_tokens=[], begin_suppress_tokens=[end],
    )  # fmt: skip
    raw = folder / "raw"
    transformers.WhisperForConditionalGeneration(config).save_pretrained(raw)
    transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|endoftext|>").save_pretrained(raw)
    made = folder / "played"
    ctranslate2.converters.TransformersConverter(str(raw)).convert(str(made), quantization="int8")
    about = json.loads((made / "config.json").read_text())
    (made / "config.json").write_text(json.dumps({**about, "lang_ids": [tokenizer.token_to_id("<|en|>")]}))
    tokenizer.save(str(made / "tokenizer.json"))
    return made
