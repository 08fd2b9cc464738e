package requeue

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
)

// Keys are the secrets that stamps are signed with. All of them verify, one signs, so that a new key can be known
// everywhere before it is used and an old one until no held pod carries it.
type Keys struct {
	Current string            // id of the key that signs
	Secrets map[string][]byte // by id
}

// MinKeyBytes is the least length of a secret.
const MinKeyBytes = 32

// Validate says what is wrong with the keys; it never quotes a secret.
func (k Keys) Validate() error {
	if len(k.Secrets) == 0 {
		return errors.New("no signing key")
	}
	for id, secret := range k.Secrets {
		if !validKeyID(id) {
			return fmt.Errorf("signing key %.40q: an id is 1 to 63 letters, digits, '-', '_' or '.'", id)
		}
		if len(secret) < MinKeyBytes {
			return fmt.Errorf("signing key %s: %d bytes, at least %d are needed", id, len(secret), MinKeyBytes)
		}
	}
	if _, ok := k.Secrets[k.Current]; !ok {
		return fmt.Errorf("current signing key %.40q is not among the keys", k.Current)
	}
	return nil
}

func validKeyID(id string) bool {
	return id != "" && len(id) <= 63 && !strings.ContainsFunc(id, func(c rune) bool {
		return (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && !strings.ContainsRune("._-", c)
	})
}

// CurrentKey is the entry of a Secret, or of the folder where it is mounted, that holds the id of the key that signs. Every
// other entry is a key: its name the id, its content the secret, without a newline at its end.
const CurrentKey = "current"

// ParseKeys reads keys as a Secret has them and says what is wrong with them; it quotes nothing that is in them.
func ParseKeys(entries map[string][]byte) (Keys, error) {
	keys := Keys{Secrets: map[string][]byte{}}
	for name, content := range entries {
		content = bytes.TrimSuffix(bytes.TrimSuffix(content, []byte("\n")), []byte("\r"))
		if name == CurrentKey {
			keys.Current = strings.TrimSpace(string(content))
		} else {
			keys.Secrets[name] = content
		}
	}
	// Validate would quote the id of a current key that is not there; here it may be anything, a secret too.
	if _, ok := keys.Secrets[keys.Current]; !ok {
		return Keys{}, fmt.Errorf("file %s must hold the name of another file: that of the key that signs", CurrentKey)
	}
	if err := keys.Validate(); err != nil {
		return Keys{}, err
	}
	return keys, nil
}
