// What stands around every page: the tip that follows the pointer or the keyboard, and what the numbers rest on.
"use strict";

report.frame = (() => {
  const { el } = report;
  const tip = document.getElementById("tip");

  // Attributes of an element that shows `content()` beside it.
  function hover(content) {
    const show = (event) => {
      tip.replaceChildren(...content().filter(Boolean));
      tip.hidden = false;
      const around = event.currentTarget.getBoundingClientRect();
      const { width, height } = tip.getBoundingClientRect();
      const left = Math.min(Math.max(8, around.left + around.width / 2 - width / 2), innerWidth - width - 8);
      const below = around.bottom + 8 + height < innerHeight;
      tip.style.left = `${left + scrollX}px`;
      tip.style.top = `${(below ? around.bottom + 8 : around.top - height - 8) + scrollY}px`;
    };
    return { onmouseenter: show, onfocusin: show, onmouseleave: hideTip, onfocusout: hideTip };
  }

  function hideTip() {
    tip.hidden = true;
  }

  // `provenance`: of each part, its files and their sha256.
  function footer(provenance) {
    const lines = Object.entries(provenance).flatMap(([part, files]) => Object.entries(files).map(([file, value]) =>
      el("tr", {}, el("td", {}, part), el("td", {}, file), el("td", {}, el("code", {}, value)))));
    if (!lines.length) return "";
    return el("footer", {}, el("details", {},
      el("summary", {}, `What these numbers rest on: ${lines.length} files and their sha256`),
      el("div", { class: "scroll" }, el("table", { class: "provenance" }, ...lines))));
  }

  return { hover, hideTip, footer };
})();
