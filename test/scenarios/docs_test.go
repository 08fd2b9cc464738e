package scenarios

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// documented returns the numbers of the table's rows and the letters of what must hold, as docs/scenarios.md has them.
func documented(t *testing.T) []string {
	t.Helper()
	text, err := os.ReadFile(root + "/docs/scenarios.md")
	require.NoError(t, err)
	var found []string
	for _, line := range regexp.MustCompile(`(?m)^(?:\| (\d+[a-z]?) \||([a-z])\. )`).FindAllSubmatch(text, -1) {
		found = append(found, string(line[1])+string(line[2]))
	}
	require.NotEmpty(t, found)
	return found
}

func TestEveryRowOfTheTableIsPlayed(t *testing.T) {
	t.Parallel()
	docs := documented(t)
	var played []string
	for _, c := range slices.Concat(rows(), promises()) {
		assert.True(t, slices.Contains(docs, c.row), "docs/scenarios.md has no row of the test %q", c.name())
		played = append(played, c.row)
	}
	for _, row := range docs {
		assert.True(t, slices.Contains(played, row), "row %s of docs/scenarios.md has no test", row)
	}
	assert.Equal(t, docs, slices.Compact(played), "the tests are in the order of docs/scenarios.md")
}

func TestEveryTestThatTheDocsNameIsThere(t *testing.T) {
	t.Parallel()
	there := map[string]bool{}
	require.NoError(t, filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() || !strings.HasSuffix(path, "_test.go") {
			return err
		}
		source, err := os.ReadFile(path)
		for _, match := range regexp.MustCompile(`(?m)^func ((?:Test|Fuzz)\w+)\(`).FindAllSubmatch(source, -1) {
			there[string(match[1])] = true
		}
		return err
	}))
	for doc, least := range map[string]int{"promises.md": 30, "threats.md": 10} {
		text, err := os.ReadFile(filepath.Join(root, "docs", doc))
		require.NoError(t, err)
		named := regexp.MustCompile("`((?:Test|Fuzz)\\w+)`").FindAllSubmatch(text, -1)
		require.Greater(t, len(named), least)
		for _, name := range named {
			assert.True(t, there[string(name[1])], "docs/%s names %s", doc, name[1])
		}
	}
}
