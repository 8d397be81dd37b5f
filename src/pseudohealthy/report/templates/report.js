"use strict";
// Sort by a column's raw values (numbers as numbers, empty cells last); failed cases stay on top.
// Filter by any text.
const table = document.getElementById("cases");
if (table) {
  const body = table.tBodies[0];
  const heads = Array.from(table.tHead.rows[0].cells);
  const raw = (row, column) => row.cells[column].dataset.value;
  const compare = (a, b) => {
    if (a === "" || b === "") return (a === "") - (b === "");
    const difference = Number(a) - Number(b);
    return Number.isNaN(difference) ? a.localeCompare(b, undefined, { numeric: true }) : difference;
  };
  heads.forEach((head, column) =>
    head.querySelector("button").addEventListener("click", () => {
      const down = head.getAttribute("aria-sort") === "ascending";
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", down ? "descending" : "ascending");
      const rows = Array.from(body.rows);
      rows.sort((a, b) => {
        const failed = b.classList.contains("failed") - a.classList.contains("failed");
        if (failed) return failed;
        const x = raw(a, column),
          y = raw(b, column);
        return x === "" || y === "" || !down ? compare(x, y) : compare(y, x);
      });
      body.append(...rows);
    }),
  );
  document.getElementById("filter").addEventListener("input", (event) => {
    const wanted = event.target.value.toLowerCase();
    for (const row of body.rows) row.hidden = !row.textContent.toLowerCase().includes(wanted);
  });
}
