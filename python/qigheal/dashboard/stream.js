// What is new, as it is recorded: the stream of events where it can be had, else by asking now and then.
// It is read by fetch, since an EventSource cannot send a header.

import { Failed, request } from "./access.js";

const SILENCE_MS = 60_000; // the service writes a comment every few seconds
const LASTING_MS = 5000; // a stream that ended sooner was none
const LONGEST_WAIT_MS = 30_000;

// Calls on(event, data) for each event; state(name) with "live", "polling" or "lost" as it changes. `catchUp`
// asks for what was missed: after the stream was lost and found again, and instead of it while it is away.
export async function follow({ on, state, catchUp, signal }) {
  let failures = 0;
  for (;;) {
    let opened = Infinity;
    let ended = false;
    try {
      await once(on, () => {
        opened = performance.now();
        state("live");
        return failures > 0 ? catchUp() : undefined;
      }, signal);
      ended = true;
    } catch (error) {
      if (signal?.aborted) return;
      if (error instanceof Failed && (error.status === 401 || error.status === 403)) throw error;
    }
    const lasted = performance.now() - opened > LASTING_MS;
    failures = lasted ? 1 : failures + 1;
    if (ended && lasted && !signal?.aborted) continue; // the service ends each after a while: on with the next
    let asked = 0;
    if (failures > 1) {
      try {
        await catchUp();
        state("polling");
      } catch (error) {
        if (error instanceof Failed && (error.status === 401 || error.status === 403)) throw error;
        state("lost");
        asked = 1000 * (error.retryAfter ?? 0);
      }
    }
    const wait = Math.min(LONGEST_WAIT_MS, 500 * 2 ** Math.min(failures, 8)) * (0.75 + 0.5 * Math.random());
    await pause(Math.max(wait, asked), signal);
  }
}

function pause(ms, signal) {
  return new Promise((resolve) => {
    const done = () => {
      clearTimeout(timer);
      removeEventListener("online", done);
      resolve();
    };
    const timer = setTimeout(done, ms);
    addEventListener("online", done);
    signal?.addEventListener("abort", done);
  });
}

async function once(on, opened, signal) {
  const silent = new AbortController();
  const stop = () => silent.abort();
  signal?.addEventListener("abort", stop);
  let timer = setTimeout(stop, SILENCE_MS);
  try {
    const response = await request("stream", {
      headers: { Accept: "text/event-stream" },
      signal: silent.signal,
    });
    if (!response.ok) throw new Failed(response.status, "", "no stream");
    if (!response.headers.get("Content-Type")?.startsWith("text/event-stream")) {
      throw new Failed(response.status, "", "expected a stream of events");
    }
    const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
    await opened();
    const feed = parser(on);
    for (;;) {
      clearTimeout(timer);
      timer = setTimeout(stop, SILENCE_MS);
      const { value, done } = await reader.read();
      if (done) return;
      feed(value);
    }
  } finally {
    clearTimeout(timer);
    signal?.removeEventListener("abort", stop);
    silent.abort();
  }
}

function parser(on) {
  let rest = "";
  return (text) => {
    const lines = (rest + text).replaceAll("\r\n", "\n").split("\n\n");
    rest = lines.pop();
    for (const block of lines) {
      let event = "message";
      const data = [];
      for (const line of block.split("\n")) {
        if (line.startsWith("event:")) event = line.slice(6).trim();
        else if (line.startsWith("data:")) data.push(line.slice(5).trimStart());
      }
      if (data.length) on(event, JSON.parse(data.join("\n")));
    }
  };
}
