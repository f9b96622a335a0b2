// The page of the trainings: what each cost, and its curves.
"use strict";

(() => {
  const { el } = report;
  const main = document.getElementById("overview");
  const tip = document.getElementById("tip");
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
      footer());
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

  function hover(content) {
    const show = (event) => {
      tip.replaceChildren(...content());
      tip.hidden = false;
      const around = event.currentTarget.getBoundingClientRect();
      const { width, height } = tip.getBoundingClientRect();
      tip.style.left = `${Math.min(Math.max(8, around.left + around.width / 2 - width / 2), innerWidth - width - 8) + scrollX}px`;
      tip.style.top = `${around.top - height - 6 + scrollY}px`;
    };
    return { onmouseenter: show, onmouseleave: () => { tip.hidden = true; } };
  }

  function footer() {
    const lines = Object.entries(report.trained.provenance).flatMap(([name, files]) => Object.entries(files).map(([file, value]) =>
      el("tr", {}, el("td", {}, name), el("td", {}, file), el("td", {}, el("code", {}, value)))));
    if (!lines.length) return "";
    return el("footer", {}, el("details", {}, el("summary", {}, `What these numbers rest on: ${lines.length} files and their sha256`),
      el("div", { class: "scroll" }, el("table", { class: "provenance" }, ...lines))));
  }

  if (!report.trained) {
    main.append("data/trainings.js is not there: copy the whole report folder, not the page alone");
    return;
  }
  draw();
})();
