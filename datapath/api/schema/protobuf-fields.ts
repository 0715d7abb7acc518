/**
 * Numbers of fields in Kubernetes' protobuf messages (generated.proto of each group): the fields of each message in the
 * order of their numbers, from 1 on; `-` where a number is not used or not read. `NAME@TYPE` is a message of its own there
 * that JSON writes into the message around it.
 *
 * kubectl 1.35 sends what it makes itself (`create deployment`, `create secret`, `auth can-i`) in this form alone.
 */
export const FIELDS: Readonly<Record<string, string>> = {
  ObjectMeta:
    'name generateName namespace selfLink uid resourceVersion generation creationTimestamp deletionTimestamp ' +
    'deletionGracePeriodSeconds labels annotations ownerReferences finalizers',
  OwnerReference: 'kind - name uid apiVersion controller blockOwnerDeletion',
  LabelSelector: 'matchLabels matchExpressions',
  LabelSelectorRequirement: 'key operator values',
  DeleteOptions: 'gracePeriodSeconds preconditions orphanDependents propagationPolicy dryRun',
  Preconditions: 'uid resourceVersion',
  Eviction: 'metadata deleteOptions',
  Pod: 'metadata spec status',
  PodSpec:
    'volumes containers restartPolicy terminationGracePeriodSeconds activeDeadlineSeconds dnsPolicy ' +
    'nodeSelector serviceAccountName serviceAccount nodeName hostNetwork hostPID hostIPC securityContext ' +
    'imagePullSecrets hostname subdomain affinity schedulerName initContainers ' +
    'automountServiceAccountToken tolerations hostAliases priorityClassName priority dnsConfig ' +
    'shareProcessNamespace readinessGates runtimeClassName enableServiceLinks preemptionPolicy overhead ' +
    'topologySpreadConstraints ephemeralContainers setHostnameAsFQDN os hostUsers schedulingGates ' +
    'resourceClaims resources hostnameOverride - schedulingGroup evictionResponders',
  Volume: 'name volumeSource@VolumeSource',
  VolumeSource: 'hostPath emptyDir - - - secret - - - - - - - - - downwardAPI - - configMap - - - - - - projected',
  HostPathVolumeSource: 'path type',
  EmptyDirVolumeSource: 'medium sizeLimit mode',
  SecretVolumeSource: 'secretName items defaultMode optional defaultUser',
  KeyToPath: 'key path mode user',
  DownwardAPIVolumeSource: 'items defaultMode defaultUser',
  DownwardAPIVolumeFile: 'path fieldRef resourceFieldRef mode user',
  ObjectFieldSelector: 'apiVersion fieldPath',
  ResourceFieldSelector: 'containerName resource divisor',
  ConfigMapVolumeSource: 'localObjectReference@LocalObjectReference items defaultMode optional defaultUser',
  LocalObjectReference: 'name',
  ProjectedVolumeSource: 'sources defaultMode defaultUser',
  VolumeProjection: 'secret downwardAPI configMap serviceAccountToken clusterTrustBundle podCertificate',
  SecretProjection: 'localObjectReference@LocalObjectReference items - optional',
  DownwardAPIProjection: 'items',
  ConfigMapProjection: 'localObjectReference@LocalObjectReference items - optional',
  ServiceAccountTokenProjection: 'audience expirationSeconds path user',
  Container:
    'name image command args workingDir ports env resources volumeMounts livenessProbe readinessProbe ' +
    'lifecycle terminationMessagePath imagePullPolicy securityContext stdin stdinOnce tty envFrom ' +
    'terminationMessagePolicy volumeDevices startupProbe resizePolicy restartPolicy restartPolicyRules',
  ContainerPort: 'name hostPort containerPort protocol hostIP',
  EnvVar: 'name value valueFrom',
  EnvVarSource: 'fieldRef resourceFieldRef configMapKeyRef secretKeyRef fileKeyRef',
  ConfigMapKeySelector: 'localObjectReference@LocalObjectReference key optional',
  SecretKeySelector: 'localObjectReference@LocalObjectReference key optional',
  ResourceRequirements: 'limits requests claims',
  ResourceClaim: 'name request',
  VolumeMount: 'name readOnly mountPath subPath mountPropagation subPathExpr recursiveReadOnly bindMountOptions',
  Probe:
    'handler@ProbeHandler initialDelaySeconds timeoutSeconds periodSeconds successThreshold ' +
    'failureThreshold terminationGracePeriodSeconds',
  ProbeHandler: 'exec httpGet tcpSocket grpc',
  ExecAction: 'command',
  HTTPGetAction: 'path port host scheme httpHeaders protocol',
  HTTPHeader: 'name value',
  TCPSocketAction: 'port host',
  GRPCAction: 'port service mode',
  Lifecycle: 'postStart preStop stopSignal',
  LifecycleHandler: 'exec httpGet tcpSocket sleep',
  SleepAction: 'seconds',
  SecurityContext:
    'capabilities privileged seLinuxOptions runAsUser runAsNonRoot readOnlyRootFilesystem ' +
    'allowPrivilegeEscalation runAsGroup procMount windowsOptions seccompProfile appArmorProfile',
  Capabilities: 'add drop',
  SELinuxOptions: 'user role type level',
  SeccompProfile: 'type localhostProfile',
  AppArmorProfile: 'type localhostProfile',
  EnvFromSource: 'prefix configMapRef secretRef',
  ConfigMapEnvSource: 'localObjectReference@LocalObjectReference optional',
  SecretEnvSource: 'localObjectReference@LocalObjectReference optional',
  VolumeDevice: 'name devicePath',
  PodSecurityContext:
    'seLinuxOptions runAsUser runAsNonRoot supplementalGroups fsGroup runAsGroup sysctls windowsOptions ' +
    'fsGroupChangePolicy seccompProfile appArmorProfile supplementalGroupsPolicy seLinuxChangePolicy',
  Sysctl: 'name value',
  Affinity: 'nodeAffinity podAffinity podAntiAffinity',
  NodeAffinity: 'requiredDuringSchedulingIgnoredDuringExecution preferredDuringSchedulingIgnoredDuringExecution',
  NodeSelector: 'nodeSelectorTerms',
  NodeSelectorTerm: 'matchExpressions matchFields',
  NodeSelectorRequirement: 'key operator values',
  PreferredSchedulingTerm: 'weight preference',
  PodAffinity: 'requiredDuringSchedulingIgnoredDuringExecution preferredDuringSchedulingIgnoredDuringExecution',
  PodAffinityTerm: 'labelSelector namespaces topologyKey namespaceSelector matchLabelKeys mismatchLabelKeys',
  WeightedPodAffinityTerm: 'weight podAffinityTerm',
  PodAntiAffinity: 'requiredDuringSchedulingIgnoredDuringExecution preferredDuringSchedulingIgnoredDuringExecution',
  Toleration: 'key operator value effect tolerationSeconds',
  HostAlias: 'ip hostnames',
  PodDNSConfig: 'nameservers searches options',
  PodDNSConfigOption: 'name value',
  PodReadinessGate: 'conditionType',
  TopologySpreadConstraint:
    'maxSkew topologyKey whenUnsatisfiable labelSelector minDomains nodeAffinityPolicy nodeTaintsPolicy ' +
    'matchLabelKeys',
  EphemeralContainer: 'ephemeralContainerCommon@EphemeralContainerCommon targetContainerName',
  EphemeralContainerCommon:
    'name image command args workingDir ports env resources volumeMounts livenessProbe readinessProbe ' +
    'lifecycle terminationMessagePath imagePullPolicy securityContext stdin stdinOnce tty envFrom ' +
    'terminationMessagePolicy volumeDevices startupProbe resizePolicy restartPolicy restartPolicyRules',
  PodOS: 'name',
  PodSchedulingGate: 'name',
  Deployment: 'metadata spec status',
  DeploymentSpec:
    'replicas selector template strategy minReadySeconds revisionHistoryLimit paused - ' + 'progressDeadlineSeconds',
  PodTemplateSpec: 'metadata spec',
  DeploymentStrategy: 'type rollingUpdate',
  RollingUpdateDeployment: 'maxUnavailable maxSurge',
  ConfigMap: 'metadata data binaryData immutable',
  Secret: 'metadata data type stringData immutable',
  Service: 'metadata spec status',
  ServiceSpec:
    'ports selector clusterIP type externalIPs - sessionAffinity loadBalancerIP loadBalancerSourceRanges ' +
    'externalName externalTrafficPolicy healthCheckNodePort publishNotReadyAddresses ' +
    'sessionAffinityConfig - - ipFamilyPolicy clusterIPs ipFamilies allocateLoadBalancerNodePorts ' +
    'loadBalancerClass internalTrafficPolicy trafficDistribution',
  ServicePort: 'name protocol port targetPort nodePort appProtocol',
  SessionAffinityConfig: 'clientIP',
  ClientIPConfig: 'timeoutSeconds',
  ServiceAccount: 'metadata secrets imagePullSecrets automountServiceAccountToken',
  ObjectReference: 'kind namespace name uid apiVersion resourceVersion fieldPath',
  Namespace: 'metadata spec status',
  NamespaceSpec: 'finalizers',
  Role: 'metadata rules',
  PolicyRule: 'verbs apiGroups resources resourceNames nonResourceURLs',
  ClusterRole: 'metadata rules aggregationRule',
  AggregationRule: 'clusterRoleSelectors',
  RoleBinding: 'metadata subjects roleRef',
  Subject: 'kind apiGroup name namespace',
  RoleRef: 'apiGroup kind name',
  ClusterRoleBinding: 'metadata subjects roleRef',
};
