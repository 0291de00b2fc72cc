import { expect, test } from 'vitest';

import type { CheckView, IncidentView } from './api';
import { apartFrom, isKnown, remedyOf } from './care';
import { check } from './testing';

const NOW = Date.parse('2026-11-25T12:00:00Z');
const failed = (more: Partial<CheckView>): CheckView => ({ ...check('c', 'dns', 'Failed'), ...more });
const RUNS = { succeeded: 1, failed: 0 };
const totals = (startedAt: string) => ({ ...RUNS, startedAt });

test('what somebody knows of is still wrong', () => {
  expect(isKnown(failed({}))).toBe(false);
  expect(isKnown(failed({ care: { maintenance: 'night' } }))).toBe(true);
  expect(isKnown(failed({ care: { acknowledgement: { by: 'ann', at: '', expiresAt: '' } } }))).toBe(true);
});

test.each<[string, Partial<CheckView>, string]>([
  ['none', {}, 'no remedy'],
  ['busy', { remedy: RUNS, running: { kind: 'remedy', slot: '', workflow: '' } }, 'remedy is running'],
  ['bad', { remedy: RUNS, remedyBudget: { limit: 3, left: 0 } }, 'remedy has used its 3 runs; a success brings new ones'],
  ['none', { remedy: RUNS, remedyBudget: { limit: 3, left: 2 } }, 'remedy has 2 of 3 runs left'],
  [
    'none',
    { remedy: RUNS, remedyBudget: { limit: 3, left: 0, resetsAt: '2026-11-25T11:00:00Z' } },
    'remedy has 0 of 3 runs left',
  ],
  [
    'bad',
    { check: totals('2026-11-25T11:00:00Z'), remedy: totals('2026-11-25T11:01:00Z'), remedyStatus: 'Failed' },
    'remedy failed',
  ],
  [
    'done',
    { check: totals('2026-11-25T11:00:00Z'), remedy: totals('2026-11-25T11:01:00Z'), remedyStatus: 'Succeeded' },
    'remedy succeeded, not checked since',
  ],
  [
    'none',
    { check: totals('2026-11-25T11:02:00Z'), remedy: totals('2026-11-25T11:01:00Z'), remedyStatus: 'Succeeded' },
    'remedy has not run since',
  ],
])('%s: %j', (look, more, text) => {
  expect(remedyOf(failed(more), NOW)).toEqual({ look, text });
});

test('a pause of remedies is said', () => {
  const pause = { id: 'p', subject: 'remedies' as const, until: '2026-11-25T13:00:00Z', reason: '', by: 'ann' };
  expect(remedyOf(failed({ remedy: RUNS, pauses: [pause] }), NOW).text).toMatch(/^remedies are paused until/);
  const over = { ...pause, until: '2026-11-25T11:00:00Z' };
  expect(remedyOf(failed({ remedy: RUNS, pauses: [over] }), NOW).text).toBe('remedy has not run since');
});

test('what stands in an incident is not shown again one by one', () => {
  const incident = (failing: number): IncidentView => ({
    id: 'i',
    kind: 'Check',
    title: '',
    namespace: 'system',
    name: 'dns',
    widespread: true,
    silenced: false,
    flapping: false,
    firstSeen: '',
    lastChange: '',
    counts: { failing, healthy: 0, unknown: 0, failingInScope: failing, inScope: failing },
    members: [{ cluster: 'c1', status: 'Failed' }],
  });
  const checks = [check('c1', 'dns', 'Failed'), check('c2', 'dns', 'Failed'), check('c1', 'net', 'Failed')];
  const names = (incidents: IncidentView[]) => apartFrom(checks, incidents).map((c) => `${c.cluster}/${c.name}`);
  expect(names([])).toHaveLength(3);
  expect(names([incident(1)])).toEqual(['c2/dns', 'c1/net']);
  expect(names([incident(2)])).toEqual(['c1/net']);
});
