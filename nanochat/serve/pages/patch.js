// Elements from plain data, changed in place: what stays the same is not touched, so a selection in
// it, and the place where a person reads, survive while an answer grows.

// Makes the children of `parent`, from number `from` on, what `pieces` say: strings or
// [tag, attributes, ...pieces].
export function patch(parent, pieces, from = 0) {
  let node = parent.childNodes[from] || null;
  for (const piece of pieces) {
    const fits = node && node.nodeName.toLowerCase() === nameOf(piece);
    if (!fits) {
      const made = typeof piece === "string" ? document.createTextNode("") : element(piece[0]);
      if (node) node.replaceWith(made);
      else parent.append(made);
      node = made;
    }
    if (typeof piece === "string") setText(node, piece);
    else setElement(node, piece);
    node = node.nextSibling;
  }
  while (node) {
    const next = node.nextSibling;
    node.remove();
    node = next;
  }
}

export function element(name, text, className) {
  const made = document.createElement(name);
  if (text !== undefined) made.textContent = text;
  if (className) made.className = className;
  return made;
}

const nameOf = (piece) => (typeof piece === "string" ? "#text" : piece[0]);

function setText(node, text) {
  const old = node.data;
  let same = 0;
  while (same < old.length && old[same] === text[same]) same += 1;
  if (same < old.length || text.length > same) {
    node.replaceData(same, old.length - same, text.slice(same));
  }
}

function setElement(node, [, attributes, ...pieces]) {
  for (const { name } of [...node.attributes]) {
    if (!(name in attributes)) node.removeAttribute(name);
  }
  for (const [name, value] of Object.entries(attributes)) {
    if (node.getAttribute(name) !== value) node.setAttribute(name, value);
  }
  patch(node, pieces);
}
