// The six figures over time, drawn by plotly. Nothing from telemetry but numbers reaches it: it would take
// markup in a text for markup.

import { band } from "./facts.js";
import { METRICS, byId, count, el, figure, median, moment, say, wall, withUnit } from "./text.js";

const DRAWN = 1000; // points at most in one chart; more are thinned to the extremes of each stretch
const BREAK = 6; // a gap of so many intervals is left open

// One line of time, and the day below the first and where it changes.
const STOPS = [
  { dtickrange: [null, 60_000], value: "%H:%M:%S\n%-d %b" },
  { dtickrange: [60_000, 86_400_000], value: "%H:%M\n%-d %b" },
  { dtickrange: [86_400_000, "M1"], value: "%-d %b\n%Y" },
  { dtickrange: ["M1", null], value: "%b\n%Y" },
];

let loading = null;

// Plotly writes its style into the page unless these stand there; what is needed of it is in dashboard.css,
// so that the pages' policy need not allow inline styles. The second is that of its maps, by its content.
const STYLED = ["plotly.js-style-global", "9f215cf04c5486422605d13261cb87401f4e7763b6296af81e98efbc0130da53"];

// Loaded ahead by the page, under an address that changes with its content. Running it holds the page for half a
// second or more: that waits until what is known so far can be seen.
function library() {
  loading ??= painted().then(() => new Promise((resolve, reject) => {
    for (const id of STYLED) document.getElementById(id) ?? document.head.append(el("template", { id, class: "no-inline-styles" }));
    const script = el("script", { src: document.querySelector("link[rel=preload][as=script]").href });
    script.onload = () => (window.Plotly ? resolve(window.Plotly) : reject(new Error("no Plotly")));
    script.onerror = reject;
    document.head.append(script);
  }));
  return loading;
}

const painted = () => new Promise((resolve) => requestAnimationFrame(() => setTimeout(resolve)));

const inSight = new Set(); // the others are drawn once they are scrolled to

// Makes the places of the charts; `appeared` is called when one comes into sight.
export function frames(appeared) {
  const made = Object.entries(METRICS).map(([metric, { long, unit }]) =>
    el(
      "figure",
      { class: "chart", "data-metric": metric },
      el("figcaption", {}, el("span", { class: "name" }, unit ? `${long}, ${unit}` : long), el("span", { class: "legend", id: `legend-${metric}` })),
      el("div", { class: "plot", id: `plot-${metric}`, role: "img", "aria-label": long }),
    ),
  );
  byId("charts").replaceChildren(...made);
  const watching = new IntersectionObserver((entries) => {
    for (const { target, isIntersecting } of entries) inSight[isIntersecting ? "add" : "delete"](target.dataset.metric);
    if (entries.some(({ isIntersecting }) => isIntersecting)) appeared();
  }, { rootMargin: "200px" });
  for (const frame of made) watching.observe(frame);
}

export function thinned(points, most) {
  if (points.length <= most) return points;
  const kept = [];
  const stretch = (2 * points.length) / most;
  for (let start = 0; start < points.length; start += stretch) {
    let low = null;
    let high = null;
    for (let i = Math.floor(start); i < Math.min(points.length, Math.floor(start + stretch)); i += 1) {
      if (points[i].y === null) continue;
      if (low === null || points[i].y < points[low].y) low = i;
      if (high === null || points[i].y > points[high].y) high = i;
    }
    if (low === null) kept.push({ x: points[Math.floor(start)].x, y: null });
    else for (const i of new Set([Math.min(low, high), Math.max(low, high)])) kept.push(points[i]);
  }
  return kept;
}

function line(snapshots, metric, interval) {
  const { column } = METRICS[metric];
  const scale = metric === "errors" ? 100 : 1;
  const flagged = metric === "basin_drift" ? "basin_coords" : column;
  const points = [];
  let before = null;
  for (const snapshot of snapshots) {
    const x = wall(snapshot.timestamp);
    if (x === null) continue;
    if (before !== null && snapshot.timestamp - before > BREAK * interval) points.push({ x: wall(before + interval), y: null });
    const usable = snapshot[column] !== null && !snapshot.repaired.includes(flagged);
    points.push({ x, y: usable ? scale * snapshot[column] : null });
    before = snapshot.timestamp;
  }
  return thinned(points, DRAWN);
}

function limit(metric, state) {
  if (metric === "phi") return state?.phi_min ?? null;
  return metric === "basin_drift" ? (state?.drift_limit ?? null) : null;
}

// The range that shows the line and its band calmly, and the limit where that does not flatten them.
function vertical(points, metric, state) {
  const scale = metric === "errors" ? 100 : 1;
  const values = points.map(({ y }) => y).filter((y) => y !== null);
  const healthy = band(metric, state);
  if (healthy) values.push(scale * healthy.low, scale * healthy.high);
  if (!values.length) return [0, 1];
  let low = values.reduce((a, b) => Math.min(a, b));
  let high = values.reduce((a, b) => Math.max(a, b));
  const at = limit(metric, state);
  const span = Math.max(high - low, 0.02 * Math.abs(high), 1e-6);
  if (at !== null && at > low - 1.5 * span && at < high + 1.5 * span) [low, high] = [Math.min(low, at), Math.max(high, at)];
  const room = 0.08 * Math.max(high - low, span);
  const least = metric === "kappa" ? -Infinity : 0;
  return [Math.max(least, low - room), high + room];
}

function colours() {
  const style = getComputedStyle(document.documentElement);
  return Object.fromEntries(["ink", "dim", "grid", "line", "band", "limit", "mark"].map((name) => [name, style.getPropertyValue(`--${name}`).trim()]));
}

// snapshots, oldest first; `at`: the moment that is looked at, null for now.
export async function draw(snapshots, state, at) {
  let plotly;
  try {
    plotly = await library();
  } catch {
    loading = null;
    say(byId("charts-missing"), "The charts cannot be drawn: their library was not sent. The service needs it: pip install 'qigheal[dashboard]'. The figures are in the table below.");
    byId("charts").hidden = true;
    return;
  }
  say(byId("charts-missing"), "");
  byId("charts").hidden = false;
  const colour = colours();
  const interval = spacing(snapshots);
  for (const metric of Object.keys(METRICS)) {
    const plot = byId(`plot-${metric}`);
    described(plot, metric, snapshots, state);
    if (!inSight.has(metric)) continue;
    const points = line(snapshots, metric, interval);
    plotly.react(
      plot,
      [{ x: points.map(({ x }) => x), y: points.map(({ y }) => y), mode: points.length < 3 ? "markers" : "lines", line: { color: colour.line, width: 1.4 }, marker: { color: colour.line }, hovertemplate: "%{y:.4~g}<extra></extra>" }],
      layout(metric, points, state, at, colour),
      { displayModeBar: false, responsive: true, scrollZoom: false, doubleClick: "reset" },
    );
    await new Promise((resolve) => setTimeout(resolve)); // one at a time, so that the page answers meanwhile
  }
}

export function spacing(snapshots) {
  const steps = snapshots.slice(1).map((snapshot, i) => snapshot.timestamp - snapshots[i].timestamp);
  return median(steps.filter((step) => step > 0));
}

function layout(metric, points, state, at, colour) {
  const scale = metric === "errors" ? 100 : 1;
  const healthy = band(metric, state);
  const limitAt = limit(metric, state);
  const across = { type: "line", xref: "paper", x0: 0, x1: 1, layer: "below" };
  const shapes = [];
  if (healthy) {
    shapes.push({ type: "rect", xref: "paper", x0: 0, x1: 1, y0: scale * healthy.low, y1: scale * healthy.high, fillcolor: colour.band, line: { width: 0 }, layer: "below" });
    shapes.push({ ...across, y0: scale * healthy.mean, y1: scale * healthy.mean, line: { color: colour.dim, width: 1, dash: "dot" } });
  }
  if (limitAt !== null) shapes.push({ ...across, y0: limitAt, y1: limitAt, line: { color: colour.limit, width: 1.2, dash: "dash" } });
  if (at !== null && wall(at) !== null) shapes.push({ type: "line", yref: "paper", y0: 0, y1: 1, x0: wall(at), x1: wall(at), line: { color: colour.mark, width: 1.5 } });
  const coarse = matchMedia("(pointer: coarse)").matches; // there a finger scrolls the page
  const axis = { gridcolor: colour.grid, zeroline: false, linecolor: colour.grid, tickfont: { size: 11 } };
  return {
    height: 176,
    margin: { l: 46, r: 8, t: 6, b: 34 },
    paper_bgcolor: "rgba(0,0,0,0)",
    plot_bgcolor: "rgba(0,0,0,0)",
    font: { color: colour.dim, family: "system-ui, sans-serif" },
    showlegend: false,
    hovermode: "x",
    dragmode: coarse ? false : "zoom",
    uirevision: at === null ? "live" : String(at),
    xaxis: { ...axis, type: "date", fixedrange: coarse, showgrid: false, nticks: 5, tickangle: 0, tickformatstops: STOPS },
    yaxis: { ...axis, range: vertical(points, metric, state), fixedrange: true, nticks: 5 },
    shapes,
  };
}

// What is learned sets the limit at the band's edge: it is said once.
function apart(limitAt, healthy) {
  const edge = (value) => healthy && Math.abs(limitAt - value) <= 0.005 * Math.abs(value);
  return limitAt === null || edge(healthy?.low) || edge(healthy?.high) ? null : limitAt;
}

function described(plot, metric, snapshots, state) {
  const { column, long } = METRICS[metric];
  const values = snapshots.map((snapshot) => snapshot[column]).filter((value) => value !== null);
  const healthy = band(metric, state);
  const limitAt = apart(limit(metric, state), healthy);
  const legend = [
    healthy && `band ${figure(metric, healthy.low)} to ${withUnit(metric, healthy.high)}`,
    limitAt !== null && `limit ${withUnit(metric, limitAt)}`,
  ].filter(Boolean).join(" · ");
  say(byId(`legend-${metric}`), legend);
  if (!values.length) return;
  const low = values.reduce((a, b) => Math.min(a, b));
  const high = values.reduce((a, b) => Math.max(a, b));
  const said = `${long}: ${count(snapshots.length, "snapshot")} from ${moment(snapshots[0].timestamp)} to ${moment(snapshots.at(-1).timestamp)}, between ${figure(metric, low)} and ${withUnit(metric, high)}, last ${withUnit(metric, values.at(-1))}${legend ? `; ${legend}` : ""}.`;
  plot.setAttribute("aria-label", said);
}
