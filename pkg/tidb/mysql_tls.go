package tidb

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"strings"
)

// sslMode is the option ssl_mode of mysqlclient, or what the other drivers' options come to.
func (s *mysqlServer) sslMode() string {
	on := func(name string) bool {
		switch strings.ToLower(s.options.get(name)) {
		case "true", "1", "yes", "on":
			return true
		}
		return false
	}
	mode := strings.ToUpper(s.options.get("ssl_mode"))
	switch {
	case mode != "":
		return mode
	case on("ssl_disabled"):
		return "DISABLED"
	case on("ssl_verify_identity"):
		return "VERIFY_IDENTITY"
	case on("ssl_verify_cert"):
		return "VERIFY_CA"
	case s.options.get("ssl_ca") == "" && on("ssl"):
		return "REQUIRED"
	case s.options.get("ssl_ca") == "":
		return "PREFERRED"
	case s.driver == "pymysql" && (s.options.get("ssl_check_hostname") == "" || on("ssl_check_hostname")):
		return "VERIFY_IDENTITY" // PyMySQL checks the name unless it is told not to
	default:
		return "VERIFY_CA"
	}
}

func (s *mysqlServer) tls() (config *tls.Config, plaintextToo bool, err error) {
	for _, name := range []string{"ssl_capath", "ssl_crl", "ssl_crlpath"} {
		if s.options.get(name) != "" {
			return nil, false, fmt.Errorf("%s is not supported, and leaving it out would change what is trusted; "+
				"ssl_ca takes a file", name)
		}
	}
	config = &tls.Config{ServerName: s.host}
	if file := s.options.get("ssl_ca"); file != "" {
		pem, err := os.ReadFile(file)
		if err != nil {
			return nil, false, fmt.Errorf("reading the file of ssl_ca: %w", innermost(err))
		}
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM(pem) {
			return nil, false, errors.New("reading the file of ssl_ca: there is no certificate in it")
		}
	}
	if file := s.options.get("ssl_cert"); file != "" {
		certificate, err := tls.LoadX509KeyPair(file, s.options.get("ssl_key"))
		if err != nil {
			return nil, false, fmt.Errorf("reading the files of ssl_cert and ssl_key: %w", innermost(err))
		}
		config.Certificates = []tls.Certificate{certificate}
	}
	switch s.sslMode() {
	case "DISABLED":
		return nil, false, nil
	case "PREFERRED":
		config.InsecureSkipVerify = true
		return config, true, nil
	case "REQUIRED":
		config.InsecureSkipVerify = true
		return config, false, nil
	case "VERIFY_CA":
		// The chain is verified, the name is not, which crypto/tls leaves to its user.
		config.InsecureSkipVerify = true
		config.VerifyConnection = func(state tls.ConnectionState) error {
			chain := x509.VerifyOptions{Roots: config.RootCAs, Intermediates: x509.NewCertPool()}
			for _, certificate := range state.PeerCertificates[1:] {
				chain.Intermediates.AddCert(certificate)
			}
			_, err := state.PeerCertificates[0].Verify(chain)
			return err
		}
		return config, false, nil
	case "VERIFY_IDENTITY":
		return config, false, nil
	default:
		return nil, false, errors.New("ssl_mode is none of DISABLED PREFERRED REQUIRED VERIFY_CA VERIFY_IDENTITY")
	}
}
