// The few DOM helpers the views share. Text always goes in as text, never as markup.

/** Makes an element: `class`, `on<event>` and `data-*` as one expects, other names as attributes. */
export function el(tag, properties = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children);
  return node;
}

/** Sets the text when it differs, so that an unchanged figure costs no layout. */
export function text(node, value) {
  if (node.textContent !== value) node.textContent = value;
}

/** Sets the tooltip when it differs. */
export function hint(node, words) {
  if (node.title !== words) node.title = words;
}

/** Sets or removes a data attribute when it differs. */
export function mark(node, name, value) {
  if (value === null || value === undefined || value === false) delete node.dataset[name];
  else if (node.dataset[name] !== String(value)) node.dataset[name] = value;
}

/** A shape that carries a tone without colour: dot ok, triangle warn, square bad, ring idle. */
export const glyph = (tone) => el("span", { class: "glyph", "data-tone": tone, "aria-hidden": "true" });

/** A glyph with its word. */
export function chip(tone, word) {
  return el("span", { class: "chip", "data-tone": tone }, glyph(tone), el("span", {}, word));
}

/** Changes a chip made by `chip`. */
export function setChip(node, tone, word) {
  mark(node, "tone", tone);
  mark(node.firstChild, "tone", tone);
  text(node.lastChild, word);
}

const kept = new WeakMap();

/**
 * Keeps one child of `parent` an item, in the items' order.
 * @template Item, View
 * @param {Element} parent  what it held before the first call is removed
 * @param {Item[]} items
 * @param {(item: Item) => string} keyOf
 * @param {(item: Item) => View & {node: Element}} create
 * @param {(view: View, item: Item) => void} update
 */
export function keyed(parent, items, keyOf, create, update) {
  if (!kept.has(parent)) {
    parent.replaceChildren();
    kept.set(parent, new Map());
  }
  const views = kept.get(parent);
  const gone = new Set(views.keys());
  let place = parent.firstChild;
  for (const item of items) {
    const key = keyOf(item);
    gone.delete(key);
    if (!views.has(key)) views.set(key, create(item));
    const view = views.get(key);
    if (view.node === place) place = place.nextSibling;
    else parent.insertBefore(view.node, place);
    update(view, item);
  }
  for (const key of gone) {
    views.get(key).node.remove();
    views.delete(key);
  }
}

/** A table row of [class, …content] cells, the first its header: {node, cell: {class: element}}. */
export function row(...cells) {
  const cell = {};
  const node = el("tr");
  cells.forEach(([name, ...content], i) => {
    cell[name] = el(i ? "td" : "th", { class: name, scope: i ? null : "row" }, ...content);
    node.append(cell[name]);
  });
  return { node, cell };
}

/** Shows `words` in place of the rows of a table that has none, and hides them when it has. */
export function emptyNote(panel, words) {
  const note = panel.querySelector(".empty");
  text(note, words ?? "");
  note.hidden = !words;
}
