// Samples: the list of all, and the page of one.

/** @returns {any} */
function strangeNow() {
  return layerNow().strange;
}

function Samples() {
  const { samples } = content;
  if (!samples) return h("article", null, h("h1", { tabIndex: -1 }, "Samples"), h(Missing, { lines: content.notes }));
  const layer = layerNow(), table = samples.layers[layer.name], strange = strangeNow();
  const right = samples.right && unpacked(samples.right).data;
  const score = unpacked(samples.score).data, sum = unpacked(table.map_sum).data, most = unpacked(table.map_max).data;
  const rank = strange && unpacked(strange.rank).data, p = strange && unpacked(strange.p).data, alarm = strange && unpacked(strange.alarm).data;
  /** @type {Column[]} */
  const columns = [
    { key: "id", name: "sample", value: (row) => samples.id[row], cell: (row) => h(Link, { to: `sample/${row}` }, samples.id[row]) },
    ...(content.inputs ? [{ key: "picture", name: "input and map", cell: (/** @type {number} */ row) => (row < content.shown ? h(Small, { row }) : "not shown") }] : []),
    { key: "label", name: "label", value: (row) => saidOf("label", row), cell: (row) => saidOf("label", row) },
    { key: "prediction", name: "prediction", value: (row) => saidOf("prediction", row), cell: (row) => h("span", { class: right && !right[row] ? "fails" : "" }, saidOf("prediction", row), right && !right[row] ? " (wrong)" : "") },
    { key: "score", name: `score (${content.run.score})`, number: true, value: (row) => score[row], cell: (row) => written(score[row]) },
    { key: "level", name: "level of the map", number: true, value: (row) => sum[row], cell: (row) => written(sum[row]) },
    { key: "max", name: "largest value", number: true, value: (row) => most[row], cell: (row) => written(most[row]) },
  ];
  if (strange) columns.push({ key: "strange", name: "outlier rank", value: (row) => rank[row] || null, cell: (row) => (rank[row] ? `${rank[row]}, p = ${written(p[row], 2)}${alarm[row] ? " (alarm)" : ""}` : "not tested") });
  /** @type {[string, string, (row: number) => boolean][]} */
  const filters = [["shown", "with a picture", (row) => row < content.shown]];
  if (right) filters.push(["wrong", "predicted wrongly", (row) => !right[row]]);
  if (strange) filters.push(["alarm", "outliers (alarms)", (row) => Boolean(alarm[row])]);
  const rows = samples.id.map((/** @type {string} */ _, /** @type {number} */ row) => row);
  return h("article", null, h("h1", { tabIndex: -1 }, "Samples"),
    h("div", { class: "tools" }, h(LayerChoice, {}), h(ScaleSwitch, {})),
    h(Sorted, { id: "samples", caption: `Samples, by the maps of layer ${layer.name}`, rows, columns, filters, find: (row) => `${samples.id[row]} ${saidOf("label", row)}`, start: strange ? { by: "strange", down: false } : undefined }));
}

/** Input and map of a sample, small. @param {{row: number}} props */
function Small({ row }) {
  const layer = layerNow(), id = content.samples.id[row];
  const map = layer.maps ? mapOf(layer, 0, row) : null;
  return h("div", { class: "pair" },
    h(Picture, { row, label: `Input of ${id}`, small: true }),
    map && h(Picture, { row, layer, map, limits: limitsFor(layer, 0, map), label: `Map of ${id}`, small: true }));
}

/** The page of a sample. @param {{row: number}} props */
function Sample({ row }) {
  const { samples } = content, layer = layerNow(), id = samples.id[row], table = samples.layers[layer.name];
  const strange = layer.strange, rank = strange && unpacked(strange.rank).data[row];
  const target = unpacked(samples.target).data[row], right = samples.right && unpacked(samples.right).data[row];
  const count = content.shown || samples.id.length;
  const value = (/** @type {string} */ name) => `${written(unpacked(table[name]).data[row])} ${layer.scale.unit}`;
  return h("article", null,
    h("nav", { class: "pages", "aria-label": "Other samples" },
      row > 0 ? h(Link, { to: `sample/${row - 1}` }, "Previous sample") : h("span", null, "the first"),
      row < count - 1 ? h(Link, { to: `sample/${row + 1}` }, "Next sample") : h("span", null, "the last")),
    h("h1", { tabIndex: -1 }, `Sample ${id}`),
    h(Facts, { facts: [
      ["Label", saidOf("label", row)],
      ["Prediction", h("span", { class: right === 0 ? "fails" : "" }, saidOf("prediction", row), right === 0 ? " (wrong)" : right === 1 ? " (right)" : "")],
      [`Score of ${nameOf(target)}`, written(unpacked(samples.score).data[row])],
      ["Outlier rank", strange ? (rank ? `${rank} of ${samples.id.length}, p = ${written(unpacked(strange.p).data[row], 2)}${unpacked(strange.alarm).data[row] ? ", an alarm" : ""}` : "not tested: too few samples of its target") : null],
      ["Map", `from ${value("map_min")} to ${value("map_max")}, in sum ${value("map_sum")}`],
    ] }),
    h("div", { class: "tools" }, h(LayerChoice, {}), layer.maps && h(ScaleSwitch, {}), h(PlaneSliders, {})),
    row >= content.shown ? h("p", { class: "caution" }, "This sample is in the table only: its input and maps are not on this page.") :
      [h(Methods, { row, layer, target, key: "methods" }), layer.maps && h(Kept, { row, layer, target, key: "kept" })]);
}

/** Where the planes of volumes go through. */
function PlaneSliders() {
  if (content.inputs?.kind !== "volume") return null;
  /** @type {number[]} */
  const size = content.inputs.drawn;
  const at = state.at ?? size.map((one) => Math.floor(one / 2));
  return h("fieldset", { class: "switch" }, h("legend", null, "Planes"), ["z", "y", "x"].map((axis, place) => h("label", null, `${axis} = ${at[place]}`,
    h("input", { type: "range", min: 0, max: size[place] - 1, value: at[place], "aria-label": `Plane at ${axis}`, onInput: (/** @type {any} */ event) => set({ at: at.map((one, n) => (n === place ? Number(event.target.value) : one)) }) }))));
}

/** The input, and maps by every method. @param {{row: number, layer: any, target: number}} props */
function Methods({ row, layer, target }) {
  const at = state.at ?? undefined, id = content.samples.id[row];
  const methods = layer.maps?.methods ?? [];
  return h("section", { "aria-labelledby": "maps" },
    h("h2", { id: "maps" }, methods.length ? `Maps of ${nameOf(target)}, layer ${layer.name}` : "Input"),
    h("div", { class: "row" },
      h("figure", null, h(Picture, { row, label: `Input of ${id}`, at }), h("figcaption", null, "input")),
      methods.map((/** @type {any} */ one, /** @type {number} */ place) => {
        const map = mapOf(layer, place, row), limits = limitsFor(layer, place, map), scale = scaleOf(layer, place);
        const whose = place === 0 ? "the run's scale" : `scale of ${one.scale.every ? "all" : "the"} ${one.scale.samples} samples shown`;
        const said = state.scaling === "common" ? (scale ? whose : "no common scale: by itself") : "by itself";
        return h("figure", { key: one.name },
          h(Picture, { row, layer, map, limits, label: `Map of ${id} by ${one.name}, ${said}`, at }),
          h("figcaption", null, one.name, place === 0 ? " (the run's)" : ""),
          h(Bar, { limits, unit: layer.scale.unit, said }));
      })),
    state.scaling === "own" && methods.length > 0 && h("p", { class: "caution" }, "Each map is stretched over its own range: a map of nothing looks like a map of something, and two maps cannot be compared."));
}

/** The map of the most important features only. @param {{row: number, layer: any, target: number}} props */
function Kept({ row, layer, target }) {
  const { parts } = layer.maps, feature = layer.feature;
  const title = h("h2", { id: "kept" }, `With some ${feature}s only`);
  const ranking = parts && row < parts.samples ? rankingOf(layer, target, state.by) : null;
  if (!ranking) {
    const why = !parts || row >= parts.samples ? `The map of each ${feature} of this sample is not on this page; it is of the first ${parts?.samples ?? 0} samples.`
      : state.by === "difference" && !layer.difference ? "Targets cannot be told apart by a difference here." : `${nameOf(target)} has no importance in the run to rank ${feature}s by: no sample of it was accepted, or it is not listed.`;
    return h("section", { "aria-labelledby": "kept" }, title, h("p", { class: "caution" }, why));
  }
  const kept = Math.min(state.kept ?? ranking.length, ranking.length);
  const whole = mapOf(layer, 0, row), map = keptMap(layer, row, ranking, kept);
  const limits = limitsFor(layer, 0, state.scaling === "common" ? map : kept ? map : whole);
  const sum = (/** @type {Float32Array} */ one) => one.reduce((a, b) => a + b, 0);
  const id = content.samples.id[row], rest = parts.rest ? `, and ${layer.features - ranking.length} others that go with the last` : "";
  return h("section", { "aria-labelledby": "kept" }, title,
    h("div", { class: "tools" },
      h(Choice, { label: "Ranked by", value: state.by, options: [["importance", "importance for the target"], ...(layer.difference ? [/** @type {[string, string]} */ (["difference", "absolute difference from the overall"])] : [])], change: (/** @type {any} */ value) => set({ by: value }) }),
      h("label", { class: "choice wide" }, h("span", null, `The first ${kept} of ${ranking.length} ${feature}s${rest}`),
        h("input", { type: "range", min: 0, max: ranking.length, value: kept, id: "kept-slider", onInput: (/** @type {any} */ event) => set({ kept: Number(event.target.value) }) }))),
    h("div", { class: "row" },
      h("figure", null, h(Picture, { row, layer, map, limits, label: `Map of ${id} with ${kept} ${feature}s`, at: state.at ?? undefined }), h("figcaption", null, `${counted(kept, feature)} kept`), h(Bar, { limits, unit: layer.scale.unit, said: state.scaling === "common" ? "the run's scale" : "by itself" })),
      h("figure", null, h(Picture, { row, layer, map: whole, limits: limitsFor(layer, 0, whole), label: `Whole map of ${id}`, at: state.at ?? undefined }), h("figcaption", null, "all of them"))),
    h("p", { role: "status" }, `The map of the kept ${feature}s has a sum of ${written(sum(map))} of ${written(sum(whole))} ${layer.scale.unit}, and a correlation of ${written(correlationOf(map, whole), 2)} with the whole map.`),
    kept > 0 && h("p", null, "The first: ", ranking.slice(0, Math.min(kept, 12)).map((one, place) => [place ? ", " : "", h(Link, { to: `feature/${state.layer}/${one}` }, `${feature} ${one}`)]), kept > 12 ? ", …" : ""));
}
