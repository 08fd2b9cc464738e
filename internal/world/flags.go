package world

// WatcherFlags are the flags of a watcher that serves the World, but for its access to the API server and to the
// database. Its Lease is short, so that the next watcher takes over within seconds.
func (w *World) WatcherFlags() []string {
	return []string{
		"--signing-keys-dir=" + w.KeysDir, "--installation=" + Installation, "--namespace=" + w.Namespace,
		"--lease-namespace=" + w.Namespace, "--lease-duration=3s", "--lease-renew-deadline=2s", "--lease-retry-period=200ms",
		"--metrics-listen=127.0.0.1:0", "--log-format=text",
	}
}
