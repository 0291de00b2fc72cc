{{/* The agent's ServiceAccount, as the subject of a binding. */}}
{{- define "agent.subject" -}}
{kind: ServiceAccount, name: active-monitor-agent, namespace: {{ .Release.Namespace }}}
{{- end }}

{{- define "agent.image" -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end }}

{{/* The Secret with the one-time token; empty where there is none. */}}
{{- define "agent.tokenSecret" -}}
{{- if .Values.hub.tokenSecret }}{{ .Values.hub.tokenSecret }}
{{- else if .Values.hub.token }}active-monitor-agent-token
{{- end }}
{{- end }}

{{/* The CRD belongs to this release: there is none yet, or this release made it. Else empty. */}}
{{- define "agent.ownsCrd" -}}
{{- $there := lookup "apiextensions.k8s.io/v1" "CustomResourceDefinition" "" "healthchecks.activemonitor.keikoproj.io" }}
{{- $by := dig "metadata" "annotations" dict $there }}
{{- $name := get $by "meta.helm.sh/release-name" }}
{{- $namespace := get $by "meta.helm.sh/release-namespace" }}
{{- if or (not $there) (and (eq $name .Release.Name) (eq $namespace .Release.Namespace)) }}true{{ end }}
{{- end }}

{{/* What the agent does its work with, in a namespace or everywhere. */}}
{{- define "agent.workRules" -}}
{{- if eq .Values.mode "observe" -}}
- apiGroups: [activemonitor.keikoproj.io]
  resources: [healthchecks]
  verbs: [get, list, watch]
{{- else -}}
# The checks: watched; those that the hub defines are made and withdrawn; patch annotates one to run now.
- apiGroups: [activemonitor.keikoproj.io]
  resources: [healthchecks]
  verbs: [get, list, watch, create, update, patch, delete]
- apiGroups: [activemonitor.keikoproj.io]
  resources: [healthchecks/status]
  verbs: [get, patch]
# A check owns its workflows; where the API server checks it, that takes this right.
- apiGroups: [activemonitor.keikoproj.io]
  resources: [healthchecks/finalizers]
  verbs: [update]
# Their workflows; patch terminates one that is past its deadline. delete is for those that nothing else takes away: of a
# deleted check in another namespace, and what no Argo controller has taken up in its time.
- apiGroups: [argoproj.io]
  resources: [workflows]
  verbs: [get, list, watch, create, patch, delete]
# The accounts, roles and bindings that the checks run with.
- apiGroups: [""]
  resources: [serviceaccounts]
  verbs: [get, list, watch, create, delete]
- apiGroups: [rbac.authorization.k8s.io]
  resources: [roles, rolebindings{{ if not .Values.watchNamespaces }}, clusterroles, clusterrolebindings{{ end }}]
  verbs: [get, list, watch, create, update, delete]
# News for `kubectl describe`.
- apiGroups: [events.k8s.io]
  resources: [events]
  verbs: [create, patch]
{{- end }}
{{- end }}

{{/* What checks may be given. In a Role, nodes and namespaces open nothing: the default rights of checks name them. */}}
{{- define "agent.readingRules" -}}
- apiGroups: [""]
  resources: [pods, nodes, events, services, configmaps, namespaces, endpoints]
  verbs: [get, list, watch]
- apiGroups: [apps]
  resources: [deployments, replicasets, statefulsets, daemonsets]
  verbs: [get, list, watch]
- apiGroups: [argoproj.io]
  resources: [workflows]
  verbs: [get, list, watch]
# Argo's executor reports the outputs of each pod with the pod's own account.
- apiGroups: [argoproj.io]
  resources: [workflowtaskresults]
  verbs: [create, patch]
{{- end }}

{{/* What remedies may be given besides. */}}
{{- define "agent.remedyingRules" -}}
- apiGroups: [""]
  resources: [pods, events, services, configmaps, endpoints]
  verbs: [create, update, patch, delete]
- apiGroups: [apps]
  resources: [deployments, replicasets, statefulsets]
  verbs: [create, update, patch, delete]
- apiGroups: [argoproj.io]
  resources: [workflows]
  verbs: [create, update, patch, delete]
{{- end }}

{{/* Fails where a namespace is named that a namespaced install does not watch. */}}
{{- define "agent.insideWatched" -}}
{{- if .Values.watchNamespaces }}
{{- $lists := dict "remedies" .Values.remedies "logTails" .Values.logTails "definitions" .Values.definitions }}
{{- range $name, $value := $lists }}
{{- range $value.namespaces }}
{{- if not (has . $.Values.watchNamespaces) }}{{ fail (printf "%s.namespaces: %s is not among watchNamespaces" $name .) }}{{ end }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}

{{/* Reading the logs of failed pods. */}}
{{- define "agent.logRules" -}}
- apiGroups: [""]
  resources: [pods]
  verbs: [list]
- apiGroups: [""]
  resources: [pods/log]
  verbs: [get]
{{- end }}
