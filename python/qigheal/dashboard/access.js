// Requests and the tokens that they carry. A token is asked for once, kept for this tab alone, and sent in
// the Authorization header only: never in an address, where proxies and histories would keep it.

import { el } from "./text.js";

const KINDS = {
  read: ["Read token", "QIGHEAL_READ_TOKEN", "shows what the service recorded"],
  heal: ["Heal token", "QIGHEAL_TOKEN", "starts a healing pass"],
  review: ["Review token", "QIGHEAL_REVIEW_TOKEN", "approves or rejects a change"],
};

export class Failed extends Error {
  constructor(status, code, detail, retryAfter = null) {
    super(detail);
    this.status = status;
    this.code = code;
    this.retryAfter = retryAfter;
  }
}

// A sandboxed frame has no storage: its tokens last until it is loaded anew.
const memory = new Map();

function kept(kind) {
  try {
    return sessionStorage.getItem(`qigheal.${kind}`);
  } catch {
    return memory.get(kind) ?? null;
  }
}

function keep(kind, token) {
  try {
    if (token === null) sessionStorage.removeItem(`qigheal.${kind}`);
    else sessionStorage.setItem(`qigheal.${kind}`, token);
  } catch {
    if (token === null) memory.delete(kind);
    else memory.set(kind, token);
  }
}

export function forget() {
  for (const kind of Object.keys(KINDS)) keep(kind, null);
}

const asked = new Map(); // one dialog at a time for each kind, whoever asks

function ask(kind, wrong) {
  if (!asked.has(kind)) asked.set(kind, dialog(kind, wrong).finally(() => asked.delete(kind)));
  return asked.get(kind);
}

function dialog(kind, wrong) {
  const [title, variable, what] = KINDS[kind];
  const input = el("input", {
    id: `token-${kind}`, type: "password", required: true, autocomplete: "off", spellcheck: "false",
    "aria-describedby": `token-${kind}-hint`,
  });
  const box = el(
    "dialog",
    { class: "ask", "aria-labelledby": `token-${kind}-title` },
    el(
      "form",
      {
        onsubmit: (event) => {
          event.preventDefault();
          box.close(input.value.trim());
        },
      },
      el("h2", { id: `token-${kind}-title` }, title),
      wrong && el("p", { class: "fault", role: "alert" }, "That token was refused. Try again."),
      el("label", { for: input.id }, title),
      input,
      el("p", { id: `token-${kind}-hint`, class: "hint" }, `It ${what}: the service's ${variable}. Kept in this tab only.`),
      el(
        "div",
        { class: "row" },
        el("button", { class: "main" }, "Continue"),
        el("button", { type: "button", onclick: () => box.close("") }, "Cancel"),
      ),
    ),
  );
  const before = document.activeElement;
  document.body.append(box);
  return new Promise((resolve) => {
    box.addEventListener("close", () => {
      const token = box.returnValue;
      box.remove();
      before?.focus?.();
      resolve(printable(token) ? token : null);
    });
    box.showModal();
    input.focus();
  });
}

// A header takes no other characters; what has them is no token.
const printable = (text) => /^[\x21-\x7e]+$/.test(text);

// The answer, whatever its status; but where a token is missing or wrong it is asked for, and the request made
// again.
export async function request(path, { kind = "read", ...options } = {}) {
  for (;;) {
    const token = kept(kind);
    const headers = { Accept: "application/json", ...options.headers };
    if (token !== null) headers.Authorization = `Bearer ${token}`;
    const response = await fetch(path, { cache: "no-store", ...options, headers });
    if (!(await refused(response, token))) return response;
    if (kept(kind) !== token) continue; // another request was answered by a new token meanwhile
    if (token !== null) keep(kind, null);
    const given = await ask(kind, token !== null);
    if (given === null) throw new Failed(401, "unauthorized", `${KINDS[kind][0]} needed: none was given.`);
    keep(kind, given);
  }
}

// 403 with a token is one that gives another right; without any, that nobody set this up.
async function refused(response, token) {
  if (response.status === 401) return true;
  if (response.status !== 403 || token === null) return false;
  const said = await response.clone().json().catch(() => null);
  return said?.error === "forbidden";
}

async function failed(response) {
  const said = await response.json().catch(() => null);
  const detail = said?.detail ?? `The service answered ${response.status}.`;
  const after = Number(response.headers.get("Retry-After"));
  const text = typeof detail === "string" ? detail : JSON.stringify(detail);
  return new Failed(response.status, said?.error ?? "", text, after > 0 ? after : null);
}

export async function get(path, options = {}) {
  const response = await request(path, options);
  if (!response.ok) throw await failed(response);
  return response.json();
}

// 503 is how `health` says critical. Without a read token it says the status and no more.
export async function health(options = {}) {
  const response = await request("health", options);
  const said = await response.clone().json().catch(() => null);
  if (said?.status) return said;
  throw await failed(response);
}

export async function post(path, kind, body) {
  const response = await request(path, {
    kind,
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: body === undefined ? undefined : JSON.stringify(body),
  });
  if (!response.ok) throw await failed(response);
  return response.json();
}

const POLL_MS = [500, 1000, 1500, 2000, 3000];

// Asks for a job until it has ended; `told` hears each answer.
export async function finished(job, told = () => {}) {
  let now = job;
  for (let i = 0; now.state === "running"; i += 1) {
    told(now);
    await new Promise((resolve) => setTimeout(resolve, POLL_MS[Math.min(i, POLL_MS.length - 1)]));
    try {
      now = await get(`jobs/${encodeURIComponent(job.id)}`);
    } catch (error) {
      if (error instanceof Failed && error.status < 500 && error.status !== 429) throw error;
    }
  }
  return now;
}
