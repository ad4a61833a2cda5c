// Calls of the server's API, with the key it may ask for.

import { ServerError, requireSuccess } from "./stream.js";
import { texts } from "./texts.js";

const STORED = "qwen3-codegen.key";
const dialog = document.getElementById("key-dialog");
const field = document.getElementById("key");
let asking = null;

/** Returns the response to a request; asks for a key when the server wants one. */
export async function call(path, options = {}) {
  for (;;) {
    const key = sessionStorage.getItem(STORED);
    const headers = { ...options.headers };
    if (key) headers.Authorization = `Bearer ${key}`;
    const response = await reach(path, { ...options, headers });
    if (response.status !== 401) return requireSuccess(response);
    const isAnotherKeyThere = sessionStorage.getItem(STORED) !== key;
    if (!isAnotherKeyThere && !(await askForKey(Boolean(key)))) {
      throw new ServerError(texts.keyNeeded, 401);
    }
  }
}

/** Fetches; a server that is not there is a ServerError, a request given up an AbortError. */
export async function reach(path, options) {
  try {
    return await fetch(path, { cache: "no-store", ...options });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ServerError(texts.unreachable);
  }
}

function askForKey(isWrong) {
  asking ??= new Promise((resolve) => {
    document.getElementById("key-wrong").hidden = !isWrong;
    field.value = "";
    dialog.showModal();
    field.focus();
    dialog.addEventListener("close", () => resolve(dialog.returnValue === "use"), { once: true });
  }).finally(() => {
    asking = null;
  });
  return asking;
}

document.getElementById("key-form").addEventListener("submit", (event) => {
  event.preventDefault();
  sessionStorage.setItem(STORED, field.value.trim());
  field.value = "";
  dialog.close("use");
});
document.getElementById("key-cancel").addEventListener("click", () => dialog.close("cancel"));
dialog.addEventListener("cancel", () => {
  dialog.returnValue = "cancel";
});
