// Follows the address: the table, or the items of a cell.
"use strict";

(() => {
  const overview = document.getElementById("overview");
  const items = document.getElementById("items");
  const { state } = report;
  let scrolled = 0;

  report.draw = () => {
    report.frame.hideTip();
    const open = state.row !== "" && state.metric !== "";
    if (open && overview.hidden === false) scrolled = scrollY;
    overview.hidden = open;
    items.hidden = !open;
    if (open) report.itemsView.draw(items);
    else {
      report.overview.draw(overview);
      scrollTo(0, scrolled);
    }
  };

  function follow() {
    const place = report.readAddress();
    const { row, metric, item } = place;
    const same = Object.keys(place).every((part) => part === "item" || place[part] === state[part]);
    Object.assign(state, place);
    if (same && row && report.itemsView.isOpen()) report.itemsView.goTo(item);
    else report.draw();
  }

  function onKey(event) {
    if (event.metaKey || event.ctrlKey || event.altKey || event.target.closest("input, select, textarea")) return;
    if (event.key === "s") {
      const { scorers } = report.data.table;
      state.scorer = scorers[(scorers.indexOf(state.scorer) + 1) % scorers.length];
      report.draw();
    } else if (!state.row || !report.itemsView.onKey(event)) return;
    event.preventDefault();
  }

  if (!report.data) {
    overview.append("data/table.js is not there: copy the whole report folder, not the page alone");
    return;
  }
  addEventListener("hashchange", follow);
  addEventListener("keydown", onKey);
  follow();
})();
