// When failing checks last succeeded: read from the history only for what is on screen, one call at a time.

import { type CheckView, getRuns } from './api';
import { checkKey } from './fleet';

/** `undefined` until it is known; `never` where the history has no success. */
type LastSuccess = number | 'never' | undefined;

/** A fleet that is all red must not ask for all of its history. */
const MAX_WAITING = 60;

class History {
  #known = $state<Record<string, LastSuccess>>({});
  #asked = new Set<string>();
  #waiting: [string, CheckView][] = [];
  #busy = false;

  lastSuccess(check: CheckView): LastSuccess {
    return this.#known[keyOf(check)];
  }

  /** Asks once for each check and count of successes. */
  want(check: CheckView): void {
    const key = keyOf(check);
    if (this.#asked.has(key) || this.#waiting.length >= MAX_WAITING) return;
    this.#asked.add(key);
    this.#waiting.push([key, check]);
    if (!this.#busy) void this.#work();
  }

  async #work(): Promise<void> {
    this.#busy = true;
    for (let next = this.#waiting.shift(); next; next = this.#waiting.shift()) {
      const [key, { cluster, namespace, name }] = next;
      try {
        const page = await getRuns({ cluster, namespace, name, kind: 'healthCheck', outcome: 'Succeeded', limit: 1 });
        const run = page.items[0];
        this.#known[key] = run ? Date.parse(run.finishedAt) : 'never';
      } catch {
        this.#asked.delete(key);
      }
    }
    this.#busy = false;
  }
}

// A success changes the answer, a further failure does not.
const keyOf = (check: CheckView) =>
  `${checkKey(check.cluster, check.namespace, check.name)}/${check.check.succeeded}`;

export const history = new History();
