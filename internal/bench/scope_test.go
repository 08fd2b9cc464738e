package bench

import (
	"os"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestAScopeEndsWithWhatFailsAndCleansUp(t *testing.T) {
	var order []string
	dir := ""
	err := Scoped(t.Context(), func(s testing.TB) {
		dir = s.TempDir()
		s.Cleanup(func() { order = append(order, "first") })
		s.Cleanup(func() {
			order = append(order, "second")
			assert.Error(s, s.Context().Err(), "it has ended")
		})
		s.Errorf("wrong: %d", 1)
		require.NotEmpty(s, dir)
		s.Fatal("over")
		order = append(order, "never")
	})
	assert.EqualError(t, err, "wrong: 1\nover")
	assert.Equal(t, []string{"second", "first"}, order)
	_, err = os.Stat(dir)
	assert.ErrorIs(t, err, os.ErrNotExist)

	assert.NoError(t, Scoped(t.Context(), func(s testing.TB) { s.Log("nobody needs to know") }))
}
