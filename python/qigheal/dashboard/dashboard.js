// The dashboard: what is asked for, when, and which part of the page shows it.

import { Failed, forget, get, health as askHealth } from "./access.js";
import * as basin from "./basin.js";
import * as charts from "./charts.js";
import * as facts from "./facts.js";
import { healing } from "./heal.js";
import { History } from "./history.js";
import * as patches from "./patches.js";
import { follow } from "./stream.js";
import { METRICS, byId, count, el, figure, moment, say } from "./text.js";

const DRAW_MS = 1000; // charts are drawn no more often
const FRESHEN_MS = 5000; // nor is asked what follows from the snapshots
const SCRUB_MS = 250; // after the slider rests
const TABLE_ROWS = 50;
const SLIDER = 1000;

const now = { health: null, state: null, trends: null };
let history = new History(Number(byId("size").value));
let past = null; // { at, shown, then, state } while a moment of the past is looked at
let following = null;
let spoken = null;

// Says one thing aloud, and only when it has changed.
function announce(text) {
  say(byId("announce"), text);
}

// Runs `work` at most once in `ms`, and once more when it was asked for meanwhile.
function throttled(work, ms) {
  let busy = false;
  let again = false;
  let last = -Infinity;
  async function run() {
    last = performance.now();
    again = false;
    try {
      await work();
    } catch (error) {
      if (!(error instanceof Failed)) console.warn(error);
    } finally {
      busy = false;
      if (again) ask();
    }
  }
  function ask() {
    again = true;
    if (busy) return;
    busy = true;
    setTimeout(run, Math.max(0, last + ms - performance.now()));
  }
  return ask;
}

function showHealth(found) {
  now.health = found;
  if (spoken === null || spoken !== found.status) facts.status(found);
  spoken = found.status;
  if (found.metrics === undefined) return; // without a token only the status is said
  facts.findings(found);
  showFigures();
}

function showFigures() {
  const live = past === null;
  say(byId("now-title"), live ? "Now" : `At ${moment(past.at)}`);
  if (live) facts.tiles(history.last, now);
  else facts.tiles(past.then, { state: now.state });
}

function showBasin() {
  if (past?.state) basin.show(past.state, "at that moment");
  else if (!past && now.state) basin.show(now.state);
}

const draw = throttled(async () => {
  if (document.hidden) return;
  const shown = past ? past.shown : history.newest;
  const at = past ? past.at : null;
  const range = shown.length ? `, ${moment(shown[0].timestamp)} to ${moment(shown.at(-1).timestamp)}` : "";
  say(byId("history-said"), `${count(shown.length, "snapshot")} shown${range}.`);
  if (byId("table-box").open) table();
  if (shown.length) await charts.draw(shown, now.state, at);
}, DRAW_MS);

function table() {
  const shown = past ? past.shown : history.newest;
  const step = Math.max(1, Math.ceil(shown.length / TABLE_ROWS));
  const chosen = shown.filter((_, i) => (shown.length - 1 - i) % step === 0).reverse();
  say(byId("table-caption"), step === 1 ? "The snapshots shown, newest first" : `Every ${step}th of the snapshots shown, newest first`);
  byId("table-rows").replaceChildren(
    ...chosen.map((snapshot) =>
      el(
        "tr",
        {},
        el("th", { scope: "row" }, moment(snapshot.timestamp)),
        Object.entries(METRICS).map(([metric, { column }]) => el("td", { class: "figure" }, figure(metric, snapshot[column]))),
      ),
    ),
  );
}

async function freshen(known = null) {
  const [state, trends, phase] = await Promise.all([known ?? get("state"), get("trends?window=50"), get("phase").catch(softly)]);
  now.state = state;
  now.trends = trends;
  facts.trends(trends);
  if (phase) facts.phase(phase);
  showFigures();
  showBasin();
  draw();
}

// A store that nobody heals has no phase: the rest of the page is shown all the same.
function softly(error) {
  if (error instanceof Failed && error.status !== 401) return null;
  throw error;
}

const freshenSoon = throttled(() => freshen(), FRESHEN_MS);

async function loadPatches() {
  const found = await get("patches").catch(softly);
  if (found) patches.show(found, announce);
}

async function catchUp() {
  await history.catchUp();
  showHealth(await askHealth());
  await Promise.all([freshen(), loadPatches()]);
}

function connection(name) {
  const lost = name === "lost";
  say(byId("link-state"), { live: "Live", polling: "Asking now and then", lost: "No connection" }[name]);
  byId("connection").className = `connection ${name}`;
  byId("stale").hidden = !lost;
  say(byId("stale"), lost ? "The connection to the service is lost. What stands here is what was last heard; it is tried again." : "");
  if (lost) announce("The connection to the service is lost.");
  else if (byId("announce").textContent.includes("lost")) announce("Connected again.");
}

function tick() {
  const { text, late } = facts.age(history.last?.timestamp, history.interval);
  say(byId("age"), text);
  byId("age").className = late ? "late" : "dim";
}

// The slider's ends are the oldest snapshot and now.
function momentAt(value) {
  const last = history.last?.timestamp ?? 0;
  return history.first + ((last - history.first) * value) / SLIDER;
}

let scrubbing = null;
let asked = 0;

function scrub() {
  const slider = byId("moment");
  const value = Number(slider.value);
  const live = value >= SLIDER || history.first === null;
  const said = live ? "now" : moment(momentAt(value));
  slider.setAttribute("aria-valuetext", said);
  say(byId("moment-said"), said);
  clearTimeout(scrubbing);
  if (live) return toNow();
  byId("live").hidden = false;
  const at = momentAt(value);
  scrubbing = setTimeout(() => lookAt(at).catch((error) => say(byId("history-said"), error.message)), SCRUB_MS);
}

async function lookAt(at) {
  const mine = (asked += 1);
  const { shown, then } = await history.around(at);
  const reported = then && now.state?.baseline ? await history.basinOf(then) : null;
  if (mine !== asked) return; // the slider has moved on
  const state = reported ? { ...basin.compared(now.state, reported), distance: then.basin_drift } : null;
  past = { at, shown, then, state };
  document.body.classList.add("past");
  showFigures();
  showBasin();
  draw();
}

function toNow() {
  asked += 1;
  past = null;
  byId("moment").value = SLIDER;
  byId("live").hidden = true;
  document.body.classList.remove("past");
  showFigures();
  showBasin();
  draw();
}

const EVENTS = {
  snapshot: (snapshot) => {
    history.add(snapshot);
    tick();
    if (!past) showFigures();
    draw();
    freshenSoon();
  },
  health: showHealth,
  patches: (found) => {
    const before = byId("waiting-title").textContent;
    patches.show(found, announce);
    const after = byId("waiting-title").textContent;
    if (!byId("waiting").hidden && after !== before) announce(after);
    freshenSoon();
  },
};

async function start() {
  byId("access").hidden = true;
  following?.abort();
  following = new AbortController();
  const { signal } = following;
  try {
    // The status is open to all, and shown while the other asks for a token where one is needed.
    [now.state] = await Promise.all([get("state"), askHealth().then(showHealth)]);
    await history.load();
    tick();
    draw();
    if (now.health.metrics === undefined) showHealth(await askHealth());
    else showFigures();
    await Promise.all([freshen(now.state), loadPatches()]);
    await follow({ on: (event, data) => EVENTS[event]?.(data), state: connection, catchUp, signal });
  } catch (error) {
    if (signal.aborted) return;
    say(byId("access-why"), error.message);
    byId("access").hidden = false;
    byId("enter").hidden = error.status === 403;
    say(byId("link-state"), "Not connected");
    if (!(error instanceof Failed) || error.status >= 500 || error.status === 429) {
      setTimeout(start, 1000 * Math.max(10, error.retryAfter ?? 0));
    }
  }
}

charts.frames(() => history.last && draw()); // else the first data would wait out the pause of an empty drawing
healing(() => loadPatches().catch(() => {}));
byId("enter").addEventListener("click", start);
byId("forget").addEventListener("click", () => {
  forget();
  location.reload();
});
byId("moment").addEventListener("input", scrub);
byId("live").addEventListener("click", () => {
  byId("moment").value = SLIDER;
  byId("moment").focus();
  scrub();
});
byId("size").addEventListener("change", async () => {
  history = new History(Number(byId("size").value));
  await history.load();
  scrub();
});
byId("table-box").addEventListener("toggle", () => byId("table-box").open && table());
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
document.addEventListener("visibilitychange", () => document.hidden || draw());
setInterval(tick, 5000);
start();
