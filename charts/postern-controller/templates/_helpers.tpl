{{- define "postern.parts" -}}
{{- $parts := list -}}
{{- if .Values.pullSecrets }}{{ $parts = append $parts "pull-secrets" }}{{ end -}}
{{- if .Values.restartStuck }}{{ $parts = append $parts "restart-stuck" }}{{ end -}}
{{- if .Values.volumes }}{{ $parts = append $parts "volumes" }}{{ end -}}
{{- if not $parts }}{{ fail "switch on pullSecrets or volumes" }}{{ end -}}
{{- if and .Values.restartStuck (not .Values.pullSecrets) }}{{ fail "restartStuck needs pullSecrets" }}{{ end -}}
{{- join "," $parts -}}
{{- end -}}
