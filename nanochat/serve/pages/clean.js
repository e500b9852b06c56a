// HTML of the server as plain data for `patch`: only elements and attributes that are named here.
// The server has cleaned it already; what is made of it here could not run in any case.

const ELEMENTS = new Set(
  ("p h2 h3 h4 h5 h6 ul ol li blockquote pre code span em strong del a br hr div "
    + "table thead tbody tr th td").split(" "));
const ADDRESS = /^(?:https?:\/\/|mailto:)/i;

// The pieces of an HTML text.
export function pieces(html) {
  const parsed = new DOMParser().parseFromString(html, "text/html");
  return children(parsed.body, false);
}

function children(node, written) {
  const made = [];
  for (const child of node.childNodes) {
    if (child.nodeType === Node.TEXT_NODE) {
      // lines between blocks are none
      if (written || child.data.trim()) made.push(child.data);
    } else if (child.nodeType === Node.ELEMENT_NODE) {
      const tag = child.nodeName.toLowerCase();
      if (!ELEMENTS.has(tag)) continue;
      const lines = /^(?:p|pre|code|span|em|strong|del|a|h\d|th|td)$/.test(tag);
      made.push([tag, attributes(tag, child), ...children(child, written || lines)]);
    }
  }
  return made;
}

function attributes(tag, node) {
  const kept = {};
  if (node.className) kept.class = node.className;
  if (tag === "ol" && node.start !== 1) kept.start = String(node.start);
  const href = tag === "a" && node.getAttribute("href");
  if (href && ADDRESS.test(href)) {
    Object.assign(kept, {
      href, title: href, target: "_blank", rel: "noopener noreferrer nofollow",
    });
  }
  return kept;
}
