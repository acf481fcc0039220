{{- define "mc.service" -}}
apiVersion: v1
kind: Service
metadata:
  {{- include "mc.meta" . | nindent 2 }}
  {{- with .values.service.annotations }}
  annotations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
spec:
  type: {{ .values.service.type }}
  {{- if and (ne .values.service.type "ClusterIP") .values.service.externalTrafficPolicy }}
  externalTrafficPolicy: {{ .values.service.externalTrafficPolicy }}
  {{- end }}
  {{- if eq .values.service.type "LoadBalancer" }}
  {{- with .values.service.loadBalancerClass }}
  loadBalancerClass: {{ . | quote }}
  {{- end }}
  {{- with .values.service.loadBalancerSourceRanges }}
  loadBalancerSourceRanges:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- end }}
  selector:
    {{- include "mc.component.selector" . | nindent 4 }}
  ports:
    - name: {{ .port | quote }}
      port: {{ int .values.service.port }}
      targetPort: {{ .port | quote }}
      appProtocol: {{ .protocol }}
{{- end }}
{{/* What keeps WebSockets open behind each controller; all of them cut idle ones sooner than the 60 s of edge.silence. */}}
{{- define "mc.ingress.preset" -}}
{{- $leaving := add .preStopSeconds .drainSeconds -}}
{{- $preset := .ingress.preset -}}
{{- if eq $preset "alb" }}
alb.ingress.kubernetes.io/target-type: ip
{{- /* Its requests are for no path that there is. Pods that are not ready leave by themselves. */}}
alb.ingress.kubernetes.io/success-codes: 200-499
alb.ingress.kubernetes.io/load-balancer-attributes: idle_timeout.timeout_seconds=4000
alb.ingress.kubernetes.io/target-group-attributes: deregistration_delay.timeout_seconds={{ $leaving }}
{{- else if eq $preset "haproxy" }}
haproxy.org/timeout-tunnel: 1h
{{- else if eq $preset "nginx" }}
nginx.ingress.kubernetes.io/proxy-read-timeout: "3600"
nginx.ingress.kubernetes.io/proxy-send-timeout: "3600"
{{- else if eq $preset "traefik" }}
traefik.ingress.kubernetes.io/router.entrypoints: websecure
{{- end }}
{{- end }}
{{- define "mc.exposure" -}}
{{- $v := .values }}{{ $name := printf "%s-%s" (include "mc.fullname" .root) .component -}}
{{- if $v.ingress.enabled }}
---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata:
  {{- include "mc.meta" . | nindent 2 }}
  {{- $annotations := merge (deepCopy $v.ingress.annotations) (include "mc.ingress.preset" $v | fromYaml) }}
  {{- with $annotations }}
  annotations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
spec:
  {{- with $v.ingress.className }}
  ingressClassName: {{ . | quote }}
  {{- end }}
  {{- with $v.ingress.tlsSecret }}
  tls:
    - hosts: [{{ $v.ingress.host | quote }}]
      secretName: {{ . | quote }}
  {{- end }}
  rules:
    - host: {{ $v.ingress.host | quote }}
      http:
        paths:
          - path: /
            pathType: Prefix
            backend:
              service: {name: {{ $name | quote }}, port: {name: {{ .port | quote }}}}
{{- end }}
{{- if $v.httpRoute.enabled }}
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata:
  {{- include "mc.meta" . | nindent 2 }}
spec:
  parentRefs:
    {{- toYaml $v.httpRoute.parentRefs | nindent 4 }}
  {{- with $v.httpRoute.hostnames }}
  hostnames:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  rules:
    - backendRefs:
        - {name: {{ $name | quote }}, port: {{ int $v.service.port }}}
      {{- with $v.httpRoute.requestTimeout }}
      timeouts: {request: {{ . | quote }}}
      {{- end }}
{{- end }}
{{- end }}
