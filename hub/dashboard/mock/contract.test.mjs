// The mock hub says only what the hub's OpenAPI document allows, so that pages that work with it work with a hub.

import { readFileSync } from 'node:fs';

import { Ajv2020 } from 'ajv/dist/2020.js';
import { expect, test } from 'vitest';

import { makeChanges, makeDefinitions, makeRuns } from './fleet.mjs';
import { MockHub, TOKEN, trouble } from './server.mjs';

const document = JSON.parse(readFileSync(new URL('../../openapi.json', import.meta.url), 'utf8'));
const ajv = new Ajv2020({ strict: false, validateFormats: false, allErrors: true }).addSchema(document, 'hub');

const validators = new Map();

/** Fields that the document does not know are errors too. */
function expectFits(schema, value) {
  const reference = { $ref: `hub#/components/schemas/${schema}`, unevaluatedProperties: false };
  const validate = validators.get(schema) ?? ajv.compile(reference);
  validators.set(schema, validate);
  // As JSON: absent and undefined are the same there.
  validate(JSON.parse(JSON.stringify(value)));
  expect(validate.errors ?? []).toEqual([]);
}

const hub = new MockHub({ clusters: 3, checks: 100 });
trouble(hub);

test.each(['Failed', 'Invalid', 'Overdue', 'Stale', 'Pending', 'Stopped', 'Succeeded'])('%s checks', (status) => {
  const checks = hub.fleet.checks.filter((check) => check.status === status);
  expect(checks.length).toBeGreaterThan(0);
  for (const check of checks) {
    expectFits('CheckView', check);
    for (const run of makeRuns(check, Date.now(), 10)) expectFits('RunView', run);
  }
});

test('definitions', () => {
  for (const definition of makeDefinitions(hub.fleet)) expectFits('DefinitionView', definition);
});

test('windows and changes', () => {
  for (const window of hub.windows) expectFits('WindowView', window);
  for (const change of [...hub.changes, ...makeChanges(hub.fleet)]) expectFits('ChangeView', change);
});

test('uptime', () => {
  const query = new URLSearchParams({ cluster: 'a', namespace: 'b', name: 'c', window: '30d' });
  expectFits('UptimePage', hub.uptime(query));
});

test('answers and events', async () => {
  const base = await hub.listen();
  try {
    const login = await fetch(`${base}/api/v1/login`, { method: 'POST', body: JSON.stringify({ token: TOKEN }) });
    expectFits('Me', await login.json());
    const headers = { cookie: login.headers.get('set-cookie').split(';')[0] };
    for (const cluster of (await (await fetch(`${base}/api/v1/clusters`, { headers })).json()).items) {
      expectFits('ClusterView', cluster);
      expectFits('Event', { type: 'cluster', ...cluster });
    }
    const refused = await fetch(`${base}/api/v1/me`);
    expect(refused.status).toBe(401);
    expectFits('Problem', await refused.json());
    expectFits('Event', { type: 'check', ...hub.fleet.checks[0] });
  } finally {
    await hub.close();
  }
});
