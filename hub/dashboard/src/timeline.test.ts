import { expect, test } from 'vitest';

import type { ChangeView, IncidentView } from './api';
import { done, matters, timeline, where, withIncidents } from './timeline';

const at = (second: number) => new Date(1_800_000_000_000 + second * 1000).toISOString();
const status = (second: number, cluster: string, name: string, status?: ChangeView['status']): ChangeView => ({
  at: at(second),
  kind: 'status',
  cluster,
  namespace: 'health',
  name,
  status,
});

test('what happens together is one row, also with a command in between', () => {
  const changes: ChangeView[] = [
    status(200, 'c1', 'dns', 'Succeeded'),
    status(100, 'c3', 'dns', 'Failed'),
    { at: at(99), kind: 'command', action: 'command.pause.result', who: 'ann', cluster: 'c2', message: 'b' },
    { at: at(98), kind: 'command', action: 'command.pause.result', who: 'ann', cluster: 'c1', message: 'a' },
    { at: at(97), kind: 'command', action: 'command.pause', who: 'ann', message: 'pause; in c1, c2' },
    status(96, 'c1', 'dns', 'Failed'),
    status(20, 'c1', 'net', 'Failed'),
  ];
  expect(timeline(changes).map((row) => [row.side, row.changes.length])).toEqual([
    ['became', 1],
    ['became', 2],
    ['did', 2],
    ['did', 1],
    ['became', 1],
  ]);
});

test('a row says of how many checks and clusters it is', () => {
  expect(where([status(1, 'c1', 'dns')])).toBe('health/dns on c1');
  expect(where([status(1, 'c1', 'dns'), status(1, 'c2', 'dns')])).toBe('health/dns on 2 clusters');
  expect(where([status(1, 'c1', 'dns'), status(1, 'c1', 'net')])).toBe('2 checks on c1');
  expect(where([status(1, 'c1', 'dns'), status(1, 'c2', 'net')])).toBe('2 checks on 2 clusters');
});

test('a first success is no news, a failure and its end are', () => {
  expect(matters({ ...status(1, 'c', 'dns', 'Succeeded'), was: 'Pending' })).toBe(false);
  expect(matters({ ...status(1, 'c', 'dns', 'Succeeded'), was: 'Failed' })).toBe(true);
  expect(matters({ ...status(1, 'c', 'dns', 'Stale'), was: 'Succeeded' })).toBe(true);
  expect(matters({ ...status(1, 'c', 'dns'), was: 'Stopped' })).toBe(false);
});

test('an action that is not known is shown as it is', () => {
  expect(done({ at: at(0), kind: 'window', action: 'window.put' })).toBe('window written');
  expect(done({ at: at(0), kind: 'cluster', action: 'cluster.fence' })).toBe('cluster.fence');
});

test('an incident stands where it began and where it ended', () => {
  const counts = { failing: 0, healthy: 3, unknown: 0, failingInScope: 0, inScope: 3 };
  const incident: IncidentView = {
    id: 'i',
    kind: 'Check',
    title: 'health/dns fails in 3 of 3 clusters',
    widespread: true,
    silenced: false,
    flapping: false,
    firstSeen: at(50),
    lastChange: at(150),
    closedAt: at(150),
    counts,
    members: [],
  };
  const rows = timeline([status(200, 'c1', 'dns', 'Succeeded'), status(100, 'c1', 'dns', 'Failed')]);
  const times = (isAll: boolean) => withIncidents(rows, [incident], isAll).map((row) => row.at);
  expect(times(true)).toEqual([at(200), at(150), at(100), at(50)]);
  expect(times(false)).toEqual([at(200), at(150), at(100)]);
});
