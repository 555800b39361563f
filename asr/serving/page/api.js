// Requests to the server, with the token if it asks for one.

const KEY = "asr-token"; // of the session's storage, which ends with the tab
const find = (id) => document.getElementById(id);

// An answer of the server that is an error, in OpenAI's form.
export class ApiError extends Error {
  constructor(status, message, code) {
    super(message);
    this.status = status;
    this.code = code;
  }
}

export function token() {
  return sessionStorage.getItem(KEY) ?? "";
}

// The answer to a request; a token is asked for as long as the server refuses it.
export async function request(path, options = {}) {
  for (;;) {
    const used = token();
    const headers = new Headers(options.headers);
    try {
      if (used) headers.set("Authorization", `Bearer ${used}`);
    } catch { // a character that no header can have
      await newToken(used);
      continue;
    }
    let answer;
    try {
      answer = await fetch(path, {...options, headers});
    } catch (error) {
      if (error.name === "AbortError") throw error;
      throw new ApiError(0, "The server does not answer. Is it still running?");
    }
    if (answer.ok) return answer;
    if (answer.status !== 401) throw await errorOf(answer);
    await newToken(used);
  }
}

export async function requestJson(path, options) {
  return (await request(path, options)).json();
}

async function errorOf(answer) {
  let message = `The server answered ${answer.status} ${answer.statusText}`.trim() + ".";
  let code = null;
  try {
    const {error} = await answer.json();
    if (error?.message) ({message, code} = error);
  } catch {
    // no JSON: another program answered, such as a proxy
  }
  const wait = Number(answer.headers.get("Retry-After"));
  if (wait > 0) message += ` (try again in ${wait} s)`;
  return new ApiError(answer.status, message, code);
}

let asking = null; // the dialog's promise: several requests wait for one token

function newToken(refused) {
  if (token() !== refused) return Promise.resolve(); // another request has asked meanwhile
  asking ??= new Promise((resolve, reject) => {
    const dialog = find("token-dialog"), input = find("token");
    find("token-note").textContent = refused
      ? "The server refused this token. Enter the right one."
      : "This server asks for a token.";
    sessionStorage.removeItem(KEY);
    let entered = false;
    find("token-form").onsubmit = () => {
      entered = true;
      sessionStorage.setItem(KEY, input.value.trim());
      input.value = "";
    };
    dialog.onclose = () => {
      asking = null;
      if (entered) resolve();
      else reject(new ApiError(401, "The server asks for a token."));
    };
    dialog.showModal();
    input.focus();
  });
  return asking;
}
