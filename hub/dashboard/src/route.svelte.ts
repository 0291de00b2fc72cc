// The page's address: which page is shown, and the filter. hub/src/dashboard.rs serves the page for each of these paths.

export type Page =
  | { at: 'wrong' }
  | { at: 'grid' }
  | { at: 'definitions' }
  | { at: 'changes' }
  | { at: 'windows' }
  | { at: 'cluster'; cluster: string }
  | { at: 'fleetCheck'; namespace: string; name: string }
  | { at: 'check'; cluster: string; namespace: string; name: string }
  | { at: 'run'; cluster: string; namespace: string; name: string; id: number }
  | { at: 'nowhere' };

export function pageOf(path: string): Page {
  const parts = path.split('/').filter(Boolean).map(decode);
  const [first, cluster, third, namespace, name, sixth, id] = parts;
  if (parts.length === 0) return { at: 'wrong' };
  if (parts.length === 1 && (first === 'grid' || first === 'definitions' || first === 'changes' || first === 'windows'))
    return { at: first };
  if (parts.length === 3 && first === 'checks' && cluster && third)
    return { at: 'fleetCheck', namespace: cluster, name: third };
  if (first === 'clusters' && cluster) {
    if (parts.length === 2) return { at: 'cluster', cluster };
    if (parts.length === 5 && third === 'checks' && namespace && name) return { at: 'check', cluster, namespace, name };
    if (parts.length === 7 && third === 'checks' && namespace && name && sixth === 'runs' && /^\d+$/.test(id ?? ''))
      return { at: 'run', cluster, namespace, name, id: Number(id) };
  }
  return { at: 'nowhere' };
}

function decode(part: string): string {
  try {
    return decodeURIComponent(part);
  } catch {
    return part;
  }
}

export const clusterHref = (cluster: string) => `/clusters/${encodeURIComponent(cluster)}`;

export const checkHref = (check: { cluster: string; namespace: string; name: string }) =>
  `${clusterHref(check.cluster)}/checks/${encodeURIComponent(check.namespace)}/${encodeURIComponent(check.name)}`;

export const fleetCheckHref = (check: { namespace: string; name: string }) =>
  `/checks/${encodeURIComponent(check.namespace)}/${encodeURIComponent(check.name)}`;

export const runHref = (run: { cluster: string; namespace: string; name: string; id: number }) =>
  `${checkHref(run)}/runs/${run.id}`;

/** Where in the session's storage the page is kept that a login at the provider interrupts. */
const INTERRUPTED = 'interrupted-page';

const filterNow = () => new URLSearchParams(location.search).get('q') ?? '';

class Route {
  path = $state('/');
  filter = $state('');

  /** Follows the links and the history of the document. */
  start(): void {
    const read = () => {
      this.path = location.pathname;
      this.filter = filterNow();
    };
    this.#resume();
    read();
    addEventListener('popstate', read);
    document.addEventListener('click', (event) => this.#click(event));
  }

  /** The login at the provider leads back to the first page: remembers this one until then. */
  remember(): void {
    sessionStorage.setItem(INTERRUPTED, location.pathname);
  }

  #resume(): void {
    const path = sessionStorage.getItem(INTERRUPTED);
    sessionStorage.removeItem(INTERRUPTED);
    // Only after a login that ended well: else the address says why it did not.
    if (path?.startsWith('/') && !path.startsWith('//') && !location.search) history.replaceState(null, '', path);
  }

  setFilter(text: string): void {
    this.filter = text;
    history.replaceState(null, '', text ? `${this.path}?q=${encodeURIComponent(text)}` : this.path);
  }

  #click(event: MouseEvent): void {
    if (event.defaultPrevented || event.button !== 0 || event.metaKey || event.ctrlKey || event.shiftKey || event.altKey)
      return;
    const link = event.target instanceof Element ? event.target.closest('a') : null;
    if (!link || link.origin !== location.origin || link.target || link.hash) return;
    event.preventDefault();
    this.go(link.href);
  }

  go(href: string): void {
    history.pushState(null, '', href);
    this.path = location.pathname;
    this.filter = filterNow();
    scrollTo(0, 0);
  }
}

export const route = new Route();
