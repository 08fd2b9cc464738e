{{/* Labels of an object, given the root and its component. */}}
{{- define "airflow-requeue.labels" -}}
{{ include "airflow-requeue.selector" . }}
app.kubernetes.io/part-of: airflow-requeue
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ .root.Chart.Name }}-{{ .root.Chart.Version | replace "+" "_" }}
{{- end }}

{{/* Labels that select a component's pods. */}}
{{- define "airflow-requeue.selector" -}}
app.kubernetes.io/name: airflow-requeue
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end }}

{{- define "airflow-requeue.image" -}}
{{ get .root.Values.images .name }}:{{ .root.Values.images.tag | default .root.Chart.AppVersion }}
{{- end }}

{{/* The namespaces of worker pods, as JSON. */}}
{{- define "airflow-requeue.namespaces" -}}
{{ .Values.airflow.workerNamespaces | default (list .Release.Namespace) | uniq | toJson }}
{{- end }}

{{- define "airflow-requeue.namespaceSelector" -}}
{{- $namespaces := include "airflow-requeue.namespaces" . | fromJsonArray }}
{{- if eq (len $namespaces) 1 -}}
matchLabels:
  kubernetes.io/metadata.name: {{ first $namespaces }}
{{- else -}}
matchExpressions:
  - key: kubernetes.io/metadata.name
    operator: In
    values: {{ toJson $namespaces }}
{{- end }}
{{- end }}

{{/* Flags of both programs that say whose pods are theirs. */}}
{{- define "airflow-requeue.scope" -}}
- --installation=$(INSTALLATION)
{{- range .Values.airflow.workerNamespaces | uniq }}
- --namespace={{ . }}
{{- else }}
- --namespace=$(POD_NAMESPACE)
{{- end }}
{{- end }}

{{/* The policy, which both programs must be given alike. */}}
{{- define "airflow-requeue.policy" -}}
{{- range $name, $value := .Values.policy }}
{{- if not (kindIs "invalid" $value) }}
- --{{ kebabcase $name }}={{ if kindIs "slice" $value }}{{ join "," $value }}{{ else }}{{ $value }}{{ end }}
{{- end }}
{{- end }}
{{- end }}

{{- define "airflow-requeue.env" -}}
- name: POD_NAMESPACE
  valueFrom:
    fieldRef:
      fieldPath: metadata.namespace
- name: INSTALLATION
  valueFrom:
    fieldRef:
      fieldPath: metadata.labels['app.kubernetes.io/instance']
{{- end }}

{{- define "airflow-requeue.keysSecret" -}}
{{ .Values.signingKeys.secret | default "airflow-requeue-signing-keys" }}
{{- end }}

{{/* What all our pods have in common. */}}
{{- define "airflow-requeue.pod" -}}
automountServiceAccountToken: true
enableServiceLinks: false
{{- with .Values.images.pullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . }}
  {{- end }}
{{- end }}
{{- with .Values.priorityClass.name | default (ternary .Release.Name "" .Values.priorityClass.create) }}
priorityClassName: {{ . }}
{{- end }}
{{- end }}

{{- define "airflow-requeue.nobody" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
{{- end }}

{{- define "airflow-requeue.confined" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end }}

{{/* Where a Deployment's pods run, given the root, the component and its values. */}}
{{- define "airflow-requeue.placement" -}}
{{- $selector := include "airflow-requeue.selector" . }}
{{- if kindIs "invalid" .values.topologySpreadConstraints }}
topologySpreadConstraints: # preferences: on a cluster of one node both replicas still start
  {{- range list "kubernetes.io/hostname" "topology.kubernetes.io/zone" }}
  - topologyKey: {{ . }}
    maxSkew: 1
    whenUnsatisfiable: ScheduleAnyway
    matchLabelKeys: [pod-template-hash]
    labelSelector:
      matchLabels:
        {{- $selector | nindent 8 }}
  {{- end }}
{{- else }}
{{- with .values.topologySpreadConstraints }}
topologySpreadConstraints:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}
{{- with .values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .values.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .values.affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{- define "airflow-requeue.probes" -}}
livenessProbe:
  httpGet:
    path: /livez
    port: metrics
  periodSeconds: 10
  timeoutSeconds: 3
readinessProbe:
  httpGet:
    path: /readyz
    port: metrics
  periodSeconds: 5
  timeoutSeconds: 3
{{- end }}
