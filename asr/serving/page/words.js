// Segments with words: each word is a button that plays it.
/* global element */

export const UNSURE = 0.8, DOUBTFUL = 0.5; // confidences below them
const AROUND = 0.06; // seconds that are played before and after a word

export class Words {
  #box;
  #player;
  #buttons = [];
  #words = [];
  #now = -1;

  constructor(box, player) {
    this.#box = box;
    this.#player = player;
    box.addEventListener("keydown", (event) => this.#move(event));
    player.onTime((seconds) => this.#mark(seconds));
  }

  // The words in order, as {word, start, end, confidence}.
  get all() {
    return this.#words;
  }

  clear() {
    this.#box.replaceChildren();
    this.#buttons = [];
    this.#words = [];
    this.#now = -1;
  }

  // Adds a segment {start, text, words} below the others.
  add(segment) {
    const row = element("div", "segment");
    row.append(element("span", "clock", clock(segment.start)));
    const line = element("div", "words");
    line.dir = "auto"; // words are boxes, which would otherwise stand from left to right
    if (segment.words?.length) {
      for (const word of segment.words) {
        line.append(this.#button(word), " ");
        this.#words.push(word);
      }
    } else {
      line.append(segment.text);
    }
    row.append(line);
    this.#box.append(row);
  }

  #button(word) {
    const button = element("button", "word");
    button.type = "button";
    button.append(element("span", "said", word.word));
    const sure = word.confidence;
    const percent = sure == null ? "" : `${Math.round(100 * sure)} %`;
    if (sure != null && sure < DOUBTFUL) button.classList.add("doubtful");
    else if (sure != null && sure < UNSURE) button.classList.add("unsure");
    const facts = [`${word.start.toFixed(2)} s`, percent].filter(Boolean).join(" · ");
    for (const [kind, text] of [["unseen", sure != null && sure < UNSURE && ", uncertain, "], ["facts", facts]]) {
      if (!text) continue;
      const part = element("span", kind, text);
      part.dir = "ltr"; // of no account for the direction of the line
      button.append(part);
    }
    button.title = `${word.start.toFixed(2)} to ${word.end.toFixed(2)} s`
      + (percent && `, confidence ${percent}`);
    // One of the words is reached by Tab, the others from there by arrow keys.
    button.tabIndex = this.#buttons.length ? -1 : 0;
    button.onclick = () => {
      this.#reach(button);
      this.#player.play(word.start - AROUND, word.end + AROUND);
    };
    this.#buttons.push(button);
    return button;
  }

  #reach(button) {
    for (const other of this.#buttons) other.tabIndex = other === button ? 0 : -1;
  }

  #move(event) {
    const place = this.#buttons.indexOf(document.activeElement);
    const last = this.#buttons.length - 1;
    const ahead = getComputedStyle(event.target).direction === "rtl" ? -1 : 1;
    const target = {
      ArrowRight: place + ahead, ArrowLeft: place - ahead, ArrowDown: place + 1, ArrowUp: place - 1,
      Home: 0, End: last,
    }[event.key];
    if (place < 0 || target === undefined || event.ctrlKey || event.altKey || event.metaKey) return;
    event.preventDefault();
    const button = this.#buttons[Math.min(last, Math.max(0, target))];
    this.#reach(button);
    button.focus();
  }

  #mark(seconds) {
    const now = this.#player.playing
      ? this.#words.findIndex((word) => word.start <= seconds && seconds < word.end) : -1;
    if (now === this.#now) return;
    this.#buttons[this.#now]?.classList.remove("now");
    this.#buttons[now]?.classList.add("now");
    this.#now = now;
    if (now >= 0) this.#show(this.#buttons[now]);
  }

  // Scrolls the text, and only the text, to a word.
  #show(button) {
    const top = button.offsetTop, bottom = top + button.offsetHeight;
    const {scrollTop, clientHeight} = this.#box;
    if (top < scrollTop || bottom > scrollTop + clientHeight) this.#box.scrollTop = top;
  }
}

export function clock(seconds) {
  const minutes = Math.floor(seconds / 60), hours = Math.floor(minutes / 60);
  const two = (number) => String(Math.floor(number)).padStart(2, "0");
  const rest = `${two(minutes % 60)}:${two(seconds % 60)}`;
  return hours ? `${hours}:${rest}` : rest;
}
