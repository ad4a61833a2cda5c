// A question and its answer, as they are shown and as the next request repeats them.

import { make, showMarkdown } from "./markdown.js";
import { texts } from "./texts.js";

export class Exchange {
  /** Shows a question; onRetry is called when another answer is wanted. */
  constructor(question, onRetry) {
    this.question = question;
    this.thought = make("div", { class: "text" });
    this.thoughtTitle = make("summary");
    this.thoughtBox = make("details", { class: "thought", hidden: "" }, this.thoughtTitle, this.thought);
    this.body = make("div", { class: "text", dir: "auto" });
    this.problem = make("p", { class: "problem", role: "alert", hidden: "" });
    this.figures = make("span", { class: "figures" });
    const retry = make("button", { type: "button", class: "quiet small retry" }, texts.retry);
    retry.addEventListener("click", () => onRetry(this));
    this.copy = copyButton(() => this.content);
    this.foot = make("div", { class: "answer-foot" }, this.copy, retry, this.figures);
    this.answer = make("div", { class: "answer" }, this.thoughtBox, this.body, this.problem, this.foot);
    this.element = make("article", {}, make("div", { class: "question", dir: "auto" }, question), this.answer);
    this.begin();
  }

  /** Starts an answer, in place of any that was there. */
  begin() {
    this.content = "";
    this.reasoning = "";
    this.usage = null;
    this.finish = null;
    this.isRunning = true;
    this.isStopped = false;
    this.numChunks = 0;
    this.started = performance.now();
    this.first = this.last = this.thoughtEnd = null;
    this.problem.hidden = true;
    this.thoughtBox.open = false;
    this.#draw();
  }

  /** Takes a chunk of the stream. */
  take({ choices, usage }) {
    this.usage = usage ?? this.usage;
    const { delta = {}, finish_reason: finish = null } = choices[0] ?? {};
    this.finish = finish ?? this.finish;
    if (!delta.content && !delta.reasoning_content) return;
    this.last = performance.now();
    this.first ??= this.last;
    this.numChunks += 1;
    this.reasoning += delta.reasoning_content ?? "";
    if (delta.content && this.reasoning) this.thoughtEnd ??= this.last;
    this.content += delta.content ?? "";
    this.frame ??= requestAnimationFrame(() => this.#draw());
  }

  /** Ends the answer: complete, stopped by the reader, or with a problem. */
  end({ isStopped = false, problem = "" } = {}) {
    this.isRunning = false;
    this.isStopped = isStopped;
    this.problem.textContent = problem;
    this.problem.hidden = !problem;
    this.#draw();
  }

  /** What the model is told of this exchange later; nothing when there was no answer. */
  get messages() {
    if (!this.content) return [];
    return [
      { role: "user", content: this.question },
      { role: "assistant", content: this.content },
    ];
  }

  #draw() {
    cancelAnimationFrame(this.frame);
    this.frame = null;
    this.#drawThought();
    showMarkdown(this.body, this.content.trimStart(), codeHead);
    this.answer.classList.toggle("running", this.isRunning);
    this.answer.classList.toggle("waiting", this.isRunning && !this.first);
    this.copy.hidden = !this.content;
    const figures = this.#figures().map((figure) => make("span", {}, figure));
    this.figures.replaceChildren(...figures.flatMap((span, index) => (index ? [" · ", span] : [span])));
    this.element.dispatchEvent(new Event("drawn", { bubbles: true }));
  }

  #drawThought() {
    this.thoughtBox.hidden = !this.reasoning.trim();
    const isThinking = this.isRunning && !this.thoughtEnd;
    const seconds = ((this.thoughtEnd ?? this.last) - this.first) / 1000;
    this.thoughtTitle.textContent = isThinking ? texts.thinkingNow : texts.thoughtFor(rounded(seconds));
    showMarkdown(this.thought, this.reasoning.trim(), codeHead);
  }

  #figures() {
    if (!this.first) return this.isStopped ? [texts.stopped] : [];
    const count = this.usage?.completion_tokens ?? this.numChunks;
    const seconds = (this.last - this.first) / 1000;
    const found = [texts.tokens(count)];
    if (count > 1 && seconds > 0) found.push(texts.tokensPerSecond(rounded((count - 1) / seconds)));
    found.push(texts.firstToken(rounded((this.first - this.started) / 1000)));
    if (this.isStopped) found.push(texts.stopped);
    if (this.finish === "length") found.push(texts.cutOff);
    return found;
  }
}

function rounded(number) {
  return number < 10 ? number.toFixed(number < 1 ? 2 : 1) : number.toFixed(0);
}

function codeHead(language, code) {
  return make("div", { class: "code-head" }, make("span", {}, language), copyButton(() => code));
}

function copyButton(text) {
  const button = make("button", { type: "button", class: "quiet small" }, texts.copy);
  button.addEventListener("click", async () => {
    await copyText(text());
    button.textContent = texts.copied;
    setTimeout(() => (button.textContent = texts.copy), 1500);
  });
  return button;
}

async function copyText(text) {
  if (navigator.clipboard) return navigator.clipboard.writeText(text);
  // Over plain HTTP from another machine there is only the old way.
  const area = make("textarea", { class: "unseen" });
  area.value = text;
  document.body.append(area);
  area.select();
  document.execCommand("copy");
  area.remove();
}
