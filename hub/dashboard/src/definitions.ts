// Definitions beside the checks that they make. Pure.

import type { CheckView, DefinitionClusterStatus, DefinitionView } from './api';

interface Written {
  metadata?: { name?: string };
  spec?: {
    template?: {
      metadata?: { namespace?: string; name?: string };
      spec?: { workflow?: WrittenWorkflow; remedyworkflow?: WrittenWorkflow };
    };
  };
}

interface WrittenWorkflow {
  resource?: { source?: { inline?: string; url?: unknown } };
}

const written = (definition: DefinitionView) => definition.definition as Written;

/** The definition whose template is of this check. One with values in its names is found by the checks that it made. */
export function definitionOf(definitions: DefinitionView[], namespace: string, name: string): DefinitionView | undefined {
  return definitions.find((definition) => {
    const names = written(definition).spec?.template?.metadata;
    return names?.namespace === namespace && (names.name ?? definition.name) === name;
  });
}

/** The clusters that a definition is meant for and that have no such check. */
export function missing(definition: DefinitionView, checks: CheckView[]): DefinitionClusterStatus[] {
  const have = new Set(checks.map((check) => check.cluster));
  return definition.clusters.filter((status) => !have.has(status.cluster));
}

/** The workflow as the definition has it, before the cluster's own values; undefined where it comes from elsewhere. */
export function workflowOf(definition: DefinitionView, kind: 'healthCheck' | 'remedy'): string | undefined {
  const spec = written(definition).spec?.template?.spec;
  return (kind === 'remedy' ? spec?.remedyworkflow : spec?.workflow)?.resource?.source?.inline;
}
