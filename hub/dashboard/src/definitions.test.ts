import { expect, test } from 'vitest';

import type { DefinitionView } from './api';
import { definitionOf, missing, workflowOf } from './definitions';
import { check } from './testing';

const definition = (name: string, template: unknown): DefinitionView => ({
  name,
  generation: 2,
  definition: { spec: { template } },
  clusters: [
    { cluster: 'c1', result: 'Applied', observedGeneration: 2 },
    { cluster: 'c2', result: 'Refused', observedGeneration: 2 },
  ],
});
const named = definition('base-dns', { metadata: { namespace: 'system', name: 'dns' } });
const unnamed = definition('net', { metadata: { namespace: 'system' } });

test('a check is found by what the template is named, or the definition where it is not', () => {
  expect(definitionOf([named, unnamed], 'system', 'dns')).toBe(named);
  expect(definitionOf([named, unnamed], 'system', 'net')).toBe(unnamed);
  expect(definitionOf([named, unnamed], 'system', 'base-dns')).toBeUndefined();
});

test('a cluster without the check is missing', () => {
  expect(missing(named, [check('c1', 'dns')]).map(({ cluster }) => cluster)).toEqual(['c2']);
});

test('the workflow is shown where it is written in the definition', () => {
  const inline = definition('d', { spec: { workflow: { resource: { source: { inline: 'kind: Workflow' } } } } });
  expect(workflowOf(inline, 'healthCheck')).toBe('kind: Workflow');
  expect(workflowOf(inline, 'remedy')).toBeUndefined();
  expect(workflowOf({ ...inline, definition: 'damaged' }, 'healthCheck')).toBeUndefined();
});
