// Charts as vector graphics, each with what it says in words; the numbers stand in a table beside.

/** Ticks between two numbers. @param {number} low @param {number} high @param {number} [count] @returns {number[]} */
function ticksOf(low, high, count = 5) {
  const rough = (high - low) / count || 1;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((one) => one * power).find((one) => one >= rough * 0.999) ?? rough;
  const found = [];
  for (let at = Math.ceil(low / step - 1e-9); at * step <= high + step * 1e-9; at++) found.push(at * step);
  return found;
}

/** An axis at the foot. @param {{low: number, high: number, wide: number, y: number, x?: number}} props */
function Axis({ low, high, wide, y, x = 0 }) {
  const at = (/** @type {number} */ value) => x + ((value - low) / (high - low || 1)) * wide;
  return h("g", { class: "axis" },
    h("line", { x1: x, x2: x + wide, y1: y, y2: y }),
    ticksOf(low, high).map((tick) => h("g", null,
      h("line", { x1: at(tick), x2: at(tick), y1: y, y2: y + 4 }),
      h("text", { x: at(tick), y: y + 16, "text-anchor": "middle" }, written(tick)))));
}

/**
 * Bars with intervals, one below the other.
 * @param {{rows: {name: string, value: number | null, low: number | null, high: number | null, href?: string, box?: (number | null)[]}[],
 *   label: string, unit: string, from?: number, to?: number}} props
 */
function Bars({ rows, label, unit, from, to }) {
  const known = rows.flatMap((row) => [row.value, row.low, row.high, ...(row.box ?? [])]).filter((one) => one !== null && Number.isFinite(one));
  const low = from ?? Math.min(0, ...known.map(Number)), most = to ?? Math.max(...known.map(Number), low + 1e-9), high = to ?? most + 0.02 * (most - low);
  const left = 130, wide = 430, each = 20, tall = rows.length * each;
  const at = (/** @type {number} */ value) => left + ((value - low) / (high - low || 1)) * wide;
  const good = (/** @type {number | null | undefined} */ one) => one !== null && one !== undefined && Number.isFinite(one);
  return h("svg", { viewBox: `0 0 ${left + wide + 30} ${tall + 40}`, class: "chart", role: "img", "aria-label": label },
    rows.map((row, place) => {
      const y = place * each + each / 2;
      const text = h("text", { x: left - 8, y: y + 4, "text-anchor": "end" }, row.name.length > 18 ? `${row.name.slice(0, 17)}…` : row.name);
      const box = row.box && row.box.every(good) ? /** @type {number[]} */ (row.box) : null;
      return h("g", null, text,
        box && [
          h("line", { x1: at(box[0]), x2: at(box[4]), y1: y, y2: y, class: "whisker" }),
          h("rect", { x: at(box[1]), width: Math.max(1, at(box[3]) - at(box[1])), y: y - 6, height: 12, class: "quartiles" }),
          h("line", { x1: at(box[2]), x2: at(box[2]), y1: y - 6, y2: y + 6, class: "median" }),
        ],
        !box && good(row.value) && h("rect", { x: Math.min(at(0), at(Number(row.value))), width: Math.abs(at(Number(row.value)) - at(0)), y: y - 6, height: 12, class: Number(row.value) < 0 ? "cold" : "warm" }),
        !box && good(row.low) && good(row.high) && h("line", { x1: at(Number(row.low)), x2: at(Number(row.high)), y1: y, y2: y, class: "interval" }));
    }),
    low < 0 && h("line", { x1: at(0), x2: at(0), y1: 0, y2: tall, class: "zero" }),
    h(Axis, { low, high, wide, y: tall + 2, x: left }),
    h("text", { x: left + wide / 2, y: tall + 36, "text-anchor": "middle", class: "unit" }, unit));
}

/** How extremes of maps are distributed, and the limits of the common scale. @param {{scale: any}} props */
function Extremes({ scale }) {
  if (!scale.extremes) return null;
  const edges = unpacked(scale.extremes.edges).data, count = edges.length - 1;
  const low = edges[0], high = edges[count], wide = 560, tall = 150;
  const parts = [["low", "cold"], ["high", "warm"]].map(([name, cls]) => ({ cls, data: unpacked(scale.extremes[name]).data }));
  const most = Math.max(1, ...parts.flatMap(({ data }) => Array.from(data, Number)));
  const at = (/** @type {number} */ value) => 10 + ((value - low) / (high - low || 1)) * wide;
  const label = `Histogram of the smallest and largest value of each map; the common scale goes from ${written(scale.low)} to ${written(scale.high)} ${scale.unit}`;
  return h("figure", null,
    h("svg", { viewBox: `0 0 ${wide + 30} ${tall + 62}`, class: "chart", role: "img", "aria-label": label },
      parts.map(({ cls, data }) => Array.from(data, (size, bin) => size > 0 && h("rect", {
        x: at(edges[bin]), width: Math.max(0.5, wide / count - 0.5), y: 24 + tall - (size / most) * tall, height: (size / most) * tall, class: `${cls} bin`,
      }))),
      [["low", scale.low], ["high", scale.high]].map(([name, value]) => value !== null && h("g", null,
        h("line", { x1: at(value), x2: at(value), y1: 18, y2: 24 + tall, class: "limit" }),
        h("text", { x: at(value), y: 12, "text-anchor": "middle", class: "unit" }, `${name} ${written(value)}`))),
      h(Axis, { low, high, wide, y: 26 + tall, x: 10 }),
      h("text", { x: 10 + wide / 2, y: tall + 58, "text-anchor": "middle", class: "unit" }, `value (${scale.unit})`)),
    h("figcaption", null, "Blue: the smallest value of each map. Orange: the largest. Dashed: the limits of the common scale, the median of the one and the 90th percentile of the other."));
}

/** Two numbers of each feature. @param {{points: {x: number, y: number, name: string, href: string}[], label: string, across: string, up: string}} props */
function Scatter({ points, label, across, up }) {
  const every = points.flatMap(({ x, y }) => [x, y]).filter(Number.isFinite);
  const low = Math.min(0, ...every), high = Math.max(...every, 1e-9), side = 320;
  const at = (/** @type {number} */ value) => ((value - low) / (high - low || 1)) * side;
  return h("svg", { viewBox: `0 0 ${side + 60} ${side + 50}`, class: "chart square", role: "img", "aria-label": label },
    h("g", { transform: "translate(40 4)" },
      h("line", { x1: 0, y1: side, x2: side, y2: 0, class: "zero" }),
      points.filter(({ x, y }) => Number.isFinite(x + y)).map(({ x, y, name }) =>
        h("circle", { cx: at(x), cy: side - at(y), r: 3.5, class: "point" }, h("title", null, name))),
      h(Axis, { low, high, wide: side, y: side }),
      ticksOf(low, high).map((tick) => h("text", { x: -6, y: side - at(tick) + 4, "text-anchor": "end" }, written(tick))),
      h("line", { x1: 0, x2: 0, y1: 0, y2: side, class: "zero" }),
      h("text", { x: side / 2, y: side + 36, "text-anchor": "middle", class: "unit" }, across),
      h("text", { x: 6, y: 10, class: "unit" }, up)));
}
