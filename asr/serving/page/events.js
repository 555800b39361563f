// The events of a stream of server-sent events, as parsed JSON.

export async function* eventsOf(answer) {
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let waiting = "";
  for (;;) {
    const {done, value} = await reader.read();
    waiting = (waiting + (value ?? "")).replaceAll("\r\n", "\n");
    const blocks = waiting.split("\n\n");
    waiting = done ? "" : blocks.pop();
    for (const block of blocks) {
      const data = block.split("\n").filter((line) => line.startsWith("data:"))
        .map((line) => line.slice(5).trimStart()).join("\n");
      if (data === "[DONE]") return;
      if (data) yield JSON.parse(data);
    }
    if (done) return;
  }
}
