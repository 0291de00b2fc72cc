import { expect, test } from 'vitest';

import type { RunView } from './api';
import { gapText, historyRows } from './gaps';

const run = (id: number) => ({ id }) as RunView;
const gap = (after: number) => ({ cluster: 'a', after, reports: 3, noticedAt: '2026-01-01T00:00:00Z' });
const shown = (rows: ReturnType<typeof historyRows>) =>
  rows.map((row) => (row.run ? row.run.id : `gap after ${row.gap.after}`));

test('a gap stands above the run behind which it lies', () => {
  const page = { items: [run(9), run(7), run(4)], gaps: [gap(7), gap(20), gap(2), gap(5)] };
  expect(shown(historyRows(page))).toEqual(['gap after 20', 9, 'gap after 7', 7, 'gap after 5', 4, 'gap after 2']);
  expect(shown(historyRows({ items: [run(1)] }))).toEqual([1]);
  expect(shown(historyRows({ items: [], gaps: [gap(0)] }))).toEqual(['gap after 0']);
});

test('each row has a key of its own', () => {
  const keys = historyRows({ items: [run(7)], gaps: [gap(7), gap(7)] }).map((row) => row.key);
  expect(new Set(keys).size).toBe(3);
});

test('a gap says how many runs are missing only where that is known', () => {
  expect(gapText(gap(1))).toBe('3 runs of a never came, of whichever checks');
  expect(gapText({ ...gap(1), reports: 0 })).toContain('nobody knows how many');
});
