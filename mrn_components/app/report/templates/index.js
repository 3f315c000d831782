"use strict";
const body = document.querySelector("#table tbody");
const rows = [...body.rows];
const search = document.getElementById("search");
const show = document.getElementById("show");
const sort = document.getElementById("sort");
const buttons = [...document.querySelectorAll("th button")];
function filter() {
  const words = search.value.toLowerCase().split(/\s+/);
  let shown = 0;
  for (const row of rows) {
    const text = row.textContent.toLowerCase();
    const wanted = !show.value || row.dataset.status === show.value ||
      (show.value === "flagged" && Number(row.dataset.flags) > 0);
    row.hidden = !(wanted && words.every((word) => text.includes(word)));
    shown += !row.hidden;
  }
  document.getElementById("count").textContent = shown + " of " + rows.length + " shown";
  document.getElementById("nothing").hidden = shown > 0;
}
function order(key, down) {
  const sign = down ? -1 : 1;
  rows.sort((a, b) => {
    const [x, y] = [a.dataset[key], b.dataset[key]];
    if (key === "subject") return sign * x.localeCompare(y, "en", { numeric: true });
    if (x === "" || y === "") return (x === "") - (y === "");
    return sign * (x - y) || a.dataset.subject.localeCompare(b.dataset.subject, "en", { numeric: true });
  });
  body.append(...rows);
  for (const button of buttons) {
    button.parentElement.removeAttribute("aria-sort");
    if (button.dataset.key === key) button.parentElement.setAttribute("aria-sort", down ? "descending" : "ascending");
  }
}
search.addEventListener("input", filter);
show.addEventListener("change", filter);
sort.addEventListener("change", () => order(...sort.value.split(":").map((part, i) => i ? part === "down" : part)));
for (const button of buttons) {
  button.addEventListener("click", () => {
    const now = button.parentElement.getAttribute("aria-sort");
    order(button.dataset.key, now ? now === "ascending" : button.dataset.key !== "subject");
  });
}
filter();
