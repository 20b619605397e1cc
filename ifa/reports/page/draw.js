// Inputs and maps as pictures: images on canvas, signals as vectors, volumes as three planes.

const { h, render, Component } = preact;
const SVG = "http://www.w3.org/2000/svg";

/** @type {HTMLImageElement | null} */
let sheet = null;

/** Load the one sheet that all images are on. @returns {Promise<void>} */
async function loadSheet() {
  if (content.inputs?.kind !== "image") return;
  const image = new Image();
  image.src = content.inputs.sheet.url;
  await image.decode();
  sheet = image;
}

/** A canvas that is drawn anew whenever it is rendered. */
class Canvas extends Component {
  componentDidMount() { this.props.draw(this.base); }
  componentDidUpdate() { this.props.draw(this.base); }
  render() {
    const { width, height, label, cls } = this.props;
    return h("canvas", { width, height, role: "img", "aria-label": label, class: cls });
  }
}

/**
 * The pixels of a shown sample's image.
 * @param {number} row @returns {ImageData}
 */
function pixelsOf(row) {
  const { columns, size: [high, wide] } = content.inputs.sheet;
  const canvas = document.createElement("canvas");
  canvas.width = wide;
  canvas.height = high;
  const pen = /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d", { willReadFrequently: true }));
  const [down, across] = [Math.floor(row / columns), row % columns];
  pen.drawImage(/** @type {HTMLImageElement} */ (sheet), across * wide, down * high, wide, high, 0, 0, wide, high);
  return pen.getImageData(0, 0, wide, high);
}

/** The light of pixels. @param {ImageData} pixels */
function lightOf(pixels) {
  const light = new Float32Array(pixels.width * pixels.height);
  for (let at = 0; at < light.length; at++) {
    light[at] = 0.299 * pixels.data[4 * at] + 0.587 * pixels.data[4 * at + 1] + 0.114 * pixels.data[4 * at + 2];
  }
  return light;
}

/**
 * @typedef {object} View what is drawn of a sample
 * @property {number} row of the shown samples
 * @property {any} [layer] @property {ArrayLike<number> | null} [map] at the layer's grid; null for the input alone
 * @property {Limits} [limits]
 * @property {string} label
 * @property {boolean} [small]
 * @property {number[]} [at] of a volume, the point through which planes go
 */

/** A sample, with a map over it or without. @param {View} view */
function Picture(view) {
  if (!content.inputs || view.row < 0 || view.row >= content.shown) {
    return h("div", { class: "blank", role: "img", "aria-label": `${view.label}: not on this page` }, "not on this page");
  }
  if (content.inputs.kind === "signal") return h(Signal, view);
  if (content.inputs.kind === "volume") return h(Planes, view);
  return h(Flat, view);
}

/** An image. @param {View} view */
function Flat(view) {
  const [high, wide] = content.inputs.sheet.size;
  const draw = (/** @type {HTMLCanvasElement} */ canvas) => {
    if (!sheet) return;
    const pixels = pixelsOf(view.row);
    if (view.map && view.limits) {
      const [rows, columns] = content.inputs.space;
      const down = along(view.layer.maps, 0, high, rows), across = along(view.layer.maps, 1, wide, columns);
      blend(pixels.data, lightOf(pixels), placed(view.map, view.layer.maps.grid[1], down, across), view.limits);
    }
    /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d")).putImageData(pixels, 0, 0);
  };
  return h(Canvas, { width: wide, height: high, label: view.label, cls: view.small ? "small" : "large", draw });
}

/** A signal: a line for each lane, and the map as colored bands behind them. @param {View} view */
function Signal(view) {
  const { shape } = unpacked(content.inputs.lanes.values);
  const [, lanes, points] = shape;
  const wide = view.small ? 160 : 640, tall = view.small ? Math.max(48, 14 * lanes) : Math.max(120, 46 * lanes);
  const each = tall / lanes;
  const bands = [];
  if (view.map && view.limits) {
    const count = Math.min(view.small ? 40 : 160, content.inputs.space[0]);
    const across = along(view.layer.maps, 0, count, content.inputs.space[0]);
    for (let at = 0; at < count; at++) {
      const value = view.map[across.below[at]] * (1 - across.weight[at]) + view.map[across.above[at]] * across.weight[at];
      const share = shareOf(value, view.limits);
      if (share <= 0.004) continue;
      const [red, green, blue] = colorOf(share, Boolean(view.limits.signed) && value < 0);
      bands.push(h("rect", {
        x: (at * wide) / count, y: 0, width: wide / count + 0.3, height: tall,
        fill: `rgb(${red.toFixed(0)} ${green.toFixed(0)} ${blue.toFixed(0)})`, "fill-opacity": share.toFixed(3),
      }));
    }
  }
  const lines = Array.from({ length: lanes }, (_, lane) => {
    const values = itemOf(content.inputs.lanes, view.row * lanes + lane);
    const { low, high } = limitsOf(values);
    const path = Array.from(values, (value, at) => {
      const y = each * (lane + 0.9 - (0.8 * (value - low)) / (high - low || 1));
      return `${((at + 0.5) * wide) / points},${y.toFixed(1)}`;
    });
    return h("polyline", { points: path.join(" "), class: "trace" });
  });
  return h("svg", { viewBox: `0 0 ${wide} ${tall}`, class: view.small ? "signal small" : "signal", role: "img", "aria-label": view.label },
    h("rect", { width: wide, height: tall, class: "under" }), bands, lines);
}

const PLANES = [["z", "y", "x"], ["y", "z", "x"], ["x", "z", "y"]];

/** Three planes of a volume. @param {View} view */
function Planes(view) {
  const size = content.inputs.drawn;
  const at = view.at ?? size.map((/** @type {number} */ one) => Math.floor(one / 2));
  const shown = view.small ? [0] : [0, 1, 2];
  return h("div", { class: "planes" }, shown.map((fixed) => {
    const [down, across] = [0, 1, 2].filter((axis) => axis !== fixed);
    const draw = (/** @type {HTMLCanvasElement} */ canvas) => drawPlane(canvas, view, fixed, down, across, at);
    const label = `${view.label}, plane of ${PLANES[fixed][1]} and ${PLANES[fixed][2]} at ${PLANES[fixed][0]} = ${at[fixed]}`;
    return h(Canvas, { width: size[across], height: size[down], label, cls: view.small ? "small" : "plane", draw });
  }));
}

/** @param {HTMLCanvasElement} canvas @param {View} view @param {number} fixed @param {number} down @param {number} across @param {number[]} at */
function drawPlane(canvas, view, fixed, down, across, at) {
  const size = content.inputs.drawn, voxels = rowOf(content.inputs.voxels, view.row);
  const strides = [size[1] * size[2], size[2], 1];
  const [high, wide] = [size[down], size[across]];
  const light = new Float32Array(high * wide);
  for (let y = 0; y < high; y++) {
    for (let x = 0; x < wide; x++) light[y * wide + x] = voxels[at[fixed] * strides[fixed] + y * strides[down] + x * strides[across]];
  }
  const pen = /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d"));
  const pixels = pen.createImageData(wide, high);
  if (view.map && view.limits) {
    const { grid } = view.layer.maps, space = content.inputs.space;
    const steps = [grid[1] * grid[2], grid[2], 1];
    const through = along(view.layer.maps, fixed, size[fixed], space[fixed]);
    const flat = new Float32Array(grid[down] * grid[across]);
    const [first, second, weight] = [through.below[at[fixed]], through.above[at[fixed]], through.weight[at[fixed]]];
    for (let y = 0; y < grid[down]; y++) {
      for (let x = 0; x < grid[across]; x++) {
        const rest = y * steps[down] + x * steps[across];
        flat[y * grid[across] + x] = view.map[first * steps[fixed] + rest] * (1 - weight) + view.map[second * steps[fixed] + rest] * weight;
      }
    }
    const rows = along(view.layer.maps, down, high, space[down]), columns = along(view.layer.maps, across, wide, space[across]);
    blend(pixels.data, light, placed(flat, grid[across], rows, columns), view.limits);
  } else {
    for (let place = 0; place < light.length; place++) {
      for (let part = 0; part < 3; part++) pixels.data[4 * place + part] = light[place];
      pixels.data[4 * place + 3] = 255;
    }
  }
  pen.putImageData(pixels, 0, 0);
}

/** What colors mean. @param {{limits: Limits, unit: string, said: string}} props */
function Bar({ limits, unit, said }) {
  const draw = (/** @type {HTMLCanvasElement} */ canvas) => {
    const pen = /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d"));
    const pixels = pen.createImageData(256, 1);
    const low = limits.signed ? -limits.high : limits.low;
    const values = Float32Array.from({ length: 256 }, (_, at) => low + ((limits.high - low) * (at + 0.5)) / 256);
    blend(pixels.data, null, values, limits);
    pen.putImageData(pixels, 0, 0);
  };
  const low = written(limits.signed ? -limits.high : limits.low), high = written(limits.high);
  return h("figure", { class: "bar" },
    h(Canvas, { width: 256, height: 1, label: `Colors from ${low} to ${high} ${unit}`, cls: "ramp", draw }),
    h("figcaption", null, h("span", null, low), h("span", null, said), h("span", null, `${high} ${unit}`)));
}
