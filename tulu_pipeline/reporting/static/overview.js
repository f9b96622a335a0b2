// The table: colored by what tuning changed, each cell with its details on hover and its items on click.
"use strict";

report.overview = (() => {
  const { el, points, signed, plusMinus, interval, change, tone } = report;
  const { hover, hideTip, footer } = report.frame;

  function draw(main) {
    const { table, legend } = report.data;
    document.title = table.title;
    main.replaceChildren(
      el("header", { class: "masthead" },
        el("h1", {}, table.title),
        el("div", { class: "tools" }, report.data.data_page ? el("a", { href: report.data.data_page, class: "tab" }, "the data →") : "",
          report.data.training_page ? el("a", { href: report.data.training_page, class: "tab" }, "the training →") : "",
          report.data.length_page ? el("a", { href: report.data.length_page, class: "tab" }, "length →") : "",
          el("span", { class: "label" }, "scored as"), report.scorerSwitch() || table.scorers[0])),
      el("div", { class: "scroll" }, grid(table)),
      key(),
      el("h2", {}, "Values and 95 % intervals"),
      report.chart(table, report.state.scorer),
      ...odd(table),
      ...report.groups(table),
      el("h2", {}, "Notes"),
      el("ul", { class: "notes" }, ...legend.concat(standIns(table), table.notes).map((note) => el("li", {}, note))),
      footer(report.data.provenance));
  }

  function grid(table) {
    const columns = report.columns();
    const head = el("tr", {}, el("th", { scope: "col" }, "Model"),
      ...columns.map((column, index) => el("th", { scope: "col", class: column.metric === "average" ? "average" : "" },
        column.title.replaceAll("-", "\u2011"), el("small", {}, index < table.columns.length ? items(table, index) : "\u00a0"))));
    const bodies = bases(table).map(([base, rows]) => el("tbody", {},
      base ? el("tr", { class: "base" }, el("th", { colspan: columns.length + 1, scope: "rowgroup" }, base)) : "",
      ...rows.map((row) => el("tr", { class: row.spec.untuned ? "untuned" : "" },
        el("th", { scope: "row" }, row.spec.label),
        ...report.cells(row).map((cell) => box(row, cell))))));
    return el("table", { class: "results" }, el("thead", {}, head), ...bodies);
  }

  function box(row, cell) {
    const view = cell.views[report.state.scorer];
    const average = cell.metric === "average" ? " average" : "";
    if (!view) {
      const word = cell.status === "not_applicable" ? "–" : cell.status;
      return el("td", { class: `${cell.status}${average}`, ...hover(() => emptyDetails(row, cell)) }, word);
    }
    const { arrow } = change(view);
    const inside = [
      el("span", { class: view.best ? "value best" : "value" }, points(view.score.value)),
      standIn(cell) ? "†" : "",
      cell.undefined ? el("span", { class: "incomplete", title: "INCOMPLETE" }, "‡") : "",
      el("span", { class: "interval" }, plusMinus(view.score)),
      el("span", { class: "arrow", "aria-hidden": true }, arrow),
    ];
    const spoken = `${report.fullName(row)}, ${title(cell.metric)}: ${points(view.score.value)} ${change(view).word}`;
    const content = report.opens(row.spec.name, cell.metric)
      ? el("a", { href: report.address(row.spec.name, cell.metric), "aria-label": spoken }, ...inside)
      : el("span", { class: "closed", tabindex: 0, "aria-label": spoken }, ...inside);
    return el("td", { class: `${tone(view)}${average}`, ...hover(() => details(row, cell)) }, content);
  }

  function details(row, cell) {
    const lines = [];
    for (const scorer of report.data.table.scorers) {
      const { score } = cell.views[scorer];
      if (scorer !== report.state.scorer && score.scorer !== scorer) continue;
      lines.push([score.scorer, points(score.value), interval(score), scorer === report.state.scorer ? "now" : ""]);
    }
    const view = cell.views[report.state.scorer];
    const { score } = view;
    const facts = [];
    if (score.n !== null) facts.push(["items", score.n.toLocaleString("en")]);
    if (score.standard_error !== null) facts.push(["standard error", points(score.standard_error, 2)]);
    facts.push(["interval", score.method]);
    if (view.change) {
      const within = change(view).word && !change(view).clear && view.change.low !== null ? " (within noise)" : "";
      const range = view.change.low === null ? "" : ` [${signed(view.change.low)}, ${signed(view.change.high)}]`;
      facts.push(["against untuned", `${signed(view.change.value)}${range}${within}`]);
    }
    if (cell.undefined) facts.push(["INCOMPLETE", `${cell.undefined.toLocaleString("en")} items without a score`]);
    const flags = flagsOf(cell);
    if (flags.length) facts.push(["flags", flags.map(([flag, count]) => `${flag.replaceAll("_", " ")} ${count}`).join(", ")]);
    if (cell.published_percent !== null) facts.push(["the paper printed", cell.published_percent.toFixed(1)]);
    return [
      el("strong", {}, `${report.fullName(row)} / ${title(cell.metric)}`),
      el("table", {}, ...lines.map(([scorer, value, range, now]) =>
        el("tr", { class: now }, el("th", {}, scorer), el("td", {}, value), el("td", {}, range)))),
      el("dl", {}, ...facts.flatMap(([name, value]) => [el("dt", {}, name), el("dd", {}, value)])),
      standIn(cell) ? el("p", {}, `† this metric has no ${report.state.scorer} scorer`) : "",
      report.opens(row.spec.name, cell.metric) ? el("p", {}, "click to read the items") : "",
    ];
  }

  function emptyDetails(row, cell) {
    const average = cell.metric === "average";
    const why = {
      not_applicable: average ? "no average: a column is empty" : "not asked of untuned models",
      missing: average ? "no average: a column is missing" : "could not be made, and is not filled in",
      undefined: "made, but no item has a score",
    };
    const printed = cell.published_percent === null ? "" : el("p", {}, `the paper printed ${cell.published_percent.toFixed(1)}`);
    return [el("strong", {}, `${report.fullName(row)} / ${title(cell.metric)}`), el("p", {}, why[cell.status]), printed];
  }

  // What was odd about the answers, counted cell by cell; each count opens the items it counts.
  function odd(table) {
    const found = table.rows.map((row) => [row, row.cells.map(flagsOf)]).filter(([, flags]) => flags.some((each) => each.length));
    if (!found.length) return [];
    const shown = table.columns.map((_, index) => index).filter((index) => found.some(([, flags]) => flags[index].length));
    const count = (row, metric, [flag, number]) => {
      const words = `${number.toLocaleString("en")} ${flag.replaceAll("_", " ")}`;
      const opens = report.opens(row.spec.name, metric);
      return el("div", {}, opens ? el("a", { href: report.address(row.spec.name, metric, "", { filter: flag }) }, words) : words);
    };
    return [el("h2", {}, "What was odd about the answers"), el("div", { class: "scroll" }, el("table", { class: "counts odd" },
      el("thead", {}, el("tr", {}, el("th", { scope: "col" }, "Model"),
        ...shown.map((index) => el("th", { scope: "col", class: "text" }, table.columns[index].title)))),
      el("tbody", {}, ...found.map(([row, flags]) => el("tr", {}, el("th", { scope: "row" }, report.fullName(row)),
        ...shown.map((index) => el("td", { class: "text" },
          ...flags[index].map((each) => count(row, table.columns[index].metric, each)))))))))];
  }

  // What every table counts first, the rest by name.
  function flagsOf(cell) {
    const first = ["no_answer_found", "empty", "truncated", "refused"];
    const place = (flag) => (first.includes(flag) ? first.indexOf(flag) : first.length);
    return Object.entries(cell.flags).filter(([, count]) => count).sort((a, b) => place(a[0]) - place(b[0]));
  }

  function key() {
    const entry = (tone, arrow, text) => el("span", {}, el("i", { class: tone }, arrow), text);
    const compared = report.data.table.rows.some((row) => row.cells.some((cell) => Object.values(cell.views).some((view) => view.change)));
    const changes = [
      entry("raised", "▲", "raised by tuning"), entry("raised pale", "△", "raised, within noise"),
      entry("lowered", "▼", "lowered by tuning"), entry("lowered pale", "▽", "lowered, within noise")];
    return el("p", { class: "key" }, ...(compared ? changes : []),
      el("span", {}, el("b", {}, "bold"), " best of its column"));
  }

  function standIns(table) {
    const { scorer } = report.state;
    const titles = table.columns.filter((_, index) => table.rows.some((row) => standIn(row.cells[index])));
    return titles.length
      ? [`† has no ${scorer} scorer; its own headline scorer stands in: ${titles.map((column) => column.title).join(", ")}.`]
      : [];
  }

  function standIn(cell) {
    const view = cell.views[report.state.scorer];
    return Boolean(view) && cell.metric !== "average" && view.score.scorer !== report.state.scorer;
  }

  function items(table, index) {
    const counts = table.rows.map((row) => row.cells[index].views[report.state.scorer]?.score.n).filter(Boolean);
    if (!counts.length) return "";
    const [least, most] = [Math.min(...counts), Math.max(...counts)].map((count) => count.toLocaleString("en"));
    return `n = ${least === most ? least : `${least}–${most}`}`;
  }

  function bases(table) {
    const groups = new Map();
    for (const row of table.rows) groups.set(row.spec.base_model, [...(groups.get(row.spec.base_model) || []), row]);
    return [...groups];
  }

  const title = (metric) => report.column(metric)?.title ?? "Average";

  return { draw, details, bases };
})();
