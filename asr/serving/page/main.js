// The page at /: a file or the microphone, its text while it is recognised, and what can be done
// with the text.

import {request, requestJson} from "./api.js";
import {eventsOf} from "./events.js";
import {recognizeLive} from "./live.js";
import {Player} from "./player.js";
import {decode, wav} from "./sound.js";
import {Views} from "./views.js";
import {Words} from "./words.js";
/* global element */

const find = (id) => document.getElementById(id);
const player = new Player(find("audio"));
const words = new Words(find("text"), player);
const views = new Views(find("pictures"), player);
const TYPES = {txt: "text/plain", srt: "application/x-subrip", vtt: "text/vtt", json: "application/json"};

let transcript = null; // what can be downloaded: {seconds, segments}
let name = "recording"; // of the downloaded files
let stop = null; // ends the work in progress
let run = 0; // its number: what an earlier one still gives is dropped

function say(text) {
  find("status").textContent = text;
}

function fail(error) {
  find("error").textContent = error.message;
  find("error").hidden = false;
}

// The new text for screen readers, without the times that are beside its words.
function announce(text) {
  find("spoken").textContent = text;
}

// Only one recording at a time is recognised; `work` gets a function that tells whether it still is.
async function once(label, ending, work) {
  stop?.();
  const own = ++run;
  find("error").hidden = true;
  find("stop").textContent = label;
  find("stop").hidden = false;
  stop = ending;
  clear();
  try {
    await work(() => own === run);
  } catch (error) {
    if (own !== run) return;
    if (!find("text").hasChildNodes()) clear(); // there is nothing to see or to hear
    if (error.name === "AbortError") say("Stopped.");
    else {
      say("Failed.");
      fail(error);
    }
  } finally {
    if (own === run) {
      find("stop").hidden = true;
      stop = null;
    }
  }
}

function clear() {
  transcript = null;
  announce("");
  words.clear();
  player.unload();
  views.show(null, []);
  for (const id of ["result", "sound", "facts-label", "legend", "downloads"]) find(id).hidden = true;
}

// --- a file ---

function openFile(file) {
  name = file.name.replace(/\.[^.]*$/, "") || "recording";
  const abort = new AbortController();
  once("Cancel", () => abort.abort(), async (isCurrent) => {
    say(`Recognising ${file.name} ...`);
    const began = performance.now();
    const sound = showSound(file, isCurrent);
    const result = await upload(file, abort.signal, isCurrent);
    if (!isCurrent()) return;
    finish(result);
    const took = (performance.now() - began) / 1000;
    say(`${result.seconds.toFixed(1)} s of audio, recognised in ${took.toFixed(1)} s.`);
    if (result.warning) fail(new Error(`The recording stops early: ${result.warning}`));
    await sound;
  });
}

async function upload(file, signal, isCurrent) {
  const form = new FormData();
  form.append("file", file, file.name);
  form.append("model", find("model").value);
  form.append("response_format", "verbose_json");
  form.append("stream", "true");
  for (const kind of ["segment", "word"]) form.append("timestamp_granularities[]", kind);
  for (const phrase of keywords()) form.append("keywords[]", phrase);
  const answer = await request("v1/audio/transcriptions", {method: "POST", body: form, signal});
  const growing = element("p");
  let done = null;
  for await (const event of eventsOf(answer)) {
    if (!isCurrent()) break;
    if (event.type === "transcript.text.delta") {
      if (!growing.isConnected) find("text").append(growing);
      find("result").hidden = false;
      growing.append(event.delta);
      announce(event.delta);
    } else if (event.type === "transcript.text.done") {
      done = event;
    } else if (event.error) {
      throw new Error(event.error.message);
    }
  }
  if (!done && isCurrent()) throw new Error("The server's answer ended too early.");
  growing.remove();
  return done && transcriptOf(done);
}

// The segments have no words in OpenAI's form, but both are in the order of time.
function transcriptOf({duration, segments, words: all, warning}) {
  const starts = segments.slice(1).map((segment) => segment.start);
  const own = segments.map(({start, end, text}) => ({start, end, text, words: []}));
  let place = 0;
  for (const {word, start, end, confidence} of all) {
    while (start >= starts[place]) place++;
    own[place].words.push({word, start, end, confidence});
  }
  return {seconds: duration, segments: own, warning};
}

function keywords() {
  return find("keywords").value.split(",").map((phrase) => phrase.trim()).filter(Boolean);
}

async function showSound(blob, isCurrent) {
  find("sound").hidden = false;
  player.load(blob);
  let samples = null, note = "";
  try {
    samples = await decode(blob);
  } catch {
    note = "This browser cannot draw the recording: it is over an hour long, or of a kind that the "
      + "browser cannot read.";
  }
  if (isCurrent() && !find("sound").hidden) views.show(samples, words.all, note);
}

// --- the microphone ---

function useMicrophone() {
  name = "microphone";
  const blocks = [];
  const ending = new AbortController();
  once("Stop", () => ending.abort(), async (isCurrent) => {
    say("Waiting for the microphone ...");
    const partial = element("p", "partial");
    partial.setAttribute("aria-hidden", "true"); // it changes all the time
    const segments = [];
    let rate = 0, failure = null;
    await recognizeLive(ending.signal, find("model").value, keywords(), {
      onStart(actual) {
        rate = actual;
        if (!isCurrent()) return;
        find("result").hidden = false;
        find("text").append(partial);
        say("Listening. Speak.");
      },
      onSamples: (block) => blocks.push(block),
      onPartial(text) {
        partial.textContent = text;
      },
      onFinal(segment) {
        partial.textContent = "";
        if (!isCurrent()) return;
        segments.push(segment);
        words.add(segment);
        announce(segment.text);
        find("text").append(partial);
        find("facts-label").hidden = find("legend").hidden = false;
        find("text").scrollTop = find("text").scrollHeight;
      },
    }).catch((error) => {
      failure = error; // what was said until then can still be saved
    });
    if (!isCurrent()) return;
    partial.remove();
    const seconds = blocks.reduce((sum, block) => sum + block.length, 0) / rate;
    if (failure && !segments.length && !(seconds >= 1)) throw failure;
    words.clear();
    finish({seconds, segments});
    say(`Stopped after ${seconds.toFixed(1)} s.`);
    if (failure) fail(failure);
    if (blocks.length) await showSound(wav(blocks, rate), isCurrent);
  });
}

// --- the result ---

function finish(result) {
  transcript = {seconds: result.seconds, segments: result.segments};
  for (const segment of result.segments) words.add(segment);
  const some = words.all.length > 0;
  if (!result.segments.some((segment) => segment.text)) {
    find("text").append(element("p", "pale", "No speech was recognised."));
  }
  find("facts-label").hidden = find("legend").hidden = !some;
  find("result").hidden = find("downloads").hidden = false;
  views.setWords(words.all);
}

async function download(format) {
  const answer = await request(`page/format?to=${format}`, {
    method: "POST",
    headers: {"Content-Type": "application/json"},
    body: JSON.stringify(transcript),
  });
  const link = element("a");
  link.href = URL.createObjectURL(new Blob([await answer.blob()], {type: TYPES[format]}));
  link.download = `${name}.${format}`;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}

// --- the page ---

find("file").onchange = () => {
  if (find("file").files.length) openFile(find("file").files[0]);
  find("file").value = ""; // so that the same file can be chosen again
};
find("microphone").onclick = useMicrophone;
find("stop").onclick = () => stop?.();
for (const button of find("downloads").querySelectorAll("button")) {
  button.onclick = () => download(button.dataset.format).catch(fail);
}
find("facts").onchange = () => find("text").classList.toggle("plain", !find("facts").checked);
for (const kind of ["dragenter", "dragover"]) {
  addEventListener(kind, (event) => {
    event.preventDefault();
    find("drop").classList.toggle("over", true);
  });
}
for (const kind of ["dragleave", "drop"]) {
  addEventListener(kind, (event) => {
    event.preventDefault();
    if (kind === "drop" || !event.relatedTarget) find("drop").classList.remove("over");
  });
}
addEventListener("drop", (event) => {
  const files = event.dataTransfer.files;
  if (files.length > 1) fail(new Error(`Drop one recording at a time: these were ${files.length}.`));
  else if (files.length) openFile(files[0]);
});

async function start() {
  const [models, settings] = await Promise.all([
    requestJson("v1/models"), requestJson("page/settings"),
  ]);
  for (const model of models.data) find("model").append(new Option(model.id, model.id));
  find("model-label").hidden = models.data.length < 2;
  find("nav").hidden = !settings.review;
  if (!run) say("Ready.");
}

start().catch((error) => {
  say("Not ready.");
  fail(error);
});
