// Images, large, one after the other: over the job's page, or on a page of their own.

const links = [...document.querySelectorAll(".pictures a")];
const dialog = document.getElementById("viewer");
const part = (name) => document.getElementById(`viewer-${name}`);
let at = 0;

function show(number) {
  if (!links[number]) return;
  at = number;
  const label = links[at].textContent.trim();
  part("image").src = links[at].dataset.large;
  part("image").alt = label;
  part("label").textContent = `${label} (${at + 1} of ${links.length})`;
  const focused = document.activeElement;
  part("before").disabled = at === 0;
  part("after").disabled = at === links.length - 1;
  if (focused?.disabled) dialog.querySelector("button:enabled").focus();
  // The next one is made while this one is looked at.
  if (links[at + 1]) new Image().src = links[at + 1].dataset.large;
}

const KEYS = { ArrowLeft: -1, ArrowRight: 1 };

if (dialog) {
  links.forEach((link, number) =>
    link.addEventListener("click", (event) => {
      if (event.ctrlKey || event.metaKey || event.shiftKey) return; // a tab or window of its own
      event.preventDefault();
      show(number);
      dialog.showModal();
    }),
  );
  part("before").addEventListener("click", () => show(at - 1));
  part("after").addEventListener("click", () => show(at + 1));
  // Of the document: a button that has just been disabled had the focus, and nothing within has it now.
  document.addEventListener("keydown", (event) => {
    if (dialog.open && KEYS[event.key]) show(at + KEYS[event.key]);
  });
  dialog.addEventListener("click", (event) => {
    if (event.target === dialog) dialog.close();
  });
  dialog.addEventListener("close", () => links[at].focus());
} else {
  document.addEventListener("keydown", (event) => {
    const way = { ArrowLeft: "prev", ArrowRight: "next", Escape: "up" }[event.key];
    if (way) document.querySelector(`main a[rel=${way}]`)?.click();
  });
}
