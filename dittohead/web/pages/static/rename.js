// While a new name is typed: which pipeline would take it, or what stands in its way.

const form = document.getElementById("rename");
const told = document.getElementById("match");
let asked = 0;
let typing;

async function check(name) {
  const mine = ++asked;
  const answer = name && (await fetch(`${form.dataset.check}?${new URLSearchParams({ name })}`).catch(() => null));
  if (mine !== asked || (answer && !answer.ok)) return;
  const said = answer ? await answer.json() : { ok: true, said: "" };
  told.textContent = said.said;
  told.className = `tells ${said.ok ? "good" : "bad"}`;
}

form?.elements.name.addEventListener("input", (event) => {
  clearTimeout(typing);
  typing = setTimeout(() => check(event.target.value.trim()), 150);
});
