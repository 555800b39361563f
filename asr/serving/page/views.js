// Pictures of a recording: all of it as a waveform, and the part around the position as a
// spectrogram with the words below it.
/* global RATE, canvasOf, colour, drawAxis, drawSpectrogram, element, penOf, spectrogram */

const SPAN = 12; // seconds of the spectrogram
const WAVE = 60, STRIP = 26, AXIS_HEIGHT = 18, SPECTRUM_HEIGHT = 150; // pixels

export class Views {
  #box;
  #player;
  #samples = null;
  #words = [];
  #from = 0; // the second at which the spectrogram begins

  constructor(box, player) {
    this.#box = box;
    this.#player = player;
    this.wave = this.#picture(WAVE, "waveform of the whole recording");
    this.spectrum = this.#picture(SPECTRUM_HEIGHT, "spectrogram of the part around the position");
    this.strip = this.#picture(STRIP, "words over time");
    this.axis = this.#picture(AXIS_HEIGHT, "seconds");
    this.note = element("p", "note");
    box.append(this.note);
    this.#click(this.wave, () => [0, this.seconds]);
    for (const picture of [this.spectrum, this.strip]) this.#click(picture, () => this.#part());
    player.onTime((seconds) => this.#follow(seconds));
    new ResizeObserver(() => this.draw()).observe(box);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.draw());
  }

  get seconds() {
    return this.#samples ? this.#samples.length / RATE : 0;
  }

  // Samples at RATE Hz, or null and the reason why there are none.
  show(samples, words, note = "") {
    this.#samples = samples?.length ? samples : null;
    this.#from = 0;
    this.note.textContent = note;
    this.note.hidden = !note;
    for (const picture of [this.wave, this.spectrum, this.strip, this.axis]) {
      picture.box.hidden = !this.#samples;
    }
    this.setWords(words);
  }

  // Words {word, start, end} below the spectrogram.
  setWords(words) {
    this.#words = words;
    this.strip.box.hidden = !this.#samples || !words.length;
    this.draw();
  }

  draw() {
    if (!this.#samples || !this.#box.clientWidth) return;
    const [start, end] = this.#part();
    drawWave(this.wave.canvas, this.#samples, start, end);
    const part = this.#samples.subarray(Math.round(start * RATE), Math.round(end * RATE));
    drawSpectrogram(this.spectrum.canvas, spectrogram(part));
    this.#drawStrip(start, end);
    drawAxis(this.axis.canvas, end - start, start);
    this.#follow(this.#player.time);
    this.#box.dataset.drawn = start.toFixed(2);
  }

  #part() {
    return [this.#from, Math.min(this.seconds, this.#from + SPAN)];
  }

  #picture(height, label) {
    const box = element("div", "picture"), canvas = canvasOf(height, label);
    const cursor = element("div", "cursor");
    box.append(canvas, cursor);
    box.hidden = true;
    this.#box.append(box);
    return {box, canvas, cursor};
  }

  #click(picture, range) {
    picture.canvas.onclick = (event) => {
      const [start, end] = range();
      this.#player.play(start + (end - start) * event.offsetX / picture.canvas.clientWidth);
    };
  }

  #follow(seconds) {
    if (!this.#samples) return;
    const [start, end] = this.#part();
    if ((seconds < start || seconds > end) && this.seconds > SPAN) {
      // A little of what came before stays in view.
      const from = Math.min(Math.max(0, seconds - SPAN / 12), this.seconds - SPAN);
      if (Math.abs(from - this.#from) > 0.01) {
        this.#from = from;
        this.draw();
        return;
      }
    }
    place(this.wave, seconds / this.seconds);
    for (const picture of [this.spectrum, this.strip, this.axis]) {
      place(picture, (seconds - start) / (end - start));
    }
  }

  #drawStrip(start, end) {
    const canvas = this.strip.canvas, pen = penOf(canvas);
    const scale = canvas.clientWidth / (end - start);
    for (const word of this.#words) {
      if (word.end < start || word.start > end) continue;
      const x = (word.start - start) * scale;
      const size = Math.max(3, (word.end - word.start) * scale - 1);
      pen.fillStyle = colour("--raised");
      pen.fillRect(x, 2, size, STRIP - 4);
      pen.fillStyle = colour("--ink");
      pen.fillText(word.word, x + 2, STRIP - 9, Math.max(6, size - 3));
    }
  }
}

function place(picture, fraction) {
  picture.cursor.style.left = `${100 * Math.min(1, Math.max(0, fraction))}%`;
}

// The least and the largest sample of each pixel; `start` to `end` are seconds that are marked.
export function drawWave(canvas, samples, start = 0, end = 0) {
  const pen = penOf(canvas), width = canvas.clientWidth, middle = WAVE / 2;
  const seconds = samples.length / RATE;
  pen.fillStyle = colour("--raised");
  pen.fillRect(0, 0, width, WAVE);
  if (end > start && end - start < seconds - 0.01) {
    pen.fillStyle = colour("--edge");
    pen.fillRect(width * start / seconds, 0, width * (end - start) / seconds, WAVE);
  }
  let loudest = 0.05; // so that silence looks like silence
  for (const sample of samples) loudest = Math.max(loudest, Math.abs(sample));
  pen.fillStyle = colour("--accent");
  for (let x = 0; x < width; x++) {
    let low = 0, high = 0;
    const last = Math.floor((x + 1) * samples.length / width);
    for (let i = Math.floor(x * samples.length / width); i < last; i++) {
      low = Math.min(low, samples[i]);
      high = Math.max(high, samples[i]);
    }
    const top = middle - high / loudest * (middle - 2);
    pen.fillRect(x, top, 1, Math.max(1, (high - low) / loudest * (middle - 2)));
  }
}
