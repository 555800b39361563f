// Recognition of the microphone by the protocol of vosk's server: samples go out, texts come back.

import {requestJson, token} from "./api.js";
import {openMicrophone} from "./microphone.js";

const WAIT_S = 20; // for the last text after the end

// Runs until `signal` is aborted and the last text is there. `on` has the functions onStart(rate),
// onSamples(block), onPartial(text) and onFinal({start, end, text, words}).
export async function recognizeLive(signal, model, phrases, on) {
  await requestJson("v1/models"); // a socket cannot ask for a token, so it is asked for before
  const talk = await connect(model, on);
  let microphone = null;
  try {
    const waiting = []; // blocks from before the rate is known
    let send = (block) => waiting.push(block);
    microphone = await openMicrophone((block) => {
      on.onSamples(block);
      send(block);
    });
    const config = {sample_rate: microphone.rate, words: true, phrase_list: phrases};
    talk.send(JSON.stringify({config}));
    send = talk.send;
    waiting.forEach(send);
    on.onStart(microphone.rate);
    await Promise.race([aborted(signal), talk.end]);
    await microphone.stop();
    talk.finish();
    await talk.end;
  } finally {
    await microphone?.stop();
    talk.close();
  }
}

function aborted(signal) {
  return new Promise((resolve) => {
    if (signal.aborted) resolve();
    else signal.addEventListener("abort", resolve);
  });
}

// A socket that is open. `end` is a promise: fulfilled after the last text, rejected if the server
// ends the conversation before.
function connect(model, on) {
  const address = new URL("vosk", location.href);
  address.protocol = address.protocol.replace("http", "ws");
  address.searchParams.set("model", model);
  const protocols = token() ? ["realtime", `openai-insecure-api-key.${token()}`] : [];
  return new Promise((resolve, reject) => {
    let socket, finishing = false, failure = false, problem = "The connection to the server has ended.";
    try {
      socket = new WebSocket(address, protocols);
    } catch {
      reject(new Error("The microphone needs a token of letters and digits only."));
      return;
    }
    const end = new Promise((done, failed) => {
      // A server that has sent everything closes with 1000.
      socket.onclose = ({code}) => (finishing && !failure && code === 1000 ? done() : failed(new Error(problem)));
    });
    end.catch(() => {}); // it may end before anybody waits for it
    socket.onmessage = ({data}) => {
      const answer = JSON.parse(data);
      if (answer.error) [problem, failure] = [answer.error, true];
      else if (answer.text) on.onFinal(segmentOf(answer));
      else on.onPartial(answer.partial ?? "");
    };
    socket.onerror = () => reject(new Error("The server does not take the microphone's sound."));
    socket.onopen = () => resolve({
      end,
      send(message) {
        if (socket.readyState === WebSocket.OPEN) socket.send(message);
      },
      finish() {
        finishing = true;
        this.send(JSON.stringify({eof: 1}));
        setTimeout(() => socket.close(), 1000 * WAIT_S);
      },
      close: () => socket.close(),
    });
  });
}

function segmentOf({text, result = []}) {
  const words = result.map(({word, start, end, conf}) => ({word, start, end, confidence: conf}));
  return {start: words[0]?.start ?? 0, end: words.at(-1)?.end ?? 0, text, words};
}
