// One clip: its player, its words, and its tokens over one time axis.

const { seconds, lanes, links, pictures, loudness } = data;
const PAD = 10, AXIS = 42, GAP = 84, APART = 22, FOOT = 10, WIDEST = 24000, LEAST_WORD = 52, MOST_RIBBONS = 1500, LAST_WORD = 1.2;
const HEIGHTS = { words: 38, sound: 66, strip: 66, marks: 34 };
const anchor = lanes.find((lane) => lane.modality === data.anchor);
const player = at("player"), play = at("play"), position = at("position"), transcript = at("transcript"), line = at("line");

const said = (time) => `${time.toFixed(2)} s`;
const alike = (value) => (Math.round(100 * value) / 100 + 0).toFixed(2).replace("-", "−");
const plural = (count) => `${count} ${count === 1 ? "token" : "tokens"}`;

// Time: that of the player, or a clock of its own where nothing can be played.

let still = 0, began = null;
const usable = () => player && !player.hidden;
const running = () => (usable() ? !player.paused && !player.ended : began != null);
function now() {
  if (usable()) return Math.min(seconds, player.currentTime);
  return began == null ? still : Math.min(seconds, still + (performance.now() - began) / 1000);
}
function seek(time) {
  const to = Math.max(0, Math.min(seconds, time));
  if (usable()) player.currentTime = to;
  still = to;
  if (began != null) began = performance.now();
  paint(to);
}
function toggle() {
  if (usable()) {
    if (player.paused) player.play().catch(() => {});
    else player.pause();
    return;
  }
  if (began != null) { still = now(); began = null; } else {
    if (still >= seconds) still = 0;
    began = performance.now();
  }
  moved();
}
function moved() {
  const on = running();
  play.textContent = on ? "Pause" : "Play";
  play.setAttribute("aria-pressed", String(on));
  if (on) picked = null;
  tick();
}
let waiting = false;
function tick() {
  paint(now());
  if (!usable() && began != null && now() >= seconds) { still = seconds; began = null; moved(); return; }
  if (running() && !waiting) {
    waiting = true;
    requestAnimationFrame(() => { waiting = false; tick(); });
  }
}

function load() {
  const holder = at("clip");
  if (!player || !holder) return;
  const text = atob(holder.textContent), bytes = new Uint8Array(text.length);
  for (let place = 0; place < text.length; place += 1) bytes[place] = text.charCodeAt(place);
  holder.remove();
  player.addEventListener("error", () => { player.hidden = true; at("unplayable").hidden = false; });
  player.addEventListener("loadedmetadata", () => {
    if (player.tagName === "VIDEO" && !player.videoWidth) at("unseen-pictures").hidden = false;
    else if (player.videoWidth) player.style.aspectRatio = `${player.videoWidth} / ${player.videoHeight}`;
  });
  for (const name of ["play", "pause", "ended"]) player.addEventListener(name, moved);
  for (const name of ["seeked", "timeupdate"]) player.addEventListener(name, () => paint(now()));
  player.src = URL.createObjectURL(new Blob([bytes], { type: data.type }));
}

// Tokens and their times.

for (const [number, lane] of lanes.entries()) {
  lane.number = number;
  lane.kind = lane.tokens ? "words" : lane.modality === "audio" && loudness.values.length ? "sound" : lane.modality === "video" && pictures.length ? "strip" : "marks";
  lane.place = 0;
}
// The last token that has begun, -1 before the first.
function tokenAt(lane, time) {
  let low = 0, high = lane.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (lane.times[middle] <= time + 1e-9) low = middle + 1;
    else high = middle;
  }
  return low - 1;
}
function endOf(lane, place) {
  const begin = lane.times[place];
  let next = place + 1;
  while (next < lane.length && lane.times[next] <= begin) next += 1;
  if (next < lane.length) return lane.times[next];
  return Math.max(begin, Math.min(seconds, begin + (lane.tokens ? LAST_WORD : Infinity)));
}
function spokenAt(lane, time) {
  const place = tokenAt(lane, time);
  return place >= 0 && time <= endOf(lane, place) ? place : -1;
}
function nameOf(lane, place) {
  const text = lane.tokens?.[place];
  return `${text ? `“${text}”` : `${lane.title.toLowerCase()} token ${place + 1} of ${lane.length}`} at ${said(lane.times[place])}`;
}

// Ribbons: tokens of a lane in a row that belong to one token of the anchor.

function ribbonsOf(link, side) {
  const lane = lanes.find((each) => each.modality === link.modality), found = [];
  const add = (from, to, of, values) => {
    const known = values.filter((value) => value != null);
    const similarity = known.length ? known.reduce((a, b) => a + b, 0) / known.length : 0;
    found.push({ lane, side, from, to, of, similarity, count: to - from + 1 });
  };
  if (link.marginal === "source") {
    for (let from = 0; from < link.index.length;) {
      let to = from;
      while (to + 1 < link.index.length && link.index[to + 1] === link.index[from]) to += 1;
      if (link.index[from] >= 0) add(from, to, link.index[from], link.similarity.slice(from, to + 1));
      from = to + 1;
    }
  } else {
    link.index.forEach((place, of) => { if (place >= 0) add(place, place, of, [link.similarity[of]]); });
  }
  // Each takes its share of the width of the anchor's token.
  const held = new Map();
  for (const ribbon of found) held.set(ribbon.of, [...(held.get(ribbon.of) ?? []), ribbon]);
  for (const group of held.values()) {
    const total = group.reduce((sum, each) => sum + each.count, 0);
    let before = 0;
    for (const ribbon of group) {
      ribbon.share = [before / total, (before + ribbon.count) / total];
      before += ribbon.count;
    }
  }
  return found;
}
const ribbons = links.flatMap(ribbonsOf);
const strongest = [...ribbons].sort((a, b) => b.count * Math.max(0.01, b.similarity) - a.count * Math.max(0.01, a.similarity)).slice(0, MOST_RIBBONS);
function ribbonsAt(lane, place) {
  if (!anchor || place < 0) return [];
  if (lane === anchor) return ribbons.filter((each) => each.of === place);
  return ribbons.filter((each) => each.lane === lane && each.from <= place && place <= each.to);
}
function spans(found) {
  const joined = [];
  for (const each of found) {
    const begin = each.lane.times[each.from], end = endOf(each.lane, each.to);
    const last = joined.at(-1);
    if (last && begin - last[1] < 0.005) last[1] = end;
    else joined.push([begin, end]);
  }
  const shown = joined.slice(0, 3).map(([begin, end]) => `${begin.toFixed(2)} to ${said(end)}`);
  return shown.join(", ") + (joined.length > 3 ? ` and ${joined.length - 3} more places` : "");
}
function sentence(lane, place) {
  if (place < 0) return "";
  const start = nameOf(lane, place);
  if (!anchor) return start;
  const found = ribbonsAt(lane, place);
  if (lane !== anchor) {
    if (!found.length) return `${start} is matched to nothing`;
    return found.map((each) => `${start} is matched to ${nameOf(anchor, each.of)}, similarity ${alike(each.similarity)}`).join("; ");
  }
  const parts = links.map((link) => {
    const own = found.filter((each) => each.lane.modality === link.modality);
    const title = lanes.find((each) => each.modality === link.modality).title.toLowerCase();
    if (!own.length) return `no ${title}`;
    const count = own.reduce((sum, each) => sum + each.count, 0);
    const similarity = own.reduce((sum, each) => sum + each.count * each.similarity, 0) / count;
    return `${title} of ${spans(own)} (${plural(count)}, similarity ${alike(similarity)})`;
  });
  return `${start} is matched to ${parts.join(", and to ")}`;
}

// The drawing.

let perSecond = 0, picked = null, shownKey = "", parts = null;
const box = at("scroll");
const x = (time) => PAD + time * perSecond;
const fitting = () => Math.max(0.001, (box.clientWidth - 2 * PAD) / seconds);
const most = () => Math.max(fitting(), (WIDEST - 2 * PAD) / seconds);
function comfortable() {
  const words = lanes.find((lane) => lane.kind === "words");
  if (!words) return fitting();
  const widths = Array.from({ length: words.length }, (_, place) => endOf(words, place) - words.times[place]).filter((each) => each > 0).sort((a, b) => a - b);
  return widths.length ? Math.max(fitting(), LEAST_WORD / widths[widths.length >> 1]) : fitting();
}
function ribbonPath(ribbon) {
  const top = ribbon.lane.y < anchor.y;
  const start = top ? ribbon.lane.y + ribbon.lane.height : ribbon.lane.y, end = top ? anchor.y : anchor.y + anchor.height;
  const middle = (start + end) / 2;
  const [from, to] = [x(ribbon.lane.times[ribbon.from]), x(endOf(ribbon.lane, ribbon.to))];
  const begin = x(anchor.times[ribbon.of]), wide = x(endOf(anchor, ribbon.of)) - begin;
  const [left, right] = ribbon.share.map((share) => begin + share * wide);
  return `M${from} ${start}C${from} ${middle} ${left} ${middle} ${left} ${end}L${right} ${end}C${right} ${middle} ${to} ${middle} ${to} ${start}Z`;
}
function ribbonShape(ribbon) {
  const shade = 0.1 + 0.4 * Math.max(0, Math.min(1, ribbon.similarity));
  return drawn("path", { class: `ribbon side-${ribbon.side % 3}`, d: ribbonPath(ribbon), "fill-opacity": shade.toFixed(3) });
}
function wordsOf(lane, group) {
  lane.shapes = lane.tokens.map((text, place) => {
    const left = x(lane.times[place]), width = Math.max(2, x(endOf(lane, place)) - left - 1.5);
    const room = Math.floor((width - 6) / 7.2);
    const shape = drawn("g", { class: "token" }, drawn("rect", { class: "box", x: left, y: lane.y + 3, width, height: lane.height - 6, rx: 4 }));
    if (room >= 2 || text.length === 1) shape.append(drawn("text", { x: left + width / 2, y: lane.y + lane.height / 2 + 4.5 }, clip(text, room)));
    group.append(shape);
    return shape;
  });
}
function soundOf(lane, group) {
  const middle = lane.y + lane.height / 2, reach = lane.height / 2 - 4, step = loudness.seconds;
  const edge = (sign) => loudness.values.map((value, place) => `${x(Math.min(seconds, (place + 0.5) * step)).toFixed(1)} ${(middle - sign * Math.max(0.5, reach * value)).toFixed(1)}`);
  group.append(drawn("path", { class: "wave", d: `M${[...edge(1), ...edge(-1).reverse()].join("L")}Z` }));
}
function stripOf(lane, group) {
  const size = sizeOf(pictures[0][1]), height = lane.height - 6;
  const slots = Math.max(1, Math.round((seconds * perSecond) / (height * size)));
  for (let slot = 0; slot < slots; slot += 1) {
    const [begin, end] = [slot, slot + 1].map((each) => (each * seconds) / slots), middle = (begin + end) / 2;
    const nearest = pictures.reduce((a, b) => (Math.abs(b[0] - middle) < Math.abs(a[0] - middle) ? b : a));
    group.append(drawn("image", { href: nearest[1], x: x(begin), y: lane.y + 3, width: Math.max(1, (end - begin) * perSecond - 1), height, preserveAspectRatio: "xMidYMid slice" }));
  }
}
// Width over height, from the header of a JPEG.
function sizeOf(address) {
  const bytes = Uint8Array.from(atob(address.slice(address.indexOf(",") + 1)), (each) => each.charCodeAt(0));
  for (let place = 2; place + 9 < bytes.length;) {
    if (bytes[place] !== 0xff) break;
    const kind = bytes[place + 1];
    if (kind >= 0xc0 && kind <= 0xc2) return ((bytes[place + 7] << 8) | bytes[place + 8]) / ((bytes[place + 5] << 8) | bytes[place + 6]);
    place += 2 + ((bytes[place + 2] << 8) | bytes[place + 3]);
  }
  return 1;
}
function marksOf(lane, group) {
  const room = Math.max(1, Math.ceil(lane.length / 4000));
  let d = "";
  for (let place = 0; place < lane.length; place += room) d += `M${x(lane.times[place]).toFixed(1)} ${lane.y + 8}v${lane.height - 16}`;
  group.append(drawn("path", { class: "mark", d }));
}
const DRAW = { words: wordsOf, sound: soundOf, strip: stripOf, marks: marksOf };

function laneShape(lane, width) {
  const group = drawn("g", {
    class: "lane", role: "slider", tabindex: 0, "aria-label": `${lane.title}, tokens over time`, "aria-valuemin": 1, "aria-valuemax": lane.length,
  });
  group.append(drawn("rect", { class: "ground", x: 1.5, y: lane.y, width: width - 3, height: lane.height, rx: 4 }));
  DRAW[lane.kind](lane, group);
  lane.pointer = drawn("rect", { class: "pointer", y: lane.y, height: lane.height, visibility: "hidden" });
  if (lane.kind !== "words") group.append(lane.pointer);
  const placeAt = (event) => {
    const time = (event.clientX - box.getBoundingClientRect().left + box.scrollLeft - PAD) / perSecond;
    return Math.max(0, tokenAt(lane, time));
  };
  // Not pointerover, which also comes when the page is scrolled under a pointer that rests.
  group.addEventListener("pointermove", (event) => { if (!running()) pick(lane, placeAt(event)); });
  group.addEventListener("click", (event) => go(lane, placeAt(event)));
  group.addEventListener("focus", () => { if (!running()) pick(lane, lane.place); });
  group.addEventListener("keydown", (event) => keyed(event, lane));
  lane.group = group;
  announce(lane);
  return group;
}
function announce(lane) {
  lane.group.setAttribute("aria-valuenow", lane.place + 1);
  lane.group.setAttribute("aria-valuetext", sentence(lane, lane.place));
}
function build() {
  const width = Math.min(WIDEST, 2 * PAD + seconds * perSecond);
  let y = AXIS;
  lanes.forEach((lane, number) => {
    if (number) y += anchor && (lane === anchor || lanes[number - 1] === anchor) && [lane, lanes[number - 1]].every((each) => each === anchor || links.some((link) => link.modality === each.modality)) ? GAP : APART;
    lane.y = y;
    lane.height = HEIGHTS[lane.kind];
    y += lane.height;
  });
  const height = y + FOOT;
  const svg = drawn("svg", { width, height, role: "group", "aria-label": "Tokens over time" });
  const step = [0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60, 300, 900].find((each) => each * perSecond >= 70) ?? 3600;
  for (let mark = 0; mark * step <= seconds + 1e-9; mark += 1) {
    const place = x(mark * step);
    svg.append(drawn("line", { class: "grid", x1: place, x2: place, y1: 20, y2: height }));
    svg.append(drawn("text", { class: "tick", x: Math.max(place, 16), y: 14 }, `${(mark * step).toFixed(step < 0.1 ? 2 : step < 1 ? 1 : 0)} s`));
  }
  const all = drawn("g", { class: "ribbons" }, ...(anchor ? strongest.map(ribbonShape) : [])), shown = drawn("g", { class: "shown" });
  const cursor = drawn("g", {}, drawn("line", { class: "cursor", y1: 20, y2: height }), drawn("path", { class: "cursor-head", d: `M-5 18h10l-5 8z` }));
  svg.append(all, shown, ...lanes.map((lane) => laneShape(lane, width)), cursor);
  svg.addEventListener("pointerleave", () => { if (!svg.contains(document.activeElement)) { picked = null; paint(now()); } });
  const focused = lanes.find((lane) => lane.group === document.activeElement);
  box.replaceChildren(svg);
  at("titles").replaceChildren(...lanes.map((lane) => {
    const label = element("span", {}, lane.title);
    label.style.top = `${lane.y - 17}px`;
    return label;
  }));
  parts = { all, shown, cursor };
  shownKey = "";
  for (const lane of lanes) lane.spoken = null;
  focused?.group.focus();
  paint(now());
}
function pick(lane, place) {
  picked = { lane, place };
  lane.place = place;
  announce(lane);
  paint(now());
}
function go(lane, place) {
  const to = Math.max(0, Math.min(lane.length - 1, place));
  picked = { lane, place: to };
  lane.place = to;
  announce(lane);
  seek(lane.times[to] + 1e-4);
  follow(lane.times[to]);
}
function keyed(event, lane) {
  const step = { ArrowLeft: -1, ArrowRight: 1, PageUp: -10, PageDown: 10, Home: -Infinity, End: Infinity }[event.key];
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (step !== undefined) go(lane, lane.place + step);
  else if (event.key === "Enter") { seek(lane.times[lane.place]); if (!running()) toggle(); }
  else if (event.key === "ArrowUp" || event.key === "ArrowDown") {
    const other = lanes[lane.number + (event.key === "ArrowUp" ? -1 : 1)];
    if (!other) return;
    const found = ribbonsAt(lane, lane.place).filter((each) => other === anchor || each.lane === other).sort((a, b) => b.count * b.similarity - a.count * a.similarity)[0];
    const place = found ? (other === anchor ? found.of : found.from) : Math.max(0, tokenAt(other, lane.times[lane.place]));
    go(other, place);
    other.group.focus();
  } else return;
  event.preventDefault();
}
// Scroll by a page where the time is out of sight.
function follow(time) {
  const place = x(time), left = box.scrollLeft;
  if (place < left + 20 || place > left + box.clientWidth - 40) box.scrollLeft = place - 0.2 * box.clientWidth;
}

let lit = [];
function paint(time) {
  if (!parts) return;
  parts.cursor.setAttribute("transform", `translate(${x(Math.min(seconds, time)).toFixed(2)} 0)`);
  if (document.activeElement !== position || running()) position.value = time.toFixed(2);
  position.setAttribute("aria-valuetext", `${time.toFixed(2)} of ${seconds.toFixed(2)} seconds`);
  at("now").textContent = `${time.toFixed(2)} / ${said(seconds)}`;
  if (running()) follow(time);
  const words = lanes.find((lane) => lane.kind === "words");
  if (words) light(words, spokenAt(words, time));
  const leading = anchor ?? words ?? lanes[0];
  const chosen = picked ?? { lane: leading, place: leading.kind === "words" ? spokenAt(leading, time) : tokenAt(leading, time) };
  const key = `${chosen.lane.number} ${chosen.place}`;
  if (key === shownKey) return;
  shownKey = key;
  show(chosen.lane, chosen.place);
}
function light(words, place) {
  if (words.spoken === place) return;
  words.spoken = place;
  const same = place < 0 ? [] : words.times.flatMap((time, each) => (time === words.times[place] ? [each] : []));
  for (const each of lit) for (const shape of [words.shapes[each], words.spans[each]]) shape?.classList.remove("lit");
  for (const each of same) for (const shape of [words.shapes[each], words.spans[each]]) shape?.classList.add("lit");
  words.spans.forEach((span, each) => span.classList.toggle("past", place >= 0 && each <= place));
  lit = same;
}
function show(lane, place) {
  const found = ribbonsAt(lane, place);
  parts.shown.replaceChildren(...found.slice(0, 400).map(ribbonShape));
  parts.all.classList.toggle("quiet", found.length > 0);
  for (const each of lanes) {
    each.shapes?.forEach((shape, number) => shape.classList.toggle("on", each === lane ? number === place : found.some((one) => each === anchor && one.of === number)));
    const here = each === lane && place >= 0 && each.kind !== "words";
    each.pointer.setAttribute("visibility", here ? "visible" : "hidden");
    if (here) {
      each.pointer.setAttribute("x", x(each.times[place]));
      each.pointer.setAttribute("width", Math.max(2, x(endOf(each, place)) - x(each.times[place])));
    }
  }
  line.textContent = place < 0 ? "No word is spoken at this time." : `${sentence(lane, place)}.`;
}

function speak() {
  const words = lanes.find((lane) => lane.kind === "words");
  if (!words) return;
  words.spans = words.tokens.map((text, place) => {
    const span = element("span", { class: "word" }, text);
    span.addEventListener("click", () => go(words, place));
    return span;
  });
  transcript.classList.add("timed");
  transcript.replaceChildren(...words.spans.flatMap((span) => [span, " "]));
}

if (lanes.length) {
  at("interactive").hidden = false;
  position.max = seconds;
  speak();
  load();
  perSecond = Math.min(most(), comfortable());
  build();
  play.addEventListener("click", toggle);
  position.addEventListener("input", () => { picked = null; seek(Number(position.value)); follow(now()); });
  const zoom = (by) => {
    const time = now();
    perSecond = Math.max(fitting(), Math.min(most(), perSecond * by));
    build();
    box.scrollLeft = x(time) - box.clientWidth / 2;
  };
  at("wider").addEventListener("click", () => zoom(1.5));
  at("narrower").addEventListener("click", () => zoom(1 / 1.5));
  document.addEventListener("keydown", (event) => {
    const busy = event.target.closest("button, select, textarea, summary, a, video, audio, input:not([type=range])");
    if (event.key !== " " || busy || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    toggle();
  });
  let before = box.clientWidth;
  new ResizeObserver(() => {
    if (Math.abs(box.clientWidth - before) < 4) return;
    before = box.clientWidth;
    perSecond = Math.min(most(), comfortable());
    build();
  }).observe(box);
}
