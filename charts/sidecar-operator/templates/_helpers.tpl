{{/* The name of all objects. Short enough that "-certificates" after it still makes a name. */}}
{{- define "sidecar-operator.fullname" -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 48 | trimSuffix "-" -}}
{{- else if contains $name .Release.Name -}}
{{- .Release.Name | trunc 48 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 48 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{/* What never changes, so that a Deployment can be upgraded. */}}
{{- define "sidecar-operator.selectorLabels" -}}
app.kubernetes.io/name: {{ default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "sidecar-operator.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
{{ include "sidecar-operator.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end -}}

{{- define "sidecar-operator.webhookService" -}}
{{ include "sidecar-operator.fullname" . }}-webhook
{{- end -}}

{{/* The operator's own Secret; cert-manager's has another name, so that neither writes over the other's. */}}
{{- define "sidecar-operator.certificateSecret" -}}
{{ include "sidecar-operator.fullname" . }}-certificates
{{- end -}}

{{- define "sidecar-operator.certManagerSecret" -}}
{{ include "sidecar-operator.fullname" . }}-webhook-tls
{{- end -}}

{{/* REGISTRY/REPOSITORY:TAG or REGISTRY/REPOSITORY@DIGEST of a dict with image and version. */}}
{{- define "sidecar-operator.image" -}}
{{- $name := .image.repository -}}
{{- if .image.registry -}}
{{- $name = printf "%s/%s" (trimSuffix "/" .image.registry) .image.repository -}}
{{- end -}}
{{- if .image.digest -}}
{{- printf "%s@%s" $name .image.digest -}}
{{- else -}}
{{- printf "%s:%s" $name (default .version .image.tag) -}}
{{- end -}}
{{- end -}}

{{/* Webhook and policy leave out the same namespaces and the same pods: what one lets pass, the other must not refuse. */}}
{{- define "sidecar-operator.namespaceSelector" -}}
matchExpressions:
- key: kubernetes.io/metadata.name
  operator: NotIn
  values:
  {{- concat (list "kube-system" .Release.Namespace) .Values.webhook.excludedNamespaces | uniq | toYaml | nindent 2 }}
{{- end -}}

{{/* By presence of the annotation and not by its value: an error in CEL would refuse every pod, also those without annotations. */}}
{{- define "sidecar-operator.matchConditions" -}}
- name: opted-in
  expression: >-
    'sidecar.io/inject' in object.metadata.?annotations.orValue({})
    && object.metadata.annotations['sidecar.io/inject'] != 'false'
- name: not-a-mirror-pod
  expression: >-
    !('kubernetes.io/config.mirror' in object.metadata.?annotations.orValue({}))
{{- end -}}

{{/* What the restricted Pod Security Standard asks of a pod, and of a container. */}}
{{- define "sidecar-operator.podSecurityContext" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
fsGroup: 65532
seccompProfile:
  type: RuntimeDefault
{{- end -}}

{{- define "sidecar-operator.securityContext" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop:
  - ALL
{{- end -}}

{{/* A monitoring stack may look for labels of its own. */}}
{{- define "sidecar-operator.monitoringLabels" -}}
{{ include "sidecar-operator.labels" . }}
{{- with .Values.monitoring.labels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* The seconds of a duration such as 7d. */}}
{{- define "sidecar-operator.seconds" -}}
{{- mul (atoi (regexFind "^[0-9]+" .)) (get (dict "s" 1 "m" 60 "h" 3600 "d" 86400) (regexFind "[smhd]$" .)) -}}
{{- end -}}
