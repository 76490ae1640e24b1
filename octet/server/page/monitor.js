// What the server does, once a second: five minutes of it are kept here.
import {metrics} from "./server.js";
import {element} from "./text.js";

const KEPT = 300;
const $ = (id) => document.getElementById(id);
const SVG = "http://www.w3.org/2000/svg";

const number = (x, digits = 0) => x.toLocaleString("en", {maximumFractionDigits: digits});
const bytes = (x) => (x >= 1e9 ? `${number(x / 1e9, 2)} GB` : `${number(x / 1e6, 1)} MB`);
const ms = (x) => (x === null ? "–" : `${number(x * 1e3, x < 0.1 ? 1 : 0)} ms`);

// name: {title, unit, series: what each sample gives; show: the text of the last}
const CARDS = [
  {title: "Output", of: (s) => [s.output], show: (s) => [`${number(s.output)}`, "tokens/s"]},
  {title: "Prompts", of: (s) => [s.prompt], show: (s) => [`${number(s.prompt)}`, "tokens/s"]},
  {title: "Between tokens", of: (s) => [s.itl[0], s.itl[1]], show: (s) => [ms(s.itl[0]), `median; p95 ${ms(s.itl[1])}`]},
  {title: "To the first token", of: (s) => [s.ttft[0], s.ttft[1]], show: (s) => [ms(s.ttft[0]), `median; p95 ${ms(s.ttft[1])}`]},
  {title: "Requests", of: (s) => [s.running, s.waiting], show: (s) => [`${s.running}`, `running, ${s.waiting} waiting`]},
  {title: "KV cache", of: (s) => [s.kv], show: (s) => [`${number(100 * s.kv, 1)} %`, "in use"]},
  {title: "Prefix cache", of: (s) => [s.hits], show: (s) => [s.hits === null ? "–" : `${number(100 * s.hits, 1)} %`, "of prompts, last minute"]},
  {title: "Steps", of: (s) => [s.steps], show: (s) => [`${number(s.steps)}`, `a second; ${s.preemptions} preempted, ${s.rejected} rejected`]},
];

// {name: [[upper bound, count up to it] ...]} of the histograms wanted.
function histograms(text, names) {
  const found = Object.fromEntries(names.map((name) => [name, []]));
  for (const line of text.split("\n")) {
    const match = /^(vllm:[a-z_]+)_bucket\{.*le="([^"]+)".*\} (\S+)$/.exec(line);
    if (match && found[match[1]]) found[match[1]].push([match[2] === "+Inf" ? Infinity : Number(match[2]), Number(match[3])]);
  }
  return found;
}

// The value below which a share of what came between two readings lies; within a bucket as if spread evenly.
function quantile(before, after, share) {
  const counts = after.map(([, count], i) => count - (before?.[i]?.[1] ?? 0));
  const total = counts.at(-1) ?? 0;
  if (!(total > 0)) return null;
  const wanted = share * total;
  const i = counts.findIndex((count) => count >= wanted);
  const low = i === 0 ? 0 : after[i - 1][0], below = i === 0 ? 0 : counts[i - 1];
  if (after[i][0] === Infinity) return low;
  return low + (after[i][0] - low) * ((wanted - below) / (counts[i] - below));
}

const TTFT = "vllm:time_to_first_token_seconds", ITL = "vllm:inter_token_latency_seconds";
let readings = [];  // of counters and histograms
let samples = [];

function latency(name, seconds) {
  const now = readings.at(-1), before = readings.at(-1 - Math.min(seconds, readings.length - 1));
  return [0.5, 0.95].map((share) => quantile(before === now ? null : before.histograms[name], now.histograms[name], share));
}

function sample(engine) {
  const now = readings.at(-1), last = readings.at(-2), minute = readings.at(-1 - Math.min(60, readings.length - 1));
  const rate = (name) => (last ? (now.engine[name] - last.engine[name]) / Math.max(now.time - last.time, 0.1) : 0);
  const prompts = now.engine.prompt_tokens - minute.engine.prompt_tokens;
  const cached = now.engine.cached_prompt_tokens - minute.engine.cached_prompt_tokens;
  return {
    output: rate("generated_tokens"), prompt: rate("prompt_tokens"), steps: rate("steps"),
    itl: latency(ITL, 10), ttft: latency(TTFT, 60),
    running: engine.running, waiting: engine.waiting, kv: engine.kv_usage, hits: prompts > 0 ? Math.min(cached / prompts, 1) : null,
    preemptions: engine.preemptions, rejected: engine.rejected,
  };
}

// The last minute at least, five when there are.
function line(values, most) {
  const step = KEPT / (Math.max(values.length, 60) - 1);
  let path = "", pen = "M";
  values.forEach((value, i) => {
    if (value === null) return void (pen = "M");
    path += `${pen}${(KEPT - (values.length - 1 - i) * step).toFixed(1)} ${(40 - 38 * (value / most)).toFixed(1)}`;
    pen = "L";
  });
  return path;
}

function drawCard(card) {
  const [now, what] = card.show(samples.at(-1));
  card.now.replaceChildren(now, " ", element("small", {}, what));
  const series = samples.map((s) => card.of(s));
  const most = Math.max(1e-9, ...series.flat().filter((x) => x !== null));
  card.paths.forEach((path, i) => path.setAttribute("d", line(series.map((values) => values[i] ?? null), most)));
}

function makeCards() {
  for (const card of CARDS) {
    card.now = element("div", {className: "now"}, "–");
    const svg = document.createElementNS(SVG, "svg");
    svg.setAttribute("viewBox", `0 0 ${KEPT} 40`);
    svg.setAttribute("preserveAspectRatio", "none");
    svg.setAttribute("aria-hidden", "true");
    card.paths = ["", "second"].map((name) => {
      const path = document.createElementNS(SVG, "path");
      path.setAttribute("class", name);
      svg.append(path);
      return path;
    });
    $("cards").append(element("div", {className: "card"}, element("h3", {}, card.title), card.now, svg));
  }
}

function drawModel({model, version, commit, uptime_seconds}) {
  const facts = {
    Model: model.name, Architecture: `${model.architecture}, ${number(model.parameters / 1e6)} M parameters`, Weights: model.quantization,
    "KV cache": `${model.kv_cache_dtype}, ${number(model.kv_cache_tokens)} tokens`, Context: `${number(model.max_model_len)} tokens`,
    Device: model.device, Start: `${number(model.start_seconds, 1)} s, ${number(model.load_seconds, 1)} s of it loading`,
    octet: `${version} (${commit})`, Up: `${Math.floor(uptime_seconds / 3600)} h ${Math.floor(uptime_seconds / 60) % 60} min`,
  };
  $("facts").replaceChildren(...Object.entries(facts).flatMap(([name, value]) => [element("dt", {}, name), element("dd", {}, value)]));
  const parts = {weights: model.weight_bytes, "KV cache": model.kv_cache_bytes, activations: model.activation_bytes};
  const total = Object.values(parts).reduce((a, b) => a + b, 0);
  $("memory").replaceChildren(...Object.entries(parts).map(([name, value]) => {
    const part = element("span", {title: `${name}: ${bytes(value)}`});
    part.style.width = `${100 * value / total}%`;
    return part;
  }));
  $("memory-text").textContent = Object.entries(parts).map(([name, value]) => `${name} ${bytes(value)}`).join(" · ");
}

function drawRequests(requests) {
  $("requests").replaceChildren(...requests.map((r) => element("tr", {}, ...[
    r.id, r.state, `${number(r.age_seconds, 1)} s`, number(r.prompt_tokens), number(r.cached_tokens), number(r.output_tokens),
    number(r.output_tokens / Math.max(r.age_seconds, 0.1), 1),
  ].map((text) => element("td", {}, text)))));
}

export async function tickMonitor(status, visible) {
  if (!status.model || !status.engine) return;
  readings.push({time: performance.now() / 1000, engine: status.engine, histograms: histograms(await metrics(), [TTFT, ITL])});
  readings = readings.slice(-KEPT);
  samples.push(sample(status.engine));
  samples = samples.slice(-KEPT);
  if (!visible) return;
  CARDS.forEach(drawCard);
  drawModel(status);
  drawRequests(status.requests);
}

export const startMonitor = makeCards;
