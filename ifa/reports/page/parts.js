// What views share: the state, links, tables that sort, choices, samples with their maps.

/** @typedef {{view: string, id: string}} Route */

const state = {
  /** @type {Route} */ route: { view: "overview", id: "" },
  layer: 0,
  method: 0,
  /** @type {"common" | "own"} */ scaling: "common",
  /** @type {"importance" | "difference"} */ by: "importance",
  /** @type {number | null} */ kept: null,
  /** @type {number[] | null} */ at: null,
  theme: "light dark",
  /** @type {Record<string, {by: string, down: boolean, find: string, page: number, only: string}>} */ tables: {},
  target: 0,
};

/** Change the state, and draw. @param {Partial<typeof state>} change */
function set(change) {
  Object.assign(state, change);
  draw();
}

/** @returns {any} */
function layerNow() {
  return content.layers[state.layer];
}

/** Of a sentence, one or several. @param {number} count @param {string} what */
function counted(count, what) {
  return `${count} ${what}${count === 1 ? "" : "s"}`;
}

/** A link to a view. @param {{to: string, children?: any, label?: string, current?: boolean}} props */
function Link({ to, children, label, current }) {
  return h("a", { href: `#/${to}`, "aria-label": label, "aria-current": current ? "page" : undefined }, children);
}

/** A choice among few. @param {{label: string, value: any, options: [any, string][], change: (value: any) => void}} props */
function Choice({ label, value, options, change }) {
  return h("label", { class: "choice" }, h("span", null, label),
    h("select", { value: String(value), onChange: (/** @type {any} */ event) => change(event.target.value) },
      options.map(([key, name]) => h("option", { value: String(key), selected: String(key) === String(value) }, name))));
}

/** The switch between the common scale and one for each map. */
function ScaleSwitch() {
  return h("fieldset", { class: "switch" }, h("legend", null, "Intensity"),
    [["common", "common scale"], ["own", "each map by itself"]].map(([key, name]) => h("label", null,
      h("input", { type: "radio", name: "scaling", value: key, checked: state.scaling === key, onChange: () => set({ scaling: /** @type {any} */ (key) }) }), name)));
}

/** The choice of a layer, where there are several. */
function LayerChoice() {
  if (content.layers.length < 2) return null;
  const options = content.layers.map((/** @type {any} */ one, /** @type {number} */ at) => [at, one.name]);
  return h(Choice, { label: "Layer", value: state.layer, options, change: (/** @type {string} */ value) => set({ layer: Number(value), kept: null, at: null }) });
}

/** The limits that a map is drawn by. @param {any} layer @param {number} method @param {ArrayLike<number>} map @returns {Limits} */
function limitsFor(layer, method, map) {
  const scale = scaleOf(layer, method);
  return state.scaling === "common" && scale ? scale : limitsOf(map);
}

/** A sample with its map, small, and a link to its page. @param {{row: number, layer?: any, map?: any, limits?: Limits, under?: any}} props */
function Thumb({ row, layer, map, limits, under }) {
  const id = content.samples.id[row];
  const of = layer ?? layerNow();
  const values = map === undefined && of.maps && row < content.shown ? mapOf(of, 0, row) : map;
  return h("li", { class: "thumb" },
    h(Link, { to: `sample/${row}`, label: `Sample ${id}` },
      h(Picture, { row, layer: of, map: values, limits: limits ?? (values && limitsFor(of, 0, values)), label: `Sample ${id}`, small: true })),
    h("span", null, under ?? id));
}

/** @typedef {{key: string, name: string, cell: (row: number) => any, value?: (row: number) => any, number?: boolean}} Column */

/**
 * A table that is sorted by its headings, searched and turned page by page.
 * @param {{id: string, caption: string, rows: number[], columns: Column[], find?: (row: number) => string, start?: {by: string, down: boolean}, filters?: [string, string, (row: number) => boolean][]}} props
 */
function Sorted({ id, caption, rows, columns, find, start, filters }) {
  const at = state.tables[id] ?? { by: start?.by ?? "", down: start?.down ?? false, find: "", page: 0, only: "" };
  const change = (/** @type {any} */ part) => set({ tables: { ...state.tables, [id]: { ...at, page: 0, ...part } } });
  const filter = filters?.find(([key]) => key === at.only);
  const sought = at.find.trim().toLowerCase();
  let chosen = filter ? rows.filter(filter[2]) : rows;
  if (find && sought) chosen = chosen.filter((row) => find(row).toLowerCase().includes(sought));
  const column = columns.find(({ key }) => key === at.by);
  if (column?.value) {
    const value = column.value, sign = at.down ? -1 : 1;
    const last = (/** @type {any} */ one) => one === null || Number.isNaN(one);
    chosen = [...chosen].sort((a, b) => {
      const [x, y] = [value(a), value(b)];
      if (last(x) || last(y)) return Number(last(x)) - Number(last(y));
      return sign * (x < y ? -1 : x > y ? 1 : 0);
    });
  }
  const size = 50, pages = Math.max(1, Math.ceil(chosen.length / size)), page = Math.min(at.page, pages - 1);
  const shown = chosen.slice(page * size, (page + 1) * size);
  return h("div", { class: "sorted" },
    (find || filters) && h("div", { class: "tools" },
      find && h("label", { class: "choice" }, h("span", null, "Search"),
        h("input", { type: "search", value: at.find, onInput: (/** @type {any} */ event) => change({ find: event.target.value }) })),
      filters && h(Choice, { label: "Show", value: at.only, options: [["", "all"], ...filters.map(([key, name]) => /** @type {[string, string]} */ ([key, name]))], change: (/** @type {string} */ value) => change({ only: value }) }),
      h("output", null, `${chosen.length} of ${rows.length}`)),
    h("div", { class: "scroll", tabIndex: 0, role: "region", "aria-label": caption },
      h("table", null, h("caption", null, caption),
        h("thead", null, h("tr", null, columns.map(({ key, name, value, number }) => h("th", {
          scope: "col", class: number ? "number" : "", "aria-sort": at.by === key ? (at.down ? "descending" : "ascending") : undefined,
        }, value ? h("button", { type: "button", onClick: () => change({ by: key, down: at.by === key ? !at.down : Boolean(number) }) }, name, h("span", { "aria-hidden": "true" }, at.by === key ? (at.down ? " ▼" : " ▲") : "")) : name)))),
        h("tbody", null, shown.map((row) => h("tr", { key: row }, columns.map(({ key, cell, number }, place) =>
          h(place === 0 ? "th" : "td", { key, class: number ? "number" : "", scope: place === 0 ? "row" : undefined }, cell(row)))))))),
    pages > 1 && h("nav", { class: "pages", "aria-label": `Pages of: ${caption}` },
      h("button", { type: "button", disabled: page === 0, onClick: () => change({ page: page - 1 }) }, "Previous"),
      h("span", null, `page ${page + 1} of ${pages}`),
      h("button", { type: "button", disabled: page === pages - 1, onClick: () => change({ page: page + 1 }) }, "Next")));
}

/** Sentences of a diagnosis: the first is what it says, the rest is more. @param {{lines: string[]}} props */
function Said({ lines }) {
  return h("li", null, h("p", null, lines[0]), lines.length > 1 && h("ul", null, lines.slice(1).map((line) => h("li", null, line.trim()))));
}

/** What is missing, and what would put it there. @param {{lines: string[]}} props */
function Missing({ lines }) {
  return lines.length ? h("ul", { class: "missing" }, lines.map((line) => h("li", null, line))) : null;
}

/** Facts, by name. @param {{facts: [string, any][]}} props */
function Facts({ facts }) {
  return h("dl", null, facts.filter(([, value]) => value !== null && value !== undefined && value !== "").map(([name, value]) =>
    h("div", null, h("dt", null, name), h("dd", null, value))));
}
