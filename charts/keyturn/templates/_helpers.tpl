{{- define "keyturn.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" }}
{{- end }}

{{- define "keyturn.fullname" -}}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 50 | trimSuffix "-" }}
{{- else }}
{{- $name := include "keyturn.name" . }}
{{- if contains $name .Release.Name }}
{{- .Release.Name | trunc 50 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name $name | trunc 50 | trimSuffix "-" }}
{{- end }}
{{- end }}
{{- end }}

{{- define "keyturn.selectorLabels" -}}
app.kubernetes.io/name: {{ include "keyturn.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: controller
{{- end }}

{{- define "keyturn.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
app.kubernetes.io/name: {{ include "keyturn.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/part-of: keyturn
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "keyturn.serviceAccountName" -}}
{{- if .Values.serviceAccount.create }}
{{- default (include "keyturn.fullname" .) .Values.serviceAccount.name }}
{{- else }}
{{- default "default" .Values.serviceAccount.name }}
{{- end }}
{{- end }}

{{- define "keyturn.image" -}}
{{- if not .Values.image.repository }}
{{- fail "image.repository is not set. keyturn has no public image yet: build it (docker build --tag registry.example.com/keyturn:VERSION . in the checkout), push it to your registry, and name it, such as registry.example.com/keyturn" }}
{{- end }}
{{- if .Values.image.digest -}}
{{ .Values.image.repository }}@{{ .Values.image.digest }}
{{- else -}}
{{ .Values.image.repository }}:{{ default .Chart.AppVersion .Values.image.tag }}
{{- end }}
{{- end }}

{{/* Without a region the controller would start, find none and end, again and again. */}}
{{- define "keyturn.requireRegion" -}}
{{- $given := .Values.aws.region }}
{{- range .Values.env }}
{{- if has .name (list "AWS_REGION" "KEYTURN_AWS_REGION") }}
{{- $given = true }}
{{- end }}
{{- end }}
{{- if not $given }}
{{- fail "aws.region is not set. ManagedSecrets that name no region need one: set aws.region, such as us-east-1, or AWS_REGION in env" }}
{{- end }}
{{- end }}

{{/* Values of secrets, tokens and messages go to these addresses. */}}
{{- define "keyturn.requireHttps" -}}
{{- $addresses := dict "cloudflare.apiUrl" .Values.cloudflare.apiUrl "cloudflare.s3Endpoint" .Values.cloudflare.s3Endpoint "aws.endpointUrlSsm" .Values.aws.endpointUrlSsm "aws.endpointUrlCloudtrail" .Values.aws.endpointUrlCloudtrail }}
{{- range $value, $address := $addresses }}
{{- if and (hasPrefix "http://" $address) (not $.Values.allowHttp) }}
{{- fail (printf "%s: %s would expose secrets to everybody on the network path: use https, or set allowHttp where that is harmless, such as with an emulator" $value $address) }}
{{- end }}
{{- end }}
{{- end }}

{{/* The controller would refuse them when it starts. The forms are those of SecretIncident.spec.expectedReaders. */}}
{{- define "keyturn.requireReaders" -}}
{{- range .Values.incidents.expectedReaders }}
{{- if not (or .principal .networks) }}
{{- fail "incidents.expectedReaders: an item names nobody: set principal (who may read), networks (from where), or both; if both are set, a call must match both" }}
{{- end }}
{{- with .principal }}
{{- if not (regexMatch "^arn:([a-z-]*[*][A-Za-z0-9:/_+=,.@*-]*|aws[a-z-]*:([a-z]*[*][A-Za-z0-9:/_+=,.@*-]*|iam:([*][A-Za-z0-9:/_+=,.@*-]*|:([0-9]*[*][A-Za-z0-9:/_+=,.@*-]*|[0-9]{12}:(root|[a-z]*[*][A-Za-z0-9/_+=,.@*-]*|(role|user)(/[A-Za-z0-9_+=,.@*-]+)+)))|sts:([*][A-Za-z0-9:/_+=,.@*-]*|:([0-9]*[*][A-Za-z0-9:/_+=,.@*-]*|[0-9]{12}:([a-z-]*[*][A-Za-z0-9/_+=,.@*-]*|assumed-role(/[A-Za-z0-9_+=,.@*-]+){1,2}|federated-user/[A-Za-z0-9_+=,.@*-]+)))))$" .) }}
{{- fail (printf "incidents.expectedReaders: %q names no reader: give the ARN of a role, a user or sessions, in which * stands for any text (arn:aws:iam::123456789012:role/keyturn*, arn:aws:sts::123456789012:assumed-role/keyturn/*)" .) }}
{{- end }}
{{- end }}
{{- range .networks }}
{{- $v4 := regexMatch "^(25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])([.](25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])){3}(/(3[0-2]|[12]?[0-9]))?$" . }}
{{- $v6 := regexMatch "^[0-9A-Fa-f]*:[0-9A-Fa-f:.]*(/(12[0-8]|1[01][0-9]|[1-9]?[0-9]))?$" . }}
{{- if not (or $v4 $v6) }}
{{- fail (printf "incidents.expectedReaders: %q is not an address or network (192.0.2.7, 10.0.0.0/8, 2001:db8::/32)" .) }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}

{{/* What PodSecurity's restricted profile asks of a container, and a root file system that cannot be written. */}}
{{- define "keyturn.containerSecurityContext" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end }}

{{- define "keyturn.podSecurityContext" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
seccompProfile: {type: RuntimeDefault}
{{- end }}

{{- define "keyturn.namespaceRoleName" -}}
{{ include "keyturn.fullname" . }}-namespace
{{- end }}

{{/* Namespaces that the controller works in, as far as the chart knows them: a JSON list. */}}
{{- define "keyturn.namespaces" -}}
{{- if and .Values.watchNamespaces (or .Values.rbac.namespaces .Values.rbac.clusterWide) }}
{{- fail "watchNamespaces lists the namespaces in which the controller works, and it gets rights only there: leave out rbac.namespaces and rbac.clusterWide" }}
{{- end }}
{{- $names := .Values.watchNamespaces }}
{{- if not $names }}
{{- $names = .Values.rbac.namespaces }}
{{- range .Values.grants }}
{{- $names = concat $names .namespaces }}
{{- end }}
{{- end }}
{{- $names | uniq | sortAlpha | toJson }}
{{- end }}

{{/* Reads keyturn's own kinds, writes their status, and takes its finalizer on and off, which is metadata of the object
itself: an admission policy keeps it from anything else in it. */}}
{{- define "keyturn.ownKindsRules" -}}
- apiGroups: [keyturn.dev]
  resources: [managedsecrets, dockerhosts, secretincidents]
  verbs: [get, list, watch]
- apiGroups: [keyturn.dev]
  resources: [managedsecrets/status, dockerhosts/status, secretincidents/status]
  verbs: [update]
- apiGroups: [keyturn.dev]
  resources: [managedsecrets]
  verbs: [patch]
{{- end }}

{{/* Rights in a namespace that the controller works in. It creates a Secret for each deploy Job, which goes with the
Job, and reads those that objects name. */}}
{{- define "keyturn.namespaceRules" -}}
- apiGroups: [batch]
  resources: [jobs]
  verbs: [create, get, list, watch, patch, delete]
# To let a Job own its Secret where the cluster polices who may block an owner's deletion.
- apiGroups: [batch]
  resources: [jobs/finalizers]
  verbs: [update]
- apiGroups: [""]
  resources: [pods]
  verbs: [list]
- apiGroups: [""]
  resources: [secrets]
  # Of the user's Secrets those that an object names are read, one by one, and only where their label keyturn.dev/usable-by
  # allows it: administrators of Postgres, tokens of Cloudflare, and the SSH key of a docker host that a server is reached
  # through. Of the keys that Jobs mount the labels are read. They are never listed or watched.
  # What is deleted is the Secret of a deploy Job that is over.
  verbs: [create, get, delete]
# Why a pod does not come up is said in Events only.
- apiGroups: [""]
  resources: [events]
  verbs: [list]
- apiGroups: [events.k8s.io]
  resources: [events]
  verbs: [create, patch]
{{- end }}

{{/* Labels of deploy Jobs and of their pods, as the controller sets them. */}}
{{- define "keyturn.deployJobLabels" -}}
app.kubernetes.io/managed-by: keyturn
app.kubernetes.io/component: deploy-host
{{- end }}

{{/* The name of the controller's account in requests to the API server. */}}
{{- define "keyturn.username" -}}
system:serviceaccount:{{ .Release.Namespace }}:{{ include "keyturn.serviceAccountName" . }}
{{- end }}

{{/* 5353 is where OpenShift's DNS listens behind its Service. */}}
{{- define "keyturn.egressToDns" -}}
- ports:
  - {port: 53, protocol: UDP}
  - {port: 53, protocol: TCP}
  - {port: 5353, protocol: UDP}
  - {port: 5353, protocol: TCP}
{{- end }}

{{- define "keyturn.ofTheController" -}}
- {name: of-the-controller, expression: {{ printf "request.userInfo.username == '%s'" (include "keyturn.username" .) | quote }}}
{{- end }}
