{{/* Names, labels, image. */}}
{{- define "mc.name" -}}{{ default .Chart.Name .Values.nameOverride | trunc 40 | trimSuffix "-" }}{{- end }}
{{- define "mc.fullname" -}}
{{- if .Values.fullnameOverride }}{{ .Values.fullnameOverride | trunc 40 | trimSuffix "-" }}
{{- else if contains (include "mc.name" .) .Release.Name }}{{ .Release.Name | trunc 40 | trimSuffix "-" }}
{{- else }}{{ printf "%s-%s" .Release.Name (include "mc.name" .) | trunc 40 | trimSuffix "-" }}{{ end }}
{{- end }}
{{- define "mc.selector" -}}
app.kubernetes.io/name: {{ include "mc.name" . | quote }}
app.kubernetes.io/instance: {{ .Release.Name | quote }}
{{- end }}
{{- define "mc.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | quote }}
{{ include "mc.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service | quote }}
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}
{{/* (dict "root" $ "component" "edge") */}}
{{- define "mc.component.selector" -}}
{{ include "mc.selector" .root }}
app.kubernetes.io/component: {{ .component | quote }}
{{- end }}
{{- define "mc.meta" -}}
name: {{ printf "%s-%s" (include "mc.fullname" .root) .component | quote }}
namespace: {{ .root.Release.Namespace | quote }}
labels:
  {{- include "mc.labels" .root | nindent 2 }}
  app.kubernetes.io/component: {{ .component | quote }}
{{- end }}
{{- define "mc.image" -}}
{{- with .Values.image -}}
{{- if .digest }}{{ .repository }}@{{ .digest }}{{ else }}{{ .repository }}:{{ default $.Chart.AppVersion .tag }}{{ end }}
{{- end }}
{{- end }}
{{- define "mc.bus.secret" -}}
{{- if eq .Values.bus.mode "external" }}{{ .Values.bus.external.existingSecret }}
{{- else }}{{ default (printf "%s-bus-credentials" (include "mc.fullname" .)) .Values.bus.auth.existingSecret }}{{ end }}
{{- end }}
{{- define "mc.keys.secret" -}}
{{ default (printf "%s-first-key" (include "mc.fullname" .)) .Values.publisherApi.keys.existingSecret }}
{{- end }}
{{/* Grace of a component's pods: (dict "values" .Values.edge) */}}
{{- define "mc.grace" -}}
{{- $v := .values -}}
{{- if kindIs "invalid" $v.terminationGracePeriodSeconds }}{{ add $v.preStopSeconds $v.drainSeconds 15 }}{{ else }}{{ int $v.terminationGracePeriodSeconds }}{{ end }}
{{- end }}
{{/* Pods of a Deployment: with autoscaling the live number is kept, or a switch to it would cut sessions off. */}}
{{- define "mc.replicas" -}}
{{- $v := .values -}}
{{- if eq $v.autoscaling.mode "off" }}{{ int $v.replicas }}
{{- else -}}
{{- $live := lookup "apps/v1" "Deployment" .root.Release.Namespace (printf "%s-%s" (include "mc.fullname" .root) .component) -}}
{{- $now := 0 -}}
{{- if $live }}{{ $now = int (dig "spec" "replicas" 0 $live) }}{{ end -}}
{{- max (int $v.autoscaling.minReplicas) $now }}
{{- end }}
{{- end }}
{{/* Host and port of a URL's authority: only the port, with the default of its scheme. */}}
{{- define "mc.url.port" -}}
{{- $url := urlParse . -}}
{{- $port := regexFind ":[0-9]+$" $url.host | trimPrefix ":" -}}
{{- if $port }}{{ $port }}{{ else if eq $url.scheme "https" }}443{{ else }}80{{ end }}
{{- end }}
