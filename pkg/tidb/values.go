package tidb

import (
	"errors"
	"strings"
	"time"
)

// normalID is a UUID in lower case with dashes; empty where the text is none.
func normalID(text string) string {
	hex := strings.ToLower(strings.ReplaceAll(text, "-", ""))
	if len(hex) != 32 || strings.Trim(hex, "0123456789abcdef") != "" {
		return ""
	}
	return strings.Join([]string{hex[:8], hex[8:12], hex[12:16], hex[16:20], hex[20:]}, "-")
}

// timestamp scans queued_dttm: a time from PostgreSQL and MySQL, text in UTC from SQLite. Zero where the column is null.
type timestamp struct{ time.Time }

// Scan takes what a driver makes of the column.
func (t *timestamp) Scan(value any) error {
	switch value := value.(type) {
	case nil:
		t.Time = time.Time{}
		return nil
	case time.Time:
		t.Time = value.UTC()
		return nil
	case string:
		for _, layout := range []string{"2006-01-02 15:04:05.999999", "2006-01-02 15:04:05.999999-07:00", time.RFC3339Nano} {
			if parsed, err := time.Parse(layout, value); err == nil {
				t.Time = parsed.UTC()
				return nil
			}
		}
	}
	return errors.New("queued_dttm is not a time")
}
