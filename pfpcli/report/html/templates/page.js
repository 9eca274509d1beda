"use strict";
for (const box of document.querySelectorAll(".table")) {
  const body = box.querySelector("tbody"), heads = [...box.querySelectorAll("thead th")], rows = [...body.rows];
  heads.forEach((head, column) => {
    const button = document.createElement("button");
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      // numbers fall first, because the largest are looked for; a third click brings the order of the network back
      const numeric = head.classList.contains("number");
      const states = [null, numeric ? "descending" : "ascending", numeric ? "ascending" : "descending"];
      const state = states[(states.indexOf(head.getAttribute("aria-sort")) + 1) % 3];
      heads.forEach((each) => each.removeAttribute("aria-sort"));
      if (state) head.setAttribute("aria-sort", state);
      const value = (row) => { const cell = row.cells[column]; return cell.dataset.order === undefined ? cell.textContent : Number(cell.dataset.order); };
      const compare = (a, b) => { const x = value(a), y = value(b); return typeof x === "number" && typeof y === "number" ? x - y : String(x).localeCompare(String(y), undefined, { numeric: true }); };
      const sorted = state ? [...rows].sort(compare) : rows;
      body.append(...(state === "descending" ? sorted.reverse() : sorted));
    });
  });
  const controls = box.querySelector(".controls");
  if (!controls) continue;
  controls.hidden = false;
  const text = controls.querySelector("[type=search]"), changed = controls.querySelector("[type=checkbox]"), count = controls.querySelector("output");
  const filter = () => {
    const wanted = text.value.toLowerCase();
    rows.forEach((row) => { row.hidden = !row.textContent.toLowerCase().includes(wanted) || Boolean(changed && changed.checked && row.classList.contains("unchanged")); });
    const shown = rows.filter((row) => !row.hidden).length;
    count.textContent = shown === rows.length ? "" : `${shown} of ${rows.length}`;
  };
  text.addEventListener("input", filter);
  if (changed) changed.addEventListener("change", filter);
}
