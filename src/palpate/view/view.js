"use strict";
// The page over a run: two tables (cells, samples of one cell) and a case in a dialog. The state is
// in the address after #, so that back, reload and a bookmark work. Texts only ever become text.
const COUNT = 50;
const HIDDEN = { cells: ["key", "problem"], samples: [] };
const WITHOUT = {
  none: "The clean cell keeps no pictures.",
  faults: "Cells of faults keep no pictures.",
  others: "No picture of this row was kept: a run keeps the worst cases of a cell.",
};
const COLOURED = ["outcome", "verdict", "state"];
const $ = (id) => document.getElementById(id);
const make = (name, attributes = {}, ...inside) => {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (value !== false && value !== null) made.setAttribute(key, value === true ? "" : value);
  }
  made.append(...inside);
  return made;
};

let state = null; // what the address says
let page = null; // what the table shows
let asking = 0; // the newest question; older answers are dropped
let opened = -1; // row of the case in the dialog
let typing = 0;
let list = "#"; // the address of the list of cells that the reader left
let looking = 0; // the newest case asked for

function read() {
  const found = new URLSearchParams(location.hash.slice(1));
  const chosen = {};
  for (const [name, word] of found) if (name.startsWith("is.")) chosen[name.slice(3)] = word;
  return {
    cell: found.get("cell") ?? "",
    query: {
      text: found.get("text") ?? "",
      sort: found.get("sort"), // null: the order that suits the table
      down: found.get("down") === "1",
      start: Math.max(0, parseInt(found.get("start") ?? "0", 10) || 0),
      count: COUNT,
      chosen,
    },
  };
}

function address(cell, query) {
  const flat = new URLSearchParams();
  if (cell) flat.set("cell", cell);
  if (query.text) flat.set("text", query.text);
  if (query.sort !== null) flat.set("sort", query.sort);
  if (query.down) flat.set("down", "1");
  if (query.start) flat.set("start", query.start);
  for (const [name, word] of Object.entries(query.chosen)) flat.set(`is.${name}`, word);
  return `#${flat}`;
}

const go = (changes) => {
  const query = { ...state.query, start: 0, ...changes };
  history.replaceState(null, "", address(state.cell, query));
  return show();
};

const number = (value, kind) => {
  if (value === null) return "–";
  if (kind === "score") return value.toFixed(3).replace("-", "−");
  if (kind === "change") return value === 0 ? "0" : Number(value.toPrecision(3)).toString();
  return value.toLocaleString("en").replaceAll(",", "\u202f");
};
const shown = (value, column) => (column.kind === "text" ? value : number(value, column.kind));
const value = (row, name) => row[page.columns.findIndex((column) => column.name === name)];

function complain(error) {
  $("problem").textContent = error ? error.message : "";
  $("problem").hidden = !error;
}

async function show() {
  const own = ++asking;
  state = read();
  document.body.setAttribute("aria-busy", "true");
  try {
    const head = state.cell ? await source.cell(state.cell) : null;
    if (own !== asking) return;
    title(head);
    state.family = head?.family;
    const ready = !head || !["not run", "failed"].includes(head.state);
    page = null;
    complain(null);
    if (ready) {
      const found = await fetched(head);
      if (own !== asking) return;
      page = found;
    }
  } catch (error) {
    if (own !== asking) return;
    complain(error);
  }
  draw();
  document.body.removeAttribute("aria-busy");
}

function fetched(head) {
  const { query } = state;
  if (!head) return source.cells({ ...query, sort: query.sort ?? "" });
  state.query.sort ??= head.pictures ? "picture" : "outcome"; // the worst first
  return source.samples(state.cell, query);
}

function title(head) {
  $("home").hidden = !head;
  $("heading").textContent = head ? head.title : "Cells";
  document.title = `${head ? head.title : "Cells"} · ${$("label").textContent} · Palpate`;
  $("home").href = "#";
  const problem = head && head.state !== "done" ? `This cell is ${head.state}. ${head.problem}` : "";
  $("lead").textContent = problem || $("lead").dataset.run;
}

function draw() {
  const there = page !== null;
  for (const id of ["filters", "scroll", "previous", "next", "place", "keys"]) $(id).hidden = !there;
  if (!there) {
    $("status").textContent = "";
    return;
  }
  drawFilters();
  drawHead();
  drawBody();
  const { start, matched, total } = page;
  const last = start + page.rows.length;
  const noun = state.cell ? "rows" : "cells";
  $("status").textContent = matched === total ? `${number(total)} ${noun}` : `${number(matched)} of ${number(total)} ${noun}`;
  $("place").textContent = page.rows.length ? `${number(start + 1)} to ${number(last)}` : "nothing to show";
  $("previous").disabled = start === 0;
  $("next").disabled = last >= matched;
}

function drawFilters() {
  const { text, chosen } = state.query;
  const where = page.columns.filter((column) => column.searched).map((column) => column.title);
  $("where").textContent = `Find in ${where.join(", ")}`;
  const field = $("filters").elements.text;
  if (field !== document.activeElement) field.value = text;
  const had = $("choices").contains(document.activeElement) ? document.activeElement.name : "";
  const selects = page.columns
    .filter((column) => column.choices.length || column.name in chosen)
    .map((column) => {
      const now = chosen[column.name];
      const id = `is.${column.name}`;
      const select = make("select", { id, name: id }, make("option", { value: "" }, "all"));
      select.words = now === undefined || column.choices.includes(now) ? column.choices : [now, ...column.choices];
      select.words.forEach((word, place) => select.append(make("option", { value: place, selected: word === now }, word)));
      return make("div", { class: "field" }, make("label", { for: id }, column.title), select);
    });
  $("choices").replaceChildren(...selects);
  if (had) ($("filters").elements[had] ?? field).focus();
  $("clear").hidden = !text && !Object.keys(chosen).length;
}

const visible = () => {
  const hidden = HIDDEN[state.cell ? "samples" : "cells"];
  return page.columns.map((column, place) => [column, place]).filter(([column]) => !hidden.includes(column.name));
};

function drawHead() {
  const { sort, down } = state.query;
  const had = document.activeElement?.closest?.("thead") ? document.activeElement.dataset.sort : null;
  const heads = visible().map(([column]) => {
    const own = sort === column.name;
    const button = make("button", { type: "button", "data-sort": column.name }, column.title);
    const order = own ? (down ? "descending" : "ascending") : null;
    return make("th", { scope: "col", class: column.kind === "text" ? null : "number", "aria-sort": order }, button);
  });
  $("head").replaceChildren(make("tr", {}, ...heads));
  if (had) $("head").querySelector(`[data-sort="${CSS.escape(had)}"]`)?.focus();
}

function drawBody() {
  const columns = visible();
  const words = (row, column, place) => {
    if (column.name === "picture") return row[place] === null ? "" : `worst ${number(row[place] + 1)}`;
    return shown(row[place], column);
  };
  const rows = page.rows.map((row, index) => {
    const cells = columns.map(([column, place], nth) => {
      const text = words(row, column, place);
      const kind = column.kind === "text" ? null : "number";
      const word = COLOURED.includes(column.name) ? row[place] : null;
      if (nth) return make("td", { class: kind, "data-word": word }, text);
      const link = state.cell
        ? make("button", { type: "button", class: "open", tabindex: index ? "-1" : "0" }, text)
        : make("a", { href: address(value(row, "key"), { text: "", sort: null, chosen: {} }), "aria-label": called(row), class: "open", tabindex: index ? "-1" : "0" }, text);
      return make("th", { scope: "row" }, link);
    });
    return make("tr", { "data-row": index }, ...cells);
  });
  $("body").replaceChildren(...rows);
}

const called = (row) => ["model", "disturbance", "dose", "setting"].map((one) => value(row, one)).filter((one) => one && one !== "–").join(", ");
const openers = () => [...$("body").querySelectorAll(".open")];

function focusRow(index) {
  const all = openers();
  if (!all.length) return;
  const one = all[Math.max(0, Math.min(all.length - 1, index))];
  for (const other of all) other.tabIndex = other === one ? 0 : -1;
  one.focus();
}

async function turn(forward, row) {
  const start = page.start + (forward ? COUNT : -COUNT);
  if (start >= page.matched || page.start + (forward ? 0 : -1) < 0) return false;
  await go({ start: Math.max(0, start) });
  focusRow(row ?? 0);
  return true;
}

async function openCase(index) {
  opened = index;
  const row = page.rows[index];
  const sample = value(row, "sample");
  const trial = value(row, "trial") ?? 0;
  $("case").textContent = sample;
  const facts = visible().flatMap(([column, place]) =>
    column.name === "sample" || row[place] === null ? [] : [make("dt", {}, column.title), make("dd", {}, shown(column.name === "picture" ? row[place] + 1 : row[place], column))],
  );
  $("facts").replaceChildren(make("dt", {}, "cell"), make("dd", {}, $("heading").textContent), ...facts);
  $("before").disabled = page.start + index === 0;
  $("after").disabled = page.start + index + 1 >= page.matched;
  if (document.activeElement.disabled) $(index ? "before" : "after").focus();
  if (!$("dialog").open) $("dialog").showModal();
  $("shots").replaceChildren();
  const own = ++looking;
  let text = "";
  try {
    const found = await source.pictures(state.cell, sample, trial);
    if (own !== looking) return;
    $("shots").replaceChildren(
      ...found.map((one) => make("figure", {}, make("img", { src: one.source, alt: one.alt }), make("figcaption", {}, one.caption))),
    );
    text = found.length ? `${number(found.length)} pictures` : WITHOUT[state.family] ?? WITHOUT.others;
  } catch (error) {
    text = error.message;
  }
  if (own === looking) $("found").textContent = `Row ${number(page.start + index + 1)} of ${number(page.matched)}. ${text}`;
}

async function step(forward) {
  const next = opened + (forward ? 1 : -1);
  if (next >= 0 && next < page.rows.length) return openCase(next);
  const to = forward ? 0 : COUNT - 1;
  if (await turn(forward, to)) await openCase(Math.min(to, page.rows.length - 1));
}

function keys(event) {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const dialog = $("dialog").open;
  const inField = event.target.closest?.("input, select, textarea");
  const row = event.target.closest?.("tbody tr");
  const at = row ? Number(row.dataset.row) : -1;
  const last = page ? page.rows.length - 1 : -1;
  const moves = {
    ArrowDown: () => focusRow(at + 1),
    ArrowUp: () => focusRow(Math.max(0, at - 1)),
    Home: () => focusRow(0),
    End: () => focusRow(last),
    ArrowRight: () => turn(true),
    ArrowLeft: () => turn(false),
    PageDown: () => turn(true),
    PageUp: () => turn(false),
  };
  if (dialog) {
    if (event.key !== "ArrowRight" && event.key !== "ArrowLeft") return;
    step(event.key === "ArrowRight");
  } else if (event.key === "Escape") {
    if (inField?.value) return; // a search field empties itself first
    if (state.cell) back();
    else focusRow(0);
  } else if (event.key === "/" && !inField && page) {
    $("filters").elements.text.focus();
  } else if (inField && event.key === "ArrowDown" && inField.name === "text") {
    focusRow(0);
  } else if (!inField && page && row && moves[event.key]) {
    moves[event.key]();
  } else if (!inField && page && event.target === document.body && ["ArrowDown", "ArrowUp"].includes(event.key)) {
    focusRow(0);
  } else {
    return;
  }
  event.preventDefault();
}

function back() {
  location.hash = list;
}

async function arrive() {
  if (state && !state.cell) list = address("", state.query);
  const came = state?.cell;
  if ($("dialog").open) $("dialog").close();
  await show();
  if (state.cell && page) focusRow(0);
  else if (came && page) {
    const place = page.rows.findIndex((row) => value(row, "key") === came);
    focusRow(Math.max(0, place));
  }
}

$("filters").addEventListener("submit", (event) => event.preventDefault());
$("filters").addEventListener("reset", (event) => {
  event.preventDefault();
  $("filters").elements.text.value = "";
  $("filters").elements.text.focus();
  go({ text: "", chosen: {} });
});
$("filters").addEventListener("input", (event) => {
  const { name, value: now, words } = event.target;
  if (name === "text") {
    clearTimeout(typing);
    typing = setTimeout(() => go({ text: now }), 150);
    return;
  }
  const chosen = { ...state.query.chosen };
  if (now) chosen[name.slice(3)] = words[now];
  else delete chosen[name.slice(3)];
  go({ chosen });
});
$("head").addEventListener("click", (event) => {
  const name = event.target.dataset.sort;
  if (!name) return;
  const { sort, down } = state.query;
  go(sort !== name ? { sort: name, down: false } : down ? { sort: "", down: false } : { sort: name, down: true });
});
$("body").addEventListener("click", (event) => {
  const row = event.target.closest("tr");
  if (!row || String(getSelection())) return; // marking a text is no click
  const one = row.querySelector(".open");
  if (one.tagName === "A") {
    if (event.target !== one) one.click();
  } else openCase(Number(row.dataset.row));
});
$("body").addEventListener("focusin", (event) => {
  if (event.target.classList.contains("open")) for (const one of openers()) one.tabIndex = one === event.target ? 0 : -1;
});
$("skip").addEventListener("click", (event) => {
  event.preventDefault(); // the address after # is the state
  $("main").focus();
});
$("home").addEventListener("click", (event) => {
  event.preventDefault();
  back();
});
$("previous").addEventListener("click", () => turn(false));
$("next").addEventListener("click", () => turn(true));
$("before").addEventListener("click", () => step(false));
$("after").addEventListener("click", () => step(true));
$("close").addEventListener("click", () => $("dialog").close());
$("dialog").addEventListener("close", () => {
  looking++;
  focusRow(opened);
});
document.addEventListener("keydown", keys);
addEventListener("hashchange", arrive);

(async () => {
  try {
    const run = await source.run();
    $("label").textContent = run.label;
    const some = run.finished < run.cells ? `${number(run.finished)} of ${number(run.cells)} cells finished` : `${number(run.cells)} cells`;
    $("lead").dataset.run = `${some}, Palpate ${run.palpate}, ${run.created.slice(0, 10)}`;
    $("report").hidden = !run.report;
  } catch (error) {
    complain(error);
    return draw();
  }
  await show();
})();
