// Markdown, as much as answers use: headings, lists, quotes, code, bold, italics, links. It builds elements and sets
// their text; nothing a model writes is ever read as HTML.
//
// A text may hold marks: one private-use character stands for an element that belongs at its place (the calculator's
// work in the middle of a sentence). `mark` makes them, `unmarked` takes what looks like one out of what a model wrote.

const FIRST_MARK = 0xe000;

export const mark = (index) => String.fromCharCode(FIRST_MARK + index);
export const unmarked = (text) => text.replace(/[\ue000-\uf8ff]/g, "\ufffd");

const INLINE = /(`+)([^`]|[^`][\s\S]*?[^`])\1(?!`)|\*\*(?=\S)([\s\S]*?\S)\*\*|\*(?=[^\s*])([^*]*?[^\s*])\*|\[([^\]\n]+)\]\((https?:\/\/[^\s()]+)\)|([\ue000-\uf8ff])/g;

export function element(name, text, className) {
  const made = document.createElement(name);
  if (text !== undefined) made.textContent = text;
  if (className) made.className = className;
  return made;
}

function inline(parent, text, marks) {
  let end = 0;
  for (const match of text.matchAll(INLINE)) {
    parent.append(text.slice(end, match.index));
    end = match.index + match[0].length;
    if (match[1]) parent.append(element("code", match[2]));
    else if (match[3]) inline(parent.appendChild(element("strong")), match[3], marks);
    else if (match[4]) inline(parent.appendChild(element("em")), match[4], marks);
    else if (match[7]) parent.append(marks[match[7].charCodeAt(0) - FIRST_MARK] || "");
    else parent.append(link(match[5], match[6]));
  }
  parent.append(text.slice(end));
}

function link(text, address) {
  const made = element("a", text);
  made.href = address;
  made.title = address;
  made.target = "_blank";
  made.rel = "noopener noreferrer nofollow";
  return made;
}

function list(lines, at, ordered, marks) {
  const marker = ordered ? /^\s{0,3}\d{1,9}[.)]\s+/ : /^\s{0,3}[-*+]\s+/;
  const made = element(ordered ? "ol" : "ul");
  if (ordered) made.start = parseInt(lines[at], 10);
  while (at < lines.length && marker.test(lines[at])) {
    const item = [lines[at].replace(marker, "")];
    at += 1;
    while (at < lines.length && /^\s{2,}\S/.test(lines[at])) item.push(lines[at++].trim());
    inline(made.appendChild(element("li")), item.join("\n"), marks);
  }
  return [made, at];
}

function fence(lines, at) {
  const mark = lines[at].match(/^\s{0,3}(```+|~~~+)/)[1];
  const code = [];
  at += 1;
  while (at < lines.length && !lines[at].trim().startsWith(mark)) code.push(lines[at++]);
  const block = element("pre");
  block.append(element("code", code.join("\n")));
  return [block, at + 1];
}

const STARTS = /^\s{0,3}(#{1,6}\s|```|~~~|>|[-*+]\s|\d{1,9}[.)]\s)/;

// The elements of `text` as a fragment; `marks` are the elements that its marks stand for.
export function markdown(text, marks = []) {
  const made = document.createDocumentFragment();
  const lines = text.split("\n");
  let at = 0;
  while (at < lines.length) {
    const line = lines[at];
    let block;
    if (!line.trim()) {
      at += 1;
      continue;
    }
    if (/^\s{0,3}(```|~~~)/.test(line)) [block, at] = fence(lines, at);
    else if (/^\s{0,3}[-*+]\s/.test(line)) [block, at] = list(lines, at, false, marks);
    else if (/^\s{0,3}\d{1,9}[.)]\s/.test(line)) [block, at] = list(lines, at, true, marks);
    else if (/^\s{0,3}#{1,6}\s/.test(line)) {
      const [, marks, title] = line.match(/^\s{0,3}(#{1,6})\s+(.*?)\s*#*$/) || [null, "#", line];
      block = element("h" + Math.min(4, marks.length + 1));
      inline(block, title, marks);
      at += 1;
    } else if (/^\s{0,3}>/.test(line)) {
      const quoted = [];
      while (at < lines.length && /^\s{0,3}>/.test(lines[at])) quoted.push(lines[at++].replace(/^\s{0,3}>\s?/, ""));
      block = element("blockquote");
      inline(block, quoted.join("\n"), marks);
    } else {
      const words = [line];
      at += 1;
      while (at < lines.length && lines[at].trim() && !STARTS.test(lines[at])) words.push(lines[at++]);
      block = element("p");
      words.forEach((piece, index) => {
        if (index) block.append(element("br"));
        inline(block, piece, marks);
      });
    }
    made.append(block);
  }
  return made;
}
