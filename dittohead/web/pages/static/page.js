// What every page does: moments in the reader's zone, and parts that stay up to date.

const wanted = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "medium" });
const short = new Intl.DateTimeFormat(undefined, { timeStyle: "medium" });

// How long ago, in one unit, as the daemon says it too.
function age(seconds) {
  if (seconds < 1) return "now";
  for (const [unit, length] of [["d", 86400], ["h", 3600], ["min", 60]]) {
    if (seconds >= length) return `${Math.floor(seconds / length).toLocaleString("en")} ${unit} ago`;
  }
  return `${Math.floor(seconds)} s ago`;
}

function grow(within) {
  for (const time of within.querySelectorAll("time.age")) {
    const text = age((Date.now() - new Date(time.dateTime)) / 1000);
    if (time.textContent !== text) time.textContent = text;
  }
}

export function localise(within) {
  for (const time of within.querySelectorAll("time.age")) time.title = wanted.format(new Date(time.dateTime));
  grow(within);
  const today = new Date().toDateString();
  for (const time of within.querySelectorAll("time[datetime]:not([title], .age)")) {
    const at = new Date(time.dateTime);
    if (Number.isNaN(at.getTime())) continue;
    time.title = time.textContent;
    time.textContent = at.toDateString() === today ? short.format(at) : wanted.format(at);
  }
}

// Make one element like another, keeping what is already there: focus, scroll and what was opened stay.
function become(old, fresh) {
  for (const { name } of [...old.attributes]) {
    if (!fresh.hasAttribute(name) && !(name === "open" && old.localName === "details")) old.removeAttribute(name);
  }
  for (const { name, value } of fresh.attributes) {
    if (old.getAttribute(name) !== value) old.setAttribute(name, value);
  }
  const keyed = new Map();
  for (const child of old.children) if (child.id) keyed.set(child.id, child);
  const kept = new Set([...fresh.children].map((child) => child.id).filter(Boolean));
  let at = old.firstChild;
  for (const next of [...fresh.childNodes]) {
    const like = counterpart(next, at, keyed);
    if (!like) {
      old.insertBefore(next, at);
      continue;
    }
    // What stands between is gone, or comes later: it is that which moves, never what may have the focus.
    while (at && at !== like && like.compareDocumentPosition(at) & Node.DOCUMENT_POSITION_PRECEDING) {
      const between = at;
      at = at.nextSibling;
      if (!kept.has(between.id)) between.remove();
    }
    if (like === at) at = at.nextSibling;
    else old.insertBefore(like, at);
    if (like.nodeType === Node.TEXT_NODE) {
      if (like.data !== next.data) like.data = next.data;
    } else if (like.nodeType === Node.ELEMENT_NODE && !like.isEqualNode(next)) become(like, next);
  }
  while (at) {
    const gone = at;
    at = at.nextSibling;
    gone.remove();
  }
}

// The node of the old page that stands for one of the new: by its id, or the nearest of its kind from here on.
function counterpart(next, at, keyed) {
  const alike = (node) => node.nodeType === next.nodeType && node.nodeName === next.nodeName;
  if (next.id) {
    const known = keyed.get(next.id);
    return known && alike(known) ? known : null;
  }
  if (next.nodeType !== Node.ELEMENT_NODE) return at && alike(at) ? at : null;
  for (let node = at; node; node = node.nextSibling) {
    if (alike(node) && !node.id && node.className === next.className) return node;
  }
  return null;
}

function apply({ id, html }) {
  const old = document.getElementById(id);
  if (!old) return;
  const box = document.createElement("template");
  box.innerHTML = html;
  const fresh = box.content.firstElementChild;
  localise(fresh);
  become(old, fresh);
  if (old.dataset.title) document.title = old.dataset.title;
}

function listen(address) {
  const told = document.getElementById("link-state");
  const source = new EventSource(address);
  source.addEventListener("fragment", (event) => apply(JSON.parse(event.data)));
  source.addEventListener("open", () => {
    told.hidden = true;
    document.body.dataset.live = "yes";
  });
  source.addEventListener("error", () => {
    told.hidden = false;
    document.body.dataset.live = "no";
    // A refusal ends it permanently; it may pass, as when the daemon starts again behind a proxy.
    if (source.readyState === EventSource.CLOSED) setTimeout(() => listen(address), 5000);
  });
  window.addEventListener("pagehide", () => source.close(), { once: true });
}

window.addEventListener("pageshow", (event) => {
  if (event.persisted) window.location.reload();
});

localise(document);
setInterval(() => grow(document), 1000);
const address = document.body.dataset.events;
if (address) listen(address);
// The answer to a button is said once: a reload is not to ask for it again.
if (new URLSearchParams(window.location.search).has("said")) {
  const clean = new URL(window.location.href);
  clean.searchParams.delete("said");
  window.history.replaceState(null, "", clean);
}
