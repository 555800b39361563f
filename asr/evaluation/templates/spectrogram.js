// Samples of a recording, and their spectrogram.

const RATE = 16000, WINDOW = 512, HOP = 160, MOST_FRAMES = 3000;

async function loadSamples(source) {
  let bytes;
  if (source.startsWith("data:")) {
    bytes = Uint8Array.from(atob(source.slice(source.indexOf(",") + 1)), (c) => c.charCodeAt(0)).buffer;
  } else {
    bytes = await (await fetch(source)).arrayBuffer();
  }
  const decoded = await new OfflineAudioContext(1, 1, RATE).decodeAudioData(bytes);
  const samples = decoded.getChannelData(0);
  // A link to a segment of a longer recording; the whole file is loaded.
  const stretch = /^[^#]*#t=([\d.]+)(?:,([\d.]+))?$/.exec(source);
  if (!stretch) return samples;
  const [start, end] = stretch.slice(1).map((seconds) => seconds && Math.round(seconds * RATE));
  return samples.slice(start, end);
}

// The samples as a WAV file of 16 bits, for an audio element.
function wavFile(samples) {
  const header = new DataView(new ArrayBuffer(44));
  const text = (at, four) => [...four].forEach((c, i) => header.setUint8(at + i, c.charCodeAt(0)));
  const bytes = 2 * samples.length;
  text(0, "RIFF"); header.setUint32(4, 36 + bytes, true); text(8, "WAVE");
  text(12, "fmt "); header.setUint32(16, 16, true);
  header.setUint16(20, 1, true); header.setUint16(22, 1, true); // PCM, one channel
  header.setUint32(24, RATE, true); header.setUint32(28, 2 * RATE, true);
  header.setUint16(32, 2, true); header.setUint16(34, 16, true);
  text(36, "data"); header.setUint32(40, bytes, true);
  const words = new Int16Array(samples.length);
  samples.forEach((x, i) => { words[i] = Math.round(32767 * Math.max(-1, Math.min(1, x))); });
  return new Blob([header, words], {type: "audio/wav"});
}

// Power in dB, [frames][WINDOW / 2 + 1], by a radix-2 fast Fourier transform of Hann windows.
function spectrogram(samples) {
  // Enough frames for an hour on a screen.
  const hop = Math.max(HOP, Math.ceil(samples.length / MOST_FRAMES));
  const frames = Math.max(1, Math.floor((samples.length - WINDOW) / hop) + 1);
  const hann = Float32Array.from({length: WINDOW}, (_, i) => 0.5 - 0.5 * Math.cos(2 * Math.PI * i / WINDOW));
  const real = new Float32Array(WINDOW), imaginary = new Float32Array(WINDOW);
  const rows = [];
  for (let frame = 0; frame < frames; frame++) {
    imaginary.fill(0);
    for (let i = 0; i < WINDOW; i++) real[i] = (samples[frame * hop + i] || 0) * hann[i];
    transform(real, imaginary);
    const row = new Float32Array(WINDOW / 2 + 1);
    for (let k = 0; k < row.length; k++) row[k] = 10 * Math.log10(real[k] ** 2 + imaginary[k] ** 2 + 1e-10);
    rows.push(row);
  }
  return rows;
}

function transform(real, imaginary) {
  const n = real.length;
  for (let i = 1, j = 0; i < n; i++) {
    let bit = n >> 1;
    for (; j & bit; bit >>= 1) j ^= bit;
    j ^= bit;
    if (i < j) {
      [real[i], real[j]] = [real[j], real[i]];
      [imaginary[i], imaginary[j]] = [imaginary[j], imaginary[i]];
    }
  }
  for (let size = 2; size <= n; size *= 2) {
    const half = size / 2, angle = -2 * Math.PI / size;
    for (let k = 0; k < half; k++) {
      const c = Math.cos(angle * k), s = Math.sin(angle * k);
      for (let start = 0; start < n; start += size) {
        const a = start + k, b = a + half;
        const re = real[b] * c - imaginary[b] * s, im = real[b] * s + imaginary[b] * c;
        real[b] = real[a] - re;
        imaginary[b] = imaginary[a] - im;
        real[a] += re;
        imaginary[a] += im;
      }
    }
  }
}
