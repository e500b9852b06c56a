// Copying text, also where the browser has no clipboard for the page: over plain HTTP.

// Whether `text` is in the clipboard now.
export async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    return copyBySelecting(text);
  }
}

function copyBySelecting(text) {
  const chosen = getSelection();
  const ranges = [...Array(chosen.rangeCount).keys()].map((n) => chosen.getRangeAt(n));
  const focused = document.activeElement;
  const held = document.createElement("textarea");
  held.value = text;
  held.readOnly = true; // no keyboard comes up on a phone
  held.className = "visually-hidden";
  document.body.append(held);
  held.select();
  const done = document.execCommand("copy");
  held.remove();
  if (focused) focused.focus({ preventScroll: true });
  chosen.removeAllRanges();
  for (const range of ranges) chosen.addRange(range);
  return done;
}
