// Texts as elements. Transcripts are only set as text, never as markup.

function element(tag, className, text) {
  const made = document.createElement(tag);
  if (className) made.className = className;
  if (text !== undefined) made.textContent = text;
  return made;
}

// The columns of an alignment: operation, word of the reference, word of the hypothesis and its
// index there (-1 for none). An utterance holds only the operations and the two texts.
function columnsOf(utterance) {
  const reference = utterance.r ? utterance.r.split(" ") : [];
  const hypothesis = utterance.h ? utterance.h.split(" ") : [];
  let left = 0, right = 0;
  return Array.from(utterance.o, (operation) => {
    const inReference = operation !== "I", inHypothesis = operation !== "D";
    return {
      operation,
      reference: inReference ? reference[left++] : "",
      hypothesis: inHypothesis ? hypothesis[right] : "",
      place: inHypothesis ? right++ : -1,
    };
  });
}

const MOST_COLUMNS = 80; // in a line of the list, which is truncated anyway

// Reference and hypothesis in one line, as changes marked in a text.
function fillDifference(target, utterance) {
  for (const column of columnsOf(utterance).slice(0, MOST_COLUMNS)) {
    if (target.childNodes.length) target.append(" ");
    if (column.operation === "C") {
      target.append(column.reference);
      continue;
    }
    if (column.reference) target.append(element("del", column.operation, column.reference));
    if (column.hypothesis) target.append(element("ins", column.operation, column.hypothesis));
  }
}

function lowest(values) {
  let least = Infinity;
  for (const value of values || []) least = Math.min(least, value);
  return least;
}
