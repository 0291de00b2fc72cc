import { afterEach, expect, test, vi } from 'vitest';

import { getDefinitions } from './api';

afterEach(() => vi.unstubAllGlobals());

/** Answers with these pages, one after the other; gives what was asked. */
function answer(pages: { items: { name: string }[]; next?: string }[]): string[] {
  const asked: string[] = [];
  vi.stubGlobal('fetch', async (path: string) => {
    asked.push(path);
    return new Response(JSON.stringify(pages[Math.min(asked.length, pages.length) - 1]));
  });
  return asked;
}

test('definitions are read to their last page', async () => {
  const asked = answer([{ items: [{ name: 'a' }], next: 'a' }, { items: [{ name: 'b/c' }], next: 'b/c' }, { items: [{ name: 'd' }] }]);
  expect((await getDefinitions()).map(({ name }) => name)).toEqual(['a', 'b/c', 'd']);
  const path = '/api/v1/definitions';
  expect(asked).toEqual([path, `${path}?limit=10000&after=a`, `${path}?limit=10000&after=b%2Fc`]);
});

test('a list without an end is given up', async () => {
  answer([{ items: [{ name: 'a' }], next: 'a' }]);
  await expect(getDefinitions()).rejects.toThrow('has no end');
});
