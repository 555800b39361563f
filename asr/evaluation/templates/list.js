// A list that only creates the rows in view.

const ROW = 46, BEYOND = 8; // pixels, as in utterances.css; rows above and below the view

function createList(box, onSelect) {
  const inner = element("div");
  inner.style.position = "relative";
  box.append(inner);
  let shown = [], selected = null;

  function rowOf(utterance, place) {
    const row = element("div", "row");
    row.setAttribute("role", "option");
    row.setAttribute("aria-selected", String(utterance === selected));
    row.style.top = `${place * ROW}px`;
    row.dataset.id = utterance.i;
    row.id = `row-${place}`;
    const meta = element("div", "meta");
    meta.append(element("span", utterance.e ? "bad" : "", `${utterance.e}/${utterance.n}`));
    const sure = lowest(utterance.c);
    const rest = [utterance.i, utterance.s, sure < Infinity ? `lowest confidence ${Math.round(100 * sure)} %` : ""];
    meta.append(" · " + rest.filter(Boolean).join(" · "));
    const line = element("div");
    fillDifference(line, utterance);
    if (!line.childNodes.length) line.append(element("span", "pale", "silence"));
    row.append(meta, line);
    row.onclick = () => select(utterance);
    return row;
  }

  function render() {
    const first = Math.max(0, Math.floor(box.scrollTop / ROW) - BEYOND);
    const last = Math.min(shown.length, Math.ceil((box.scrollTop + box.clientHeight) / ROW) + BEYOND);
    inner.replaceChildren(...shown.slice(first, last).map((u, i) => rowOf(u, first + i)));
  }

  // Scrolls to an utterance; its row is another one after sorting or filtering.
  function reveal(utterance) {
    const place = shown.indexOf(utterance);
    if (place >= 0) {
      const top = place * ROW;
      if (top < box.scrollTop) box.scrollTop = top;
      if (top + ROW > box.scrollTop + box.clientHeight) box.scrollTop = top + ROW - box.clientHeight;
    }
    render();
    if (place >= 0) box.setAttribute("aria-activedescendant", `row-${place}`);
  }

  function select(utterance) {
    selected = utterance;
    reveal(utterance);
    onSelect(utterance);
  }

  box.onscroll = render;
  window.addEventListener("resize", render);
  box.onkeydown = (event) => {
    const far = shown.length;
    const step = {ArrowDown: 1, ArrowUp: -1, PageDown: 10, PageUp: -10, Home: -far, End: far}[event.key];
    if (!step || !shown.length) return;
    event.preventDefault();
    const place = Math.min(shown.length - 1, Math.max(0, shown.indexOf(selected) + step));
    select(shown[place]);
  };

  return function update(utterances) {
    shown = utterances;
    inner.style.height = `${shown.length * ROW}px`;
    box.scrollTop = 0;
    box.removeAttribute("aria-activedescendant");
    if (shown.includes(selected)) reveal(selected);
    else select(shown[0] ?? null);
  };
}
