// The page of reviews: listen, correct the text, go on. A text counts as saved when the server has
// written it. Until then it is kept in this browser.

import {request, requestJson} from "./api.js";
import {Player} from "./player.js";
import {decode} from "./sound.js";
import {Views} from "./views.js";
import {Words} from "./words.js";
/* global element */

const find = (id) => document.getElementById(id);
const player = new Player(find("audio"));
const words = new Words(find("text"), player);
const views = new Views(find("pictures"), player);
const correct = find("correct");

const WATCHED_MS = 3000;

let list = {items: []};
let item = null; // the recording in the editor
const before = []; // ids that were open earlier

function say(text) {
  // Screen readers would tell the same text again.
  if (find("status").textContent !== text) find("status").textContent = text;
}

function fail(error) {
  find("error").textContent = error.message;
  find("error").hidden = false;
}

const address = (what, id) => `review/${what}?id=${encodeURIComponent(id)}`;

// --- unsaved texts, which survive the browser ---

const draftKey = (of) => `asr-draft ${list.review} ${of.version} ${of.id}`;

function keepDraft() {
  if (!item) return;
  if (correct.value === item.text) localStorage.removeItem(draftKey(item));
  else localStorage.setItem(draftKey(item), correct.value);
}

// --- the list ---

async function refresh() {
  list = await requestJson("review/list");
  const {total, recognised, checked, left_out: leftOut} = list.counts;
  const rest = [leftOut && `${leftOut} left out`, isRecognising() && `${recognised} recognised`];
  say([`${checked} of ${total} checked`, ...rest.filter(Boolean)].join(", ") + ".");
  find("share").hidden = false;
  find("share").max = total;
  find("share").value = checked + leftOut;
  const focused = document.activeElement?.dataset.id;
  find("queue").replaceChildren(...list.items.map(row));
  const place = focused === undefined ? -1 : list.items.findIndex((entry) => entry.id === focused);
  find("queue").children[place]?.firstChild.focus();
  find("more").hidden = list.items.length === total;
  find("more").textContent = `The first ${list.items.length} of ${total}.`;
}

function row(entry) {
  const line = element("li"), button = element("button");
  button.type = "button";
  button.dataset.id = entry.id;
  const state = entry.checked ? "checked ✓" : entry.left_out ? "left out" : entry.error ? "not recognised"
    : entry.confidence === null ? "waiting" : `lowest confidence ${Math.round(100 * entry.confidence)} %`;
  button.append(element("span", "meta", `${entry.id} · ${state}`));
  button.append(element("span", entry.text ? "line" : "line pale", entry.text || "no text"));
  if (entry.id === item?.id) button.setAttribute("aria-current", "true");
  button.onclick = () => guarded(() => open(entry.id));
  line.append(button);
  return line;
}

// Whether recordings are still to be recognised. Those that were decided about before are not.
function isRecognising() {
  return list.counts.waiting > 0;
}

// Meanwhile the order changes.
async function watch() {
  if (list.counts && isRecognising() && !busy) {
    await refresh().then(takeSuggestion).catch(() => {}); // an error is shown when something is saved
  }
  setTimeout(watch, WATCHED_MS);
}

// Shows what was recognised after the item was opened; a text that was begun stays.
async function takeSuggestion() {
  const entry = list.items.find((one) => one.id === item?.id);
  if (!entry || item.suggestion || (entry.confidence === null && !entry.error)) return;
  const found = await requestJson(address("item", entry.id));
  if (busy || found.id !== item.id || found.version !== item.version) return;
  const untouched = correct.value === item.text;
  Object.assign(item, found); // its sound may still be on the way to this object
  showSuggestion();
  views.setWords(words.all);
  if (untouched) correct.value = item.text;
}

// The first in the list after those that were skipped.
function nextOf(skipped) {
  const open = list.items.filter((entry) => !entry.checked && !entry.left_out && entry.id !== item?.id);
  return (open.find((entry) => !skipped.has(entry.id)) ?? open[0])?.id;
}

// --- the editor ---

async function open(id, back = false) {
  find("error").hidden = true;
  if (item && !back && item.id !== id) before.push(item.id);
  const found = await requestJson(address("item", id));
  item = found;
  find("work").hidden = false;
  find("conflict").hidden = true;
  find("name").textContent = item.id;
  find("about").textContent = [item.speaker, item.seconds ? `${item.seconds.toFixed(1)} s` : ""]
    .filter(Boolean).join(" · ");
  showSuggestion();
  const draft = localStorage.getItem(draftKey(item));
  correct.value = draft ?? item.text;
  find("origin").textContent = draft !== null ? "(not saved yet)" : {
    checked: "(checked)", manifest: "(of the manifest)", suggestion: "(as recognised)",
    "left out": "(left out)",
  }[item.origin];
  find("back").disabled = !before.length;
  for (const button of find("queue").querySelectorAll("[aria-current]")) button.removeAttribute("aria-current");
  const place = list.items.findIndex((entry) => entry.id === id);
  find("queue").children[place]?.firstChild.setAttribute("aria-current", "true");
  correct.focus();
  showSound(found).catch((error) => {
    if (found === item) fail(error);
  }); // the text can be written and saved meanwhile
}

function showSuggestion() {
  words.clear();
  const {suggestion} = item;
  if (suggestion?.text) words.add({start: 0, text: suggestion.text, words: suggestion.words});
  const note = !suggestion ? "Not recognised yet."
    : suggestion.error || (suggestion.text ? "" : "No speech was recognised.");
  find("suggestion-note").textContent = note;
  find("suggestion-note").hidden = !note;
  find("use").disabled = !suggestion?.text;
}

async function showSound(of) {
  player.unload();
  views.show(null, []);
  const answer = await request(address("audio", of.id));
  const blob = await answer.blob();
  if (of !== item) return;
  player.load(blob);
  if (find("autoplay").checked) player.toggle();
  const samples = await decode(blob).catch(() => null);
  if (of === item) views.show(samples, words.all, samples ? "" : "This browser cannot draw the recording.");
}

const skipped = new Set();

async function goOn() {
  await refresh();
  const id = nextOf(skipped);
  if (id !== undefined) return open(id);
  if (item) await open(item.id, true);
  const {total, checked, left_out: leftOut} = list.counts;
  if (checked + leftOut === total) say(`All ${total} recordings are done.`);
}

// The text null leaves the recording out.
async function save(text, version = item.version) {
  const saving = item;
  find("error").hidden = true;
  try {
    await request("review/item", {
      method: "PUT",
      headers: {"Content-Type": "application/json"},
      body: JSON.stringify({id: saving.id, text, version}),
    });
  } catch (error) {
    if (error.status !== 409) {
      throw new Error(`Not saved: ${error.message} The text is kept in this browser.`);
    }
    const theirs = await requestJson(address("item", saving.id));
    find("theirs-is").textContent = theirs.left_out ? "left this recording out" : "saved this text";
    find("theirs").textContent = theirs.text;
    find("conflict").hidden = false;
    find("take").onclick = () => {
      localStorage.removeItem(draftKey(saving));
      guarded(() => open(saving.id, true));
    };
    find("keep").onclick = () => {
      guarded(() => save(text === null ? null : correct.value, theirs.version));
    };
    return; // the focus stays: another Enter decides nothing
  }
  localStorage.removeItem(draftKey(saving));
  await goOn();
}

let busy = false; // one thing at a time: a key that is held down saves once

async function guarded(work) {
  if (busy) return;
  busy = true;
  try {
    await work();
  } catch (error) {
    fail(error);
  } finally {
    busy = false;
  }
}

function skip() {
  if (item) skipped.add(item.id);
  return goOn();
}

function leaveOut() {
  return item && save(null);
}

function goBack() {
  const id = before.pop();
  return id === undefined ? undefined : open(id, true);
}

find("form").onsubmit = (event) => {
  event.preventDefault();
  if (item) guarded(() => save(correct.value));
};
find("leave").onclick = () => guarded(leaveOut);
find("skip").onclick = () => guarded(skip);
find("back").onclick = () => guarded(goBack);
find("use").onclick = () => {
  correct.value = item.suggestion.text;
  keepDraft();
  correct.focus();
};
correct.oninput = keepDraft;
correct.onkeydown = (event) => {
  // 229: Safari's Enter that ends a composition.
  if (event.key === "Enter" && !event.isComposing && event.keyCode !== 229) {
    event.preventDefault(); // a text has one line
    find("form").requestSubmit();
  }
};
addEventListener("keydown", (event) => {
  if (event.key === "Escape" && !find("token-dialog").open) player.toggle();
  else if (event.altKey && event.key === "ArrowDown") guarded(skip);
  else if (event.altKey && event.key === "ArrowUp") guarded(goBack);
  else if (event.altKey && event.key === "Delete") guarded(leaveOut);
  else return;
  event.preventDefault();
});

guarded(goOn).then(watch);
