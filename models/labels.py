"""The names of emotions: what the networks have heads for, what is published, and where each lies in arousal and valence."""

PUBLISHED = ("anger", "disgust", "fear", "happiness", "neutral", "sadness", "surprise")
"""The seven classes every result speaks of, in this order."""

HEADS = (*PUBLISHED, "boredom", "calm")
"""The nine classes the corpora know. A network may have a head for each."""

NONE = "none"
"""What a head may answer too: there is no voice to judge here. It is no emotion and is not published."""

PUBLISHED_AS = {**{name: name for name in PUBLISHED}, "boredom": "neutral", "calm": "neutral"}
"""What a head counts as when it is published."""

CIRCUMPLEX = {
    "anger": (0.80, -0.60),
    "disgust": (0.30, -0.65),
    "fear": (0.75, -0.65),
    "happiness": (0.60, 0.80),
    "neutral": (0.0, 0.0),
    "sadness": (-0.50, -0.65),
    "surprise": (0.75, 0.20),
    "boredom": (-0.70, -0.30),
    "calm": (-0.60, 0.35),
}
"""(arousal, valence) of each class, both in -1..1: round figures placed after Russell's circle (1980), not measurements."""
