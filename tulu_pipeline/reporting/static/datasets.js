// The page of the data: Table 1, lengths, what was left out, and conversations token by token.
"use strict";

(() => {
  const { el } = report;
  const main = document.getElementById("overview");
  const { hover, footer } = report.frame;
  const count = (value) => value.toLocaleString("en");
  let open = { dataset: "", place: 0, records: [] };

  function draw() {
    const { about } = report;
    document.title = `${about.title}: the data`;
    main.replaceChildren(
      el("header", { class: "masthead" }, el("h1", {}, about.title),
        about.results_page ? el("div", { class: "tools" }, el("a", { href: about.results_page, class: "tab" }, "← the results")) : ""),
      el("h2", { class: "first" }, "What the data holds, beside the paper's Table 1"),
      el("div", { class: "scroll" }, counts()),
      el("h2", {}, "How long the conversations are"),
      el("p", { class: "lead" }, `Tokens of all messages of a conversation, as ${about.tokenizer} counts; dashed: where training cuts.`),
      el("div", { class: "panels small" }, ...about.lines.map(panel)),
      el("h2", {}, "As training would see it"),
      el("div", { class: "scroll" }, training()),
      ...leftOut(),
      el("h2", { id: "shown" }, "Conversations, token by token"),
      el("section", { id: "conversations" }),
      el("h2", {}, "Notes"),
      el("ul", { class: "notes" }, ...about.notes.map((note) => el("li", {}, note))),
      footer(report.about.provenance));
  }

  function counts() {
    const { headings, lines } = report.about;
    const paper = lines.some((line) => line.cells.some((cell) => cell.paper));
    const head = el("tr", {}, el("th", { scope: "col" }, "Dataset"),
      ...headings.map((heading) => el("th", { scope: "col" }, heading)), el("th", { scope: "col", class: "text" }, "License"));
    return el("table", { class: "counts" }, el("thead", {}, head), el("tbody", {}, ...lines.map((line) => el("tr", {},
      name(line),
      ...line.cells.map((cell, index) => el("td", { class: line.statistics ? "" : "missing" },
        el("b", {}, line.statistics ? cell.ours || "–" : index ? "" : "missing"),
        paper ? el("small", {}, cell.paper ? `paper ${cell.paper}` : "", cell.difference ? el("i", { class: cell.difference === "=" ? "same" : "" }, cell.difference) : "") : "")),
      el("td", { class: "text" }, line.license)))));
  }

  function name(line) {
    const label = report.about.files[line.name] ? el("a", { href: `#${encodeURIComponent(line.name)}` }, line.title) : line.title;
    return el("th", { scope: "row" }, label, line.sample ? el("small", {}, `sample: ${line.sample}`) : "");
  }

  function panel(line) {
    const { statistics } = line;
    return el("figure", {}, el("figcaption", {}, el("b", {}, line.title),
      el("small", {}, statistics ? `n = ${count(statistics.instances)}${line.sample ? ", sample" : ""}` : "")),
    report.lengths.draw(line, hover));
  }

  function training() {
    const cell = (value) => el("td", {}, el("b", {}, value));
    const head = ["Tokens", "Supervised", "Truncated", "Nothing to learn"].map((text) => el("th", { scope: "col" }, text));
    return el("table", { class: "counts" }, el("thead", {}, el("tr", {}, el("th", { scope: "col" }, "Dataset"), ...head)),
      el("tbody", {}, ...report.about.lines.map(({ title, statistics }) => el("tr", {}, el("th", { scope: "row" }, title),
        ...(statistics
          ? [cell(count(statistics.tokens)), cell(statistics.supervised_share),
            el("td", {}, el("b", {}, statistics.truncated_share), el("small", {}, `at ${count(statistics.max_length_tokens)}`)), cell(count(statistics.nothing_to_learn))]
          : [el("td", { class: "missing" }, "missing"), el("td"), el("td"), el("td")])))));
  }

  // Rows dropped or changed, and what rows say of themselves; only where there is something to tell.
  function leftOut() {
    const kinds = [
      ["dropped", "Rows that became no conversation", "reason"], ["changed", "Rows that lost something", "reason"],
      ["licenses", "Licenses that rows name", "license"], ["languages", "Languages that rows name", "language"],
    ];
    return kinds.flatMap(([field, heading, column]) => {
      const lines = report.about.lines.filter((line) => line.statistics?.[field].length);
      if (!lines.length) return [];
      return [el("h2", {}, heading), el("div", { class: "scroll" }, el("table", { class: "counts reasons" },
        el("thead", {}, el("tr", {}, el("th", { scope: "col" }, "Dataset"), el("th", { scope: "col", class: "text" }, column), el("th", { scope: "col" }, "Rows"))),
        ...lines.map((line) => el("tbody", {}, ...line.statistics[field].map(([what, rows], index) =>
          el("tr", {}, el("th", { scope: "row" }, index ? "" : line.title), el("td", { class: "text" }, what), el("td", {}, count(rows))))))))];
    });
  }

  async function show() {
    const { about } = report;
    const section = document.getElementById("conversations");
    const [wanted = "", id = ""] = location.hash.slice(1).split("/").map(decoded);
    const known = about.lines.filter((line) => about.files[line.name]);
    const line = known.find((each) => each.name === wanted) || known[0];
    if (!line) return section.replaceChildren(el("p", { class: "none" }, "no dataset could be described"));
    try {
      const records = await report.loadShown(line.name);
      open = { dataset: line.name, records, place: Math.max(0, records.findIndex((record) => record.id === id)) };
    } catch (error) {
      return section.replaceChildren(el("p", { class: "none message" }, error.message));
    }
    return conversation(section, line, known);
  }

  function conversation(section, line, known) {
    const { records, place } = open;
    const record = records[place];
    const datasets = report.switchOf("dataset", known.map((each) => ({ value: each.name, text: each.title })), line.name,
      (chosen) => { location.hash = encodeURIComponent(chosen); });
    const learned = record.supervised.split("1").length - 1;
    const facts = [
      `${count(record.ids.length)} tokens`, `${count(learned)} learned`, record.cut ? `${count(record.cut)} more are cut off` : "",
      record.license || line.license, record.language,
    ].filter(Boolean).join(" · ");
    section.replaceChildren(datasets,
      el("div", { class: "which" },
        el("button", { type: "button", id: "before", onclick: () => go(-1), title: "the one before (k)" }, "←"),
        el("button", { type: "button", id: "after", onclick: () => go(1), title: "the next one (j)" }, "→"),
        el("code", {}, record.id), el("span", { class: "label" }, `${place + 1} of ${records.length} drawn`), el("span", { class: "label facts" }, facts)),
      record.refused ? el("p", { class: "none" }, `the chat template refuses it: ${record.refused}`) : report.tokens.draw(record),
      el("p", { class: "key" }, el("span", {}, el("ins", {}, el("i", {}, "learned")), " counts for the loss"),
        el("span", {}, el("i", { class: "control" }, "</s>"), " placed as an id, never from text"),
        el("span", {}, el("i", { class: "bytes" }, "<0xF0>"), " part of a character"), el("span", {}, "↵ newline, · a token of spaces")));
  }

  function go(step) {
    const { records, place, dataset } = open;
    if (!records.length) return;
    const next = records[(place + step + records.length) % records.length];
    location.hash = [dataset, next.id].map(encodeURIComponent).join("/");
  }

  function decoded(part) {
    try {
      return decodeURIComponent(part);
    } catch {
      return "";
    }
  }

  if (!report.about) {
    main.append("data/datasets.js is not there: copy the whole report folder, not the page alone");
    return;
  }
  draw();
  show().then(() => { if (location.hash) document.getElementById("shown").scrollIntoView(); });
  addEventListener("hashchange", async () => {
    await show();
    const section = document.getElementById("conversations").getBoundingClientRect();
    if (section.top > innerHeight - 160 || section.bottom < 0) document.getElementById("shown").scrollIntoView();
  });
  addEventListener("keydown", (event) => {
    if (event.metaKey || event.ctrlKey || event.altKey || event.target.closest("input, select, textarea")) return;
    if (event.key === "j" || event.key === "k") go(event.key === "j" ? 1 : -1);
  });
})();
