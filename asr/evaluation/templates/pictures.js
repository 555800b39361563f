// Pictures over time: the spectrogram, the words, and the network's output for every token.

const WORDS = 26, AXIS = 18, SPECTRUM = 150, OUTPUT = 130; // pixels
const RANGE = 70; // dB below the loudest

function colour(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}

function canvasOf(height, label) {
  const canvas = element("canvas");
  canvas.setAttribute("role", "img");
  canvas.setAttribute("aria-label", label);
  canvas.style.height = `${height}px`;
  return canvas;
}

function penOf(canvas) {
  const scale = window.devicePixelRatio || 1;
  canvas.width = Math.max(1, Math.round(canvas.clientWidth * scale));
  canvas.height = Math.round(parseFloat(canvas.style.height) * scale);
  const pen = canvas.getContext("2d");
  pen.scale(scale, scale);
  pen.font = "11px system-ui, sans-serif";
  return pen;
}

// Loudness from dark violet over red to pale yellow.
const HEAT = Array.from({length: 256}, (_, step) => {
  const stops = [[10, 8, 30], [90, 20, 110], [200, 60, 80], [250, 160, 60], [252, 250, 200]];
  const at = step / 256 * (stops.length - 1), low = Math.floor(at), part = at - low;
  return [...stops[low].map((value, i) => value + part * (stops[low + 1][i] - value)), 255];
});

function drawSpectrogram(canvas, rows) {
  const pen = penOf(canvas), bins = rows[0].length;
  let loudest = -Infinity;
  for (const row of rows) for (const value of row) loudest = Math.max(loudest, value);
  const image = new ImageData(rows.length, bins);
  rows.forEach((row, x) => {
    for (let k = 0; k < bins; k++) {
      const at = 4 * ((bins - 1 - k) * rows.length + x);
      const step = Math.round(255 * (row[k] - loudest + RANGE) / RANGE);
      image.data.set(HEAT[Math.max(0, step)], at);
    }
  });
  const plain = new OffscreenCanvas(rows.length, bins);
  plain.getContext("2d").putImageData(image, 0, 0);
  pen.drawImage(plain, 0, 0, canvas.clientWidth, SPECTRUM);
  pen.fillStyle = "#fff";
  for (const kilohertz of [2, 4, 6]) {
    pen.fillText(`${kilohertz} kHz`, 3, SPECTRUM * (1 - kilohertz / (RATE / 2000)) + 4);
  }
}

function drawWords(canvas, utterance, seconds) {
  const pen = penOf(canvas), width = canvas.clientWidth;
  const wrong = new Map(utterance.w ? []
    : columnsOf(utterance).map((column) => [column.place, column.operation]));
  const words = utterance.w ?? (utterance.h ? utterance.h.split(" ") : []);
  words.forEach((word, place) => {
    const [start, end] = [utterance.m[2 * place], utterance.m[2 * place + 1]];
    const x = width * start / seconds, size = Math.max(3, width * (end - start) / seconds - 1);
    const operation = wrong.get(place);
    pen.fillStyle = colour({S: "--wrong-back", I: "--new-back"}[operation] || "--raised");
    pen.fillRect(x, 2, size, WORDS - 4);
    pen.fillStyle = colour({S: "--wrong", I: "--new"}[operation] || "--ink");
    pen.fillText(word, x + 2, WORDS - 9, Math.max(6, size - 3));
  });
}

// `start` is the second at the left end.
function drawAxis(canvas, seconds, start = 0) {
  const pen = penOf(canvas), width = canvas.clientWidth;
  const step = [0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60].find((s) => width * s / seconds > 45) || 300;
  pen.fillStyle = colour("--pale");
  pen.strokeStyle = colour("--edge");
  for (let time = step * Math.ceil(start / step); time < start + seconds; time += step) {
    const x = width * (time - start) / seconds;
    pen.beginPath();
    pen.moveTo(x, 0);
    pen.lineTo(x, 4);
    pen.stroke();
    pen.fillText(`${+time.toFixed(1)} s`, x + 2, 14);
  }
}

// Every interval of frames with a visible token is a curve, with the token above its maximum.
function drawOutput(canvas, output, symbols, seconds) {
  const pen = penOf(canvas), width = canvas.clientWidth, ground = OUTPUT - 2;
  const x = (frame) => width * (frame + 0.5) * output.d / seconds;
  const y = (percent) => ground - percent / 100 * (OUTPUT - 22);
  const hills = new Map();
  const done = [];
  for (let i = 0; i < output.v.length; i += 3) {
    const [unit, frame, percent] = output.v.slice(i, i + 3);
    const hill = hills.get(unit);
    if (hill && frame === hill.last + 1) {
      hill.heights.push(percent);
      hill.last = frame;
    } else {
      const made = {unit, first: frame, last: frame, heights: [percent]};
      hills.set(unit, made);
      done.push(made);
    }
  }
  for (const hill of done) {
    const hue = (hill.unit * 67) % 360;
    pen.beginPath();
    pen.moveTo(x(hill.first - 1), ground);
    hill.heights.forEach((height, i) => pen.lineTo(x(hill.first + i), y(height)));
    pen.lineTo(x(hill.last + 1), ground);
    pen.fillStyle = `hsl(${hue} 60% 55% / 0.45)`;
    pen.strokeStyle = `hsl(${hue} 60% 50%)`;
    pen.fill();
    pen.stroke();
    const top = Math.max(...hill.heights);
    if (top >= 15) {
      const at = hill.first + hill.heights.indexOf(top);
      pen.fillStyle = colour("--ink");
      pen.textAlign = "center";
      // The mark that begins a word is not shown before its letters.
      const label = (symbols[hill.unit] ?? String(hill.unit)).replace(/^\u2581(?=.)/, "");
      const half = pen.measureText(label).width / 2;
      pen.fillText(label, Math.min(width - half, Math.max(half, x(at))), y(top) - 4);
    }
  }
}
