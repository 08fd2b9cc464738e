package tidb

import (
	"errors"
	"fmt"
	"os"
	"strings"
)

// Source says where the SQLAlchemy URL of the metadata database comes from. Exactly one of its fields is set.
type Source struct {
	File string // path of a file, as a Secret is mounted
	Env  string // name of an environment variable
}

// URL reads the URL afresh, without the white space around it. Its errors name the file or the variable and never show
// what is in it.
func (s Source) URL() (string, error) {
	switch {
	case s.File != "" && s.Env != "":
		return "", errors.New("choosing the metadata database: both a file and an environment variable are given; give one")
	case s.File != "":
		content, err := os.ReadFile(s.File)
		if err != nil {
			return "", fmt.Errorf("reading the metadata database's connection URL: %w", err)
		}
		url := strings.TrimSpace(string(content))
		if url == "" {
			return "", fmt.Errorf("reading the metadata database's connection URL: the file %s is empty", s.File)
		}
		return url, nil
	case s.Env != "":
		url := strings.TrimSpace(os.Getenv(s.Env))
		if url == "" {
			return "", fmt.Errorf("reading the metadata database's connection URL: the environment variable %s is not set",
				s.Env)
		}
		return url, nil
	default:
		return "", errors.New("choosing the metadata database: neither a file nor an environment variable is given; give one")
	}
}
