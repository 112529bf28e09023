// What a screen reader hears of an answer: whole sentences in a polite region, not every token, and no code or formulas by letters.

export class Speaker {
  constructor(region) {
    this.region = region;
    this.rest = '';
    this.fence = false;
  }

  say(text) {
    const line = document.createElement('p');
    line.textContent = text;
    this.region.append(line);
    while (this.region.childElementCount > 8) this.region.firstElementChild.remove();
  }

  add(text) {
    this.rest += text;
    // A sentence ends at .!? before a space, at their wide forms, or at a line's end.
    for (let m; (m = /^[^]*?(?:[.!?](?=\s)|[。！？]|\n)/.exec(this.rest)); ) {
      this.rest = this.rest.slice(m[0].length);
      this.sentence(m[0]);
    }
  }

  sentence(raw) {
    const s = raw.trim();
    if (s.startsWith('```')) {
      this.fence = !this.fence;
      return;
    }
    const clean = s.replace(/[*_#`>|]+/g, ' ').trim();
    if (!this.fence && clean) this.say(clean);
  }

  end(text) {
    if (this.rest) this.sentence(this.rest);
    this.clear();
    if (text) this.say(text);
  }

  clear() {
    this.rest = '';
    this.fence = false;
  }
}
