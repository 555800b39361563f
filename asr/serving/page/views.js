// Pictures of a recording: all of it as a waveform, and the part around the position as a
// spectrogram with the words below it.
/* global RATE, canvasOf, colour, drawAxis, drawSpectrogram, element, penOf, spectrogram */

const SPAN = 12; // seconds of the spectrogram
const BLOCK = 64; // samples that share a pair of extremes
const WAVE = 60, STRIP = 26, AXIS_HEIGHT = 18, SPECTRUM_HEIGHT = 150; // pixels

export class Views {
  #box;
  #player;
  #samples = null;
  #extremes = []; // least and largest sample of each block
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
    this.#extremes = extremesOf(samples ?? []);
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
    drawWave(this.wave.canvas, this.#extremes, start, end);
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

// Of an hour, drawn again and again, the samples themselves would take too long.
function extremesOf(samples) {
  const count = Math.ceil(samples.length / BLOCK);
  const low = new Float32Array(count), high = new Float32Array(count);
  for (let i = 0; i < samples.length; i++) {
    const block = Math.floor(i / BLOCK);
    low[block] = Math.min(low[block], samples[i]);
    high[block] = Math.max(high[block], samples[i]);
  }
  return [low, high];
}

// `start` to `end` are the seconds that are marked.
function drawWave(canvas, [low, high], start, end) {
  const pen = penOf(canvas), width = canvas.clientWidth, middle = WAVE / 2;
  const seconds = low.length * BLOCK / RATE;
  pen.fillStyle = colour("--raised");
  pen.fillRect(0, 0, width, WAVE);
  if (end - start < seconds - 0.01) {
    pen.fillStyle = colour("--edge");
    pen.fillRect(width * start / seconds, 0, width * (end - start) / seconds, WAVE);
  }
  let loudest = 0.05; // so that silence looks like silence
  for (let i = 0; i < low.length; i++) loudest = Math.max(loudest, high[i], -low[i]);
  pen.fillStyle = colour("--accent");
  for (let x = 0; x < width; x++) {
    const first = Math.floor(x * low.length / width);
    const last = Math.max(first + 1, Math.floor((x + 1) * low.length / width));
    let least = 0, most = 0;
    for (let i = first; i < last; i++) {
      least = Math.min(least, low[i]);
      most = Math.max(most, high[i]);
    }
    const top = middle - most / loudest * (middle - 2);
    pen.fillRect(x, top, 1, Math.max(1, (most - least) / loudest * (middle - 2)));
  }
}
