// The chat page. What a model says is only ever set as text, never as HTML.

const $ = (id) => document.getElementById(id);
const KEY = "lmwright-key";

// What the model is, as v1/models tells it; null until it is known.
let model = null;
// The dialogue as the model is given it, without the system message.
let turns = [];
// Aborts the answer that is being written; null if there is none.
let running = null;

// ---- The server ------------------------------------------------------------------------------

class Refusal extends Error {
  constructor(message, status) {
    super(message);
    this.status = status;
  }
}

async function ask(path, body, signal) {
  const headers = {};
  const key = sessionStorage.getItem(KEY);
  if (key) headers.Authorization = `Bearer ${key}`;
  if (body) headers["Content-Type"] = "application/json";
  const options = { method: body ? "POST" : "GET", headers, body: body && JSON.stringify(body) };
  let response;
  try {
    response = await fetch(path, { ...options, signal });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Refusal("The server cannot be reached. Is it still running?");
  }
  if (!response.ok) throw await refusal(response);
  return response;
}

async function refusal(response) {
  const found = await response.json().catch(() => ({}));
  const error = found.error ?? {};
  const said = error.message ?? `it answered with status ${response.status}`;
  if (response.status === 429) {
    const wait = response.headers.get("Retry-After");
    const when = wait ? ` Try again in ${wait} s.` : " Try again soon.";
    return new Refusal(`The server is busy: ${said}.${when}`, 429);
  }
  if (error.code === "context_length_exceeded") {
    const remedy = "Begin a new chat, or ask for fewer tokens in the settings.";
    return new Refusal(`This is too long for the model: ${said}. ${remedy}`, response.status);
  }
  return new Refusal(`The server refused this: ${said}.`, response.status);
}

// Yields the events of a stream; one that ends early, or with an error, raises it.
async function* events(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { done, value } = await reader.read().catch((error) => {
      if (error.name === "AbortError") throw error;
      return { done: true };
    });
    if (done) throw new Refusal("The connection broke off before the answer was complete.");
    rest += value;
    const lines = rest.split("\n\n");
    rest = lines.pop();
    for (const line of lines) {
      const data = line.replace(/^data: /, "");
      if (data === "[DONE]") return;
      const event = JSON.parse(data);
      if (event.error) throw new Refusal(`The server stopped: ${event.error.message}.`);
      yield event;
    }
  }
}

// ---- What is shown ---------------------------------------------------------------------------

function element(tag, className, text) {
  const made = document.createElement(tag);
  if (className) made.className = className;
  if (text !== undefined) made.textContent = text;
  return made;
}

// Splits Markdown into paragraphs and blocks of code, which are all of it that is rendered.
function blocks(text) {
  const found = [];
  text.split(/^```.*(?:\n|$)/m).forEach((part, i) => {
    if (i % 2) found.push(["PRE", part.replace(/\n$/, "")]);
    else for (const each of part.split(/\n{2,}/)) if (each.trim()) found.push(["P", each.replace(/^\n+|\s+$/g, "")]);
  });
  return found;
}

// Changes only what differs: while an answer is written, its last block.
function render(box, text) {
  const wanted = blocks(text);
  wanted.forEach(([tag, content], i) => {
    let child = box.children[i];
    if (child?.tagName !== tag) {
      const made = element(tag);
      child ? child.replaceWith(made) : box.append(made);
      child = made;
    }
    if (child.textContent !== content) child.textContent = content;
  });
  while (box.children.length > wanted.length) box.lastChild.remove();
}

function add(className, label, text) {
  const article = element("article", className);
  article.setAttribute("aria-label", label);
  const box = element("div");
  if (text) box.append(element("p", "", text));
  article.append(box);
  $("dialogue").append(article);
  return { article, box };
}

function finish(article, text, remark) {
  const about = element("div", "about");
  const button = element("button", "", "Copy");
  button.type = "button";
  button.addEventListener("click", async () => {
    button.textContent = (await copied(text)) ? "Copied" : "Cannot copy";
    setTimeout(() => (button.textContent = "Copy"), 1500);
  });
  about.append(button);
  if (remark) about.append(element("span", "", remark));
  article.append(about);
}

async function copied(text) {
  // Browsers give a clipboard to pages of https and of this machine only.
  if (navigator.clipboard) {
    return navigator.clipboard.writeText(text).then(() => true, () => false);
  }
  const area = element("textarea", "unseen");
  area.value = text;
  document.body.append(area);
  area.select();
  const isDone = document.execCommand("copy");
  area.remove();
  return isDone;
}

function follow(change) {
  const main = $("main");
  const isAtEnd = main.scrollHeight - main.scrollTop - main.clientHeight < 40;
  change();
  if (isAtEnd) main.scrollTop = main.scrollHeight;
}

function fit() {
  const message = $("message");
  message.style.height = "auto";
  message.style.height = `${message.scrollHeight + 2}px`;
}

function refresh() {
  $("send").hidden = running !== null;
  $("stop").hidden = running === null;
  $("send").disabled = !can("generate") || !$("message").value.trim();
  $("dialogue").setAttribute("aria-busy", String(running !== null));
}

const can = (what) => model !== null && model.capabilities.includes(what);

// ---- A dialogue ------------------------------------------------------------------------------

function request(text) {
  const body = { model: model.id, stream: true, temperature: Number($("temperature").value) };
  if ($("max-tokens").value) body.max_tokens = Number($("max-tokens").value);
  if (!can("chat")) return ["v1/completions", { ...body, prompt: text }];
  const system = $("system").value.trim();
  const first = system ? [{ role: "system", content: system }] : [];
  return ["v1/chat/completions", { ...body, messages: [...first, ...turns] }];
}

async function send() {
  const text = $("message").value.trim();
  const dialogue = turns;
  if (running || $("send").disabled) return;
  if (!$("settings").checkValidity()) {
    showSettings(true);
    $("settings").reportValidity();
    return;
  }
  $("error").textContent = "";
  $("message").value = "";
  fit();
  turns.push({ role: "user", content: text });
  const question = add("mine", "You", text);
  const answer = add("waiting", model.id);
  $("main").scrollTop = $("main").scrollHeight;
  running = new AbortController();
  refresh();
  const { said, reason } = await write(answer, text);
  running = null;
  refresh();
  if (turns !== dialogue) return; // a new chat has begun meanwhile
  answer.article.classList.remove("waiting");
  if (said) {
    turns.push({ role: "assistant", content: said });
    const remarks = { stopped: "stopped", length: "the limit of tokens is reached" };
    follow(() => finish(answer.article, said, remarks[reason]));
  } else {
    // Nothing was answered: what was asked goes back to where it was written.
    turns.pop();
    question.article.remove();
    answer.article.remove();
    if (!$("message").value) $("message").value = text;
    fit();
    refresh();
  }
}

// Writes the answer as it comes; returns what was said and why it ended.
async function write(answer, text) {
  let said = "";
  let reason = null;
  let frame = null;
  const draw = () => {
    frame = null;
    follow(() => render(answer.box, said));
  };
  try {
    const [path, body] = request(text);
    const response = await ask(path, body, running.signal);
    for await (const event of events(response)) {
      for (const choice of event.choices) {
        said += choice.delta?.content ?? choice.text ?? "";
        reason = choice.finish_reason ?? reason;
      }
      frame ??= requestAnimationFrame(draw);
    }
    if (!said) $("error").textContent = "The model said nothing.";
  } catch (error) {
    reason = "stopped";
    if (error.name !== "AbortError") $("error").textContent = error.message;
    if (error.status === 401) askForKey(error.message);
  }
  if (frame !== null) cancelAnimationFrame(frame);
  draw();
  return { said, reason };
}

function begin() {
  running?.abort();
  turns = [];
  $("dialogue").replaceChildren();
  $("error").textContent = "";
  $("message").focus();
}

// ---- The start -------------------------------------------------------------------------------

async function open() {
  try {
    const response = await ask("v1/models");
    model = (await response.json()).data[0];
  } catch (error) {
    if (error.status === 401) askForKey(sessionStorage.getItem(KEY) ? "This key is wrong." : "");
    else $("error").textContent = error.message;
    return;
  }
  $("error").textContent = "";
  $("model").textContent = model.id;
  document.title = `${model.id} - lmwright`;
  if (!can("generate")) {
    $("note").textContent = `${model.id} writes no text, so that one cannot talk to it.`;
    $("message").disabled = true;
  } else if (!can("chat")) {
    $("note").textContent =
      `${model.id} has no chat template, so that it takes part in no dialogue. ` +
      "It continues the text that you write.";
    $("system-field").hidden = true;
    $("message").placeholder = "The beginning of a text";
  }
  refresh();
}

function askForKey(reason) {
  $("key-error").textContent = reason;
  if (!$("key-dialog").open) $("key-dialog").showModal();
}

function showSettings(is_open) {
  $("settings").hidden = !is_open;
  $("settings-button").setAttribute("aria-expanded", String(is_open));
}

$("composer").addEventListener("submit", (event) => {
  event.preventDefault();
  send();
});
$("message").addEventListener("keydown", (event) => {
  // While an input method composes a character, Enter belongs to it.
  if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
  event.preventDefault();
  send();
});
$("message").addEventListener("input", () => {
  fit();
  refresh();
});
$("stop").addEventListener("click", () => {
  running?.abort();
  $("message").focus();
});
$("new").addEventListener("click", begin);
$("settings").addEventListener("submit", (event) => event.preventDefault());
$("settings-button").addEventListener("click", () => showSettings($("settings").hidden));
$("key-form").addEventListener("submit", (event) => {
  event.preventDefault();
  sessionStorage.setItem(KEY, $("key").value.trim());
  $("key").value = "";
  $("key-dialog").close();
  open();
});
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape" && !$("key-dialog").open) running?.abort();
});

open();
