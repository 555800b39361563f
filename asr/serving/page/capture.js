// In the audio thread: blocks of 16-bit samples of the microphone's first channel.
/* global AudioWorkletProcessor, registerProcessor, sampleRate */

class Capture extends AudioWorkletProcessor {
  #block = new Int16Array(Math.round(sampleRate / 20)); // 50 ms
  #filled = 0;

  constructor() {
    super();
    this.port.onmessage = () => { // the end: give what is left
      this.port.postMessage(this.#block.slice(0, this.#filled));
      this.port.postMessage(null);
      this.#filled = 0;
    };
  }

  process([inputs]) {
    for (const sample of inputs[0] ?? []) {
      const clipped = Math.max(-1, Math.min(1, sample));
      this.#block[this.#filled++] = Math.round(32767 * clipped);
      if (this.#filled === this.#block.length) {
        this.port.postMessage(this.#block.slice());
        this.#filled = 0;
      }
    }
    return true;
  }
}

registerProcessor("capture", Capture);
