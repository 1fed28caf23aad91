"use strict";
// Where the page gets its data from: the pieces of `palpate bundle`, each a script because a
// browser lets a page from the disk load those and nothing else. Filters and sorts as sheet.py does.
const pieces = new Map();
const piece = (name, data) => pieces.set(name, data);
const source = (() => {
  const load = (name) =>
    new Promise((done, failed) => {
      if (pieces.has(name)) return done(pieces.get(name));
      const script = document.createElement("script");
      script.src = `data/${name}.js`;
      script.onload = () => {
        script.remove();
        pieces.has(name) ? done(pieces.get(name)) : failed(new Error(`data/${name}.js is damaged.`));
      };
      script.onerror = () => failed(new Error(`data/${name}.js is missing.`));
      document.head.append(script);
    });
  const column = (sheet, name) => {
    const found = sheet.columns.find((one) => one.name === name);
    if (!found) throw new Error(`There is no column ${name}.`);
    return found;
  };
  const select = (sheet, query) => {
    let rows = Array.from({ length: sheet.total }, (_, row) => row);
    for (const [name, word] of Object.entries(query.chosen)) {
      const one = column(sheet, name);
      const code = one.words.indexOf(word);
      rows = rows.filter((row) => one.values[row] === code);
    }
    const needle = query.text.trim().toLowerCase();
    if (needle) {
      const searched = sheet.columns
        .filter((one) => one.searched)
        .map((one) => [one.values, one.words.map((word) => word.toLowerCase().includes(needle))]);
      rows = rows.filter((row) => searched.some(([values, hits]) => hits[values[row]]));
    }
    if (!query.sort) return rows;
    const { values } = column(sheet, query.sort);
    const sign = query.down ? -1 : 1;
    return rows.sort((a, b) => {
      const [one, two] = [values[a], values[b]];
      if (one === null || two === null) return (one === null) - (two === null);
      return sign * (one - two);
    });
  };
  const page = (sheet, query) => {
    const rows = select(sheet, query);
    const part = rows.slice(query.start, query.start + query.count);
    const shown = (one, row) => (one.words ? one.words[one.values[row]] : one.values[row]);
    return {
      total: sheet.total,
      matched: rows.length,
      start: query.start,
      columns: sheet.columns,
      rows: part.map((row) => sheet.columns.map((one) => shown(one, row))),
    };
  };
  const cell = async (key) => {
    if (!/^[0-9a-f]{64}$/.test(key)) throw new Error("The run has no such cell.");
    return load(key);
  };
  return {
    run: () => load("run"),
    cells: async (query) => page(await load("cells"), query),
    cell: async (key) => (await cell(key)).head,
    samples: async (key, query) => {
      const { samples, problem } = await cell(key);
      if (!samples) throw new Error(problem);
      return page(samples, query);
    },
    pictures: async (key, sample, trial) => {
      const { cases } = await cell(key);
      const found = cases.find((one) => one.sample === sample && one.trial === trial);
      if (found?.problem) throw new Error(found.problem);
      return found ? found.pictures : [];
    },
  };
})();
