// The page: two views, and one question a second to the server.
import {startChat} from "./chat.js";
import {startMonitor, tickMonitor} from "./monitor.js";
import {Refused, setKey, status} from "./server.js";

const $ = (id) => document.getElementById(id);
const VIEWS = ["chat", "monitor"];

function choose(view) {
  for (const name of VIEWS) {
    $(name).hidden = name !== view;
    $(`tab-${name}`).setAttribute("aria-selected", String(name === view));
    $(`tab-${name}`).tabIndex = name === view ? 0 : -1;
  }
  history.replaceState(null, "", view === "chat" ? location.pathname : `#${view}`);
}

function showState(text, kind) {
  $("state").textContent = text;
  $("state").className = `state ${kind}`;
}

function showModel(now) {
  const loading = now.state === "loading";
  showState(loading ? `loading ${Math.round(100 * now.progress)} %` : now.state, now.state === "ready" ? "ready" : "");
  if (!now.model) return;
  $("model-name").textContent = `${now.model.name} · ${now.model.quantization.split(",")[0]} · KV ${now.model.kv_cache_dtype} · ${now.model.device}`;
  document.title = `octet: ${now.model.name}`;
  $("notice").hidden = now.model.chat;
  $("notice").textContent = "This model has no chat template: chat will be refused.";
}

async function tick() {
  try {
    const now = await status();
    $("key-form").hidden = true;
    showModel(now);
    await tickMonitor(now, !$("monitor").hidden);
  } catch (error) {
    const wantsKey = error instanceof Refused && error.status === 401;
    if (wantsKey && $("key-form").hidden) {
      $("key-form").hidden = false;
      $("key").focus();
    }
    showState(wantsKey ? "locked" : error instanceof Refused ? error.message : "not reachable", "gone");
  }
  setTimeout(tick, document.hidden ? 5000 : 1000);
}

$("key-form").addEventListener("submit", (event) => {
  event.preventDefault();
  setKey($("key").value);
  $("key").value = "";
  $("key-form").hidden = true;
});
for (const name of VIEWS) $(`tab-${name}`).addEventListener("click", () => choose(name));
document.querySelector("nav").addEventListener("keydown", (event) => {
  if (event.key !== "ArrowLeft" && event.key !== "ArrowRight") return;
  const next = $("chat").hidden ? "chat" : "monitor";
  choose(next);
  $(`tab-${next}`).focus();
});
startChat();
startMonitor();
choose(location.hash === "#monitor" ? "monitor" : "chat");
tick();
