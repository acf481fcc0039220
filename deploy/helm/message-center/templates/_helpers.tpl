{{/* Names, labels, image. */}}
{{- define "mc.name" -}}{{ default .Chart.Name .Values.nameOverride | trunc 40 | trimSuffix "-" }}{{- end }}
{{/* At most 40 bytes, which leave room for every component's suffix. What is cut off is replaced by a hash, or two long
     names that begin alike would be one. Services take no dots, release names do. */}}
{{- define "mc.fullname" -}}
{{- $whole := .Values.fullnameOverride -}}
{{- if not $whole }}{{ $whole = ternary .Release.Name (printf "%s-%s" .Release.Name (include "mc.name" .)) (contains (include "mc.name" .) .Release.Name) | replace "." "-" }}{{ end -}}
{{- if le (len $whole) 40 }}{{ $whole }}{{ else }}{{ printf "%s-%s" ($whole | trunc 31 | trimSuffix "-") ($whole | sha256sum | trunc 8) }}{{ end }}
{{- end }}
{{- define "mc.selector" -}}
app.kubernetes.io/name: {{ include "mc.name" . | quote }}
app.kubernetes.io/instance: {{ .Release.Name | quote }}
{{- end }}
{{- define "mc.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" | quote }}
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
{{/* Bytes of a size, of Kubernetes (12Gi, 1G) or of the program (10GiB, 500 MB, 1024), for comparing; 0: not known. */}}
{{- define "mc.bytes" -}}
{{- $text := toString . | replace " " "" -}}
{{- $number := regexFind "^[0-9.]+" $text -}}
{{- $unit := regexReplaceAll "^[0-9.]+" $text "" | trimSuffix "B" | lower -}}
{{- $units := dict "" 1.0 "k" 1000.0 "m" 1000000.0 "g" 1000000000.0 "t" 1000000000000.0 "ki" 1024.0 "mi" 1048576.0 "gi" 1073741824.0 "ti" 1099511627776.0 -}}
{{- if and $number (hasKey $units $unit) }}{{ mulf (float64 $number) (get $units $unit) | floor | int64 }}{{ else }}0{{ end }}
{{- end }}
{{/* What the store's index may take of the bus's memory; empty: the program's default. */}}
{{- define "mc.bus.memory" -}}
{{- $limit := include "mc.bytes" (dig "limits" "memory" "0" .Values.bus.resources) | int64 -}}
{{- if .Values.bus.maxMemory }}{{ .Values.bus.maxMemory }}{{ else if $limit }}{{ printf "%d" (div $limit 2) }}{{ end }}
{{- end }}
{{/* Only the port of a URL's authority, with the default of its scheme. */}}
{{- define "mc.url.port" -}}
{{- $url := urlParse . -}}
{{- $port := regexFind ":[0-9]+$" $url.host | trimPrefix ":" -}}
{{- if $port }}{{ $port }}{{ else if eq $url.scheme "https" }}443{{ else }}80{{ end }}
{{- end }}
