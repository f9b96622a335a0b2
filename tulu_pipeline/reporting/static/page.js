// What the other scripts share: the data as it arrives, the state of the page, elements, numbers as text.
"use strict";

const report = (() => {
  const SVG = "http://www.w3.org/2000/svg";
  const loaded = new Map(); // "row/metric" -> items, "shown:dataset" -> conversations
  const waiting = new Map(); // the same -> {promise, resolve}

  // What the page shows. `row`, `metric` and `item` are also in the address, after #.
  const state = { scorer: "", row: "", metric: "", item: "", filter: "all", query: "", beside: "" };

  const self = {
    data: null,
    about: null,
    trained: null,
    state,

    // Called by data/table.js.
    table(document) {
      self.data = document;
      state.scorer = document.table.scorers[0];
    },

    // Called by data/<cell>.js. Prompts come front-coded: [characters shared with the prompt before, the rest].
    items(cell, items) {
      let before = "";
      for (const item of items) {
        if (!item.prompt) continue;
        const [shared, rest] = item.prompt;
        item.shared = shared;
        item.prompt = before.slice(0, shared) + rest;
        before = item.prompt;
      }
      for (let i = 0; i < items.length; i++) {
        // The part of a prompt that its neighbors share too: the exemplars, folded away when an item is shown.
        items[i].common = Math.max(i > 0 ? items[i].shared || 0 : 0, (items[i + 1] && items[i + 1].shared) || 0);
      }
      arrived(cell, items);
    },

    // Called by data/datasets.js.
    datasets(document) {
      self.about = document;
    },

    // Called by data/trainings.js.
    trainings(document) {
      self.trained = document;
    },

    // Called by data/shown/<dataset>.js.
    shown(dataset, conversations) {
      arrived(`shown:${dataset}`, conversations);
    },

    // The items of a cell, and the conversations shown of a dataset.
    load: (cell) => fetched(cell, `data/${self.data.cells[cell]}.js`),
    loadShown: (dataset) => fetched(`shown:${dataset}`, `data/${self.about.files[dataset]}.js`),

    // An element. Children are elements or text; nothing here ever parses markup.
    el(tag, attributes = {}, ...children) {
      return fill(document.createElement(tag), attributes, children);
    },
    svg(tag, attributes = {}, ...children) {
      return fill(document.createElementNS(SVG, tag), attributes, children);
    },

    points: (value, digits = 1) => (100 * value).toFixed(digits),
    signed: (value) => `${value > 0 ? "+" : value < 0 ? "−" : "±"}${Math.abs(100 * value).toFixed(1)}`,
    plusMinus({ value, low, high }) {
      return low === null || high === null ? "" : `±${self.points(Math.max(high - value, value - low))}`;
    },
    interval: ({ low, high }) => (low === null || high === null ? "" : `${self.points(low)} to ${self.points(high)}`),

    // How a change reads: raised or lowered, and whether its interval leaves out zero.
    change(view) {
      const change = view && view.change;
      if (!change || Math.abs(change.value) < 1e-9) return { word: "", arrow: "", clear: false };
      const clear = change.low !== null && change.high !== null && (change.low > 0 || change.high < 0);
      const raised = change.value > 0;
      return { word: raised ? "raised" : "lowered", arrow: raised ? (clear ? "▲" : "△") : clear ? "▼" : "▽", clear };
    },
    // The color tells what is better, the arrow what is more: of ToxiGen's values the lower is better.
    tone(view) {
      const { word: direction, clear } = self.change(view);
      const better = (direction === "lowered") === Boolean(view?.change?.lower_is_better);
      const word = direction && (better ? "raised" : "lowered");
      return word && (clear ? word : `${word} pale`);
    },

    columns() {
      const { columns, average_rule: rule } = self.data.table;
      const named = columns.map((c) => ({ metric: c.metric, title: c.title + (c.lower_is_better ? " ↓" : "") }));
      return rule === "none" ? named : [...named, { metric: "average", title: "Average" }];
    },
    cells: (row) => (row.average ? [...row.cells, row.average] : row.cells),
    row: (name) => self.data.table.rows.find((row) => row.spec.name === name),
    cell: (name, metric) => self.row(name)?.cells.find((cell) => cell.metric === metric),
    column: (metric) => self.data.table.columns.find((column) => column.metric === metric),
    opens: (row, metric) => Object.hasOwn(self.data.cells, `${row}/${metric}`),
    fullName(row) {
      const { label, base_model: base } = row.spec;
      return !base || label === base ? label : `${base} · ${label}`;
    },

    // #row/metric/item, each part percent-encoded, and after ? what is not as usual: beside=row&filter=name.
    address(row, metric, item, options = {}) {
      const more = Object.entries(options).filter(([, value]) => value).map(([name, value]) => `${name}=${encodeURIComponent(value)}`);
      const place = [row, metric, item].filter(Boolean).map(encodeURIComponent).join("/");
      return `#${place}${more.length ? `?${more.join("&")}` : ""}`;
    },
    readAddress() {
      const [place, more = ""] = location.hash.slice(1).split("?");
      const [row = "", metric = "", item = ""] = place.split("/").map(decode);
      const options = more.split("&").map((pair) => pair.split("=")).filter(([name]) => name === "beside" || name === "filter");
      return { row, metric, item, ...Object.fromEntries(options.map(([name, value = ""]) => [name, decode(value)])) };
    },

    switchOf(label, options, chosen, choose) {
      const buttons = options.map(({ value, text, title }) =>
        self.el("button", { type: "button", "aria-pressed": value === chosen, title, onclick: () => choose(value) }, text));
      return self.el("div", { class: "switch", role: "group", "aria-label": label }, ...buttons);
    },
    scorerSwitch() {
      const { scorers } = self.data.table;
      if (scorers.length < 2) return "";
      const options = scorers.map((scorer) => ({ value: scorer, text: scorer, title: MEANING[scorer] }));
      return self.switchOf("scorer", options, state.scorer, (scorer) => {
        state.scorer = scorer;
        self.draw();
      });
    },
  };

  const MEANING = {
    paper: "as the original evaluation computed it, quirks included (key: s)",
    strict: "the same items with the original's quirks mended (key: s)",
    "ext:lm_eval": "as lm-evaluation-harness extracts and compares (key: s)",
    lc_minimal: "ours: the win rate at equal length, by a regression of two parameters; not the leaderboard's (key: s)",
  };

  function arrived(key, value) {
    loaded.set(key, value);
    waiting.get(key)?.resolve(value);
  }

  // Pages opened from disk cannot fetch, so a script is added that calls `items` or `shown` above.
  function fetched(key, file) {
    if (loaded.has(key)) return Promise.resolve(loaded.get(key));
    if (!waiting.has(key)) {
      const entry = {};
      entry.promise = new Promise((resolve, reject) => {
        entry.resolve = resolve;
        const script = document.createElement("script");
        script.src = file;
        script.onerror = () => {
          waiting.delete(key);
          reject(new Error(`${file} is not there`));
        };
        document.head.append(script);
      });
      waiting.set(key, entry);
    }
    return waiting.get(key).promise;
  }

  function fill(element, attributes, children) {
    for (const [name, value] of Object.entries(attributes)) {
      if (value === undefined || value === null || value === "") continue;
      if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
      else element.setAttribute(name, value);
    }
    element.append(...children.filter((child) => child !== "" && child !== null && child !== undefined));
    return element;
  }

  function decode(part) {
    try {
      return decodeURIComponent(part);
    } catch {
      return "";
    }
  }

  return self;
})();
