import { describe, expect, test } from 'vitest';

import { fromLists } from './fleet';
import { filterOf, gridOf, groupUnknown, groupWrong, lostClusters, numbers, title, worstFirst } from './overview';
import { check, cluster } from './testing';

describe('what is wrong', () => {
  test('is grouped by check, worst first, then by how many clusters share it', () => {
    const groups = groupWrong([
      check('a', 'late', 'Overdue'),
      check('a', 'one', 'Failed', 'x'),
      check('b', 'shared', 'Failed', 'timeout'),
      check('a10', 'shared', 'Failed', 'timeout'),
      check('a9', 'shared', 'Failed', 'refused'),
      check('a', 'typo', 'Invalid'),
      check('a', 'fine'),
      check('c', 'shared', 'Stale'),
    ]);
    expect(groups.map((g) => [g.status, g.name, g.checks.map((c) => c.cluster)])).toEqual([
      ['Failed', 'shared', ['a9', 'a10', 'b']],
      ['Failed', 'one', ['a']],
      ['Invalid', 'typo', ['a']],
      ['Overdue', 'late', ['a']],
    ]);
    expect(groups[0]?.message).toBe('timeout');
  });

  test('does not hold what is unknown, which has its own groups', () => {
    const unknown = groupUnknown([
      check('a', 'new', 'Pending'),
      check('b', 'dns', 'Stale'),
      check('b', 'new', 'Pending'),
      check('a', 'dns'),
    ]);
    expect(unknown.map((u) => [u.cluster, u.stale.length, u.pending.length])).toEqual([
      ['b', 1, 1],
      ['a', 0, 1],
    ]);
  });

  test('begins with the clusters that are lost, the longest silent first', () => {
    const lost = lostClusters([
      cluster('fine'),
      cluster('new', 'Pending'),
      cluster('later', 'Unreachable', { lastHeardAt: '2026-11-22T10:00:00Z' }),
      cluster('earlier', 'Unreachable', { lastHeardAt: '2026-11-22T09:00:00Z' }),
      cluster('again', 'Reconnecting'),
    ]);
    expect(lost.map((c) => c.name)).toEqual(['earlier', 'later', 'again', 'new']);
  });

  test('within a cluster the worst check is first', () => {
    const checks = [check('a', 'b'), check('a', 'a'), check('a', 'z', 'Failed'), check('a', 'y', 'Stale')];
    expect(checks.sort(worstFirst).map((c) => c.name)).toEqual(['z', 'y', 'a', 'b']);
  });
});

describe('the numbers', () => {
  const fleet = fromLists(
    [
      cluster('a', 'Connected', { lastHeardAt: '2026-11-22T10:00:05Z' }),
      cluster('b', 'Connected', { lastHeardAt: '2026-11-22T10:00:01Z' }),
      cluster('c', 'Unreachable', { lastHeardAt: '2026-11-22T08:00:00Z' }),
      cluster('d', 'Pending'),
    ],
    [check('a', 'x', 'Failed'), check('a', 'y'), check('b', 'x', 'Stale'), check('c', 'x', 'Stale'), check('c', 'y', 'Stale')],
  );

  test('count a lost cluster and its stale checks as one wrong thing', () => {
    const { wrong, unknown, connected, checks } = numbers(fleet);
    expect({ wrong, unknown, connected }).toEqual({ wrong: 3, unknown: 4, connected: 2 });
    expect(checks).toMatchObject({ Failed: 1, Stale: 3, Succeeded: 1 });
  });

  test('know how old the newest and the oldest live information is', () => {
    expect(numbers(fleet)).toMatchObject({
      newestMs: Date.parse('2026-11-22T10:00:05Z'),
      oldestMs: Date.parse('2026-11-22T10:00:01Z'),
    });
    expect(numbers(fromLists([], []))).toMatchObject({ newestMs: undefined, oldestMs: undefined });
  });

  test('are in the title, unless the page is cut off', () => {
    expect(title({ wrong: 3, known: 1, unknown: 5 }, false)).toMatch(/^\(3\) wrong/);
    expect(title({ wrong: 0, known: 2, unknown: 5 }, false)).toMatch(/^\(2\) known/);
    expect(title({ wrong: 0, known: 0, unknown: 5 }, false)).toMatch(/^\(5\) unknown/);
    expect(title({ wrong: 0, known: 0, unknown: 0 }, false)).toBe('Fleet health');
    expect(title({ wrong: 0, known: 0, unknown: 0 }, true)).toMatch(/^\(\?\)/);
  });
});

describe('the filter', () => {
  const edge = cluster('edge-1', 'Connected', { labels: { region: 'Berlin' } });

  test.each([
    ['', true],
    ['dns', true],
    ['system/dns', true],
    ['region=berlin DNS', true],
    ['failed edge', true],
    ['dns region=paris', false],
    ['succeeded', false],
  ])('%j', (text, matches) => {
    expect(filterOf(text)(edge, check('edge-1', 'dns', 'Failed'))).toBe(matches);
  });
});

describe('the grid', () => {
  const fleet = fromLists(
    [cluster('c10'), cluster('c9'), cluster('empty')],
    [check('c9', 'dns', 'Failed'), check('c9', 'etcd'), check('c10', 'dns'), check('c10', 'net')],
  );
  const shape = (text: string) => {
    const { rows, columns } = gridOf(fleet, filterOf(text));
    return {
      columns: columns.map((c) => c.name),
      rows: rows.map(({ cluster: { name }, cells }) => [name, ...cells.map((c) => c && [c.check.status, c.matches])]),
    };
  };

  test('has a place for every check of every cluster', () => {
    expect(shape('')).toEqual({
      columns: ['dns', 'etcd', 'net'],
      rows: [
        ['c9', ['Failed', true], ['Succeeded', true], undefined],
        ['c10', ['Succeeded', true], undefined, ['Succeeded', true]],
        ['empty', undefined, undefined, undefined],
      ],
    });
  });

  test('leaves out rows and columns in which nothing matches', () => {
    expect(shape('failed')).toEqual({ columns: ['dns'], rows: [['c9', ['Failed', true]]] });
    expect(shape('c10').columns).toEqual(['dns', 'net']);
  });
});
