// A worker that may be killed: each task has a time limit, after which the worker is thrown away and a new one made for the next task.
// Formulas and highlighting run regular expressions and macros over text that nobody has checked.
import { scriptURL } from './dom.js';

export class Helper {
  constructor(url, limitMs) {
    this.url = url;
    this.limitMs = limitMs;
    this.queue = [];
    this.current = null;
  }

  // The answer, or null when it took too long or failed.
  run(task) {
    return new Promise((done) => {
      this.queue.push({ task, done });
      this.next();
    });
  }

  start() {
    this.ready = false;
    this.worker = new Worker(scriptURL(this.url), { type: 'module' });
    this.worker.onmessage = (e) => {
      if (e.data === 'ready') {
        this.ready = true;
        this.next();
      } else {
        this.finish(e.data);
      }
    };
    this.worker.onerror = () => {
      this.broken = !this.ready; // could not even be loaded: tasks fail until the page is loaded again
      this.kill();
    };
  }

  next() {
    if (this.broken) return this.queue.splice(0).forEach((q) => q.done(null));
    if (this.current || !this.queue.length) return undefined;
    if (!this.worker) return this.start();
    if (!this.ready) return undefined;
    this.current = this.queue.shift();
    this.timer = setTimeout(() => this.kill(), this.limitMs);
    this.worker.postMessage(this.current.task);
    return undefined;
  }

  finish(result) {
    clearTimeout(this.timer);
    const { current } = this;
    this.current = null;
    current?.done(result);
    this.next();
  }

  kill() {
    this.worker.terminate();
    this.worker = null;
    this.finish(null);
  }
}
