import { expect, test } from 'vitest';

import { disagreeing, EMPTY, fromLists, merge, withClusters } from './fleet';
import { check, cluster } from './testing';

const start = fromLists(
  [cluster('a'), cluster('b')],
  [check('a', 'dns'), check('b', 'dns'), check('b', 'etcd')],
);

test('an event replaces what was known, and the fleet before stays as it was', () => {
  const next = merge(start, [{ type: 'check', ...check('a', 'dns', 'Failed') }]);
  expect(next.checks.get('a/system/dns')?.status).toBe('Failed');
  expect(start.checks.get('a/system/dns')?.status).toBe('Succeeded');
});

test('events count in their order', () => {
  const next = merge(start, [
    { type: 'check', ...check('a', 'new') },
    { type: 'checkRemoved', cluster: 'a', namespace: 'system', name: 'new' },
    { type: 'check', ...check('a', 'dns', 'Failed') },
    { type: 'check', ...check('a', 'dns', 'Succeeded') },
  ]);
  expect(next.checks.size).toBe(3);
  expect(next.checks.get('a/system/dns')?.status).toBe('Succeeded');
});

test('a removed cluster takes its checks with it', () => {
  const next = merge(start, [{ type: 'clusterRemoved', name: 'b' }]);
  expect([...next.clusters.keys()]).toEqual(['a']);
  expect([...next.checks.keys()]).toEqual(['a/system/dns']);
});

test('a newer list of clusters keeps the checks of those that are still there', () => {
  const next = withClusters(start, [cluster('b', 'Unreachable'), cluster('c')]);
  expect([...next.clusters.keys()]).toEqual(['b', 'c']);
  expect([...next.checks.keys()]).toEqual(['b/system/dns', 'b/system/etcd']);
  expect(withClusters(start, [cluster('a'), cluster('b')]).checks).toBe(start.checks);
});

test('counts that differ from the checks tell of a lost event', () => {
  const counted = (name: string, Succeeded: number) => ({ ...cluster(name), checks: { ...cluster(name).checks, Succeeded } });
  const checks = [check('a', 'dns'), check('b', 'dns'), check('b', 'net', 'Failed')];
  expect(disagreeing(fromLists([counted('a', 1), counted('b', 2), counted('c', 0)], checks))).toEqual(['b']);
  expect(disagreeing(fromLists([counted('a', 1), counted('b', 2)], checks.slice(0, 1)))).toEqual(['b']);
});

test('no event changes nothing', () => {
  expect(merge(EMPTY, [])).toBe(EMPTY);
});
