// Elements and figures. Whatever is shown goes through here as text, never as markup.

export const METRICS = {
  phi: { column: "phi", name: "Φ", long: "Φ, integration", unit: "" },
  basin_drift: { column: "basin_drift", name: "Drift", long: "Drift from healthy", unit: "rad" },
  kappa: { column: "kappa_eff", name: "κ", long: "κ, coupling", unit: "" },
  latency: { column: "avg_latency_ms", name: "Latency", long: "Mean latency", unit: "ms" },
  errors: { column: "error_rate", name: "Errors", long: "Errors per request", unit: "%" },
  memory: { column: "memory_mb", name: "Memory", long: "Memory", unit: "MB" },
};

export function el(tag, attributes = {}, ...children) {
  return filled(document.createElement(tag), attributes, children);
}

export function svg(tag, attributes = {}, ...children) {
  return filled(document.createElementNS("http://www.w3.org/2000/svg", tag), attributes, children);
}

function filled(made, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === false || value === null || value === undefined) continue;
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else made.setAttribute(name, value === true ? "" : String(value));
  }
  for (const child of children.flat(2)) {
    if (child === false || child === null || child === undefined || child === "") continue;
    made.append(child instanceof Node ? child : String(child));
  }
  return made;
}

export const byId = (id) => document.getElementById(id);

// Replaces text only where it differs: a live region speaks each time that its content is set.
export function say(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

export function number(value, digits = 3) {
  if (value === null || value === undefined || !Number.isFinite(value)) return "–";
  const size = Math.abs(value);
  if (size !== 0 && (size < 1e-4 || size >= 1e7)) return value.toExponential(2);
  const decimals = size === 0 ? 0 : Math.max(0, digits - 1 - Math.floor(Math.log10(size)));
  return value.toFixed(Math.min(6, decimals));
}

// One figure of a metric, without its unit.
export function figure(metric, value) {
  if (value === null || value === undefined || !Number.isFinite(value)) return "–";
  if (metric === "errors") return number(100 * value, 2);
  if (metric === "phi" || metric === "basin_drift") return value.toFixed(3);
  if (metric === "memory" && Math.abs(value) < 1e6) return value.toFixed(1);
  return number(value, 3);
}

export function withUnit(metric, value) {
  const unit = METRICS[metric]?.unit;
  return figure(metric, value) + (unit ? ` ${unit}` : "");
}

export const percent = (share) => `${number(100 * share, 2)} %`;

export function count(many, word) {
  return `${many.toLocaleString("en")} ${word}${many === 1 ? "" : "s"}`;
}

function date(seconds) {
  const made = new Date(seconds * 1000);
  return Number.isNaN(made.getTime()) ? null : made; // a service's clock may be beyond the calendar
}

export function moment(seconds) {
  if (seconds === null || seconds === undefined) return "–";
  const at = date(seconds);
  if (at === null) return `${number(seconds)} s`;
  const today = new Date();
  const time = at.toLocaleTimeString("en-GB");
  if (at.toDateString() === today.toDateString()) return time;
  const year = at.getFullYear() === today.getFullYear() ? undefined : "numeric";
  return `${at.toLocaleDateString("en-GB", { day: "numeric", month: "short", year })}, ${time}`;
}

// What plotly takes for local time: milliseconds as though the clock on the wall were UTC.
export function wall(seconds) {
  const at = date(seconds);
  return at === null ? null : at.getTime() - 60_000 * at.getTimezoneOffset();
}

export function long(seconds) {
  if (seconds < 90) return `${Math.round(seconds)} s`;
  if (seconds < 5400) return `${Math.round(seconds / 60)} min`;
  if (seconds < 129_600) return `${number(seconds / 3600, 2)} h`;
  return `${number(seconds / 86_400, 2)} days`;
}

export function median(values) {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted.length ? sorted[sorted.length >> 1] : NaN;
}
