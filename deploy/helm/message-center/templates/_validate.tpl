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
{{- if and (eq $v.autoscaling.mode "hpa") $v.autoscaling.cpuPercent (not (dig "requests" "cpu" "" $v.resources)) -}}
{{- $faults = append $faults (printf "%s.autoscaling.cpuPercent is a share of the CPU request: set %s.resources.requests.cpu" $name $name) -}}
{{- end -}}
{{- if hasKey $v "ingress" -}}
{{- if and $v.ingress.enabled (not $v.ingress.host) -}}
{{- $faults = append $faults (printf "%s.ingress.enabled needs a host: set %s.ingress.host" $name $name) -}}
{{- end -}}
{{- if and $v.ingress.enabled $v.ingress.preset $v.tls.existingSecret -}}
{{- $faults = append $faults (printf "%s.tls is set, but behind a preset of %s.ingress the controller speaks plain text to pods: end TLS there (%s.ingress.tlsSecret), or leave the preset out and set your controller's annotations" $name $name $name) -}}
{{- end -}}
{{- if and $v.httpRoute.enabled (not $v.httpRoute.parentRefs) -}}
{{- $faults = append $faults (printf "%s.httpRoute.enabled needs a Gateway: set %s.httpRoute.parentRefs" $name $name) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- range $name, $v := merge (dict "bus" .Values.bus) $parts -}}
{{- $limit := include "mc.bytes" (default "0" (dig "limits" "memory" "0" $v.resources)) | int64 -}}
{{- if and $limit (gt (include "mc.bytes" (default "0" (dig "requests" "memory" "0" $v.resources)) | int64) $limit) -}}
{{- $faults = append $faults (printf "%s.resources.requests.memory is above limits.memory: raise the limit, or lower the request" $name) -}}
{{- end -}}
{{- $names := list "config" "keys" "tls" "bus-tls" "data" -}}
{{- range $v.extraVolumes -}}
{{- if has .name $names -}}{{- $faults = append $faults (printf "%s.extraVolumes: a volume %q is there already: give it another name" $name (toString .name)) -}}{{- end -}}
{{- $names = append $names .name -}}
{{- end -}}
{{- $names = list -}}
{{- range $v.extraEnv -}}
{{- /* The program reads what follows MC_ in either case. */ -}}
{{- $key := ternary (upper .name) .name (hasPrefix "MC_" .name) -}}
{{- if or (has .name $names) (hasPrefix "MC_BUS__" $key) (eq "OTEL_EXPORTER_OTLP_ENDPOINT" .name) (eq "MC_LOG__FORMAT" $key) (regexMatch "^MC_(EDGE|PUBLISHER_API|AUTH_ADAPTER)__(LISTEN|ADMIN|TLS__.*|KEYS_FILE|DRAIN_WINDOW|GRACE|MAX_SESSIONS|URL)$" $key) -}}
{{- $faults = append $faults (printf "%s.extraEnv: %s is there already, or has a value of its own (bus, otlp.endpoint, log.format, drainSeconds, maxSessions, tls, url) or a fixed one: leave it out" $name .name) -}}
{{- end -}}
{{- $names = append $names .name -}}
{{- end -}}
{{- $containers := list $name "edge" "publisher-api" "auth-adapter" -}}
{{- range $v.extraContainers -}}
{{- if has .name $containers -}}{{- $faults = append $faults (printf "%s.extraContainers: a container %q is there already: give it another name" $name (toString .name)) -}}{{- end -}}
{{- $containers = append $containers .name -}}
{{- end -}}
{{- end -}}
{{- if not (regexMatch "^[a-z]" (include "mc.fullname" .)) -}}
{{- $faults = append $faults (printf "names of Services begin with a letter, %s does not: set fullnameOverride" (include "mc.fullname" .)) -}}
{{- end -}}
{{- $e := .Values.edge -}}
{{- $ready := div (mul (int $e.maxSessions) (default 90 $e.config.watermark | int)) 100 -}}
{{- if and (ne $e.autoscaling.mode "off") (gt (int $e.maxSessions) 0) (gt (int $e.autoscaling.sessionsPerPod) (int $ready)) -}}
{{- $faults = append $faults (printf "edge.autoscaling.sessionsPerPod is %d, but from %d sessions on a pod takes no new ones: lower it, or raise edge.maxSessions" (int $e.autoscaling.sessionsPerPod) (int $ready)) -}}
{{- end -}}
{{- range $name, $v := dict "edge" $e "publisherApi" .Values.publisherApi -}}
{{- if and $v.service.loadBalancerClass (ne $v.service.type "LoadBalancer") -}}
{{- $faults = append $faults (printf "%s.service.loadBalancerClass needs %s.service.type LoadBalancer: set it, or leave the class out" $name $name) -}}
{{- end -}}
{{- end -}}
{{- $p := .Values.publisherApi -}}
{{- $exposed := or $p.ingress.enabled $p.httpRoute.enabled (ne $p.service.type "ClusterIP") -}}
{{- if and $exposed .Values.networkPolicy.enabled (eq (toJson .Values.networkPolicy.publishers) (toJson (list (dict "podSelector" (dict))))) -}}
{{- $faults = append $faults "publisherApi is exposed, but only pods of this namespace may reach it: name where its callers come from (your ingress controller's namespace) in networkPolicy.publishers" -}}
{{- end -}}
{{- if and $e.httpRoute.enabled $p.httpRoute.enabled -}}
{{- $shared := not (and $e.httpRoute.hostnames $p.httpRoute.hostnames) -}}
{{- range $e.httpRoute.hostnames }}{{ if has . $p.httpRoute.hostnames }}{{ $shared = true }}{{ end }}{{ end -}}
{{- if $shared -}}
{{- $faults = append $faults "edge.httpRoute and publisherApi.httpRoute share a host: give both hostnames, and publishing one of its own" -}}
{{- end -}}
{{- end -}}
{{- $b := .Values.bus -}}
{{- if eq $b.mode "embedded" -}}
{{- $kept := include "mc.bytes" (default "8GiB" .Values.history.max_bytes) | int64 -}}
{{- $folder := include "mc.bytes" $b.maxBytes | int64 -}}
{{- $volume := include "mc.bytes" $b.persistence.size | int64 -}}
{{- $memory := include "mc.bytes" (dig "limits" "memory" "0" $b.resources) | int64 -}}
{{- $index := include "mc.bytes" (default "2GiB" (include "mc.bus.memory" .)) | int64 -}}
{{- if and $memory (gt (mul $index 4) (mul $memory 3)) -}}
{{- $faults = append $faults (printf "bus.maxMemory (%v) leaves less than a quarter of bus.resources.limits.memory (%v) for the rest of the process: lower the one or raise the other" $b.maxMemory $b.resources.limits.memory) -}}
{{- end -}}
{{- if $b.ephemeral -}}
{{- $kept := include "mc.bytes" (default "1GiB" .Values.history.max_bytes) | int64 -}}
{{- if and $memory (ge $kept $memory) -}}
{{- $faults = append $faults (printf "bus.ephemeral keeps history in memory, but history.max_bytes (%v) is not below bus.resources.limits.memory (%v): lower the one or raise the other" (default "1GiB" .Values.history.max_bytes) $b.resources.limits.memory) -}}
{{- else if ge $kept $index -}}
{{- $faults = append $faults (printf "bus.ephemeral keeps history in memory, but history.max_bytes (%v) is not below bus.maxMemory (by default half of bus.resources.limits.memory): lower the one or raise the other" (default "1GiB" .Values.history.max_bytes)) -}}
{{- end -}}
{{- else -}}
{{- if and $folder (ge $kept $folder) -}}
{{- $faults = append $faults (printf "history.max_bytes (%v) has no room in bus.maxBytes (%v): raise bus.maxBytes and bus.persistence.size, or lower history.max_bytes" (default "8GiB" .Values.history.max_bytes) $b.maxBytes) -}}
{{- end -}}
{{- if and $volume (ge $folder $volume) -}}
{{- $faults = append $faults (printf "bus.maxBytes (%v) has no room in bus.persistence.size (%v): raise the size, or lower maxBytes" $b.maxBytes $b.persistence.size) -}}
{{- end -}}
{{- end -}}
{{- if gt (int .Values.history.replicas) 1 -}}
{{- $faults = append $faults "history.replicas is about a NATS cluster, the embedded bus keeps one copy: leave it out, or set bus.mode to external" -}}
{{- end -}}
{{- end -}}
{{- $mode := default "url" .Values.authAdapter.config.mode -}}
{{- $jwt := .Values.authAdapter.jwt -}}
{{- if and (eq $mode "jwt") .Values.authAdapter.url -}}
{{- $faults = append $faults "authAdapter.config.mode is jwt, so authAdapter.url is not asked: leave it out, or set the mode to jwt-then-url" -}}
{{- end -}}
{{- if and (eq $mode "url") (or $jwt.existingSecret $jwt.publicKeys.existingSecret) -}}
{{- $faults = append $faults "authAdapter.jwt is about JWTs: set authAdapter.config.mode to jwt or jwt-then-url" -}}
{{- end -}}
{{- if ne (empty $jwt.publicKeys.names) (empty $jwt.publicKeys.existingSecret) -}}
{{- $faults = append $faults "authAdapter.jwt.publicKeys.names are keys of a Secret: set authAdapter.jwt.publicKeys.existingSecret and names, or neither" -}}
{{- end -}}
{{- if and (not .Values.authAdapter.url) (ne $mode "jwt") -}}
{{- $faults = append $faults "authAdapter.url is empty: set it to where your business system checks tokens, e.g. https://shop.example.com/websocket_auth" -}}
{{- end -}}
{{- if and (eq .Values.bus.mode "external") (not .Values.bus.external.url) -}}
{{- $faults = append $faults "bus.mode is external, but bus.external.url is empty: set it, e.g. to nats://nats.nats:4222" -}}
{{- end -}}
{{- if eq .Values.bus.mode "external" -}}
{{- range splitList "," .Values.bus.external.url -}}
{{- $port := default "4222" (regexFind ":[0-9]+$" (trimSuffix "/" (trim .)) | trimPrefix ":") -}}
{{- if and . $.Values.networkPolicy.enabled (ne $port (toString (int $.Values.bus.external.port))) -}}
{{- $faults = append $faults (printf "bus.external.url names port %s, but the NetworkPolicy lets the parts out to bus.external.port (%d): make them the same" $port (int $.Values.bus.external.port)) -}}
{{- end -}}
{{- end -}}
{{- if and .Values.bus.external.tls.clientCertificate (not .Values.bus.external.tls.existingSecret) -}}
{{- $faults = append $faults "bus.external.tls.clientCertificate is in a Secret: set bus.external.tls.existingSecret" -}}
{{- end -}}
{{- end -}}
{{- with .Values.otlp.endpoint -}}
{{- $port := default (ternary "443" "80" (hasPrefix "https:" .)) (regexFind ":[0-9]+$" (urlParse .).host | trimPrefix ":") -}}
{{- if and $.Values.networkPolicy.enabled (ne $port (toString (int $.Values.otlp.port))) -}}
{{- $faults = append $faults (printf "otlp.endpoint is on port %s, but the NetworkPolicy lets traces out to otlp.port (%d): make them the same" $port (int $.Values.otlp.port)) -}}
{{- end -}}
{{- end -}}
{{- if gt (include "mc.url.port" (default "http://unset" .Values.authAdapter.url) | int) 65535 -}}
{{- $faults = append $faults "authAdapter.url has a port above 65535: correct it" -}}
{{- end -}}
{{- $hosts := default list .Values.publisherApi.config.allowed_hosts -}}
{{- $service := printf "%s-publisher-api" (include "mc.fullname" .) -}}
{{- if and .Values.test.enabled $hosts (not (has $service $hosts)) -}}
{{- $faults = append $faults (printf "publisherApi.config.allowed_hosts refuses the Service, which helm test asks: add %s, or set test.enabled to false" $service) -}}
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
{{- if hasKey .Values.authAdapter.config "body" -}}
{{- $faults = append $faults "authAdapter.config.body is now authAdapter.config.request.token: write json:token for json, form:token for form" -}}
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

{{/* What is allowed and seldom meant, as a JSON list for NOTES.txt. */}}
{{- define "mc.warnings" -}}
{{- $w := list -}}
{{- $b := .Values.bus -}}
{{- if and (eq $b.mode "embedded") $b.ephemeral -}}
{{- $w = append $w "bus.ephemeral is on: all history is lost when the pod of the bus restarts. For trials only." -}}
{{- else if and (eq $b.mode "embedded") (eq $b.sync "relaxed") -}}
{{- $w = append $w "bus.sync is relaxed: a power cut may take messages that were acknowledged within the last moments." -}}
{{- end -}}
{{- if and (eq $b.mode "external") (not $b.external.existingSecret) -}}
{{- $w = append $w "the NATS servers are used without credentials: whoever reaches them reads and sends everything. Set bus.external.existingSecret." -}}
{{- end -}}
{{- if not .Values.networkPolicy.enabled -}}
{{- $w = append $w "networkPolicy.enabled is off: every pod of the cluster reaches the bus and the admin ports, unless policies of your own deny it." -}}
{{- end -}}
{{- range $name, $v := dict "edge" .Values.edge "publisherApi" .Values.publisherApi "authAdapter" .Values.authAdapter -}}
{{- if and (eq $v.autoscaling.mode "off") (lt (int $v.replicas) 2) -}}
{{- $w = append $w (printf "%s has %d pod: nobody stands in when its node goes." $name (int $v.replicas)) -}}
{{- end -}}
{{- if and $v.pdb.enabled (has (toString $v.pdb.maxUnavailable) (list "0" "0%")) -}}
{{- $w = append $w (printf "%s.pdb.maxUnavailable is 0: draining a node will wait for ever." $name) -}}
{{- end -}}
{{- end -}}
{{- if and (ne .Values.publisherApi.service.type "ClusterIP") (not .Values.publisherApi.tls.existingSecret) -}}
{{- $w = append $w "publishing leaves the cluster in plain text: set publisherApi.tls.existingSecret." -}}
{{- end -}}
{{- if and (eq .Values.edge.service.type "LoadBalancer") (not .Values.edge.tls.existingSecret) -}}
{{- $w = append $w "devices reach the edges in plain text, unless your load balancer ends TLS: set edge.tls.existingSecret." -}}
{{- end -}}
{{- $e := .Values.edge -}}
{{- if and (or $e.ingress.enabled $e.httpRoute.enabled) (not $e.config.trusted_proxies) -}}
{{- $w = append $w "edge.config.trusted_proxies is empty: behind an ingress or a Gateway all devices seem to have one address and share its limits. Name the networks of your proxies." -}}
{{- end -}}
{{- toJson $w -}}
{{- end }}
