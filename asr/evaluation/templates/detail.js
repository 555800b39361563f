// The pane beside the list: one utterance, with its text, sound and pictures.

let shownNow = null; // the utterance in the pane; late pictures of another one are dropped
let redraw = () => {}; // draws its pictures in the present colours and size
let decoded = ""; // address of the WAV file that is played

function showDetail(pane, utterance, symbols, labels) {
  shownNow = utterance;
  redraw = () => {};
  pane.replaceChildren();
  if (!utterance) {
    pane.append(element("p", "pale", "No utterance matches the filter: show all."));
    return;
  }
  pane.append(element("h3", "", utterance.i));
  pane.append(element("p", "note", factsOf(utterance, labels)));
  const audio = utterance.a ? element("audio") : null;
  pane.append(alignment(utterance, audio));
  if (utterance.w) pane.append(beforeNormalisation(utterance, audio));
  if (!audio) return;
  audio.controls = true;
  audio.preload = "none";
  audio.src = utterance.a;
  audio.onerror = () => audio.replaceWith(element("p", "note",
    `This browser cannot play ${utterance.a.startsWith("data:") ? "the recording" : utterance.a}.`));
  pane.append(audio);
  showPictures(pane, utterance, symbols, audio);
}

function factsOf(utterance, labels) {
  const facts = [`${utterance.e} ${utterance.e === 1 ? "error" : "errors"} in ${utterance.n}`];
  if (utterance.t !== undefined) facts.push(`${utterance.t.toFixed(1)} s`);
  if (utterance.q !== undefined) facts.push(`about ${utterance.q} dB above noise`);
  labels.forEach((column, place) => {
    if (column.told) facts.push(`${column.title}: ${column.names[utterance.l[place]]}`);
  });
  return facts.join(" · ");
}

// Reference above hypothesis, word by word; a click on a word plays it.
function alignment(utterance, audio) {
  const box = element("div", "aligned");
  box.dir = "auto"; // as the script runs
  for (const column of columnsOf(utterance)) {
    const both = element("span", "column");
    const wrong = column.operation !== "C";
    both.append(element("span", wrong && column.reference ? column.operation : "", column.reference || "·"));
    // If normalisation changed words, times and confidences belong to the original ones.
    const place = utterance.w ? -1 : column.place;
    const hypothesis = wordButton(utterance, audio, column.hypothesis || "·", place);
    if (wrong && column.hypothesis) hypothesis.classList.add(column.operation);
    both.append(hypothesis);
    addConfidence(both, utterance, place);
    box.append(both);
  }
  return box;
}

function beforeNormalisation(utterance, audio) {
  const box = element("div", "aligned");
  box.dir = "auto";
  const label = element("span", "pale", "before normalisation:");
  label.dir = "ltr"; // of no account for the direction of the box
  box.append(label);
  utterance.w.forEach((word, place) => {
    const column = element("span", "column");
    column.append(wordButton(utterance, audio, word, place));
    addConfidence(column, utterance, place);
    box.append(column);
  });
  return box;
}

function wordButton(utterance, audio, word, place) {
  const button = element("button", "", word);
  const start = utterance.m && place >= 0 ? utterance.m[2 * place] : undefined;
  button.disabled = !audio || start === undefined;
  if (!button.disabled) {
    button.title = `play from ${start.toFixed(2)} s`;
    button.onclick = () => playFrom(audio, start);
  }
  return button;
}

function addConfidence(column, utterance, place) {
  if (utterance.c && place >= 0) {
    const sure = element("span", "sure", `${Math.round(100 * utterance.c[place])} %`);
    sure.dir = "ltr";
    column.append(sure);
  }
}

function playFrom(audio, seconds) {
  // A linked segment of a longer recording begins later in its file.
  const offset = /#t=([\d.]+)/.exec(audio.src);
  audio.currentTime = seconds + (offset ? Number(offset[1]) : 0);
  audio.play().catch(() => {}); // the audio element shows the error
}

// Chromium cannot seek in the last half second of FLAC, which embedded recordings are.
function playDecoded(audio, samples) {
  const {currentTime, paused} = audio;
  URL.revokeObjectURL(decoded); // that of the utterance before
  decoded = URL.createObjectURL(wavFile(samples));
  audio.src = decoded;
  audio.currentTime = currentTime;
  if (!paused) audio.play().catch(() => {});
}

async function showPictures(pane, utterance, symbols, audio) {
  const seconds = utterance.t || (utterance.p ? utterance.p.f * utterance.p.d : 0);
  if (!seconds) return;
  const spectrum = canvasOf(SPECTRUM, "spectrogram");
  const words = canvasOf(WORDS, "words over time");
  const output = canvasOf(OUTPUT, "probability of each token over time");
  const axis = canvasOf(AXIS, "seconds");
  pane.append(spectrum);
  if (utterance.m) pane.append(words);
  if (utterance.p) pane.append(output);
  pane.append(axis);
  let rows = null;
  redraw = () => {
    if (rows) drawSpectrogram(spectrum, rows);
    if (utterance.m) drawWords(words, utterance, seconds);
    if (utterance.p) drawOutput(output, utterance.p, symbols, seconds);
    drawAxis(axis, seconds);
  };
  redraw();
  for (const canvas of [spectrum, words, output]) {
    canvas.onclick = (event) => playFrom(audio, seconds * event.offsetX / canvas.clientWidth);
  }
  try {
    const samples = await loadSamples(utterance.a);
    if (shownNow === utterance && utterance.a.startsWith("data:")) playDecoded(audio, samples);
    rows = spectrogram(samples);
    if (shownNow === utterance) redraw();
  } catch {
    // A page from disk may play a linked recording, but browsers do not let it read the file.
    spectrum.replaceWith(element("p", "note", "No spectrogram: this recording is linked, not embedded in the page."));
  }
  pane.dataset.drawn = utterance.i;
}
