"use strict";
(() => {
  const read = (id) => JSON.parse(document.getElementById(id).textContent);
  const data = read("data"), images = read("images");
  if (!data.pages.length) return;
  const $ = (id) => document.getElementById(id);
  const ROW = 54;
  let shown = [], at = 0, system = data.main, boxes = true, zoomed = false;

  // Every element is made with textContent, so that nothing an answer holds can become markup.
  function make(tag, attributes = {}, ...children) {
    const node = tag === "svg" || tag === "rect" ? document.createElementNS("http://www.w3.org/2000/svg", tag) : document.createElement(tag);
    for (const [key, value] of Object.entries(attributes)) {
      if (value === null || value === undefined) continue;
      if (key === "class") node.setAttribute("class", value);
      else if (key.startsWith("on")) node.addEventListener(key.slice(2), value);
      else node.setAttribute(key, value);
    }
    node.append(...children.filter((child) => child !== null && child !== undefined));
    return node;
  }
  const isAbsent = (v) => v === null || v === undefined || (typeof v === "string" && !v.trim()) || (Array.isArray(v) && !v.length);
  const spell = (v) => (typeof v === "string" ? v : JSON.stringify(v));
  const cell = (v) => (isAbsent(v) ? make("span", { class: "none" }, "absent") : document.createTextNode(spell(v)));
  const dig = (value, path) => path.reduce((node, key) => (node && typeof node === "object" && !Array.isArray(node) ? node[key] : undefined), value);
  const pointerOf = (path) => path.map((key) => "/" + key.replace(/~/g, "~0").replace(/\//g, "~1")).join("");
  const right = (outcome) => outcome === "match" || outcome === "correct_absence";
  const outcomesOf = (page, name) => page.answers[name].outcomes.map((number) => data.outcomes[number]);
  const rowsExact = (page, array, name) => {
    const gold = dig(page.gold, array.path) || [], told = page.answers[name].rows[array.name];
    return told.pairs.length === gold.length && told.cells.length === gold.length && told.pairs.every((pair) => pair[2].every(Boolean));
  };
  const wrongNames = (page) => {
    const schema = data.schemas[page.type], outcomes = outcomesOf(page, data.main);
    return schema.fields.filter((_, i) => !right(outcomes[i])).map((f) => f.name)
      .concat(schema.arrays.filter((array) => !rowsExact(page, array, data.main)).map((array) => array.name));
  };
  for (const page of data.pages) {
    page.wrong = wrongNames(page);
    page.haystack = [page.id, page.document, page.vendor, JSON.stringify(page.gold), ...Object.values(page.answers).map((a) => JSON.stringify(a.values))].join("\n").toLowerCase();
  }

  function fill(select, values, any) {
    const before = select.value;
    select.replaceChildren(make("option", { value: "" }, any), ...values.map(([value, count]) => make("option", { value }, count === null ? value : `${value} (${count})`)));
    select.value = values.some(([value]) => value === before) ? before : "";
  }
  const countBy = (pages, key) => {
    const counts = new Map();
    for (const page of pages) for (const value of [].concat(key(page))) counts.set(value, (counts.get(value) || 0) + 1);
    return [...counts].sort((a, b) => b[1] - a[1] || (a[0] < b[0] ? -1 : 1));
  };
  function fillFilters() {
    fill($("f-type"), countBy(data.pages, (p) => p.type), "all");
    const type = $("f-type").value, pages = data.pages.filter((p) => !type || p.type === type);
    fill($("f-vendor"), countBy(pages, (p) => p.vendor), "all");
    fill($("f-stratum"), countBy(pages, (p) => p.stratum), "all");
    fill($("f-field"), countBy(pages, (p) => p.wrong), "any wrong");
    fill($("f-outcome"), ["wrong", "missing", "hallucinated", "rows", "not strict JSON"].map((v) => [v, null]), "any");
  }
  function passes(page) {
    const [type, vendor, stratum, field, outcome] = ["type", "vendor", "stratum", "field", "outcome"].map((name) => $("f-" + name).value);
    if (type && page.type !== type) return false;
    if (vendor && page.vendor !== vendor) return false;
    if (stratum && page.stratum !== stratum) return false;
    if (field && !page.wrong.includes(field)) return false;
    if (outcome === "not strict JSON") { if (page.answers[data.main].bucket === "strict") return false; }
    else if (outcome === "rows") { if (!data.schemas[page.type].arrays.some((array) => page.wrong.includes(array.name))) return false; }
    else if (outcome) {
      const outcomes = outcomesOf(page, data.main), fields = data.schemas[page.type].fields;
      if (!outcomes.some((found, i) => found === outcome && (!field || fields[i].name === field))) return false;
    }
    const words = $("f-text").value.trim().toLowerCase();
    return !words || page.haystack.includes(words);
  }

  function filter() {
    const current = shown[at];
    shown = data.pages.filter(passes);
    at = Math.max(0, shown.indexOf(current));
    $("count").textContent = `${shown.length} of ${data.pages.length} pages`;
    $("spacer").style.height = shown.length * ROW + "px";
    draw();
  }
  function drawList() {
    const list = $("list"), first = Math.max(0, Math.floor(list.scrollTop / ROW) - 4);
    const last = Math.min(shown.length, first + Math.ceil(list.clientHeight / ROW) + 9);
    $("spacer").replaceChildren(...shown.slice(first, last).map((page, k) => {
      const number = first + k, answer = page.answers[data.main];
      const what = answer.bucket !== "strict" ? answer.bucket + " answer" : page.wrong.join(", ") || (answer.extra_keys ? "extra keys" : "schema");
      return make("div", { class: "item", role: "option", id: "item-" + number, "aria-selected": number === at, style: `top:${number * ROW}px`, title: page.id, onclick: () => go(number) },
        make("b", {}, page.vendor + (page.stratum === "clean" ? "" : " · " + page.stratum)), make("span", {}, what));
    }));
  }
  function go(number) {
    if (!shown.length) return;
    at = Math.min(Math.max(0, number), shown.length - 1);
    const list = $("list"), top = at * ROW;
    if (top < list.scrollTop) list.scrollTop = top;
    else if (top + ROW > list.scrollTop + list.clientHeight) list.scrollTop = top + ROW - list.clientHeight;
    history.replaceState(null, "", "#page=" + encodeURIComponent(shown[at].id));
    draw();
  }
  function draw() {
    drawList();
    const page = shown[at];
    $("list").setAttribute("aria-activedescendant", page ? "item-" + at : "");
    for (const id of ["head", "stage", "sheet"]) $(id).replaceChildren();
    if (!page) { $("stage").append(make("p", { class: "empty" }, "No page fits these filters.")); return; }
    drawHead(page);
    drawSheet(page);
    drawStage(page);
  }
  function drawHead(page) {
    const told = [page.type, page.stratum + (page.what ? ` (${page.what})` : ""), page.page ? "page " + page.page : null];
    const answer = page.answers[system];
    if (answer.tokens !== undefined) told.push(answer.tokens + " tokens");
    if (answer.confidence !== undefined) told.push("confidence " + answer.confidence.toFixed(2));
    $("head").append(make("b", {}, page.vendor), make("span", { class: "muted" }, told.filter(Boolean).join(" · ")),
      make("code", { class: "muted", title: "document " + page.document }, page.id.length > 20 ? page.id.slice(0, 16) + "…" : page.id),
      make("span", { class: "muted" }, `${at + 1} of ${shown.length}`),
      make("div", { class: "tabs", role: "group", "aria-label": "System" }, ...data.systems.map((name) =>
        make("button", { type: "button", "aria-pressed": name === system, onclick: () => { system = name; draw(); } }, name + (page.answers[name].exact ? " ✓" : " ✗")))));
  }

  function drawSheet(page) {
    const answer = page.answers[system], schema = data.schemas[page.type], outcomes = outcomesOf(page, system), sheet = $("sheet");
    if (answer.problem) sheet.append(make("p", { class: "problem" }, make("b", {}, answer.bucket + " answer: "), answer.problem), make("pre", { class: "raw" }, answer.raw || "(nothing)"));
    if (answer.extra_keys) sheet.append(make("p", { class: "problem" }, make("b", {}, "keys that the schema does not have: "), answer.extra_keys.join(", ")));
    const others = data.systems.filter((name) => name !== system);
    const body = make("tbody");
    schema.fields.forEach((field, i) => {
      const gold = dig(page.gold, field.path), outcome = outcomes[i];
      const row = make("tr", { class: right(outcome) ? "" : "bad", "data-pointer": pointerOf(field.path) },
        make("th", { scope: "row", title: field.type }, field.name), make("td", {}, cell(gold)), make("td", {}, ...difference(gold, answer.values[i], outcome)),
        make("td", { class: "mark " + outcome }, (right(outcome) ? "✓ " : "✗ ") + data.words[data.outcomes.indexOf(outcome)]));
      if (others.length) row.append(make("td", { class: "mark others" }, ...others.map((name) => {
        const ok = right(outcomesOf(page, name)[i]);
        return make("span", { style: `color:${data.colors[name]}`, title: `${name}: ${isAbsent(page.answers[name].values[i]) ? "absent" : spell(page.answers[name].values[i])}` }, ok ? "✓" : "✗");
      })));
      hoverLights(row);
      body.append(row);
    });
    sheet.append(make("table", {}, make("thead", {}, make("tr", {}, ...["field", "gold", system, "outcome"].map((word) => make("th", { scope: "col" }, word)),
      others.length ? make("th", { scope: "col", title: others.join(", ") }, "others") : null)), body));
    for (const array of schema.arrays) drawRows(page, array, answer.rows[array.name]);
  }
  function drawRows(page, array, told) {
    const gold = dig(page.gold, array.path) || [], partner = new Map(told.pairs.map((pair) => [pair[0], pair]));
    const taken = new Set(told.pairs.map((pair) => pair[1])), body = make("tbody");
    if (!gold.length && !told.cells.length) return;
    gold.forEach((row, i) => {
      const pair = partner.get(i);
      const line = make("tr", { class: pair ? "" : "bad", "data-pointer": pointerOf([...array.path, String(i)]) }, make("td", { class: "mark " + (pair ? "" : "missing") }, pair ? String(i + 1) : "missing"),
        ...array.columns.map((column, k) => {
          const want = dig(row, column.path);
          if (!pair) return make("td", {}, cell(want));
          if (pair[2][k]) return make("td", {}, cell(told.cells[pair[1]][k]));
          return make("td", { class: "cell-bad" }, make("div", {}, cell(want)), make("div", {}, "✗ ", cell(told.cells[pair[1]][k])));
        }));
      hoverLights(line);
      body.append(line);
    });
    told.cells.forEach((cells, j) => {
      if (taken.has(j)) return;
      body.append(make("tr", { class: "bad" }, make("td", { class: "mark hallucinated" }, "invented"), ...cells.map((value) => make("td", {}, cell(value)))));
    });
    $("sheet").append(make("table", {}, make("caption", {}, `${array.name}: ${gold.length} rows asked, ${told.cells.length} answered`),
      make("thead", {}, make("tr", {}, make("th", { scope: "col" }, ""), ...array.columns.map((column) => make("th", { scope: "col" }, column.name)))), body));
  }
  // What differs, between the longest common beginning and end.
  function difference(gold, said, outcome) {
    if (outcome !== "wrong" || typeof gold !== "string" || typeof said !== "string") return [cell(said)];
    let head = 0, tail = 0;
    while (head < Math.min(gold.length, said.length) && gold[head] === said[head]) head++;
    while (tail < Math.min(gold.length, said.length) - head && gold[gold.length - 1 - tail] === said[said.length - 1 - tail]) tail++;
    return [said.slice(0, head), make("ins", {}, said.slice(head, said.length - tail) || "\u2038"), said.slice(said.length - tail)];
  }

  function boxesOf(page) {
    const schema = data.schemas[page.type], outcomes = outcomesOf(page, system), state = new Map();
    schema.fields.forEach((field, i) => state.set(pointerOf(field.path), right(outcomes[i])));
    for (const array of schema.arrays) {
      const told = page.answers[system].rows[array.name], base = pointerOf(array.path);
      for (const [i, , equal] of told.pairs) array.columns.forEach((column, k) => state.set(`${base}/${i}${pointerOf(column.path)}`, !!equal[k]));
    }
    return Object.entries(page.boxes).flatMap(([pointer, found]) => found.map((box) => ({ pointer, box, ok: state.get(pointer) === true })));
  }
  function drawStage(page) {
    const stage = $("stage");
    stage.classList.toggle("zoomed", zoomed);
    if (!page.image) { stage.append(make("p", { class: "empty" }, "This report has no picture of the page.")); return; }
    const picture = make("img", { src: images[page.image] || `pages/${page.image}.jpg`, alt: `Page of ${page.vendor}` });
    const holder = make("div", { class: "sheet-page" }, picture);
    if (boxes && page.width) {
      const layer = make("svg", { viewBox: `0 0 ${page.width} ${page.height}`, preserveAspectRatio: "none", "aria-hidden": "true" });
      for (const { pointer, box, ok } of boxesOf(page)) {
        const rect = make("rect", { x: box[0] - 3, y: box[1] - 3, width: box[2] - box[0] + 6, height: box[3] - box[1] + 6, rx: 2, class: ok ? "box-right" : "box-wrong", "data-pointer": pointer });
        hoverLights(rect);
        layer.append(rect);
      }
      holder.append(layer);
    }
    picture.addEventListener("error", () => stage.replaceChildren(make("p", { class: "empty" }, `pages/${page.image}.jpg is not beside this report.`)));
    stage.append(holder);
  }
  // A row of the table and the words on the page light up together.
  function hoverLights(node) {
    const light = (on) => () => {
      const pointer = node.dataset.pointer;
      for (const other of document.querySelectorAll("#stage [data-pointer], #sheet [data-pointer]"))
        if (other.dataset.pointer === pointer || (other.dataset.pointer.startsWith(pointer + "/")) || pointer.startsWith(other.dataset.pointer + "/")) other.classList.toggle("lit", on);
    };
    node.addEventListener("mouseenter", light(true));
    node.addEventListener("mouseleave", light(false));
  }

  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (/^(INPUT|SELECT|TEXTAREA)$/.test(event.target.tagName)) { if (event.key === "Escape") event.target.blur(); return; }
    const step = { j: 1, ArrowDown: 1, ArrowRight: 1, k: -1, ArrowUp: -1, ArrowLeft: -1, PageDown: 10, PageUp: -10 }[event.key];
    const inBrowser = document.getElementById("browser").contains(document.activeElement);
    if (step && (inBrowser || event.key === "j" || event.key === "k")) { go(at + step); event.preventDefault(); }
    else if (event.key === "s") { system = data.systems[(data.systems.indexOf(system) + 1) % data.systems.length]; draw(); }
    else if (event.key === "b") { boxes = !boxes; draw(); }
    else if (event.key === "z") { zoomed = !zoomed; draw(); }
    else if (event.key === "/") { $("f-text").focus(); event.preventDefault(); }
  });
  $("list").addEventListener("scroll", drawList);
  window.addEventListener("resize", drawList);
  $("filters").addEventListener("submit", (event) => event.preventDefault());
  $("filters").addEventListener("input", () => { fillFilters(); filter(); });
  fillFilters();
  filter();
  const wanted = decodeURIComponent((location.hash.match(/^#page=(.*)$/) || [])[1] || "");
  const found = shown.findIndex((page) => page.id === wanted);
  if (found >= 0) { go(found); $("browser").scrollIntoView(); }
})();
