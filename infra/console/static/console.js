// What HTML and htmx do not: push, times in the reader's timezone, the theme, and forms that are sent once.
(() => {
  // ── push: the server says that something changed, and the page asks for itself again ──
  const watch = document.body.dataset.watch;
  let source = null;

  function show(state, text) {
    const live = document.getElementById("live");
    if (!live || live.dataset.state === state) return;
    live.dataset.state = state;
    live.lastElementChild.textContent = text;
  }

  function refresh() {
    htmx.trigger(document.body, "changed");
  }

  // A line that the server refuses has no answer that a script could read: it is asked for once more, to hear why.
  async function refused(place) {
    const stop = new AbortController();
    try {
      const answer = await fetch(place, { headers: { "hx-request": "true" }, signal: stop.signal });
      if (answer.status === 429) {
        show("full", "not live");
        tell("This page does not keep itself up to date. " + await answer.text() + ".");
        return Number(answer.headers.get("retry-after")) || 3;
      }
    } catch { /* it is away: then it is asked again soon */ } finally {
      stop.abort();
    }
    return 3;
  }

  function tell(text) {
    let said = document.getElementById("not-live");
    if (said && !text) said.remove();
    if (!text) return;
    if (!said) {
      said = document.createElement("p");
      said.id = "not-live";
      said.className = "problem";
      said.setAttribute("role", "status");
      document.getElementById("main").prepend(said);
    }
    said.textContent = text;
  }

  function listen() {
    if (!watch || source || document.hidden) return;
    const place = "/console/changes?watch=" + encodeURIComponent(watch) + "&since=" + document.body.dataset.since;
    source = new EventSource(place);
    source.addEventListener("open", () => {
      show("live", "live");
      tell("");
    });
    source.addEventListener("changed", refresh);
    source.addEventListener("error", () => {
      show("away", "reconnecting");
      if (source.readyState === EventSource.CLOSED) {
        source = null;
        refused(place).then((seconds) => setTimeout(listen, 1000 * seconds));
      }
    });
  }

  // Browsers allow six lines to a server: tabs that nobody looks at leave theirs to others.
  document.addEventListener("visibilitychange", () => {
    if (document.hidden) {
      if (source) source.close();
      source = null;
      show("waiting", "paused");
    } else {
      listen();
      if (watch) refresh();
    }
  });

  // ── a page that is replaced keeps what its reader did: opened details, what was typed or chosen; and what was said ──
  function touched(node) {
    if (node.tagName === "SELECT") {
      const given = [...node.options].findIndex((option) => option.defaultSelected);
      return node.selectedIndex !== Math.max(0, given);
    }
    if (node.tagName === "TEXTAREA") return node.value !== node.defaultValue;
    if (node.tagName !== "INPUT") return false;
    return node.checked !== node.defaultChecked || (node.type !== "hidden" && node.value !== node.defaultValue);
  }

  Idiomorph.defaults.ignoreActiveValue = true;
  Idiomorph.defaults.callbacks = Object.assign({}, Idiomorph.defaults.callbacks, {
    beforeNodeMorphed: (node) => !touched(node),
    // what is said once, and what it tells of comes by push at once; and a ticked row that newer ones push off the page
    beforeNodeRemoved: (node) => node.id !== "notice" && !(node.tagName === "TR" && node.querySelector("input:checked")),
    beforeAttributeUpdated: (name, node) => !(name === "open" && node.tagName === "DETAILS"),
  });

  // ── times ──
  const two = (number) => String(number).padStart(2, "0");

  function text(moment, local) {
    const part = (name) => moment[(local ? "get" : "getUTC") + name]();
    return `${part("FullYear")}-${two(part("Month") + 1)}-${two(part("Date"))} ` +
      `${two(part("Hours"))}:${two(part("Minutes"))}:${two(part("Seconds"))}`;
  }

  const zone = Intl.DateTimeFormat().resolvedOptions().timeZone || "local";

  function times() {
    const local = localStorage.getItem("headrace-times") === "local";
    const button = document.getElementById("times");
    button.textContent = local ? zone : "UTC";
    for (const element of document.querySelectorAll("time[datetime]")) {
      const moment = new Date(element.dateTime);
      if (Number.isNaN(moment.getTime())) continue;
      element.textContent = text(moment, local);
      element.title = text(moment, !local) + " " + (local ? "UTC" : zone);
    }
  }

  // ── theme ──
  const themes = ["auto", "light", "dark"];

  function theme() {
    const chosen = localStorage.getItem("headrace-theme") || "auto";
    document.getElementById("theme").textContent = chosen[0].toUpperCase() + chosen.slice(1);
    if (chosen === "auto") delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = chosen;
  }

  document.addEventListener("click", (event) => {
    const button = event.target.closest("button");
    if (!button) return;
    if (button.id === "times") {
      localStorage.setItem("headrace-times", localStorage.getItem("headrace-times") === "local" ? "utc" : "local");
      times();
    } else if (button.id === "theme") {
      const now = localStorage.getItem("headrace-theme") || "auto";
      localStorage.setItem("headrace-theme", themes[(themes.indexOf(now) + 1) % themes.length]);
      theme();
    }
  });

  // ── a move is asked for once, however often the button is pressed ──
  document.addEventListener("submit", (event) => {
    if (event.target.method !== "post") return;
    for (const button of event.target.querySelectorAll("button")) {
      button.setAttribute("aria-busy", "true");
      setTimeout(() => { button.disabled = true; });
    }
  });
  window.addEventListener("pageshow", () => {
    for (const button of document.querySelectorAll("button[aria-busy]")) {
      button.removeAttribute("aria-busy");
      button.disabled = false;
    }
  });

  // ── a choice is a link: the page of what was chosen ──
  document.addEventListener("change", (event) => {
    if (event.target.matches("select[data-submits]")) event.target.form.requestSubmit();
  });

  // ── what grows at its end is followed, until its reader scrolls up ──
  const left = new WeakSet();

  document.addEventListener("scroll", (event) => {
    const box = event.target;
    if (box === document || !box.matches("[data-follow]")) return;
    if (box.scrollTop + box.clientHeight >= box.scrollHeight - 8) left.delete(box);
    else left.add(box);
  }, true);

  function follow() {
    for (const box of document.querySelectorAll("[data-follow]")) if (!left.has(box)) box.scrollTop = box.scrollHeight;
  }

  document.addEventListener("htmx:afterSettle", times);
  document.addEventListener("htmx:afterSettle", follow);
  document.addEventListener("htmx:responseError", () => show("away", "not up to date"));
  document.addEventListener("htmx:sendError", () => show("away", "not up to date"));
  document.addEventListener("htmx:afterRequest", (event) => {
    if (event.detail.successful && source && source.readyState === EventSource.OPEN) show("live", "live");
  });
  theme();
  times();
  follow();
  listen();
})();
