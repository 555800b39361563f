// Filtering, sorting and event listeners.
//
// Keys of an utterance: i id, r reference, h hypothesis, o operations of the alignment, e errors,
// n length of the reference, l its label's number in every breakdown, s speaker, t seconds, q signal
// to noise in dB, w recognised words if normalisation changed them, c confidences, m start and
// end of each recognised word, a audio, p output (f frames, d seconds per frame, v token, frame, percent).

const data = JSON.parse(document.getElementById("data").textContent);
const all = data.utterances;
all.forEach((utterance, place) => {
  utterance.place = place;
  utterance.search = [utterance.r, utterance.h, utterance.i, utterance.s].join("\n").toLowerCase();
});

const get = (id) => document.getElementById(id);
const pane = get("pane");
const show = (utterance) => showDetail(pane, utterance, data.symbols, data.labels);
const update = createList(get("list"), show);
let pair = null; // reference and hypothesis; "" if there is none

const orders = {
  errors: (a, b) => b.e - a.e,
  rate: (a, b) => b.e / Math.max(1, b.n) - a.e / Math.max(1, a.n),
  length: (a, b) => b.n - a.n,
  speaker: (a, b) => (a.s ?? "").localeCompare(b.s ?? ""),
  confidence: (a, b) => Math.min(2, lowest(a.c)) - Math.min(2, lowest(b.c)),
  order: () => 0,
};

function hasPair(utterance) {
  return utterance.e > 0 && columnsOf(utterance).some((column) => column.operation !== "C"
    && column.reference === pair.reference && column.hypothesis === pair.hypothesis);
}

function refresh() {
  const text = get("text").value.trim().toLowerCase();
  const title = Number(get("group-title").value), label = Number(get("group-label").value);
  const wanted = all.filter((u) => (!text || u.search.includes(text))
    && (!get("wrong").checked || u.e > 0)
    && (title < 0 || label < 0 || u.l[title] === label)
    && (!pair || hasPair(u)));
  const order = orders[get("sort").value];
  wanted.sort((a, b) => order(a, b) || a.place - b.place);
  get("count").textContent = `${wanted.length} of ${all.length}`;
  get("pair").hidden = !pair;
  if (pair) get("pair").textContent = `${pair.reference || "–"} → ${pair.hypothesis || "–"}  ×`;
  update(wanted);
}

function fill(select, first, names) {
  select.replaceChildren(new Option(first, "-1"), ...names.map((name, i) => new Option(name, String(i))));
}

function fillLabels() {
  const title = Number(get("group-title").value);
  const names = title < 0 ? [] : data.labels[title].names;
  fill(get("group-label"), "all", names);
  get("group-label").hidden = title < 0;
}

fill(get("group-title"), "every group", data.labels.map((column) => column.title));
// Speakers are the most useful group.
get("group-title").value = String(data.labels.findIndex((column) => column.title === "speaker"));
fillLabels();

get("text").oninput = refresh;
for (const id of ["wrong", "sort", "group-label"]) get(id).onchange = refresh;
get("group-title").onchange = () => {
  fillLabels();
  refresh();
};
get("pair").onclick = () => {
  pair = null;
  refresh();
};

function reset() {
  get("text").value = "";
  get("wrong").checked = false;
  get("group-label").value = "-1";
  pair = null;
}

document.addEventListener("click", (event) => {
  const button = event.target.closest("button.link");
  if (!button) return;
  reset();
  if (button.id === "all") {
    refresh();
    return;
  }
  if (button.dataset.group !== undefined) {
    get("group-title").value = button.dataset.group; // places: texts in the page are made visible
    fillLabels();
    get("group-label").value = button.dataset.label;
  } else {
    pair = {reference: button.dataset.reference, hypothesis: button.dataset.hypothesis};
  }
  refresh();
  get("utterances").scrollIntoView({behavior: "smooth"});
});

refresh();

// Only the pictures: playback continues.
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => redraw());
let resizing = 0;
window.addEventListener("resize", () => {
  clearTimeout(resizing);
  resizing = setTimeout(() => redraw(), 200);
});
