// Changes that wait for a person, with what speaks for them and the buttons that decide; and all others.

import { Failed, finished, get, post } from "./access.js";
import { diff, facts, judged, scored } from "./proof.js";
import { byId, el, moment, say } from "./text.js";

const OTHER = new Set(["changed", "not_waiting"]); // what a review is refused with when it came too late
const FIRST = 8; // of those that wait for nobody
const shown = new Map(); // id → { key, node }: what a person has opened or typed into stays as it is
let all = false;
let reviewer = "";

// `notes`: what is wrong with the ledger itself, such as a broken chain.
export function show({ patches, notes }, announce = () => {}) {
  byId("patches-notes").replaceChildren(...(notes ?? []).map((note) => el("li", { class: "critical" }, el("span", { class: "tag" }, "ledger"), " ", note)));
  const waiting = patches.filter((patch) => patch.waits_for_review);
  const others = patches.filter((patch) => !patch.waits_for_review);
  byId("waiting").hidden = !waiting.length;
  say(byId("waiting-title"), waiting.length === 1 ? "1 change waits for your review" : `${waiting.length} changes wait for your review`);
  place(byId("waiting-list"), waiting.map((patch) => item(patch, announce)));
  place(byId("patch-list"), others.slice(0, all ? Infinity : FIRST).map((patch) => item(patch, announce)));
  say(byId("patches-none"), others.length ? "" : "No other patch was measured or applied yet.");
  const more = byId("patches-more");
  more.hidden = all || others.length <= FIRST;
  say(more, `Show all ${others.length}`);
  more.onclick = () => {
    all = true;
    show({ patches, notes }, announce);
    byId("patch-list").querySelectorAll("summary")[FIRST]?.focus();
  };
  for (const id of shown.keys()) if (!patches.some((patch) => patch.id === id)) shown.delete(id);
}

// Moves nodes only where they stand elsewhere: one that is moved loses its focus.
function place(list, nodes) {
  for (const node of [...list.children]) if (!nodes.includes(node)) node.remove();
  nodes.forEach((node, i) => list.children[i] !== node && list.insertBefore(node, list.children[i] ?? null));
}

function item(patch, announce) {
  const key = JSON.stringify([patch.state, patch.waits_for_review, patch.decision, patch.fitness, patch.reviewer]);
  const before = shown.get(patch.id);
  if (before?.key === key) return before.node;
  const inside = el("div", { class: "inside" });
  const box = el(
    "details",
    {},
    el(
      "summary",
      {},
      el("span", { class: `tag ${patch.state === "confirmed" ? "good" : ""}` }, patch.waits_for_review ? "open" : patch.state.replaceAll("_", " ")),
      el("span", { class: "title" }, patch.rationale || patch.strategy),
      el("span", { class: "dim" }, [patch.strategy, `tier ${patch.tier}`, patch.files.join(", "), scored(patch.fitness), moment(patch.at)].filter(Boolean).join(" · ")),
    ),
    inside,
  );
  const load = () => box.open && fill(patch.id, inside, announce);
  box.addEventListener("toggle", load);
  const node = el("li", { "data-id": patch.id }, box);
  shown.set(patch.id, { key, node });
  if (before?.node.querySelector("details").open) {
    box.open = true; // which lets the toggle event load it
    if (before.node.contains(document.activeElement)) setTimeout(() => box.querySelector("summary").focus());
  }
  return node;
}

async function fill(id, inside, announce, said = "") {
  if (!inside.childElementCount) inside.replaceChildren(el("p", { class: "dim" }, "Loading what was measured ..."));
  try {
    const detail = await get(`patches/${encodeURIComponent(id)}`);
    inside.replaceChildren(
      ...[
        said && el("p", { class: "fault", role: "alert" }, said),
        ...judged(detail),
        el("h3", {}, "Diff"),
        diff(detail.patch.diff),
        facts(detail),
        detail.waits_for_review && form(detail, inside, announce),
      ].filter(Boolean),
    );
  } catch (error) {
    inside.replaceChildren(el("p", { class: "fault", role: "alert" }, error.message));
  }
}

function form(detail, inside, announce) {
  const id = detail.fingerprint;
  const name = el("input", { id: `reviewer-${id}`, value: reviewer, required: true, maxlength: "200", autocomplete: "name" });
  const reason = el("textarea", { id: `reason-${id}`, maxlength: "2000", rows: "2" });
  const outcome = el("p", { class: "outcome", role: "status" });
  const buttons = [
    el("button", { type: "submit", value: "approve", class: "main" }, "Approve"),
    el("button", { type: "submit", value: "reject", class: "danger" }, "Reject"),
  ];
  const what = detail.change
    ? `Approving merges it into ${detail.change.target} and deploys it as the manifest says; it is taken back if the live service gets worse. A rejected change is not proposed again until the code that it touches changes.`
    : "Nothing is merged: your word counts for the gate to the next phase. A rejected patch is not proposed again.";
  return el(
    "form",
    {
      class: "review",
      onsubmit: async (event) => {
        event.preventDefault();
        const approve = event.submitter?.value !== "reject";
        reviewer = name.value.trim();
        if (!reviewer) return name.focus();
        for (const button of buttons) button.disabled = true;
        try {
          const body = { approve, fingerprint: detail.fingerprint, reviewer, reason: reason.value };
          say(outcome, approve ? "Approving ..." : "Rejecting ...");
          const job = await finished(await post(`patches/${encodeURIComponent(detail.id)}/review`, "review", body));
          const result = job.state === "done" ? job.message || "Done." : `The review failed: ${job.message}`;
          say(outcome, result);
          announce(result, true);
          if (job.state === "done") return;
        } catch (error) {
          if (error instanceof Failed && OTHER.has(error.code)) {
            return fill(detail.id, inside, announce, `Nothing was decided. This change has become another since you opened it (${error.message}). What stands below is how it is now: look at it again.`);
          }
          say(outcome, `Nothing was decided. ${error.message}`);
        }
        for (const button of buttons) button.disabled = false;
      },
    },
    el("h3", {}, "Your decision"),
    el("p", { class: "hint" }, what),
    el("label", { for: name.id }, "Your name"),
    name,
    el("label", { for: reason.id }, "Reason"),
    reason,
    el("div", { class: "row" }, buttons),
    outcome,
  );
}
