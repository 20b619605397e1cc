// Classes: what each is recognized by, and its samples.

/** The page of a class. @param {{target: number}} props */
function Class({ target }) {
  const layer = layerNow(), { feature, scale: { unit } } = layer, place = layer.targets.indexOf(target);
  const entry = content.accuracy?.each.find((/** @type {any} */ one) => one.target === target);
  const share = content.accuracy?.kind === "share";
  const width = layer.features;
  const ranked = (/** @type {any} */ packed) => {
    if (!packed || place < 0) return null;
    const values = rowOf(packed, place);
    if (!Number.isFinite(values[0])) return null;
    return Array.from({ length: width }, (_, k) => k).sort((a, b) => Math.abs(values[b]) - Math.abs(values[a])).slice(0, 12);
  };
  const at = (/** @type {string} */ name, /** @type {number} */ k) => unpacked(layer[name]).data[place * width + k];
  const strongest = ranked(layer.importance), apart = ranked(layer.difference);
  const rows = (/** @type {number[]} */ list, /** @type {string} */ name) => list.map((k) => ({
    name: `${feature} ${k}`, value: at(name, k), low: name === "importance" ? at("low", k) : null, high: name === "importance" ? at("high", k) : null,
  }));
  const links = (/** @type {number[]} */ list) => h("p", null, list.map((k, n) => [n ? ", " : "", h(Link, { to: `feature/${state.layer}/${k}` }, `${feature} ${k}`)]));
  return h("article", null,
    h("h1", { tabIndex: -1 }, `Class ${nameOf(target)}`),
    h(Facts, { facts: [
      [share ? "Right" : "r", entry ? (share ? `${percent(entry.value)} of ${entry.of} samples (95 % interval ${percent(entry.low)} to ${percent(entry.high)})` : written(entry.value)) : null],
      ["Accepted samples", place < 0 ? null : layer.accepted[place]],
      ["Taken for", confusedWith(target)],
    ] }),
    h("div", { class: "tools" }, h(LayerChoice, {}), h(ScaleSwitch, {})),
    place < 0 && h("p", { class: "caution" }, "This class has no importances on this page."),
    strongest && h("section", { "aria-labelledby": "used" }, h("h2", { id: "used" }, `What is used for it, in layer ${layer.name}`),
      h(Bars, { rows: rows(strongest, "importance"), label: `The most important ${feature}s for ${nameOf(target)}`, unit: `mean importance (${unit}), with 95 % interval` }), links(strongest)),
    apart && h("section", { "aria-labelledby": "apart" }, h("h2", { id: "apart" }, "What sets it apart"),
      h(Bars, { rows: rows(apart, "difference"), label: `The ${feature}s that set ${nameOf(target)} apart`, unit: `importance less the overall (${unit})` }), links(apart)),
    content.samples && h(OfClass, { target }));
}

/** What a class is taken for. @param {number} target */
function confusedWith(target) {
  if (!content.confusion) return null;
  const wrong = content.confusion.cells.filter((/** @type {number[]} */ [label, said]) => label === target && said !== target);
  return wrong.length ? wrong.map((/** @type {number[]} */ [, said, count]) => `${said < 0 ? "nothing" : nameOf(said)} (${count})`).join(", ") : "nothing else";
}

/** Samples of a class: of the largest and smallest score, and those predicted wrongly. @param {{target: number}} props */
function OfClass({ target }) {
  const { samples } = content, score = unpacked(samples.score).data, targets = unpacked(samples.target).data;
  const right = samples.right && unpacked(samples.right).data;
  const own = Array.from({ length: content.shown }, (_, row) => row).filter((row) => targets[row] === target).sort((a, b) => score[b] - score[a]);
  const label = unpacked(samples.label);
  const of = (/** @type {number} */ row) => (classes ? label.data[row * label.shape[1]] === target : false);
  const missed = right ? Array.from({ length: content.shown }, (_, row) => row).filter((row) => of(row) && !right[row]) : [];
  const groups = [["The largest scores", own.slice(0, 8)], ["The smallest scores", own.slice(8).slice(-8).reverse()], ["Its samples that were predicted as something else", missed.slice(0, 8)]];
  return h("section", { "aria-labelledby": "of" }, h("h2", { id: "of" }, "Its samples"),
    !content.shown && h("p", { class: "caution" }, "No sample is shown on this page."),
    groups.map(([name, rows]) => rows.length > 0 && [h("h3", null, name), h("ul", { class: "thumbs" }, /** @type {number[]} */ (rows).map((row) =>
      h(Thumb, { row, key: row, under: `${written(score[row])}${right && !right[row] ? `, ${saidOf("prediction", row)}` : ""}` })))]));
}

function Classes() {
  const { accuracy } = content, layer = layerNow();
  const listed = [...new Set([...(accuracy?.each ?? []).map((/** @type {any} */ one) => one.target), ...layer.targets])].sort((a, b) => a - b);
  return h("article", null, h("h1", { tabIndex: -1 }, "Classes"),
    accuracy ? h(Accuracy, { accuracy }) : h("ul", null, listed.map((target) => h("li", { key: target }, h(Link, { to: `class/${target}` }, nameOf(target))))));
}
