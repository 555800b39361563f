// The microphone as blocks of 16-bit samples.

const RATES = [16000, undefined]; // Hz; not every browser resamples a microphone

// Calls `onBlock` with each Int16Array until `stop()`, which waits for the last one.
export async function openMicrophone(onBlock) {
  if (!navigator.mediaDevices) {
    throw new Error("A browser gives the microphone to https pages and to localhost only. "
      + "docs/serving.md shows a proxy with https.");
  }
  let stream;
  try {
    stream = await navigator.mediaDevices.getUserMedia({audio: {channelCount: 1}});
  } catch (error) {
    throw new Error({
      NotAllowedError: "The browser was not allowed to use the microphone. Allow it for this page.",
      NotFoundError: "No microphone was found. Connect one.",
      NotReadableError: "The microphone cannot be read. Another program may use it.",
    }[error.name] ?? `The microphone cannot be used: ${error.message}`);
  }
  try {
    for (const sampleRate of RATES) {
      const context = new AudioContext(sampleRate ? {sampleRate} : {});
      try {
        return await listen(context, stream, onBlock);
      } catch (error) {
        await context.close();
        if (sampleRate === undefined) throw error;
      }
    }
  } catch (error) {
    for (const track of stream.getTracks()) track.stop();
    throw error;
  }
}

async function listen(context, stream, onBlock) {
  const source = context.createMediaStreamSource(stream);
  await context.audioWorklet.addModule(new URL("capture.js", import.meta.url));
  const node = new AudioWorkletNode(context, "capture", {numberOfOutputs: 0});
  let ended;
  const end = new Promise((resolve) => { ended = resolve; });
  node.port.onmessage = ({data}) => {
    if (data === null) ended();
    else if (data.length) onBlock(data);
  };
  source.connect(node);
  await context.resume();
  let stopped = false;
  return {
    rate: context.sampleRate,
    async stop() {
      if (stopped) return;
      stopped = true;
      source.disconnect();
      node.port.postMessage("stop");
      await end;
      for (const track of stream.getTracks()) track.stop();
      await context.close();
    },
  };
}
