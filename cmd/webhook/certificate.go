package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"

	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/client-go/rest"
	"k8s.io/utils/clock"

	"github.com/airflow-requeue/airflow-requeue/internal/httpserve"
	"github.com/airflow-requeue/airflow-requeue/internal/selfsigned"
)

// Where the certificate's files are, unless flags say so or there are none.
const (
	defaultTLSCert = "/etc/airflow-requeue/tls/tls.crt"
	defaultTLSKey  = "/etc/airflow-requeue/tls/tls.key"
)

// certificate is what is served by: from files, or self-signed.
type certificate interface {
	Run(ctx context.Context) error
	Config() *tls.Config
	Ready() error
}

func newCertificate(o *options, config *rest.Config, log *slog.Logger) (certificate, error) {
	if o.selfSigned == "" {
		return httpserve.NewCertificate(o.tlsCert, o.tlsKey, log), nil
	}
	return selfsigned.New(selfsigned.Options{
		Namespace:     o.ownNamespace,
		Secret:        o.selfSigned,
		Service:       o.serviceName,
		Configuration: o.injectInto,
		Config:        config,
		Log:           log,
		Clock:         clock.RealClock{},
	})
}

// validateCertificate says what of the certificate's flags does not go together.
func (o *options) validateCertificate() error {
	if o.selfSigned == "" {
		if o.injectInto != "" {
			return errors.New("--inject-ca-into goes with --self-signed-secret: whoever brings the certificate's files brings their authority")
		}
		return nil
	}
	var errs []error
	if o.tlsCert != defaultTLSCert || o.tlsKey != defaultTLSKey {
		errs = append(errs, errors.New("--self-signed-secret and --tls-cert-file or --tls-private-key-file: give one or the other"))
	}
	if o.ownNamespace == "" {
		errs = append(errs, errors.New("--self-signed-secret: the namespace of Secret and Service is unknown: set POD_NAMESPACE"))
	}
	if len(validation.IsDNS1035Label(o.serviceName)) > 0 {
		errs = append(errs, fmt.Errorf("--service-name=%s: give the name of a Service", o.serviceName))
	}
	return errors.Join(errs...)
}
