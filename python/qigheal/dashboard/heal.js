// The button that starts a healing pass, and what came of it.

import { finished, post } from "./access.js";
import { byId, say } from "./text.js";

// `after` is called once the pass has ended: changes may have been opened.
export function healing(after = () => {}) {
  const button = byId("heal");
  const outcome = byId("heal-outcome");
  button.addEventListener("click", async () => {
    button.disabled = true;
    try {
      const begun = await post("heal", "heal");
      if (!begun.job) {
        say(outcome, begun.message || "Nothing to heal.");
        return;
      }
      say(outcome, begun.message || "A healing pass runs: it may take minutes.");
      const job = await finished(begun.job);
      say(outcome, job.state === "done" ? job.message || "The healing pass has ended." : `The healing pass failed: ${job.message}`);
      after();
    } catch (error) {
      say(outcome, error.message);
    } finally {
      button.disabled = false;
    }
  });
}
