// The pane beside the list: one utterance, to read, to hear and to see.

let shownNow = null; // what is in the pane; pictures that come late for another are dropped

function showDetail(pane, utterance, symbols, labels) {
  shownNow = utterance;
  pane.replaceChildren();
  if (!utterance) {
    pane.append(element("p", "pale", "Choose an utterance."));
    return;
  }
  pane.append(element("h3", "", utterance.i));
  pane.append(element("p", "note", factsOf(utterance, labels)));
  const audio = utterance.a ? element("audio") : null;
  pane.append(alignment(utterance, audio));
  if (!audio) return;
  audio.controls = true;
  audio.preload = "none";
  audio.src = utterance.a;
  pane.append(audio);
  showPictures(pane, utterance, symbols, audio);
}

function factsOf(utterance, labels) {
  const facts = [`${utterance.e} errors in ${utterance.n}`];
  if (utterance.t !== undefined) facts.push(`${utterance.t.toFixed(1)} s`);
  if (utterance.q !== undefined) facts.push(`about ${utterance.q} dB above noise`);
  labels.forEach((column, place) => {
    if (!/, | per /.test(column.title)) facts.push(`${column.title} ${column.names[utterance.l[place]]}`);
  });
  return facts.join(" · ");
}

// Reference above hypothesis, word by word; a click on a word plays it.
function alignment(utterance, audio) {
  const box = element("div", "aligned");
  for (const column of columnsOf(utterance)) {
    const both = element("span", "column");
    const wrong = column.operation !== "C";
    both.append(element("span", wrong && column.said ? column.operation : "", column.said || "·"));
    const heard = element("button", wrong && column.heard ? column.operation : "", column.heard || "·");
    const start = utterance.m && column.place >= 0 ? utterance.m[2 * column.place] : undefined;
    if (audio && start !== undefined) {
      heard.title = `play from ${start.toFixed(2)} s`;
      heard.onclick = () => playFrom(audio, start);
    } else {
      heard.disabled = true;
    }
    both.append(heard);
    if (utterance.c && column.place >= 0) {
      both.append(element("span", "sure", `${Math.round(100 * utterance.c[column.place])} %`));
    }
    box.append(both);
  }
  return box;
}

function playFrom(audio, seconds) {
  // A linked stretch of a longer recording begins later in its file.
  const offset = /#t=([\d.]+)/.exec(audio.src);
  audio.currentTime = seconds + (offset ? Number(offset[1]) : 0);
  audio.play();
}

async function showPictures(pane, utterance, symbols, audio) {
  const seconds = utterance.t || (utterance.p ? utterance.p.f * utterance.p.d : 0);
  if (!seconds) return;
  const spectrum = canvasOf(SPECTRUM, "spectrogram");
  const words = canvasOf(WORDS, "words over time");
  const output = canvasOf(OUTPUT, "probability of each unit over time");
  const axis = canvasOf(AXIS, "seconds");
  pane.append(spectrum);
  if (utterance.m) pane.append(words);
  if (utterance.p) pane.append(output);
  pane.append(axis);
  const draw = () => {
    if (utterance.m) drawWords(words, utterance, seconds);
    if (utterance.p) drawOutput(output, utterance.p, symbols, seconds);
    drawAxis(axis, seconds);
  };
  draw();
  for (const canvas of [spectrum, words, output]) {
    canvas.onclick = (event) => playFrom(audio, seconds * event.offsetX / canvas.clientWidth);
  }
  try {
    const rows = spectrogram(await loadSamples(utterance.a));
    if (shownNow === utterance) drawSpectrogram(spectrum, rows);
  } catch {
    // Browsers let a page from disk play a linked recording, but not read it.
    spectrum.replaceWith(element("p", "note", "No spectrogram: this recording is linked, not within the page."));
  }
  pane.dataset.drawn = utterance.i;
}
