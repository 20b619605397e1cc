// What Python packed, read back: arrays when they are first asked for, each once.

/** @typedef {{kind: string, shape: number[], base64: string}} Packed */
/** @typedef {{values: Packed, unit: Packed}} Quantized */
/** @typedef {{data: any, shape: number[]}} Numbers */

const content = JSON.parse(/** @type {HTMLElement} */ (document.getElementById("content")).textContent || "{}");

/** @type {Record<string, any>} */
const KINDS = { u1: Uint8Array, i1: Int8Array, i2: Int16Array, i4: Int32Array, f4: Float32Array };

/** @type {WeakMap<object, Numbers>} */
const read = new WeakMap();

/** Unpack an array. @param {Packed} packed @returns {Numbers} */
function unpacked(packed) {
  const known = read.get(packed);
  if (known) return known;
  const text = atob(packed.base64);
  const bytes = new Uint8Array(text.length);
  for (let at = 0; at < text.length; at++) bytes[at] = text.charCodeAt(at);
  const found = { data: new KINDS[packed.kind](bytes.buffer), shape: packed.shape };
  read.set(packed, found);
  return found;
}

/** One row of an array, along its first axis. @param {Packed} packed @param {number} row */
function rowOf(packed, row) {
  const { data, shape } = unpacked(packed);
  const size = shape.slice(1).reduce((a, b) => a * b, 1);
  return data.subarray(row * size, (row + 1) * size);
}

/** One item of integers that share a unit, as numbers. @param {Quantized} packed @param {number} item @returns {Float32Array} */
function itemOf(packed, item) {
  const values = unpacked(packed.values);
  const unit = unpacked(packed.unit).data[item];
  const size = values.data.length / unpacked(packed.unit).data.length;
  return Float32Array.from(values.data.subarray(item * size, (item + 1) * size), (one) => one * unit);
}

/** A number in few digits. @param {number | null | undefined} value @param {number} [digits] */
function written(value, digits = 3) {
  if (value === null || value === undefined || !Number.isFinite(value)) return "–";
  if (value === 0) return "0";
  const size = Math.abs(value);
  const text = size >= 1e5 || size < 1e-3 ? value.toExponential(digits - 1) : Number(value.toPrecision(digits)).toString();
  return text.replace("-", "−");
}

/** A share. @param {number | null} value */
function percent(value) {
  return value === null ? "–" : `${(100 * value).toFixed(1)} %`;
}

/** The name of a target. @param {number} target @returns {string} */
function nameOf(target) {
  return content.names[String(target)] ?? String(target);
}

/** Whether samples have the same label or output for a class. */
const classes = content.run.task === "classification" || content.run.task === "scored";

/** What labels of a sample say. @param {"label" | "prediction"} what @param {number} row @returns {string} */
function saidOf(what, row) {
  const values = Array.from(rowOf(content.samples[what], row));
  if (content.run.task === "regression") return values.map((one) => written(one)).join(", ");
  if (classes) return values[0] < 0 ? "nothing" : nameOf(values[0]);
  if (content.run.task === "binary") return values[0] ? nameOf(0) : `not ${nameOf(0)}`;
  const there = values.flatMap((one, at) => (one ? [nameOf(at)] : []));
  return there.join(", ") || "none";
}
