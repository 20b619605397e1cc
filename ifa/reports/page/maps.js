// Maps: put where their units lie, on the common scale or one by one, and colored as ifa.plot does.

const GRAY = 128;
const CONTRAST = 0.5;
const WARM = [
  [226, 114, 74], [226, 114, 74], [241, 124, 59], [248, 138, 46], [252, 152, 35],
  [255, 176, 48], [255, 198, 65], [255, 216, 81], [255, 232, 96],
];
const COLD = [
  [88, 148, 220], [88, 148, 220], [78, 159, 234], [67, 172, 243], [60, 186, 247],
  [84, 203, 253], [106, 216, 255], [126, 227, 255], [144, 236, 255],
];

/** @typedef {{below: Int32Array, above: Int32Array, weight: Float32Array}} Along */
/** @typedef {{low: number, high: number, signed?: boolean}} Limits */

/**
 * Where each drawn point of an axis lies between the layer's units, as `ifa.place` has it.
 * @param {any} maps @param {number} axis @param {number} drawn @param {number} extent of the input
 * @returns {Along}
 */
function along(maps, axis, drawn, extent) {
  const last = maps.grid[axis] - 1;
  const below = new Int32Array(drawn), above = new Int32Array(drawn), weight = new Float32Array(drawn);
  for (let at = 0; at < drawn; at++) {
    const place = ((at + 0.5) * extent) / drawn - 0.5;
    const unit = Math.min(Math.max((place - maps.start[axis]) / maps.step[axis], 0), last);
    below[at] = Math.floor(unit);
    above[at] = Math.min(below[at] + 1, last);
    weight[at] = unit - below[at];
  }
  return { below, above, weight };
}

/**
 * Interpolate a map (row, column).
 * @param {ArrayLike<number>} values @param {number} columns of the map
 * @param {Along} down @param {Along} across @returns {Float32Array}
 */
function placed(values, columns, down, across) {
  const high = down.below.length, wide = across.below.length;
  const found = new Float32Array(high * wide);
  for (let y = 0; y < high; y++) {
    const upper = down.below[y] * columns, lower = down.above[y] * columns, v = down.weight[y];
    for (let x = 0; x < wide; x++) {
      const left = across.below[x], right = across.above[x], u = across.weight[x];
      const top = values[upper + left] * (1 - u) + values[upper + right] * u;
      const foot = values[lower + left] * (1 - u) + values[lower + right] * u;
      found[y * wide + x] = top * (1 - v) + foot * v;
    }
  }
  return found;
}

/** Smallest and largest. @param {ArrayLike<number>} values @returns {Limits} */
function limitsOf(values) {
  let low = Infinity, high = -Infinity;
  for (let at = 0; at < values.length; at++) {
    low = Math.min(low, values[at]);
    high = Math.max(high, values[at]);
  }
  return { low, high };
}

/** The largest absolute value, both ways. @param {ArrayLike<number>} values @returns {Limits} */
function bothWays(values) {
  const { low, high } = limitsOf(values);
  const most = Math.max(-low, high);
  return { low: -most, high: most, signed: true };
}

/** The common scale of a method's maps, or null. @param {any} layer @param {number} method @returns {Limits | null} */
function scaleOf(layer, method) {
  const scale = method === 0 ? layer.scale : layer.maps.methods[method].scale;
  return scale.low === null || scale.high === null || scale.low >= scale.high ? null : { low: scale.low, high: scale.high };
}

/** Between 0, nothing, and 1, the most. @param {number} value @param {Limits} limits */
function shareOf(value, limits) {
  const low = limits.signed ? 0 : limits.low;
  const size = limits.signed ? Math.abs(value) : value;
  const share = (size - low) / (limits.high - low);
  return share > 0 ? Math.min(share, 1) : 0; // what is no number is nothing
}

/** The opaque color of a share. @param {number} share @param {boolean} cold @returns {number[]} */
function colorOf(share, cold) {
  const colors = cold ? COLD : WARM;
  const place = share * (colors.length - 1), at = Math.min(Math.floor(place), colors.length - 2);
  return colors[at].map((one, part) => one + (colors[at + 1][part] - one) * (place - at));
}

/**
 * Lay a map over light from 0 to 255, or over gray, into pixels.
 * @param {Uint8ClampedArray} pixels @param {ArrayLike<number> | null} light
 * @param {ArrayLike<number>} values @param {Limits} limits
 */
function blend(pixels, light, values, limits) {
  for (let at = 0; at < values.length; at++) {
    const share = shareOf(values[at], limits);
    const color = colorOf(share, Boolean(limits.signed) && values[at] < 0);
    const beneath = GRAY + CONTRAST * ((light ? light[at] : GRAY) - GRAY);
    for (let part = 0; part < 3; part++) pixels[4 * at + part] = (1 - share) * beneath + share * color[part];
    pixels[4 * at + 3] = 255;
  }
}

/** A map of a shown sample, at the layer's grid. @param {any} layer @param {number} method @param {number} row */
function mapOf(layer, method, row) {
  return itemOf(layer.maps.methods[method].maps, row);
}

/**
 * The features of a layer, the most important for a target first.
 * @param {any} layer @param {number} target @param {"importance" | "difference"} by @returns {number[] | null}
 */
function rankingOf(layer, target, by) {
  const place = layer.targets.indexOf(target);
  if (place < 0 || !layer[by]) return null;
  const values = rowOf(layer[by], place);
  if (!Number.isFinite(values[0])) return null;
  const size = by === "difference" ? Math.abs : (/** @type {number} */ one) => one;
  const listed = Array.from(unpacked(layer.maps.parts.listed).data, Number);
  return listed.sort((a, b) => size(values[b]) - size(values[a]) || a - b);
}

/**
 * The map of the first features of a ranking; of all of them with what was summed.
 * @param {any} layer @param {number} row @param {number[]} ranking @param {number} kept @returns {Float32Array}
 */
function keptMap(layer, row, ranking, kept) {
  const parts = layer.maps.parts;
  const listed = Array.from(unpacked(parts.listed).data, Number);
  const places = new Map(listed.map((feature, place) => [feature, place]));
  const size = layer.maps.grid.reduce((/** @type {number} */ a, /** @type {number} */ b) => a * b, 1);
  const found = new Float32Array(size);
  for (const feature of ranking.slice(0, kept)) {
    const part = itemOf(parts.maps, row * listed.length + /** @type {number} */ (places.get(feature)));
    for (let at = 0; at < size; at++) found[at] += part[at];
  }
  if (parts.rest && kept === ranking.length) {
    const rest = itemOf(parts.rest, row);
    for (let at = 0; at < size; at++) found[at] += rest[at];
  }
  return found;
}

/** Pearson's r. @param {ArrayLike<number>} a @param {ArrayLike<number>} b */
function correlationOf(a, b) {
  const mean = (/** @type {ArrayLike<number>} */ one) => Array.from(one).reduce((x, y) => x + y, 0) / one.length;
  const [mid, its] = [mean(a), mean(b)];
  let both = 0, first = 0, second = 0;
  for (let at = 0; at < a.length; at++) {
    both += (a[at] - mid) * (b[at] - its);
    first += (a[at] - mid) ** 2;
    second += (b[at] - its) ** 2;
  }
  return both / Math.sqrt(first * second);
}
