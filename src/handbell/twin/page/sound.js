/** A small bell, made by the browser itself. Silent until the reader asks for it. */

const PARTIALS = [
  { frequency: 880, level: 0.16, seconds: 1.1 },
  { frequency: 1760, level: 0.07, seconds: 0.8 },
  { frequency: 2637, level: 0.04, seconds: 0.5 },
];

let context = null;

/** Switch the bell on or off; browsers allow it only in answer to a click. */
export function setSound(isOn) {
  if (isOn) {
    context ??= new AudioContext();
    context.resume();
  } else {
    context?.suspend();
  }
}

/** Strike the bell once, if it is on. */
export function strike() {
  if (context?.state !== "running") return;
  for (const { frequency, level, seconds } of PARTIALS) tone(frequency, level, seconds);
}

function tone(frequency, level, seconds) {
  const start = context.currentTime;
  const oscillator = new OscillatorNode(context, { frequency });
  const gain = new GainNode(context, { gain: 0 });
  gain.gain.linearRampToValueAtTime(level, start + 0.01);
  gain.gain.exponentialRampToValueAtTime(0.0001, start + seconds);
  oscillator.connect(gain).connect(context.destination);
  oscillator.start(start);
  oscillator.stop(start + seconds);
}
