"use strict";
// Where the page gets its data from: the server of `palpate view`.
const source = (() => {
  const get = async (path, asked = {}) => {
    const query = new URLSearchParams(asked).toString();
    let answer;
    try {
      answer = await fetch(`data/${path}${query && "?" + query}`);
    } catch {
      throw new Error("The server does not answer; is palpate view still running?");
    }
    const data = await answer.json();
    if (!answer.ok) throw new Error(data.error);
    return data;
  };
  const asked = (query) => {
    const flat = { text: query.text, sort: query.sort, down: query.down ? 1 : 0, start: query.start, count: query.count };
    for (const [name, word] of Object.entries(query.chosen)) flat[`is.${name}`] = word;
    return flat;
  };
  return {
    run: () => get("run"),
    cells: (query) => get("cells", asked(query)),
    cell: (key) => get(`cell/${key}`),
    samples: (key, query) => get(`samples/${key}`, asked(query)),
    pictures: (key, sample, trial) => get(`case/${key}`, { sample, trial }),
  };
})();
