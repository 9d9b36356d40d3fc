// Follow a log: fetch what has come since, while the job is not over.

const log = document.getElementById("log");
const EVERY_MS = 1000;

async function more() {
  let over = false;
  try {
    const answer = await fetch(`${log.dataset.follow}?from=${log.dataset.at}`);
    if (answer.ok) {
      const text = await answer.text();
      const bottom = log.scrollHeight - log.scrollTop - log.clientHeight < 40;
      log.dataset.at = answer.headers.get("X-Next");
      over = answer.headers.get("X-Over") === "yes";
      if (text) log.append(text);
      if (text && bottom) log.scrollTop = log.scrollHeight;
    }
  } catch {
    // not reachable now: asked again
  }
  if (!over) setTimeout(more, EVERY_MS);
  else document.getElementById("following").hidden = true;
}

if (log) log.scrollTop = log.scrollHeight;
if (log && log.dataset.follow) {
  document.getElementById("following").hidden = false;
  setTimeout(more, EVERY_MS);
}
