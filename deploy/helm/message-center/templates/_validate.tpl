{{/* What no schema can say: faults between keys, all of them at once, each with what to do. */}}
{{- define "mc.validate" -}}
{{- $faults := list -}}
{{- $parts := dict "edge" .Values.edge "publisherApi" .Values.publisherApi "authAdapter" .Values.authAdapter -}}
{{- range $name, $v := $parts -}}
{{- $need := add $v.preStopSeconds $v.drainSeconds 5 -}}
{{- if and (not (kindIs "invalid" $v.terminationGracePeriodSeconds)) (lt (int $v.terminationGracePeriodSeconds) (int $need)) -}}
{{- $faults = append $faults (printf "%s.terminationGracePeriodSeconds is %d, but preStopSeconds and drainSeconds with 5 s to spare need %d: raise it, or leave it out" $name (int $v.terminationGracePeriodSeconds) (int $need)) -}}
{{- end -}}
{{- if and (ne $v.autoscaling.mode "off") (lt (int $v.autoscaling.maxReplicas) (int $v.autoscaling.minReplicas)) -}}
{{- $faults = append $faults (printf "%s.autoscaling.maxReplicas is below minReplicas: raise the one or lower the other" $name) -}}
{{- end -}}
{{- if hasKey $v "ingress" -}}
{{- if and $v.ingress.enabled (not $v.ingress.host) -}}
{{- $faults = append $faults (printf "%s.ingress.enabled needs a host: set %s.ingress.host" $name $name) -}}
{{- end -}}
{{- if and $v.httpRoute.enabled (not $v.httpRoute.parentRefs) -}}
{{- $faults = append $faults (printf "%s.httpRoute.enabled needs a Gateway: set %s.httpRoute.parentRefs" $name $name) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- if not .Values.authAdapter.url -}}
{{- $faults = append $faults "authAdapter.url is empty: set it to where your business system checks tokens, e.g. https://shop.example.com/websocket_auth" -}}
{{- end -}}
{{- if and (eq .Values.bus.mode "external") (not .Values.bus.external.url) -}}
{{- $faults = append $faults "bus.mode is external, but bus.external.url is empty: set it, e.g. to nats://nats.nats:4222" -}}
{{- end -}}
{{- if and (eq .Values.bus.mode "external") .Values.bus.ephemeral -}}
{{- $faults = append $faults "bus.ephemeral is about the embedded bus: leave it out with bus.mode external" -}}
{{- end -}}
{{- if and (eq .Values.bus.mode "embedded") .Values.bus.external.url -}}
{{- $faults = append $faults "bus.external.url is set, but bus.mode is embedded: set bus.mode to external, or leave the url out" -}}
{{- end -}}
{{- if and (eq .Values.edge.autoscaling.mode "keda") (not .Values.edge.autoscaling.keda.prometheusUrl) -}}
{{- $faults = append $faults "edge.autoscaling.mode is keda, which asks Prometheus: set edge.autoscaling.keda.prometheusUrl" -}}
{{- end -}}
{{- if and .Values.edge.ingress.enabled .Values.publisherApi.ingress.enabled (eq .Values.edge.ingress.host .Values.publisherApi.ingress.host) -}}
{{- $faults = append $faults "edge.ingress.host and publisherApi.ingress.host are the same: give publishing a host of its own" -}}
{{- end -}}
{{- if and .Values.authAdapter.headers.names (not .Values.authAdapter.headers.existingSecret) -}}
{{- $faults = append $faults "authAdapter.headers.names are keys of a Secret: set authAdapter.headers.existingSecret" -}}
{{- end -}}
{{- if and .Values.test.enabled .Values.publisherApi.keys.existingSecret (not .Values.test.existingSecret) -}}
{{- $faults = append $faults "publisherApi.keys.existingSecret holds no secret that helm test could use: set test.existingSecret, or test.enabled to false" -}}
{{- end -}}
{{- if and .Values.test.enabled (or .Values.edge.tls.existingSecret .Values.publisherApi.tls.existingSecret) -}}
{{- $faults = append $faults "helm test speaks plain text, but edge.tls or publisherApi.tls is set: set test.enabled to false" -}}
{{- end -}}
{{- if $faults -}}{{- fail (printf "\n  %s" (join "\n  " $faults)) -}}{{- end -}}
{{- end }}
