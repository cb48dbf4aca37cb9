// Status, the six figures, trends and the phase: what is said in words and numbers.

import { METRICS, byId, count, el, figure, long, moment, number, say, withUnit } from "./text.js";

const WORDS = { healthy: "Healthy", learning: "Learning", warning: "Warning", critical: "Critical" };
const MARKS = { healthy: "●", learning: "○", warning: "▲", critical: "■" };

export function status(health, where = document) {
  const pill = where.getElementById("status");
  pill.className = `pill ${health.status}`;
  pill.replaceChildren(
    el("span", { "aria-hidden": "true" }, MARKS[health.status] ?? "·"),
    el("span", { id: "status-word" }, WORDS[health.status] ?? health.status),
  );
  document.title = `${WORDS[health.status] ?? health.status} · qigheal`;
}

export function findings(health) {
  const lines = (health.findings ?? []).map((found) =>
    el(
      "li",
      { class: found.severity },
      el("span", { class: "tag" }, found.severity),
      " ",
      el("span", {}, found.message),
      found.since !== null && el("span", { class: "dim" }, ` since ${moment(found.since)}, ${count(found.snapshots, "snapshot")}`),
    ),
  );
  const said = new Set((health.findings ?? []).map((found) => found.message));
  for (const issue of health.issues ?? []) {
    if (!said.has(issue)) lines.push(el("li", { class: health.severity }, issue));
  }
  byId("findings").replaceChildren(...lines);
  const quiet =
    health.status === "learning"
      ? "What healthy is has not been learned yet: the absolute limits apply once enough is recorded."
      : "Nothing is outside its limits.";
  say(byId("findings-none"), lines.length ? "" : quiet);
  byId("notes").replaceChildren(...(health.notes ?? []).map((note) => el("li", {}, note)));
  byId("notes-box").hidden = !(health.notes ?? []).length;
}

// The figures of one snapshot; `health` gives their severities while it is the newest one.
export function tiles(snapshot, { state, trends, health }) {
  const boxes = Object.keys(METRICS).map((metric) => {
    const { name, column, unit, long: title } = METRICS[metric];
    const value = snapshot?.[column];
    const worst = health ? severity(health, metric) : outside(metric, value, state) ? "warning" : "";
    const repaired = snapshot?.repaired?.some((field) => field === column || (metric === "basin_drift" && field === "basin_coords"));
    const trend = health ? trends?.trends?.[metric] : null;
    return el(
      "div",
      { class: `tile ${worst}`, "data-metric": metric },
      el("dt", { title }, name),
      el(
        "dd",
        {},
        el("span", { class: "value", id: `value-${metric}` }, figure(metric, value)),
        unit && el("span", { class: "unit" }, ` ${unit}`),
        el("span", { class: "range" }, repaired ? "unusable: last good value" : range(metric, state)),
        el(
          "span",
          { class: "trend" },
          worst && el("span", { class: "tag" }, worst === "critical" ? "critical" : "warning"),
          trend && trend.direction !== "unknown" && `${arrow(trend)} ${trend.direction}`,
        ),
      ),
    );
  });
  byId("tiles").replaceChildren(...boxes);
  const from = [snapshot?.module_name && `module ${snapshot.module_name}`, snapshot?.code_hash && `code ${snapshot.code_hash.slice(0, 12)}`, snapshot && `regime ${snapshot.regime}`];
  say(byId("source"), from.filter(Boolean).join(" · "));
}

function severity(health, metric) {
  const found = (health.findings ?? []).filter((finding) => finding.metric === metric);
  if (found.some((finding) => finding.severity === "critical")) return "critical";
  return found.length ? "warning" : "";
}

// Of memory the band is of its growth, and says nothing of a single value.
export const band = (metric, state) => (metric === "memory" ? null : (state?.bands?.[metric] ?? null));

function outside(metric, value, state) {
  const healthy = band(metric, state);
  return healthy !== null && value !== null && value !== undefined && (value < healthy.low || value > healthy.high);
}

export function range(metric, state) {
  if (metric === "memory") {
    const growth = state?.bands?.memory;
    return growth ? `growth ≤ ${number(growth.high, 2)} a snapshot` : "";
  }
  const healthy = band(metric, state);
  if (healthy && metric === "basin_drift") return `healthy up to ${figure(metric, healthy.high)}`;
  if (healthy && metric !== "errors") return `healthy ${figure(metric, healthy.low)} to ${figure(metric, healthy.high)}`;
  if (healthy) return `healthy up to ${figure(metric, healthy.high)}`;
  if (metric === "phi" && state) return `limit ${figure(metric, state.phi_min)}`;
  if (metric === "basin_drift" && state) return `limit ${figure(metric, state.drift_limit)}`;
  return "";
}

// Which way the figure goes; whether that is better or worse is for the word.
function arrow({ direction, slope }) {
  if (direction === "unknown" || slope === null) return "·";
  return direction === "stable" ? "→" : slope > 0 ? "↗" : "↘";
}

export function trends(found) {
  const rows = Object.keys(METRICS).map((metric) => {
    const trend = found.trends[metric];
    if (!trend) return null;
    const scale = metric === "errors" ? 100 : 1;
    const slope =
      trend.slope === null
        ? "–"
        : `${number(scale * trend.slope, 2)}${trend.stderr === null ? "" : ` ± ${number(scale * trend.stderr, 2)}`}`;
    return el(
      "tr",
      {},
      el("th", { scope: "row" }, METRICS[metric].name),
      el("td", { class: `direction ${trend.direction}` }, el("span", { "aria-hidden": "true" }, `${arrow(trend)} `), trend.direction),
      el("td", { class: "figure" }, withUnit(metric, trend.recent_avg)),
      el("td", { class: "figure" }, slope),
    );
  });
  byId("trend-rows").replaceChildren(...rows.filter(Boolean));
  say(byId("trend-window"), `Over the last ${count(found.window, "snapshot")}; the slope is per snapshot, with its standard error.`);
  const sentences = Object.values(found.trends).map((trend) => trend.sentence).filter(Boolean);
  byId("trend-sentences").replaceChildren(...sentences.map((sentence) => el("li", {}, sentence)));
}

export function phase(found) {
  say(byId("phase-title"), `Phase ${found.phase}`);
  const since = found.since === null ? "" : ` Since ${moment(found.since)}.`;
  say(byId("phase-means"), `${capital(found.means)}.${since}`);
  const warnings = [
    found.demotion && `The next pass goes back to phase ${found.phase - 1}: ${found.demotion}`,
    found.breaker_open && "The breaker is open after repeated rollbacks: nothing is tried until a person has looked.",
  ].filter(Boolean);
  byId("phase-warnings").replaceChildren(...warnings.map((text) => el("li", { class: "critical" }, text)));
  const advice = new Map(found.missing.map((line) => [`${line.gate} ${line.name}`, line.advice]));
  const rows = found.criteria
    .filter((line) => line.gate === found.gate)
    .map((line) =>
      el(
        "tr",
        { class: line.met ? "met" : "open" },
        el("td", {}, el("span", { class: line.met ? "tag good" : "tag" }, line.met ? "met" : "open")),
        el(
          "th",
          { scope: "row" },
          line.name,
          !line.met && el("span", { class: "advice" }, advice.get(`${line.gate} ${line.name}`) || line.advice),
        ),
        el("td", {}, line.needed),
        el("td", {}, line.found),
      ),
    );
  byId("gate-rows").replaceChildren(...rows);
  byId("gate-table").hidden = !rows.length;
  const open = found.missing.length;
  say(byId("gate-caption"), `Gate ${found.gate}: ${open ? `${count(open, "criterion").replace("criterions", "criteria")} not met` : "every criterion is met"}`);
  const next = rows.length && !open ? "Nothing is missing. Go on with: qigheal phase advance" : "";
  say(byId("phase-next"), next);
}

const capital = (text) => text.charAt(0).toUpperCase() + text.slice(1);

// How long ago the newest snapshot was recorded, and whether that is later than the service's habit.
export function age(lastAt, interval, now = Date.now() / 1000) {
  if (lastAt === null || lastAt === undefined) return { text: "No snapshot is recorded yet.", late: false };
  const seconds = Math.max(0, now - lastAt);
  const late = Number.isFinite(interval) && seconds > Math.max(3 * interval, interval + 15);
  const habit = late ? `; one used to come every ${long(interval)}` : "";
  return { text: `Last snapshot ${long(seconds)} ago${habit}`, late };
}
