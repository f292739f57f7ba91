"""Pretrained encoders so small that a test makes them: random weights, saved as the real ones are."""

from pathlib import Path
from typing import Any

import transformers

SPOKEN = ["the", "cat", "sat", "on", "a", "mat", "oh", "no", "why", "did", "you", "say", "that"]
SIZE = {"hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 24, "num_hidden_layers": 2}


def speech_encoder(folder: Path) -> str:
    """A wav2vec2 whose convolutions are normed as the base size's are."""
    config = transformers.Wav2Vec2Config(
        **SIZE, conv_dim=(8,) * 7, num_conv_pos_embeddings=16, num_conv_pos_embedding_groups=2
    )
    return _saved(folder, transformers.Wav2Vec2Model(config), transformers.Wav2Vec2FeatureExtractor(do_normalize=True))


def whisper_encoder(folder: Path) -> str:
    """A Whisper whose window is 2 s."""
    config = transformers.WhisperConfig(
        vocab_size=20, num_mel_bins=80, d_model=16, encoder_layers=2, decoder_layers=1, encoder_attention_heads=2,
        decoder_attention_heads=2, encoder_ffn_dim=24, decoder_ffn_dim=8, max_source_positions=100, max_target_positions=8,
        pad_token_id=0, bos_token_id=1, eos_token_id=2, decoder_start_token_id=1, begin_suppress_tokens=None,
    )  # fmt: skip
    extractor = transformers.WhisperFeatureExtractor(feature_size=80, chunk_length=2)
    return _saved(folder, transformers.WhisperForConditionalGeneration(config), extractor)


def text_encoder(folder: Path) -> str:
    """An XLM-R that knows `SPOKEN`."""
    marks = [(mark, 0.0) for mark in ("<s>", "<pad>", "</s>", "<unk>")]
    vocabulary = [*marks, *((f"▁{word}", -3.0) for word in SPOKEN), ("<mask>", 0.0)]
    tokenizer = transformers.XLMRobertaTokenizer(vocab=vocabulary)
    config = transformers.XLMRobertaConfig(
        **SIZE, max_position_embeddings=110, vocab_size=len(tokenizer), pad_token_id=tokenizer.pad_token_id
    )
    return _saved(folder, transformers.XLMRobertaModel(config), tokenizer)


def _saved(folder: Path, *parts: Any) -> str:
    for part in parts:
        part.save_pretrained(folder)
    return f"hub:{folder}"
