{{/* The spec of a component's pod:
     (dict "root" $ "component" "edge" "values" .Values.edge "admin" 6795 "ports" (list (dict "name" "ws" "port" 6790)) "secrets" (dict "volume" "secret")) */}}
{{- define "mc.pod.security" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
fsGroup: 65532
fsGroupChangePolicy: OnRootMismatch
seccompProfile: {type: RuntimeDefault}
{{- end }}
{{- define "mc.container.security" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
runAsNonRoot: true
capabilities: {drop: [ALL]}
{{- end }}
{{- define "mc.bus.env" -}}
{{- $external := eq .Values.bus.mode "external" -}}
{{- $secret := include "mc.bus.secret" . -}}
{{- if and $external (eq .Values.bus.external.credentials "token") $secret }}
- name: MC_BUS__TOKEN
  valueFrom: {secretKeyRef: {name: {{ $secret | quote }}, key: token}}
{{- else if $secret }}
- name: MC_BUS__USER
  valueFrom: {secretKeyRef: {name: {{ $secret | quote }}, key: user}}
- name: MC_BUS__PASSWORD
  valueFrom: {secretKeyRef: {name: {{ $secret | quote }}, key: password}}
{{- end }}
{{- end }}
{{- define "mc.spread" -}}
{{- range $key := list "topology.kubernetes.io/zone" "kubernetes.io/hostname" }}
- maxSkew: 1
  topologyKey: {{ $key }}
  whenUnsatisfiable: ScheduleAnyway
  labelSelector:
    matchLabels:
      {{- include "mc.component.selector" $ | nindent 6 }}
  matchLabelKeys: [pod-template-hash]
{{- end }}
{{- end }}
{{- define "mc.pod" -}}
{{- $root := .root }}{{ $v := .values }}{{ $component := .component -}}
metadata:
  labels:
    {{- include "mc.labels" $root | nindent 4 }}
    app.kubernetes.io/component: {{ $component | quote }}
  annotations:
    checksum/config: {{ include (printf "mc.config.%s" .config) $root | sha256sum | quote }}
    {{- with $v.podAnnotations }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
spec:
  automountServiceAccountToken: false
  enableServiceLinks: false
  securityContext:
    {{- include "mc.pod.security" $root | nindent 4 }}
  terminationGracePeriodSeconds: {{ .grace }}
  {{- with $root.Values.image.pullSecrets }}
  imagePullSecrets:
    {{- range . }}
    - name: {{ . | quote }}
    {{- end }}
  {{- end }}
  {{- with $v.priorityClassName }}
  priorityClassName: {{ . | quote }}
  {{- end }}
  {{- with $v.nodeSelector }}
  nodeSelector:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with $v.tolerations }}
  tolerations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with $v.affinity }}
  affinity:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- if ne $component "bus" }}
  topologySpreadConstraints:
    {{- if $v.topologySpreadConstraints }}
    {{- toYaml $v.topologySpreadConstraints | nindent 4 }}
    {{- else }}
    {{- include "mc.spread" (dict "root" $root "component" $component) | nindent 4 }}
    {{- end }}
  {{- end }}
  containers:
    - name: {{ $component | quote }}
      image: {{ include "mc.image" $root | quote }}
      imagePullPolicy: {{ $root.Values.image.pullPolicy }}
      args: [{{ $component | quote }}, "--config", "/etc/message-center/config/config.toml"]
      securityContext:
        {{- include "mc.container.security" $root | nindent 8 }}
      ports:
        {{- range .ports }}
        - name: {{ .name | quote }}
          containerPort: {{ .port }}
        {{- end }}
        - name: admin
          containerPort: {{ .admin }}
      env:
        - {name: MC_LOG__FORMAT, value: {{ $root.Values.log.format | quote }}}
        {{- include "mc.bus.env" $root | nindent 8 }}
        {{- if $root.Values.otlp.endpoint }}
        - name: OTEL_EXPORTER_OTLP_ENDPOINT
          value: {{ $root.Values.otlp.endpoint | quote }}
        {{- end }}
        {{- if eq $component "auth-adapter" }}
        {{- range $v.headers.names }}
        - name: {{ printf "MC_AUTH_ADAPTER__HEADERS__%s" (upper .) | quote }}
          valueFrom: {secretKeyRef: {name: {{ $v.headers.existingSecret | quote }}, key: {{ . | quote }}}}
        {{- end }}
        {{- with $v.jwt.existingSecret }}
        - name: MC_AUTH_ADAPTER__JWT__SECRET
          valueFrom: {secretKeyRef: {name: {{ . | quote }}, key: secret}}
        {{- end }}
        {{- end }}
        {{- with $v.extraEnv }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
      startupProbe:
        httpGet: {path: /livez, port: admin}
        periodSeconds: 2
        failureThreshold: {{ ternary 150 30 (eq $component "bus") }}
      livenessProbe:
        httpGet: {path: /livez, port: admin}
        periodSeconds: 10
        timeoutSeconds: 5
        failureThreshold: 3
      readinessProbe:
        httpGet: {path: /readyz, port: admin}
        periodSeconds: 2
        timeoutSeconds: 2
        failureThreshold: 1
      {{- if $v.preStopSeconds }}
      lifecycle:
        preStop:
          sleep: {seconds: {{ int $v.preStopSeconds }}}
      {{- end }}
      resources:
        {{- toYaml $v.resources | nindent 8 }}
      volumeMounts:
        - {name: config, mountPath: /etc/message-center/config, readOnly: true}
        {{- range $name, $secret := .secrets }}{{ if $secret }}
        - {name: {{ $name }}, mountPath: /etc/message-center/{{ $name }}, readOnly: true}
        {{- end }}{{ end }}
        {{- if eq $component "bus" }}
        - {name: data, mountPath: /data}
        {{- end }}
        {{- with $v.extraVolumeMounts }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
    {{- with $v.extraContainers }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  volumes:
    - name: config
      configMap:
        name: {{ printf "%s-%s" (include "mc.fullname" $root) $component | quote }}
    {{- range $name, $secret := .secrets }}{{ if $secret }}
    - name: {{ $name }}
      secret:
        secretName: {{ $secret | quote }}
        defaultMode: 0440
        {{- /* The plain key of the same Secret is for back ends, and no business of the pods. */}}
        {{- if eq $name "keys" }}
        items: [{key: keys.toml, path: keys.toml}]
        {{- end }}
    {{- end }}{{ end }}
    {{- if and (eq $component "bus") $root.Values.bus.ephemeral }}
    - name: data
      emptyDir: {}
    {{- end }}
    {{- with $v.extraVolumes }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
{{- end }}
{{/* A Deployment with its ConfigMap and PodDisruptionBudget; the same keys as for mc.pod. */}}
{{- define "mc.deployment" -}}
{{- $root := .root }}{{ $v := .values -}}
apiVersion: v1
kind: ConfigMap
metadata:
  {{- include "mc.meta" . | nindent 2 }}
data:
  config.toml: |
    {{- include (printf "mc.config.%s" .config) $root | nindent 4 }}
---
apiVersion: apps/v1
kind: Deployment
metadata:
  {{- include "mc.meta" . | nindent 2 }}
spec:
  replicas: {{ include "mc.replicas" . }}
  minReadySeconds: {{ int $v.minReadySeconds }}
  revisionHistoryLimit: 5
  strategy:
    type: RollingUpdate
    rollingUpdate: {maxSurge: 1, maxUnavailable: 0}
  selector:
    matchLabels:
      {{- include "mc.component.selector" . | nindent 6 }}
  template:
    {{- include "mc.pod" (merge (dict "grace" (include "mc.grace" .)) .) | nindent 4 }}
{{- if $v.pdb.enabled }}
---
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata:
  {{- include "mc.meta" . | nindent 2 }}
spec:
  maxUnavailable: {{ $v.pdb.maxUnavailable }}
  unhealthyPodEvictionPolicy: AlwaysAllow
  selector:
    matchLabels:
      {{- include "mc.component.selector" . | nindent 6 }}
{{- end }}
{{- end }}
