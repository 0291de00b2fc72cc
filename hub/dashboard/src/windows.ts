// Maintenance windows in words. Pure.

import type { WindowView } from './api';
import { byName } from './overview';

/** Of which checks a window is. */
export function scopeOf({ selector, cluster, namespace, check }: WindowView): string {
  const clusters = cluster ? `on ${cluster}` : selector ? `on clusters with ${selector}` : 'on every cluster';
  const what = check ? `${namespace ? `${namespace}/` : 'checks named '}${check}` : namespace ? `checks in ${namespace}` : 'every check';
  return `${what} ${clusters}`;
}

/** Open ones first, then those that begin next, then those that are over. */
export function inOrder(windows: WindowView[]): WindowView[] {
  const rank = (window: WindowView) => (window.openUntil ? 0 : window.changesAt ? 1 : 2);
  return [...windows].sort(
    (a, b) => rank(a) - rank(b) || (a.changesAt ?? '').localeCompare(b.changesAt ?? '') || byName(a.name, b.name),
  );
}
