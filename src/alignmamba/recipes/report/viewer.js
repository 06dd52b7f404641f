"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const at = (id) => document.getElementById(id);

  // Text goes in as text only, never as markup.
  function element(name, attributes = {}, ...children) {
    const made = document.createElement(name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    made.append(...children);
    return made;
  }
  function drawn(name, attributes = {}, ...children) {
    const made = document.createElementNS("http://www.w3.org/2000/svg", name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    made.append(...children);
    return made;
  }
  function offer(select, labels) {
    select.replaceChildren(...labels.map((label, place) => element("option", { value: place }, label)));
  }
  function held(text) {
    return element("span", { class: "held" }, text);
  }
  function titled(title, text = "") {
    return element("caption", {}, element("span", { class: "told" }, element("strong", {}, title), text));
  }
  function reveal(id) {
    at(id).querySelector(".interactive").hidden = false;
  }

  // Confusion matrices

  function confusion(rows) {
    const row = at("confusion-row"), seed = at("confusion-seed"), table = at("confusion-table");

    function sum(cells) {
      return cells[0].counts.map((line, i) => line.map((_, j) => cells.reduce((total, cell) => total + cell.counts[i][j], 0)));
    }
    function show() {
      const { label, cells } = rows[row.value];
      const chosen = seed.value === "all" ? cells : [cells[seed.value]];
      const { classes } = chosen[0];
      const head = element("tr", {}, element("th", { scope: "col" }, held("true class")));
      classes.forEach((name) => head.append(element("th", { scope: "col" }, held(`as ${name}`))));
      head.append(element("th", { scope: "col" }, "samples"));
      const body = element("tbody");
      sum(chosen).forEach((line, i) => {
        const total = line.reduce((a, b) => a + b, 0);
        const shown = element("tr", {}, element("th", { scope: "row" }, held(classes[i])));
        line.forEach((count, j) => {
          const share = total ? count / total : 0;
          const cell = element("td", i === j ? { class: "right" } : {}, String(count));
          cell.append(element("span", { class: "below" }, `${Math.round(100 * share)} %`));
          cell.style.setProperty("--share", share.toFixed(3));
          shown.append(cell);
        });
        shown.append(element("td", { class: "sum" }, String(total)));
        body.append(shown);
      });
      const which = chosen.length > 1 ? `${chosen.length} seeds together` : `seed ${chosen[0].seed}`;
      const caption = titled(label, `, ${which}: samples by true and predicted class, and the share of the true class.`);
      table.replaceChildren(caption, element("thead", {}, head), body);
    }
    function seeds() {
      const { cells } = rows[row.value];
      offer(seed, cells.map((cell) => String(cell.seed)));
      // Matrices of different classes cannot be added.
      const alike = cells.every((cell) => String(cell.classes) === String(cells[0].classes));
      if (cells.length > 1 && alike) seed.prepend(element("option", { value: "all" }, "all together"));
      seed.selectedIndex = 0;
      show();
    }
    offer(row, rows.map((each) => each.label));
    row.addEventListener("change", seeds);
    seed.addEventListener("change", show);
    reveal("confusion");
    seeds();
  }

  // Transport plans

  const LANE = 26, REACH = 130, MARGIN = 18;

  function tokenName(side, place, { bare = false } = {}) {
    const time = side.times?.[place], text = side.tokens?.[place];
    return `${bare ? "" : `${side.modality} token `}${place}${text == null ? "" : ` '${text}'`}${time == null ? "" : ` (${time.toFixed(2)} s)`}`;
  }
  function similarity(value) {
    return value == null ? "unknown" : (Math.round(100 * value) / 100 + 0).toFixed(2).replace("-", "−");
  }
  function sentence(side, other, place, matches, arrow) {
    const start = `${tokenName(side, place)} ${arrow}`;
    if (!matches.length) return `${start} nothing in ${other.modality}`;
    if (matches.length === 1) return `${start} ${tokenName(other, matches[0].place)}, similarity ${similarity(matches[0].value)}`;
    const named = matches.slice(0, 6).map((match) => `${tokenName(other, match.place, { bare: true })} similarity ${similarity(match.value)}`);
    const more = matches.length > 6 ? `; and ${matches.length - 6} more` : "";
    return `${start} ${other.modality} tokens ${named.join("; ")}${more}`;
  }

  function plans(runs) {
    const run = at("plan-run"), sample = at("plan-sample"), lanes = at("plan-lanes"), line = at("plan-line"), facts = at("plan-facts");
    const measure = document.createElement("canvas").getContext("2d");
    measure.font = "12px system-ui, sans-serif";

    function shortened(text) {
      const characters = Array.from(text);
      return characters.length > 16 ? `${characters.slice(0, 15).join("")}…` : text;
    }
    function widths(side) {
      return Array.from({ length: side.length }, (_, place) =>
        side.tokens ? Math.max(14, measure.measureText(shortened(side.tokens[place])).width + 10) : 9);
    }
    // Centres of the tokens, spread over the whole width.
    function centres(sizes, width) {
      const room = width - 2 * MARGIN - sizes.reduce((a, b) => a + b, 0);
      const gap = room / sizes.length;
      let left = MARGIN + gap / 2;
      return sizes.map((size) => { const centre = left + size / 2; left += size + gap; return centre; });
    }
    function ticks(side, places, height) {
      const made = [];
      let last = -Infinity;
      places.forEach((x, place) => {
        if (x - last < 56) return;
        const time = side.times?.[place];
        made.push(drawn("text", { class: "tick", x, y: height }, time == null ? String(place) : `${time.toFixed(1)} s`));
        last = x;
      });
      return made;
    }

    function lanePair(source, anchor) {
      const links = source.index.map((other, own) => ({
        source: source.marginal === "source" ? own : other,
        anchor: source.marginal === "source" ? other : own,
        value: source.similarity[own],
      })).filter((link) => link.source >= 0 && link.anchor >= 0);
      const known = links.map((link) => link.value).filter((value) => value != null);
      const low = Math.min(...known), high = Math.max(...known);
      const box = element("div", { class: "scroll" });
      const holder = element("div", { class: "lanes" }, element("h3", {}, `${source.modality} → ${anchor.modality}`), box);
      lanes.append(holder);
      const sizes = { source: widths(source), anchor: widths(anchor) };
      const natural = (all) => 2 * MARGIN + all.reduce((a, b) => a + b + 2, 0);
      const width = Math.max(box.clientWidth, natural(sizes.source), natural(sizes.anchor));
      const tops = { source: 18, anchor: 18 + LANE + REACH };
      const height = tops.anchor + LANE + 18;
      const svg = drawn("svg", { width, height, viewBox: `0 0 ${width} ${height}`, role: "group", "aria-label": `Plan from ${source.modality} to ${anchor.modality}` });
      const places = { source: centres(sizes.source, width), anchor: centres(sizes.anchor, width) };
      svg.append(...ticks(source, places.source, 12), ...ticks(anchor, places.anchor, height - 4));
      for (const link of links) {
        const from = places.source[link.source], to = places.anchor[link.anchor], top = tops.source + LANE, end = tops.anchor, middle = (top + end) / 2;
        const shade = link.value == null || high === low ? 0.6 : 0.12 + 0.78 * (link.value - low) / (high - low);
        link.drawn = drawn("path", { class: "link", d: `M${from} ${top}C${from} ${middle} ${to} ${middle} ${to} ${end}`, "stroke-opacity": shade.toFixed(2) });
        svg.append(link.drawn);
      }
      const tokens = {};
      for (const [kind, side] of [["source", source], ["anchor", anchor]]) {
        const lane = drawn("g", { role: "listbox", "aria-orientation": "horizontal", "aria-label": `${side.modality} tokens, ${kind}` });
        tokens[kind] = places[kind].map((x, place) => {
          const size = sizes[kind][place];
          const token = drawn("g", { class: "token", role: "option", tabindex: place ? -1 : 0, "aria-selected": "false", "aria-label": tokenName(side, place), "data-kind": kind, "data-place": place },
            drawn("rect", { x: x - size / 2, y: tops[kind], width: size, height: LANE, rx: 3 }));
          if (side.tokens) token.append(drawn("text", { x, y: tops[kind] + 17 }, shortened(side.tokens[place])));
          return token;
        });
        lane.append(...tokens[kind]);
        svg.append(lane);
      }

      function matchesOf(kind, place) {
        const other = kind === "source" ? "anchor" : "source";
        return links.filter((link) => link[kind] === place).map((link) => ({ place: link[other], value: link.value, link, token: tokens[other][link[other]] }));
      }
      function pick(kind, place) {
        lanes.querySelectorAll(".on, .match, .picking").forEach((each) => each.classList.remove("on", "match", "picking"));
        lanes.querySelectorAll('[aria-selected="true"]').forEach((each) => each.setAttribute("aria-selected", "false"));
        svg.classList.add("picking");
        const token = tokens[kind][place], matches = matchesOf(kind, place);
        token.classList.add("on");
        token.setAttribute("aria-selected", "true");
        for (const match of matches) {
          match.token.classList.add("match");
          match.link.drawn.classList.add("on");
        }
        line.textContent = kind === "source" ? sentence(source, anchor, place, matches, "→") : sentence(anchor, source, place, matches, "←");
      }
      function go(kind, place) {
        tokens[kind].forEach((token, each) => token.setAttribute("tabindex", each === place ? 0 : -1));
        tokens[kind][place].focus();
        tokens[kind][place].scrollIntoView({ block: "nearest", inline: "nearest" });
      }
      const where = (event) => {
        const token = event.target.closest(".token");
        return token && [token.dataset.kind, Number(token.dataset.place)];
      };
      const onToken = (act) => (event) => { const found = where(event); if (found) act(...found); };
      // Not pointerover, which also comes when the page is scrolled under a pointer that rests.
      box.addEventListener("pointermove", onToken((kind, place) => {
        if (!tokens[kind][place].classList.contains("on")) pick(kind, place);
      }));
      box.addEventListener("focusin", onToken(pick));
      box.addEventListener("click", onToken(go));
      box.addEventListener("keydown", (event) => {
        const found = where(event);
        if (!found) return;
        const [kind, place] = found, last = tokens[kind].length - 1;
        const along = { ArrowLeft: Math.max(0, place - 1), ArrowRight: Math.min(last, place + 1), Home: 0, End: last };
        const across = { ArrowUp: "anchor", ArrowDown: "source" };
        if (event.key in along) go(kind, along[event.key]);
        else if (across[event.key] === kind) {
          const match = matchesOf(kind, place)[0];
          if (match) go(kind === "source" ? "anchor" : "source", match.place);
        } else return;
        event.preventDefault();
      });
      box.append(svg);
    }

    function show() {
      const chosen = runs[run.value].samples[sample.value];
      const parts = [`${runs[run.value].label}, sample ${chosen.id}:`, `target ${chosen.target ?? "unknown"}, prediction ${chosen.prediction ?? "unknown"}.`, chosen.why && `(${chosen.why})`];
      facts.textContent = parts.filter(Boolean).join(" ");
      line.textContent = "Choose a token.";
      lanes.replaceChildren();
      chosen.sources.forEach((source) => lanePair(source, chosen.anchor));
    }
    function samples() {
      offer(sample, runs[run.value].samples.map((each) => each.id));
      show();
    }
    offer(run, runs.map((each) => each.label));
    run.addEventListener("change", samples);
    sample.addEventListener("change", show);
    reveal("plans");
    samples();
  }

  // Samples

  const PAGE = 100;

  function samples({ classes, sets, cells }) {
    const run = at("sample-run"), search = at("sample-search"), wrong = at("sample-wrong"), table = at("sample-table"), more = at("sample-more"), count = at("sample-count");
    const regression = !classes.length;
    const shown = (value) => (value == null ? "–" : regression ? String(value) : classes[value]);
    let rows = [], columns = [], order = { column: null, down: false }, limit = PAGE;

    function load() {
      const cell = cells[run.value], { ids, targets } = sets[cell.set];
      rows = ids.map((id, place) => {
        const target = targets ? targets[place] : null, prediction = cell.prediction[place];
        const row = { id, target: shown(target), prediction: shown(prediction), values: { target, prediction } };
        if (targets && regression) {
          row.values.error = Math.abs(target - prediction);
          row.error = row.values.error.toPrecision(3);
          row.wrong = target * prediction < 0;
        } else if (targets) {
          row.wrong = target !== prediction;
          row.result = row.wrong ? "wrong" : "correct";
        }
        if (cell.withheld) row.withheld = cell.withheld.modalities.filter((_, bit) => cell.withheld.masks[place] >> bit & 1).join(", ");
        row.text = `${id}\n${row.target}\n${row.prediction}`.toLowerCase();
        return row;
      });
      columns = [["id", "id"], ["target", "target"], ["prediction", "prediction"]];
      if (targets) columns.push(regression ? ["error", "absolute error"] : ["result", "result"]);
      if (cell.withheld) columns.push(["withheld", "withheld"]);
      const signed = targets && (!regression || (targets.some((value) => value < 0) && targets.some((value) => value > 0)));
      at("sample-wrong-label").textContent = regression ? "only wrong sign" : "only wrong";
      wrong.parentElement.hidden = !signed;
      if (!signed) wrong.checked = false;
      if (!columns.some(([key]) => key === order.column)) order = { column: null, down: false };
      head();
      show();
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
      const caption = titled(cells[run.value].label);
      table.replaceChildren(caption, element("thead", {}, line), element("tbody"));
    }
    function compared(a, b) {
      const value = (row) => (regression && order.column in row.values ? row.values[order.column] : row[order.column]);
      const [left, right] = [value(a), value(b)];
      const ahead = typeof left === "number" && typeof right === "number" ? left - right : String(left).localeCompare(String(right), "en", { numeric: true });
      return order.down ? -ahead : ahead;
    }
    function show() {
      const wanted = search.value.trim().toLowerCase();
      const found = rows.filter((row) => (!wrong.checked || row.wrong) && row.text.includes(wanted));
      if (order.column) found.sort(compared);
      const visible = found.slice(0, limit);
      table.tBodies[0].replaceChildren(...visible.map((row) => {
        const line = element("tr", {}, element("th", { scope: "row" }, held(row.id)));
        for (const [key] of columns.slice(1)) line.append(element("td", key === "result" && row.wrong ? { class: "wrong" } : {}, held(row[key])));
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
    offer(run, cells.map((cell) => cell.label));
    run.addEventListener("change", () => { limit = PAGE; load(); });
    search.addEventListener("input", again);
    wrong.addEventListener("change", again);
    more.addEventListener("click", () => { limit += PAGE * 5; show(); });
    reveal("samples");
    load();
  }

  if (data.confusions.length) confusion(data.confusions);
  if (data.plans.length) plans(data.plans);
  if (data.samples) samples(data.samples);
})();
