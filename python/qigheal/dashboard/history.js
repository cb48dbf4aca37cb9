// The snapshots that the charts show: the newest, kept up to date, or those around a moment of the past.

import { get } from "./access.js";
import { spacing } from "./charts.js";

export const PAGE = 1000; // the most that one answer holds

const page = (query) => get(`snapshots?${new URLSearchParams(query)}`);

export class History {
  constructor(size) {
    this.size = size; // snapshots shown at most
    this.newest = []; // oldest first
    this.first = null; // when the oldest that is stored was recorded
  }

  get interval() {
    return spacing(this.newest.slice(-PAGE));
  }

  get last() {
    return this.newest.at(-1) ?? null;
  }

  async load() {
    const [newest, oldest] = await Promise.all([page({ limit: Math.min(PAGE, this.size) }), page({ limit: 1, since: 0 })]);
    this.newest = newest.snapshots;
    this.first = oldest.snapshots[0]?.timestamp ?? this.last?.timestamp ?? null;
    if (this.size > PAGE && this.newest.length === PAGE) await this.extend();
  }

  // What is older than the newest page can only be reached from its beginning, which is guessed.
  async extend() {
    const known = this.newest[0].timestamp;
    const begin = Math.max(this.first, known - 1.05 * (this.size - PAGE) * this.interval);
    const older = await this.pages(begin, this.size - PAGE, known);
    this.newest = [...older, ...this.newest].slice(-this.size);
  }

  async pages(since, most, until = Infinity) {
    const found = [];
    let from = Math.max(0, since - 1e-3);
    let skip = 0;
    for (let asked = 0; asked <= most / PAGE + 1 && found.length < most; asked += 1) {
      const { snapshots, next_since: next, next_skip: told } = await page({ limit: PAGE, since: from, skip });
      found.push(...snapshots.filter((snapshot) => snapshot.timestamp < until));
      if (next === null || snapshots.length < PAGE || snapshots.at(-1).timestamp >= until) break;
      from = next;
      skip = told;
    }
    return found;
  }

  add(snapshot) {
    const last = this.last;
    if (last && snapshot.timestamp < last.timestamp && this.newest.some((kept) => same(kept, snapshot))) return;
    if (last && same(last, snapshot)) return;
    this.newest.push(snapshot);
    if (last && snapshot.timestamp < last.timestamp) this.newest.sort((a, b) => a.timestamp - b.timestamp);
    if (this.newest.length > this.size) this.newest.shift();
    this.first ??= snapshot.timestamp;
  }

  async catchUp() {
    if (!this.last) return this.load();
    const { snapshots } = await page({ limit: PAGE, since: this.last.timestamp });
    if (snapshots.length === PAGE) return this.load();
    for (const snapshot of snapshots) this.add(snapshot);
  }

  // The snapshots around a moment, and the one that was the newest then.
  async around(at) {
    const before = (this.size / 2) * (this.interval || 0);
    let shown = await this.pages(Math.max(this.first ?? 0, at - before), this.size);
    if (!shown.length || shown.at(-1).timestamp < at) shown = await this.pages(at, this.size);
    const then = shown.filter((snapshot) => snapshot.timestamp <= at).at(-1) ?? shown[0] ?? null;
    return { shown, then };
  }

  async basinOf(snapshot) {
    const { snapshots } = await page({ limit: 1, since: snapshot.timestamp - 1e-3, basins: true });
    return snapshots[0]?.basin ?? null;
  }
}

const same = (a, b) => a.timestamp === b.timestamp && a.phi === b.phi && a.kappa_eff === b.kappa_eff && a.basin_drift === b.basin_drift;
