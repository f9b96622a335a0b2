// The same numbers as dots and whiskers, one panel per column, with the untuned model as a dashed line.
"use strict";

report.chart = (table, scorer) => {
  const { el, svg, tone } = report;
  const ROW = 26, BOTTOM = 24, NAMES = 190, PAD = 14, GAP = 12;
  const room = Math.min(document.documentElement.clientWidth, 1320) - 64 - NAMES;
  const count = report.columns().length;
  const WIDTH = Math.max(140, Math.min(260, Math.floor(room / count) - GAP)); // wide tables scroll

  const headings = report.columns().map((column) => wrapped(column.title, Math.floor((WIDTH - PAD) / 7.4)));
  const TOP = 18 + 16 * Math.max(...headings.map((lines) => lines.length));

  const places = [];
  let y = TOP + ROW / 2;
  const bases = [];
  const groups = report.overview.bases(table);
  for (const [base, rows] of groups) {
    if (places.length) y += ROW * 0.4;
    if (groups.length > 1) {
      bases.push([base, y]);
      y += ROW;
    }
    for (const row of rows) {
      places.push([row, y]);
      y += ROW;
    }
  }
  const height = y - ROW / 2 + BOTTOM;

  // The names stand in a panel of their own, so that they stay while the others scroll.
  const names = svg("svg", { width: NAMES, height, viewBox: `0 0 ${NAMES} ${height}`, class: "names", "aria-hidden": true },
    ...bases.map(([base, at]) => svg("text", { x: 0, y: at + 4, class: "base" }, shortened(base, 28))),
    ...places.map(([row, at]) => svg("text", { x: NAMES - 8, y: at + 4, "text-anchor": "end" }, shortened(row.spec.label, 28))));
  const panels = report.columns().map((column, index) => panel(column, index));
  return el("div", { class: "chart" }, names, el("div", { class: "panels" }, ...panels));

  function panel(column, index) {
    const shown = places.map(([row, at]) => ({ row, at, cell: report.cells(row)[index] }))
      .map((place) => ({ ...place, view: place.cell.views[scorer] }));
    const ends = shown.flatMap(({ view }) => (view ? [view.score.low, view.score.value, view.score.high] : []))
      .filter((end) => end !== null);
    const least = ends.length ? Math.min(...ends) : 0;
    const most = ends.length ? Math.max(...ends) : 1;
    const margin = Math.max(0.01, 0.05 * (most - least));
    const [from, to] = [Math.max(-0.015, least - margin), Math.min(1.015, most + margin)];
    const x = (value) => PAD + ((value - from) / (to - from)) * (WIDTH - 2 * PAD);
    return svg("svg", { width: WIDTH, height, viewBox: `0 0 ${WIDTH} ${height}`, role: "img", "aria-label": column.title },
      ...headings[index].map((line, at) => svg("text", { x: PAD, y: 16 + 16 * at, class: "heading" }, line)),
      ...ticks(from, to).flatMap((tick) => [
        svg("line", { x1: x(tick), x2: x(tick), y1: TOP - 6, y2: height - BOTTOM + 4, class: "grid" }),
        svg("text", { x: x(tick), y: height - 6, class: "tick", "text-anchor": "middle" }, String(Math.round(100 * tick)))]),
      ...references(shown, x),
      ...shown.map((place) => mark(place, column, x)));
  }

  function references(shown, x) {
    return shown.filter(({ row, view }) => row.spec.untuned && view).map(({ row, view }) => {
      const heights = shown.filter((other) => other.row.spec.base_model === row.spec.base_model).map(({ at }) => at);
      const at = x(view.score.value);
      return svg("line", {
        x1: at, x2: at, y1: Math.min(...heights) - ROW / 2 + 2, y2: Math.max(...heights) + ROW / 2 - 2, class: "reference",
      });
    });
  }

  function mark({ row, at, cell, view }, column, x) {
    if (!view) {
      const word = cell.status === "not_applicable" ? "–" : cell.status;
      return svg("text", { x: PAD, y: at + 4, class: "absent" }, word);
    }
    const { value, low, high } = view.score;
    const shape = row.spec.untuned
      ? svg("rect", { x: -4.5, y: -4.5, width: 9, height: 9, transform: `translate(${x(value)} ${at}) rotate(45)` })
      : svg("circle", { cx: x(value), cy: at, r: 5 });
    const parts = [
      svg("rect", { x: 0, y: at - ROW / 2, width: WIDTH, height: ROW, class: "target" }),
      low === null ? "" : svg("line", { x1: x(low), x2: x(high), y1: at, y2: at, class: "whisker" }),
      shape,
    ];
    const attributes = {
      class: `mark ${row.spec.untuned ? "untuned" : tone(view)}`,
      ...report.frame.hover(() => report.overview.details(row, cell)),
    };
    if (!report.opens(row.spec.name, column.metric)) return svg("g", attributes, ...parts);
    return svg("a", { ...attributes, href: report.address(row.spec.name, column.metric), tabindex: -1 }, ...parts);
  }

  function ticks(from, to) {
    const step = [0.01, 0.02, 0.05, 0.1, 0.2, 0.25, 0.5].find((size) => (to - from) / size <= WIDTH / 40) || 0.5;
    const found = [];
    for (let tick = Math.ceil(from / step - 1e-9); tick * step <= to + 1e-9; tick++) found.push(tick * step);
    return found;
  }

  function wrapped(text, most) {
    const lines = [""];
    for (const word of text.split(" ")) {
      const longer = `${lines.at(-1)} ${word}`.trim();
      if (longer.length <= most || !lines.at(-1)) lines[lines.length - 1] = longer;
      else lines.push(word);
    }
    return lines;
  }

  function shortened(text, most) {
    return text.length > most ? `${text.slice(0, most - 1)}…` : text;
  }
};
