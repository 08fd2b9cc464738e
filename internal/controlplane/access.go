package controlplane

import (
	"fmt"
	"strings"

	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/tools/clientcmd/api"
	"sigs.k8s.io/controller-runtime/pkg/envtest"
)

// Clients are not to be slowed by their own limiter: tests make more requests than client-go's 5 a second.
const (
	requestsPerSecond = 1000
	requestBurst      = 2000
)

// Config returns access as an administrator whom RBAC does not bind. Each call gives a copy.
func (c *ControlPlane) Config() *rest.Config {
	return rest.CopyConfig(c.admin)
}

// User returns access as the named user, by client certificate. A service account's name, such as
// system:serviceaccount:airflow:scheduler, brings the groups that its token would have.
func (c *ControlPlane) User(name string, groups ...string) (*rest.Config, error) {
	c.users.Lock()
	defer c.users.Unlock()
	base := &rest.Config{QPS: requestsPerSecond, Burst: requestBurst}
	user, err := c.servers.AddUser(envtest.User{Name: name, Groups: append(impliedGroups(name), groups...)}, base)
	if err != nil {
		return nil, fmt.Errorf("adding user %s: %w", name, err)
	}
	return user.Config(), nil
}

// impliedGroups are a service account's groups, which the API server takes from its token alone.
func impliedGroups(user string) []string {
	account, ok := strings.CutPrefix(user, "system:serviceaccount:")
	namespace, _, named := strings.Cut(account, ":")
	if !ok || !named {
		return nil
	}
	return []string{"system:serviceaccounts", "system:serviceaccounts:" + namespace}
}

// Kubeconfig writes cfg as the content of a kubeconfig file, for processes other than this one.
func (c *ControlPlane) Kubeconfig(cfg *rest.Config) ([]byte, error) {
	const name = "airflow-requeue"
	kubeconfig := api.Config{
		Clusters:       map[string]*api.Cluster{name: {Server: cfg.Host, CertificateAuthorityData: cfg.CAData}},
		AuthInfos:      map[string]*api.AuthInfo{name: {ClientCertificateData: cfg.CertData, ClientKeyData: cfg.KeyData, Token: cfg.BearerToken}},
		Contexts:       map[string]*api.Context{name: {Cluster: name, AuthInfo: name}},
		CurrentContext: name,
	}
	content, err := clientcmd.Write(kubeconfig)
	if err != nil {
		return nil, fmt.Errorf("writing a kubeconfig: %w", err)
	}
	return content, nil
}
