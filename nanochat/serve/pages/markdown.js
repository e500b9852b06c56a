// Markdown as plain data: paragraphs, headings, lists, quotes, code, tables, rules. What is inside a
// line is inline.js's. A block is {start, tree}: where in the text it begins, and
// [tag, attributes, ...pieces] with pieces that are strings or trees.
import { inline } from "./inline.js";

const FENCE = /^\s{0,3}(```+|~~~+)(.*)$/;
const HEADING = /^\s{0,3}(#{1,6})(?=\s|$)/;
const QUOTE = /^\s{0,3}> ?/;
const RULE = /^\s{0,3}(?:(?:\*[ \t]*){3,}|(?:-[ \t]*){3,}|(?:_[ \t]*){3,})$/;
const MARKER = /^(\s*)([-*+]|(\d{1,9})[.)])(?:[ \t]+|$)/;
const DEEPEST = 12; // lists and quotes within each other: what is deeper is shown as text

// The blocks of `text`. `marked` are the pieces that marks in it stand for.
export function blocks(text, marked = []) {
  const lines = text.split("\n");
  const starts = [];
  let at = 0;
  for (const line of lines) {
    starts.push(at);
    at += line.length + 1;
  }
  return new Reader(lines, marked, 0).all().map(({ line, tree }) => ({ start: starts[line], tree }));
}

class Reader {
  constructor(lines, marked, depth) {
    this.lines = lines;
    this.marked = marked;
    this.depth = depth;
    this.at = 0;
  }

  all() {
    const found = [];
    while (this.at < this.lines.length) {
      if (!this.lines[this.at].trim()) {
        this.at += 1;
        continue;
      }
      const line = this.at;
      found.push({ line, tree: this.block() });
    }
    return found;
  }

  trees(lines) {
    return new Reader(lines, this.marked, this.depth + 1).all().map((block) => block.tree);
  }

  text(words) {
    return inline(words, this.marked);
  }

  block() {
    const line = this.lines[this.at];
    if (opensFence(line)) return this.fence();
    if (RULE.test(line)) return this.only(["hr", {}]);
    if (HEADING.test(line)) return this.only(this.heading(line));
    if (this.depth < DEEPEST && QUOTE.test(line)) return this.quote();
    if (this.depth < DEEPEST && MARKER.test(line)) return this.list();
    if (this.atTable()) return this.table();
    return this.paragraph();
  }

  only(tree) {
    this.at += 1;
    return tree;
  }

  fence() {
    const [, ticks] = FENCE.exec(this.lines[this.at]);
    const indent = indentOf(this.lines[this.at]);
    const code = [];
    for (this.at += 1; this.at < this.lines.length; this.at += 1) {
      const line = this.lines[this.at].trim();
      if (line.startsWith(ticks) && !line.replaceAll(ticks[0], "")) break;
      code.push(dedent(this.lines[this.at], indent));
    }
    this.at += 1;
    return ["pre", {}, ["code", {}, code.join("\n")]];
  }

  heading(line) {
    const level = HEADING.exec(line)[1].length;
    const title = line.trim().slice(level).trim();
    let end = title.length;
    while (title[end - 1] === "#") end -= 1;
    if (end && !/\s/.test(title[end - 1])) end = title.length; // `# C#` means it
    const tag = "h" + Math.min(6, level + 1); // the page's own title is h1
    return [tag, {}, ...this.text(title.slice(0, end).trim())];
  }

  quote() {
    const quoted = [];
    while (this.at < this.lines.length && QUOTE.test(this.lines[this.at])) {
      quoted.push(this.lines[this.at].replace(QUOTE, ""));
      this.at += 1;
    }
    return ["blockquote", {}, ...this.trees(quoted)];
  }

  list() {
    const [, , , number] = MARKER.exec(this.lines[this.at]);
    const base = indentOf(this.lines[this.at]);
    const ordered = number !== undefined;
    const items = [];
    while (this.at < this.lines.length) {
      const marker = MARKER.exec(this.lines[this.at]);
      if (!marker || RULE.test(this.lines[this.at])) break;
      if ((marker[3] !== undefined) !== ordered || indentOf(marker[1]) >= base + 2) break;
      items.push(["li", {}, ...this.item(marker, base)]);
    }
    const attributes = ordered && number !== "1" ? { start: String(Number(number)) } : {};
    return [ordered ? "ol" : "ul", attributes, ...items];
  }

  // One item with what is indented under it. Leaves `at` on the next item, or behind the list.
  item(marker, base) {
    const width = indentOf(marker[1]) + marker[2].length + 1;
    const inside = [this.lines[this.at].slice(marker[0].length)];
    for (this.at += 1; this.at < this.lines.length; this.at += 1) {
      const next = this.nextText();
      const line = this.lines[next] || "";
      const blank = next > this.at;
      if (blank && indentOf(line) < base + 2) {
        if (MARKER.test(line)) this.at = next;
        break;
      }
      if (blank) inside.push("");
      this.at = next;
      if (indentOf(line) >= base + 2) inside.push(dedent(line, width));
      else if (MARKER.test(line) || begins(line)) break;
      else inside.push(line.trim());
    }
    const trees = this.trees(inside);
    const [head, ...rest] = trees;
    return head && head[0] === "p" ? [...head.slice(2), ...rest] : trees;
  }

  // The first line from here on that is not blank.
  nextText() {
    let at = this.at;
    while (at < this.lines.length && !this.lines[at].trim()) at += 1;
    return at;
  }

  paragraph() {
    const words = [this.lines[this.at].trim()];
    for (this.at += 1; this.at < this.lines.length; this.at += 1) {
      if (!this.lines[this.at].trim() || begins(this.lines[this.at]) || this.atTable()) break;
      words.push(this.lines[this.at].trim());
    }
    return ["p", {}, ...this.text(words.join("\n"))];
  }

  atTable() {
    const [head, rule] = this.lines.slice(this.at, this.at + 2);
    if (rule === undefined || !head.includes("|") || !rule.includes("|")) return false;
    const columns = cells(rule);
    return columns.every((cell) => /^:?-+:?$/.test(cell)) && columns.length === cells(head).length;
  }

  table() {
    const [head, rule] = this.lines.slice(this.at, this.at + 2);
    const columns = cells(rule).map(alignment);
    const row = (line, tag) => {
      const found = cells(line);
      const made = columns.map((attributes, n) => [tag, attributes, ...this.text(found[n] || "")]);
      return ["tr", {}, ...made];
    };
    const rows = [];
    for (this.at += 2; this.at < this.lines.length; this.at += 1) {
      if (!this.lines[this.at].includes("|") || begins(this.lines[this.at])) break;
      rows.push(row(this.lines[this.at], "td"));
    }
    const table = ["table", {}, ["thead", {}, row(head, "th")]];
    if (rows.length) table.push(["tbody", {}, ...rows]);
    return ["div", { class: "table" }, table];
  }
}

// Whether the line begins a block other than a paragraph, also with no blank line before it.
function begins(line) {
  const marker = MARKER.exec(line);
  const listed = marker && marker[0].length < line.length && [undefined, "1"].includes(marker[3]);
  return listed || opensFence(line) || HEADING.test(line) || QUOTE.test(line) || RULE.test(line);
}

function opensFence(line) {
  const found = FENCE.exec(line);
  return found !== null && !(found[1][0] === "`" && found[2].includes("`"));
}

// Columns that a line is indented by: a tab goes to the next multiple of four.
function indentOf(line) {
  let width = 0;
  for (const sign of line) {
    if (sign === " ") width += 1;
    else if (sign === "\t") width += 4 - (width % 4);
    else break;
  }
  return width;
}

function dedent(line, width) {
  const found = indentOf(line);
  return " ".repeat(Math.max(0, found - width)) + line.trimStart();
}

// The cells of a table's row; a | behind a backslash is part of its cell.
function cells(line) {
  const found = [""];
  const row = line.trim().replace(/^\|/, "");
  for (let at = 0; at < row.length; at += 1) {
    if (row[at] === "|") {
      if (at < row.length - 1) found.push("");
    } else if (row[at] === "\\" && row[at + 1] === "|") {
      found[found.length - 1] += row[++at];
    } else {
      found[found.length - 1] += row[at];
    }
  }
  return found.map((cell) => cell.trim());
}

function alignment(rule) {
  const right = rule.endsWith(":");
  if (!right) return rule.startsWith(":") ? { class: "left" } : {};
  return { class: rule.startsWith(":") ? "centre" : "right" };
}
