"use strict";
// The server renders the page; this only asks for it again when something happened, and says when it cannot.
const SOON_MS = 400, RETRY_MS = 3000, EVERY_MS = 20000, KEY = "fleet-token";
let pending = 0, last = "", shownAt = performance.now(), shownHtml = document.querySelector("main").innerHTML;

function headers(more) {
  const token = sessionStorage.getItem(KEY);
  return token ? { ...more, Authorization: `Bearer ${token}` } : more;
}

function show(state, text) {
  const link = document.getElementById("link");
  if (link) { link.dataset.state = state; link.textContent = text; }
  const main = document.querySelector("main");
  if (main) main.dataset.state = state;
}

async function refresh() {
  pending = 0;
  let answer;
  try {
    answer = await fetch(location.pathname + location.search, { headers: headers({}) });
  } catch {
    return show("lost", "no connection: what you see is old");
  }
  const page = new DOMParser().parseFromString(await answer.text(), "text/html");
  const main = page.querySelector("main");
  if (!main) return show("lost", `the hub answered ${answer.status}: what you see is old`);
  if (document.activeElement && document.activeElement.matches("main input")) return;
  // what is being typed is not in the markup: a page that says the same is left alone
  const shown = document.querySelector("main"), html = main.innerHTML;
  if (html !== shownHtml) shown.replaceWith(document.adoptNode(main));
  else shown.dataset.now = main.dataset.now;
  shownHtml = html;
  shownAt = performance.now();
  tick();
  const facts = page.querySelector("header .faint");
  if (facts) document.querySelector("header .faint").replaceWith(document.adoptNode(facts));
  if (answer.ok) show("live", "live");
}

// What is left of a gate goes on between two pages, by the hub's clock: that of the page, and what went by since.
function words(left) {
  const s = Math.ceil(left / 1000);
  for (const [unit, length] of [["d", 86400], ["h", 3600], ["m", 60]]) {
    if (s >= length) {
      const rest = unit === "m" ? `${s % 60}s` : "";
      return `${Math.floor(s / length)}${unit}${rest}`;
    }
  }
  return s > 0 ? `${s}s` : "now";
}

function tick() {
  const now = Date.parse(document.querySelector("main").dataset.now) + performance.now() - shownAt;
  for (const time of document.querySelectorAll("time[data-at]")) {
    const left = Date.parse(time.dataset.at) - now;
    if (left <= 0 && time.textContent !== "now") soon();  // a gate opened: no event says so
    time.textContent = words(left);
  }
}

function soon() {
  if (!pending) pending = setTimeout(refresh, SOON_MS);
}

async function follow() {
  const more = last ? { "Last-Event-ID": last } : {};
  const answer = await fetch("/api/v1/events", { headers: headers({ ...more, Accept: "text/event-stream" }) });
  if (!answer.ok) throw new Error(answer.status);
  soon();
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  for (let rest = ""; ;) {
    const { done, value } = await reader.read();
    if (done) return;
    const lines = (rest + value).split("\n");
    rest = lines.pop();
    for (const line of lines) {
      if (line.startsWith("id: ")) last = line.slice(4);
      if (line.startsWith("data: ")) soon();
    }
  }
}

async function keepFollowing() {
  for (;;) {
    try { await follow(); } catch { /* said by the next refresh */ }
    await new Promise((done) => setTimeout(done, RETRY_MS));
    soon();
  }
}

document.addEventListener("submit", (event) => {
  if (event.target.id !== "sign-in") return;
  event.preventDefault();
  sessionStorage.setItem(KEY, event.target.elements.token.value.trim());
  document.activeElement.blur();
  refresh();
});

setInterval(tick, 1000);
setInterval(soon, EVERY_MS);
if (sessionStorage.getItem(KEY)) soon();
keepFollowing();
