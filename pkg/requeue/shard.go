package requeue

import (
	"hash/fnv"
	"strconv"
)

// Shard says which of so many shards, counted from 0, serves a namespace: the FNV-1a hash (32 bits) of its name, modulo
// their number. Webhook and watchers of any version must agree on it, so it never changes. Neither does another namespace
// that comes or goes change it, nor the order in which they are given.
func Shard(namespace string, shards int) int {
	if shards <= 1 {
		return 0
	}
	hash := fnv.New32a()
	_, _ = hash.Write([]byte(namespace)) // never fails
	return int(int64(hash.Sum32()) % int64(shards))
}

// InShard are the namespaces that a shard serves, in the order in which they are given.
func InShard(namespaces []string, shard, shards int) []string {
	var in []string
	for _, namespace := range namespaces {
		if Shard(namespace, shards) == shard {
			in = append(in, namespace)
		}
	}
	return in
}

// FirstShard is the lowest shard that serves any of the namespaces: its watchers do what is to be done once for all shards.
func FirstShard(namespaces []string, shards int) int {
	first := max(shards, 1) - 1
	for _, namespace := range namespaces {
		first = min(first, Shard(namespace, shards))
	}
	return first
}

// LeaseOf names the Lease that the watchers of a shard compete for: the installation's own where there is one shard.
func LeaseOf(name string, shard, shards int) string {
	if shards <= 1 {
		return name
	}
	return name + "-" + strconv.Itoa(shard)
}
