// Layers side by side, and two runs.

function Layers() {
  const { samples } = content;
  const row = Math.min(Number(state.route.id) || 0, Math.max(0, content.shown - 1));
  const facts = content.layers.map((/** @type {any} */ _, /** @type {number} */ at) => at);
  return h("article", null, h("h1", { tabIndex: -1 }, "Layers side by side"),
    h(Sorted, { id: "layers", caption: "Layers of the run", rows: facts, columns: [
      { key: "name", name: "layer", value: (at) => content.layers[at].name, cell: (at) => content.layers[at].name },
      { key: "features", name: "features", number: true, value: (at) => content.layers[at].features, cell: (at) => `${content.layers[at].features} ${content.layers[at].feature}s` },
      { key: "grid", name: "grid", cell: (at) => content.layers[at].maps?.grid.join(" × ") ?? "–" },
      { key: "low", name: "low", number: true, value: (at) => content.layers[at].scale.low, cell: (at) => written(content.layers[at].scale.low) },
      { key: "high", name: "high", number: true, value: (at) => content.layers[at].scale.high, cell: (at) => `${written(content.layers[at].scale.high)} ${content.layers[at].scale.unit}` },
    ] }),
    !content.layers[0].maps || !content.shown ? h("p", { class: "caution" }, "There are no maps on this page.") : [
      h("div", { class: "tools" }, h(ScaleSwitch, {}), h(PlaneSliders, {}),
        h(Choice, { label: "Sample", value: row, options: Array.from({ length: Math.min(content.shown, 200) }, (_, one) => [one, `${samples.id[one]} (${saidOf("label", one)})`]), change: (/** @type {string} */ value) => go(`layers/${value}`, false) })),
      h("div", { class: "row" },
        h("figure", null, h(Picture, { row, label: `Input of ${samples.id[row]}`, at: state.at ?? undefined }), h("figcaption", null, "input")),
        content.layers.map((/** @type {any} */ layer) => {
          const map = mapOf(layer, 0, row), limits = limitsFor(layer, 0, map);
          return h("figure", { key: layer.name }, h(Picture, { row, layer, map, limits, label: `Map of layer ${layer.name}`, at: state.at ?? undefined }), h("figcaption", null, layer.name), h(Bar, { limits, unit: layer.scale.unit, said: state.scaling === "common" ? "the layer's scale" : "by itself" }));
        })),
    ]);
}

function Compare() {
  const { other } = content, layer = layerNow(), theirs = other.layers[state.layer];
  const mine = new Map((content.accuracy?.each ?? []).map((/** @type {any} */ one) => [one.target, one]));
  const share = other.accuracy?.kind === "share";
  const rows = (other.accuracy?.each ?? []).map((/** @type {any} */ _, /** @type {number} */ at) => at);
  const said = (/** @type {any} */ one) => (!one ? "–" : share ? `${percent(one.value)} (${percent(one.low)} to ${percent(one.high)})` : `${written(one.value)} (${written(one.low)} to ${written(one.high)})`);
  const target = Math.min(state.target, layer.targets.length - 1);
  const here = rowOf(layer.importance, target), there = theirs.importance && rowOf(theirs.importance, target);
  return h("article", null, h("h1", { tabIndex: -1 }, "Two runs compared"),
    h("p", null, `${content.run.name} (here) and ${other.name} (there).`),
    other.accuracy && h(Sorted, { id: "compare", caption: "Accuracy here and there, with 95 % intervals", rows, columns: [
      { key: "class", name: "class", value: (at) => other.accuracy.each[at].name, cell: (at) => other.accuracy.each[at].name },
      { key: "here", name: "here", value: (at) => mine.get(other.accuracy.each[at].target)?.value ?? null, cell: (at) => said(mine.get(other.accuracy.each[at].target)) },
      { key: "there", name: "there", value: (at) => other.accuracy.each[at].value, cell: (at) => said(other.accuracy.each[at]) },
    ] }),
    h("div", { class: "tools" }, h(LayerChoice, {})),
    theirs.sentences.length > 0 && h("section", { "aria-labelledby": "shift" }, h("h2", { id: "shift" }, "What shifted"), h("ul", { class: "said" }, theirs.sentences.map((/** @type {string[]} */ lines) => h(Said, { lines })))),
    theirs.scale && h("section", { "aria-labelledby": "scales" }, h("h2", { id: "scales" }, "The common scale of each"),
      h("h3", null, `Here: ${written(layer.scale.low)} to ${written(layer.scale.high)} ${layer.scale.unit}`), h(Extremes, { scale: layer.scale }),
      h("h3", null, `There: ${written(theirs.scale.low)} to ${written(theirs.scale.high)} ${theirs.scale.unit}`), h(Extremes, { scale: theirs.scale })),
    there && h("section", { "aria-labelledby": "both" }, h("h2", { id: "both" }, "Importances here and there"),
      h("div", { class: "tools" }, h(Choice, { label: "Class", value: target, options: layer.targets.map((/** @type {number} */ one, /** @type {number} */ at) => [at, nameOf(one)]), change: (/** @type {string} */ value) => set({ target: Number(value) }) })),
      h(Scatter, { points: Array.from(here, (x, k) => ({ x: Number(x), y: Number(there[k]), name: `${layer.feature} ${k}: ${written(Number(x))} here, ${written(Number(there[k]))} there`, href: `feature/${state.layer}/${k}` })), label: `Importance of each ${layer.feature} for ${nameOf(layer.targets[target])}, here and there`, across: `importance here (${layer.scale.unit})`, up: `there (${layer.scale.unit})` }),
      h(Sorted, { id: "both", caption: `Importance of each ${layer.feature}`, rows: Array.from({ length: layer.features }, (_, k) => k), start: { by: "change", down: true }, columns: [
        { key: "name", name: layer.feature, number: true, value: (k) => k, cell: (k) => h(Link, { to: `feature/${state.layer}/${k}` }, `${layer.feature} ${k}`) },
        { key: "here", name: "here", number: true, value: (k) => here[k], cell: (k) => written(here[k]) },
        { key: "there", name: "there", number: true, value: (k) => there[k], cell: (k) => written(there[k]) },
        { key: "change", name: "change", number: true, value: (k) => Math.abs(there[k] - here[k]), cell: (k) => written(there[k] - here[k]) },
      ] })));
}
