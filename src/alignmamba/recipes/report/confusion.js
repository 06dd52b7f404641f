// Confusion matrices

function confusion(rows) {
  const row = at("confusion-row"), seed = at("confusion-seed"), table = at("confusion-table"), note = at("confusion-note");

  function sum(cells) {
    return cells[0].counts.map((line, i) => line.map((_, j) => cells.reduce((total, cell) => total + cell.counts[i][j], 0)));
  }
  function bounded(counts, known, others, wrong) {
    const seen = counts.reduce((total, line, i) => total + line.reduce((a, count, j) => a + (i < known && j < known && i !== j ? count : 0), 0), 0);
    const number = (value) => value.toLocaleString("en");
    return `Shown are ${known} of ${number(known + others)} classes, those that are confused most: they hold ${number(seen)} of ${number(wrong)} wrong predictions. ` +
      `The ${number(others)} others are one row and one column. The whole matrix lies in confusion_*.csv of each run.`;
  }
  function show() {
    const { label, cells } = rows[row.value];
    const chosen = seed.value === "all" ? cells : [cells[seed.value]];
    const { classes, others } = chosen[0];
    const known = classes.length - (others ? 1 : 0);
    const head = element("tr", {}, element("th", { scope: "col" }, held("true class")));
    classes.forEach((name) => head.append(element("th", { scope: "col" }, held(`as ${name}`))));
    head.append(element("th", { scope: "col" }, "samples"));
    const body = element("tbody");
    sum(chosen).forEach((line, i) => {
      const total = line.reduce((a, b) => a + b, 0);
      const shown = element("tr", {}, element("th", { scope: "row" }, held(classes[i])));
      line.forEach((count, j) => {
        const share = total ? count / total : 0;
        const cell = element("td", { class: [i === j && i < known ? "right" : "", count ? "" : "none"].join(" ").trim() }, String(count));
        if (count) cell.append(element("span", { class: "below" }, `${Math.round(100 * share)} %`));
        cell.style.setProperty("--share", share.toFixed(3));
        shown.append(cell);
      });
      shown.append(element("td", { class: "sum" }, String(total)));
      body.append(shown);
    });
    const which = chosen.length > 1 ? `${chosen.length} seeds together` : `seed ${chosen[0].seed}`;
    const caption = titled(label, `, ${which}: samples by true and predicted class, and the share of the true class.`);
    table.replaceChildren(caption, element("thead", {}, head), body);
    note.hidden = !others;
    if (others) note.textContent = bounded(sum(chosen), known, others, chosen.reduce((total, cell) => total + cell.wrong, 0));
  }
  function seeds() {
    const { cells } = rows[row.value];
    offer(seed, cells.map((cell) => String(cell.seed)));
    seed.parentElement.hidden = cells.length === 1;
    // Matrices of different classes cannot be added.
    const alike = cells.every((cell) => String(cell.classes) === String(cells[0].classes));
    if (cells.length > 1 && alike) seed.prepend(element("option", { value: "all" }, "all together"));
    seed.selectedIndex = 0;
    show();
  }
  offer(row, rows.map((each) => each.label));
  row.parentElement.hidden = rows.length === 1;
  row.addEventListener("change", seeds);
  seed.addEventListener("change", show);
  reveal("confusion");
  seeds();
}

