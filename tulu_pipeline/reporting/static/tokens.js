// A conversation token by token: borders between tokens, the supervised ones underlaid, control tokens as chips.
"use strict";

report.tokens = (() => {
  const { el } = report;

  // `record` has columns: ids, texts, what to show where it is not the text, a 0 or 1 per token, places of control ids.
  function draw(record) {
    const control = new Set(record.control);
    const box = el("div", { class: "tokens", tabindex: 0, "aria-label": "the conversation, token by token" });
    let run = null; // neighbors of one kind share an element, so that a reader hears where learning begins
    record.ids.forEach((id, place) => {
      const learned = record.supervised[place] === "1";
      if (!run || run.learned !== learned) {
        run = { learned, element: learned ? el("ins", { title: "learned" }) : el("span") };
        box.append(run.element);
      }
      const text = record.texts[place];
      const shown = record.shown[place] ?? text;
      const kind = control.has(place) ? "control" : shown !== text ? "bytes" : "";
      run.element.append(el("i", { class: kind, "data-place": place }, marked(shown)));
      if (text.includes("\n")) run.element.append(document.createElement("br"));
    });
    box.addEventListener("mouseover", (event) => {
      const place = event.target.dataset.place;
      if (place === undefined) return;
      event.target.title = `${JSON.stringify(record.texts[place])}  id ${record.ids[place]}, token ${Number(place) + 1} of ` +
        `${record.ids.length}${record.supervised[place] === "1" ? ", learned" : ""}`;
    });
    return box;
  }

  // What would not be seen gets a sign; the exact text is in the data and on hover.
  function marked(text) {
    const seen = text.replaceAll("\n", "↵").replaceAll("\t", "⇥").replaceAll("\r", "␍");
    return text.trim() ? seen : seen.replaceAll(" ", "·");
  }

  return { draw };
})();
