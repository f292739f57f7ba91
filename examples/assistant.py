"""A voice assistant that hears how something is said. Plays the bundled clip; give a sound file to play that instead.

Two tasks share a stream: one feeds it packets of 20 ms as a microphone would, the other answers what was heard. While the
assistant speaks it mutes the stream, so that its own voice is not scored.
"""

import asyncio
import sys
import time

import soundfile

from clser.clients.clips import demo_clip
from clser.engine.api import Engine, Stream

ANSWERS = {
    "anger": "I am sorry about that. Let me put it right at once.",
    "disgust": "I see that this will not do. Here is something else.",
    "fear": "You are safe. We go through it step by step.",
    "happiness": "That is good to hear!",
    "neutral": "All right.",
    "sadness": "I am here. Take your time.",
    "surprise": "I did not expect that either!",
}


async def feed(stream: Stream, path: str) -> None:
    sound = soundfile.SoundFile(path)
    packet = sound.samplerate // 50
    began = time.monotonic()
    for pcm in sound.blocks(packet, dtype="int16"):
        await asyncio.sleep(began + stream.next_sample / sound.samplerate - time.monotonic())
        await stream.feed(pcm)
    await stream.close()


async def speak(stream: Stream, words: str) -> None:
    """Where your speech synthesis goes."""
    stream.mute(True)
    print(f"assistant: {words}", flush=True)
    await asyncio.sleep(0.4)
    stream.mute(False)


async def main(path: str) -> None:
    about = soundfile.info(path)
    async with Engine.from_config("live", "bus.publish=") as engine:
        stream = engine.open("assistant", sample_rate_hz=about.samplerate, channels=about.channels)
        feeding = asyncio.create_task(feed(stream, path))
        async for result in stream.results():
            if result.final:
                print(
                    f"heard {result.start_s:.1f}-{result.end_s:.1f} s: {result.emotion.label or 'not sure'}", flush=True
                )
                await speak(stream, ANSWERS.get(result.emotion.label or "", "Tell me more."))
        await feeding


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1] if len(sys.argv) > 1 else str(demo_clip())))
