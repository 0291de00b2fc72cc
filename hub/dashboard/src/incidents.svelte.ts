// The incidents that the hub made of what fails in many places. A hub that knows of none is no failure: then the page shows
// the checks one by one.

import { ApiError, getIncidents, type IncidentView } from './api';
import { live } from './live.svelte';

const POLL_MS = 10_000;
/** A burst of events is one reading. */
const SETTLE_MS = 500;

class Incidents {
  /** Worst first. */
  open = $state.raw<IncidentView[]>([]);
  /** Also closed ones, newest first; read only where a page shows them. */
  all = $state.raw<IncidentView[]>([]);
  #readers = 0;
  #wantAll = 0;
  #timer: ReturnType<typeof setTimeout> | undefined;
  #absent = false;
  #isRead = false;

  /** Keeps them fresh while a page shows them; for an effect, which is run again when they change at the hub. */
  watch(all = false): () => void {
    void live.incidents;
    this.#readers += 1;
    this.#wantAll += all ? 1 : 0;
    clearTimeout(this.#timer);
    this.#later(this.#isRead ? SETTLE_MS : 0);
    return () => {
      this.#readers -= 1;
      this.#wantAll -= all ? 1 : 0;
    };
  }

  #later(afterMs: number): void {
    this.#timer = setTimeout(() => void this.#read(), afterMs);
  }

  async #read(): Promise<void> {
    if (this.#readers === 0 || this.#absent || live.access !== 'signedIn') return;
    try {
      this.open = await getIncidents();
      this.#isRead = true;
      if (this.#wantAll > 0) this.all = await getIncidents(true);
    } catch (error) {
      // What failed a moment ago is not shown as if it were known.
      this.open = this.all = [];
      this.#absent = error instanceof ApiError && error.status === 404;
    }
    clearTimeout(this.#timer);
    this.#later(POLL_MS);
  }
}

export const incidents = new Incidents();
