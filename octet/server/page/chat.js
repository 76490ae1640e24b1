// The conversation: what was said, what is being said, and how.
import {streamChat} from "./server.js";
import {element, markdown} from "./text.js";

const CHAT = "octet.chat", SETTINGS = "octet.settings";
const NUMBERS = ["temperature", "top_p", "top_k", "min_p", "repetition_penalty", "max_tokens", "seed"];
const $ = (id) => document.getElementById(id);

// {role, content, reasoning, error, note}
let messages = JSON.parse(localStorage.getItem(CHAT) ?? "[]");
let running = null;  // the AbortController of the answer that is coming

function settings() {
  const chosen = {};
  for (const name of NUMBERS) if ($(name).value !== "") chosen[name] = Number($(name).value);
  if ($("stop").value !== "") chosen.stop = [$("stop").value];
  return chosen;
}

function request() {
  const said = messages.filter((m) => !m.error && m.content !== "").map(({role, content}) => ({role, content}));
  const system = $("system").value.trim();
  return {messages: system ? [{role: "system", content: system}, ...said] : said, ...settings()};
}

function save() {
  localStorage.setItem(CHAT, JSON.stringify(messages));
}

function view(message, index) {
  const said = element("div", {className: "said"});
  if (message.role === "user") said.append(message.content);
  else said.append(...markdown(message.content));
  const who = element("div", {className: "who"}, message.role === "user" ? "You" : "Model");
  const act = (label, work) => {
    const button = element("button", {type: "button"}, label);
    button.addEventListener("click", work);
    who.append(button);
  };
  if (!running) {
    if (message.role === "user") act("Edit", () => edit(index));
    else if (index === messages.length - 1) act("Again", () => regenerate());
    act("Copy", () => navigator.clipboard?.writeText(message.content));
  }
  who.append(element("span", {className: "note"}, message.note ?? ""));
  const item = element("li", {className: message.role}, who);
  if (message.reasoning) {
    const open = message.content === "" && index === messages.length - 1;
    item.append(element("details", {open}, element("summary", {}, "Thinking"),
                        element("div", {className: "thinking"}, message.reasoning)));
  }
  item.append(said);
  if (message.error) item.append(element("p", {className: "error"}, message.error));
  return item;
}

function show() {
  const list = $("messages");
  const atEnd = list.scrollHeight - list.scrollTop - list.clientHeight < 60;
  list.replaceChildren(...messages.map(view));
  if (atEnd) list.scrollTop = list.scrollHeight;
  $("send").hidden = running !== null;
  $("stop-answer").hidden = running === null;
}

// While an answer comes only what it says changes, once a frame at most: what a reader has opened or selected stays.
let drawing = false;
function showLast() {
  if (drawing) return;
  drawing = true;
  requestAnimationFrame(() => {
    drawing = false;
    const list = $("messages"), item = list.lastElementChild, message = messages.at(-1);
    if (!item || !message) return;
    const atEnd = list.scrollHeight - list.scrollTop - list.clientHeight < 60;
    const thinking = item.querySelector(".thinking");
    if (message.reasoning && !thinking) {
      item.replaceWith(view(message, messages.length - 1));
    } else {
      if (thinking) thinking.textContent = message.reasoning;
      item.querySelector(".said").replaceChildren(...markdown(message.content));
      item.querySelector(".note").textContent = message.note ?? "";
    }
    if (atEnd) list.scrollTop = list.scrollHeight;
  });
}

// Milliseconds to the first token, and from there to the last.
function note(toFirst, toLast, count, usage) {
  const tokens = usage?.completion_tokens ?? count;
  if (tokens === 0) return "";
  const parts = [`${tokens} tokens`, `first after ${Math.round(toFirst)} ms`];
  if (tokens > 1 && toLast > 0) parts.push(`${(1000 * (tokens - 1) / toLast).toFixed(1)} tokens/s`);
  if (usage) {
    const cached = usage.prompt_tokens_details?.cached_tokens ?? 0;
    parts.push(`prompt ${usage.prompt_tokens}${cached ? `, ${cached} of it cached` : ""}`);
  }
  return parts.join(" · ");
}

async function answer() {
  const asked = request();
  const made = {role: "assistant", content: "", reasoning: ""};
  messages.push(made);
  running = new AbortController();
  show();
  const start = performance.now();
  let first = 0, last = 0, count = 0, usage = null;
  try {
    await streamChat(asked, running.signal, (chunk) => {
      usage = chunk.usage ?? usage;
      const delta = chunk.choices?.[0]?.delta ?? {};
      const text = delta.content ?? "", thought = delta.reasoning ?? delta.reasoning_content ?? "";
      if (text || thought) {
        last = performance.now();
        first ||= last;
        ++count;
      }
      made.content += text;
      made.reasoning += thought;
      made.note = note(first - start, last - first, count, usage);
      showLast();
    });
  } catch (error) {
    if (error.name !== "AbortError") made.error = error.message;
    else made.note = `${made.note ?? ""} · stopped`;
  }
  running = null;
  save();
  show();
}

function edit(index) {
  $("prompt").value = messages[index].content;
  messages = messages.slice(0, index);
  save();
  show();
  $("prompt").focus();
}

function regenerate() {
  messages.pop();
  answer();
}

function send() {
  const text = $("prompt").value.trim();
  if (!text || running) return;
  $("prompt").value = "";
  messages.push({role: "user", content: text});
  answer();
}

function exportChat() {
  const link = element("a", {
    href: URL.createObjectURL(new Blob([JSON.stringify(request(), null, 1)], {type: "application/json"})),
    download: "chat.json",
  });
  link.click();
  URL.revokeObjectURL(link.href);
}

function keepSettings() {
  const ids = [...NUMBERS, "stop", "system"];
  const kept = JSON.parse(localStorage.getItem(SETTINGS) ?? "{}");
  for (const id of ids) {
    $(id).value = kept[id] ?? "";
    $(id).addEventListener("change", () => {
      localStorage.setItem(SETTINGS, JSON.stringify(Object.fromEntries(ids.map((name) => [name, $(name).value]))));
    });
  }
  if (matchMedia("(max-width: 45rem)").matches) $("settings").open = false;
}

export function startChat() {
  keepSettings();
  $("composer").addEventListener("submit", (event) => {
    event.preventDefault();
    send();
  });
  $("prompt").addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    send();
  });
  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape") running?.abort();
  });
  $("stop-answer").addEventListener("click", () => running?.abort());
  $("new-chat").addEventListener("click", () => {
    running?.abort();
    messages = [];
    save();
    show();
    $("prompt").focus();
  });
  $("export").addEventListener("click", exportChat);
  show();
}
