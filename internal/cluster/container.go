package cluster

import (
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
)

// Environment returns a container's variables, as processes take them, and what stands for $(NAME) in its arguments, in
// pairs. A value may use the variables before it.
func Environment(c corev1.Container, pod *corev1.Pod) (variables, pairs []string, err error) {
	for _, e := range c.Env {
		value := strings.NewReplacer(pairs...).Replace(e.Value)
		if e.ValueFrom != nil {
			if value, err = field(pod, e.ValueFrom.FieldRef.FieldPath); err != nil {
				return nil, nil, fmt.Errorf("variable %s: %w", e.Name, err)
			}
		}
		if value == "" || strings.Contains(value, "$(") {
			return nil, nil, fmt.Errorf("variable %s: its value is %q", e.Name, value)
		}
		variables, pairs = append(variables, e.Name+"="+value), append(pairs, "$("+e.Name+")", value)
	}
	return variables, pairs, nil
}

// field is the downward API.
func field(pod *corev1.Pod, path string) (string, error) {
	label, ok := strings.CutPrefix(path, "metadata.labels['")
	switch {
	case ok:
		return pod.Labels[strings.TrimSuffix(label, "']")], nil
	case path == "metadata.namespace":
		return pod.Namespace, nil
	case path == "metadata.name":
		return pod.Name, nil
	case path == "status.podIP":
		return pod.Status.PodIP, nil
	}
	return "", fmt.Errorf("no such field is played: %s", path)
}

// arguments are a container's, for a process of this machine: mounts are elsewhere, and what listens on all addresses
// listens on the pod's.
func arguments(c corev1.Container, pod *corev1.Pod, pairs []string, mounted map[string]string) []string {
	for _, m := range c.VolumeMounts {
		pairs = append(pairs, m.MountPath, mounted[m.Name])
	}
	for _, p := range c.Ports {
		pairs = append(pairs, fmt.Sprintf("=:%d", p.ContainerPort), fmt.Sprintf("=%s:%d", pod.Status.PodIP, p.ContainerPort))
	}
	replacer := strings.NewReplacer(pairs...)
	var args []string
	for _, arg := range c.Args {
		args = append(args, replacer.Replace(arg))
	}
	return args
}
