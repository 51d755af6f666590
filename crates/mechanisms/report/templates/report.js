"use strict";
// Adds sorting, filters and the theme button. Without it the page is complete, but for these.
(() => {
  const find = (id) => document.getElementById(id);
  const root = document.documentElement;
  const theme = find("theme");
  const prefersDark = matchMedia("(prefers-color-scheme: dark)");
  const isDark = () => (root.dataset.theme ? root.dataset.theme === "dark" : prefersDark.matches);
  const showTheme = () => theme.setAttribute("aria-pressed", String(isDark()));
  theme.hidden = false;
  theme.addEventListener("click", () => {
    root.dataset.theme = isDark() ? "light" : "dark";
    showTheme();
  });
  prefersDark.addEventListener("change", showTheme);
  showTheme();

  // Paper has no way to open what is closed.
  const closed = [];
  const print = matchMedia("print");
  const openForPrint = () => {
    if (print.matches) {
      for (const details of document.querySelectorAll("details:not([open])")) {
        details.open = true;
        closed.push(details);
      }
    } else {
      for (const details of closed.splice(0)) details.open = false;
    }
  };
  print.addEventListener("change", openForPrint);
  openForPrint();

  const table = find("table");
  if (!table) return;
  const body = table.tBodies[0];
  const rows = Array.from(body.rows, (row, index) => ({
    row,
    index,
    text: row.textContent.toLowerCase(),
    keys: Array.from(row.cells, (cell) => cell.dataset.key ?? cell.textContent),
  }));

  const collator = new Intl.Collator("en", { numeric: true });
  const headers = Array.from(table.tHead.rows[0].cells);
  headers.forEach((header, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = header.textContent;
    header.replaceChildren(button);
    button.addEventListener("click", () => {
      const up = header.getAttribute("aria-sort") !== "ascending";
      for (const other of headers) other.removeAttribute("aria-sort");
      header.setAttribute("aria-sort", up ? "ascending" : "descending");
      const order = up ? 1 : -1;
      rows.sort((a, b) => order * collator.compare(a.keys[column], b.keys[column]) || a.index - b.index);
      body.append(...rows.map((entry) => entry.row));
    });
  });

  const controls = find("controls");
  const chosen = (id) => find(id)?.value ?? "";
  const filter = () => {
    const words = chosen("text").toLowerCase().split(/\s+/).filter(Boolean);
    const namespace = chosen("namespace");
    const rule = chosen("rule");
    const severities = new Set();
    for (const box of controls.querySelectorAll("[name=severity]:checked")) severities.add(box.value);
    let shown = 0;
    for (const { row, text } of rows) {
      const { severity, namespace: of, rule: by } = row.dataset;
      const matches =
        severities.has(severity) &&
        (!namespace || of === namespace) &&
        (!rule || by === rule) &&
        words.every((word) => text.includes(word));
      row.hidden = !matches;
      if (matches) shown += 1;
    }
    const all = `${rows.length} finding${rows.length === 1 ? "" : "s"}`;
    find("status").textContent = shown === rows.length ? all : `${shown} of ${all}`;
    find("reset").hidden = shown === rows.length;
  };
  controls.addEventListener("input", filter);
  controls.addEventListener("submit", (event) => event.preventDefault());
  // The fields have their first values only after the event.
  controls.addEventListener("reset", () => setTimeout(filter));

  const evidence = find("evidence");
  const all = body.querySelectorAll("details");
  evidence.hidden = all.length === 0;
  evidence.addEventListener("click", () => {
    const open = Array.from(all).some((details) => !details.open);
    for (const details of all) details.open = open;
    label();
  });
  const label = () => {
    const open = Array.from(all).some((details) => !details.open);
    evidence.textContent = open ? "Open all evidence" : "Close all evidence";
  };
  body.addEventListener("toggle", label, true);
  label();
  // A browser may have kept the fields' values over a reload.
  controls.hidden = false;
  find("tools").hidden = false;
  filter();
})();
