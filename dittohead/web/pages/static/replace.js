// While the new file is sent: how far it is; a form that was sent is not sent twice.

import { size } from "./units.js";

const form = document.getElementById("replacement");
const told = document.getElementById("sent");

function amount(done, total) {
  return `${Math.floor((100 * done) / total)} % of ${size(total)} sent`;
}

form?.addEventListener("submit", (event) => {
  event.preventDefault();
  const button = form.querySelector("button");
  const sending = new XMLHttpRequest();
  button.disabled = true;
  sending.upload.addEventListener("progress", ({ loaded, total }) => {
    told.textContent = loaded < total ? amount(loaded, total) : "Everything is sent; it is checked";
  });
  const wrong = (words) => {
    button.disabled = false;
    told.textContent = words;
    told.className = "tells bad";
  };
  const broken = () => wrong("The upload was interrupted. Try again.");
  sending.addEventListener("error", broken);
  sending.addEventListener("abort", broken);
  sending.addEventListener("load", () => {
    if (sending.status < 300) return location.assign(sending.responseURL);
    const page = new DOMParser().parseFromString(sending.responseText, "text/html");
    wrong(page.querySelector(".said.bad")?.textContent ?? `It was refused (${sending.status}).`);
  });
  sending.open("POST", form.action);
  sending.send(new FormData(form));
});
