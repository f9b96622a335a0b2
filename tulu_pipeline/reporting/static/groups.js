// One column by the groups of its items: subjects, tasks, languages, sources.
"use strict";

report.groups = (table) => {
  const { el, points, plusMinus } = report;
  const grouped = table.columns.filter((_, index) => table.rows.some((row) => size(row.cells[index]) > 1));
  if (!grouped.length) return [];
  let chosen = grouped[0].metric;
  const box = el("div", { class: "scroll" });
  const buttons = el("div", { class: "which" });

  function size(cell) {
    return Object.keys(cell.groups).length;
  }

  function draw() {
    const index = table.columns.findIndex((column) => column.metric === chosen);
    const rows = table.rows.filter((row) => size(row.cells[index]));
    const names = [...new Set(rows.flatMap((row) => Object.keys(row.cells[index].groups)))].sort();
    const least = table.columns[index].lower_is_better;
    buttons.replaceChildren(report.switchOf("column",
      grouped.map((column) => ({ value: column.metric, text: column.title })), chosen, (metric) => { chosen = metric; draw(); }));
    box.replaceChildren(el("table", { class: "counts groups" },
      el("thead", {}, el("tr", {}, el("th", { scope: "col" }, `${names.length} groups`), el("th", { scope: "col" }, "items"),
        ...rows.map((row) => el("th", { scope: "col" }, report.fullName(row))))),
      el("tbody", {}, ...names.map((name) => {
        const scores = rows.map((row) => row.cells[index].groups[name]);
        const counts = [...new Set(scores.filter(Boolean).map((score) => score.n))].sort((a, b) => a - b);
        const printed = scores.filter(Boolean).map((score) => Number(points(score.value)));
        const best = (least ? Math.min : Math.max)(...printed);
        return el("tr", {}, el("th", { scope: "row" }, name.replaceAll("_", " ")),
          el("td", {}, counts.map((count) => count.toLocaleString("en")).join("–")),
          ...scores.map((score) => el("td", {}, ...(score ? value(score, printed.length > 1 && Number(points(score.value)) === best) : ["–"]))));
      }))));
  }

  function value(score, best) {
    const bar = el("i", { class: "share-bar" });
    bar.style.width = `${Math.round(44 * score.value)}px`;
    return [el("span", { class: "lane" }, bar), el("span", { class: best ? "value best" : "value" }, points(score.value)), el("span", { class: "interval" }, plusMinus(score))];
  }

  draw();
  return [el("h2", {}, "By group of items"),
    el("p", { class: "lead" }, "The headline's scorer on the items of each group by themselves, with 95 % intervals; bold is the best of a line."), buttons, box];
};
