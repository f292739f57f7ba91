"""A Whisper of a few thousand random weights in CTranslate2's format: it hears nothing, but all that is around it can be tried.

Needs the whisper extra alone: what a converter would read from a checkpoint is made up here.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import tokenizers
from ctranslate2.specs import WhisperSpec
from tokenizers import decoders, pre_tokenizers

SPOKEN = ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
LANGUAGES = ("en", "de", "zh")
MANY = ""
"""By this token CTranslate2 knows a Whisper for many languages."""
WIDTH, BANDS, TOKENS = 16, 80, 448


def tokenizer(languages: tuple[str, ...]) -> tokenizers.Tokenizer:
    """Bytes, a few words, and Whisper's own tokens."""
    words = (
        sorted(pre_tokenizers.ByteLevel.alphabet()) + [f"Ġ{word}" for word in SPOKEN] + [MANY] * (len(languages) > 1)
    )
    own = ["endoftext", "startoftranscript", *languages, "translate", "transcribe"]
    own += ["startoflm", "startofprev", "nospeech", "notimestamps", *(f"{n * 0.02:.2f}" for n in range(1501))]
    made = tokenizers.Tokenizer(tokenizers.models.BPE(vocab={token: n for n, token in enumerate(words)}, merges=[]))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    made.add_special_tokens([tokenizers.AddedToken(f"<|{name}|>", special=True) for name in own])
    return made


def make(folder: Path, *, many: bool = False, seconds: int = 30, seed: int = 0) -> Path:
    """A checkpoint in `folder`, of English or of three languages, that hears windows of so many seconds."""
    words = tokenizer(LANGUAGES if many else ("en",))
    size = words.get_vocab_size()
    spec = WhisperSpec(1, 2, 1, 2)
    _fill(spec, size, 50 * seconds, np.random.default_rng(seed))
    spec.register_vocabulary([words.id_to_token(n) for n in range(size)])
    said = {words.token_to_id(f"Ġ{word}") for word in SPOKEN} | {words.token_to_id("<|endoftext|>")}
    spec.config.suppress_ids = [n for n in range(size) if n not in said]
    spec.config.suppress_ids_begin = [words.token_to_id("<|endoftext|>")]
    spec.config.lang_ids = [words.token_to_id(f"<|{code}|>") for code in LANGUAGES] if many else []
    spec.config.alignment_heads = [(0, 0), (0, 1)]
    spec.validate()
    spec.optimize()
    folder.mkdir(parents=True, exist_ok=True)
    spec.save(str(folder))
    words.save(str(folder / "tokenizer.json"))
    about = {"feature_size": BANDS, "chunk_length": seconds, "hop_length": 160, "sampling_rate": 16_000}
    (folder / "preprocessor_config.json").write_text(json.dumps(about))
    return folder


def _fill(spec: WhisperSpec, size: int, places: int, rng: np.random.Generator) -> None:
    def random(*shape: int) -> np.ndarray:
        return rng.normal(0, 0.3, shape).astype(np.float32)

    def norm(layer: Any) -> None:
        layer.gamma, layer.beta = np.ones(WIDTH, np.float32), np.zeros(WIDTH, np.float32)

    def linear(layer: Any, wide: int = WIDTH) -> None:
        layer.weight, layer.bias = random(wide, WIDTH), random(wide)

    for conv, bands in ((spec.encoder.conv1, BANDS), (spec.encoder.conv2, WIDTH)):
        conv.weight, conv.bias = random(WIDTH, bands, 3), random(WIDTH)
    spec.encoder.position_encodings.encodings = random(places, WIDTH)
    spec.decoder.position_encodings.encodings = random(TOKENS, WIDTH)
    spec.decoder.embeddings.weight = spec.decoder.projection.weight = random(size, WIDTH)
    for layer in (*spec.encoder.layer, *spec.decoder.layer):
        attentions = [(layer.self_attention, (3, 1))]
        if hasattr(layer, "attention"):
            attentions.append((layer.attention, (1, 2, 1)))
        for attention, parts in attentions:
            norm(attention.layer_norm)
            for part, times in zip(attention.linear, parts, strict=True):
                linear(part, times * WIDTH)
        norm(layer.ffn.layer_norm)
        linear(layer.ffn.linear_0)
        linear(layer.ffn.linear_1)
    norm(spec.encoder.layer_norm)
    norm(spec.decoder.layer_norm)
