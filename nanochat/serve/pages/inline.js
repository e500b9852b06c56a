// Markdown inside a line: code, links, emphasis. Follows CommonMark where answers can tell.
//
// Everything here is plain data: a piece is a string or [tag, attributes, ...pieces]. Nothing that a
// model writes becomes HTML, and an address gets into a link only by one of the schemes of ADDRESS.

const ADDRESS = /(?:https?:\/\/|mailto:)[^\s<>()\ue000-\uf8ff]+(?:\([^\s<>()]*\)[^\s<>()]*)*/iy;
const TARGET_END = />?(?:\s+"[^"\n]*")?\s*\)/y;
const BARE = /https?:\/\/[^\s<>"*`|\\[\]\ue000-\uf8ff]+/iy;
const PLAIN = /[^\\`*_~![\]\nh\ue000-\uf8ff]+/y;
const SPACE = /\s/;
const SIGN = /[\p{P}\p{S}]/u;
const FACTOR_BEFORE = /[A-Za-z0-9)]/;
const FACTOR = /[A-Za-z0-9(]/;
const DEEPEST = 20; // emphasis within emphasis: what is deeper stays as it was written

// The one way in which text stands for an element: a private-use character for the calculator's
// work in the middle of a sentence. `mark` makes it, `unmarked` takes it out of what a model wrote.
const FIRST_MARK = 0xe000;
export const mark = (index) => String.fromCharCode(FIRST_MARK + index);
export const unmarked = (text) => text.replace(/[\ue000-\uf8ff]/g, "\ufffd");

// The pieces of `text`. `marked` are the pieces that its marks stand for.
export function inline(text, marked = []) {
  const nodes = [];
  const brackets = [];
  const noCode = new Set(); // lengths of ` runs that have no partner any more
  let at = 0;

  const take = (pattern) => {
    pattern.lastIndex = at;
    const found = pattern.exec(text);
    if (found) at = pattern.lastIndex;
    return found && found[0];
  };

  while (at < text.length) {
    const sign = text[at];
    if (sign === "\\" && at + 1 < text.length && /[!-/:-@[-`{-~\n]/.test(text[at + 1])) {
      nodes.push(text[at + 1] === "\n" ? ["br", {}] : text[at + 1]);
      at += 2;
    } else if (sign === "\n") {
      nodes.push(["br", {}]);
      at += 1;
    } else if (sign === "`") {
      at = code(text, at, nodes, noCode);
    } else if (sign === "*" || sign === "_" || sign === "~") {
      at = run(text, at, nodes);
    } else if (sign === "[" || (sign === "!" && text[at + 1] === "[")) {
      const opening = sign === "[" ? "[" : "![";
      brackets.push(nodes.length);
      nodes.push(opening);
      at += opening.length;
    } else if (sign === "]") {
      at = link(text, at, nodes, brackets);
    } else if (sign >= "\ue000" && sign <= "\uf8ff") {
      nodes.push(marked[sign.charCodeAt(0) - FIRST_MARK] || "\ufffd");
      at += 1;
    } else if (sign === "h" && !/[\p{L}\p{N}]/u.test(text[at - 1] || " ")) {
      const address = take(BARE);
      if (address) at = bare(address, at, nodes);
      else nodes.push(text[at++]);
    } else {
      nodes.push(take(PLAIN) || text[at++]);
    }
  }
  return emphasised(nodes);
}

function code(text, at, nodes, noCode) {
  const ticks = /`+/g;
  ticks.lastIndex = at;
  const opening = ticks.exec(text)[0];
  const start = ticks.lastIndex;
  let found = !noCode.has(opening.length);
  while (found && (found = ticks.exec(text))) {
    if (found[0].length !== opening.length) continue;
    let inside = text.slice(start, found.index).replace(/\n/g, " ");
    if (inside.trim() && inside.startsWith(" ") && inside.endsWith(" ")) inside = inside.slice(1, -1);
    nodes.push(["code", {}, inside]);
    return ticks.lastIndex;
  }
  noCode.add(opening.length);
  nodes.push(opening);
  return start;
}

// A run of * or _ or ~ that may begin emphasis, end it, or both.
function run(text, at, nodes) {
  const sign = text[at];
  let end = at;
  while (text[end] === sign) end += 1;
  const before = at ? text[at - 1] : " ";
  const after = end < text.length ? text[end] : " ";
  const left = !SPACE.test(after) && (!SIGN.test(after) || SPACE.test(before) || SIGN.test(before));
  const right = !SPACE.test(before) && (!SIGN.test(before) || SPACE.test(after) || SIGN.test(after));
  const length = end - at;
  const word = sign === "_"; // snake_case is no emphasis, and neither is 2*3*4
  const times = sign === "*" && length === 1 && FACTOR_BEFORE.test(before) && FACTOR.test(after);
  const odd = times || (sign === "~" && length !== 2);
  nodes.push({
    sign,
    length,
    whole: length,
    opens: !odd && left && (!word || !right || SIGN.test(before)),
    closes: !odd && right && (!word || !left || SIGN.test(after)),
  });
  return end;
}

function link(text, at, nodes, brackets) {
  const opening = brackets.pop();
  let end = at + 1;
  if (opening !== undefined && text[end] === "(") {
    ADDRESS.lastIndex = text[end + 1] === "<" ? end + 2 : end + 1;
    const address = ADDRESS.exec(text);
    TARGET_END.lastIndex = ADDRESS.lastIndex;
    if (address && TARGET_END.test(text)) {
      const inside = emphasised(nodes.splice(opening).slice(1));
      nodes.push(anchor(address[0], flat(inside)));
      brackets.length = 0; // a link holds no link
      return TARGET_END.lastIndex;
    }
  }
  nodes.push("]");
  return end;
}

// Link text without links: those that were found within lose their address.
const flat = (pieces) => pieces.flatMap((piece) => {
  if (typeof piece === "string") return [piece];
  const [tag, attributes, ...inside] = piece;
  return tag === "a" ? flat(inside) : [[tag, attributes, ...flat(inside)]];
});

function bare(address, end, nodes) {
  let extra = address.split(")").length - address.split("(").length;
  let length = address.length;
  for (; length; length -= 1) {
    if (address[length - 1] === ")" && extra > 0) extra -= 1;
    else if (!".,:;!?'".includes(address[length - 1])) break;
  }
  const kept = address.slice(0, length);
  nodes.push(/^https?:\/\/./i.test(kept) ? anchor(kept, [kept]) : kept);
  return end - (address.length - kept.length);
}

function anchor(href, pieces) {
  const attributes = { href, title: href, target: "_blank", rel: "noopener noreferrer nofollow" };
  return ["a", attributes, ...pieces];
}

// CommonMark's "process emphasis": each closing run takes the nearest opening one that fits it.
function emphasised(nodes) {
  const out = [];
  const openers = []; // indexes into `out` of runs that may still begin something
  const floor = {}; // below this height of `openers` there is nothing for a run of this kind
  for (const node of nodes) {
    if (!node.sign) {
      out.push(node);
      continue;
    }
    if (node.closes) close(node, out, openers, floor);
    if (!node.length) continue;
    if (node.opens) openers.push(out.length);
    out.push(node);
  }
  return joined(out.map((node) => (node.sign ? node.sign.repeat(node.length) : node)));
}

function close(node, out, openers, floor) {
  const kind = `${node.sign}${node.opens}${node.whole % 3}`;
  while (node.length) {
    let height = openers.length - 1;
    while (height >= (floor[kind] || 0) && !fits(out[openers[height]], node)) height -= 1;
    if (height < (floor[kind] || 0)) {
      floor[kind] = openers.length;
      return;
    }
    const start = openers[height];
    const opener = out[start];
    const width = node.sign === "~" || (opener.length > 1 && node.length > 1) ? 2 : 1;
    const tag = node.sign === "~" ? "del" : width === 2 ? "strong" : "em";
    const inside = out.slice(start + 1);
    if (depth(inside) >= DEEPEST) {
      floor[kind] = openers.length;
      return;
    }
    out.length = start + 1;
    openers.length = height + 1;
    for (const name of Object.keys(floor)) floor[name] = Math.min(floor[name], openers.length);
    const pieces = inside.map((one) => (one.sign ? one.sign.repeat(one.length) : one));
    const made = [tag, {}, ...joined(pieces)];
    made.depth = depth(inside) + 1;
    opener.length -= width;
    node.length -= width;
    if (!opener.length) {
      out.pop();
      openers.pop();
    }
    out.push(made);
  }
}

const depth = (nodes) => nodes.reduce((most, node) => Math.max(most, node.depth || 0), 0);

function fits(opener, closer) {
  if (opener.sign !== closer.sign) return false;
  const both = opener.closes || closer.opens;
  return !both || (opener.whole + closer.whole) % 3 !== 0
    || (opener.whole % 3 === 0 && closer.whole % 3 === 0);
}

// Strings that follow each other become one, so that a text is one text node on the page.
function joined(pieces) {
  const made = [];
  for (const piece of pieces) {
    const last = made.length - 1;
    if (typeof piece === "string" && typeof made[last] === "string") made[last] += piece;
    else if (piece !== "") made.push(piece);
  }
  return made;
}
