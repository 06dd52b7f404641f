// Transport plans

const LANE = 26, REACH = 110, LEAST = 3, SLOT = 9, WORD = 40, MOST_OUTSIDE = 40, MOST_GROUPS = 20;

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


// One sample's plans: an overview of each whole plan, a window of tokens below it, or the matches summed up by groups.
function planViewer(holder, title) {
  const find = element("input", { type: "search", autocomplete: "off", spellcheck: "false" });
  const next = element("button", { type: "button" }, "Next");
  const found = element("span", { class: "aside", role: "status" });
  const view = element("select", {}, element("option", { value: "tokens" }, "token by token"), element("option", { value: "groups" }, "summed up"));
  const content = element("input", { type: "checkbox" });
  const switched = element("label", { class: "check" }, content, " content alone");
  const line = element("p", { class: "line", role: "status" });
  const lanes = element("div", { class: "pairs" });
  holder.replaceChildren(
    element("div", { class: "controls" },
      element("label", {}, "Find a token ", find), next, found,
      element("label", {}, "Show ", view), switched),
    line, lanes);
  let sample = null, pairs = [], hits = [], hit = -1, width = 0;

  function lanePair(source, anchor) {
    const way = content.checked && source.content ? source.content : source;
    const sides = { source, anchor }, other = { source: "anchor", anchor: "source" };
    const by = { source: Array.from({ length: source.length }, () => []), anchor: Array.from({ length: anchor.length }, () => []) };
    const links = [];
    way.index.forEach((there, own) => {
      const link = source.marginal === "source" ? { source: own, anchor: there } : { source: there, anchor: own };
      if (link.source < 0 || link.anchor < 0) return;
      link.value = way.similarity[own];
      links.push(link);
      by.source[link.source].push(link);
      by.anchor[link.anchor].push(link);
    });
    const known = links.map((link) => link.value).filter((value) => value != null);
    const low = known.reduce((a, b) => Math.min(a, b), Infinity), high = known.reduce((a, b) => Math.max(a, b), -Infinity);
    const weight = (value) => (value == null || high === low ? 0.7 : 0.15 + 0.85 * (value - low) / (high - low));
    const sorted = [...known].sort((a, b) => a - b);
    const told = `${links.length.toLocaleString("en")} matches` + (known.length ? `, median similarity ${similarity(sorted[sorted.length >> 1])}` : "");
    const box = element("div", { class: "pair" }, element("h3", {}, `${source.modality} → ${anchor.modality}`, " ", element("span", { class: "aside" }, told)));
    lanes.append(box);
    const pair = { box, sides, marks: { source: new Set(), anchor: new Set() } };
    if (view.value === "groups") {
      box.append(summedUp(source, anchor, links));
      Object.assign(pair, { draw() {}, go() {}, paint() {} });
      return pair;
    }

    const overview = element("canvas", { class: "overview", tabindex: 0, role: "slider", "aria-label": `Part of the plan from ${source.modality} to ${anchor.modality} that is shown`, "aria-valuemin": 0, "aria-valuemax": 100 });
    const range = element("span", { class: "aside range" });
    const button = (text, label, act) => {
      const made = element("button", { type: "button", "aria-label": label, title: label }, text);
      made.addEventListener("click", act);
      return made;
    };
    const svg = drawn("svg", { class: "lanes", role: "group", "aria-label": `Plan from ${source.modality} to ${anchor.modality}` });
    const largest = Math.max(source.length, anchor.length, 1);
    const widest = () => Math.min(1, width / (LEAST * largest));
    let span = 1, start = { source: 0, anchor: 0 }, picked = null, tokens = { source: [], anchor: [] };
    const count = (kind) => Math.max(1, Math.min(sides[kind].length, Math.ceil(span * sides[kind].length)));
    const fit = (kind, at) => Math.max(0, Math.min(sides[kind].length - count(kind), Math.round(at)));

    function comfortable() {
      const room = (side) => width / ((side.tokens ? WORD : SLOT) * Math.max(1, side.length));
      const wanted = Math.min(1, room(source), room(anchor));
      return Math.min(widest(), wanted > 0.6 ? 1 : wanted);
    }
    // The window of one lane; the other lane follows to where most of its matches are.
    function look(kind, at) {
      start[kind] = fit(kind, at);
      const across = other[kind], there = [];
      for (let place = start[kind]; place < start[kind] + count(kind); place++) for (const link of by[kind][place]) there.push(link[across]);
      there.sort((a, b) => a - b);
      const middle = there.length ? there[there.length >> 1] : (start[kind] + count(kind) / 2) / sides[kind].length * sides[across].length;
      start[across] = fit(across, middle - count(across) / 2);
      draw();
    }
    function zoom(factor) {
      const middle = start.source + count("source") / 2;
      span = Math.max(Math.min(1, 4 / largest), Math.min(widest(), span * factor));
      look("source", middle - count("source") / 2);
    }
    const move = (part) => look("source", start.source + Math.sign(part) * Math.max(1, Math.abs(part) * count("source")));

    function paint() {
      const scale = window.devicePixelRatio || 1, height = Math.min(180, Math.max(90, width / 5));
      overview.width = Math.round(width * scale);
      overview.height = Math.round(height * scale);
      overview.style.height = `${height}px`;
      const pen = overview.getContext("2d"), style = getComputedStyle(document.documentElement);
      const ink = (name) => style.getPropertyValue(name).trim();
      pen.scale(scale, scale);
      const across = width / source.length, down = height / anchor.length;
      const dot = Math.max(2, Math.min(across, 12)), tall = Math.max(2, Math.min(down, 12));
      pen.fillStyle = ink("--series-0");
      const thin = Math.min(1, 2.5 * width / Math.max(1, links.length));
      for (const link of links) {
        pen.globalAlpha = Math.max(0.08, weight(link.value) * thin);
        pen.fillRect((link.source + 0.5) * across - dot / 2, (link.anchor + 0.5) * down - tall / 2, dot, tall);
      }
      pen.globalAlpha = 1;
      pen.fillStyle = ink("--series-1");
      for (const place of pair.marks.source) pen.fillRect((place + 0.5) * across - 1, 0, 2, 8);
      for (const place of pair.marks.anchor) pen.fillRect(0, (place + 0.5) * down - 1, 8, 2);
      if (span < 1) {
        pen.strokeStyle = ink("--series-1");
        pen.lineWidth = 2;
        pen.strokeRect(start.source * across + 1, start.anchor * down + 1, Math.max(4, count("source") * across - 2), Math.max(4, count("anchor") * down - 2));
      }
      overview.setAttribute("aria-valuenow", Math.round(100 * (start.source + count("source") / 2) / source.length));
    }
    function draw() {
      paint();
      const shown = (kind) => `${sides[kind].modality} ${start[kind]} to ${start[kind] + count(kind) - 1} of ${sides[kind].length}`;
      range.textContent = `${shown("source")}, ${shown("anchor")}`;
      const tops = { source: 16, anchor: 16 + LANE + REACH }, height = tops.anchor + LANE + 16;
      for (const [key, value] of Object.entries({ width, height, viewBox: `0 0 ${width} ${height}` })) svg.setAttribute(key, value);
      const slot = { source: width / count("source"), anchor: width / count("anchor") };
      const inside = (kind, place) => place >= start[kind] && place < start[kind] + count(kind);
      const middle = (kind, place) => Math.max(-30, Math.min(width + 30, (place - start[kind] + 0.5) * slot[kind]));
      const parts = [];
      for (const kind of ["source", "anchor"]) {
        const step = Math.max(1, Math.ceil(64 / slot[kind])), times = sides[kind].times;
        const digits = times && times[Math.min(start[kind] + count(kind), times.length) - 1] - times[start[kind]] < 3 ? 2 : 1;
        for (let place = start[kind]; place < start[kind] + count(kind); place += step) {
          const x = middle(kind, place);
          if (x < 18 || x > width - 18) continue;
          const time = times?.[place];
          parts.push(drawn("text", { class: "tick", x, y: kind === "source" ? 11 : height - 3 }, time == null ? String(place) : `${time.toFixed(digits)} s`));
        }
      }
      const seen = [];
      const add = (link) => {
        const from = middle("source", link.source), to = middle("anchor", link.anchor), top = tops.source + LANE, end = tops.anchor, half = (top + end) / 2;
        const path = drawn("path", { class: "link", d: `M${from.toFixed(1)} ${top}C${from.toFixed(1)} ${half} ${to.toFixed(1)} ${half} ${to.toFixed(1)} ${end}`, "stroke-opacity": (0.9 * weight(link.value)).toFixed(2) });
        seen.push({ link, path });
        parts.push(path);
      };
      for (let place = start.source; place < start.source + count("source"); place++) by.source[place].forEach(add);
      for (let place = start.anchor; place < start.anchor + count("anchor"); place++) {
        by.anchor[place].filter((link) => !inside("source", link.source)).slice(0, MOST_OUTSIDE).forEach(add);
      }
      tokens = { source: [], anchor: [] };
      for (const kind of ["source", "anchor"]) {
        const side = sides[kind], size = slot[kind];
        const lane = drawn("g", { role: "listbox", "aria-orientation": "horizontal", "aria-label": `${side.modality} tokens, ${kind}` });
        for (let place = start[kind]; place < start[kind] + count(kind); place++) {
          const x = middle(kind, place), gap = size > 6 ? 2 : 0;
          const marked = pair.marks[kind].has(place) ? " hit" : "";
          const token = drawn("g", { class: `token${marked}`, role: "option", tabindex: place === start[kind] ? 0 : -1, "aria-selected": "false", "aria-label": tokenName(side, place), "data-kind": kind, "data-place": place },
            drawn("rect", { x: (x - size / 2 + gap / 2).toFixed(1), y: tops[kind], width: Math.max(1, size - gap).toFixed(1), height: LANE, rx: Math.min(3, size / 3).toFixed(1) }));
          if (side.tokens?.[place] && size >= 20) token.append(drawn("text", { x, y: tops[kind] + 17 }, clip(side.tokens[place], Math.max(2, Math.floor(size / 8.5)))));
          tokens[kind][place] = token;
          lane.append(token);
        }
        parts.push(lane);
      }
      svg.replaceChildren(...parts);
      pair.seen = seen;
      if (picked) light();
    }
    function light() {
      const { kind, place } = picked;
      svg.classList.add("picking");
      svg.querySelectorAll(".on, .match").forEach((each) => each.classList.remove("on", "match"));
      svg.querySelectorAll('[aria-selected="true"]').forEach((each) => each.setAttribute("aria-selected", "false"));
      tokens[kind][place]?.classList.add("on");
      tokens[kind][place]?.setAttribute("aria-selected", "true");
      for (const { link, path } of pair.seen) {
        if (link[kind] !== place) continue;
        path.classList.add("on");
        tokens[other[kind]][link[other[kind]]]?.classList.add("match");
      }
    }
    function pick(kind, place) {
      for (const each of pairs) if (each !== pair) each.unpick?.();
      picked = { kind, place };
      light();
      const matches = by[kind][place].map((link) => ({ place: link[other[kind]], value: link.value }));
      line.textContent = sentence(sides[kind], sides[other[kind]], place, matches, kind === "source" ? "→" : "←");
    }
    pair.unpick = () => {
      picked = null;
      svg.classList.remove("picking");
      svg.querySelectorAll(".on, .match").forEach((each) => each.classList.remove("on", "match"));
      svg.querySelectorAll('[aria-selected="true"]').forEach((each) => each.setAttribute("aria-selected", "false"));
    };
    function go(kind, place, { focus = true } = {}) {
      if (!tokens[kind][place]) look(kind, place - count(kind) / 2);
      const matches = by[kind][place];
      if (focus && matches.length && !matches.some((link) => tokens[other[kind]][link[other[kind]]])) {
        start[other[kind]] = fit(other[kind], matches[0][other[kind]] - count(other[kind]) / 2);
        draw();
      }
      tokens[kind].forEach((token, each) => token.setAttribute("tabindex", each === place ? 0 : -1));
      if (focus) tokens[kind][place].focus();
      pick(kind, place);
    }
    const where = (event) => {
      const token = event.target.closest(".token");
      return token && [token.dataset.kind, Number(token.dataset.place)];
    };
    const onToken = (act) => (event) => { const at = where(event); if (at) act(...at); };
    // Not pointerover, which also comes when the page is scrolled under a pointer that rests.
    svg.addEventListener("pointermove", onToken((kind, place) => {
      if (!tokens[kind][place]?.classList.contains("on")) pick(kind, place);
    }));
    // Not of the drawing itself: a browser then makes all of it a stop of the Tab key.
    box.addEventListener("focusin", onToken((kind, place) => {
      if (!tokens[kind][place]?.classList.contains("on")) pick(kind, place);
    }));
    svg.addEventListener("click", onToken((kind, place) => go(kind, place)));
    svg.addEventListener("keydown", (event) => {
      const at = where(event);
      if (!at) return;
      const [kind, place] = at, last = sides[kind].length - 1;
      const along = { ArrowLeft: Math.max(0, place - 1), ArrowRight: Math.min(last, place + 1), Home: 0, End: last };
      const over = { ArrowUp: "anchor", ArrowDown: "source" };
      if (event.key in along) go(kind, along[event.key]);
      else if (over[event.key] === kind) {
        const match = by[kind][place][0];
        if (match) go(other[kind], match[other[kind]]);
      } else return;
      event.preventDefault();
    });

    // The brush: a drag along the overview chooses the window, a click moves it.
    let from = null;
    const along = (event) => Math.max(0, Math.min(1, (event.clientX - overview.getBoundingClientRect().left) / overview.clientWidth));
    overview.addEventListener("pointerdown", (event) => { from = along(event); overview.setPointerCapture(event.pointerId); });
    overview.addEventListener("pointermove", (event) => {
      if (from == null) return;
      paint();
      const pen = overview.getContext("2d"), to = along(event);
      pen.fillStyle = getComputedStyle(document.documentElement).getPropertyValue("--series-1");
      pen.globalAlpha = 0.2;
      pen.fillRect(Math.min(from, to) * width, 0, Math.abs(to - from) * width, overview.clientHeight);
      pen.globalAlpha = 1;
    });
    overview.addEventListener("pointerup", (event) => {
      if (from == null) return;
      const to = along(event), wide = Math.abs(to - from);
      if (wide * width > 5) span = Math.max(Math.min(1, 4 / largest), Math.min(widest(), wide));
      look("source", (from + to) / 2 * source.length - count("source") / 2);
      from = null;
    });
    overview.addEventListener("pointercancel", () => { from = null; paint(); });
    overview.addEventListener("keydown", (event) => {
      const act = { ArrowLeft: () => move(-0.5), ArrowRight: () => move(0.5), "+": () => zoom(0.5), "-": () => zoom(2), Home: () => look("source", 0), End: () => look("source", source.length) }[event.key];
      if (!act) return;
      act();
      event.preventDefault();
    });
    box.append(
      element("div", { class: "frame" }, element("span", { class: "axis" }, `${source.modality} →, ${anchor.modality} ↓`), overview),
      element("div", { class: "zooms" },
        button("−", "Zoom out", () => zoom(2)), button("+", "Zoom in", () => zoom(0.5)),
        button("◀", "Earlier", () => move(-0.5)), button("▶", "Later", () => move(0.5)),
        button("All", "As much as fits", () => { span = widest(); look("source", 0); }), range),
      svg);
    Object.assign(pair, {
      go,
      paint,
      draw() { span = comfortable(); look("source", start.source); },
    });
    return pair;
  }

  // Groups of a side: its words, the rare ones together, or stretches of equal length.
  function groups(side) {
    if (side.tokens) {
      const counts = new Map();
      side.tokens.forEach((word) => counts.set(word, (counts.get(word) ?? 0) + 1));
      const often = [...counts.keys()].sort((a, b) => counts.get(b) - counts.get(a)).slice(0, MOST_GROUPS);
      const names = [...counts.keys()].filter((word) => often.includes(word));
      const rest = counts.size > names.length;
      return {
        names: [...names.map((word) => word || "(no word)"), ...(rest ? ["(other words)"] : [])],
        of: (place) => { const at = names.indexOf(side.tokens[place]); return at < 0 ? names.length : at; },
      };
    }
    const number = Math.min(side.length, 12);
    const first = (group) => Math.ceil(group * side.length / number);
    const at = (place) => (side.times?.[place] == null ? String(place) : `${side.times[place].toFixed(1)} s`);
    return {
      names: Array.from({ length: number }, (_, group) => {
        const [from, to] = [first(group), first(group + 1) - 1];
        return from === to ? at(from) : `${at(from)} to ${at(to)}`;
      }),
      of: (place) => Math.floor(place * number / side.length),
    };
  }
  function summedUp(source, anchor, links) {
    const rows = groups(source), columns = groups(anchor);
    const counts = rows.names.map(() => columns.names.map(() => 0));
    for (const link of links) counts[rows.of(link.source)][columns.of(link.anchor)] += 1;
    const head = element("tr", {}, element("th", { scope: "col" }, held(`${source.modality} tokens`)));
    columns.names.forEach((name) => head.append(element("th", { scope: "col" }, held(name))));
    head.append(element("th", { scope: "col" }, "matches"));
    const body = element("tbody");
    rows.names.forEach((name, row) => {
      const total = counts[row].reduce((a, b) => a + b, 0);
      const shown = element("tr", {}, element("th", { scope: "row" }, held(name)));
      counts[row].forEach((number) => {
        const share = total ? number / total : 0;
        const cell = element("td", { title: `${number} of ${total}` }, share >= 0.005 ? `${Math.round(100 * share)} %` : "");
        cell.style.setProperty("--share", share.toFixed(3));
        shown.append(cell);
      });
      shown.append(element("td", { class: "sum" }, String(total)));
      body.append(shown);
    });
    const caption = titled(`${source.modality} → ${anchor.modality}`, `, share of the matches of each row by ${anchor.modality} ${anchor.tokens ? "word" : "stretch"}.`);
    return element("div", { class: "scroll", role: "region", "aria-label": "Matches summed up", tabindex: 0 },
      element("table", { class: "confusion grouped" }, caption, element("thead", {}, head), body));
  }

  function search() {
    const wanted = find.value.trim().toLowerCase();
    hits = [];
    hit = -1;
    pairs.forEach((pair, number) => {
      for (const kind of ["source", "anchor"]) {
        const side = pair.sides[kind], marks = pair.marks[kind] = new Set();
        if (!wanted) continue;
        const seconds = /^(\d+(?:\.\d+)?) ?s$/.exec(wanted);
        if (/^\d+$/.test(wanted) && Number(wanted) < side.length) marks.add(Number(wanted));
        if (seconds && side.times) {
          const gaps = side.times.map((time) => (time == null ? Infinity : Math.abs(time - seconds[1])));
          marks.add(gaps.indexOf(gaps.reduce((a, b) => Math.min(a, b), Infinity)));
        }
        side.tokens?.forEach((word, place) => { if (word.toLowerCase().includes(wanted)) marks.add(place); });
        if (kind === "source" || number === 0) for (const place of [...marks].sort((a, b) => a - b)) hits.push({ pair, kind, place });
      }
      pair.paint();
    });
    found.textContent = wanted ? (hits.length ? `${hits.length} found` : "none found") : "";
    next.disabled = !hits.length || view.value === "groups";
  }
  function step() {
    if (next.disabled) return;
    hit = (hit + 1) % hits.length;
    found.textContent = `${hit + 1} of ${hits.length}`;
    hits[hit].pair.go(hits[hit].kind, hits[hit].place, { focus: false });
  }
  function build() {
    lanes.replaceChildren();
    width = Math.max(240, Math.floor(lanes.clientWidth));
    line.hidden = view.value === "groups";
    line.textContent = "Point at a token or tap it to see what it was matched to.";
    pairs = [];
    for (const source of sample.sources) pairs.push(lanePair(source, sample.anchor));
    if (!pairs.length) lanes.append(element("p", {}, `This sample has ${sample.anchor.modality} alone, so nothing is aligned.`));
    for (const pair of pairs) pair.draw();
    search();
  }
  find.addEventListener("input", search);
  find.addEventListener("keydown", (event) => { if (event.key === "Enter") step(); });
  next.addEventListener("click", step);
  view.addEventListener("change", build);
  content.addEventListener("change", build);
  new ResizeObserver(() => {
    if (sample && lanes.clientWidth && Math.abs(lanes.clientWidth - width) > 24) build();
  }).observe(lanes);
  window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => pairs.forEach((pair) => pair.paint()));
  holder.setAttribute("aria-label", title);
  return {
    show(chosen) {
      sample = chosen;
      switched.hidden = !sample.sources.some((source) => source.content);
      if (switched.hidden) content.checked = false;
      find.value = "";
      build();
    },
  };
}

function plans(runs) {
  const run = at("plan-run"), sample = at("plan-sample"), facts = at("plan-facts");
  reveal("plans");
  const viewer = planViewer(at("plan-viewer"), "Transport plans");
  function show() {
    const chosen = runs[run.value].samples[sample.value];
    const parts = [`${runs[run.value].label}, sample ${chosen.id}:`, `target ${chosen.target ?? "unknown"}, prediction ${chosen.prediction ?? "unknown"}.`, chosen.why && `(${chosen.why})`];
    facts.textContent = parts.filter(Boolean).join(" ");
    viewer.show(chosen);
  }
  function samplesOf() {
    offer(sample, runs[run.value].samples.map((each) => each.id));
    show();
  }
  offer(run, runs.map((each) => each.label));
  run.parentElement.hidden = runs.length === 1;
  run.addEventListener("change", samplesOf);
  sample.addEventListener("change", show);
  samplesOf();
}

