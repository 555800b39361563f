// Recordings as samples, and samples as recordings.
/* global RATE */

export const MOST_BYTES = 300e6; // of a file that is decoded for pictures
export const MOST_SECONDS = 3600;

// Mono samples at RATE Hz, for pictures only. Throws if the browser cannot decode the file.
export async function decode(blob) {
  if (blob.size > MOST_BYTES) throw new Error("too large");
  const context = new OfflineAudioContext(1, 1, RATE);
  const decoded = await context.decodeAudioData(await blob.arrayBuffer());
  if (decoded.duration > MOST_SECONDS) throw new Error("too long");
  const mixed = decoded.getChannelData(0);
  for (let channel = 1; channel < decoded.numberOfChannels; channel++) {
    const other = decoded.getChannelData(channel);
    for (let i = 0; i < mixed.length; i++) mixed[i] += other[i];
  }
  return mixed;
}

// A wav file of 16-bit samples, given as blocks.
export function wav(blocks, rate) {
  const bytes = blocks.reduce((sum, block) => sum + block.byteLength, 0);
  const header = new DataView(new ArrayBuffer(44));
  const text = (at, letters) => {
    for (let i = 0; i < letters.length; i++) header.setUint8(at + i, letters.charCodeAt(i));
  };
  text(0, "RIFF");
  header.setUint32(4, 36 + bytes, true);
  text(8, "WAVEfmt ");
  header.setUint32(16, 16, true);
  header.setUint16(20, 1, true); // PCM
  header.setUint16(22, 1, true); // channels
  header.setUint32(24, rate, true);
  header.setUint32(28, 2 * rate, true);
  header.setUint16(32, 2, true);
  header.setUint16(34, 16, true);
  text(36, "data");
  header.setUint32(40, bytes, true);
  return new Blob([header, ...blocks], {type: "audio/wav"});
}
