// The last runs of checks that are on screen: a few calls at a time, again only when a check has had another run.

import { type CheckView, getRuns, type RunView } from './api';
import { checkKey } from './fleet';

export const STRIP = 30;
/** Calls under way at once. */
const PARALLEL = 4;

class Strips {
  #known = $state<Record<string, { state: string; runs: RunView[] }>>({});
  #waiting = new Map<string, CheckView>();
  #busy = 0;

  /** `undefined` until they are known. */
  runs({ cluster, namespace, name }: CheckView): RunView[] | undefined {
    return this.#known[checkKey(cluster, namespace, name)]?.runs;
  }

  want(check: CheckView): void {
    const key = checkKey(check.cluster, check.namespace, check.name);
    if (this.#known[key]?.state === stateOf(check)) return;
    this.#waiting.set(key, check);
    if (this.#busy < PARALLEL) void this.#work();
  }

  async #work(): Promise<void> {
    this.#busy += 1;
    for (let next = this.#take(); next; next = this.#take()) {
      const [key, check] = next;
      const { cluster, namespace, name } = check;
      try {
        const page = await getRuns({ cluster, namespace, name, kind: 'healthCheck', limit: STRIP });
        this.#known[key] = { state: stateOf(check), runs: page.items };
      } catch {
        // The next change of the check asks again; meanwhile the row says that nothing is known.
      }
    }
    this.#busy -= 1;
  }

  #take(): [string, CheckView] | undefined {
    const next = this.#waiting.entries().next().value;
    if (next) this.#waiting.delete(next[0]);
    return next;
  }
}

const stateOf = ({ check }: CheckView) => `${check.succeeded}/${check.failed}`;

export const strips = new Strips();
