// The items of one cell: a list to search, filter and walk with the keyboard, and one item in full.
"use strict";

report.itemsView = (() => {
  const { el, points, interval, plusMinus } = report;
  const { state } = report;
  const CHUNK = 200; // list entries drawn at a time
  const FOLD = 400; // a shared beginning longer than this is folded away
  let current = { cell: "", items: [], beside: null, shown: [], first: 0, drawn: 0, unfolded: false };
  let scorer = ""; // the one shown: a metric without the chosen scorer is shown by the one that stands in for it

  const flagged = (flag) => (item) => item.flags.includes(flag);
  const FILTERS = [
    ["all", "all", () => true],
    ["right", "right", (item) => grade(item) === "right"],
    ["partly", "partly", (item) => grade(item) === "partly"],
    ["wrong", "wrong", (item) => grade(item) === "wrong"],
    ["undefined", "no score", (item) => grade(item) === "undefined"],
    ["flagged", "flagged", (item) => item.flags.length > 0],
    ["no_answer_found", "no answer found", flagged("no_answer_found")],
    ["empty", "empty", flagged("empty")],
    ["truncated", "truncated", flagged("truncated")],
    ["refused", "refused", flagged("refused")],
    ["judge_flipped", "judge flipped", flagged("judge_flipped")],
    ["unreadable", "reply unreadable", flagged("unreadable")],
    ["judge_missing", "no reply", flagged("judge_missing")],
    ["apart", "the two differ", (item) => difference(item) !== 0],
    ["gained", "gained", (item) => difference(item) > 0],
    ["lost", "lost", (item) => difference(item) < 0],
  ];
  const GLYPH = { right: "✓", wrong: "✗", partly: "◐", undefined: "·" };
  // Where a judge compares two answers nothing is right or wrong: one is preferred, or neither.
  const PREFERENCE = { right: "preferred", partly: "tied", wrong: "not preferred", undefined: "no verdict" };
  const PREFERRED = { right: "the model's answer", partly: "neither: a tie", wrong: "the reference's answer" };
  const compared = (item) => item.reply !== undefined && ["preference", "verdict", "annotator"].some((name) => name in item.reply);
  const gradeWord = (item, kind) => (compared(item) ? PREFERENCE[kind] : kind);

  async function draw(section) {
    const { row: name, metric } = state;
    scorer = report.cell(name, metric)?.views[state.scorer]?.score.scorer ?? state.scorer;
    const row = report.row(name);
    const cell = report.cell(name, metric);
    if (!row || !cell || !report.opens(name, metric)) return message(section, `there is no cell ${name}/${metric}`);
    const key = `${name}/${metric}`;
    if (current.cell !== key) {
      message(section, "loading…");
      try {
        const items = await report.load(key);
        if (state.row !== name || state.metric !== metric) return undefined; // the reader went on meanwhile
        current = { cell: key, items, beside: null, shown: [], first: 0, drawn: 0, unfolded: false };
      } catch (error) {
        return message(section, error.message);
      }
    }
    if (state.beside === name || !report.opens(state.beside, metric)) state.beside = "";
    const beside = state.beside && (await report.load(`${state.beside}/${metric}`));
    if (current.cell !== `${state.row}/${state.metric}`) return undefined;
    // What all items come to together (a win rate at equal length) no item has by itself.
    if (!Object.hasOwn(current.items[0]?.scores ?? {}, scorer)) scorer = report.data.table.scorers[0];
    current.beside = beside ? new Map(beside.map((item) => [item.id, item])) : null;
    current.position = new Map(current.items.map((item, index) => [item.id, index]));
    section.replaceChildren(header(row, cell), el("div", { class: "panes" },
      el("nav", { class: "list", "aria-label": "items" }, tools(), el("ol", { id: "list" })),
      el("article", { id: "item", tabindex: -1 })));
    narrow();
    return undefined;
  }

  function header(row, cell) {
    const { metric } = state;
    const view = cell.views[state.scorer];
    const rows = report.data.table.rows.filter((other) => report.opens(other.spec.name, metric));
    const metrics = report.data.table.columns.filter((column) => report.opens(row.spec.name, column.metric));
    const go = (name, next, item) => { location.hash = report.address(name, next, item); };
    const others = rows.filter((other) => other.spec.name !== row.spec.name);
    return el("header", { class: "bar" },
      el("a", { href: "#", class: "back", title: "back to the table (Esc)" }, "← table"),
      picker("model", rows.map((other) => [other.spec.name, report.fullName(other)]), row.spec.name,
        (name) => go(name, metric, state.item)),
      picker("metric", metrics.map((column) => [column.metric, column.title]), metric, (next) => go(row.spec.name, next, "")),
      view ? el("span", { class: `figure ${report.tone(view)}` }, el("b", {}, points(view.score.value)),
        el("small", {}, ` ${plusMinus(view.score)}`), el("small", {}, `  [${interval(view.score)}]  n = ${view.score.n}`)) : "",
      el("span", { class: "space" }),
      others.length ? picker("beside", [["", "nothing"], ...others.map((other) => [other.spec.name, report.fullName(other)])],
        state.beside, (name) => { state.beside = name; report.draw(); }) : "",
      report.scorerSwitch());
  }

  function picker(label, options, chosen, choose) {
    const select = el("select", { id: `pick-${label}`, onchange: (event) => { event.target.blur(); choose(event.target.value); } },
      ...options.map(([value, text]) => {
        const option = el("option", {}, text);
        option.value = value;
        option.selected = value === chosen;
        return option;
      }));
    return el("label", { class: "picker" }, el("span", { class: "label" }, label), select);
  }

  function tools() {
    let timer = 0;
    const search = el("input", {
      type: "search", id: "search", placeholder: "search  ( / )", "aria-label": "search prompts and completions",
      oninput: (event) => {
        clearTimeout(timer);
        timer = setTimeout(() => { state.query = event.target.value; narrow(); }, 120);
      },
      onkeydown: (event) => { if (event.key === "Enter" || event.key === "Escape") { event.stopPropagation(); event.target.blur(); } },
    });
    search.value = state.query;
    return el("div", { class: "filters" }, search, el("div", { id: "filters" }));
  }

  // Applies filter and search, redraws the list, keeps the chosen item where it is still shown.
  function narrow() {
    const words = current.items.some(compared) ? PREFERENCE : {};
    const filters = [...FILTERS, ...otherFlags()].map(([value, text, keep]) => [value, words[value] || text, keep]);
    const counts = filters.map(([value, text, keep]) => [value, text, current.items.filter(keep).length])
      .filter(([value, , count]) => count || value === "all" || value === "right" || value === "wrong");
    if (!counts.some(([value]) => value === state.filter)) state.filter = "all";
    document.getElementById("filters").replaceChildren(report.switchOf("filter",
      counts.map(([value, text, count]) => ({ value, text: `${text} ${count.toLocaleString("en")}`, title: TITLES[value] })),
      state.filter, (value) => { state.filter = value; narrow(); }));
    const keep = filters.find(([value]) => value === state.filter)[2];
    const wanted = state.query.trim().toLowerCase();
    current.shown = current.items.filter((item) => keep(item) && (!wanted || text(item).includes(wanted)));
    current.first = current.drawn = 0;
    document.getElementById("list").replaceChildren();
    more();
    const chosen = current.shown.find((item) => item.id === state.item) || current.shown[0];
    choose(chosen, { replace: true });
  }

  // Flags that this benchmark has beside those that every one has.
  function otherFlags() {
    const known = new Set(FILTERS.map(([value]) => value));
    const found = new Set(current.items.flatMap((item) => item.flags));
    return [...found].filter((flag) => !known.has(flag)).sort().map((flag) => [flag, flag.replaceAll("_", " "), flagged(flag)]);
  }

  const TITLES = {
    no_answer_found: "the scorer found nothing to compare",
    empty: "nothing but white space",
    truncated: "ran into the cap of new tokens",
    refused: "declined to answer",
    judge_flipped: "the judge's verdict changes with the order of the two answers",
    unreadable: "what the judge said could not be read",
    judge_missing: "the judge could not be asked",
    apart: "scores unlike the model beside it",
    partly: "scores between 0 and 1",
    undefined: "items this scorer leaves out",
    flagged: "something was odd: empty, truncated, no answer found",
    gained: "scores higher than the model beside it",
    lost: "scores lower than the model beside it",
  };

  // Draws the next entries of the list, or the ones before: only a part of a long list is ever in the page.
  function more(earlier = false) {
    const list = document.getElementById("list");
    for (const button of list.querySelectorAll(".more")) button.remove();
    if (earlier) {
      const first = Math.max(0, current.first - CHUNK);
      list.prepend(...current.shown.slice(first, current.first).map(entry));
      current.first = first;
    } else {
      const end = Math.min(current.shown.length, current.drawn + CHUNK);
      list.append(...current.shown.slice(current.drawn, end).map(entry));
      current.drawn = end;
    }
    const button = (count, text, act) => el("li", { class: "more" }, el("button", { type: "button", onclick: act }, `${count.toLocaleString("en")} ${text}`));
    if (current.first) list.prepend(button(current.first, "before", () => more(true)));
    const rest = current.shown.length - current.drawn;
    if (rest) list.append(button(rest, "more", () => more()));
    if (!current.shown.length) list.append(el("li", { class: "none" }, "no item matches"));
  }

  // Has the entry at `place` in the list; one that is far from what is drawn starts the list anew around it.
  function reveal(place) {
    if (place < current.first - CHUNK || place >= current.drawn + CHUNK) {
      current.first = current.drawn = Math.max(0, place - CHUNK / 4);
      document.getElementById("list").replaceChildren();
      more();
    }
    while (place >= current.drawn) more();
    while (place < current.first) more(true);
  }

  function entry(item) {
    const kind = grade(item);
    const change = difference(item);
    return el("li", {}, el("a", {
      href: address(item), class: kind, "data-item": item.id, tabindex: -1,
    },
    el("i", { class: "glyph", title: gradeWord(item, kind) }, GLYPH[kind]),
    el("span", { class: "id" }, item.id),
    change ? el("i", { class: change > 0 ? "gained" : "lost" }, change > 0 ? "▲" : "▼") : "",
    item.flags.length ? el("i", { class: "flag", title: item.flags.join(", ") }, "⚑") : "",
    el("span", { class: "snippet" }, snippet(item))));
  }

  function choose(item, { replace = false } = {}) {
    const article = document.getElementById("item");
    state.item = item ? item.id : "";
    if (!item) {
      article.replaceChildren(el("p", { class: "none" }, "no item matches: change the filter or the search"));
      return;
    }
    if (replace || location.hash === address(item)) history.replaceState(null, "", address(item));
    else location.hash = address(item);
    const place = current.shown.indexOf(item);
    reveal(place);
    for (const link of document.querySelectorAll("#list a")) {
      if (link.dataset.item === item.id) {
        link.setAttribute("aria-current", "true");
        link.scrollIntoView({ block: "nearest" });
      } else link.removeAttribute("aria-current");
    }
    article.replaceChildren(...full(item));
    article.scrollTop = 0;
  }

  // The address of an item as it is shown: with what stands beside it, and what the list is narrowed to.
  function address(item) {
    return report.address(state.row, state.metric, item.id, { beside: state.beside, filter: state.filter === "all" ? "" : state.filter });
  }

  function full(item) {
    const place = current.shown.indexOf(item);
    const other = current.beside?.get(item.id);
    const answers = [answer(item, report.row(state.row))];
    if (current.beside) answers.push(answer(other, report.row(state.beside)));
    return [
      el("header", {},
        el("h2", {}, item.id),
        item.group && item.group !== item.id ? el("span", { class: "group" }, item.group.replaceAll("_", " ")) : "",
        el("span", { class: "place" }, `${(place + 1).toLocaleString("en")} of ${current.shown.length.toLocaleString("en")}`),
        el("span", { class: "keys" }, el("kbd", {}, "j"), el("kbd", {}, "k"), " walk · ", el("kbd", {}, "p"), " prompt · ",
          el("kbd", {}, "s"), " scorer · ", el("kbd", {}, "/"), " search · ", el("kbd", {}, "Esc"), " table")),
      item.gold ? gold(item) : "",
      el("div", { class: answers.length > 1 ? "answers two" : "answers" }, ...answers),
      item.prompt !== undefined ? el("section", {}, el("h3", {}, "Prompt",
        el("small", {}, item.prompt_tokens ? `${item.prompt_tokens.toLocaleString("en")} tokens` : "",
          item.prompt_index ? `, ${item.prompt_index} exemplars dropped to fit` : "")), prompt(item))
        : el("p", { class: "none" }, "the completions of this cell are not at hand"),
    ].filter(Boolean);
  }

  function prompt(item) {
    const box = el("pre", { id: "prompt" });
    const cut = ownStart(item);
    if (!cut) return fill(box, item.prompt);
    const toggle = el("button", { type: "button", class: "fold", onclick: () => { current.unfolded = !current.unfolded; redraw(); } });
    const redraw = () => {
      toggle.textContent = current.unfolded ? "fold what neighboring items share (p)"
        : `${cut.toLocaleString("en")} characters shared with neighboring items: show (p)`;
      box.replaceChildren(toggle, el("span", { class: "shared" }, current.unfolded ? item.prompt.slice(0, cut) : ""), item.prompt.slice(cut));
    };
    redraw();
    return box;
  }

  // Where the item's own text begins, after what its neighbors share; at a paragraph, so that it is whole.
  function ownStart(item) {
    const cut = (item.prompt || "").lastIndexOf("\n\n", item.common - 2) + 2;
    return cut >= FOLD ? cut : 0;
  }

  function answer(item, row) {
    const name = current.beside ? el("h3", { class: "whose" }, report.fullName(row)) : "";
    if (!item) return el("section", {}, name, el("p", { class: "none" }, "was not asked this item"));
    return el("section", {}, name, verdict(item), item.texts === undefined ? "" : Object.keys(item.logprobs).length
      ? bars(item) : texts(item), item.reply ? reply(item.reply) : "");
  }

  // What a judge, or the run of a program, said of it; texts in full, the rest as name and value.
  function reply(said) {
    const facts = Object.entries(said).filter(([, value]) => typeof value !== "object" || value === null).map(fact);
    const parts = Object.entries(said).filter(([, value]) => typeof value === "object" && value !== null)
      .flatMap(([name, value]) => (Array.isArray(value) ? value.map((each) => [name, each]) : [[name, value]]));
    return el("div", {}, el("h3", {}, "Judge's reply"),
      el("dl", { class: "reply" }, ...facts.flatMap(([name, value]) => [el("dt", {}, name.replaceAll("_", " ")), el("dd", {}, saidText(value))])),
      ...parts.map(([name, value]) => {
        const { text, ...rest } = typeof value === "object" && value !== null ? value : { text: value };
        const about = Object.entries(rest).map(fact).map(([key, each]) => `${key.replaceAll("_", " ")} ${saidText(each)}`).join(", ");
        return el("div", {}, el("h4", {}, name.replaceAll("_", " "), about ? el("small", {}, about) : ""),
          text === undefined ? "" : el("pre", { class: "tall" }, saidText(text)));
      }));
  }

  // What a judge of two answers wrote in numbers and marks, in words.
  function fact([name, value]) {
    if (name === "preference") return ["preferred", { 1: PREFERRED.wrong, 1.5: PREFERRED.partly, 2: PREFERRED.right }[value] || "could not be read"];
    if (name === "verdict") return ["preferred", { loss: PREFERRED.wrong, tie: PREFERRED.partly, win: PREFERRED.right }[value] || saidText(value)];
    if (name === "model_first") return ["shown first:", value ? PREFERRED.right : PREFERRED.wrong];
    if (name === "flipped") return ["the order decides", value ? "yes" : "no"];
    return [name, value];
  }

  const saidText = (value) => (typeof value === "string" ? value : JSON.stringify(value));

  function verdict(item) {
    const scorers = Object.keys(item.scores);
    const ranked = compared(item);
    const taken = (each) => (ranked ? PREFERRED[grade(item, each)] || `nobody: ${item.extracted[each] || "no verdict"}`
      : item.extracted[each] ? el("code", {}, clipped(item.extracted[each], 300)) : el("span", { class: "none" }, "nothing"));
    return el("table", { class: "verdict" },
      el("tr", {}, el("th", {}, "scorer"), el("th", {}, "score"),
        el("th", {}, ranked ? "preferred" : "took for the answer")),
      ...scorers.map((each) => el("tr", { class: each === scorer ? "now" : "" },
        el("th", {}, each),
        el("td", { class: grade(item, each) }, `${GLYPH[grade(item, each)]} ${scoreText(item.scores[each])}`),
        el("td", {}, taken(each)))),
      item.flags.length ? el("tr", { class: "flags" }, el("th", {}, "flags"), el("td", { colspan: 2 },
        ...item.flags.map((flag) => el("span", { class: "chip" }, flag.replaceAll("_", " "))))) : "");
  }

  // Answers that others recorded come without counts of tokens.
  function tokens(item, index) {
    return item.prompt_tokens ? `${(item.completion_tokens[index] ?? 0).toLocaleString("en")} tokens, ` : "";
  }

  function texts(item) {
    return el("div", {}, ...item.texts.map((output, index) => el("div", {},
      el("h3", {}, item.texts.length > 1 ? `Completion ${index + 1} of ${item.texts.length}` : "Completion",
        el("small", {}, tokens(item, index),
          ENDED[item.finish_reasons[index] || ""] || `ended: ${item.finish_reasons[index]}`)),
      output.trim() ? marked(output, compared(item) ? "" : item.extracted[scorer]) : el("p", { class: "none" },
        output ? "nothing but white space" : "empty"))));
  }

  const ENDED = {
    stop: "ended by the model itself, or at a stop string",
    length: "cut off at the cap of new tokens",
    content_filter: "cut off by the server's filter",
    "": "how it ended is not recorded",
  };

  // The completion with the last place of the extracted answer marked.
  function marked(output, extracted) {
    const at = extracted && extracted.length < output.trim().length ? output.lastIndexOf(extracted) : -1;
    if (at < 0) return el("pre", { class: "completion" }, output);
    return el("pre", { class: "completion" }, output.slice(0, at), el("mark", {}, extracted), output.slice(at + extracted.length));
  }

  function bars(item) {
    const letters = Object.entries(item.logprobs);
    const chosen = item.extracted[scorer];
    return el("div", {}, el("h3", {}, "Probability of each choice"), el("table", { class: "bars" },
      ...letters.map(([letter, logprob]) => {
        const share = logprob === null ? 0 : Math.exp(logprob);
        const bar = el("i");
        bar.style.width = `${Math.max(0.4, 100 * share)}%`;
        const kind = letter === item.gold ? "gold" : letter === chosen ? "chosen" : "";
        return el("tr", { class: kind }, el("th", {}, letter), el("td", { class: "track" }, bar),
          el("td", { class: "share" }, `${(100 * share).toFixed(share < 0.001 ? 3 : 1)} %`),
          el("td", { class: "share" }, logprob === null ? "−∞" : logprob.toFixed(3)),
          el("td", { class: "note" }, [letter === chosen ? "chosen" : "", letter === item.gold ? "right answer" : ""].filter(Boolean).join(", ")));
      })));
  }

  function gold(item) {
    const value = item.gold;
    if (compared(item)) return el("section", {}, el("h3", {}, "Reference's answer, which it is compared with"), el("pre", { class: "tall" }, value));
    if (value.length < 120 && !value.includes("\n")) return el("p", { class: "gold" }, "Right answer ", el("code", {}, value));
    return el("section", {}, el("h3", {}, "Right answer, or the reference it is compared with"), el("pre", { class: "tall" }, value));
  }

  function step(by) {
    if (!current.shown.length) return;
    const at = current.shown.findIndex((item) => item.id === state.item);
    choose(current.shown[Math.min(current.shown.length - 1, Math.max(0, at + by))], { replace: true });
  }

  // The address changed to another item of the cell that is open.
  function goTo(id) {
    let item = current.shown.find((each) => each.id === id);
    if (!item && id && current.position.has(id)) {
      state.filter = "all";
      state.query = "";
      state.item = id;
      document.getElementById("search").value = "";
      narrow();
      return;
    }
    item ||= current.shown[0];
    choose(item, { replace: true });
  }

  const isOpen = () => current.cell === `${state.row}/${state.metric}` && document.getElementById("list") !== null;

  function onKey(event) {
    const page = document.getElementById("item");
    const actions = {
      j: () => step(1),
      ArrowDown: () => step(1),
      k: () => step(-1),
      ArrowUp: () => step(-1),
      "/": () => document.getElementById("search")?.focus(),
      p: () => page?.querySelector(".fold")?.click(),
      Escape: () => { location.hash = ""; },
    };
    if (!actions[event.key]) return false;
    actions[event.key]();
    return true;
  }

  function grade(item, by = scorer) {
    const score = item.scores[by];
    if (score === null || score === undefined) return "undefined";
    return score >= 1 ? "right" : score <= 0 ? "wrong" : "partly";
  }

  function difference(item) {
    const other = current.beside?.get(item.id);
    return other ? (item.scores[scorer] ?? 0) - (other.scores[scorer] ?? 0) : 0;
  }

  function snippet(item) {
    const said = item.texts?.[0]?.trim() || item.extracted[scorer] || "";
    return clipped(said.replace(/\s+/g, " "), 90);
  }

  // What the search looks through: the item's own text, not the exemplars it shares with its neighbors.
  function text(item) {
    item.text ??= [item.id, item.group, item.gold, (item.prompt || "").slice(ownStart(item)),
      ...(item.texts || []), ...Object.values(item.extracted), ...item.flags, item.reply ? JSON.stringify(item.reply) : ""].join("\n").toLowerCase();
    return item.text;
  }

  const clipped = (value, most) => (value.length > most ? `${value.slice(0, most - 1)}…` : value);
  const scoreText = (score) => (score === null ? "no score" : Number.isInteger(score) ? String(score) : score.toFixed(3));
  const fill = (box, ...children) => { box.append(...children); return box; };
  const message = (section, words) => {
    section.replaceChildren(el("header", { class: "bar" }, el("a", { href: "#", class: "back" }, "← table")),
      el("p", { class: "none message" }, words));
    current = { cell: "", items: [], beside: null, shown: [], first: 0, drawn: 0, unfolded: false };
  };

  return { draw, goTo, isOpen, onKey };
})();
