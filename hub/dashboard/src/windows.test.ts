import { expect, test } from 'vitest';

import { inOrder, scopeOf } from './windows';

test.each([
  [{}, 'every check on every cluster'],
  [{ selector: 'env=prod' }, 'every check on clusters with env=prod'],
  [{ cluster: 'c1', namespace: 'health' }, 'checks in health on c1'],
  [{ check: 'dns' }, 'checks named dns on every cluster'],
  [{ namespace: 'health', check: 'dns', cluster: 'c1' }, 'health/dns on c1'],
])('%j', (window, words) => expect(scopeOf({ name: 'w', ...window })).toBe(words));

test('open ones come first, and what is over last', () => {
  const windows = [
    { name: 'over' },
    { name: 'later', changesAt: '2026-11-27T00:00:00Z' },
    { name: 'next', changesAt: '2026-11-26T00:00:00Z' },
    { name: 'open', openUntil: '2026-11-28T00:00:00Z', changesAt: '2026-11-28T00:00:00Z' },
  ];
  expect(inOrder(windows).map(({ name }) => name)).toEqual(['open', 'next', 'later', 'over']);
});
