import { expect, test } from 'vitest';

import { count, duration, percent, relative, took } from './format';
import { checkHref, pageOf } from './route.svelte';

test.each([
  [-5000, '0 s'],
  [8_400, '8 s'],
  [119_000, '119 s'],
  [180_000, '3 min'],
  [7_500_000, '2 h 5 min'],
  [7_200_000, '2 h'],
  [100 * 3_600_000, '4 d 4 h'],
])('%d ms is %s', (milliseconds, text) => {
  expect(duration(milliseconds)).toBe(text);
});

test('the past and the future differ', () => {
  expect(relative(0, 5000)).toBe('5 s ago');
  expect(relative(5000, 0)).toBe('in 5 s');
  expect(took('2026-11-22T10:00:00Z', '2026-11-22T10:00:01.25Z')).toBe('1.3 s');
  expect([count(1, 'check'), count(1200, 'check')]).toEqual(['1 check', '1,200 checks']);
});

test('uptime is never rounded up', () => {
  expect([1, 0.999_99, 0.9995, 0.5].map(percent)).toEqual(['100.00 %', '99.99 %', '99.95 %', '50.00 %']);
});

test('an address names one page', () => {
  const check = { cluster: 'eu-1', namespace: 'kube-system', name: 'dns.v2' };
  expect(pageOf(checkHref(check))).toEqual({ at: 'check', ...check });
  expect(pageOf('/clusters/eu-1/')).toEqual({ at: 'cluster', cluster: 'eu-1' });
  expect(pageOf('/')).toEqual({ at: 'wrong' });
  expect(pageOf('/clusters/eu-1/checks')).toEqual({ at: 'nowhere' });
  expect(pageOf('/clusters/%E0%A4%A')).toEqual({ at: 'cluster', cluster: '%E0%A4%A' });
});
