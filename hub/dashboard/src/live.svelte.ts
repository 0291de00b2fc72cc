// Keeps the page's fleet equal to the hub's: lists first, then the stream of events; and knows when it does not.

import { ApiError, EVENT_NAMES, EVENTS_PATH, type Event, type Me, getChecks, getClusters, getMe, logout } from './api';
import { disagreeing, EMPTY, type Fleet, fromLists, merge, withClusters } from './fleet';

/** A burst of events is shown as one change. */
const BATCH_MS = 100;
/** Clusters are read again this often: a frozen connection shows, and ages stay right between events. */
const POLL_MS = 10_000;
/** Without a word for this long, nothing on screen is believed. */
const SILENCE_MS = 25_000;
/** The stream's first event, `reset`, must come this fast: a proxy that holds events back is no live data. */
const FIRST_EVENT_MS = 10_000;
const RETRY_MS = [500, 1000, 2000, 4000, 8000];

type Access = 'asking' | 'signedOut' | 'signedIn';

class Live {
  access = $state<Access>('asking');
  me = $state.raw<Me | undefined>();
  fleet = $state.raw<Fleet>(EMPTY);
  /** Whether the lists were read at least once: an empty fleet is not an unknown one. */
  loaded = $state(false);
  /** Grows when a definition or its status changed. */
  definitions = $state(0);
  /** Grows when the maintenance windows changed. */
  windows = $state(0);
  /** Grows when the open incidents changed. */
  incidents = $state(0);
  #streaming = $state(false);
  #heardMs = $state(Date.now());
  #tickMs = $state(Date.now());

  #source: EventSource | undefined;
  #batch: Event[] = [];
  #replays = new Set<Event[]>();
  #retries = 0;
  #timers = new Set<ReturnType<typeof setTimeout>>();
  #reading = false;
  #again = false;
  #polling = false;
  #agreed = new Set<string>();
  #suspects = new Set<string>();

  /** Since when there is no live data, Unix milliseconds of this machine's clock; undefined while there is. */
  get cutSince(): number | undefined {
    const fresh = this.#streaming && this.#tickMs - this.#heardMs < SILENCE_MS;
    return fresh || this.access !== 'signedIn' ? undefined : this.#heardMs;
  }

  /** How long nothing was heard, milliseconds. */
  get silentMs(): number {
    return Math.max(0, this.#tickMs - this.#heardMs);
  }

  /** Whether the person may give commands and acknowledge. */
  get mayAct(): boolean {
    return this.me !== undefined && this.me.role !== 'viewer';
  }

  /** Starts once; the page lives as long as the document. */
  start(): void {
    setInterval(() => (this.#tickMs = Date.now()), 1000);
    setInterval(() => void this.#poll(), POLL_MS);
    addEventListener('online', () => this.#reconnect(0));
    void this.#enter();
  }

  signedIn(me: Me): void {
    this.me = me;
    this.access = 'signedIn';
    this.#connect();
  }

  async signOut(): Promise<void> {
    try {
      await logout();
    } finally {
      this.#leave();
    }
  }

  async #enter(): Promise<void> {
    try {
      this.signedIn(await getMe());
    } catch (error) {
      if (!this.#refused(error)) this.#later(this.#backoff(), () => void this.#enter());
    }
  }

  /** The cookie is gone or never was: nothing of the fleet stays on screen. */
  #leave(): void {
    this.#disconnect();
    this.#batch = [];
    this.me = undefined;
    this.fleet = EMPTY;
    this.loaded = false;
    this.access = 'signedOut';
  }

  #refused(error: unknown): boolean {
    const refused = error instanceof ApiError && error.status === 401;
    if (refused) this.#leave();
    return refused;
  }

  #connect(): void {
    this.#disconnect();
    const source = new EventSource(EVENTS_PATH);
    this.#source = source;
    for (const name of EVENT_NAMES) {
      source.addEventListener(name, (message) => this.#receive(JSON.parse(message.data) as Event));
    }
    source.onerror = () => this.#reconnect(this.#backoff());
    this.#later(FIRST_EVENT_MS, () => {
      if (!this.#streaming && !this.#reading) this.#reconnect(0);
    });
  }

  #disconnect(): void {
    this.#source?.close();
    this.#source = undefined;
    this.#streaming = false;
    for (const timer of this.#timers) clearTimeout(timer);
    this.#timers.clear();
  }

  #reconnect(afterMs: number): void {
    if (this.access !== 'signedIn') return;
    this.#disconnect();
    // A refused stream looks like a broken one; only an ordinary call tells that the cookie has ended.
    this.#later(afterMs, () => {
      void getMe().then(
        () => this.#connect(),
        (error: unknown) => {
          if (!this.#refused(error)) this.#reconnect(this.#backoff());
        },
      );
    });
  }

  #backoff(): number {
    const wait = RETRY_MS[Math.min(this.#retries, RETRY_MS.length - 1)] ?? 0;
    this.#retries += 1;
    return wait * (0.75 + Math.random() / 2);
  }

  #receive(event: Event): void {
    this.#heardMs = Date.now();
    if (event.type === 'reset') return void this.#readAll();
    if (event.type === 'definition') {
      this.definitions += 1;
      return;
    }
    if (event.type === 'windows') {
      this.windows += 1;
      return;
    }
    if (event.type === 'incidents') {
      this.incidents += 1;
      return;
    }
    for (const replay of this.#replays) replay.push(event);
    this.#batch.push(event);
    if (this.#batch.length === 1) setTimeout(() => this.#flush(), BATCH_MS);
  }

  #flush(): void {
    this.fleet = merge(this.fleet, this.#batch);
    this.#batch = [];
  }

  /** Reads lists and puts them under the events that came meanwhile, so that an old list never wins over a new event. */
  async #read<T>(lists: () => Promise<T>, put: (lists: T) => Fleet): Promise<void> {
    this.#flush();
    const replay: Event[] = [];
    this.#replays.add(replay);
    try {
      const answer = await lists();
      this.#heardMs = Date.now();
      if (this.access === 'signedIn') this.fleet = merge(put(answer), replay);
    } finally {
      this.#replays.delete(replay);
    }
  }

  async #readAll(): Promise<void> {
    if (this.#reading) {
      this.#again = true;
      return;
    }
    this.#reading = true;
    try {
      let source: EventSource | undefined;
      do {
        this.#again = false;
        source = this.#source;
        await this.#read(
          () => Promise.all([getClusters(), getChecks()]),
          ([clusters, checks]) => fromLists(clusters, checks),
        );
      } while (this.#again);
      this.loaded = true;
      this.#agreed.clear();
      this.#suspects.clear();
      this.definitions += 1;
      this.windows += 1;
      this.incidents += 1;
      this.#retries = 0;
      // A stream that broke meanwhile brings its own reset.
      this.#streaming = source !== undefined && source === this.#source;
    } catch (error) {
      if (!this.#refused(error)) this.#reconnect(this.#backoff());
    } finally {
      this.#reading = false;
    }
  }

  async #poll(): Promise<void> {
    if (!this.#streaming || this.#polling) return;
    this.#polling = true;
    try {
      await this.#read(getClusters, (clusters) => withClusters(this.fleet, clusters));
      if (this.#lostEvents()) this.#reconnect(0);
    } catch (error) {
      // The stream may seem open to the browser long after the hub is gone.
      if (!this.#refused(error)) this.#reconnect(this.#backoff());
    } finally {
      this.#polling = false;
    }
  }

  /**
   * Whether the stream is open and yet silent: a cluster's counts and its checks agreed since the lists were read, and
   * differ now for the second time.
   */
  #lostEvents(): boolean {
    const differing = new Set(disagreeing(this.fleet));
    const lost = [...differing].some((name) => this.#suspects.has(name));
    for (const name of this.fleet.clusters.keys()) if (!differing.has(name)) this.#agreed.add(name);
    this.#suspects = new Set([...differing].filter((name) => this.#agreed.has(name)));
    return lost;
  }

  #later(afterMs: number, work: () => void): void {
    const timer = setTimeout(() => {
      this.#timers.delete(timer);
      work();
    }, afterMs);
    this.#timers.add(timer);
  }
}

export const live = new Live();
