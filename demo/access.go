package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	utilyaml "k8s.io/apimachinery/pkg/util/yaml"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/scheme"
)

const (
	namespace = "airflow"
	account   = "system:serviceaccount:" + namespace + ":"
	// The users, as the manifests and Airflow's Helm chart name them.
	airflowUser = account + "airflow-scheduler"
	watcherUser = account + "airflow-requeue-watcher"
	webhookUser = account + "airflow-requeue-webhook"
)

// install applies what of the project's manifests a cluster without deployments can have: the rights of watcher and
// webhook, and last the webhook's registration, with the address and the authority of the webhook that runs here.
func install(ctx context.Context, client kubernetes.Interface, root, webhookURL string, authority []byte) error {
	if _, err := client.CoreV1().Namespaces().Create(ctx,
		&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: namespace}}, metav1.CreateOptions{}); err != nil {
		return fmt.Errorf("creating namespace %s: %w", namespace, err)
	}
	if err := grantAirflow(ctx, client); err != nil {
		return err
	}
	for _, file := range []string{"watcher-rights.yaml", "webhook-rights.yaml", "webhook-configuration.yaml"} {
		objects, err := manifest(filepath.Join(root, "manifests", "base", file))
		if err != nil {
			return err
		}
		for _, object := range objects {
			if configuration, ok := object.(*admissionv1.MutatingWebhookConfiguration); ok {
				for i := range configuration.Webhooks {
					configuration.Webhooks[i].ClientConfig = admissionv1.WebhookClientConfig{URL: &webhookURL, CABundle: authority}
				}
			}
			if err := create(ctx, client, object); err != nil {
				return fmt.Errorf("applying %s: %w", file, err)
			}
		}
	}
	return nil
}

// grantAirflow gives Airflow's account the rights that its Helm chart gives it.
func grantAirflow(ctx context.Context, client kubernetes.Interface) error {
	meta := metav1.ObjectMeta{Name: "airflow-pod-launcher-role"}
	for _, object := range []runtime.Object{
		&rbacv1.Role{ObjectMeta: meta, Rules: []rbacv1.PolicyRule{{
			APIGroups: []string{""}, Resources: []string{"pods"},
			Verbs: []string{"create", "list", "get", "patch", "watch", "delete"},
		}}},
		&rbacv1.RoleBinding{ObjectMeta: meta,
			RoleRef:  rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: meta.Name},
			Subjects: []rbacv1.Subject{{Kind: rbacv1.ServiceAccountKind, Name: strings.TrimPrefix(airflowUser, account)}},
		},
	} {
		if err := create(ctx, client, object); err != nil {
			return fmt.Errorf("granting Airflow its rights: %w", err)
		}
	}
	return nil
}

// manifest reads the objects of a file.
func manifest(path string) ([]runtime.Object, error) {
	content, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("reading a manifest: %w", err)
	}
	var objects []runtime.Object
	documents := utilyaml.NewDocumentDecoder(io.NopCloser(bytes.NewReader(content)))
	defer documents.Close()
	buffer := make([]byte, len(content)+1)
	for {
		n, err := documents.Read(buffer)
		if errors.Is(err, io.EOF) {
			return objects, nil
		}
		if err != nil {
			return nil, fmt.Errorf("reading %s: %w", path, err)
		}
		object, _, err := scheme.Codecs.UniversalDeserializer().Decode(buffer[:n], nil, nil)
		if err != nil {
			return nil, fmt.Errorf("reading %s: %w", path, err)
		}
		objects = append(objects, object)
	}
}

// create creates an object of a manifest in the namespace, which kustomize would fill in.
func create(ctx context.Context, client kubernetes.Interface, object runtime.Object) error {
	subjects := func(of []rbacv1.Subject) {
		for i := range of {
			of[i].Namespace = namespace
		}
	}
	var err error
	switch o := object.(type) {
	case *rbacv1.Role:
		_, err = client.RbacV1().Roles(namespace).Create(ctx, o, metav1.CreateOptions{})
	case *rbacv1.RoleBinding:
		subjects(o.Subjects)
		_, err = client.RbacV1().RoleBindings(namespace).Create(ctx, o, metav1.CreateOptions{})
	case *rbacv1.ClusterRole:
		_, err = client.RbacV1().ClusterRoles().Create(ctx, o, metav1.CreateOptions{})
	case *rbacv1.ClusterRoleBinding:
		subjects(o.Subjects)
		_, err = client.RbacV1().ClusterRoleBindings().Create(ctx, o, metav1.CreateOptions{})
	case *admissionv1.MutatingWebhookConfiguration:
		_, err = client.AdmissionregistrationV1().MutatingWebhookConfigurations().Create(ctx, o, metav1.CreateOptions{})
	default:
		err = fmt.Errorf("a %T is not expected there", object)
	}
	return err
}
