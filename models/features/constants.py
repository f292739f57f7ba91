"""How sound is cut up, for those who need the numbers without torch."""

SAMPLE_RATE_HZ = 16_000
HOP_SAMPLES = 160
WINDOW_SAMPLES = 400
HOPS = 4
FRAME_SAMPLES = HOPS * HOP_SAMPLES
