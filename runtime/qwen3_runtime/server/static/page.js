// Puts the page together: the conversation, the settings, the engine's state.

import { call, reach } from "./call.js";
import { showEngine } from "./engine.js";
import { Exchange } from "./exchange.js";
import { make } from "./markdown.js";
import { ServerError, readChunks } from "./stream.js";
import { fillTexts, texts } from "./texts.js";

const SETTINGS = "qwen3-codegen.settings";
const THEME = "qwen3-codegen.theme";
const LOADING_MS = 2000;
const PANEL_MS = 3000;
const NUMBERS = ["temperature", "top_p", "top_k", "max_tokens"];

const at = (id) => document.getElementById(id);
const message = at("message");
const scroller = at("scroller");
const settings = at("settings");
let exchanges = [];
let running = null;
let contextLength = null;

// ---- the conversation -----------------------------------------------------------------------

function requestBody(exchange) {
  const before = exchanges.slice(0, exchanges.indexOf(exchange));
  const messages = before.flatMap((each) => each.messages);
  const values = new FormData(settings);
  const system = values.get("system").trim();
  if (system) messages.unshift({ role: "system", content: system });
  messages.push({ role: "user", content: exchange.question });
  const body = { messages, stream: true, stream_options: { include_usage: true } };
  if (at("model").value) body.model = at("model").value;
  for (const name of NUMBERS) {
    if (values.get(name) !== "") body[name] = Number(values.get(name));
  }
  const thinking = values.get("thinking");
  if (thinking) body.chat_template_kwargs = { enable_thinking: thinking === "on" };
  return body;
}

async function answer(exchange) {
  const control = new AbortController();
  running = { control, exchange };
  showRunning();
  at("announcer").textContent = texts.answering;
  exchange.begin();
  try {
    const response = await call("v1/chat/completions", {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify(requestBody(exchange)),
      signal: control.signal,
    });
    for await (const chunk of readChunks(response)) exchange.take(chunk);
    exchange.end(exchange.finish ? {} : { problem: texts.interrupted });
    at("announcer").textContent = `${texts.answered} ${exchange.content}`;
  } catch (error) {
    if (error.name === "AbortError") exchange.end({ isStopped: true });
    else exchange.end({ problem: error instanceof ServerError ? error.message : texts.interrupted });
    at("announcer").textContent = "";
  }
  if (running?.exchange === exchange) running = null;
  showRunning();
  showContext(exchange.usage);
  refreshEngine();
}

function ask() {
  const question = message.value.trim();
  if (!question || running) return;
  if (!settings.checkValidity()) {
    showPanel(true);
    settings.reportValidity();
    return;
  }
  message.value = "";
  fitMessage();
  const exchange = new Exchange(question, retry);
  exchanges.push(exchange);
  at("turns").append(exchange.element);
  at("welcome").hidden = true;
  scroller.scrollTop = scroller.scrollHeight;
  answer(exchange);
}

function retry(exchange) {
  if (!running) answer(exchange);
}

function stop() {
  running?.control.abort();
}

function startAnew() {
  stop();
  running = null;
  exchanges = [];
  at("turns").replaceChildren();
  at("welcome").hidden = false;
  showContext(null);
  showRunning();
  message.focus();
}

function showRunning() {
  const hadFocus = at("stop") === document.activeElement;
  at("stop").hidden = !running;
  at("send").hidden = Boolean(running);
  at("send").disabled = !message.value.trim();
  if (hadFocus && !running) message.focus();
}

function showContext(usage) {
  const isKnown = usage && contextLength;
  at("context").textContent = isKnown ? texts.contextUsed(usage.total_tokens, contextLength) : "";
}

// Follows the answer unless the reader has scrolled up to read.
let isFollowing = true;
scroller.addEventListener("scroll", () => {
  isFollowing = scroller.scrollHeight - scroller.scrollTop - scroller.clientHeight < 48;
});
at("turns").addEventListener("drawn", () => {
  if (isFollowing) scroller.scrollTop = scroller.scrollHeight;
});

// ---- keys and buttons -----------------------------------------------------------------------

function fitMessage() {
  message.style.height = "auto";
  message.style.height = `${message.scrollHeight}px`;
  showRunning();
}

message.addEventListener("input", fitMessage);
message.addEventListener("keydown", (event) => {
  // While an input method composes, Enter takes what it proposes; Safari says so with 229 only.
  const isComposing = event.isComposing || event.keyCode === 229;
  if (event.key !== "Enter" || event.shiftKey || isComposing) return;
  event.preventDefault();
  ask();
});
document.addEventListener("keydown", (event) => {
  if (event.key !== "Escape" || event.isComposing || at("key-dialog").open) return;
  if (running) stop();
  else if (!at("panel").hidden) showPanel(false);
});
at("composer").addEventListener("submit", (event) => {
  event.preventDefault();
  ask();
});
at("stop").addEventListener("click", stop);
at("new-chat").addEventListener("click", startAnew);

// ---- settings and theme ---------------------------------------------------------------------

function showPanel(isOpen) {
  at("panel").hidden = !isOpen;
  at("open-panel").setAttribute("aria-expanded", String(isOpen));
  (isOpen ? at("panel") : at("open-panel")).focus();
  if (isOpen) refreshEngine();
}

at("open-panel").addEventListener("click", () => showPanel(at("panel").hidden));
at("close-panel").addEventListener("click", () => showPanel(false));
settings.addEventListener("submit", (event) => event.preventDefault());
settings.addEventListener("input", () => {
  localStorage.setItem(SETTINGS, JSON.stringify(Object.fromEntries(new FormData(settings))));
});
settings.addEventListener("reset", () => localStorage.removeItem(SETTINGS));

function restoreSettings() {
  const stored = JSON.parse(localStorage.getItem(SETTINGS) ?? "{}");
  for (const [name, value] of Object.entries(stored)) {
    if (settings.elements[name]) settings.elements[name].value = value;
  }
}

function showTheme(theme) {
  if (theme) document.documentElement.dataset.theme = theme;
}

at("theme").addEventListener("click", () => {
  const chosen = document.documentElement.dataset.theme;
  const isDark = chosen ? chosen === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  localStorage.setItem(THEME, isDark ? "light" : "dark");
  showTheme(localStorage.getItem(THEME));
});

// ---- the server -----------------------------------------------------------------------------

function showState(state, text) {
  at("state").dataset.state = state;
  at("state").setAttribute("aria-label", text);
  at("state").title = text;
}

async function refreshEngine() {
  try {
    const health = await (await reach("health")).json();
    contextLength = health.engine?.max_model_len ?? contextLength;
    at("emulated").hidden = !showEngine(at("engine-facts"), health);
    const isLoading = health.status === "loading";
    const text = { ready: texts.ready, loading: texts.loading }[health.status] ?? texts.failed;
    showState(health.status, text);
    if (isLoading) setTimeout(refreshEngine, LOADING_MS);
  } catch {
    showState("failed", texts.unreachable);
  }
}

async function listModels() {
  const { data } = await (await call("v1/models")).json();
  const names = data.map((model) => model.id);
  at("model-name").textContent = names[0];
  document.title = `${names[0]} · qwen3-codegen`;
  at("model").replaceChildren(...names.map((name) => make("option", {}, name)));
  at("model").hidden = names.length < 2;
  at("model-name").hidden = names.length > 1;
}

fillTexts();
showTheme(localStorage.getItem(THEME));
restoreSettings();
showRunning();
refreshEngine();
setInterval(() => at("panel").hidden || document.hidden || refreshEngine(), PANEL_MS);
// Without the list there is still the first model; what is wrong shows with the first question.
listModels().catch(() => {});
