// One message: a question, or an answer with its thinking, live or finished.
import { h, icon, iconButton, copyButton } from './dom.js';
import { t, num, num1, duration, dateTime } from './i18n.js';
import { Markdown } from './markdown.js';

export class MessageView {
  // actions: edit(message, text), regenerate(message), resume(message), remove(message), turn(message, step)
  constructor(message, actions) {
    this.message = message;
    this.actions = actions;
    const user = message.role === 'user';
    this.body = h('div', { class: 'body' });
    this.foot = h('div', { class: 'foot' });
    this.el = h('article', { class: `message ${message.role}`, 'data-id': message.id, 'aria-label': user ? t('you') : t('assistant') },
      h('h3', { class: 'hidden-label' }, user ? t('you') : t('assistant')));
    if (!user) {
      this.summary = h('summary', null);
      this.thought = h('div', { class: 'thought' });
      this.details = h('details', { class: 'thinking', hidden: true }, this.summary, this.thought);
      this.details.addEventListener('click', (e) => {
        if (e.target.closest('summary')) this.opened = true; // by hand: does not fold by itself any more
      });
      this.thoughtText = new Markdown(this.thought);
      this.status = h('p', { class: 'status', hidden: true });
      this.el.append(this.details, this.status);
      this.text = new Markdown(this.body);
    }
    this.el.append(this.body, this.foot);
    this.show(message);
  }

  // versions: [position, count] among its siblings
  show(message, versions) {
    this.message = message;
    if (versions) this.versions = versions;
    if (message.role === 'user') this.body.textContent = message.text;
    else this.draw();
    this.drawFoot();
  }

  get running() { return this.message.state === 'running'; }

  draw() {
    const { message, running } = this;
    this.drawThinking(running && !message.text);
    this.text.set(message.text, running);
    this.el.setAttribute('aria-busy', String(running));
  }

  drawThinking(now) {
    const { message } = this, { thinking } = message;
    this.details.hidden = !thinking;
    if (!thinking) return;
    this.thoughtText.set(thinking, now);
    if (now && !this.thinkingSince) this.thinkingSince = Date.now() - (message.thinkMs || 0);
    if (!this.opened) this.details.open = now;
    const ms = message.info?.think_ms ?? (this.thinkingSince && (this.thoughtMs ??= now ? null : Date.now() - this.thinkingSince));
    const label = now ? t('thinking') : ms != null ? t('thoughtFor', { time: duration(ms) }) : t('thought');
    const tokens = message.info?.thinking_tok;
    this.summary.replaceChildren(icon('bulb'), h('span', { class: now ? 'pulse' : undefined }, label), tokens ? h('span', { class: 'faint' }, t('thinkingTokens', { n: tokens })) : '');
    if (!now && !this.copyThought) {
      this.copyThought = copyButton(t('copyThinking'), t('copied'), () => this.message.thinking);
      this.copyThought.classList.add('copy-thought');
      this.details.append(this.copyThought);
    }
  }

  setStatus(text, wait) {
    this.status.hidden = !text;
    this.status.replaceChildren(wait ? h('span', { class: 'dots', 'aria-hidden': 'true' }) : '', text || '');
  }

  drawFoot() {
    const { message, actions, versions } = this, items = [];
    if (versions && versions[1] > 1) {
      const [n, of] = versions;
      items.push(h('span', { class: 'versions', role: 'group', 'aria-label': t('version', { n, of }) },
        iconButton('left', t('previous'), () => actions.turn(message, -1), { disabled: n === 1 }), h('span', null, `${num(n)}/${num(of)}`),
        iconButton('right', t('next'), () => actions.turn(message, 1), { disabled: n === of })));
    }
    if (!this.running) {
      items.push(copyButton(t('copy'), t('copied'), () => message.text));
      if (message.role === 'user') items.push(iconButton('edit', t('edit'), () => this.edit()));
      else {
        items.push(iconButton('redo', t('regenerate'), () => actions.regenerate(message)));
        if (['stopped', 'length', 'interrupted'].includes(message.state))
          items.push(h('button', { type: 'button', class: 'small', onclick: () => actions.resume(message) }, icon('go'), t('continue')));
      }
      items.push(iconButton('trash', t('remove'), () => actions.remove(message)));
      if (message.role === 'assistant') items.push(this.facts());
    }
    this.foot.replaceChildren(...items);
    if (message.role === 'assistant' && !this.running) this.drawEnd();
  }

  // Tokens and speed, in small print.
  facts() {
    const i = this.message.info || {}, parts = [];
    if (i.gen_tok && i.gen_ms) parts.push(t('speed', { n: num1((i.gen_tok * 1000) / i.gen_ms) }));
    if (i.gen_tok) parts.push(t('usage', { in: i.prompt_tok || 0, cached: i.cached_tok || 0, out: i.gen_tok }));
    return h('span', { class: 'facts faint', title: this.message.created ? dateTime(this.message.created) : undefined }, parts.join(' · '));
  }

  // Why an answer is not whole.
  drawEnd() {
    const { state, info } = this.message;
    if (state === 'failed') {
      this.setStatus(info?.retry_after ? t('busy', { time: duration(info.retry_after * 1000) }) : t('failed', { why: info?.error || '' }));
      this.status.append(' ', h('button', { type: 'button', class: 'small', onclick: () => this.actions.regenerate(this.message) }, t('tryAgain')));
    } else if (state === 'length') this.setStatus(info?.why === 'context' ? t('contextFull') : t('lengthReached'));
    else if (state === 'stopped') this.setStatus(t('stopped'));
    else if (state === 'interrupted') this.setStatus(t('interrupted'));
    else this.setStatus('');
  }

  edit() {
    const area = h('textarea', { class: 'edit', 'aria-label': t('edit'), rows: 3 });
    area.value = this.message.text;
    const close = () => {
      this.body.textContent = this.message.text;
      this.foot.hidden = false;
      this.el.querySelector('.foot button')?.focus();
    };
    const send = () => {
      if (area.value.trim()) this.actions.edit(this.message, area.value);
    };
    area.addEventListener('keydown', (e) => {
      if (e.isComposing || e.keyCode === 229) return;
      if (e.key === 'Enter' && !e.shiftKey) {
        e.preventDefault();
        send();
      } else if (e.key === 'Escape') {
        e.preventDefault();
        e.stopPropagation();
        close();
      }
    });
    this.foot.hidden = true;
    this.body.replaceChildren(area, h('div', { class: 'edit-buttons' },
      h('button', { type: 'button', class: 'plain-button', onclick: close }, t('cancel')), h('button', { type: 'button', class: 'main-button', onclick: send }, t('sendEdited'))));
    area.style.height = `${Math.min(area.scrollHeight + 2, 400)}px`;
    area.focus();
  }

  // One event of the answer's stream.
  event(e) {
    const m = this.message;
    switch (e.t) {
      case 'start':
        if (!e.text) m.text = '';
        if (!e.thinking) m.thinking = '';
        m.thinkMs = e.think_ms;
        this.thinkingSince = undefined;
        this.setStatus(m.text || m.thinking ? '' : t('starting'), true);
        break;
      case 'queue': this.setStatus(e.position ? t('queued', { n: e.position }) : t('queuedNext'), true); return;
      case 'prefill': this.setStatus(t('prefill', { done: e.done, total: e.total }), true); return;
      case 'lost': this.setStatus(t('reconnecting'), true); return;
      case 'think':
        m.thinking += e.d;
        this.setStatus('');
        break;
      case 'text':
        if (!m.text) m.thoughtDone = true;
        m.text += e.d;
        this.setStatus('');
        break;
      case 'done':
        cancelAnimationFrame(this.frame);
        this.frame = 0;
        this.show(Object.assign(m, e.message));
        return;
      default: return;
    }
    this.frame ||= requestAnimationFrame(() => {
      this.frame = 0;
      this.draw();
      this.ondraw?.();
    });
  }
}
