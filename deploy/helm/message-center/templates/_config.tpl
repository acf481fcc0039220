{{/* TOML of a table: (dict "name" "edge" "map" {...}). JSON's texts, numbers, truths and lists are TOML's. */}}
{{- define "mc.toml" -}}
{{- $name := .name -}}
[{{ $name }}]
{{- range $key, $value := .map }}{{ if not (kindIs "map" $value) }}
{{ include "mc.toml.key" $key }} = {{ toJson $value }}
{{- end }}{{ end }}
{{ range $key, $value := .map }}{{ if kindIs "map" $value }}
{{ include "mc.toml" (dict "name" (printf "%s.%s" $name (include "mc.toml.key" $key)) "map" $value) }}
{{- end }}{{ end }}
{{- end }}
{{/* A key, in quotes if it has other characters than a bare key may have, as JSON pointers do. */}}
{{- define "mc.toml.key" -}}
{{- if regexMatch "^[A-Za-z0-9_-]+$" . }}{{ . }}{{ else }}{{ toJson . }}{{ end -}}
{{- end }}
{{- define "mc.config.bus" -}}
{{- if eq .Values.bus.mode "external" -}}
{{- $tls := .Values.bus.external.tls -}}
{{- $bus := dict "url" .Values.bus.external.url -}}
{{- if $tls.existingSecret -}}
{{- $files := dict "ca" "/etc/message-center/bus-tls/ca.crt" -}}
{{- if $tls.clientCertificate }}{{ $files = merge $files (dict "cert" "/etc/message-center/bus-tls/tls.crt" "key" "/etc/message-center/bus-tls/tls.key") }}{{ end -}}
{{- $_ := set $bus "tls" $files -}}
{{- end -}}
{{ include "mc.toml" (dict "name" "bus" "map" $bus) }}
{{- else -}}
{{ include "mc.toml" (dict "name" "bus" "map" (dict "url" (printf "nats://%s-bus:4222" (include "mc.fullname" .)))) }}
{{- end }}
{{- end }}
{{- define "mc.config.common" -}}
{{ include "mc.toml" (dict "name" "log" "map" .Values.log) }}
{{- $history := .Values.history -}}
{{- /* In memory, what is kept must fit beside the process. */ -}}
{{- if and (eq .Values.bus.mode "embedded") .Values.bus.ephemeral }}{{ $history = merge (dict) $history (dict "max_bytes" "1GiB") }}{{ end -}}
{{- with $history }}{{ include "mc.toml" (dict "name" "history" "map" .) }}{{ end }}
{{- with .Values.login }}{{ include "mc.toml" (dict "name" "login" "map" .) }}{{ end }}
{{- $channels := .Values.channels -}}
{{- if and .Values.test.enabled (not $channels) }}{{ $channels = list (dict "name" "@user" "channel" "user:{uid}" "login" true "history" true) }}{{ end -}}
{{- if .Values.test.enabled }}{{ $channels = append $channels (dict "name" "@selftest/{id}" "channel" "selftest:{id}" "login" false "history" true) }}{{ end -}}
{{- range $channels }}
{{ include "mc.toml" (dict "name" "[channels]" "map" .) }}
{{- end }}
{{- end }}
{{- define "mc.tls.files" -}}
{{- toJson (dict "cert" "/etc/message-center/tls/tls.crt" "key" "/etc/message-center/tls/tls.key") }}
{{- end }}
{{- define "mc.config.edge" -}}
{{- $v := .Values.edge -}}
{{- $own := dict "listen" "0.0.0.0:6790" "admin" "0.0.0.0:6795" "drain_window" (printf "%ds" (int $v.drainSeconds)) "max_sessions" (int $v.maxSessions) -}}
{{- if $v.tls.existingSecret }}{{ $_ := set $own "tls" (include "mc.tls.files" . | fromJson) }}{{ end -}}
{{ include "mc.toml" (dict "name" "edge" "map" (merge $own $v.config)) }}
{{ include "mc.config.bus" . }}
{{ include "mc.config.common" . }}
{{- end }}
{{- define "mc.config.publisher-api" -}}
{{- $v := .Values.publisherApi -}}
{{- $own := dict "listen" "0.0.0.0:6789" "admin" "0.0.0.0:6796" "grace" (printf "%ds" (int $v.drainSeconds)) "keys_file" "/etc/message-center/keys/keys.toml" -}}
{{- if $v.tls.existingSecret }}{{ $_ := set $own "tls" (include "mc.tls.files" . | fromJson) }}{{ end -}}
{{ include "mc.toml" (dict "name" "publisher_api" "map" (merge $own $v.config)) }}
{{ include "mc.config.bus" . }}
{{ include "mc.config.common" . }}
{{- end }}
{{- define "mc.config.auth-adapter" -}}
{{- $v := .Values.authAdapter -}}
{{- $own := dict "url" $v.url "admin" "0.0.0.0:6797" "grace" (printf "%ds" (int $v.drainSeconds)) -}}
{{- $ca := "/etc/message-center/tls/ca.crt" -}}
{{- if and $v.tls.existingSecret $v.url }}{{ $_ := set $own "tls" (dict "ca" $ca) }}{{ end -}}
{{- $jwt := dict -}}
{{- with $v.jwt.publicKeys.names }}
{{- $files := list }}{{ range . }}{{ $files = append $files (printf "/etc/message-center/jwt-keys/%s" .) }}{{ end }}
{{- $_ := set $jwt "public_keys" $files }}
{{- end -}}
{{- if and $v.tls.existingSecret (hasPrefix "https://" (dig "jwt" "jwks_url" "" $v.config)) }}{{ $_ := set $jwt "jwks_ca" $ca }}{{ end -}}
{{- with $jwt }}{{ $_ := set $own "jwt" . }}{{ end -}}
{{ include "mc.toml" (dict "name" "auth_adapter" "map" (merge $own $v.config)) }}
{{ include "mc.config.bus" . }}
{{ with .Values.login }}{{ include "mc.toml" (dict "name" "login" "map" .) }}{{ end }}
{{ include "mc.toml" (dict "name" "log" "map" .Values.log) }}
{{- end }}
{{- define "mc.config.bus-server" -}}
{{- $b := .Values.bus -}}
{{- $store := dict "path" "/data/store" "sync" (ternary "memory" $b.sync $b.ephemeral) "max_bytes" $b.maxBytes -}}
{{- with include "mc.bus.memory" . }}{{ $_ := set $store "max_memory" . }}{{ end -}}
{{ include "mc.toml" (dict "name" "bus" "map" (merge (dict "listen" "0.0.0.0:4222" "admin" "0.0.0.0:6798" "store" $store) $b.config)) }}
{{ include "mc.toml" (dict "name" "log" "map" .Values.log) }}
{{- end }}
