// The page of the trainings: what each cost, and its curves.
"use strict";

(() => {
  const { el } = report;
  const main = document.getElementById("overview");
  const { hover, footer } = report.frame;
  let chosen = "";

  function draw() {
    const { trained } = report;
    document.title = `${trained.title}: training`;
    const curve = trained.curves.find(({ name }) => name === chosen) || trained.curves[0];
    main.replaceChildren(
      el("header", { class: "masthead" }, el("h1", {}, trained.title),
        el("div", { class: "tools" }, el("a", { href: trained.results_page, class: "tab" }, "← the results"))),
      el("h2", { class: "first" }, "What the training cost"),
      el("div", { class: "scroll" }, costs()),
      ...(curve ? curves(curve) : []),
      el("h2", {}, "Notes"),
      el("ul", { class: "notes" }, ...trained.notes.concat(said()).map((note) => el("li", {}, note))),
      footer(report.trained.provenance));
  }

  function costs() {
    const { headings, lines } = report.trained;
    const head = el("tr", {}, el("th", { scope: "col" }, "Model"),
      ...headings.map((heading) => el("th", { scope: "col" }, heading)));
    return el("table", { class: "counts" }, el("thead", {}, head), el("tbody", {}, ...lines.map((line) => el("tr", {},
      el("th", { scope: "row" }, line.label, el("small", {}, line.base_model),
        ...line.addresses.map((address) => el("small", {}, el("a", { href: address, rel: "noreferrer" }, "tracked")))),
      ...headings.map((_, index) => (line.cells
        ? el("td", {}, el("b", {}, line.cells[index] || "–"))
        : el("td", { class: "missing" }, index ? "" : "missing")))))));
  }

  function curves(curve) {
    const { trained } = report;
    const bounds = report.curves.scale(trained.lines, curve.name);
    const options = trained.curves.map(({ name, title }) => ({ value: name, text: title }));
    return [
      el("h2", {}, "How it went"),
      report.switchOf("curve", options, curve.name, (name) => {
        chosen = name;
        draw();
      }),
      el("p", { class: "lead curves" }, "All panels have one scale. Thin: as measured; thick: the mean over neighbors."),
      el("div", { class: "panels small wide" }, ...trained.lines.map((line) => el("figure", {},
        el("figcaption", {}, el("b", {}, line.label), el("small", {}, line.base_model)),
        report.curves.draw(line, curve, bounds, hover)))),
    ];
  }

  function said() {
    return report.trained.lines.flatMap((line) => line.notes.map((note) => `${line.name}: ${note}`));
  }

  if (!report.trained) {
    main.append("data/trainings.js is not there: copy the whole report folder, not the page alone");
    return;
  }
  draw();
})();
