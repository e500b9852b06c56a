// Keeping the end of a growing text in view, until the person scrolls up or selects something.

const NEAR = 40; // pixels from the end that still count as the end

export class Follow {
  constructor(scroller) {
    this.scroller = scroller;
    this.following = true;
    this.top = scroller.scrollTop;
    scroller.addEventListener("scroll", () => this.scrolled(), { passive: true });
    new ResizeObserver(() => this.grown()).observe(scroller); // the box to type in takes more room
  }

  scrolled() {
    const { scrollTop, scrollHeight, clientHeight } = this.scroller;
    const below = scrollHeight - scrollTop - clientHeight;
    if (scrollTop < this.top) this.following = below < 1; // a text that shrank ends at the end
    else if (below < NEAR) this.following = true;
    this.top = scrollTop;
  }

  // There is more text, or less room for it.
  grown() {
    if (this.following && !this.selecting()) this.toEnd();
  }

  toEnd() {
    this.following = true;
    this.scroller.scrollTop = this.scroller.scrollHeight;
  }

  selecting() {
    const chosen = getSelection();
    return !chosen.isCollapsed && this.scroller.contains(chosen.anchorNode);
  }
}
