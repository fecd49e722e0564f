// The token box: what is typed goes to api.js (this tab only) and is tried on a read at once.

import { breakers, hasToken, onToken, setToken } from "../api.js";
import { mark, text } from "../dom.js";

/** @param {HTMLDetailsElement} root */
export function mount(root) {
  const summary = root.querySelector("summary");
  const form = root.querySelector("form");
  const input = root.querySelector("input");
  const answer = root.querySelector("[data-role=answer]");

  function show() {
    text(summary, hasToken() ? "Token in use" : "Read-only");
    mark(root, "set", hasToken());
    root.querySelector("[data-act=forget]").disabled = !hasToken();
  }

  function say(words, tone) {
    text(answer, words);
    mark(answer, "tone", tone);
  }

  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    if (!input.value.trim()) return say("Paste a token first.", "warn");
    setToken(input.value);
    input.value = "";
    say("Trying it…", null);
    try {
      await breakers();
      say("", null);
      root.open = false;
      summary.focus();
    } catch (error) {
      if (error.status === 401 || error.status === 403) setToken("");
      say(`Refused: ${error.message}`, "bad");
    }
  });
  root.querySelector("[data-act=forget]").addEventListener("click", () => {
    setToken("");
    say("Forgotten.", null);
  });
  root.addEventListener("toggle", () => root.open && input.focus());
  onToken(show);
  show();

  return {
    /** Opens the box and puts the cursor in it. */
    ask() {
      root.open = true;
      input.focus();
    },
    /** Closes the box; answers whether it was open. */
    close() {
      const was = root.open;
      root.open = false;
      if (was) summary.focus();
      return was;
    },
  };
}
