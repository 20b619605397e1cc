// Features: the list of a layer's, and the card of one.

function Features() {
  const layer = layerNow(), feature = layer.feature;
  const many = layer.targets.length, width = layer.features;
  const importance = unpacked(layer.importance).data, difference = layer.difference && unpacked(layer.difference).data;
  const best = (/** @type {any} */ values, /** @type {boolean} */ absolute) => Array.from({ length: width }, (_, k) => {
    let most = -Infinity, target = -1;
    for (let t = 0; t < many; t++) {
      const value = values[t * width + k], size = absolute ? Math.abs(value) : value;
      if (size > most) [most, target] = [size, t];
    }
    return { value: target < 0 ? NaN : values[target * width + k], target };
  });
  const strongest = best(importance, false), apart = difference && best(difference, true);
  const group = layer.partners && unpacked(layer.partners.group).data, dead = layer.partners && unpacked(layer.partners.dead).data;
  const sizes = new Map();
  if (group) for (const one of group) sizes.set(one, (sizes.get(one) ?? 0) + 1);
  const of = (/** @type {{target: number}} */ { target }) => (target < 0 ? "–" : nameOf(layer.targets[target]));
  const tops = layer.tops && layer.maps?.cards && unpacked(layer.tops);
  /** @type {Column[]} */
  const columns = [
    { key: "name", name: feature, number: true, value: (k) => k, cell: (k) => h(Link, { to: `feature/${state.layer}/${k}` }, `${feature} ${k}`) },
    ...(tops ? [{ key: "top", name: "speaks most for it", cell: (/** @type {number} */ k) => h(TopMap, { layer, k, rank: 0 }) }] : []),
    { key: "importance", name: `largest importance (${layer.scale.unit})`, number: true, value: (k) => strongest[k].value, cell: (k) => written(strongest[k].value) },
    { key: "for", name: "for", value: (k) => of(strongest[k]), cell: (k) => of(strongest[k]) },
  ];
  if (apart) columns.push(
    { key: "difference", name: "largest difference", number: true, value: (k) => Math.abs(apart[k].value), cell: (k) => written(apart[k].value) },
    { key: "apart", name: "sets apart", value: (k) => of(apart[k]), cell: (k) => of(apart[k]) });
  if (group) columns.push({ key: "group", name: "says the same as", number: true, value: (k) => (dead[k] ? -1 : sizes.get(group[k]) - 1), cell: (k) => (dead[k] ? "silent" : sizes.get(group[k]) > 1 ? `${sizes.get(group[k]) - 1} others` : "no other") });
  return h("article", null, h("h1", { tabIndex: -1 }, `${feature[0].toUpperCase()}${feature.slice(1)}s of layer ${layer.name}`),
    h("div", { class: "tools" }, h(LayerChoice, {})),
    h(Sorted, { id: `features ${layer.name}`, caption: `${width} ${feature}s, by what they bring for a class`, rows: Array.from({ length: width }, (_, k) => k), columns,
      find: (k) => `${feature} ${k} ${of(strongest[k])}`, start: { by: "importance", down: true } }));
}

/** The own map of a feature on a sample that speaks for it. @param {{layer: any, k: number, rank: number}} props */
function TopMap({ layer, k, rank }) {
  const { shape, data } = unpacked(layer.tops), row = data[k * shape[1] + rank], cards = layer.maps?.cards;
  const ranks = cards ? unpacked(cards.there).shape[1] : 0;
  if (row < 0 || row >= content.shown || rank >= ranks || !unpacked(cards.there).data[k * ranks + rank]) return h("span", null, row < 0 ? "not listed" : content.samples.id[row]);
  const map = itemOf(cards.maps, k * ranks + rank);
  return h(Picture, { row, layer, map, limits: bothWays(map), label: `${layer.feature} ${k} on ${content.samples.id[row]}`, small: true });
}

/** The card of a feature. @param {{k: number}} props */
function Feature({ k }) {
  const layer = layerNow(), { feature } = layer, unit = layer.scale.unit;
  const many = layer.targets.length, width = layer.features;
  const at = (/** @type {string} */ name, /** @type {number} */ t) => unpacked(layer[name]).data[t * width + k];
  const rows = layer.targets.map((/** @type {number} */ target, /** @type {number} */ t) => ({
    name: nameOf(target), value: at("importance", t), low: at("low", t), high: at("high", t),
    box: layer.quantiles ? Array.from({ length: 5 }, (_, q) => unpacked(layer.quantiles).data[(t * width + k) * 5 + q]) : undefined,
  }));
  const order = Array.from({ length: many }, (_, t) => t);
  return h("article", null,
    h("nav", { class: "pages", "aria-label": `Other ${feature}s` },
      k > 0 ? h(Link, { to: `feature/${state.layer}/${k - 1}` }, `${feature} ${k - 1}`) : h("span", null, "the first"),
      k < width - 1 ? h(Link, { to: `feature/${state.layer}/${k + 1}` }, `${feature} ${k + 1}`) : h("span", null, "the last")),
    h("h1", { tabIndex: -1 }, `${feature[0].toUpperCase()}${feature.slice(1)} ${k} of layer ${layer.name}`),
    h("section", { "aria-labelledby": "importance" }, h("h2", { id: "importance" }, "Importance for each class"),
      h(Bars, { rows: rows.slice(0, 40).map((/** @type {any} */ one) => ({ ...one, box: undefined })), label: `Importance of ${feature} ${k} for each class, with 95 % intervals; the numbers stand in the table`, unit: `mean importance (${unit}), with 95 % interval` }),
      h("details", null, h("summary", null, "The numbers"), h(Sorted, { id: "card", caption: `Importance of ${feature} ${k}`, rows: order, columns: [
        { key: "class", name: "class", value: (t) => rows[t].name, cell: (t) => h(Link, { to: `class/${layer.targets[t]}` }, rows[t].name) },
        { key: "value", name: `importance (${unit})`, number: true, value: (t) => rows[t].value, cell: (t) => written(rows[t].value) },
        { key: "interval", name: "95 % interval", cell: (t) => `${written(rows[t].low)} to ${written(rows[t].high)}` },
        ...(layer.difference ? [{ key: "difference", name: "difference from the overall", number: true, value: (/** @type {number} */ t) => at("difference", t), cell: (/** @type {number} */ t) => written(at("difference", t)) }] : []),
        { key: "accepted", name: "accepted samples", number: true, value: (t) => layer.accepted[t], cell: (t) => layer.accepted[t] },
      ] }))),
    layer.quantiles ? h("section", { "aria-labelledby": "spread" }, h("h2", { id: "spread" }, "How it is distributed"),
      h(Bars, { rows: rows.slice(0, 40), label: `Distribution of the importance of ${feature} ${k} over the accepted samples of each class`, unit: `importance (${unit}): 5, 25, 50, 75 and 95 % of accepted samples` })) : null,
    h(TopSamples, { layer, k }), h(Fires, { layer, k }), h(Partners, { layer, k }));
}

/** The samples that speak most for a feature. @param {{layer: any, k: number}} props */
function TopSamples({ layer, k }) {
  if (!layer.tops) return h("section", null, h("h2", null, "Samples that speak most for it"), h("p", { class: "caution" }, "The run did not keep the importance of every sample (keep_samples='full')."));
  const { shape, data } = unpacked(layer.tops), values = unpacked(layer.top_values).data;
  return h("section", { "aria-labelledby": "tops" }, h("h2", { id: "tops" }, "Samples that speak most for it"),
    h("p", null, `Each with the map of this ${layer.feature} alone: orange speaks for the target, blue against it, by the largest of each map.`),
    h("ul", { class: "thumbs" }, Array.from({ length: shape[1] }, (_, rank) => {
      const row = data[k * shape[1] + rank];
      return h("li", { class: "thumb", key: rank }, row < 0 ? "not listed" : h(Link, { to: `sample/${row}`, label: `Sample ${content.samples.id[row]}` }, h(TopMap, { layer, k, rank })),
        h("span", null, `${written(values[k * shape[1] + rank])} ${layer.scale.unit}`));
    })));
}

/** Where a feature speaks, on average. @param {{layer: any, k: number}} props */
function Fires({ layer, k }) {
  if (!layer.maps) return null;
  const map = itemOf(layer.maps.mean, k), limits = bothWays(map), grid = layer.maps.grid;
  const label = `Mean map of ${layer.feature} ${k} over the ${content.shown} samples shown`;
  let picture;
  if (grid.length === 1) {
    const rows = Array.from(map, (value, place) => ({ name: String(place), value, low: null, high: null }));
    picture = rows.length <= 64 ? h(Bars, { rows, label, unit: layer.scale.unit }) : h(GridMap, { map, limits, grid: [1, grid[0]], label });
  } else if (grid.length === 2) picture = h(GridMap, { map, limits, grid, label });
  else {
    const size = grid[1] * grid[2];
    const flat = new Float32Array(size);
    for (let at = 0; at < map.length; at++) flat[at % size] += map[at];
    picture = h(GridMap, { map: flat, limits: bothWays(flat), grid: grid.slice(1), label: `${label}, summed over z` });
  }
  return h("section", { "aria-labelledby": "fires" }, h("h2", { id: "fires" }, "Where it fires"),
    h("figure", null, picture, h("figcaption", null, `${label}, at the layer's grid of ${grid.join(" × ")}${grid.length === 3 ? ", summed over z" : ""}`), h(Bar, { limits, unit: layer.scale.unit, said: "mean" })));
}

/** A map at its own grid, over gray. @param {{map: ArrayLike<number>, limits: Limits, grid: number[], label: string}} props */
function GridMap({ map, limits, grid, label }) {
  const draw = (/** @type {HTMLCanvasElement} */ canvas) => {
    const pen = /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d"));
    const pixels = pen.createImageData(grid[1], grid[0]);
    blend(pixels.data, null, map, limits);
    pen.putImageData(pixels, 0, 0);
  };
  return h(Canvas, { width: grid[1], height: grid[0], label, cls: "large", draw });
}

/** Features that say the same. @param {{layer: any, k: number}} props */
function Partners({ layer, k }) {
  const { partners, feature } = layer;
  if (!partners) return null;
  const dead = unpacked(partners.dead).data[k];
  const { shape } = unpacked(partners.feature);
  const of = (/** @type {string} */ name, /** @type {number} */ place) => unpacked(partners[name]).data[k * shape[1] + place];
  return h("section", { "aria-labelledby": "partners" }, h("h2", { id: "partners" }, "Others that say the same"),
    dead ? h("p", null, `This ${feature} says nothing on this population.`) :
      h("ul", null, Array.from({ length: shape[1] }, (_, place) => h("li", { key: place },
        h(Link, { to: `feature/${state.layer}/${of("feature", place)}` }, `${feature} ${of("feature", place)}`),
        `: r = ${written(of("r", place), 2)} within classes${of("alarm", place) ? ", a copy" : ""}`))));
}
