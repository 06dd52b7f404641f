// Samples: a table that is sorted and sifted, and a drawer with all that is known of one sample

const PAGE = 100;

function samples({ classes, num_classes: numClasses, sets, cells, sentiment, study, decimals, lacking }) {
  const run = at("sample-run"), search = at("sample-search"), table = at("sample-table"), more = at("sample-more"), count = at("sample-count");
  const result = at("sample-result"), target = at("sample-target"), said = at("sample-said"), group = at("sample-group");
  const regression = !classes.length;
  const shown = (value) => (value == null ? "–" : regression ? value.toFixed(decimals).replace("-", "−") : classes[value]);
  const percent = (thousandths) => `${(thousandths / 10).toFixed(1)} %`;
  let rows = [], visible = [], columns = [], order = { column: null, down: false }, limit = PAGE;

  function load() {
    const number = Number(run.value), cell = cells[number], { ids, targets } = sets[cell.set];
    const beside = cells.filter((each) => each.set === cell.set);
    rows = ids.map((id, place) => {
      const truth = targets ? targets[place] : null, prediction = cell.prediction[place];
      const row = { id, place, target: shown(truth), prediction: shown(prediction), values: { target: truth, prediction } };
      if (truth === null) {
        row.error = row.result = "";
      } else if (regression) {
        row.values.error = Math.abs(truth - prediction);
        row.error = row.values.error.toFixed(decimals);
        row.wrong = sentiment && truth * prediction < 0;
      } else {
        row.wrong = truth !== prediction;
        row.result = row.wrong ? "wrong" : "right";
      }
      if (cell.probabilities) {
        row.values.confidence = cell.probabilities[place][1];
        row.confidence = percent(row.values.confidence);
      }
      if (cell.withheld) row.withheld = cell.withheld.modalities.filter((_, bit) => cell.withheld.masks[place] >> bit & 1).join(", ");
      row.group = study?.groups?.[place] ?? "";
      row.text = study?.texts?.[place] ?? "";
      row.disputed = beside.some((each) => each.prediction[place] !== prediction);
      row.found = `${id}\n${row.target}\n${row.prediction}\n${row.group}\n${row.text}`.toLowerCase();
      return row;
    });
    columns = [["id", "id"], ["target", "target"], ["prediction", "prediction"]];
    if (cell.probabilities) columns.push(["confidence", "confidence"]);
    if (targets) columns.push(regression ? ["error", "absolute error"] : ["result", "result"]);
    if (study?.groups) columns.push(["group", "group"]);
    if (cell.withheld) columns.push(["withheld", "withheld"]);
    if (study?.texts) columns.push(["text", "transcript"]);
    choices(targets, beside);
    if (!columns.some(([key]) => key === order.column)) order = { column: null, down: false };
    head();
    show();
  }
  function choices(targets, beside) {
    const signed = regression && sentiment && targets?.some((value) => value < 0) && targets.some((value) => value > 0);
    const kinds = [["", "all"]];
    if (targets && !regression) kinds.push(["right", "right"], ["wrong", "wrong"]);
    if (signed) kinds.push(["wrong", "wrong sign"]);
    if (beside.length > 1 && !regression) kinds.push(["disputed", "runs disagree"]);
    const refill = (select, pairs) => {
      const before = select.value;
      select.replaceChildren(...pairs.map(([value, label]) => element("option", { value }, label)));
      select.value = pairs.some(([value]) => String(value) === before) ? before : "";
      select.parentElement.hidden = pairs.length < 2;
    };
    // Of very many classes those that occur.
    const named = (values) => (regression || !values ? [] : [...new Set(values)].filter((value) => value !== null).sort((a, b) => a - b).map((place) => [place, classes[place]]));
    refill(result, kinds);
    refill(target, [["", "any"], ...named(targets)]);
    refill(said, [["", "any"], ...named(rows.map((row) => row.values.prediction))]);
    const groups = study?.groups ? [...new Set(study.groups.filter((each) => each != null))] : [];
    groups.sort((a, b) => a.localeCompare(b, "en", { numeric: true }));
    refill(group, [["", "any"], ...groups.map((name) => [name, name])]);
  }
  function head() {
    const line = element("tr");
    for (const [key, title] of columns) {
      const button = element("button", { type: "button" }, title);
      button.addEventListener("click", () => {
        order = { column: key, down: order.column === key && !order.down };
        line.querySelectorAll("th").forEach((each) => each.removeAttribute("aria-sort"));
        button.parentElement.setAttribute("aria-sort", order.down ? "descending" : "ascending");
        show();
      });
      const cell = element("th", { scope: "col" }, button);
      if (order.column === key) cell.setAttribute("aria-sort", order.down ? "descending" : "ascending");
      line.append(cell);
    }
    table.replaceChildren(titled(cells[run.value].label), element("thead", {}, line), element("tbody"));
  }
  function compared(a, b) {
    const value = (row) => row.values[order.column] != null && (regression || order.column === "confidence") ? row.values[order.column] : row[order.column];
    const [left, right] = [value(a), value(b)];
    const ahead = typeof left === "number" && typeof right === "number" ? left - right : String(left).localeCompare(String(right), "en", { numeric: true });
    return order.down ? -ahead : ahead;
  }
  function sifted() {
    const wanted = search.value.trim().toLowerCase();
    const fits = (row) =>
      (result.value === "" || (result.value === "right" ? row.result === "right" : result.value === "wrong" ? row.wrong : row.disputed)) &&
      (target.value === "" || row.values.target === Number(target.value)) &&
      (said.value === "" || row.values.prediction === Number(said.value)) &&
      (group.value === "" || row.group === group.value) &&
      row.found.includes(wanted);
    const found = rows.filter(fits);
    if (order.column) found.sort(compared);
    return found;
  }
  function show() {
    const found = sifted();
    visible = found.slice(0, limit);
    table.tBodies[0].replaceChildren(...visible.map((row, place) => {
      const open = element("button", { type: "button", class: "open", "aria-haspopup": "dialog" }, held(row.id));
      const line = element("tr", { "data-place": place }, element("th", { scope: "row" }, open));
      for (const [key] of columns.slice(1)) {
        const cell = element("td", key === "result" && row.wrong ? { class: "wrong" } : {}, key === "text" ? clip(row.text, 90) : held(row[key]));
        if (key === "text") cell.className = "words";
        line.append(cell);
      }
      return line;
    }));
    const all = found.length === rows.length ? `${rows.length} samples` : `${found.length} of ${rows.length} samples`;
    count.textContent = visible.length < found.length ? `${all}, the first ${visible.length} shown` : all;
    more.hidden = visible.length === found.length;
  }
  function again() {
    limit = PAGE;
    show();
  }

  // The drawer

  const drawer = at("drawer"), body = at("drawer-body"), previous = at("drawer-previous"), following = at("drawer-following");
  let opened = -1;

  function bars(pairs, mark) {
    return element("ul", { class: "bars" }, ...pairs.map(([name, share, note]) => {
      const bar = element("span", { class: "bar" });
      bar.style.setProperty("--share", Math.max(0, Math.min(1, share / 1000)));
      return element("li", name === mark ? { class: "true" } : {}, element("span", { class: "name" }, name, note ? element("span", { class: "aside" }, ` ${note}`) : ""), bar, element("span", { class: "value" }, percent(share)));
    }));
  }
  function block(title, ...children) {
    return element("section", {}, element("h3", {}, title), ...children);
  }
  // A column of numbers is set as one.
  function lines(header, entries) {
    const figures = (place) => entries.every((entry) => /^([+−]?[\d.,]+( %| points)?|–|missing|)$/.test(entry[place + 1]));
    return element("table", {},
      element("thead", {}, element("tr", {}, ...header.map((name, place) => element("th", place && figures(place - 1) ? { scope: "col", class: "number" } : { scope: "col" }, name)))),
      element("tbody", {}, ...entries.map(([name, ...values]) => element("tr", {}, element("th", { scope: "row" }, held(name)), ...values.map((value, place) => element("td", figures(place) ? { class: "number" } : {}, value))))));
  }
  // What the corpus has of a sample, for those whose plan is not here.
  function tokens(place) {
    const entries = study.modalities.map((name, number) => {
      const found = study.tokens[place][number];
      if (!found) return [name, "missing", "", ""];
      const [length, seconds, words] = found;
      const ends = seconds ? `${seconds[0].toFixed(2)} s to ${seconds[1].toFixed(2)} s`.replaceAll("-", "−") : "";
      return [name, length.toLocaleString("en"), ends, words ? element("span", { class: "words-of" }, words.map((word) => study.words[word]).join(" ")) : ""];
    });
    const shown = [0, 1, 2, 3].filter((column) => column < 2 || entries.some((entry) => entry[column] !== ""));
    const header = ["modality", "tokens", "time", "words"];
    return element("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": "Tokens" }, lines(shown.map((column) => header[column]), entries.map((entry) => shown.map((column) => entry[column]))));
  }
  function lonely(place) {
    const present = study.modalities.filter((_, number) => study.tokens[place][number]);
    return present.length === 1 ? `This sample has ${present[0]} alone, so nothing is aligned.` : data.plans.length ? `This sample has no plan here. ${study.without_plan}` : study.without_plan;
  }
  function open(place) {
    opened = place;
    const row = visible[place], cell = cells[run.value];
    at("drawer-title").textContent = row.id;
    const facts = [["target", row.target], ["prediction", row.prediction]];
    if (row.error != null) facts.push(["absolute error", row.error]);
    if (row.result) facts.push(["result", row.result]);
    if (row.group) facts.push(["group", row.group]);
    if (row.withheld) facts.push(["withheld", row.withheld]);
    const parts = [element("dl", {}, ...facts.map(([name, value]) => element("div", {}, element("dt", {}, name), element("dd", {}, value))))];
    if (row.text) parts.push(block("Transcript", element("p", { class: "transcript", tabindex: 0 }, row.text)));
    if (cell.probabilities) {
      const flat = cell.probabilities[row.place], pairs = [];
      for (let at = 0; at < flat.length; at += 2) pairs.push([classes[flat[at]], flat[at + 1], flat[at] === row.values.target ? "true class" : ""]);
      parts.push(block("Probabilities", bars(pairs, row.target), pairs.length < numClasses ? element("p", { class: "aside" }, `The ${pairs.length} most probable of ${numClasses.toLocaleString("en")} classes.`) : ""));
    }
    const effects = study?.effects[row.place];
    if (effects && effects.length > 1) {
      const base = effects[0];
      const entries = effects.map(([name, value, share], number) => {
        const change = regression ? value - base[1] : (share - base[2]) / 10;
        const told = number ? `${change > 0 ? "+" : ""}${regression ? change.toFixed(decimals) : `${change.toFixed(1)} points`}`.replace("-", "−") : "";
        return regression ? [name, shown(value), told] : [name, shown(value), percent(share), told];
      });
      const header = regression ? ["", "prediction", "change"] : ["", "prediction", `probability of ${shown(base[1])}`, "change"];
      parts.push(block("Without each modality", element("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": "Without each modality" }, lines(header, entries))));
    } else if (study && !effects) parts.push(element("p", { class: "aside" }, "This sample was not predicted again without each modality."));
    const beside = cells.filter((each) => each.set === cell.set);
    if (beside.length > 1) parts.push(block("Predictions of all runs", element("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": "Predictions of all runs" }, lines(["run", "prediction"], beside.map((each) => [each.label, shown(each.prediction[row.place])])))));
    const plan = data.plans.find((each) => each.key === cell.key)?.samples.find((each) => each.id === row.id);
    const holder = element("div", { role: "group" });
    if (plan) parts.push(block("Transport plan", element("p", { class: "aside" }, plan.why), holder));
    else if (study) parts.push(block("Tokens", tokens(row.place)));
    const missing = study ? !plan && lonely(row.place) : lacking;
    if (missing) parts.push(element("p", { class: "aside" }, missing));
    body.replaceChildren(...parts);
    previous.disabled = place === 0;
    following.disabled = place === visible.length - 1;
    if (!drawer.open) drawer.showModal();
    body.scrollTop = 0;
    if (plan) planViewer(holder, `Transport plan of ${row.id}`).show(plan);
  }
  drawer.addEventListener("close", () => table.tBodies[0].rows[opened]?.querySelector("button").focus());
  drawer.addEventListener("click", (event) => { if (event.target === drawer) drawer.close(); });
  at("drawer-close").addEventListener("click", () => drawer.close());
  previous.addEventListener("click", () => open(opened - 1));
  following.addEventListener("click", () => open(opened + 1));
  table.addEventListener("click", (event) => {
    const line = event.target.closest("tbody tr");
    if (line) open(Number(line.dataset.place));
  });

  offer(run, cells.map((cell) => cell.label));
  run.parentElement.hidden = cells.length === 1;
  run.addEventListener("change", () => { limit = PAGE; load(); });
  for (const each of [search, result, target, said, group]) each.addEventListener("input", again);
  more.addEventListener("click", () => { limit += PAGE * 5; show(); });
  reveal("samples");
  load();
}

// One drawing of several

function forests() {
  const choice = at("forest-choice"), drawings = [...document.querySelectorAll("#forests .forest")];
  const show = () => drawings.forEach((drawing, place) => { drawing.hidden = place !== Number(choice.value); });
  offer(choice, drawings.map((drawing) => drawing.dataset.title));
  choice.addEventListener("input", show);
  choice.parentElement.hidden = drawings.length === 1;
  reveal("forests");
  show();
}

if (data.confusions.length) confusion(data.confusions);
if (data.plans.length) plans(data.plans);
if (data.samples) samples(data.samples);
if (at("forests")) forests();
