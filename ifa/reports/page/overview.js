// What was analyzed, and what was found.

function Overview() {
  const { run, accuracy } = content;
  const count = content.samples?.id.length ?? 0;
  return h("article", null,
    h("h1", { tabIndex: -1 }, content.title),
    h(Facts, { facts: [
      ["Network", h("span", null, run.network, " ", h("small", null, run.digest))],
      ["Layers", content.layers.map((/** @type {any} */ one) => one.name).join(", ")],
      ["Weighting", run.weighting],
      ["Score", run.score],
      ["Task", `${run.task}, targets: ${run.targets}`],
      ["Samples", count ? `${count} listed, ${content.shown} shown` : "none kept"],
      ["Input", run.input],
      ["Made with", run.versions],
    ] }),
    content.notes.length > 0 && h("section", { "aria-labelledby": "missing" }, h("h2", { id: "missing" }, "What is not on this page"), h(Missing, { lines: content.notes })),
    accuracy && h(Accuracy, { accuracy }),
    content.confusion && h(Confusion, {}),
    content.layers.map((/** @type {any} */ layer) => h(LayerFound, { layer, key: layer.name })),
    content.claims && h(Claims, {}),
    content.methods && h("section", { "aria-labelledby": "noise" }, h("h2", { id: "noise" }, "Does any method beat noise here?"), h("p", null, content.methods.said),
      h("pre", { tabIndex: 0, role: "region", "aria-label": "Methods against metrics" }, content.methods.text)),
    h("details", null, h("summary", null, "The same in words"), h("pre", { tabIndex: 0, role: "region", "aria-label": "The run in words" }, content.words.join("\n"))));
}

/** @param {{accuracy: any}} props */
function Accuracy({ accuracy }) {
  const share = accuracy.kind === "share";
  const rows = accuracy.each;
  const shown = rows.slice(0, 40);
  const what = share ? (content.run.task === "scored" ? "Found" : "Accuracy") : "Correlation of predictions with labels";
  const all = accuracy.every;
  return h("section", { "aria-labelledby": "accuracy" }, h("h2", { id: "accuracy" }, what),
    all && h("p", { class: "lead" }, h("strong", null, percent(all.value)), ` of ${all.of} samples (95 % interval ${percent(all.low)} to ${percent(all.high)}).`),
    h(Bars, { rows: shown, label: `${what} of each class with 95 % intervals; the numbers stand in the table`, unit: share ? "share of samples, with 95 % interval" : "Pearson's r, with 95 % interval", from: share ? 0 : undefined, to: 1 }),
    h("details", { open: rows.length <= 12 }, h("summary", null, `The numbers of ${rows.length} ${share ? "classes" : "outputs"}`), h(Sorted, {
      id: "accuracy", caption: `${what} by class`, rows: rows.map((/** @type {any} */ _, /** @type {number} */ at) => at),
      columns: [
        { key: "name", name: "class", cell: (at) => h(Link, { to: `class/${rows[at].target}` }, rows[at].name), value: (at) => rows[at].name },
        { key: "value", name: share ? "right" : "r", number: true, cell: (at) => (share ? percent(rows[at].value) : written(rows[at].value)), value: (at) => rows[at].value },
        { key: "interval", name: "95 % interval", cell: (at) => (share ? `${percent(rows[at].low)} to ${percent(rows[at].high)}` : `${written(rows[at].low)} to ${written(rows[at].high)}`) },
        { key: "of", name: "samples", number: true, cell: (at) => rows[at].of, value: (at) => rows[at].of },
      ],
    })));
}

/** What each label is taken for. */
function Confusion() {
  /** @type {number[][]} */
  const cells = content.confusion.cells;
  const labels = [...new Set(cells.flatMap(([label, said]) => [label, said]))].sort((a, b) => a - b);
  const wrong = cells.filter(([label, said]) => label !== said);
  const counts = new Map(cells.map(([label, said, count]) => [`${label} ${said}`, count]));
  const most = Math.max(1, ...wrong.map(([, , count]) => count));
  const named = (/** @type {number} */ label) => (label < 0 ? "nothing" : nameOf(label));
  return h("section", { "aria-labelledby": "confusion" }, h("h2", { id: "confusion" }, "What is taken for what"),
    !wrong.length && h("p", null, "Nothing was predicted wrongly."),
    labels.length <= 24 && h("div", { class: "scroll", tabIndex: 0, role: "region", "aria-label": "Labels and predictions" },
      h("table", { class: "matrix" }, h("caption", null, "Samples by label (rows) and prediction (columns); darker is more"),
        h("thead", null, h("tr", null, h("th", { scope: "col" }, "label"), labels.map((one) => h("th", { scope: "col" }, named(one))))),
        h("tbody", null, labels.map((label) => h("tr", null, h("th", { scope: "row" }, named(label)), labels.map((said) => {
          const count = counts.get(`${label} ${said}`) ?? 0;
          const level = label === said || !count ? 0 : Math.ceil((4 * count) / most);
          return h("td", { class: label === said ? "right" : `wrong${level}` }, count || "·");
        })))))),
    wrong.length > 0 && h("details", { open: labels.length > 24 }, h("summary", null, "The most frequent mistakes"),
      h("ul", null, wrong.slice(0, 20).map(([label, said, count]) => h("li", null, `${counted(count, "sample")} of ${named(label)} predicted as ${named(said)}`)))));
}

/** What a layer's maps and features show at large. @param {{layer: any}} props */
function LayerFound({ layer }) {
  const { scale } = layer;
  const cautions = Object.entries(scale.cautions).filter(([, count]) => Number(count) > 0);
  return h("section", { "aria-label": `Layer ${layer.name}` },
    h("h2", null, `Layer ${layer.name}: the common scale`),
    h("p", null, scale.low === null ? "The run did not store the quantiles that its common scale is made of." :
      `An intensity of 0 is ${written(scale.low)} ${scale.unit}, and 1 is ${written(scale.high)} ${scale.unit}, for every map of this layer: what is bright in one is as strong as what is bright in another.`),
    cautions.length > 0 && h("p", { class: "caution" }, `Cautions: ${cautions.map(([name, count]) => `${count} ${name.replace("_", " ")}`).join(", ")}. See ifa.population.summary.`),
    h(Extremes, { scale }),
    layer.sentences.length > 0 && [h("h3", null, "What diagnoses say"), h("ul", { class: "said" }, layer.sentences.map((/** @type {string[]} */ lines) => h(Said, { lines })))]);
}

function Claims() {
  return h("section", { "aria-labelledby": "claims" }, h("h2", { id: "claims" }, "What the literature claims"),
    h("ul", { class: "claims" }, content.claims.map((/** @type {any} */ one) => h("li", null,
      h("strong", { class: one.verdict === "holds" ? "holds" : one.verdict === "does not hold" ? "fails" : "open" }, one.verdict), " ", one.sentence))));
}
