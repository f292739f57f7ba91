"""Pretrained speech encoders on small random checkpoints of the real classes: what the library says of each row alone."""

import copy
import warnings

import pytest

transformers = pytest.importorskip("transformers", reason="needs the train extra")
import torch  # noqa: E402
from torch import nn  # noqa: E402

from clser.models.encoders.found import settings  # noqa: E402
from clser.models.encoders.pretrained_speech import open_speech  # noqa: E402
from clser.models.encoders.quantise import OnnxEncoder, quantise  # noqa: E402
from clser.models.encoders.whisper_speech import mel_matrix  # noqa: E402
from clser.models.errors import GivenError, MissingError  # noqa: E402

pytestmark = [
    pytest.mark.torch,
    # WavLM hands torch a boolean mask beside a float one; torch adds them up as meant and calls it deprecated.
    pytest.mark.filterwarnings("ignore:Support for mismatched key_padding_mask:UserWarning"),
    # The library reads an attribute of torch that has moved.
    pytest.mark.filterwarnings("ignore:.*torch.*deprecated.*:FutureWarning:transformers"),
]

SIZE = {"hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 24, "num_hidden_layers": 2}
CONVOLVED = {"conv_dim": (8,) * 7, "num_conv_pos_embeddings": 16, "num_conv_pos_embedding_groups": 2}
WAVEFORM = [(family, norm) for family in ("hubert", "wav2vec2", "wavlm") for norm in ("group", "layer")]
CLASSES = {
    "hubert": (transformers.HubertConfig, transformers.HubertModel),
    "wav2vec2": (transformers.Wav2Vec2Config, transformers.Wav2Vec2Model),
    "wavlm": (transformers.WavLMConfig, transformers.WavLMModel),
}
SAMPLES = (9_000, 4_333, 150, 400)


def sound():
    """Four rows; what lies behind each one's end is loud, so that nothing of it can go unnoticed."""
    return torch.randn(len(SAMPLES), max(SAMPLES)) * 0.1 + 0.05, torch.tensor(SAMPLES)


@pytest.fixture(scope="module")
def waveform(tmp_path_factory):
    """(family, norm) -> (folder, the library's model)."""
    made = {}
    torch.manual_seed(1)
    for family, norm in WAVEFORM:
        config, kind = CLASSES[family]
        stable = norm == "layer"
        model = kind(config(**SIZE, **CONVOLVED, feat_extract_norm=norm, do_stable_layer_norm=stable, conv_bias=stable))
        folder = tmp_path_factory.mktemp(f"{family}_{norm}")
        model.eval().save_pretrained(folder)
        extractor = transformers.Wav2Vec2FeatureExtractor(do_normalize=family != "wavlm", return_attention_mask=stable)
        extractor.save_pretrained(folder)
        made[family, norm] = folder, model
    return made


@pytest.fixture(scope="module")
def whisper(tmp_path_factory):
    """A Whisper whose window is 1 s: (folder, the library's encoder)."""
    torch.manual_seed(2)
    config = transformers.WhisperConfig(
        vocab_size=20, num_mel_bins=80, d_model=16, encoder_layers=2, decoder_layers=1, encoder_attention_heads=2,
        decoder_attention_heads=2, encoder_ffn_dim=24, decoder_ffn_dim=8, max_source_positions=50, max_target_positions=8,
        pad_token_id=0, bos_token_id=1, eos_token_id=2, decoder_start_token_id=1, begin_suppress_tokens=None,
    )  # fmt: skip
    folder = tmp_path_factory.mktemp("whisper")
    model = transformers.WhisperForConditionalGeneration(config).eval()
    model.save_pretrained(folder)
    transformers.WhisperFeatureExtractor(feature_size=80, chunk_length=1).save_pretrained(folder)
    return folder, model.model.encoder


def alone(folder, model, row):
    """What the library gives for one row, through its own feature extractor: (last, hidden states)."""
    extractor = transformers.AutoFeatureExtractor.from_pretrained(folder)
    name = "input_features" if settings(folder)["model_type"] == "whisper" else "input_values"
    given = extractor(row.numpy(), sampling_rate=16_000, return_tensors="pt")[name]
    with torch.no_grad():
        told = model(given, output_hidden_states=True)
    return told.last_hidden_state[0], [x[0] for x in told.hidden_states]


@pytest.mark.parametrize(("family", "norm"), WAVEFORM)
def test_each_row_of_a_batch_is_what_the_library_says_of_it_alone(waveform, family, norm):
    folder, model = waveform[family, norm]
    pcm_BS, samples_B = sound()
    with torch.no_grad():
        last = open_speech(str(folder))(pcm_BS, samples_B)
        every = open_speech(str(folder), layers="all", fusion="concat")(pcm_BS, samples_B)
    assert last.length_B.tolist() == [27, 13, 0, 1]
    for row, (samples, frames) in enumerate(zip(SAMPLES, last.length_B.tolist(), strict=True)):
        assert not last.x_BTD[row, frames:].any()
        if frames:
            expected, hidden = alone(folder, model, pcm_BS[row, :samples])
            torch.testing.assert_close(last.x_BTD[row, :frames], expected, atol=1e-4, rtol=0)
            torch.testing.assert_close(every.x_BTD[row, :frames], torch.cat(hidden, -1), atol=1e-4, rtol=0)


def test_sound_too_short_for_any_frame_is_no_error(waveform):
    encoder = open_speech(str(waveform["hubert", "group"][0]))
    with torch.no_grad():
        heard = encoder(torch.randn(2, 100), torch.tensor([100, 0]))
    assert heard.length_B.tolist() == [0, 0]
    assert not heard.x_BTD.any()
    assert (encoder.samples, encoder.least_samples, encoder.width) == (320, 400, 16)


def test_whisper_hears_its_window_and_drops_the_silence(whisper):
    folder, model = whisper
    pcm_BS, samples_B = sound()
    with torch.no_grad():
        last = open_speech(str(folder))(pcm_BS, samples_B)
        every = open_speech(str(folder), layers="all", fusion="concat")(pcm_BS, samples_B)
    assert last.length_B.tolist() == [28, 14, 0, 1]
    for row, (samples, frames) in enumerate(zip(SAMPLES, last.length_B.tolist(), strict=True)):
        expected, hidden = alone(folder, model, pcm_BS[row, :samples])
        torch.testing.assert_close(last.x_BTD[row, :frames], expected[:frames], atol=1e-4, rtol=0)
        torch.testing.assert_close(every.x_BTD[row, :frames], torch.cat(hidden, -1)[:frames], atol=1e-4, rtol=0)
        assert not last.x_BTD[row, frames:].any()


def test_whisper_hears_what_is_longer_than_its_window_piece_by_piece(whisper):
    encoder = open_speech(str(whisper[0]))
    pcm_BS, samples_B = torch.randn(2, 40_000) * 0.1, torch.tensor([40_000, 20_000])
    with torch.no_grad():
        heard = encoder(pcm_BS, samples_B)
        rest = encoder(pcm_BS[1:, 16_000:20_000], torch.tensor([4_000]))
    assert heard.length_B.tolist() == [125, 63]
    torch.testing.assert_close(heard.x_BTD[1, 50:63], rest.x_BTD[0, :13], atol=1e-5, rtol=0)


def test_whisper_without_its_window_costs_what_the_sound_costs_and_heeds_no_company(whisper):
    encoder = open_speech(str(whisper[0]), padded=False)
    pcm_BS, samples_B = sound()
    with torch.no_grad():
        heard = encoder(pcm_BS, samples_B)
        for row, samples in enumerate(SAMPLES):
            one = encoder(pcm_BS[row : row + 1, :samples], samples_B[row : row + 1])
            frames = int(one.length_B)
            assert frames == heard.length_B[row]
            torch.testing.assert_close(heard.x_BTD[row, :frames], one.x_BTD[0, :frames], atol=1e-5, rtol=0)
    assert heard.x_BTD.shape[1] == 29  # 9000 samples, where the window has 50 frames


@pytest.mark.parametrize("bands", [80, 128])
def test_whisper_mel_bands_are_those_it_was_trained_on(bands):
    expected = transformers.WhisperFeatureExtractor(feature_size=bands).mel_filters
    torch.testing.assert_close(mel_matrix(bands), torch.tensor(expected, dtype=torch.float32), atol=1e-7, rtol=0)


class Head(nn.Module):
    """The regression head as its authors' card describes it, with the dropout that evaluation leaves out."""

    def __init__(self, config):
        super().__init__()
        self.dense = nn.Linear(config.hidden_size, config.hidden_size)
        self.out_proj = nn.Linear(config.hidden_size, config.num_labels)

    def forward(self, x):
        return self.out_proj(self.dense(x).tanh())


class Affective(transformers.Wav2Vec2PreTrainedModel):
    def __init__(self, config):
        super().__init__(config)
        self.wav2vec2 = transformers.Wav2Vec2Model(config)
        self.classifier = Head(config)
        self.post_init()


def test_the_emotion_checkpoint_gives_its_three_numbers(tmp_path):
    config = transformers.Wav2Vec2Config(
        **SIZE, **CONVOLVED, feat_extract_norm="layer", do_stable_layer_norm=True,
        id2label={0: "arousal", 1: "dominance", 2: "valence"},
    )  # fmt: skip
    model = Affective(config).eval()
    model.save_pretrained(tmp_path)
    transformers.Wav2Vec2FeatureExtractor(do_normalize=True).save_pretrained(tmp_path)
    encoder = open_speech(str(tmp_path), layers=1)
    assert encoder.dimensions == ("arousal", "dominance", "valence")
    pcm_BS, samples_B = sound()
    with torch.no_grad():
        got_B3 = encoder.affect(pcm_BS, samples_B)
        for row in (0, 1, 3):
            last, _ = alone(tmp_path, model.wav2vec2, pcm_BS[row, : SAMPLES[row]])
            torch.testing.assert_close(got_B3[row], model.classifier(last.mean(0)), atol=1e-4, rtol=0)
    assert encoder(pcm_BS, samples_B).x_BTD.shape == (4, 27, 16)


def test_a_checkpoint_without_the_head_says_so(waveform):
    encoder = open_speech(str(waveform["wav2vec2", "layer"][0]))
    assert encoder.dimensions == ()
    with pytest.raises(GivenError, match="regression head"):
        encoder.affect(*sound())


def test_layers_are_the_hidden_states_of_the_library(waveform):
    folder, model = waveform["hubert", "group"]
    pcm_BS, samples_B = sound()
    _, hidden = alone(folder, model, pcm_BS[0])
    for layers, fusion, expected in (
        (1, "mean", hidden[1]),
        ((0, 2), "mean", (hidden[0] + hidden[2]) / 2),
        ((2, 1), "concat", torch.cat((hidden[2], hidden[1]), -1)),
        ("all", "weights", torch.stack(hidden).mean(0)),
    ):
        encoder = open_speech(str(folder), layers=layers, fusion=fusion)
        with torch.no_grad():
            got = encoder(pcm_BS, samples_B).x_BTD[0]
        torch.testing.assert_close(got, expected, atol=1e-4, rtol=0)
        assert encoder.width == expected.shape[-1]


def test_layers_above_the_highest_one_read_are_not_run(tmp_path):
    model = transformers.HubertModel(transformers.HubertConfig(**{**SIZE, "num_hidden_layers": 5}, **CONVOLVED)).eval()
    model.save_pretrained(tmp_path)
    transformers.Wav2Vec2FeatureExtractor().save_pretrained(tmp_path)
    encoder = open_speech(str(tmp_path), layers=(0, 1), trainable_layers=1)
    assert len(encoder.encoder.encoder.layers) == 2
    assert {name.split(".")[3] for name in encoder.learnt()} == {"0"}


@pytest.mark.parametrize("layers", [3, -1, (), "first", (0, 9), "12"])
def test_layers_that_are_not_there_are_refused(waveform, layers):
    with pytest.raises(GivenError, match="0 to 2"):
        open_speech(str(waveform["wavlm", "group"][0]), layers=layers)


def test_weights_learn_and_are_kept_while_the_rest_stays_frozen(waveform):
    folder, _ = waveform["wavlm", "layer"]
    encoder = open_speech(str(folder), layers="all", fusion="weights").train()
    assert list(encoder.learnt()) == ["fusion.weight_K"]
    before = copy.deepcopy(encoder.encoder.state_dict())
    optimizer = torch.optim.SGD([p for p in encoder.parameters() if p.requires_grad], 1.0)
    pcm_BS, samples_B = sound()
    encoder(pcm_BS, samples_B).x_BTD.square().sum().backward()
    optimizer.step()
    assert encoder.fusion.weight_K.abs().min() > 0
    assert all(torch.equal(tensor, before[name]) for name, tensor in encoder.encoder.state_dict().items())
    again = open_speech(str(folder), layers="all", fusion="weights")
    again.relearn(encoder.learnt())
    with torch.no_grad():
        expected = encoder.eval()(pcm_BS, samples_B).x_BTD
        torch.testing.assert_close(again(pcm_BS, samples_B).x_BTD, expected)
    with pytest.raises(GivenError, match="fusion"):
        open_speech(str(folder)).relearn(encoder.learnt())


def test_the_last_layers_learn_if_asked_and_are_kept(waveform):
    folder, _ = waveform["wav2vec2", "layer"]
    encoder = open_speech(str(folder), trainable_layers=1).train()
    names = encoder.learnt()
    assert {name.split(".")[:4][-1] for name in names} == {"1"}
    assert encoder.encoder.encoder.layers[1].training
    assert not encoder.encoder.encoder.layers[0].training
    encoder.eval()(*sound()).x_BTD.square().sum().backward()
    with torch.no_grad():
        for parameter in encoder.parameters():
            if parameter.grad is not None:
                parameter.sub_(0.1 * parameter.grad)
    again = open_speech(str(folder), trainable_layers=1)
    again.load_state_dict(encoder.state_dict())
    by_part = open_speech(str(folder), trainable_layers=1)
    by_part.relearn(encoder.learnt())
    with torch.no_grad():
        expected = encoder(*(given := sound())).x_BTD
        torch.testing.assert_close(again(*given).x_BTD, expected)
        torch.testing.assert_close(by_part(*given).x_BTD, expected)
    with pytest.raises(GivenError, match="trainable_layers"):
        open_speech(str(folder), trainable_layers=3)


def test_a_frozen_encoder_hears_the_same_in_training(waveform):
    encoder = open_speech(str(waveform["wav2vec2", "group"][0]))
    given = sound()
    expected = encoder(*given).x_BTD
    assert not expected.requires_grad
    torch.testing.assert_close(encoder.train()(*given).x_BTD, expected, atol=0, rtol=0)


@pytest.mark.parametrize(("family", "norm"), [("hubert", "group"), ("wavlm", "layer")])
def test_half_precision_is_the_librarys_and_answers_in_float(waveform, family, norm):
    folder, _ = waveform[family, norm]
    model = transformers.AutoModel.from_pretrained(folder, dtype=torch.bfloat16).eval()
    encoder = open_speech(str(folder), dtype="bfloat16")
    pcm_BS, samples_B = sound()
    with torch.no_grad():
        got = encoder(pcm_BS, samples_B).x_BTD[1, :13]
        row = encoder._level(pcm_BS, samples_B)[1:2, : SAMPLES[1]]
        expected = model(row.bfloat16()).last_hidden_state[0].float()
    assert got.dtype == torch.float32
    assert (got - expected).norm() < 0.03 * expected.norm()


def test_whisper_in_half_precision_stays_near(whisper):
    given = sound()
    with torch.no_grad():
        expected = open_speech(str(whisper[0]))(*given).x_BTD
        got = open_speech(str(whisper[0]), dtype="bfloat16", padded=True)(*given).x_BTD
    assert got.dtype == torch.float32
    assert (got - expected).norm() < 0.02 * expected.norm()


@pytest.mark.parametrize(
    ("family", "int8"), [("hubert", True), ("wav2vec2", True), ("wavlm", False), ("wavlm", True), ("whisper", True)]
)
def test_the_file_for_a_cpu_has_the_seam_and_stays_near(waveform, whisper, family, int8, tmp_path):
    folder = whisper[0] if family == "whisper" else waveform[family, "group"][0]
    encoder = open_speech(str(folder), layers=(0, 2), fusion="weights")
    quantise(encoder, tmp_path, int8)
    pcm_BS, samples_B = torch.randn(3, 20_000) * 0.1, torch.tensor([20_000, 17_000, 0])  # another B and T than traced
    with torch.no_grad():
        expected = encoder(pcm_BS, samples_B)
    played = OnnxEncoder(tmp_path)
    got = played(pcm_BS, samples_B)
    assert (played.width, played.samples) == (encoder.width, encoder.samples)
    assert got.length_B.tolist() == expected.length_B.tolist()
    assert (got.x_BTD - expected.x_BTD).norm() < (0.02 if int8 else 1e-5) * expected.x_BTD.norm()
    assert played(pcm_BS[:, :99], torch.tensor([99, 0, 9])).length_B.tolist() == [0, 0, 0]
    with pytest.raises(GivenError, match="sound"):
        played.tokenise(["a"])


def test_what_cannot_be_written_in_int8_is_refused(whisper, tmp_path):
    with pytest.raises(GivenError, match="padded"):
        quantise(open_speech(str(whisper[0]), padded=False), tmp_path)
    with pytest.raises(GivenError, match="float32"):
        quantise(open_speech(str(whisper[0]), dtype="bfloat16"), tmp_path)
    with pytest.raises(MissingError, match="quantise"):
        OnnxEncoder(tmp_path)


def test_a_checkpoint_that_leaves_weights_at_random_is_refused(waveform, tmp_path):
    model = waveform["hubert", "group"][1]
    tensors = model.state_dict()
    del tensors["encoder.layers.1.feed_forward.output_dense.weight"]
    model.save_pretrained(tmp_path, state_dict=tensors)
    with pytest.raises(GivenError, match=r"1 tensors are missing.*output_dense"):
        open_speech(str(tmp_path))


def test_pickled_weights_open_too(waveform, tmp_path):
    folder, model = waveform["hubert", "layer"]
    torch.save(model.state_dict(), tmp_path / "pytorch_model.bin")
    for name in ("config.json", "preprocessor_config.json"):
        (tmp_path / name).write_text((folder / name).read_text())
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("error")
        expected = open_speech(str(folder))(*(given := sound())).x_BTD
        torch.testing.assert_close(open_speech(str(tmp_path))(*given).x_BTD, expected)


def test_wrong_wishes_are_refused(waveform, tmp_path):
    folder = str(waveform["hubert", "group"][0])
    with pytest.raises(GivenError, match="fusion must be one of"):
        open_speech(folder, fusion="sum")
    with pytest.raises(GivenError, match="dtype must be one of"):
        open_speech(folder, dtype="int8")
    transformers.BertConfig().save_pretrained(tmp_path)
    with pytest.raises(GivenError, match=r"'bert' checkpoint.*hubert, wav2vec2, wavlm, whisper"):
        open_speech(str(tmp_path))
