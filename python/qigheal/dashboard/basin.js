// Which components moved: each of them where it is, beside where it is when healthy.

import { byId, count, el, figure, number, percent, say, svg } from "./text.js";

const WIDTH = 640;
const ABOVE = 150; // height of the bars, and below of the shares
const BELOW = 64;
const NAMED = 5;

// What State holds, for a basin that a snapshot reported: as shares or as a unit vector, and their parts of
// the squared distance (the squared chord of the amplitudes, as qigcore.geometry.contributions has it).
export function compared(state, basin) {
  const size = (values, power) => values.reduce((sum, value) => sum + Math.abs(value) ** power, 0);
  const simplex = state.geometry === "simplex";
  const whole = simplex ? size(basin, 1) : Math.sqrt(size(basin, 2));
  if (!(whole > 0) || !state.baseline) return { ...state, current: null, shares: null, distance: null };
  const current = basin.map((value) => value / whole);
  const amplitude = simplex ? Math.sqrt : (value) => value;
  const squares = current.map((value, i) => (amplitude(value) - amplitude(state.baseline[i])) ** 2);
  const total = size(squares, 1);
  return { ...state, current, shares: squares.map((square) => (total > 0 ? square / total : 0)) };
}

// `distance`: that of the state shown from the baseline, in radians.
export function show(state, when = "now") {
  const { baseline, current, shares } = state;
  byId("basin-figure").hidden = !(baseline && current);
  byId("basin-table-box").hidden = !(baseline && current && shares);
  if (!baseline || !current) {
    const why = state.notes?.[0] ?? "There is nothing to compare yet: what healthy is has not been learned.";
    say(byId("basin-summary"), why);
    byId("basin-moved").replaceChildren();
    return;
  }
  const most = (shares ?? [])
    .map((share, index) => ({ share, index }))
    .sort((a, b) => b.share - a.share)
    .slice(0, NAMED)
    .filter(({ share }) => share > 0);
  const together = most.reduce((sum, { share }) => sum + share, 0);
  const healthy = state.bands?.basin_drift;
  const inside = healthy && state.distance !== null && state.distance <= healthy.high;
  const far = state.distance === null ? "" : `The basin lies ${figure("basin_drift", state.distance)} rad from its healthy mean ${when}`;
  const judged = inside ? ", within its band: the shares below are those of ordinary noise." : healthy ? `, where up to ${figure("basin_drift", healthy.high)} is healthy.` : ".";
  say(byId("basin-summary"), far ? far + judged : "");
  byId("basin-moved").replaceChildren(
    ...most.map(({ share, index }) =>
      el("li", {}, `Component ${index}: ${percent(share)} of the movement, ${number(baseline[index])} → ${number(current[index])}`),
    ),
  );
  const said = most.map(({ share, index }) => `${index} (${percent(share)})`).join(", ");
  const label = `Bars of ${count(current.length, "component")}, healthy and ${when}. ${most.length} of them carry ${percent(together)} of the movement: ${said}.`;
  byId("basin-bars").replaceChildren(picture(baseline, current, shares ?? [], new Set(most.map(({ index }) => index)), label));
  rows(baseline, current, shares ?? []);
}

function picture(baseline, current, shares, named, label) {
  const step = WIDTH / current.length;
  const top = Math.max(...baseline, ...current, 0);
  const bottom = Math.min(...baseline, ...current, 0);
  const height = (value) => (ABOVE * value) / (top - bottom || 1);
  const zero = height(top);
  const most = Math.max(...shares, 0.01);
  const bar = (i, value, inset, kind) =>
    svg("rect", {
      class: kind,
      x: (i * step + inset).toFixed(2),
      y: (zero - Math.max(0, height(value))).toFixed(2),
      width: Math.max(0.5, step - 2 * inset).toFixed(2),
      height: Math.abs(height(value)).toFixed(2),
    });
  const parts = current.map((value, i) => {
    const moved = named.has(i) ? "moved" : "";
    const share = shares[i] ?? 0;
    return svg(
      "g",
      { class: moved },
      svg("title", {}, `Component ${i}: ${number(baseline[i])} → ${number(value)}, ${percent(share)} of the movement`),
      bar(i, baseline[i], step * 0.08, "was"),
      bar(i, value, step * 0.3, "is"),
      svg("rect", {
        class: "share",
        x: (i * step + step * 0.15).toFixed(2),
        y: ABOVE + 20,
        width: (step * 0.7).toFixed(2),
        height: ((BELOW * share) / most).toFixed(2),
      }),
    );
  });
  const ticks = [];
  for (let i = 0; i < current.length; i += Math.max(1, Math.round(current.length / 8))) {
    ticks.push(svg("text", { x: ((i + 0.5) * step).toFixed(2), y: ABOVE + 14, "text-anchor": "middle" }, i));
  }
  return svg(
    "svg",
    { viewBox: `0 0 ${WIDTH} ${ABOVE + BELOW + 22}`, role: "img", "aria-label": label },
    svg("line", { class: "zero", x1: 0, x2: WIDTH, y1: zero, y2: zero }),
    parts,
    ticks,
  );
}

function rows(baseline, current, shares) {
  const box = byId("basin-table-box");
  const fill = () =>
    byId("basin-rows").replaceChildren(
      ...current.map((value, i) =>
        el(
          "tr",
          {},
          el("th", { scope: "row" }, i),
          el("td", { class: "figure" }, number(baseline[i])),
          el("td", { class: "figure" }, number(value)),
          el("td", { class: "figure" }, percent(shares[i] ?? 0)),
        ),
      ),
    );
  box.ontoggle = () => box.open && fill();
  if (box.open) fill();
}
