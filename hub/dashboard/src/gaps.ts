// Where what is missing stands between the runs of a page.

import type { GapView, RunPage, RunView } from './api';

export type HistoryRow = { key: string; run: RunView; gap?: undefined } | { key: string; gap: GapView; run?: undefined };

/** What is missing, for people. */
export function gapText({ cluster, reports }: GapView): string {
  if (reports === 0) {
    return `Runs of ${cluster} had not come, nobody knows how many: their journal is lost, or that of another replica`;
  }
  return `${reports.toLocaleString('en')} runs of ${cluster} never came, of whichever checks`;
}

/** Newest first; a gap stands above the run behind which it lies. */
export function historyRows(page: RunPage): HistoryRow[] {
  const gaps = [...(page.gaps ?? [])].sort((a, b) => b.after - a.after);
  const gapRow = (gap: GapView, i: number): HistoryRow => ({ key: `gap ${gap.after} ${gap.noticedAt} ${i}`, gap });
  const rows: HistoryRow[] = [];
  let next = 0;
  for (const run of page.items) {
    for (let gap = gaps[next]; gap && gap.after >= run.id; gap = gaps[next]) rows.push(gapRow(gap, next++));
    rows.push({ key: `run ${run.id}`, run });
  }
  return [...rows, ...gaps.slice(next).map((gap, i) => gapRow(gap, next + i))];
}
