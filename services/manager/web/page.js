// Keeps the page fresh: an event says that there is something new, and the page is asked for again, at most once a second. What has
// not changed stays as it is, so that text can be selected. All text was escaped by the server; nothing here makes markup of data.
"use strict";

const live = document.querySelector("#live");
const filter = document.querySelector("#filter");
const search = filter.querySelector("input");
let timer = null;

function later(milliseconds) {
  timer ??= setTimeout(refresh, milliseconds);
}

async function refresh() {
  try {
    if (!document.hidden) {
      const answer = await fetch("/");
      if (answer.ok) {
        show(new DOMParser().parseFromString(await answer.text(), "text/html"));
      }
    }
  } catch {
    // The manager is away: the event stream says so, and comes back by itself.
  } finally {
    timer = null;
  }
}

function show(fresh) {
  for (const id of ["summary", "monitors"]) {
    document.getElementById(id).replaceWith(fresh.getElementById(id));
  }
  const table = document.querySelector("#checks");
  const old = [...table.tBodies];
  const now = [...fresh.querySelector("#checks").tBodies];
  if (old.length !== now.length || old.some((body, at) => body.dataset.check !== now[at].dataset.check)) {
    old.forEach((body) => body.remove());
    table.append(...now);
  } else {
    old.forEach((body, at) => renew(body, now[at]));
  }
  select();
}

function renew(body, now) {
  if (body.dataset.version !== now.dataset.version) {
    body.replaceWith(now);
    return;
  }
  const ages = now.querySelectorAll(".age");
  body.querySelectorAll(".age").forEach((age, at) => (age.textContent = ages[at].textContent));
}

function select() {
  const wanted = search.value.toLowerCase();
  for (const body of document.querySelector("#checks").tBodies) {
    body.hidden = !body.textContent.toLowerCase().includes(wanted);
  }
}

function say(on, text) {
  live.className = on ? "on" : "off";
  live.textContent = text;
}

const events = new EventSource("/api/events");
events.onopen = () => say(true, "live");
events.onerror = () => say(false, "no connection to the manager");
events.addEventListener("result", () => later(1000));
events.addEventListener("missed", () => later(1000));
// Ages grow, and what is said becomes old, also when nothing happens.
setInterval(() => later(0), 5000);
document.addEventListener("visibilitychange", () => later(0));
search.addEventListener("input", select);
filter.hidden = false;
