// The widget: status, Φ and drift with their lines, and the heal button, small enough for another page.

import { Failed, get, health as askHealth } from "./access.js";
import { age, range, status } from "./facts.js";
import { healing } from "./heal.js";
import { History } from "./history.js";
import { follow } from "./stream.js";
import { METRICS, byId, count, figure, moment, say, svg } from "./text.js";

const SHOWN = 200; // snapshots in the two lines
const WIDTH = 300;
const HEIGHT = 48;
const METRICS_SHOWN = ["phi", "basin_drift"];

const history = new History(SHOWN);
let state = null;
let spoken = null;

function showHealth(found) {
  if (spoken !== found.status) status(found);
  spoken = found.status;
  for (const metric of METRICS_SHOWN) {
    const mine = (found.findings ?? []).filter((finding) => finding.metric === metric).map((finding) => finding.severity);
    byId(`tile-${metric}`).className = `tile ${mine.includes("critical") ? "critical" : mine.length ? "warning" : ""}`;
  }
}

function show() {
  for (const metric of METRICS_SHOWN) {
    say(byId(`value-${metric}`), figure(metric, history.last?.[METRICS[metric].column]));
    say(byId(`range-${metric}`), range(metric, state));
    byId(`spark-${metric}`).replaceChildren(spark(metric));
  }
  tick();
}

function tick() {
  const { text, late } = age(history.last?.timestamp, history.interval);
  say(byId("age"), text);
  byId("age").className = late ? "late" : "dim";
}

function spark(metric) {
  const { column, long } = METRICS[metric];
  const known = history.newest.filter((snapshot) => snapshot[column] !== null);
  const values = known.map((snapshot) => snapshot[column]);
  const healthy = state?.bands?.[metric];
  const all = healthy ? [...values, healthy.low, healthy.high] : values;
  const low = Math.min(...all);
  const high = Math.max(...all);
  const y = (value) => HEIGHT - 3 - ((HEIGHT - 6) * (value - low)) / (high - low || 1);
  const points = values.map((value, i) => `${((WIDTH * i) / Math.max(1, values.length - 1)).toFixed(1)},${y(value).toFixed(1)}`);
  const said = values.length
    ? `${long}: ${count(values.length, "snapshot")} from ${moment(known[0].timestamp)}, between ${figure(metric, Math.min(...values))} and ${figure(metric, Math.max(...values))}, last ${figure(metric, values.at(-1))}.`
    : `${long}: nothing recorded yet.`;
  return svg(
    "svg",
    { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", "aria-label": said, preserveAspectRatio: "none" },
    healthy && svg("rect", { class: "band", x: 0, width: WIDTH, y: y(healthy.high), height: Math.max(1, y(healthy.low) - y(healthy.high)) }),
    svg("polyline", { class: "spark", points: points.join(" "), "vector-effect": "non-scaling-stroke" }),
  );
}

async function catchUp() {
  await history.catchUp();
  state = await get("state");
  showHealth(await askHealth());
  show();
}

function connection(name) {
  say(byId("stale"), name === "lost" ? "The connection is lost: these are the last figures heard." : "");
}

async function start() {
  byId("enter").hidden = true;
  try {
    showHealth(await askHealth());
    state = await get("state");
    await history.load();
    showHealth(await askHealth());
    show();
    const on = {
      snapshot: (snapshot) => {
        history.add(snapshot);
        show();
      },
      health: showHealth,
    };
    await follow({ on: (event, data) => on[event]?.(data), state: connection, catchUp });
  } catch (error) {
    say(byId("stale"), error.message);
    byId("enter").hidden = error.status !== 401;
    if (!(error instanceof Failed) || error.status >= 500 || error.status === 429) setTimeout(start, 10_000);
  }
}

healing();
byId("enter").addEventListener("click", start);
setInterval(tick, 5000);
start();
