// The form for uploads: folders dragged in, files in pieces, taken up where they were broken off.

import { size } from "./units.js";

const form = document.getElementById("drop");
const at = (id) => document.getElementById(id);
const csrf = form.elements.csrf.value;
const TRIES = 6;
const SHOWN = 100;
const LANES = 4;
const LONGEST_S = 360000; // what would take longer has hardly begun

let chosen = []; // {path, file}
let taken = null; // the id of an upload that is taken up
let stopped = false;

// The browser asks before the page is left, but only while bytes are on their way.
const askFirst = (leaving) => leaving.preventDefault();
const hold = () => window.addEventListener("beforeunload", askFirst);
const release = () => window.removeEventListener("beforeunload", askFirst);

function lasting(seconds) {
  if (seconds < 100) return `${Math.ceil(seconds)} s`;
  return seconds < 6000 ? `${Math.ceil(seconds / 60)} min` : `${(seconds / 3600).toFixed(1)} h`;
}

function tell(id, text, kind = "") {
  at(id).textContent = text;
  at(id).className = `tells ${kind}`;
}

// -- its name ----------------------------------------------------------------------------------

// Whether it was done before, and a name like it that is free.
function before({ known, free }) {
  const said = [];
  if (known) {
    const link = document.createElement("a");
    link.href = `/jobs/${known.job}`;
    link.textContent = known.said;
    const time = document.createElement("time");
    time.className = "age";
    time.dateTime = known.at;
    time.title = time.textContent = new Date(known.at).toLocaleString(); // the page's script says how long ago
    said.push(link, ", ", time, ". It would become another job. ");
  }
  if (free) {
    const use = document.createElement("button");
    use.type = "button";
    use.textContent = `Use ${free}`;
    use.addEventListener("click", () => {
      form.elements.name.value = free;
      form.elements.name.focus();
      match();
    });
    said.push("This name is free: ", use);
  }
  at("known").replaceChildren(...said);
}

let asked = 0;
async function match() {
  const name = form.elements.name.value;
  const mine = ++asked;
  if (!name || taken) {
    before({});
    return tell("match", "");
  }
  const answer = await fetch(`/drop/match?${new URLSearchParams({ name })}`).catch(() => null);
  if (!answer || !answer.ok || mine !== asked) return;
  const said = await answer.json();
  before(said);
  if (!said.ok) return tell("match", `${said.what}. ${said.hint}`, "bad");
  tell("match", `Pipeline ${said.pipeline}: ${said.steps.join(", ")}`, "good");
  for (const box of form.querySelectorAll("[name=purposes]")) {
    box.disabled = !said.purposes.includes(box.value);
    if (box.disabled) box.checked = false;
  }
}
let typing;
form.elements.name.addEventListener("input", () => {
  clearTimeout(typing);
  typing = setTimeout(match, 150);
});

// -- its files ---------------------------------------------------------------------------------

async function* walk(entry, prefix) {
  if (entry.isFile) {
    const file = await new Promise((good, bad) => entry.file(good, bad));
    yield { path: prefix + entry.name, file };
    return;
  }
  const reader = entry.createReader();
  for (;;) {
    // It gives a hundred at a time, and none at the end.
    const found = await new Promise((good, bad) => reader.readEntries(good, bad));
    if (!found.length) return;
    for (const inner of found) yield* walk(inner, `${prefix}${entry.name}/`);
  }
}

function choose(found, name = "") {
  // A folder that holds all there is gives its name, and is not repeated within.
  const tops = new Set(found.map(({ path }) => (path.includes("/") ? path.slice(0, path.indexOf("/")) : "")));
  const [top] = tops;
  if (tops.size === 1 && top) {
    found = found.map(({ path, file }) => ({ path: path.slice(top.length + 1), file }));
    name = name || top;
  }
  chosen = found;
  if (name && !form.elements.name.value) {
    form.elements.name.value = name;
    match();
  }
  const bytes = found.reduce((sum, { file }) => sum + file.size, 0);
  tell("chosen", found.length ? `${found.length.toLocaleString()} ${found.length === 1 ? "file" : "files"}, ${size(bytes)}` : "No files.");
}

for (const id of ["tree", "files"]) {
  at(id).addEventListener("change", () => {
    at(id === "tree" ? "files" : "tree").value = "";
    choose([...at(id).files].map((file) => ({ path: file.webkitRelativePath || file.name, file })));
  });
}

const zone = at("zone");
at("zone-text").hidden = false;
zone.addEventListener("dragover", (event) => {
  event.preventDefault();
  zone.classList.add("over");
});
zone.addEventListener("dragleave", () => zone.classList.remove("over"));
zone.addEventListener("drop", async (event) => {
  event.preventDefault();
  zone.classList.remove("over");
  const entries = [...event.dataTransfer.items].map((item) => item.webkitGetAsEntry()).filter(Boolean);
  tell("chosen", "Looking through it…");
  try {
    const found = [];
    for (const entry of entries) for await (const one of walk(entry, "")) found.push(one);
    choose(found);
  } catch (error) {
    tell("chosen", `This cannot be read: ${error.message}`, "bad");
  }
});

// -- the way there -----------------------------------------------------------------------------

class Refused extends Error {}

async function ask(path, method, body, headers = {}) {
  const answer = await fetch(path, { method, body, headers: { "X-CSRF-Token": csrf, ...headers } });
  if (answer.ok) return answer.json();
  const said = await answer.json().catch(() => ({ detail: `answer ${answer.status}` }));
  const words = [said.detail, said.hint].filter(Boolean).join(". ") || `answer ${answer.status}`;
  // What may pass is tried again; what was refused stays so.
  const passes = answer.status === 408 || (answer.status >= 500 && answer.status !== 507);
  throw passes ? new Error(words) : new Refused(words);
}

async function patiently(work) {
  for (let tries = 1; ; tries++) {
    try {
      return await work();
    } catch (error) {
      if (error instanceof Refused || tries >= TRIES || stopped) throw error;
      tell("told", `Interrupted; trying again. ${error.message}`, "bad");
      await new Promise((on) => setTimeout(on, Math.min(500 * 2 ** tries, 15000)));
    }
  }
}

async function digest(buffer) {
  // Browsers count SHA-256 on pages of https and of this host only.
  if (!window.crypto.subtle) return {};
  const found = new Uint8Array(await window.crypto.subtle.digest("SHA-256", buffer));
  return { "Content-Digest": `sha-256=:${btoa(String.fromCharCode(...found))}:` };
}

async function sendFile(id, { path, file }, piece, there, on) {
  // Whole pieces that are there stay; the last one may be a torn one.
  let from = there === file.size ? file.size : Math.floor((there || 0) / piece) * piece;
  on(from);
  if (there === file.size && there > 0) return;
  do {
    const start = from;
    const buffer = await file.slice(start, start + piece).arrayBuffer();
    const headers = await digest(buffer);
    const where = `/drop/uploads/${id}/file?${new URLSearchParams({ path, at: start })}`;
    await patiently(() => ask(where, "PUT", buffer, headers));
    from = start + buffer.byteLength;
    on(from);
    if (stopped) throw new Refused("Stopped. You can continue it later.");
  } while (from < file.size);
}

function draw(files) {
  const rows = new Map();
  at("list").replaceChildren(
    ...files.slice(0, SHOWN).map(({ path, file }) => {
      const row = document.createElement("tr");
      const [name, bytes, bar] = ["th", "td", "td"].map((tag) => row.appendChild(document.createElement(tag)));
      name.scope = "row";
      name.append(document.createElement("bdi"));
      name.firstChild.textContent = path;
      bytes.className = "num";
      bytes.textContent = size(file.size);
      const progress = bar.appendChild(document.createElement("progress"));
      progress.max = file.size || 1;
      progress.value = 0;
      progress.setAttribute("aria-label", path);
      rows.set(path, progress);
      return row;
    }),
  );
  return rows;
}

async function send() {
  const files = chosen;
  const bytes = files.reduce((sum, { file }) => sum + file.size, 0);
  const rows = draw(files);
  at("progress").hidden = false;
  at("progress").scrollIntoView({ block: "nearest" });
  tell("told", "Starting…");
  let id = taken;
  if (!id) {
    const purposes = [...form.querySelectorAll("[name=purposes]:checked")].map((box) => box.value);
    const body = {
      name: form.elements.name.value,
      purposes,
      files: files.map(({ path, file }) => ({ path, size: file.size })),
    };
    const begun = await ask("/drop/uploads", "POST", JSON.stringify(body), { "Content-Type": "application/json" });
    id = taken = begun.id;
  }
  const known = await patiently(() => ask(`/drop/uploads/${id}`, "GET"));
  const missing = Object.keys(known.files).filter(
    (path) => !files.some((one) => one.path === path && one.file.size === known.files[path]),
  );
  if (missing.length) throw new Refused(`These are not the same files: ${missing[0]} is missing or has changed.`);
  const began = Date.now();
  let done = 0;
  let sent = 0;
  const show = () => {
    at("total").max = bytes || 1;
    at("total").value = done;
    // A rate means something only after a while.
    const passed = (Date.now() - began) / 1000;
    const rate = passed > 2 ? sent / passed : 0;
    const left = rate * LONGEST_S > bytes ? `, ${size(rate)}/s, ${lasting((bytes - done) / rate)} left` : "";
    tell("told", `${size(done)} of ${size(bytes)}${left}`);
  };
  const queue = [...files];
  let failed = null;
  const lane = async () => {
    while (queue.length && !failed) {
      const one = queue.shift();
      let last = 0;
      let first = true;
      try {
        await sendFile(id, one, known.piece, known.there[one.path], (now) => {
          done += now - last;
          if (!first) sent += now - last;
          first = false;
          last = now;
          const row = rows.get(one.path);
          if (row) row.value = one.file.size ? now : 1;
          show();
        });
      } catch (error) {
        failed = failed || error;
      }
    }
  };
  // Small files wait more for answers than they need to travel.
  await Promise.all(Array.from({ length: LANES }, lane));
  if (failed) throw failed;
  tell("told", "Everything is sent; it is written to the disk…");
  return (await patiently(() => ask(`/drop/uploads/${id}/finish`, "POST"))).go;
}

form.addEventListener("submit", async (event) => {
  event.preventDefault();
  if (!chosen.length) return tell("chosen", "Choose a folder or files first.", "bad");
  stopped = false;
  at("send").disabled = true;
  at("stop").hidden = false;
  hold();
  let go = "";
  try {
    go = await send();
  } catch (error) {
    tell("told", error.message, "bad");
    at("send").disabled = false;
    at("send").textContent = taken ? "Continue upload" : "Upload";
    at("stop").hidden = true;
  } finally {
    release();
  }
  // Only now: the browser asks at once when another page is to be opened.
  if (go) window.location.assign(go);
});
at("stop").addEventListener("click", () => {
  stopped = true;
});

for (const button of document.querySelectorAll(".take-up")) {
  button.hidden = false;
  button.addEventListener("click", () => {
    taken = button.dataset.id;
    form.elements.name.value = button.dataset.name;
    form.elements.name.readOnly = true;
    at("send").textContent = "Continue upload";
    tell("match", `${button.dataset.name} continues: choose the same files again.`, "good");
    at("tree").focus();
  });
}
