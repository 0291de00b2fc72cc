{{- define "hub.image" -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end }}

{{- define "hub.adminSecret" -}}
{{ .Values.adminToken.secret | default "active-monitor-hub-admin" }}
{{- end }}

{{- define "hub.agentsAddress" -}}
{{ .Values.agents.address | default (printf "active-monitor-hub-agents.%s.svc:7443" .Release.Namespace) }}
{{- end }}

{{- define "hub.enrolmentAddress" -}}
{{ .Values.enrolment.address | default (printf "active-monitor-hub-enrolment.%s.svc:7444" .Release.Namespace) }}
{{- end }}

{{/* Names in the certificate beside those that are advertised. */}}
{{- define "hub.names" -}}
{{- $people := "active-monitor-hub-people" }}
{{- $service := list $people (printf "%s.%s" $people .Release.Namespace) (printf "%s.%s.svc" $people .Release.Namespace) }}
{{- concat $service .Values.people.names | join "," }}
{{- end }}

{{/* The CRD belongs to this release: there is none yet, or this release made it. Else empty. */}}
{{- define "hub.ownsCrd" -}}
{{- $there := lookup "apiextensions.k8s.io/v1" "CustomResourceDefinition" "" "fleethealthchecks.fleet.activemonitor.keikoproj.io" }}
{{- $by := dig "metadata" "annotations" dict $there }}
{{- $name := get $by "meta.helm.sh/release-name" }}
{{- $namespace := get $by "meta.helm.sh/release-namespace" }}
{{- if or (not $there) (and (eq $name .Release.Name) (eq $namespace .Release.Namespace)) }}true{{ end }}
{{- end }}

{{/* The hub's configuration file; what the chart must know is the chart's. */}}
{{- define "hub.config" -}}
{{- $own := dict
  "people-listen" "0.0.0.0:8443"
  "admin-listen" "0.0.0.0:8081"
  "agents-advertise" (include "hub.agentsAddress" .)
  "enrolment-advertise" (include "hub.enrolmentAddress" .)
  "tls-name" (include "hub.names" .)
  "admin-token-file" "/etc/active-monitor/token"
  "lease-seconds" .Values.leaseSeconds
  "log-format" .Values.log.format }}
{{- if .Values.alerts.secret }}
{{- $_ := set $own "routes-file" "/etc/active-monitor-alerts/routes.yaml" }}
{{- end }}
{{- if (.Values.customResources).enabled }}
{{- $_ := set $own "resources-namespace" .Release.Namespace }}
{{- end }}
{{- if .Values.people.tlsSecret }}
{{- $_ := set $own "tls-cert-file" "/etc/active-monitor-people/tls.crt" }}
{{- $_ := set $own "tls-key-file" "/etc/active-monitor-people/tls.key" }}
{{- end }}
{{- mergeOverwrite (deepCopy .Values.config) $own | toYaml }}
{{- end }}
