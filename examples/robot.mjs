// A robot's side in JavaScript: it sends what it hears, and reads how that was said. robot.py does the same in Python.
//
//     npm install
//     clser-stream --device zmq:ipc:///tmp/sound --bind ipc:///tmp/results
//     node robot.mjs ipc:///tmp/sound ipc:///tmp/results my-robot talk.wav
//
// Sound is live: what nobody takes is lost, and `start_sample` tells of it. A stream that is refused is opened again a second
// later: the engine may have been restarted and know nothing of it, or it has too much to do and takes no new ones for a while.

import { readFileSync } from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";
import { Dealer, Subscriber } from "zeromq";

const AGAIN_MS = 1000;
const [earsAt, answersAt, name, path] = process.argv.slice(2);
if (!path) {
  console.error("usage: node robot.mjs EARS ANSWERS NAME FILE.wav");
  process.exit(2);
}

const ears = new Dealer({
  immediate: true, // sound for an engine that is not there would only get old
  sendTimeout: 0,
});
const answers = new Subscriber();
ears.connect(earsAt);
answers.connect(answersAt);
answers.subscribe(`clser/1/result/${name}/`);

let open = false;
let openAt = 0; // the next try
let nextSample = 0; // counts from the opening of the stream

async function send(op, more, ...pcm) {
  try {
    await ears.send([JSON.stringify({ op, stream: name, ...more }), ...pcm]);
  } catch {
    open = false;
  }
}

async function sendPacket(pcm, { rate, channels }) {
  if (open) {
    const start = nextSample;
    nextSample += pcm.length / 2 / channels;
    await send("audio", { start_sample: start, captured_unix_us: Date.now() * 1000 }, pcm);
  } else if (Date.now() > openAt) {
    openAt = Date.now() + AGAIN_MS;
    await send("open", { sample_rate_hz: rate, channels, format: "s16" });
  }
}

async function readReplies() {
  for await (const frames of ears) {
    const { op, reason = "" } = JSON.parse(frames.at(-1));
    open = op === "opened";
    nextSample = 0;
    console.error(`${name}: ${op} ${reason}`);
  }
}

async function readResults() {
  let heard = [0, 0]; // whoever subscribes is sent the last final again
  for await (const [, body] of answers) {
    const { stage, epoch, utterance, start_s, end_s, emotion } = JSON.parse(body);
    if (stage === "final" && (epoch > heard[0] || (epoch === heard[0] && utterance > heard[1]))) {
      heard = [epoch, utterance];
      console.log(`${start_s.toFixed(1)}-${end_s.toFixed(1)} s: ${emotion.label ?? "not sure"}`);
    }
  }
}

// Where your microphone goes: here it is a WAV file of 16 bits.
function readWav(file) {
  const data = readFileSync(file);
  let at = 12;
  let layout = {};
  while (data.toString("latin1", at, at + 4) !== "data") {
    if (data.toString("latin1", at, at + 4) === "fmt ") {
      layout = { channels: data.readUInt16LE(at + 10), rate: data.readUInt32LE(at + 12) };
    }
    at += 8 + data.readUInt32LE(at + 4);
  }
  return { ...layout, pcm: data.subarray(at + 8, at + 8 + data.readUInt32LE(at + 4)) };
}

readReplies();
readResults();
const sound = readWav(path);
const packetBytes = Math.floor(sound.rate / 50) * sound.channels * 2;
const began = Date.now();
for (let at = 0; at < sound.pcm.length; at += packetBytes) {
  await sleep(began + (at / packetBytes + 1) * 20 - Date.now());
  await sendPacket(sound.pcm.subarray(at, at + packetBytes), sound);
}
await send("close");
for (let wait = 0; open && wait < 50; wait++) {
  await sleep(100); // until it is closed, which it is after its last final
}
await sleep(500);
process.exit(0);
