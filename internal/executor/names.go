package executor

import (
	"crypto/md5" //nolint:gosec // what Airflow hashes label values with
	"encoding/hex"
	"regexp"
	"strings"
	"unicode"

	"golang.org/x/text/unicode/norm"
)

const (
	maxName  = 63 // kubernetes_helper_functions.POD_NAME_MAX_LENGTH
	maxLabel = 63 // pod_generator.MAX_LABEL_LEN
)

// podName is kubernetes_helper_functions.create_unique_id with the random part given.
func podName(dagID, taskID, suffix string) string {
	base := dagID
	if base != "" && taskID != "" {
		base += "-"
	}
	base += taskID
	base = strings.Trim(cut(slug(base), maxName), ".-")
	suffix = "-" + suffix
	return strings.Trim(cut(base, maxName-len(suffix)), "-.") + suffix
}

// slug is python-slugify's slugify for what an ID may hold (\w, dot, dash). Letters with marks lose them, as there;
// letters of other alphabets are spelled out in Latin there and left out here: set Task.Name where that matters.
func slug(s string) string {
	var b strings.Builder
	dash := false
	for _, r := range norm.NFKD.String(s) {
		if unicode.Is(unicode.Mn, r) {
			continue
		}
		latin := latinize(unicode.ToLower(r))
		if latin == "" {
			dash = dash || r < unicode.MaxASCII
			continue
		}
		if dash && b.Len() > 0 {
			b.WriteByte('-')
		}
		dash = false
		b.WriteString(latin)
	}
	return b.String()
}

// latinize spells a lower-case letter or digit in ASCII; empty where it is neither.
func latinize(r rune) string {
	switch {
	case r >= 'a' && r <= 'z', r >= '0' && r <= '9':
		return string(r)
	case r == 'ß':
		return "ss"
	case r == 'æ':
		return "ae"
	case r == 'œ':
		return "oe"
	case r == 'ø':
		return "o"
	case r == 'ł':
		return "l"
	case r == 'đ', r == 'ð':
		return "d"
	case r == 'ı':
		return "i"
	}
	return ""
}

// safeLabel is pod_generator.make_safe_label_value: what may not stand in a label's value is left out, and a value that
// changed by it, or is too long, is cut and ends in a hash of the whole.
func safeLabel(value string) string {
	safe := regexp.MustCompile(`^[^a-z0-9A-Z]*|[^a-zA-Z0-9_\-\.]|[^a-z0-9A-Z]*$`).ReplaceAllString(value, "")
	if len(safe) <= maxLabel && safe == value {
		return safe
	}
	sum := md5.Sum([]byte(value)) //nolint:gosec // not for security: it tells values apart
	hash := hex.EncodeToString(sum[:])[:9]
	return cut(safe, maxLabel-len(hash)-1) + "-" + hash
}

func cut(ascii string, length int) string {
	return ascii[:min(len(ascii), length)]
}
