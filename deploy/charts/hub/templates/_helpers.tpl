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
{{- if .Values.people.tlsSecret }}
{{- $_ := set $own "tls-cert-file" "/etc/active-monitor-people/tls.crt" }}
{{- $_ := set $own "tls-key-file" "/etc/active-monitor-people/tls.key" }}
{{- end }}
{{- mergeOverwrite (deepCopy .Values.config) $own | toYaml }}
{{- end }}
