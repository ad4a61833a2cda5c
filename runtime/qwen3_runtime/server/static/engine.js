// What /health says of the engine, as tables.

import { make } from "./markdown.js";
import { texts } from "./texts.js";

function bytes(count) {
  if (!count) return "0";
  const rank = Math.min(Math.floor(Math.log10(count) / 3), 4);
  return `${Number((count / 1000 ** rank).toPrecision(3))} ${["B", "kB", "MB", "GB", "TB"][rank]}`;
}

function facts(rows) {
  const list = make("dl");
  for (const [name, value] of rows) {
    if (value !== undefined && value !== null) list.append(make("dt", {}, name), make("dd", {}, String(value)));
  }
  return list;
}

function carriedOutBy(op) {
  const names = op.kernels ?? op.infinicore ?? [];
  return names.length ? names.join(", ") : (op.why ?? texts.views);
}

/** Shows the engine in a place; returns whether its device is emulated. */
export function showEngine(place, health) {
  const engine = health.engine ?? {};
  const { device = {}, memory, ops } = engine;
  const name = device.name && (device.emulated ? `${device.name} (${texts.emulated})` : device.name);
  const parts = [
    facts([
      [texts.device, name ?? engine.engine],
      [texts.lowering, device.lowering],
      [texts.dtype, engine.dtype],
      [texts.layers, engine.num_layers],
      [texts.contextLength, engine.max_model_len],
      [texts.atOnce, engine.max_num_seqs],
      [texts.requests, `${health.num_requests_running} / ${health.num_requests_waiting}`],
    ]),
  ];
  if (memory) {
    parts.push(
      make("h3", {}, texts.memory),
      facts([
        [texts.weights, bytes(memory.weight_bytes)],
        [texts.kvCache, bytes(engine.kv_cache_bytes)],
        [texts.kvPerToken, bytes(memory.kv_bytes_per_token)],
      ]),
    );
  }
  if (ops) {
    const rows = Object.entries(ops).map(([op, how]) => {
      const cell = make("td", how.why ? { title: how.why } : {}, carriedOutBy(how));
      return make("tr", {}, make("th", { scope: "row" }, op), cell);
    });
    parts.push(make("h3", {}, texts.operators), make("table", { class: "ops" }, make("tbody", {}, ...rows)));
  }
  place.replaceChildren(...parts);
  return Boolean(device.emulated);
}
