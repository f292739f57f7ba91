"""A robot's side, in plain ZeroMQ and JSON: it sends what it hears, and reads how that was said. Needs pyzmq only.

    clser-stream --device zmq:ipc:///tmp/sound --bind ipc:///tmp/results
    python robot.py ipc:///tmp/sound ipc:///tmp/results my-robot talk.wav
    arecord -q -f S16_LE -r 16000 -t wav | python robot.py ipc:///tmp/sound ipc:///tmp/results my-robot -

Sound is live: what nobody takes is lost, and `start_sample` tells of it. A stream that is refused is opened again a second
later: the engine may have been restarted and know nothing of it, or it has too much to do and takes no new ones for a while.
"""

import json
import sys
import time
import wave

import zmq

AGAIN_S = 1.0


class Robot:
    def __init__(self, ears: str, answers: str, name: str, sound: wave.Wave_read) -> None:
        self.name, self.sound = name, sound
        context = zmq.Context()
        self.ears, self.answers = context.socket(zmq.DEALER), context.socket(zmq.SUB)
        self.ears.setsockopt(zmq.IMMEDIATE, 1)  # sound for an engine that is not there would only get old
        self.ears.connect(ears)
        self.answers.subscribe(f"clser/1/result/{name}/")
        self.answers.connect(answers)
        self.poller = zmq.Poller()
        self.poller.register(self.ears, zmq.POLLIN)
        self.poller.register(self.answers, zmq.POLLIN)
        self.open = False
        self.open_at = 0.0  # the next try
        self.next_sample = 0  # counts from the opening of the stream
        self.heard = (0, 0)  # whoever subscribes is sent the last final again

    def send(self, op: str, *pcm: bytes, **more: object) -> None:
        header = {"op": op, "stream": self.name, **more}
        try:
            self.ears.send_multipart([json.dumps(header).encode(), *pcm], zmq.NOBLOCK)
        except zmq.Again:
            self.open = False

    def packet(self, pcm: bytes) -> None:
        if self.open:
            self.send("audio", pcm, start_sample=self.next_sample, captured_unix_us=time.time_ns() // 1000)
            self.next_sample += len(pcm) // 2 // self.sound.getnchannels()
        elif time.monotonic() > self.open_at:
            self.open_at = time.monotonic() + AGAIN_S
            layout = {"sample_rate_hz": self.sound.getframerate(), "channels": self.sound.getnchannels()}
            self.send("open", format="s16", **layout)

    def listen(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while ready := self.poller.poll(max(0, round((until - time.monotonic()) * 1000))):
            for socket, _ in ready:
                message = json.loads(socket.recv_multipart()[-1])
                self.result(message) if socket is self.answers else self.reply(message)

    def reply(self, said: dict) -> None:
        self.open = said["op"] == "opened"
        self.next_sample = 0
        print(f"{self.name}: {said['op']} {said.get('reason', '')}", file=sys.stderr, flush=True)

    def result(self, said: dict) -> None:
        number = (said["epoch"], said["utterance"])
        if said["stage"] == "final" and number > self.heard:
            self.heard = number
            print(f"{said['start_s']:.1f}-{said['end_s']:.1f} s: {said['emotion']['label'] or 'not sure'}", flush=True)

    def run(self) -> None:
        began, read_s = time.monotonic(), 0.0
        while pcm := self.sound.readframes(self.sound.getframerate() // 50):
            read_s += 0.02
            self.listen(began + read_s - time.monotonic())
            self.packet(pcm)
        self.send("close")
        while self.open and time.monotonic() < began + read_s + 5:
            self.listen(0.1)  # until it is closed, which it is after its last final
        self.listen(0.5)


if __name__ == "__main__":
    if len(sys.argv) != 5:
        sys.exit(__doc__)
    with wave.open(sys.stdin.buffer if sys.argv[4] == "-" else sys.argv[4]) as wav:
        robot = Robot(*sys.argv[1:4], wav)
        try:
            robot.run()
        except KeyboardInterrupt:
            robot.send("close")
