package selfsigned

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"slices"
	"time"
)

const (
	// leafLife is how long a certificate that the authority signs is good for; it is renewed at two thirds.
	leafLife = 7 * 24 * time.Hour
	// authorityLife is how long an authority is good for; it is replaced at two thirds.
	authorityLife = 365 * 24 * time.Hour
	// maxAuthorities bounds the bundle, should somebody have the authority made anew all the time. The newest stay.
	maxAuthorities = 10
)

// bundle is what the API server is to trust: the authority that is in the Secret, and of those that it trusts already all that
// some replica may still serve by. That is each of them until every certificate that was signed by an older one than the newest
// has ended: then, and not before, it is known that no replica has one, without asking any. Replicas that see the Secret at
// different times agree, since none drops the newest or its own.
func bundle(own *x509.Certificate, trusted []byte, now time.Time) []byte {
	all := append(authorities(trusted), own)
	slices.SortFunc(all, func(a, b *x509.Certificate) int {
		if c := b.NotBefore.Compare(a.NotBefore); c != 0 {
			return c
		}
		return bytes.Compare(a.Raw, b.Raw)
	})
	all = slices.CompactFunc(all, (*x509.Certificate).Equal)
	newest := all[0]
	settled := now.After(newest.NotBefore.Add(leafLife))
	kept := 0
	return encode(slices.DeleteFunc(all, func(c *x509.Certificate) bool {
		if c.Equal(own) {
			return false
		}
		if now.After(c.NotAfter) || settled && !c.Equal(newest) || kept == maxAuthorities-1 {
			return true
		}
		kept++
		return false
	}))
}

// authorities are the certificates of a bundle. What is none is left out: the API server makes nothing of it either.
func authorities(bundle []byte) []*x509.Certificate {
	var all []*x509.Certificate
	for block, rest := pem.Decode(bundle); block != nil; block, rest = pem.Decode(rest) {
		if c, err := x509.ParseCertificate(block.Bytes); err == nil {
			all = append(all, c)
		}
	}
	return all
}

func encode(certificates []*x509.Certificate) []byte {
	var b bytes.Buffer
	for _, c := range certificates {
		_ = pem.Encode(&b, &pem.Block{Type: "CERTIFICATE", Bytes: c.Raw}) // a buffer takes it
	}
	return b.Bytes()
}
