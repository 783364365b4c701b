for (const form of document.querySelectorAll("form.filter[data-table]")) {
  const bodies = [...document.getElementById(form.dataset.table).tBodies];
  const rows = bodies.flatMap((body) => [...body.querySelectorAll("tr:not(.kind)")]);
  const words = new Map(rows.map((row) => [row, row.textContent.toLowerCase()]));
  const show = () => {
    const given = new FormData(form);
    const wanted = given.get("words").toLowerCase().split(/\s+/).filter(Boolean);
    const kinds = given.getAll("kind");
    const place = given.get("split");
    for (const row of rows) {
      const fits = kinds.includes(row.dataset.kind) && (!place || row.dataset.split === place);
      row.hidden = !(fits && wanted.every((word) => words.get(row).includes(word)));
    }
    for (const body of bodies) body.hidden = !body.querySelector("tr:not(.kind):not([hidden])");
    form.querySelector("output").textContent = `${rows.filter((row) => !row.hidden).length} of ${rows.length} rows`;
  };
  form.hidden = false;
  form.addEventListener("input", show);
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("reset", () => setTimeout(show));
  show();
}
let closed = [];
addEventListener("beforeprint", () => {
  closed = [...document.querySelectorAll("details:not([open]):not(.screen)")];
  for (const one of closed) one.open = true;
});
addEventListener("afterprint", () => {
  for (const one of closed) one.open = false;
});
