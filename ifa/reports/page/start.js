// Routes, the frame of the page, and its first drawing.

const root = /** @type {HTMLElement} */ (document.getElementById("root"));

/** @returns {[string, string][]} the views that there is something for */
function views() {
  return [["overview", "Overview"], ["classes", "Classes"], ["features", "Features"],
    ...(content.samples ? [/** @type {[string, string]} */ (["samples", "Samples"])] : []),
    ...(content.layers.length > 1 ? [/** @type {[string, string]} */ (["layers", "Layers"])] : []),
    ...(content.other ? [/** @type {[string, string]} */ (["compare", "Two runs"])] : [])];
}

/** @type {Record<string, string>} */
const SINGLE = { class: "classes", feature: "features", sample: "samples" };

/** Go to a view. @param {string} to @param {boolean} [focus] */
function go(to, focus = true) {
  const [view, ...id] = to.split("/");
  state.route = { view: view || "overview", id: id.join("/") };
  if (view === "feature" && id.length === 2 && content.layers[Number(id[0])]) state.layer = Number(id[0]);
  if (location.protocol !== "about:" && location.hash !== `#/${to}`) history.pushState(null, "", `#/${to}`);
  draw();
  if (!focus) return;
  const title = root.querySelector("h1");
  document.title = `${title?.textContent ?? ""} – ${content.title}`;
  window.scrollTo(0, 0);
  title?.focus({ preventScroll: true });
}

/** A number of a route that there is. @param {string} text @param {number} count @returns {number | null} */
function place(text, count) {
  const value = Number(text);
  return text !== "" && Number.isInteger(value) && value >= 0 && value < count ? value : null;
}

/** What a route shows. */
function View() {
  const { view, id } = state.route, layer = layerNow();
  const row = place(id, content.samples?.id.length ?? 0), k = place(id.split("/").pop() ?? "", layer.features);
  if (view === "overview") return h(Overview, {});
  if (view === "classes") return h(Classes, {});
  if (view === "class" && Number.isInteger(Number(id))) return h(Class, { target: Number(id), key: id });
  if (view === "features") return h(Features, {});
  if (view === "feature" && k !== null) return h(Feature, { k, key: id });
  if (view === "samples") return h(Samples, {});
  if (view === "sample" && row !== null) return h(Sample, { row, key: id });
  if (view === "layers") return h(Layers, {});
  if (view === "compare" && content.other) return h(Compare, {});
  return h("article", null, h("h1", { tabIndex: -1 }, "There is no such page here"), h("p", null, h(Link, { to: "overview" }, "To the overview")));
}

function App() {
  const now = SINGLE[state.route.view] ?? state.route.view;
  return [
    h("header", null,
      h("nav", { "aria-label": "Views" }, h("ul", null, views().map(([view, name]) => h("li", { key: view }, h(Link, { to: view, current: now === view }, name))))),
      h(Choice, { label: "Look", value: state.theme, options: [["light dark", "as the system"], ["light", "light"], ["dark", "dark"]], change: (/** @type {string} */ value) => {
        document.documentElement.style.colorScheme = value;
        set({ theme: value });
      } }),
      h("button", { type: "button", class: "print", onClick: () => window.print() }, "Print")),
    h("main", { id: "main" }, h(View, {})),
    h("footer", null, h("p", null, `Made by ${content.run.versions.split(",")[0]} of the run “${content.run.name}”. This file asks for nothing else. It brings Preact, © Jason Miller, under the MIT licence, which stands in its source.`)),
  ];
}

function draw() {
  render(h(App, {}), root);
}

/** The route that the address names. @returns {string} */
function addressed() {
  return decodeURIComponent(location.hash.replace(/^#\/?/, "")) || "overview";
}

document.addEventListener("click", (event) => {
  const link = /** @type {HTMLElement} */ (event.target).closest("a");
  const to = link?.getAttribute("href") ?? "";
  if (!to.startsWith("#") || event.ctrlKey || event.metaKey || event.shiftKey) return;
  event.preventDefault(); // in a notebook's frame an address is the notebook's
  if (to.startsWith("#/")) go(to.slice(2));
  else document.querySelector(to)?.querySelector("h1")?.focus();
});
window.addEventListener("popstate", () => go(addressed()));
window.addEventListener("hashchange", () => { if (`${state.route.view}${state.route.id ? `/${state.route.id}` : ""}` !== addressed()) go(addressed()); });

root.textContent = "";
const first = addressed().split("/");
state.route = { view: first[0], id: first.slice(1).join("/") };
if (first[0] === "feature" && content.layers[Number(first[1])]) state.layer = Number(first[1]);
draw();
document.documentElement.dataset.drawn = "words";
loadSheet().then(() => { draw(); document.documentElement.dataset.drawn = "all"; });
