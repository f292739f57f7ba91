"""The listener's network, tokenizer and loss: a Whisper of transformers, as small as its language.

B windows, F mel frames of 10 ms, T encoder frames of 20 ms, L tokens, H heads.

Beside the usual loss it is told where each word is, because a recogniser that streams needs to know: one decoder layer's heads
attend to the word that comes next, and the encoder's frames name theirs. So it also learns in minutes what takes days without.
"""

import json
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from torch import Tensor, nn
from torch.nn import functional

from clser.bench.grammar import VOCABULARY
from clser.bench.listener_windows import Window
from clser.engine.records import SAMPLE_RATE_HZ

HOP, FFT, MELS = 160, 400, 80
FRAME = 2 * HOP
"""Samples of an encoder frame."""
LONGEST_FRAMES = 30 * SAMPLE_RATE_HZ // FRAME
"""faster-whisper hands over windows of 30 s, whatever the checkpoint says of itself; CTranslate2 takes shorter ones too."""
WIDTH, HEADS, HIDDEN = 192, 3, 512
ENCODER_LAYERS, DECODER_LAYERS = 3, 2
ALIGNED = [(DECODER_LAYERS - 1, 0), (DECODER_LAYERS - 1, 1)]
"""The heads, (layer, head), that attend to the word that is written next."""
BYTES = sorted(pre_tokenizers.ByteLevel.alphabet())
SPECIAL = (
    "endoftext",
    "startoftranscript",
    "en",
    "translate",
    "transcribe",
    "startoflm",
    "startofprev",
    "nospeech",
    "notimestamps",
)
FIRST_WORD = len(BYTES)
END = FIRST_WORD + len(VOCABULARY)
BEGIN, NO_SPEECH, NO_TIMES = (END + SPECIAL.index(each) for each in ("startoftranscript", "nospeech", "notimestamps"))
FIRST_TIME = NO_TIMES + 1
TOKENS = FIRST_TIME + LONGEST_FRAMES + 1
IGNORED = -100
TIMED_PART = 0.08
"""Of the windows are learnt with the tokens for their beginning and end."""
LATEST_BEGIN_S = 1.0
"""Whisper's decoders let no transcript begin later."""


def tokenizer() -> Tokenizer:
    """Every word of the grammar with the space before it is one token; anything else is spelt in bytes."""
    words = [f"Ġ{word}" for word in VOCABULARY]
    vocabulary = {token: number for number, token in enumerate([*BYTES, *words])}
    made = Tokenizer(models.BPE(vocab=vocabulary, merges=[], ignore_merges=True))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    times = [f"<|{number * 0.02:.2f}|>" for number in range(LONGEST_FRAMES + 1)]
    made.add_special_tokens([AddedToken(f"<|{name}|>", special=True) for name in SPECIAL])
    made.add_tokens([AddedToken(time, special=False) for time in times])
    assert made.get_vocab_size() == TOKENS, "a token stands where another belongs"
    return made


def network(seed: int) -> Any:
    transformers = import_module("transformers")  # slow, and without types that hold
    torch.manual_seed(seed)
    config = transformers.WhisperConfig(
        vocab_size=TOKENS,
        num_mel_bins=MELS,
        d_model=WIDTH,
        encoder_layers=ENCODER_LAYERS,
        decoder_layers=DECODER_LAYERS,
        encoder_attention_heads=HEADS,
        decoder_attention_heads=HEADS,
        encoder_ffn_dim=HIDDEN,
        decoder_ffn_dim=HIDDEN,
        max_source_positions=LONGEST_FRAMES,
        dropout=0.0,
        pad_token_id=END,
        bos_token_id=END,
        eos_token_id=END,
        decoder_start_token_id=BEGIN,
        begin_suppress_tokens=None,
        attn_implementation="eager",  # the attention itself is trained
    )
    made = transformers.WhisperForConditionalGeneration(config)
    _begin(made)
    made.generation_config = transformers.GenerationConfig(
        alignment_heads=ALIGNED,
        begin_suppress_tokens=[],  # an empty transcript is an answer
        suppress_tokens=[],
        lang_to_id={"<|en|>": END + SPECIAL.index("en")},
        is_multilingual=False,
        no_timestamps_token_id=NO_TIMES,
        decoder_start_token_id=BEGIN,
        bos_token_id=END,
        eos_token_id=END,
        pad_token_id=END,
        max_length=448,
    )
    return made


@torch.no_grad()  # type: ignore[untyped-decorator]  # torch is not followed
def _begin(whisper: Any) -> None:
    """Weights to start from. Those of transformers suit wide networks; here sound would hardly be seen beside its position.

    The encoder's heads begin by looking at frames nearby, before and behind: what a convolution would give for nothing, and what
    they take longest to find by themselves.
    """
    for module in whisper.modules():
        if isinstance(module, nn.Linear) and module is not whisper.proj_out:
            nn.init.xavier_uniform_(module.weight)
        elif isinstance(module, nn.Conv1d):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
    nn.init.normal_(whisper.model.decoder.embed_tokens.weight, std=0.07)
    for number, layer in enumerate(whisper.model.encoder.layers):
        for head, side in enumerate((-1, 0, 1)):
            _look_aside(layer.self_attn, head, side * (2 + 3 * number))


def _look_aside(attention: Any, head: int, frames: int) -> None:
    """A head of the encoder that attends to what lies so many frames later.

    Positions are sines and cosines of many frequencies, so the product of one and another turned by `frames` is greatest there.
    """
    size, half = WIDTH // HEADS, WIDTH // 2
    pairs = torch.arange(0, half, half // (size // 2))[: size // 2]
    turn = frames * 10_000.0 ** (-pairs / (half - 1))
    query, key = (torch.zeros(size, WIDTH) for _ in range(2))
    sine, cosine = torch.arange(size // 2), torch.arange(size // 2, size)
    query[sine, pairs], query[cosine, pairs + half] = 1.0, 1.0
    # sin(at) = sin(there - turn), cos(at) = cos(there - turn)
    key[sine, pairs], key[sine, pairs + half] = turn.cos(), -turn.sin()
    key[cosine, pairs], key[cosine, pairs + half] = turn.sin(), turn.cos()
    rows = slice(head * size, (head + 1) * size)
    attention.q_proj.weight[rows] += query
    attention.k_proj.weight[rows] += key


class Examples(NamedTuple):
    """A batch."""

    mel_BMF: Tensor  # noqa: N815
    tokens_BL: Tensor  # noqa: N815
    next_BL: Tensor  # noqa: N815
    look_BLT: Tensor  # noqa: N815
    """Where to attend while a token is written; rows without such a place are empty."""
    spoken_BT: Tensor  # noqa: N815
    """The word of each frame, counted from 1; 0: none."""


class Mel:
    """Log-mel as faster-whisper computes it, for many windows at once."""

    def __init__(self) -> None:
        theirs = import_module("faster_whisper.feature_extractor")
        filters = theirs.FeatureExtractor.get_mel_filters(SAMPLE_RATE_HZ, FFT, n_mels=MELS)
        self._filters_MK = torch.tensor(filters, dtype=torch.float32)
        self._window = torch.hann_window(FFT)

    def __call__(self, sounds: Sequence[Any], frames: int, hush: Sequence[bool]) -> Tensor:
        """[B, MELS, frames]. Behind a window's end are zeros, or silence where `hush` says so."""
        wave_BN = torch.zeros(len(sounds), frames * HOP)
        for row, sound in zip(wave_BN, sounds, strict=True):
            row[: len(sound)] = torch.from_numpy(sound)[: frames * HOP]
        power = torch.stft(wave_BN, FFT, HOP, window=self._window, return_complex=True)[..., :-1].abs() ** 2
        log_BMF = (self._filters_MK @ power).clamp(min=1e-10).log10()
        log_BMF = (torch.maximum(log_BMF, log_BMF.amax((1, 2), keepdim=True) - 8.0) + 4.0) / 4.0
        for row, sound, quiet in zip(log_BMF, sounds, hush, strict=True):
            if not quiet:
                row[:, len(sound) // HOP + 1 :] = 0
        return log_BMF


def examples(windows: Sequence[Window], mel: Mel, draw: np.random.Generator, frames: int) -> Examples:
    """`frames` of the encoder each, so many as the longest window needs at least."""
    hush = [bool(draw.random() < 0.25) for _ in windows]
    mel_BMF = _masked(mel([w.sound for w in windows], 2 * frames, hush), draw)
    rows = [_tokens(w, timed=bool(draw.random() < TIMED_PART)) for w in windows]
    longest = max(len(tokens) for tokens, _, _ in rows)
    tokens_BL = torch.full((len(rows), longest), END)
    next_BL = torch.full((len(rows), longest), IGNORED)
    look_BLT = torch.zeros(len(rows), longest, frames)
    spoken_BT = torch.zeros(len(rows), frames, dtype=torch.long)
    for number, (one, (tokens, following, places)) in enumerate(zip(windows, rows, strict=True)):
        tokens_BL[number, : len(tokens)] = torch.tensor(tokens)
        next_BL[number, : len(following)] = torch.tensor(following)
        for place, (start, end) in places.items():
            first, behind = start // FRAME, max(start // FRAME + 1, round(end / FRAME))
            look_BLT[number, place, first:behind] = 1 / (min(behind, frames) - first)
        for heard in one.touched:
            spoken_BT[number, round(heard.start / FRAME) : round(heard.end / FRAME)] = heard.word + 1
    return Examples(mel_BMF, tokens_BL, next_BL, look_BLT, spoken_BT)


def _masked(mel_BMF: Tensor, draw: np.random.Generator) -> Tensor:
    """A band of each window hidden, so that no voice's colour is relied on."""
    for row in mel_BMF:
        width = int(draw.integers(0, 12))
        first = int(draw.integers(0, MELS - width))
        row[first : first + width] = row.mean()
    return mel_BMF


def _tokens(one: Window, *, timed: bool) -> tuple[list[int], list[int], dict[int, tuple[int, int]]]:
    """What the decoder is given, what it is to write after each, and where it is to look for that, in samples."""
    words = [FIRST_WORD + heard.word for heard in one.inside]
    if not words:
        return [BEGIN, NO_TIMES], [NO_TIMES if one.speech else NO_SPEECH, END], {}
    start, end, length = one.inside[0].start, one.inside[-1].end, len(one.sound)
    first, last = (FIRST_TIME + round(at / FRAME) for at in (min(start, LATEST_BEGIN_S * SAMPLE_RATE_HZ), end))
    tokens = [BEGIN, first, *words, last] if timed else [BEGIN, NO_TIMES, *words]
    places = {number + 1: (heard.start, heard.end) for number, heard in enumerate(one.inside)}
    behind = min(end, length - 3 * FRAME)  # where nothing follows, the last frames there are
    places[len(words) + 1] = (max(0, behind), max(3 * FRAME, min(length, behind + SAMPLE_RATE_HZ // 4)))
    return tokens, [*tokens[1:], END], places


class Loss(nn.Module):  # type: ignore[misc]  # torch is not followed: Module is Any
    """The network, and what its training adds to it."""

    def __init__(self, whisper: Any) -> None:
        super().__init__()
        self.whisper = whisper
        self.names = nn.Linear(WIDTH, len(VOCABULARY) + 1)

    def forward(self, batch: Examples) -> tuple[Tensor, Tensor, Tensor]:
        """The next token; where to look; what is spoken in each frame."""
        heard_BTD = self._encode(batch.mel_BMF)
        decoder = self.whisper.model.decoder
        told = decoder(
            input_ids=batch.tokens_BL, encoder_hidden_states=heard_BTD, output_attentions=True, use_cache=False
        )
        logits = self.whisper.proj_out(told.last_hidden_state).float()
        writes = functional.cross_entropy(logits.flatten(0, 1), batch.next_BL.flatten(), ignore_index=IGNORED)
        looks = torch.stack([told.cross_attentions[layer][:, head].float() for layer, head in ALIGNED])
        rows = batch.look_BLT.sum().clamp(min=1)
        look = -(batch.look_BLT * looks.clamp(min=1e-6).log()).sum() / rows / len(ALIGNED)
        named = functional.cross_entropy(self.names(heard_BTD).float().flatten(0, 1), batch.spoken_BT.flatten())
        return writes, look, named

    def _encode(self, mel_BMF: Tensor) -> Tensor:
        """The encoder of transformers, but for windows of any length."""
        encoder = self.whisper.model.encoder
        x = functional.gelu(encoder.conv1(mel_BMF))
        x_BTD = functional.gelu(encoder.conv2(x)).transpose(1, 2)
        x_BTD = x_BTD + encoder.embed_positions.weight[: x_BTD.shape[1]]
        for layer in encoder.layers:
            x_BTD = layer(x_BTD, None)
        encoded: Tensor = encoder.layer_norm(x_BTD)
        return encoded


def write(whisper: Any, folder: Path) -> None:
    """The checkpoint of transformers in `folder/transformers`, that of CTranslate2 in `folder/ct2`, both whole or not at all."""
    converters, transformers = import_module("ctranslate2.converters"), import_module("transformers")
    made = folder / "transformers"
    whisper.save_pretrained(made)
    words = tokenizer()
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=words, eos_token="<|endoftext|>", bos_token="<|endoftext|>"
    ).save_pretrained(made)
    words.save(str(made / "tokenizer.json"))
    features = {"feature_size": MELS, "sampling_rate": SAMPLE_RATE_HZ, "hop_length": HOP, "n_fft": FFT}
    about = {
        "feature_extractor_type": "WhisperFeatureExtractor",
        **features,
        "chunk_length": LONGEST_FRAMES * FRAME // SAMPLE_RATE_HZ,
        "hears_short_windows": True,  # our engine's: nothing has to be made up to 30 s for it
    }
    (made / "preprocessor_config.json").write_text(json.dumps(about, indent=2))
    fresh, old, whole = folder / "ct2.new", folder / "ct2.old", folder / "ct2"
    copied = ["tokenizer.json", "preprocessor_config.json"]
    converters.TransformersConverter(str(made), copy_files=copied).convert(str(fresh), force=True)
    if whole.exists():
        whole.rename(old)
    fresh.rename(whole)
    if old.exists():
        for each in old.iterdir():
            each.unlink()
        old.rmdir()
