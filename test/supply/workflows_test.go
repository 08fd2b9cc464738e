package supply

import (
	"os"
	"path/filepath"
	"regexp"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"sigs.k8s.io/yaml"
)

func TestTheWorkflowRunsWhatCIRuns(t *testing.T) {
	var workflow struct {
		Jobs map[string]struct {
			Strategy struct{ Matrix struct{ Target []string } }
		}
	}
	require.NoError(t, yaml.Unmarshal([]byte(file(t, ".github", "workflows", "ci.yaml")), &workflow))

	assert.ElementsMatch(t, matches(`(?m)^(?:\w+=\S+ )?make ([a-z-]+)$`, file(t, ".ci", "run")), workflow.Jobs["make"].Strategy.Matrix.Target)
}

func TestCIRunsTargetsThatThereAre(t *testing.T) {
	targets := matches(`(?m)^([a-z-]+):.* ## `, file(t, "Makefile"))
	for _, target := range matches(`(?m)\bmake ([a-z-]+)`, file(t, ".ci", "run")+file(t, ".github", "workflows", "release.yaml")) {
		assert.Contains(t, targets, target)
	}
}

func TestEveryActionIsPinned(t *testing.T) {
	for _, name := range []string{"ci.yaml", "release.yaml"} {
		uses := matches(`(?m)\buses: (.*)$`, file(t, ".github", "workflows", name))
		assert.NotEmpty(t, uses)
		for _, action := range uses {
			assert.Regexp(t, `^(\./\S+|[\w/-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+)$`, action)
		}
	}
}

// file is the content of one of the checkout's.
func file(t *testing.T, path ...string) string {
	t.Helper()
	content, err := os.ReadFile(filepath.Join(append([]string{"..", ".."}, path...)...))
	require.NoError(t, err)
	return string(content)
}

// matches are the first groups of all matches.
func matches(pattern, text string) []string {
	var found []string
	for _, match := range regexp.MustCompile(pattern).FindAllStringSubmatch(text, -1) {
		found = append(found, match[1])
	}
	return found
}
