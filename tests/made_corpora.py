"""Small made trees with the names and tables of corpora as people download them; no sound or text of any corpus."""

import io
import zlib

import numpy as np
import soundfile

ROW = "[1.0 - 2.0]\t{turn}\t{label}\t[2.5000, 3.0000, 3.5000]\nC-E1:\tAnger;\t()\n"
MELD_NAMES = "Sr No.,Utterance,Speaker,Emotion,Sentiment,Dialogue_ID,Utterance_ID,Season,Episode,StartTime,EndTime\n"
TIMES = '3,21,"00:00:01,000","00:00:02,500"\n'
NEMO_NAMES = "file_id\temotion\traw_text\tnormalized_text\tspeaker_id\tgender\tage\n"


def sound(name, seconds=0.1, rate_hz=16_000):
    """The bytes of a WAV: noise, another one for each name, so that no two are copies."""
    noise = np.random.default_rng(zlib.crc32(name.encode())).uniform(-0.3, 0.3, round(seconds * rate_hz))
    file = io.BytesIO()
    soundfile.write(file, noise, rate_hz, format="WAV", subtype="PCM_16")
    return file.getvalue()


def wavs(*names):
    return {name: sound(name) for name in names}


TREES = {
    "casia": wavs(
        "CASIA database/liuchanhg/angry/201.wav",
        "CASIA database/ZhaoZuoxiang/sad/201.wav",
        "CASIA database/wangzhe/surprise/250.wav",
        "flat/201-happy-zhaoquanyin.wav",
        "flat/liuchanhg_fear_202.wav",
    ),
    "crema_d": wavs(
        "AudioWAV/1001_DFA_ANG_XX.wav",
        "AudioWAV/1002_IEO_HAP_LO.wav",
        "AudioWAV/1040_ITH_SAD_X.wav",
        "AudioWAV/1076_MTI_SAD_XX.wav",
        "AudioMP3/1001_DFA_ANG_XX.mp3",
    )
    | {
        "VideoDemographics.csv": b"ActorID,Age,Sex,Race,Ethnicity\n1001,51,Male,X,Y\n1002,21,Female,X,Y\n",
        "README.md": b"# About\n\n- A made sentence (DFA).\n- Another one (IEO).\n",
    },
    "emodb": wavs("wav/03a01Fa.wav", "wav/08b02Wc.wav", "wav/16a05Ab.wav", "wav/11a07La.wav", "wav/09a01Nb.wav"),
    "emovo": wavs("EMOVO/f1/dis-f1-b1.wav", "EMOVO/m2/gio-m2-n5.wav", "EMOVO/m2/neu-m2-d1.wav"),
    "enterface": wavs(
        "subject 1/anger/sentence 1/s1_an_1.wav",
        "subject 11/fear/sentence 2/s12_fe_2.wav",
        "subject 12/fear/sentence 2/s12_fe_2.wav",
        "subject 3/sadness/sentence 3/s_3_sa_3.wav",
        "subject 6/anger/s6_an.wav",
    ),
    "esd": wavs(
        "ESD/0001/Angry/0001_000351.wav",
        "ESD/0011/Angry/train/0011_000351.wav",
        "ESD/0011/Sad/0011_001080.wav",
        "ESD/0011/Surprise/0011_001500.wav",
        "ESD/0011/Other/0011_001501.wav",
    )
    | {
        "ESD/0001/0001.txt": "0001_000351\t编的话语\t生气\n".encode("utf-16"),
        "ESD/0011/0011.txt": b"0011_000351\tMade words.\tAngry\n",
    },
    "iemocap": wavs(
        "Session1/sentences/wav/Ses01F_impro01/Ses01F_impro01_F000.wav",
        "Session1/sentences/wav/Ses01F_impro01/Ses01F_impro01_M000.wav",
        "Session1/sentences/wav/Ses01F_impro01/Ses01F_impro01_M001.wav",
        "Session1/sentences/wav/Ses01F_impro01/Ses01F_impro01_MXX0.wav",
        "Session2/sentences/wav/Ses02M_script01_1b/Ses02M_script01_1b_F003.wav",
        "Session1/dialog/wav/Ses01F_impro01.wav",
    )
    | {
        "Session1/dialog/EmoEvaluation/Ses01F_impro01.txt": "".join(
            ROW.format(turn=f"Ses01F_impro01_{turn}", label=label)
            for turn, label in (("F000", "neu"), ("M000", "exc"), ("M001", "xxx"), ("M002", "ang"))
        ).encode(),
        "Session1/dialog/EmoEvaluation/Categorical/Ses01F_impro01_e1_cat.txt": b"Ses01F_impro01_F000 :Anger; ()\n",
        "Session1/dialog/transcriptions/Ses01F_impro01.txt": b"Ses01F_impro01_F000 [001.0-002.0]: Made words.\n",
        "Session2/dialog/EmoEvaluation/Ses02M_script01_1b.txt": ROW.format(
            turn="Ses02M_script01_1b_F003", label="sad"
        ).encode(),
    },
    "meld": wavs(
        "train/train_splits/dia0_utt0.wav",
        "train/train_splits/dia0_utt1.wav",
        "train/train_splits/dia125_utt3.wav",
        "dev/dev_splits_complete/dia0_utt0.wav",
        "test/output_repeated_splits_test/dia0_utt0.wav",
        "test/output_repeated_splits_test/final_videos_testdia0_utt0.wav",
        "test/output_repeated_splits_test/dia9_utt9.wav",
    )
    | {
        "train/train_sent_emo.csv": (
            MELD_NAMES
            + f'1,"Made, as all.",Joey,joy,positive,0,0,{TIMES}2,Made.,Waiter,neutral,neutral,0,1,{TIMES}'
            + f"3,Broken.,Joey,anger,negative,125,3,{TIMES}"
        ).encode(),
        "dev_sent_emo.csv": (
            MELD_NAMES + f"1,Made.,Waiter,fear,negative,0,0,{TIMES}2,Gone.,Phoebe,neutral,neutral,110,7,{TIMES}"
        ).encode(),
        "test_sent_emo.csv": (MELD_NAMES + f"1,Made.,Monica and Ross,anger,negative,0,0,{TIMES}").encode(),
    },
    "mesd": wavs("Anger_C_A_abajo.wav", "Happiness_F_B_L1_abuso.wav", "Neutral_M_A_antes.wav"),
    "nemo": wavs("samples/SM0_anger_1.wav", "samples/EB0_surprised_2.wav", "samples/XX0_anger_3.wav")
    | {
        "data.tsv": (
            NEMO_NAMES
            + "SM0_anger_1.wav\tanger\tZmyślone.\tzmyślone\t        SM0\tmale\t24\n"
            + "EB0_surprised_2.wav\tsurprised\tI to.\ti to\tEB0\tfemale\t27\n"
            + "EB0_fear_9.wav\tfear\tNie ma.\tnie ma\tEB0\tfemale\t27\n"
        ).encode()
    },
    "ravdess": wavs(
        "Actor_01/03-01-05-02-01-01-01.wav",
        "Actor_02/03-01-02-01-02-02-02.wav",
        "Actor_02/03-02-04-01-02-02-02.wav",
        "again/Actor_01/03-01-05-02-01-01-01.wav",
        "Actor_01/02-01-06-01-02-01-01.mp4",
    ),
    "resd": wavs("wav/32_happiness_anger_h_120.wav", "wav/7_sadness_sadness_s_010.wav", "wav/8_fear_anger_a_1.wav")
    | {
        "train.csv": (
            "name,path,emotion,text\n"
            "32_happiness_anger_h_120,x/32_happiness_anger_h_120.wav,happiness,Выдумано.\n"
            "7_sadness_sadness_s_010,x/7_sadness_sadness_s_010.wav,sadness,И это.\n"
            "9_enthusiasm_fear_e_1,x/9_enthusiasm_fear_e_1.wav,enthusiasm,Нет.\n"
        ).encode()
    },
    "savee": wavs("AudioData/DC/a01.wav", "AudioData/JK/sa03.wav", "AudioData/KL/su15.wav", "ALL/DC_a01.wav")
    | {"AudioData/Info.txt": b"made"},
    "tess": wavs(
        "OAF_angry/OAF_back_angry.wav",
        "OAF_Pleasant_surprise/OAF_back_ps.wav",
        "YAF_pleasant_surprised/YAF_back_ps.wav",
        "OAF_neutral/OA_bite_neutral.wav",
        "copy/OAF_angry/OAF_back_angry.wav",
    ),
}
EXPECTED = {
    "casia": {
        ("anger", "casia_liuchanhg", "female", "zh"),
        ("sadness", "casia_zhaozuoxiang", "male", "zh"),
        ("surprise", "casia_wangzhe", "male", "zh"),
        ("happiness", "casia_zhaoquanyin", "female", "zh"),
        ("fear", "casia_liuchanhg", "female", "zh"),
    },
    "crema_d": {
        ("anger", "crema_d_1001", "male", "en"),
        ("happiness", "crema_d_1002", "female", "en"),
        ("sadness", "crema_d_1040", "", "en"),
    },
    "emodb": {
        ("happiness", "emodb_03", "male", "de"),
        ("anger", "emodb_08", "female", "de"),
        ("fear", "emodb_16", "female", "de"),
        ("boredom", "emodb_11", "male", "de"),
        ("neutral", "emodb_09", "female", "de"),
    },
    "emovo": {
        ("disgust", "emovo_f1", "female", "it"),
        ("happiness", "emovo_m2", "male", "it"),
        ("neutral", "emovo_m2", "male", "it"),
    },
    "enterface": {
        ("anger", "enterface_1", "", "en"),
        ("fear", "enterface_11", "", "en"),
        ("fear", "enterface_12", "", "en"),
        ("sadness", "enterface_3", "", "en"),
    },
    "esd": {
        ("anger", "esd_0001", "female", "zh"),
        ("anger", "esd_0011", "male", "en"),
        ("sadness", "esd_0011", "male", "en"),
        ("surprise", "esd_0011", "male", "en"),
    },
    "iemocap": {("neutral", "iemocap_1F", "female", "en"), ("sadness", "iemocap_2F", "female", "en")},
    "meld": {
        ("happiness", "meld_Joey", "male", "en"),
        ("neutral", "meld_train_dia0_Waiter", "", "en"),
        ("fear", "meld_dev_dia0_Waiter", "", "en"),
        ("anger", "", "", "en"),
    },
    "mesd": {("anger", "", "", "es"), ("happiness", "", "female", "es"), ("neutral", "", "male", "es")},
    "nemo": {("anger", "nemo_SM0", "male", "pl"), ("surprise", "nemo_EB0", "female", "pl")},
    "ravdess": {("anger", "ravdess_01", "male", "en"), ("calm", "ravdess_02", "female", "en")},
    "resd": {("happiness", "resd_32_h", "", "ru"), ("sadness", "", "", "ru")},
    "savee": {
        ("anger", "savee_DC", "male", "en"),
        ("sadness", "savee_JK", "male", "en"),
        ("surprise", "savee_KL", "male", "en"),
    },
    "tess": {
        ("anger", "tess_OAF", "female", "en"),
        ("surprise", "tess_OAF", "female", "en"),
        ("surprise", "tess_YAF", "female", "en"),
        ("neutral", "tess_OAF", "female", "en"),
    },
}


def lay(folder, files):
    """The files, written below the folder."""
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return folder
