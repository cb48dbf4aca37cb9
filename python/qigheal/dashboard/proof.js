// What was measured of a patch: the verdict, its guards, both sides' figures, and the diff.

import { count, el, moment, number } from "./text.js";

const NAMES = { phi: "Φ", kappa: "κ", basin_drift: "drift, rad", errors: "error rate", latency: "latency, ms", memory: "memory, MB", memory_growth: "memory growth" };
const DECISIONS = { improved: "Improved", equivalent: "No worse", worse: "Worse", inconclusive: "Not decided", refused: "Refused" };
const BOUNDLESS = 1e8; // a bound as large as this says that there is none yet
const LINES = 2000; // of one diff

function amount(metric, value) {
  if (value === null || Math.abs(value) >= BOUNDLESS) return "no bound";
  const sign = value > 0 ? "+" : "";
  if (metric === "latency" || metric === "memory") return `${sign}${(100 * value).toFixed(2)} %`;
  if (metric === "errors") return `${sign}${(100 * value).toFixed(3)} points`;
  return sign + number(value);
}

export function judged(detail) {
  if (!detail.judged.length) return [el("p", { class: "dim" }, "It was never measured: an operator put it through.")];
  return detail.judged.map((each, i) => one(each, i > 0));
}

function one({ kind, at, verdict, before, after, proof, problem }, earlier) {
  const said = kind === "evaluation" ? "Evaluated" : "Measured";
  const parts = [
    el(
      "p",
      { class: "verdict" },
      el("span", { class: verdict.accepted ? "tag good" : "tag" }, DECISIONS[verdict.decision] ?? verdict.decision),
      " ",
      verdict.reason,
    ),
    verdict.fitness && fitness(verdict.fitness),
    verdict.vetoes.length > 0 && el("ul", { class: "lines" }, verdict.vetoes.map((veto) => el("li", { class: "critical" }, veto))),
    table(verdict, before, after),
    el("p", { class: "dim" }, `${said} ${moment(at)}: ${count(verdict.pairs, "pair")}, sandbox level ${verdict.sandbox_level}. `, problem || (proof && `Proof: ${proof}`)),
  ];
  return earlier ? el("details", {}, el("summary", {}, `${said} before, ${moment(at)}: ${DECISIONS[verdict.decision] ?? verdict.decision}`), parts) : el("div", {}, parts);
}

function fitness(found) {
  const terms = Object.entries(found.components).map(([name, gain]) => `${name} ${number(gain, 2)}`);
  return el("p", {}, el("strong", {}, `Fitness ${number(found.point)}`), `, 95 % bounds ${number(found.low)} to ${number(found.high)}. Gains: ${terms.join(", ")}.`);
}

function table(verdict, before, after) {
  const guards = new Map(verdict.guards.map((guard) => [guard.metric, guard]));
  const metrics = [...new Set([...Object.keys(before), ...Object.keys(after), ...guards.keys()])];
  if (!metrics.length) return el("p", { class: "dim" }, "No figures were kept.");
  const head = ["Metric", "Before", "After", "Degradation", "At most", "Tolerated", "Guard"];
  return el(
    "div",
    { class: "scroll", tabindex: "0", role: "region", "aria-label": "Figures of the trial" },
    el(
      "table",
      {},
      el("caption", {}, "Unpatched and patched code on the same requests; a guard passes when the degradation is at most what is tolerated"),
      el("thead", {}, el("tr", {}, head.map((name) => el("th", { scope: "col" }, name)))),
      el("tbody", {}, metrics.map((metric) => row(metric, before[metric] ?? null, after[metric] ?? null, guards.get(metric)))),
    ),
  );
}

function row(metric, before, after, guard) {
  const cell = (text) => el("td", { class: "figure" }, text);
  return el(
    "tr",
    {},
    el("th", { scope: "row" }, NAMES[metric] ?? metric),
    cell(number(before, 4)),
    cell(number(after, 4)),
    cell(guard ? amount(metric, guard.estimate) : ""),
    cell(guard ? amount(metric, guard.high) : ""),
    cell(guard ? amount(metric, guard.margin) : ""),
    el("td", {}, guard ? el("span", { class: guard.result === "pass" ? "tag good" : "tag" }, guard.result) : ""),
  );
}

export function diff(text) {
  const lines = text.split("\n");
  const shown = lines.slice(0, LINES).map((line) => el("span", { class: kind(line) }, `${line}\n`));
  return el(
    "div",
    {},
    el("pre", { class: "diff", tabindex: "0", role: "region", "aria-label": "Diff" }, shown),
    lines.length > LINES && el("p", { class: "dim" }, `The first ${LINES} of ${lines.length} lines; the whole: qigheal patches ID`),
  );
}

function kind(line) {
  if (line.startsWith("+++") || line.startsWith("---") || line.startsWith("diff ") || line.startsWith("index ")) return "file";
  if (line.startsWith("@@")) return "hunk";
  return line.startsWith("+") ? "add" : line.startsWith("-") ? "del" : "same";
}

export function facts({ patch, change, fingerprint }) {
  const rows = [
    ["Fingerprint", fingerprint],
    ["Base", patch.base.slice(0, 12)],
    change && ["Branch", `${change.branch} into ${change.target}`],
    ["Claims to heal", patch.heals.join(", ") || "nothing in particular"],
    patch.price && ["At the price of", patch.price],
    change?.merge_commit && ["Merge", change.merge_commit.slice(0, 12)],
    change?.revert_commit && ["Revert", change.revert_commit.slice(0, 12)],
    change?.reviewer && ["Reviewed by", change.reviewer],
    change?.reason && ["Why it is so", change.reason],
  ].filter(Boolean);
  return el("dl", { class: "facts" }, rows.map(([name, value]) => [el("dt", {}, name), el("dd", {}, value)]));
}

export function scored(fitness) {
  return fitness === null ? "" : `fitness ${number(fitness)}`;
}

